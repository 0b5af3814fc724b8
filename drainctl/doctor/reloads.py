"""The strategy reload: app servers that would keep the old release, or end. One function per trap. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from drainctl.doctor.finding import Finding, Severity
from drainctl.doctor.in_place import asked, closed, filled, going
from drainctl.doctor.picture import Gunicorn, Picture
from drainctl.model import Node, Reload
from drainctl.node import gunicorn

RELOAD = "reload"
KNOWN = {
    "uvicorn": "4 of 104,000 requests were cut when HUP replaced its workers, 13 of 1,800 in another run",
    "granian": "9 of 52,000 requests were cut, and started in a resolved release it served the old one still",
}


def _how(picture: Picture) -> Reload:
    return picture.cluster.service.reload or Reload()


def masters(picture: Picture) -> Iterator[Finding]:
    """The pid file of gunicorn leads to no master, or there are two."""
    for node, said in asked(picture, RELOAD):
        found = gunicorn.parse(said.out)
        path = filled(picture.cluster, node, _how(picture).gunicorn)
        if found is None:
            continue
        if found.first is None:
            seen = f"{path} names no living process"
            change = f"gunicorn --pid {path}, and service: {{reload: {{gunicorn: {path}}}}}"
            yield Finding("gunicorn-not-running", closed(node, RELOAD), node.name, seen, change)
        elif found.second is not None:
            seen = f"masters {found.first} ({path}) and {found.second} ({path}.2)"
            change = f"kill -TERM {found.second}   (or {found.first}: the one whose release is not wanted)"
            yield Finding("gunicorn-two-masters", closed(node, RELOAD), node.name, seen, change)


def stranger(picture: Picture) -> Iterator[Finding]:
    """The pid file names something else than gunicorn."""
    for node, facts in going(picture, RELOAD):
        found = facts.gunicorn
        if found and found.words and not any("gunicorn" in word for word in found.words):
            path = filled(picture.cluster, node, _how(picture).gunicorn)
            seen = f"process {found.pid} of {path} is no gunicorn but: {' '.join(found.words)[:80]}"
            change = "service: {reload: {gunicorn: …}} with gunicorn's own pid file"
            yield Finding("gunicorn-not-running", closed(node, RELOAD), node.name, seen, change)


def keeps_release(picture: Picture) -> Iterator[Finding]:
    """A gunicorn that was started in a way that makes it load the old release again."""
    for node, facts in going(picture, RELOAD):
        found = facts.gunicorn
        if found is None:
            continue
        why = change = ""
        if _how(picture).by == "hup" and _preloads(found):
            why = "by: hup, and gunicorn preloads the app: its workers are forked from what is loaded"
            change = "service: {reload: {gunicorn: …, by: usr2}}   (in drainctl.yml), or no preload_app"
        elif _resolved(picture, node, found):
            root = _root(picture, node)
            why = f"gunicorn works in {found.cwd} and was not told of the link: it starts there again"
            change = f'chdir = "{root}/current"   (in its configuration file; or --chdir {root}/current)'
        if why:
            yield Finding("reload-keeps-release", closed(node, RELOAD), node.name, why, change)


def ends_service(picture: Picture) -> Iterator[Finding]:
    """By HUP, a release that does not start ends the service."""
    for node, _ in going(picture, RELOAD):
        if _how(picture).gunicorn and _how(picture).by == "hup":
            change = "service: {reload: {gunicorn: …, by: usr2}}   (in drainctl.yml)"
            yield Finding("reload-by-hup", Severity.ADVICE, node.name, "service.reload: by: hup", change)


def ends_unit(picture: Picture) -> Iterator[Finding]:
    """By USR2 and TERM the master ends that systemd knows, and systemd then ends what is in its unit."""
    for node, facts in going(picture, RELOAD):
        if facts.gunicorn and facts.gunicorn.unit and _how(picture).by == "usr2":
            seen = f"gunicorn {facts.gunicorn.pid} is the main process of {facts.gunicorn.unit}, by: usr2"
            change = (
                "service: {reload: {gunicorn: …, by: hup}}, or strategy: [socket-flip]   (in drainctl.yml)"
            )
            yield Finding("usr2-ends-unit", Severity.LOSES, node.name, seen, change)


def servers(picture: Picture) -> Iterator[Finding]:
    """App servers whose reload is known not to do what is wanted of it."""
    for node, facts in going(picture, RELOAD):
        for name in sorted(facts.servers) if _how(picture).command else ():
            change = "strategy: [socket-flip]   (two processes; docs/reload.md has what was measured)"
            yield Finding("reload-server", Severity.LOSES, node.name, f"{name}: {KNOWN[name]}", change)


def _preloads(found: Gunicorn) -> bool:
    said = any(line.startswith("preload_app") and "True" in line for line in found.config)
    return said or "--preload" in found.words


def _resolved(picture: Picture, node: Node, found: Gunicorn) -> bool:
    """
    Its folder is a release's own and it goes by nothing but that. gunicorn keeps $PWD where that leads to its
    working folder, and a service manager sets none. Source: gunicorn/util.py, getcwd.
    """
    releases = f"{_root(picture, node)}/releases/"
    if found.pwd is None or not found.cwd.startswith(releases) or len(found.words) < 2:
        return False
    told = [word for word in found.words if word.startswith(("--chdir", "--pythonpath"))]
    told += [line for line in found.config if line.startswith(("chdir", "pythonpath"))]
    if told:
        return all("/releases/" in _value(found, word) for word in told)
    return found.pwd in {"", found.cwd} or found.pwd.startswith(releases)


def _value(found: Gunicorn, word: str) -> str:
    """An option with what it is set to, whether in the same word or the next."""
    if word not in {"--chdir", "--pythonpath"}:
        return word
    at = found.words.index(word) + 1
    return found.words[at] if at < len(found.words) else ""


def _root(picture: Picture, node: Node) -> str:
    release = picture.cluster.release
    return filled(picture.cluster, node, release.root) if release else ""
