"""SSH for the lab: a real sshd per node, run by the user who runs the lab, with keys of its own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from drainctl.lab.programs import find_on_path
from drainctl.lab.settings import Settings

PORT = 2222  # above 1023, so that a normal user may listen there

SSHD = """\
# sshd of {node}: key login of the user who runs it, nothing else.
ListenAddress {host}:{port}
HostKey {own}/host_key
PidFile {own}/sshd.pid
AuthorizedKeysFile {folder}/ssh/id_ed25519.pub
PubkeyAuthentication yes
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UsePAM no
# The lab may lie below a folder that others can write to, such as /tmp.
StrictModes no
# A home of its own, as on a machine of its own: the login files of whoever runs the lab are not read.
SetEnv HOME={own}
# No message of the day, no user environment: a command and its output.
PrintMotd no
PrintLastLog no
Subsystem sftp internal-sftp
"""


def write_keys(folder: Path, settings: Settings) -> None:
    """Client key, a host key and an sshd_config per node, and known_hosts. Existing keys are kept."""
    client = folder / "ssh" / "id_ed25519"
    client.parent.mkdir(mode=0o700, exist_ok=True)
    _key(client, "lab")
    known = []
    for name in settings.node_names:
        own, host = folder / "nodes" / name, settings.host(name)
        _key(own / "host_key", name)
        kind, key, *_ = (own / "host_key.pub").read_text().split()
        known.append(f"[{host}]:{PORT} {kind} {key}\n")
        text = SSHD.format(node=name, host=host, port=PORT, own=own, folder=folder)
        (own / "sshd_config").write_text(text)
    (folder / "ssh" / "known_hosts").write_text("".join(known))
    if os.geteuid() == 0:
        # sshd started by root wants its privilege separation folder, which an init system would make.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)


def _key(path: Path, comment: str) -> None:
    if path.exists():
        return
    keygen = find_on_path("ssh-keygen", "openssh-client")
    argv = [keygen, "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
