"""What happens to a node: its app, its command, its disk, the whole machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from drainctl.errors import PreflightError
from drainctl.lab import ready
from drainctl.lab.cluster import Lab
from drainctl.lab.faults.door import Fault, environment, keep, members, put_back, send
from drainctl.lab.processes import Process
from drainctl.lab.programs import find_on_path

DISK = "4m"
FLAG = "taken out by hand\n"

# ---------------------------------------------------------------- processes


def app_killed(lab: Lab, node: str) -> None:
    send(_app(lab, node), signal.SIGKILL)


def app_frozen(lab: Lab, node: str) -> None:
    send(_app(lab, node), signal.SIGSTOP)


def app_thawed(lab: Lab, node: str) -> None:
    send(_app(lab, node), signal.SIGCONT)


def _app(lab: Lab, node: str) -> list[Process]:
    return members(lab.node(node)[0].master())


def off(lab: Lab, node: str) -> None:
    """Every process of the machine, at once."""
    found = [process for service in lab.node(node) for process in members(service.master())]
    send(found, signal.SIGKILL)


def on(lab: Lab, node: str) -> None:
    """What the machine's init system would start; files are as they were."""
    put_back(lab.ctl(node))
    for service in lab.node(node):
        if service.master() is None:
            service.start(environment(lab))


def reboot(lab: Lab, node: str) -> None:
    off(lab, node)
    on(lab, node)
    ready.wait(lab.node(node), lambda: ready.health(lab.settings.host(node), page="/healthz"), lab.limit_s)


# ---------------------------------------------------------------- its service command


def command(script: str) -> Callable[[Lab, str], None]:
    """A fault: the node's service command is this script; $SOUND is the one that works."""

    def begin(lab: Lab, node: str) -> None:
        path = lab.ctl(node)
        sound = keep(path)
        path.write_text(f"#!/bin/sh\nexport DRAINCTL_LAB='{lab.folder}'\nSOUND='{sound}'\n{script}\n")
        path.chmod(0o755)

    return begin


def command_back(lab: Lab, node: str) -> None:
    put_back(lab.ctl(node))


ASKS = """\
printf '[sudo] password for deploy: ' >&2
read -r answer || { echo 'sudo: no password was provided' >&2; exit 1; }
exec "$SOUND" "$@\""""
FLOODS = """head -c 100000000 /dev/zero | tr '\\0' 'x'\nexec "$SOUND" "$@\""""
BINARY = """head -c 65536 /dev/urandom\nexec "$SOUND" "$@\""""
SLOW = """sleep 3\nexec "$SOUND" "$@\""""

# ---------------------------------------------------------------- its disk


def disk_full(lab: Lab, node: str) -> None:
    """releases/ lies on a file system of its own (tmpfs, mounted by root) with as good as nothing left."""
    if os.geteuid() != 0:
        raise PreflightError("node-disk-full mounts a small tmpfs, which needs root")
    path = lab.root(node) / "releases"
    sound = keep(path)
    path.mkdir()
    mount = find_on_path("mount", "mount")
    subprocess.run(
        [mount, "-t", "tmpfs", "-o", f"size={DISK},mode=755", "drainctl-lab", str(path)], check=True
    )
    shutil.copytree(sound, path, symlinks=True, dirs_exist_ok=True)
    with suppress(OSError), (path / ".filler").open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


def disk_roomy(lab: Lab, node: str) -> None:
    path = lab.root(node) / "releases"
    if not os.path.lexists(path.with_name("releases.sound")):
        return
    (path / ".filler").unlink(missing_ok=True)
    shutil.copytree(path, path.with_name("releases.sound"), symlinks=True, dirs_exist_ok=True)
    # Lazily: the app that runs from it holds on to its old files.
    subprocess.run([find_on_path("umount", "mount"), "-l", str(path)], check=False, stderr=subprocess.DEVNULL)
    path.rmdir()
    put_back(path)


def current_is_a_folder(lab: Lab, node: str) -> None:
    path = lab.root(node) / "current"
    sound = keep(path)
    shutil.copytree(sound.resolve(), path)


