"""
The table of docs/reliability.md: each cell is a fault at a step of a rollout, on a real lab under load.

A cell passes when the rollout ended as it must, no request failed (or no more than the fault itself costs),
`status` tells what is so, the printed way out works, and at the end every node is in rotation on the release
that it should be on. A dozen cells always; all of them with DRAINCTL_SOAK=1, which writes the page anew.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest
from click.testing import CliRunner
from rollout_kit import wait_up

from drainctl.lab.commands import lab
from drainctl.lab.faults.known import FAULTS
from tests.faults import faults_kit as kit
from tests.faults import reliability_page
from tests.faults.cells import CELLS, QUICK

pytestmark = [pytest.mark.real, pytest.mark.slow]

SOAK = os.environ.get("DRAINCTL_SOAK") == "1"
BASES = {False: "127.0.93", True: "127.0.94"}
PLAYED = [cell for cell in CELLS if SOAK or cell.id in QUICK]


@pytest.fixture(name="ground", scope="module")
def _ground(request):
    with kit.lab(BASES[request.param], ssh=request.param) as it:
        kit.prepare(it)
        yield kit.Ground(it)


@pytest.fixture(autouse=True)
def _no_failure_spoils_the_next(request):
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed > failed and "ground" in request.fixturenames:
        request.getfixturevalue("ground").recover()


@pytest.mark.parametrize(
    ("ground", "cell"),
    [pytest.param(cell.ssh, cell, id=cell.id) for cell in PLAYED],
    indirect=["ground"],
)
def test_a_fault_ends_in_a_known_state(ground, cell):
    result = kit.play(ground, cell)
    wait_up(ground.lab)
    if SOAK:
        kit.write(result, reliability_page.CELLS)


@pytest.mark.parametrize("ground", [False], indirect=True)
def test_what_is_broken_by_hand_is_mended_by_hand(ground):
    folder = str(ground.lab.folder)
    told = CliRunner().invoke(lab, ["break", "--list"])
    assert all(f"  {name} " in told.output for name in FAULTS), told.output
    broken = CliRunner().invoke(lab, ["break", "node-flagged", "web2", "--dir", folder])
    assert broken.exit_code == 0, broken.output
    assert ground.lab.flag("web2").exists()
    mended = CliRunner().invoke(lab, ["mend", "--dir", folder])
    assert mended.output == "node-flagged web2: mended\n"
    assert not ground.lab.flag("web2").exists()
    refused = CliRunner().invoke(lab, ["break", "node-flagged", "web9", "--dir", folder])
    assert str(refused.exception) == "node-flagged: found web9, expected one of web1, web2, web3"


def test_no_cell_is_there_twice_and_they_are_enough():
    assert [cell for cell, times in Counter(cell.id for cell in CELLS).items() if times > 1] == []
    assert len(CELLS) >= 120
    assert {cell.id for cell in CELLS} >= set(QUICK)


def test_the_page_has_a_row_for_each_cell_and_none_is_empty():
    if SOAK:
        reliability_page.write(cell.id for cell in CELLS)
    rows = reliability_page.shown()
    assert [row[:3] for row in rows] == [
        (cell.named, cell.at, "ssh" if cell.ssh else "local") for cell in CELLS
    ]
    assert [row for row in rows if not all(row)] == []
    exits = [{str(kit.EXITS[end]) for end in cell.ends.split("|")} for cell in CELLS]
    wrong = [row for row, allowed in zip(rows, exits, strict=True) if row[4] not in allowed]
    assert wrong == []
