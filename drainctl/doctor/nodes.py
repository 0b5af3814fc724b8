"""What the nodes show: one function per trap. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from drainctl.config.placeholders import fill, values_of
from drainctl.doctor.finding import Finding, Severity
from drainctl.doctor.picture import Folder, NodeFacts, Picture
from drainctl.model import FlagFile, Node, Word
from drainctl.report.text import one_line, seconds, size

_CLOCK_S = 2.0
_HASHES = ("sha256sum", "shasum", "openssl")


def unreachable(picture: Picture) -> Iterator[Finding]:
    """A node that cannot be worked on, and whose host key is known."""
    for name, why in picture.survey.errors.items():
        if name not in picture.unknown_keys:
            change = f"make `connect:` and nodes.{name} of {picture.cluster.file} lead to it"
            yield Finding("node-unreachable", Severity.REFUSES, name, one_line(why), change)


def host_key(picture: Picture) -> Iterator[Finding]:
    """A node of whose SSH server no key is known."""
    for name, command in picture.unknown_keys.items():
        if name in picture.survey.errors:
            seen = "no key of its SSH server is in known_hosts"
            change = f"{command}   (compare the fingerprint first)"
            yield Finding("host-key-unknown", Severity.REFUSES, name, seen, change)


def not_examined(picture: Picture) -> Iterator[Finding]:
    """A node that answered, but not to what doctor asks."""
    for name, why in picture.unlooked.items():
        change = f"the user of `connect:` must be able to run /bin/sh on {name}"
        yield Finding("node-not-examined", Severity.ADVICE, name, one_line(why), change)


def flagged(picture: Picture) -> Iterator[Finding]:
    """A node that is drained already."""
    for node in picture.cluster.nodes:
        look = picture.survey.nodes.get(node.name)
        flag = look.disk.flag if look and look.disk else None
        if flag is not None:
            seen = f"its flag says: {one_line(flag)[:160] or '(empty)'}"
            yield Finding("node-flagged", Severity.REFUSES, node.name, seen, f"drainctl restore {node.name}")


def check_answer(picture: Picture) -> Iterator[Finding]:
    """A health page that does not say 200 although the node is in rotation and not flagged."""
    if not picture.cluster.health.check:
        return
    up = {node.name for node, _, row in picture.rows() if row.status.word is Word.UP}
    for node in picture.cluster.nodes:
        look = picture.survey.nodes.get(node.name)
        if look is None or node.name not in up or (look.disk and look.disk.flag is not None):
            continue
        if look.check is None or look.check.status != 200:
            url = _filled(picture, node, picture.cluster.health.check)
            seen = f"{url} answers {look.check}"
            change = "health: {check: …} must be the URL that HAProxy asks, and answer 200"
            yield Finding("check-not-200", Severity.REFUSES, node.name, seen, change)


def version(picture: Picture) -> Iterator[Finding]:
    """A version that is not answered, or that is not the release which `current` links to."""
    asked = picture.cluster.health.version
    for node in picture.cluster.nodes if asked else ():
        look = picture.survey.nodes.get(node.name)
        if look is None or look.version is None:
            continue
        url = _filled(picture, node, asked or "")
        current = look.disk.current if look.disk else None
        said = one_line(look.version.body)[:80]
        if look.version.status != 200:
            change = "health: {version: …} must be a URL that answers with the release's id"
            seen = f"{url} answers {look.version}"
            yield Finding("version-silent", Severity.REFUSES, node.name, seen, change)
        elif current is not None and said != current:
            seen = f"{url} answers {said or 'nothing'}, current links to {current}"
            change = f"drainctl restart --only {node.name}, or a version page that answers {current}"
            yield Finding("version-not-current", Severity.ADVICE, node.name, seen, change)


def releases(picture: Picture) -> Iterator[Finding]:
    """Nodes whose `current` differ."""
    found = {name: look.disk.current for name, look in picture.survey.nodes.items() if look.disk}
    if len(set(found.values())) > 1:
        seen = ", ".join(f"{name} {current or 'none'}" for name, current in found.items())
        yield Finding("releases-differ", Severity.ADVICE, "nodes", seen, "deploy one release to all of them")


def check_elsewhere(picture: Picture) -> Iterator[Finding]:
    """The controller asks another address or port than that to which HAProxy sends this server's requests."""
    from urllib.parse import urlsplit

    told: set[str] = set()
    for node, place, row in picture.rows() if picture.cluster.health.check else ():
        if not row.address or node.name in told:
            continue
        asked = urlsplit(_filled(picture, node, picture.cluster.health.check))
        host, _, port = row.address.rpartition(":")
        mine = asked.port or (443 if asked.scheme == "https" else 80)
        other_host = _is_address(asked.hostname) and asked.hostname != host.strip("[]")
        if other_host or str(mine) != port:
            told.add(node.name)
            seen = f"health.check asks {asked.hostname}:{mine}, {place} is {row.address}"
            change = "health: {check: …} with the address and port of the server line, unless it says `port`"
            yield Finding("check-asks-other", Severity.ADVICE, node.name, seen, change)


