"""render: configuration for nginx and HAProxy, printed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from drainctl.cli.common import Options, global_options
from drainctl.errors import ConfigError

if TYPE_CHECKING:
    from drainctl.model import Cluster

T = TypeVar("T")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def render() -> None:
    """
    Print a configuration of nginx or HAProxy; nothing is written, nobody is asked.

    \b
    drainctl render nginx > shop.conf
    drainctl render haproxy > haproxy.cfg
    """


@render.command()
@click.option("--node", "name", metavar="NODE", help="Whose; needed where the nodes' differ.")
@click.option("--upstream", is_flag=True, help="The first text of nginx.file instead (port-flip).")
@click.option("--site", is_flag=True, help="Only what belongs into the http block, for conf.d/.")
@click.option(
    "--pass",
    "protocol",
    type=click.Choice(["proxy", "fastcgi", "uwsgi"]),
    default="proxy",
    show_default=True,
    help="How nginx talks to the app.",
)
@click.option(
    "--nginx", "version", default="", metavar="VERSION", help="Use what this nginx has, such as 1.31."
)
@click.option(
    "--app", metavar="ADDRESS", help="HOST:PORT or unix:/PATH of the app, where drainctl.yml has none."
)
@click.option("--user", help="Of nginx's workers.")
@global_options
def nginx(options: Options, name: str | None, upstream: bool, version: str, **wishes: Any) -> None:
    """
    The nginx in front of the app, as the node's strategies need it: nginx.conf, whole.

    \b
    drainctl render nginx
    drainctl render nginx --node web1 --nginx 1.31 --user www-data
    drainctl render nginx --site --pass uwsgi
    drainctl render nginx --upstream
    """
    from drainctl.render.nginx import Wish, render_nginx, render_upstream

    cluster = _cluster(options)
    wish = Wish(version=_version(version), **wishes)

    def text(node: str) -> str:
        it = cluster.node(node)
        return render_upstream(cluster, it) if upstream else render_nginx(cluster, it, wish)

    click.echo(_one(cluster.names, name, "--node", text), nl=False)


@render.command()
@click.option("--balancer", "name", metavar="NAME", help="Whose; needed where the balancers' differ.")
@click.option("--bind", default="*:80", show_default=True, metavar="ADDRESS", help="Where users connect.")
@global_options
def haproxy(options: Options, name: str | None, bind: str) -> None:
    """
    The HAProxy in front of the nodes: haproxy.cfg, whole.

    \b
    drainctl render haproxy
    drainctl render haproxy --balancer lb1 --bind 10.0.0.8:80
    """
    from drainctl.render.haproxy import render_haproxy

    cluster = _cluster(options)
    balancers = {balancer.name: balancer for balancer in cluster.balancers}
    if not balancers:
        raise ConfigError(f"{cluster.file} names no balancers, so there is none to render")
    click.echo(
        _one(
            tuple(balancers), name, "--balancer", lambda it: render_haproxy(cluster, balancers[it], bind=bind)
        ),
        nl=False,
    )


def _shard_options(command: Callable[..., Any]) -> Callable[..., Any]:
    shards = click.option(
        "--shard",
        "shards",
        multiple=True,
        required=True,
        metavar="NAME=URL,URL",
        help="A shard and its machines, in the order in which they are asked. Once per shard.",
    )
    listen = click.option(
        "--listen",
        default="127.0.0.1:9100",
        show_default=True,
        metavar="HOST:PORT",
        help="Where the first shard is offered; each further one has the next port.",
    )
    return shards(listen(command))


@render.command("arb-haproxy")
@_shard_options
def arb_haproxy(shards: tuple[str, ...], listen: str) -> None:
    """
    A HAProxy that offers each shard of a data store on a port of its own and fails over by itself.

    \b
    drainctl render arb-haproxy --shard users=http://10.0.0.11:8080,http://10.0.0.12:8080
    """
    _arb("arb-haproxy", shards, listen)


@render.command("arb-nginx")
@_shard_options
def arb_nginx(shards: tuple[str, ...], listen: str) -> None:
    """
    The same for nginx; it belongs into the http block.

    \b
    drainctl render arb-nginx --shard users=http://10.0.0.11:8080,http://10.0.0.12:8080
    """
    _arb("arb-nginx", shards, listen)


def _arb(kind: str, shards: tuple[str, ...], listen: str) -> None:
    from drainctl.arb.render import render_arb

    known = dict(word.partition("=")[::2] for word in shards)
    try:
        text = render_arb(kind, {name: urls.split(",") for name, urls in known.items()}, listen=listen)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    click.echo(text, nl=False)


def _cluster(options: Options) -> Cluster:
    from drainctl.config.load import load

    return load(options.config)


def _version(text: str) -> tuple[int, ...]:
    """`1.31` or `nginx/1.31.3` as numbers; () for none."""
    words = text.removeprefix("nginx/").split(".") if text else []
    if not all(word.isdigit() for word in words):
        raise ConfigError(f"--nginx: found {text!r}, expected a version such as 1.31")
    return tuple(int(word) for word in words)


def _one(names: tuple[str, ...], wanted: str | None, option: str, text: Callable[[str], str]) -> str:
    """The text of the one that is wanted, or of all, where they are the same but for the first line."""
    if wanted is not None:
        if wanted not in names:
            raise ConfigError(f"{option}: found {wanted!r}, expected one of {', '.join(names)}")
        return text(wanted)
    texts: Mapping[str, str] = {name: text(name) for name in names}
    bodies = {body.partition("\n")[2] for body in texts.values()}
    if len(bodies) > 1:
        raise ConfigError(
            f"{', '.join(names)} need different ones", hint=f"{option} {names[0]} prints the first one's"
        )
    return texts[names[0]]
