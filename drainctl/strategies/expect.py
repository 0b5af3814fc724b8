"""
What steps expect to see: pure judgements of one `Seen`, each in words that a person can act on.

The facts behind them are in docs/haproxy-facts.md; a rule that rests on one names it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from drainctl.model import Amount, BalancerLook, Counters, Place, ServerRow, WatchPolicy, Word
from drainctl.steps import Expectation, Holds, Never, NotYet, Seen

Judgement = Holds | NotYet | Never

OUT = frozenset({Word.NOLB, Word.DRAIN, Word.MAINT, Word.DOWN})
# A tracking server and one whose check is an agent's show no check of their own.
PASSED = frozenset({"L7OK", "L6OK", "L4OK", "PROCOK", ""})


def count(number: int, noun: str) -> str:
    """`1 request`, `2 requests`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def listed(words: list[str]) -> str:
    """`lb1, lb2`: each once, in order of first mention."""
    return ", ".join(dict.fromkeys(words))


def _rows(seen: Seen) -> Iterator[tuple[Place, ServerRow | Judgement]]:
    """Each place with its row, or with the judgement that its absence forces. No row is not zero requests."""
    for place in seen.places:
        look = seen.looks.get(place.balancer)
        if look is None or look.error:
            why = (look.error or "").removeprefix(f"{place.balancer}: ") if look else "not asked"
            yield place, NotYet(f"{place.balancer} cannot be read: {why}")
            continue
        row = look.row(place.backend, place.server)
        yield place, row or Never(f"{place.balancer} shows no server {place.backend}/{place.server} any more")


# ---------------------------------------------------------------- the balancers


def out_of_rotation(seen: Seen) -> Judgement:
    """Every balancer shows the server NOLB, DRAIN, MAINT or DOWN in every backend."""
    shown: dict[str, list[str]] = {}
    for place, row in _rows(seen):
        if not isinstance(row, ServerRow):
            return row
        if row.status.word is Word.NO_CHECK:
            return Never(
                f"{place} has no check, so a 404 never takes it out of rotation",
                hint="add `check` to the server line",
            )
        if row.status.word not in OUT:
            if row.check == "L7STS" and row.check_code == 404:
                return Never(
                    f"{place.balancer} counts the 404 of {place.backend}/{place.server} as a failed check "
                    f"({row.status}, {row.check}): the backend lacks disable-on-404",
                    hint=f"add `http-check disable-on-404` to backend {place.backend}",
                )
            return NotYet(f"{row.status} on {place.balancer}")
        shown.setdefault(row.status.word.value, []).append(place.balancer)
    return Holds("; ".join(f"{word} on {listed(where)}" for word, where in shown.items()))


def idle(seen: Seen) -> Judgement:
    """Out of rotation, and no request in flight or queued by the count of any worker, old ones too."""
    out = out_of_rotation(seen)
    if not isinstance(out, Holds):
        return out
    busy = []
    for place, row in _rows(seen):
        if isinstance(row, ServerRow) and row.scur + row.qcur:
            queued = f" and {row.qcur} queued" if row.qcur else ""
            busy.append(f"{count(row.scur, 'request')} in flight{queued} on {place.balancer}")
    for look in seen.looks.values():
        for worker in look.old_workers:
            left = sum(row.scur + row.qcur for row in worker.rows if _is_ours(row, look, seen))
            if left:
                busy.append(
                    f"{count(left, 'request')} on the old worker {worker.pid} of {look.balancer} "
                    f"(reloaded {worker.uptime} ago)"
                )
    if busy:
        return NotYet("; ".join(busy))
    return Holds(f"0 requests on {listed([place.balancer for place in seen.places])}")


def _is_ours(row: ServerRow, look: BalancerLook, seen: Seen) -> bool:
    return Place(look.balancer, row.backend, row.server) in seen.places


def moved(seen: Seen) -> Judgement:
    """Every balancer that can be told shows MAINT, in which no client is bound to the server."""
    shown = []
    for place, row in _rows(seen):
        if not isinstance(row, ServerRow):
            return row
        if seen.looks[place.balancer].can_change:
            if row.status.word is not Word.MAINT:
                return NotYet(f"{row.status} on {place.balancer}")
            shown.append(place.balancer)
    return Holds(f"MAINT on {listed(shown)}" if shown else "no balancer's socket allows it")