def _is_address(host: str | None) -> bool:
    return bool(host) and (":" in (host or "") or (host or "").replace(".", "").isdigit())


def flag_folder(picture: Picture) -> Iterator[Finding]:
    """A flag that this user cannot write, or that whoever serves the check cannot see."""
    for node, facts in _looked(picture):
        path = _flag(picture, node)
        folder = path.rpartition("/")[0] or "/"
        if facts.flag_folder == "missing":
            change = f"mkdir -p {folder}   (on {node.name}, writable by {facts.user})"
            yield Finding("flag-folder-missing", Severity.REFUSES, node.name, f"no folder {folder}", change)
        elif facts.flag_folder == "there":
            seen = f"{facts.user} cannot write into {folder}"
            change = f"chown {facts.user} {folder}   (on {node.name})"
            yield Finding("flag-folder-not-writable", Severity.REFUSES, node.name, seen, change)
        elif hidden := _hidden(facts):
            shown, uid = hidden
            seen = f"uid {uid} answers the check and cannot search {shown.path} ({shown.mode})"
            change = f"chmod o+x {shown.path}   (on {node.name})"
            yield Finding("flag-hidden", Severity.REFUSES, node.name, seen, change)


def _hidden(facts: NodeFacts) -> tuple[Folder, int] | None:
    """The first folder above the flag that stops a user who serves. Masters run as root; workers count."""
    for user in facts.serving:
        for folder in reversed(facts.flag_path):
            if not folder.lets_in(user):
                return folder, user.uid
    return None


def tools(picture: Picture) -> Iterator[Finding]:
    """Programs that the steps run on a node."""
    cluster = picture.cluster
    for node, facts in _looked(picture):
        missing = [] if "tar" in facts.tools or not cluster.release else ["tar"]
        if cluster.release and not facts.tools.intersection(_HASHES):
            missing.append("sha256sum")
        if cluster.health.active == "ss" and "http-check" in node.strategy:
            missing += [tool for tool in ("ss", "awk") if tool not in facts.tools]
        if missing:
            packages = {"ss": "iproute2", "awk": "gawk", "sha256sum": "coreutils"}
            wanted = " ".join(packages.get(tool, tool) for tool in missing)
            seen = f"not found on {node.name}: {', '.join(missing)}"
            change = f"apt-get install {wanted}   (or {node.name}'s own way)"
            yield Finding("tool-missing", Severity.REFUSES, node.name, seen, change)


def root(picture: Picture) -> Iterator[Finding]:
    """The release folder: `current` is a link, and this user may write."""
    for node, facts in _looked(picture):
        for folder in facts.unwritable:
            seen = f"{facts.user} cannot write into {folder}"
            change = f"chown {facts.user} {folder}   (on {node.name})"
            yield Finding("root-not-writable", Severity.REFUSES, node.name, seen, change)
        if facts.current in {"real", "dangling"}:
            path = f"{_root(picture, node)}/current"
            is_ = "a folder or file, not a link" if facts.current == "real" else "a link to nothing"
            change = f"mv {path} {path}.old   (on {node.name}, once)"
            severity = Severity.REFUSES if facts.current == "real" else Severity.ADVICE
            yield Finding("current-not-link", severity, node.name, f"{path} is {is_}", change)


