from __future__ import annotations

import io
import threading
import time
from collections.abc import Mapping

from drainctl.journal.events import Event
from drainctl.report.together import Together

EVENT = Event(1, 1.0, "r", "note")


class Heard:
    def __init__(self, *, breaks: bool = False) -> None:
        self.calls: list[str] = []
        self.breaks = breaks
        self.inside = self.most_inside = 0

    def _hear(self, call: str) -> None:
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        self.calls.append(call)
        time.sleep(0)
        self.inside -= 1
        if self.breaks:
            raise OSError(28, "No space left on device")

    def event(self, event: Event) -> None:
        self._hear(event.kind)

    def progress(self, text_by_node: Mapping[str, str]) -> None:
        self._hear(f"progress {len(text_by_node)}")

    def close(self) -> None:
        self._hear("close")


def test_all_listeners_hear_everything_in_order() -> None:
    both = Heard(), Heard()
    together = Together(both)
    together.event(EVENT)
    together.progress({"web1": "x"})
    together.close()
    assert [each.calls for each in both] == [["note", "progress 1", "close"]] * 2


def test_a_listener_that_breaks_is_named_once_and_left_out() -> None:
    broken, well, errors = Heard(breaks=True), Heard(), io.StringIO()
    together = Together([broken, well], errors)
    together.event(EVENT)
    together.event(EVENT)
    together.close()
    assert broken.calls == ["note"]
    assert well.calls == ["note", "note", "close"]
    assert (
        errors.getvalue()
        == "warning: Heard stopped: [Errno 28] No space left on device; the rollout goes on\n"
    )


def test_a_broken_error_stream_stops_nothing() -> None:
    errors = io.StringIO()
    errors.close()
    Together([Heard(breaks=True)], errors).event(EVENT)


def test_threads_are_heard_one_at_a_time() -> None:
    heard = Heard()
    together = Together([heard])
    threads = [threading.Thread(target=lambda: [together.event(EVENT) for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(heard.calls) == 200
    assert heard.most_inside == 1


def test_what_is_awaited_is_told_again_while_nothing_else_happens() -> None:
    heard = Heard()
    together = Together([heard], beat_s=0.01)
    together.event(EVENT)
    together.progress({"web1": "restart"})
    deadline = time.monotonic() + 10
    while heard.calls.count("progress 1") < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    together.close()
    assert heard.calls.count("progress 1") >= 3
    assert heard.calls[-1] == "close"
    assert together._beats
    assert not together._beats.is_alive()
