"""
A container as a node's release: looked at, replaced by one of another image, put back, kept, deleted.

| name             | what it is |
|------------------|------------|
| `NAME`           | the node |
| `NAME.drainctl-ID` | the container of release ID, kept: stopped, and not started by the engine |
| `NAME.drainctl.next` | what is about to become `NAME`, while one takes the other's place |

Every step of a replacement is seen by these names and by labels (node.recipe), so one that was cut short goes
on from what is there. The new container is complete, and has the drain flag, before the old one is touched.
"""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from drainctl.errors import CommandFailed, ConnectFailed, ReleaseError
from drainctl.model import ContainerLook, Disk, Release
from drainctl.node import fence, recipe
from drainctl.node.engine import Engine, Json
from drainctl.node.image import config_digest
from drainctl.node.recipe import RELEASE, ROLLOUT, TOKEN, Recipe

KEPT, NEXT = ".drainctl-", ".drainctl.next"
GRACE_S = 10  # the engine's own, where the container says nothing
LINES = 5
NEVER_STARTED = "0001-"
NO_RESTART = {"Name": "no"}


class By(NamedTuple):
    """Who replaces: what the labels of a container say that was made by drainctl."""

    rollout: str
    token: int


class Container:
    """
    One node's container at its engine. flag: path of the drain flag in it.

    Every method may raise ConnectFailed and CommandFailed, with the engine's words. Safe to share between
    threads, except that one replacement at a time is the caller's business.
    """

    def __init__(self, engine: Engine, name: str, flag: str) -> None:
        self.name = name
        self._engine = engine
        self._flag = flag
        self._next = name + NEXT

    # -------------------------------------------------------- looking

    def look(self) -> ContainerLook:
        """The live container's state; `release` is None where there is none."""
        there = self._engine.container(self.name)
        if there is None:
            return ContainerLook(None)
        state = there["State"]
        health = (state.get("Health") or {}).get("Status", "")
        look = ContainerLook(
            recipe.release_of(there),
            state["Status"],
            "" if health == "none" else health,
            state["ExitCode"],
            state["OOMKilled"],
            there["RestartCount"],
            fixed=recipe.irreplaceable(there, self._flag),
        )
        return (
            look
            if look.running and health != "unhealthy" and not look.restarts
            else look._replace(words=self._words(state))
        )

    def _words(self, state: Json) -> str:
        if state.get("Error"):
            return str(state["Error"])
        log = (state.get("Health") or {}).get("Log") or []
        if state["Status"] == "running" and log:
            return " ".join(str(log[-1]["Output"]).split())[-300:]
        said = self._engine.logs(self.name, LINES).strip().splitlines()
        return " | ".join(line.strip() for line in said)[-300:]

    def running(self) -> bool:
        """Not while the engine is about to start it again."""
        there = self._engine.container(self.name)
        return there is not None and there["State"]["Status"] == "running"

    def disk(self) -> Disk:
        """
        Current is the live container's release, releases those of the kept ones with it; the flag is read out
        of the container, also of one that does not run.

        Raises: ConnectFailed where there is no container at all.
        """
        live, kept = self._engine.container(self.name), self._kept()
        holds = live or self._engine.container(self._next)
        if holds is None and not kept:
            raise ConnectFailed(f"no container {self.name} on engine {self._engine.url}")
        made = dict(kept)
        current = recipe.release_of(live) if live else None
        if live and current:
            made[current] = live["Created"]
        flag = self._read(holds["Id"], self._flag) if holds else None
        releases = tuple(sorted(made, key=lambda release: made[release]))
        return Disk(
            current, releases, None if flag is None else flag.data.decode(errors="replace").rstrip("\n")
        )

    def file(self, path: str) -> str | None:
        """A file of the container, running or not, as text; None where there is none."""
        for name in (self.name, self._next):
            found = self._read(name, path)
            if found is not None:
                return found.data.decode(errors="replace")
        return None

    def newest(self) -> By:
        """The highest token, and its rollout, that any container of this node was made under."""
        found = [By("", 0)]
        for name in (self.name, self._next, *map(self._kept_name, self._kept())):
            labels = ((self._engine.container(name) or {}).get("Config") or {}).get("Labels") or {}
            if str(labels.get(TOKEN, "")).isdigit():
                found.append(By(str(labels.get(ROLLOUT)), int(labels[TOKEN])))
        return max(found, key=lambda each: each.token)

    def changes(self, ref: str) -> tuple[str, ...] | None:
        """What a container of this image will have that the live one has not; None: not on this engine."""
        live, image = self._engine.container(self.name), self._engine.image(ref)
        if live is None or image is None:
            return None
        return recipe.differences(live, self._engine.image(live["Image"]), image)

    # -------------------------------------------------------- staging

    def stage(self, release: Release) -> str:
        """
        The image is on the engine: it is there already, is loaded, or is pulled.

        Returns: its id. Raises: CommandFailed (missing, denied, no room, or not what was named);
        ReleaseError where the archive cannot be read. Nothing that runs is touched.
        """
        ref = release.image or ""
        image = self._engine.image(ref)
        wanted = f"sha256:{release.sha256}" if release.sha256 else None
        meant = wanted or (config_digest(release.archive, ref) if release.archive else None)
        if image is None or (image["Id"] != meant and (meant or release.archive)):
            self._bring(release, ref)
            image = self._engine.image(ref)
        if image is None:
            raise CommandFailed(f"the archive {release.archive} holds no image {ref}")
        if wanted and image["Id"] != wanted:
            raise CommandFailed(f"image {ref} is {image['Id']} on engine {self._engine.url}, not {wanted}")
        live = self._engine.container(self.name)
        if live and recipe.release_of(live) == release.id and live["Image"] != image["Id"]:
            raise CommandFailed(
                f"{self.name} runs {release.id} already, of another image ({live['Image'][:19]}, "
                f"{ref} is {image['Id'][:19]})",
                hint="an id names one image for ever: give the new one another tag, or another --id",
            )
        return str(image["Id"])

    def _bring(self, release: Release, ref: str) -> None:
        if release.archive is None:
            self._engine.pull(ref)
            return
        try:
            with Path(release.archive).open("rb") as archive:
                self._engine.load(archive)
        except OSError as error:
            raise ReleaseError(f"{release.archive} cannot be read: {error}") from error

    # -------------------------------------------------------- replacing

    def replace(self, release: str, ref: str | None, by: By, flag: str) -> str:
        """
        Put a container of `release` in place of the live one, which is kept. May be cut short anywhere and
        called again.

        ref: the image that it is made of, as the live one was made; None: it is the kept one. flag: text of
        the drain flag that it has from its start.
        """
        live = self._engine.container(self.name)
        if live and recipe.release_of(live) == release:
            self._put_away(self._engine.container(self._next))
        else:
            self._prepare(live, release, ref, by)
            if live:
                self._hand_over(live, flag)
                self._park(live)
            self._engine.rename(self._next, self.name)
        self._engine.start(self.name)
        self._settle(release)
        return f"{self.name} is of release {release}"

    def restart(self) -> str:
        """Stop the live container and start it again; what is on its disk stays, the flag too."""
        live = self._engine.container(self.name)
        if live:
            self._stop(live)
        self._engine.start(self.name)
        return f"{self.name} was started again"

    def write_flag(self, text: str) -> None:
        """Put the flag into a container that does not run."""
        name = self.name if self._engine.container(self.name) else self._next
        self._engine.put(name, _tar({self._flag: _File(text.encode())}))

    def _prepare(self, live: Json | None, release: str, ref: str | None, by: By) -> None:
        """`NAME.drainctl.next` is a complete container of that release."""
        there = self._engine.container(self._next)
        if there and recipe.release_of(there) == release and (live is None or _was_started(there)):
            return
        self._put_away(there)
        labels = {RELEASE: release, ROLLOUT: by.rollout, TOKEN: str(by.token)}
        if ref is not None:
            if live is None:
                raise CommandFailed(f"no container {self.name} to make another like it")
            self._create(self._next, recipe.recipe(live, self._engine.image(live["Image"]), ref, labels))
            return
        kept = self._engine.container(self._kept_name(release))
        if kept is None:
            raise CommandFailed(f"no container of release {release} is kept beside {self.name}")
        if recipe.is_parked(kept):
            self._create(self._next, recipe.unparked(kept, self._ref(kept), labels))
        else:
            self._engine.rename(kept["Name"].removeprefix("/"), self._next)

    def _hand_over(self, live: Json, flag: str) -> None:
        """The next one gets what the live one has besides its recipe: flag, fence, restart policy."""
        policy = live["HostConfig"]["RestartPolicy"]
        if policy["Name"] not in ("", "no"):
            self._engine.restart_policy(self._next, policy)
        if recipe.mount_at(live, self._flag):
            return  # both see the same files
        was = self._read(live["Id"], self._flag) or _File(b"")
        files = {self._flag: was._replace(data=flag.encode())}
        place = fence.place(None, self._flag)
        for path in (place.file, place.log) if place else ():
            if found := self._read(live["Id"], path):
                files[path] = found
        self._engine.put(self._next, _tar(files))

    def _park(self, live: Json) -> None:
        """The live one is stopped and kept under its release's name; a container of Compose by a stand-in."""
        self._stop(live)
        kept = self._kept_name(recipe.release_of(live))
        self._engine.remove(kept)
        if recipe.is_compose(live):
            self._create(kept, recipe.parked(live, self._ref(live)))
            self._engine.remove(live["Id"], volumes=False)
        else:
            self._engine.rename(live["Id"], kept)
            self._engine.restart_policy(live["Id"], NO_RESTART)

    def _settle(self, release: str) -> None:
        """Of a live release nothing is kept besides, and what is kept is not started by the engine."""
        self._engine.remove(self._kept_name(release))
        for name in self._engine.names(self.name + KEPT):
            there = self._engine.container(name)
            if there and there["HostConfig"]["RestartPolicy"]["Name"] not in ("", "no"):
                self._engine.restart_policy(name, NO_RESTART)

    def _put_away(self, there: Json | None) -> None:
        """A next one that nobody wants any more: kept where it has run, else deleted."""
        if there is None:
            return
        kept = self._kept_name(recipe.release_of(there))
        if _was_started(there) and self._engine.container(kept) is None:
            self._engine.restart_policy(there["Id"], NO_RESTART)
            self._engine.rename(there["Id"], kept)
        else:
            self._engine.remove(there["Id"])

    def _stop(self, live: Json) -> None:
        grace_s = live["Config"].get("StopTimeout")
        self._engine.stop(live["Id"], GRACE_S if grace_s is None else grace_s)

    def _create(self, name: str, made: Recipe) -> None:
        self._engine.create(name, made.config, made.networks)

    def _ref(self, container: Json) -> str:
        """Its image by name, where that name still means it."""
        name = str(container["Config"]["Image"])
        image = self._engine.image(name)
        return name if image and image["Id"] == container["Image"] else str(container["Image"])

    # -------------------------------------------------------- keeping

    def prune(self, keep: int, protect: Collection[str]) -> tuple[str, ...]:
        """
        Delete the oldest kept containers, so that `keep` releases stay, the live one with them: never the
        one before it, or a protected one. Images stay. Returns: the ids.
        """
        kept = self._kept()
        order = [*sorted(kept, key=lambda release: kept[release])]
        gone: list[str] = []
        for release in order[:-1]:
            if len(order) - len(gone) + 1 <= keep:
                break
            if release not in protect:
                self._engine.remove(self._kept_name(release))
                gone.append(release)
        return tuple(gone)

    def _kept(self) -> Mapping[str, str]:
        """The kept releases, and when their containers were made."""
        found: dict[str, str] = {}
        for name in self._engine.names(self.name + KEPT):
            there = self._engine.container(name)
            if there:
                labels = there["Config"].get("Labels") or {}
                found[name.removeprefix(self.name + KEPT)] = str(
                    labels.get(recipe.CREATED) or there["Created"]
                )
        return found

    def _kept_name(self, release: str) -> str:
        return self.name + KEPT + release

    def _read(self, name: str, path: str) -> _File | None:
        packed = self._engine.fetch(name, path)
        if packed is None:
            return None
        with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
            member = tar.next()
            file = tar.extractfile(member) if member and member.isfile() else None
            return _File(file.read(), member.uid, member.gid, member.mode) if file and member else None


class _File(NamedTuple):
    data: bytes
    uid: int = 0
    gid: int = 0
    mode: int = 0o644


def _tar(files: Mapping[str, _File]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, file in files.items():
            member = tarfile.TarInfo(path.lstrip("/"))
            member.size, member.mtime = len(file.data), int(time.time())
            member.uid, member.gid, member.mode = file.uid, file.gid, file.mode
            tar.addfile(member, io.BytesIO(file.data))
    return out.getvalue()


def _was_started(container: Json) -> bool:
    return not str(container["State"]["StartedAt"]).startswith(NEVER_STARTED)