def fence(picture: Picture) -> Iterator[Finding]:
    """A node that cannot keep who acts on it, so that it refuses nobody."""
    for node, facts in _looked(picture):
        if facts.unfenced:
            seen = f"{facts.user} cannot write {', '.join(facts.unfenced)}"
            change = (
                f"chown {facts.user} {facts.unfenced[-1]}   (on {node.name}; or its folder, or delete it)"
            )
            yield Finding("fence-not-kept", Severity.ADVICE, node.name, seen, change)


def disk(picture: Picture) -> Iterator[Finding]:
    """Room for one more release: its archive, and the release itself."""
    for node, facts in _looked(picture):
        if facts.free_kb is None or not facts.release_kb:
            continue
        need = 2 * facts.release_kb
        if facts.free_kb < need:
            seen = f"{size(facts.free_kb * 1024)} free, a release needs about {size(need * 1024)}"
            change = f"make room below {_root(picture, node)}, or lower release.keep"
            yield Finding("disk-full", Severity.REFUSES, node.name, seen, change)


def shared(picture: Picture) -> Iterator[Finding]:
    """Shared files that are not there."""
    for node, facts in _looked(picture):
        for item in facts.lacks:
            path = f"{_root(picture, node)}/shared/{item}"
            change = f"put {path} there, or write `{item}/` in release.shared where it is a folder"
            yield Finding("shared-missing", Severity.REFUSES, node.name, f"no {path}", change)


def restart(picture: Picture) -> Iterator[Finding]:
    """A restart command that is not there, or that would ask for a password."""
    for node, facts in _looked(picture):
        command = _restart(picture, node)
        if facts.restart is False:
            change = "service: {restart: …} with a program that is on the node"
            seen = f"`{command}`: its program is not there, or not executable"
            yield Finding("restart-missing", Severity.REFUSES, node.name, seen, change)
        elif facts.sudo is False:
            plain = command.removeprefix("sudo").strip()
            change = f"{facts.user} ALL=(root) NOPASSWD: {plain}   (visudo, with the program's whole path)"
            seen = f"`{command}`: {facts.user} may not run it without a password"
            yield Finding("sudo-asks", Severity.REFUSES, node.name, seen, change)


def clock(picture: Picture) -> Iterator[Finding]:
    """A clock that is off, beyond what the question itself took and the second that `date` rounds off."""
    for node, facts in _looked(picture):
        if not facts.now_s:
            continue
        late = facts.asked_s - (facts.now_s + 1)
        early = facts.now_s - facts.answered_s
        skew_s = max(late, early)
        if skew_s > _CLOCK_S:
            seen = (
                f"its clock is {seconds(skew_s)} {'behind' if late > early else 'ahead of'} the controller's"
            )
            yield Finding("clock-skew", Severity.ADVICE, node.name, seen, "run an NTP client on both")


# ---------------------------------------------------------------- what the rules share


def _looked(picture: Picture) -> Iterator[tuple[Node, NodeFacts]]:
    for node in picture.cluster.nodes:
        if node.name in picture.facts:
            yield node, picture.facts[node.name]


def _filled(picture: Picture, node: Node, template: str) -> str:
    return fill(template, values_of(picture.cluster, node, "RELEASE"))


def _flag(picture: Picture, node: Node) -> str:
    flag = picture.cluster.health.flag
    return _filled(picture, node, flag.path) if isinstance(flag, FlagFile) else ""


def _root(picture: Picture, node: Node) -> str:
    release = picture.cluster.release
    return _filled(picture, node, release.root) if release else ""


def _restart(picture: Picture, node: Node) -> str:
    return _filled(picture, node, picture.cluster.service.restart or "")