def up(tail_s: float) -> Expectation:
    """
    Every balancer shows exactly UP, and has seen the node work since the restore.

    Proof is one of: a check that passed after one that did not; requests answered well and none badly;
    or a passed check after `tail_s`, within which HAProxy must have made one since.
    """

    def judge(seen: Seen) -> Judgement:
        proofs = []
        for place, row in _rows(seen):
            if not isinstance(row, ServerRow):
                return row
            if row.status.word is not Word.UP or not row.status.steady:
                last = f", last check {row.last_check or row.check}" if row.check not in PASSED else ""
                return NotYet(f"{row.status} on {place.balancer}{last}")
            proof = _proof_of_work(seen, place, row, tail_s)
            if proof is None:
                return NotYet(f"UP on {place.balancer}, but neither a check nor a request has passed since")
            proofs.append(proof)
        return Holds(f"UP on {listed([place.balancer for place in seen.places])}: {listed(proofs)}")

    return judge


def _proof_of_work(seen: Seen, place: Place, row: ServerRow, tail_s: float) -> str | None:
    before = seen.before.get("restore", {}).get(place.balancer)
    was = before.row(place.backend, place.server) if before else None
    passed = row.check in PASSED
    if before and _restarted(before, seen.looks[place.balancer]):
        return "its check passed in the new process" if passed else None
    if passed and was is not None and was.check not in PASSED:
        return "its check passed"
    if was is not None:
        delta = row.counters.since(was.counters)
        if not delta.fell and delta.answered_well and not delta.errors:
            return "requests answered"
    return f"its check passed within {tail_s:.3g} s" if passed and seen.spent_s > tail_s else None


def _restarted(before: BalancerLook, now: BalancerLook) -> bool:
    return bool(before.process and now.process and before.process.pid != now.process.pid)


def guard(keep_up: Amount, members: frozenset[str]) -> Expectation:
    """
    Enough *other* servers are up at every balancer, in every backend, for this one to leave.

    Counted are active servers with a weight, exactly UP, whose check has finished, and which are not on
    their way out themselves (`seen.out_too`). `keep_up` as a share is of the backend's servers that are
    not in MAINT, or of the cluster's own (`members`), whichever are more. Backups do not count.
    """

    def judge(seen: Seen) -> Judgement:
        found = []
        taken = False
        for place, row in _rows(seen):
            if not isinstance(row, ServerRow):
                return row
            taken = taken or row.status.word is Word.UP
            peers = [peer for peer in seen.looks[place.balancer].rows if peer.backend == place.backend]
            total = {peer.server for peer in peers if peer.status.word is not Word.MAINT}
            total |= {peer.server for peer in peers if peer.server in members}
            usable = [peer for peer in peers if peer.server != place.server and _usable(peer, seen)]
            need = keep_up.of(len(total))
            if len(usable) < need:
                found.append(
                    f"{place.balancer} {place.backend}: {len(usable)} other of {len(total)} servers up, "
                    f"rollout.keep_up = {keep_up} needs {need}"
                )
        if not taken:
            return Holds("in rotation nowhere already: nothing is taken away")
        return NotYet("; ".join(found)) if found else Holds(f"enough others are up (keep_up = {keep_up})")

    return judge


def _usable(row: ServerRow, seen: Seen) -> bool:
    return (
        row.status.word is Word.UP
        and row.status.steady
        and row.role == "active"
        and row.weight > 0
        and row.check in PASSED
        and row.server not in seen.out_too
    )


def watched(policy: WatchPolicy, peers: frozenset[str], tail_s: float) -> Expectation:
    """
    For `policy.for_s` seconds the node's errors stay within the budget plus its peers' rate.

    Errors are 5xx answers, failed connections and broken responses of its own rows since the step began.
    What its peers show at the same time (idle keep-alive races, a failing database) is not its fault: so
    many errors per request are allowed on top. A check that had asked before the restore may still answer
    404 within `tail_s`, and HAProxy believes it until the next one: that is waited out.
    """

    def judge(seen: Seen) -> Judgement:
        mine, theirs = Counters(), Counters()
        for place, row in _rows(seen):
            if not isinstance(row, ServerRow):
                return row
            if row.status.word is Word.NOLB and seen.spent_s <= tail_s:
                return NotYet(f"NOLB on {place.balancer}: a check from before the restore answered late")
            if row.status.word is not Word.UP:
                return Never(f"{row.status} on {place.balancer} {seen.spent_s:.1f} s after it was back")
            mine = mine.plus(_since(seen, place.balancer, row))
            for peer in seen.looks[place.balancer].rows:
                if peer.server in peers and peer.backend == place.backend and peer.server != row.server:
                    theirs = theirs.plus(_since(seen, place.balancer, peer))
        allowed = policy.errors + math.ceil(mine.sessions * theirs.errors / max(theirs.sessions, 1))
        told = f"{count(mine.errors, 'error')} in {count(mine.sessions, 'request')}"
        if mine.errors > allowed:
            return Never(
                f"{told} {seen.spent_s:.1f} s after it was back ({mine.answered_5xx} × 5xx, "
                f"{mine.connect_errors} refused connections, {mine.response_errors} broken responses); "
                f"allowed: {allowed} (watch.errors = {policy.errors}, peers had {theirs.errors} in "
                f"{theirs.sessions})"
            )
        left_s = policy.for_s - seen.spent_s
        if left_s > 0:
            return NotYet(f"{told}, {left_s:.0f} s left to watch", max(left_s, 0.001))
        return Holds(told)

    return judge


