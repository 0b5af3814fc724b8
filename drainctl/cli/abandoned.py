"""`deploy --abandoned`: what is done first about a rollout whose drainctl died or was interrupted."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import click

from drainctl.cli.common import Options, ci_told, events_of, go, wired
from drainctl.journal.replay import CLOSED, RolloutState
from drainctl.journal.turn import Turn
from drainctl.model import Cluster
from drainctl.overview import open_rollout
from drainctl.rollout import ending
from drainctl.wire import Wired

HOW = ("resume", "abort", "fail")
TOLD = {"resume": "resumed", "abort": "taken back"}


def settle(
    options: Options, how: str, wait_s: float, checked: Callable[[Cluster], AbstractContextManager[object]]
) -> None:
    """
    Bring an abandoned rollout to its end, forward (`resume`) or back (`abort`); where there is none, nothing.

    One that halted or was paused is no abandoned one: a person is needed, so it is left for `begin` to
    refuse. It is told by reports of its own, since its events are another rollout's than the deploy's.

    Args:
        options: the global ones.
        how: `resume` or `abort`.
        wait_s: how long its drainctl may still hold the lease, seconds.
        checked: entered before anything is done, so that a wrong SOURCE is refused first.
    Raises: LeaseHeld after wait_s; click's Exit where it did not come to its end.
    """
    with ci_told(options), wired(options) as adapters:
        state = _left(adapters, wait_s)
        if state is None:
            return
        with checked(adapters.cluster):
            _say(state, how)
    back = how == "abort"
    past = partial(events_of, rollout=state.id)
    result = go(options, lambda it: it.resume(state.id, back=back), past=past)
    if result.outcome not in CLOSED:
        click.echo(f"rollout {state.id} is {result.outcome}, so no new one was begun", err=True)
        raise click.exceptions.Exit(int(result.exit))
    click.echo(f"rollout {state.id} is over ({result.outcome}); now the deploy", err=True)


def _left(adapters: Wired, wait_s: float) -> RolloutState | None:
    """The rollout that nobody goes on with; one whose drainctl lives is waited for, up to wait_s."""
    store, app = adapters.store, adapters.cluster.app
    turn = Turn(wait_s, partial(click.echo, err=True))
    while (lease := store.held(app)) and turn.left_s:
        turn.held_by(lease)
        time.sleep(min(0.5, turn.left_s))
    state = open_rollout(store, app)
    return state if state and state.ended in {None, "interrupted"} else None


def _say(state: RolloutState, how: str) -> None:
    what = f"{state.verb} {state.release.id if state.release else state.line or ''}".strip()
    click.echo(f"rollout {state.id} ({what}) was abandoned: {state.ended or 'its drainctl died'}", err=True)
    for name, node in state.nodes.items():
        click.echo(f"  {name}: {ending.where(node, state)}", err=True)
    click.echo(f"it is {TOLD[how]} first (--abandoned {how})", err=True)
