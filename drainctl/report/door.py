"""The door to a report: what every listener on the events offers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from drainctl.journal.events import Event


class Listener(Protocol):
    """
    Told of a rollout's events in their order. A listener is called by one thread at a time, and may be
    slow or fail without harm to the rollout where it is called through `report.together.Together`.
    """

    def event(self, event: Event) -> None:
        """
        One event, which is on disk already. `event.text` is printed next to the event's node and step, so
        it repeats neither; it is one line, without a full stop.
        """
        ...

    def progress(self, text_by_node: Mapping[str, str]) -> None:
        """
        What each node in flight waits for at this moment: `{"web1": "idle: 3 requests on lb1"}`, the
        step's name first. Called at each look, never journaled; an empty mapping means nothing is awaited.
        """
        ...

    def close(self) -> None:
        """The last call, also of a rollout that failed or was interrupted. May be called twice."""
        ...
