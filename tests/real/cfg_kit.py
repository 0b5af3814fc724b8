"""A real HAProxy on a haproxy.cfg of ours, and the environment that those in tests/real/cfg expect."""

from __future__ import annotations

import csv
import subprocess
from pathlib import Path

from drainctl.balancer.exchange import UnixExchange
from drainctl.errors import BalancerUnreachable
from tests.conftest import until


def environment(folder):
    return {"RUN_DIR": str(folder), "STAGE": "test", "EIGHT": "127.0.81.218"}


class Running:
    """HAProxy on a file, as long as the `with` lasts; `said` asks its socket."""

    def __init__(self, binary, file, folder, socket_path):
        self._log = (folder / "haproxy.log").open("wb")
        self._exchange = UnixExchange("haproxy", str(socket_path))
        self._process = subprocess.Popen(
            [binary, "-db", "-f", file], stdout=self._log, stderr=self._log, env=environment(folder)
        )

    def __enter__(self):
        try:
            until("HAProxy to answer", lambda: self.said("show info"))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        self._log.close()

    def said(self, command):
        assert self._process.poll() is None, Path(self._log.name).read_text()
        try:
            return self._exchange.ask([command])[0]
        except BalancerUnreachable:
            return None

    def table(self):
        rows = csv.DictReader(self.said("show stat").removeprefix("# ").splitlines())
        return {(row["pxname"], row["svname"]): row for row in rows}

    def state(self):
        """`show servers state`, by backend and server."""
        _, head, *lines = self.said("show servers state").strip().splitlines()
        names = head.removeprefix("# ").split()
        rows = [dict(zip(names, line.split(), strict=True)) for line in lines]
        return {(row["be_name"], row["srv_name"]): row for row in rows}