def current_is_a_link(lab: Lab, node: str) -> None:
    path = lab.root(node) / "current"
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    put_back(path)


def current_is_lost(lab: Lab, node: str) -> None:
    """The folder that `current` links to is gone; what runs from it runs on."""
    keep((lab.root(node) / "current").resolve())


def current_is_found(lab: Lab, node: str) -> None:
    for path in (lab.root(node) / "releases").glob("*.sound"):
        put_back(path.with_name(path.name.removesuffix(".sound")))


def half_release(lab: Lab, node: str) -> str:
    """As after an unpacking that died: the folder is there, its files are not whole, its mark is missing."""
    newest = max((lab.folder / "releases").glob("*.tar.gz"), key=lambda path: path.stat().st_mtime_ns)
    path = lab.root(node) / "releases" / newest.name.removesuffix(".tar.gz")
    if path.exists():
        raise PreflightError(f"{path} is there already")
    path.mkdir()
    (path / "app.py").write_text("import os\nthis is where the unpack")
    return f"half of {path.name} is there"


def half_gone(lab: Lab, node: str) -> None:
    for path in (lab.root(node) / "releases").iterdir():
        if not (path / ".drainctl-release").exists() and (path / "app.py").exists():
            shutil.rmtree(path)


def flag_by_hand(lab: Lab, node: str) -> None:
    lab.flag(node).write_text(FLAG)


def flag_gone(lab: Lab, node: str) -> None:
    flag = lab.flag(node)
    if flag.exists() and flag.read_text() == FLAG:
        flag.unlink()


def unstartable(lab: Lab, node: str) -> None:
    """Nothing that is started on this node comes up, whatever release it is."""
    path = _conf(lab, node)
    sound = keep(path)
    path.write_text(sound.read_text() + "\nraise RuntimeError('this node starts nothing')\n")


def startable(lab: Lab, node: str) -> None:
    put_back(_conf(lab, node))


def _conf(lab: Lab, node: str) -> Path:
    return lab.folder / "nodes" / node / "gunicorn.conf.py"


def revived(lab: Lab, node: str) -> None:
    startable(lab, node)
    on(lab, node)


FAULTS = (
    Fault("app-killed", "node", "kill -9 the app; nginx answers 502", app_killed, on),
    Fault(
        "app-frozen", "node", "stop the app (SIGSTOP): it accepts and never answers", app_frozen, app_thawed
    ),
    Fault("node-off", "node", "kill every process of the machine", off, on),
    Fault("node-reboot", "node", "kill every process of the machine, then start them again", reboot),
    Fault("node-unstartable", "node", "no app comes up on this node, whatever release", unstartable, revived),
    Fault("node-flagged", "node", "somebody takes it out of rotation by hand", flag_by_hand, flag_gone),
    Fault("node-disk-full", "node", "the disk of releases/ is full (root: tmpfs)", disk_full, disk_roomy),
    Fault(
        "node-current-folder",
        "node",
        "`current` is a folder, not a link",
        current_is_a_folder,
        current_is_a_link,
    ),
    Fault(
        "node-current-lost",
        "node",
        "the release that `current` links to is gone",
        current_is_lost,
        current_is_found,
    ),
    Fault(
        "node-half-release",
        "node",
        "the newest release is half unpacked there already",
        half_release,
        half_gone,
    ),
    Fault("command-asks", "node", "the restart command asks for a password", command(ASKS), command_back),
    Fault(
        "command-hangs", "node", "the restart command never ends", command("exec sleep 86400"), command_back
    ),
    Fault(
        "command-fails", "node", "the restart command exits 7", command("echo no >&2; exit 7"), command_back
    ),
    Fault("command-slow", "node", "the restart command takes 3 s longer", command(SLOW), command_back),
    Fault("command-floods", "node", "the restart command prints 100 MB", command(FLOODS), command_back),
    Fault(
        "command-binary", "node", "the restart command prints 64 kB of noise", command(BINARY), command_back
    ),
)
