"""One node's hands: every thing that is done on it or asked of it, over a transport."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import BinaryIO, Protocol

from drainctl.errors import CommandFailed, CommandTimedOut, Fenced, ReleaseError, TransportError
from drainctl.model import (
    Answer,
    Cluster,
    ContainerLook,
    Disk,
    Flag,
    FlagCommands,
    FlagFile,
    FlagHttp,
    Node,
    Release,
)
from drainctl.node import fence, shell
from drainctl.node.door import Done, Transport
from drainctl.node.fence import Claim, Fence
from drainctl.node.shell import Says

STAGE_LIMIT_S = 900.0
SHOWN_LINES = 5
_TEXT = "__drainctl_flag_text__"  # keeps the braces of the flag's JSON away from the placeholders' filling


class Getter(Protocol):
    """What is needed of drainctl.http.Http."""

    def get(self, url: str, *, timeout_s: float) -> Answer:
        """One GET; an answer with `error` where there was none."""
        ...


class Host:
    """
    A node's disk, flag, releases and commands.

    `fill` replaces {placeholders} in paths, commands and URLs for this node. Every method may raise
    ConnectFailed, CommandTimedOut or CommandFailed, with `.node` set; one that changes the node, of a host
    that `fenced` made, raises Fenced as well, and then has changed nothing. Safe to share between threads.
    """

    def __init__(
        self,
        node: Node,
        cluster: Cluster,
        transport: Transport,
        http: Getter,
        fill: Callable[[str], str],
        by: Fence | None = None,
    ) -> None:
        self._node = node
        self._cluster = cluster
        self._transport = transport
        self._http = http
        self._fill = fill
        self._fence = by
        self._quick_s = cluster.connect.timeout_s + 10

    def fenced(self, by: Fence) -> Host:
        """The same node over the same transport; what changes it is refused where a higher token has been."""
        return Host(self._node, self._cluster, self._transport, self._http, self._fill, by)

    def claim(self, wait_s: float) -> str:
        """
        Take the node over: from here on controllers with a lower token are refused there. What still runs
        there for another one is waited for, up to wait_s seconds.

        Returns: how it went ("raised", "held", "stolen from …", "not raised: …"), "" where there is no fence.
        """
        place = self._place
        if self._fence is None or place is None:
            return ""
        line = fence.claim(self._fence, place, wait_s)
        return fence.parse_claimed(
            self._judged("take it over", self._shell("take it over", line, wait_s + self._quick_s)).out
        )

    def claims(self) -> tuple[Claim, ...]:
        """The rollouts that came to this node, the latest first; none where it keeps no fence."""
        place = self._place
        return fence.parse(self._look("look at the fence", fence.look(place)).out) if place else ()

    def run(self, line: str, limit_s: float) -> Done:
        """Run a command line as it is. Raises: CommandFailed for any code but 0."""
        told = f"`{getattr(line, 'shown', line)}`"  # a value from the environment is never shown
        done = self._act(told, line, limit_s)
        if done.code:
            raise self._failed(told, done)
        return done

    def ask(self, line: str) -> Done:
        """Run a question of ours, whose exit code is part of the answer. Raises: TransportError."""
        with self._named():
            return self._transport.run(line, limit_s=self._quick_s)

    def do(self, what: str, line: str, limit_s: float | None = None) -> Done:
        """Run a line of ours; `what` names it in messages. Raises: CommandFailed for any code but 0."""
        return self._checked(what, self._act(what, line, limit_s or self._quick_s))

    def disk(self) -> Disk:
        """`current`, the releases and the flag, in one look (a flag over HTTP costs a GET as well)."""
        flag = self._flag
        path = self._fill(flag.path) if isinstance(flag, FlagFile) else None
        root = self._root if self._cluster.release else None
        seen = Disk()
        if root or path:
            seen = shell.parse_disk(self._look("look at the disk", shell.disk(root, path)).out)
        return seen._replace(flag=self._flag_by_http(flag)) if isinstance(flag, FlagHttp) else seen

    def container(self) -> ContainerLook | None:
        """The state of a node that is a container, where releases are images; None for every other node."""
        return None

    def set_flag(self, text: str) -> None:
        """Turn /http-check to 404. Raises: CommandFailed, naming the rollout whose flag is there already."""
        match self._flag:
            case FlagFile(path):
                filled = self._fill(path)
                self.do(f"set the flag {filled}", shell.set_flag(filled, text))
            case FlagCommands(command, _):
                line = self._fill(command.replace("{text}", _TEXT)).replace(_TEXT, quote(text))
                self.do("set the flag", line)
            case FlagHttp() as flag:
                held = self._flag_by_http(flag)
                if held is not None and shell.holder(held) != shell.holder(text):
                    raise self._held(held)
                self._send("PUT", flag, text)
            case None:
                raise self._no_flag()

    def clear_flag(self, rollout: str, *, steal: bool = False) -> None:
        """Turn /http-check back; a flag of another rollout stays, unless `steal`. Raises as set_flag."""
        match self._flag:
            case FlagFile(path):
                filled = self._fill(path)
                self.do(f"clear the flag {filled}", shell.clear_flag(filled, rollout, steal=steal))
            case FlagCommands(_, command):
                self.do("clear the flag", self._fill(command))
            case FlagHttp() as flag:
                held = None if steal else self._flag_by_http(flag)
                if held is not None and shell.holder(held) != rollout:
                    raise self._held(held)
                self._send("DELETE", flag, None)
            case None:
                raise self._no_flag()

    def stage(self, release: Release, limit_s: float = STAGE_LIMIT_S) -> str:
        """
        Bring the release under releases/: upload, or let the node fetch it; verify, unpack, link.

        Returns: "staged" or "already there".
        Raises: CommandFailed; the node then has no part of it. ReleaseError: the archive cannot be read.
        """
        root, shared = self._root, self._cluster.release.shared if self._cluster.release else ()
        what = f"stage {release.id}"
        if release.url:
            line = shell.pull(root, release.id, release.url, release.sha256 or "", shared)
            return _last(self.do(what, line, limit_s).out)
        if not release.archive:
            if release.id in self.disk().releases:
                return "already there"
            raise CommandFailed(f"{self._node.name}: release {release.id} is not there", node=self._node.name)
        line = shell.receive(root, release.id, release.sha256 or "", shared)
        try:
            with Path(release.archive).open("rb") as archive:
                done = self._act(what, line, limit_s, archive)
        except OSError as error:
            raise ReleaseError(f"{release.archive} cannot be read: {error}") from error
        return _last(self._checked(what, done).out)

    def switch(self, id_: str) -> None:
        """Point `current` at a release. Raises: CommandFailed (not there; `current` is no link)."""
        self.do(f"switch to {id_}", shell.switch(self._root, id_))

    def replace(self, release: str, ref: str | None, flag: str) -> str:
        """Put another container in the node's place (node.container_host). Raises: CommandFailed, Fenced."""
        del ref, flag
        raise self._no_container(f"replace it by {release}")

    def restart_container(self) -> str:
        """Stop the node's container and start it again. Raises: CommandFailed, Fenced."""
        raise self._no_container("start it again")

    def changes(self, ref: str) -> tuple[str, ...] | None:
        """What a container of this image would have that the live one has not; None where nothing tells."""
        del ref
        return None

    def prune(self, keep: int, protect: Collection[str] = ()) -> tuple[str, ...]:
        """Delete old releases (see shell.prune); the deleted ids."""
        done = self.do("prune releases", shell.prune(self._root, keep, protect), STAGE_LIMIT_S)
        return shell.parse_pruned(done.out)

    def active(self) -> int | None:
        """Requests in flight on the node's own sockets; None where health.active is "none"."""
        how = self._cluster.health.active
        if how == "none":
            return None
        if how != "ss":
            line = self._fill(how)
            return self._number(
                "count active requests", self._look(f"`{getattr(line, 'shown', line)}`", line)
            )
        from urllib.parse import urlsplit

        health = self._cluster.health
        asked = urlsplit(self._fill(health.check or health.version or health.ready or ""))
        port = asked.port or (443 if asked.scheme == "https" else 80)
        loopback = asked.hostname if (asked.hostname or "").startswith("127.") else None
        what = "count active requests"
        line = shell.active_requests(port, loopback, without_ss=self._cluster.connect.via == "docker")
        return self._number(what, self._look(what, line))

    def close(self) -> None:
        """End the connection. May be called twice."""
        self._transport.close()

    @property
    def _flag(self) -> Flag | None:
        return self._cluster.health.flag

    @property
    def _root(self) -> str:
        if not self._cluster.release:
            raise CommandFailed(f"{self._node.name}: drainctl.yml has no release.root", node=self._node.name)
        return self._fill(self._cluster.release.root)

    @property
    def _place(self) -> fence.Place | None:
        """Where this node keeps its fence."""
        root = self._root if self._cluster.release else None
        return fence.place(root, self._fill(self._flag.path) if isinstance(self._flag, FlagFile) else None)

    def _look(self, what: str, line: str) -> Done:
        """A line that changes nothing, so that nobody is refused."""
        return self._checked(what, self._shell(what, line, self._quick_s))

    def _act(self, what: str, line: str, limit_s: float, stdin: BinaryIO | None = None) -> Done:
        """A line that changes the node: under its fence, where there is one."""
        place = self._place
        if self._fence is None or place is None:
            return self._shell(what, line, limit_s, stdin)
        return self._judged(
            what, self._shell(what, fence.wrap(line, self._fence, place, what), limit_s, stdin)
        )

    def _judged(self, what: str, done: Done) -> Done:
        why = fence.refused(done.code, done.err)
        if why is None:
            return done
        name = self._node.name
        if done.code == fence.Says.BUSY:
            raise CommandFailed(f"{name}: {what}: {why}", node=name, left="it was not done", hint=_BUSY)
        raise Fenced(f"{name}: {what} was refused: {why}", node=name, left="no further act is started")

    def _shell(self, what: str, line: str, limit_s: float, stdin: BinaryIO | None = None) -> Done:
        try:
            with self._named():
                return self._transport.run(line, limit_s=limit_s, stdin=stdin)
        except CommandTimedOut as error:  # in our words: the line may be a page of shell
            raise CommandTimedOut(
                f"{self._node.name}: {what} was still running at its limit of {limit_s:g} s",
                node=self._node.name,
                left=error.left,
            ) from error

    def _checked(self, what: str, done: Done) -> Done:
        if done.code == Says.HELD:
            raise self._held(done.out)
        if done.code:
            raise self._failed(what, done)
        return done

    def _failed(self, what: str, done: Done) -> CommandFailed:
        said = [line for line in f"{done.err}\n{done.out}".splitlines() if line.strip()][-SHOWN_LINES:]
        name = self._node.name
        full = _FULL.search(done.err)
        if full:
            return CommandFailed(
                f"{name}: {what}: the disk is full: {full[0].strip()}",
                node=name,
                left="what was written of it is removed",
                hint=f"make room on {name} (release.keep bounds how many releases stay)",
            )
        shown = "\n".join(["", *(f"  {line}" for line in said)]) if said else " it printed nothing"
        return CommandFailed(
            f"{name}: {what} ended with code {done.code}:{shown}", node=name, hint=_HINTS.get(done.code)
        )

    def _held(self, text: str) -> CommandFailed:
        rollout = shell.holder(text)
        return CommandFailed(
            f"{self._node.name}: the flag is held by {f'rollout {rollout}' if rollout else 'somebody else'}: "
            f"{' '.join(text.split())[:300]}",
            node=self._node.name,
            left="it stays as it is",
            hint=f"`drainctl show {rollout}` tells what it does" if rollout else "it was not set by drainctl",
        )

    def _no_container(self, what: str) -> CommandFailed:
        return CommandFailed(f"{self._node.name}: {what}: it is no container", node=self._node.name)

    def _no_flag(self) -> CommandFailed:
        return CommandFailed(f"{self._node.name}: drainctl.yml has no health.flag", node=self._node.name)

    def _flag_by_http(self, flag: FlagHttp) -> str | None:
        url = self._fill(flag.url)
        answer = self._http.get(url, timeout_s=self._cluster.health.timeout_s)
        if answer.status == 200:
            return answer.body.rstrip("\n")
        if answer.status == 404:
            return None
        raise CommandFailed(f"{self._node.name}: GET {url}: {answer}", node=self._node.name)

    def _send(self, method: str, flag: FlagHttp, text: str | None) -> None:
        from drainctl.node.flag_http import send

        self._act(f"{method} the flag", ":", self._quick_s)  # the app knows no fence: asked right before
        with self._named():
            send(method, self._fill(flag.url), text, self._cluster.health.timeout_s)

    def _number(self, what: str, done: Done) -> int:
        try:
            return shell.parse_active(done.out)
        except ValueError as error:
            raise self._failed(f"{what}: no number in what it printed, and", done) from error

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except TransportError as error:
            error.node = error.node or self._node.name
            raise


_BUSY = "wait until it has ended: it is ended at its own limit, if not by itself"

# GNU tar says only how much it wrote when the last of a file did not fit.
_FULL = re.compile(r".*(No space left on device|Disk quota exceeded|Wrote only \d+ of \d+ bytes)")

_HINTS: dict[int, str] = {
    Says.NO_RELEASE: "`drainctl status` lists the releases of each node",
    Says.OTHER_SHA: "an id names one archive for ever: give the new one another --id",
    Says.BAD_SHA: "it was cut short or changed on its way: try again",
    Says.NO_SHARED: "put it there; a path in release.shared that ends in / is made as a folder",
    Says.NO_TOOL: "install it on the node",
}


def _last(out: str) -> str:
    return out.strip().rpartition("\n")[2]
