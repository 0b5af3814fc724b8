"""Load from a process of its own, so that it shares no interpreter with who rolls the release."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

from drainctl.errors import DrainctlError
from drainctl.lab.plan import Plan
from drainctl.lab.report import Report


class Load:
    """
    A load generator run by this process. Keyword arguments are those of `drainctl.lab.plan.Plan`. `python`
    starts a Python that has this package: another one than ours where it is to run in a container.

        with Load(lab.urls, clients=16) as load:
            ...                         # roll a release
            load.expect("v2")           # from here on only v2 may answer
        assert load.report.failed == 0

    Errors: DrainctlError if the generator ends without a report, or (unless told not to) if its run is
    not to be trusted: it could not keep its rate, or could not send.
    """

    def __init__(
        self, urls: Iterable[str], *, python: Sequence[str] = (sys.executable,), **plan: Any
    ) -> None:
        self.python = python
        self.plan = Plan(tuple(urls), **plan)
        self.report = Report()
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> Self:
        """Returns when the generator has begun."""
        argv = [*self.python, "-m", "drainctl.lab.generator", json.dumps(asdict(self.plan))]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._hear("started")
        return self

    def expect(self, version: str) -> None:
        """Requests started after this returns must be answered by `version`; others count as failed."""
        self._tell(f"expect {version}")
        self._hear(f"expecting {version}")

    def stop(self, *, trust: bool = True) -> Report:
        """End the run, wait for what is in flight; trust=False returns a doubtful report too."""
        self._tell("stop")
        return self.wait(trust=trust)

    def wait(self, *, trust: bool = True) -> Report:
        """Wait for the run's own end (`seconds`, `requests`) and return the report."""
        process = self._running()
        text = process.stdout.read() if process.stdout else ""
        self._close()
        if not text.startswith("{"):
            raise DrainctlError(
                f"the load generator ended with code {process.returncode} and no report: {text!r}"
            )
        self.report = Report.read(text)
        if trust and self.report.problem:
            raise DrainctlError(f"the load is not to be trusted: {self.report.problem}")
        return self.report

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.stop()
        elif self._process:
            self._process.terminate()
            self._close()

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise DrainctlError("the load generator does not run")
        return self._process

    def _tell(self, line: str) -> None:
        pipe = self._running().stdin
        try:
            if pipe:
                pipe.write(line + "\n")
                pipe.flush()
        except BrokenPipeError:
            return  # it has ended by itself; its report waits to be read

    def _hear(self, line: str) -> None:
        pipe = self._running().stdout
        heard = pipe.readline().strip() if pipe else ""
        if heard != line:
            self._running().terminate()
            self._close()
            raise DrainctlError(f"the load generator said {heard!r} instead of {line!r}")

    def _close(self) -> None:
        process, self._process = self._running(), None
        for pipe in (process.stdin, process.stdout):
            if pipe:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue
        process.wait()
