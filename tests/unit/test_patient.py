"""Waiting for a store that is away: how long, who is told, and what is written once all the same."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from world_kit import FakeCluster, cluster

from drainctl.errors import JournalError, StoreAway
from drainctl.journal.events import Event
from drainctl.journal.patient import AGAIN_S, Patience, PatientStore
from drainctl.rollout.world import Recorder


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds


class FailingStore:
    """Fails as often as told, each time after having written, as a store does whose answer is lost."""

    def __init__(self, fails: int = 0, error: Callable[[str], JournalError] = StoreAway) -> None:
        self.fails, self.error = fails, error
        self.marks: dict[str, Event] = {}

    def append(self, rollout: str, kind: str, *, mark: str, text: str = "", **rest: Any) -> Event:
        self.marks.setdefault(mark, Event(len(self.marks) + 1, 0.0, rollout, kind, rest["node"], text=text))
        self._fail()
        return self.marks[mark]

    def events(self, _rollout: str, after: int = 0) -> list[Event]:
        self._fail()
        return [event for event in self.marks.values() if event.seq > after]

    def _fail(self) -> None:
        if self.fails:
            self.fails -= 1
            raise self.error("journal x: no answer")


def patient(store: FailingStore, limit_s: float = 60, **more: Any) -> tuple[PatientStore, list[Any], Clock]:
    clock, told = Clock(), []
    waiting = Patience(limit_s, lambda *each: told.append(each), clock=clock, **more)
    return PatientStore(store, waiting, clock.pause), told, clock  # type: ignore[arg-type]


def test_one_event_is_written_however_often_it_is_tried():
    store = FailingStore(fails=5)
    front, told, _ = patient(store)
    assert front.append("r1", "note", text="this").seq == 1
    assert [event.text for event in store.marks.values()] == ["this"]
    why, back = told
    assert why == ("journal x: no answer; waiting for it up to 60 s", 0.0)
    assert back == (None, pytest.approx(5 * AGAIN_S))


def test_events_are_read_when_the_store_is_back():
    front, told, _ = patient(FailingStore(fails=3))
    assert front.events("r1") == []
    assert len(told) == 2


def test_patience_ends_and_is_not_begun_again_before_the_store_was_back():
    store = FailingStore(fails=10**6)
    front, told, clock = patient(store, limit_s=10)
    with pytest.raises(StoreAway):
        front.append("r1", "note")
    assert clock.now == pytest.approx(1010, abs=AGAIN_S)
    with pytest.raises(StoreAway):
        front.append("r1", "note")
    assert clock.now == pytest.approx(1010, abs=AGAIN_S), "the second one did not wait"
    assert len(told) == 1
    store.fails = 0
    front.append("r1", "note")
    store.fails = 3
    front.append("r1", "note")
    assert [why is None for why, _ in told] == [False, True, False, True]


def test_what_waiting_does_not_help_is_not_waited_for():
    front, told, clock = patient(FailingStore(fails=1, error=JournalError))
    with pytest.raises(JournalError):
        front.append("r1", "note")
    assert (told, clock.now) == ([], 1000.0)


def test_without_patience_the_first_failure_is_the_last():
    front, told, clock = patient(FailingStore(fails=1), limit_s=0)
    with pytest.raises(StoreAway):
        front.events("r1")
    assert (told, clock.now) == ([], 1000.0)


def test_who_gives_up_is_not_held():
    front, _, clock = patient(FailingStore(fails=10**6), give_up=lambda: True)
    with pytest.raises(StoreAway):
        front.events("r1")
    assert clock.now == 1000.0


# ---------------------------------------------------------------- the recorder


class Listener:
    def __init__(self) -> None:
        self.told: list[str] = []
        self.shown: list[dict[str, str]] = []

    def event(self, event: Event) -> None:
        self.told.append(event.text)

    def progress(self, text_by_node: dict[str, str]) -> None:
        self.shown.append(text_by_node)

    def close(self) -> None:
        pass


def test_an_outage_is_shown_at_once_and_written_when_it_is_over(monkeypatch):
    monkeypatch.setattr("drainctl.journal.patient.AGAIN_S", 0.01)
    store, listener = FailingStore(fails=2), Listener()
    record = Recorder(store, "r1", (listener,), patience_s=60)  # type: ignore[arg-type]
    record("node.began", "web1 begins", node="web1")
    assert "store: journal x: no answer; waiting for it up to 60 s" in listener.shown[0]["journal"]
    assert listener.shown[-1] == {}
    record("node.ended", "web1 ends", node="web1")
    assert listener.told == ["web1 begins", "the journal's store was away for 0 s", "web1 ends"]


def test_a_note_by_the_way_waits_for_nobody_and_comes_before_the_next_event():
    store, listener = FailingStore(), Listener()
    record = Recorder(store, "r1", (listener,))  # type: ignore[arg-type]
    record.note("lb1 took it back", node="web1", what="balancer-changed")
    assert listener.told == []
    record.waiting("web1", "idle: 3 requests")
    assert listener.told == ["lb1 took it back"]
    record.note("again", node="web1", what="balancer-changed")
    record("note", "after")
    assert listener.told == ["lb1 took it back", "again", "after"]


def test_others_are_shown_while_one_waits_for_the_store(until):
    store, listener = FailingStore(fails=10**6), Listener()
    record = Recorder(store, "r1", (listener,), patience_s=60)  # type: ignore[arg-type]
    writing = threading.Thread(target=record, args=("note", "late"))
    writing.start()
    until("the outage is shown", lambda: listener.shown)
    record.waiting("web2", "idle: 1 request")
    record.note("by the way")
    assert listener.shown[-1].keys() == {"journal", "web2"}
    store.fails = 0
    writing.join(10)
    assert not writing.is_alive()
    assert "late" in listener.told


# ---------------------------------------------------------------- the walk


class Outage(FakeCluster):
    """
    Its store is away when web1 is about to be restarted, for 30 s, in which a request comes to the node that
    was idle. where: whether writing or the lease notices it.
    """

    where = ""
    over = False

    def append(self, rollout: str, kind: str, **rest: Any) -> Event:
        event = super().append(rollout, kind, **rest)
        if (kind, rest.get("step"), self.where) == ("step.intended", "restart", "append"):
            self.pause()
        return event

    def check(self, need_s: float) -> None:
        del need_s
        if self.where == "lease" and self.nodes["web1"].current == "v2":
            self.pause()

    def pause(self) -> None:
        if not self.over:
            self.over = True
            self.sleep(30)
            self.nodes["web1"].busy_until = self.now + 4


@pytest.mark.parametrize("where", ["append", "lease"])
def test_what_was_seen_before_a_store_was_waited_for_is_looked_at_again(where):
    fake = Outage(cluster())
    fake.where = where
    plan = fake.plan()
    fake.begin(plan)
    assert fake.roll(plan).outcome == "done"
    assert fake.over
    assert fake.broken == []
    restarts = [event for event in fake.events if (event.kind, event.step) == ("step.intended", "restart")]
    assert len(restarts) == len(fake.nodes), "it is intended once"