def _since(seen: Seen, balancer: str, row: ServerRow) -> Counters:
    """What `row` counted since the watch began; all of it where a new process counts from zero again."""
    look = seen.before.get("watch", {}).get(balancer)
    was = look.row(row.backend, row.server) if look else None
    delta = row.counters.since(was.counters) if was else Counters()
    return row.counters if delta.fell else delta


# ---------------------------------------------------------------- the node


def flagged(seen: Seen) -> Judgement:
    """The node's own /http-check answers 404, or its container does not run: then nothing answers."""
    answer, container = seen.host.check, seen.host.container
    if container and not container.running:
        return Holds(f"the container is {container.status or 'not there'}")
    if answer and answer.status == 404:
        return Holds("/http-check answers 404")
    return NotYet(f"/http-check answers {answer}, not 404, although the flag is set")


def unflagged(seen: Seen) -> Judgement:
    """The node's own /http-check answers 200."""
    answer = seen.host.check
    if answer and answer.status == 200:
        return Holds("/http-check answers 200")
    return NotYet(f"/http-check answers {answer}, not 200")


def quiet(seen: Seen) -> Judgement:
    """Idle still, and no request in flight by the node's own count of its sockets."""
    still = idle(seen)
    if not isinstance(still, Holds):
        return still
    if seen.host.active is None:
        return NotYet(f"the node's own count is not known: {seen.host.active_error}")
    if seen.host.active:
        return NotYet(f"{count(seen.host.active, 'request')} in flight on the node itself")
    return Holds("0 requests on the node")


def links_to(release: str) -> Expectation:
    """`current` links to the release."""

    def judge(seen: Seen) -> Judgement:
        current = seen.host.disk.current if seen.host.disk else None
        return Holds(f"current -> {release}") if current == release else NotYet(f"current -> {current}")

    return judge


def answers_with(release: str | None, *, version: bool, ready: bool) -> Expectation:
    """
    The app answers: health.version with the release's id, health.ready with 200.

    Args:
        release: the id that must be answered; None accepts any.
        version: whether health.version is configured.
        ready: whether health.ready is configured.
    """

    def judge(seen: Seen) -> Judgement:
        if version:
            answer = seen.host.version
            if answer is None or answer.status != 200:
                return NotYet(f"health.version answers {answer}")
            if release is not None and answer.body.strip() != release:
                return NotYet(f"health.version answers {answer.body.strip()[:60]!r}, not {release!r}")
        if ready and (seen.host.ready is None or seen.host.ready.status != 200):
            return NotYet(f"health.ready answers {seen.host.ready}")
        said = seen.host.version.body.strip()[:60] if version and seen.host.version else "ready"
        return Holds(f"answers {said}")

    return judge


def keeps(answers: Expectation, policy: WatchPolicy) -> Expectation:
    """For `policy.for_s` seconds, every look finds that the app answers."""

    def judge(seen: Seen) -> Judgement:
        now = answers(seen)
        if not isinstance(now, Holds):
            return Never(f"{now.why} {seen.spent_s:.1f} s after it was changed")
        left_s = policy.for_s - seen.spent_s
        if left_s > 0:
            return NotYet(f"{now.why}, {left_s:.0f} s left to watch", max(left_s, 0.001))
        return now

    return judge


def at_once(what: str) -> Expectation:
    """The act itself is the proof: it raised nothing."""

    def judge(seen: Seen) -> Judgement:
        del seen
        return Holds(what)

    return judge
