"""What each step takes for seen, by what HAProxy and the node can show."""

from __future__ import annotations

import pytest
from world_kit import cluster, look, row

from drainctl.model import Amount, Answer, Counters, Disk, NodeLook, OldWorker, Place, WatchPolicy
from drainctl.steps import Holds, Never, NotYet, Seen
from drainctl.strategies import expect

CLUSTER = cluster(nodes=3, balancers=2)
WEB1 = CLUSTER.nodes[0]
PLACES = (Place("lb1", "shop", "web1"), Place("lb2", "shop", "web1"))


def seen(lb1, lb2=None, **rest):
    looks = {"lb1": lb1, "lb2": lb2 if lb2 is not None else look(*lb1.rows, balancer="lb2")}
    return Seen(WEB1, PLACES, looks, **rest)


@pytest.mark.parametrize(
    ("status", "out"),
    [
        ("NOLB", True),
        ("NOLB 2/3", True),
        ("DRAIN", True),
        ("DRAIN (agent)", True),
        ("MAINT", True),
        ("MAINT (resolution)", True),
        ("DOWN", True),
        ("DOWN 1/2", True),
        ("UP", False),
        ("UP 1/3", False),
        ("UP 2/3", False),
    ],
)
def test_out_of_rotation_by_status(status, out):
    assert isinstance(expect.out_of_rotation(seen(look(row("web1", status)))), Holds if out else NotYet)


def test_out_on_one_balancer_is_not_out():
    judged = expect.out_of_rotation(seen(look(row("web1", "NOLB")), look(row("web1"), balancer="lb2")))
    assert judged == NotYet("UP on lb2")


def test_a_balancer_that_cannot_be_read_proves_nothing():
    lost = look(balancer="lb2", error="lb2: connection refused")
    judged = expect.out_of_rotation(seen(look(row("web1", "NOLB")), lost))
    assert judged == NotYet("lb2 cannot be read: connection refused")


def test_no_row_is_not_zero_requests():
    assert isinstance(expect.idle(seen(look(row("web2", "NOLB")))), Never)


def test_a_404_that_counts_as_a_failed_check_names_the_missing_option():
    judged = expect.out_of_rotation(seen(look(row("web1", "UP 2/3", check="L7STS", check_code=404))))
    assert isinstance(judged, Never)
    assert "lacks disable-on-404" in judged.why
    assert judged.hint == "add `http-check disable-on-404` to backend shop"


def test_a_server_without_a_check_never_leaves():
    assert isinstance(expect.out_of_rotation(seen(look(row("web1", "no check")))), Never)


def test_idle_counts_requests_queue_and_old_workers():
    assert isinstance(expect.idle(seen(look(row("web1", "NOLB")))), Holds)
    busy = expect.idle(
        seen(look(row("web1", "NOLB", scur=2, qcur=1)), look(row("web1", "NOLB"), balancer="lb2"))
    )
    assert busy == NotYet("2 requests in flight and 1 queued on lb1")
    old = OldWorker(99, "0d00h01m02s", (row("web1", "NOLB", scur=1), row("web2", scur=5)))
    judged = expect.idle(
        seen(look(row("web1", "NOLB"), old_workers=(old,)), look(row("web1", "NOLB"), balancer="lb2"))
    )
    assert judged == NotYet("1 request on the old worker 99 of lb1 (reloaded 0d00h01m02s ago)")


def test_quiet_needs_the_nodes_own_count_and_the_balancers():
    out = look(row("web1", "NOLB"))
    assert isinstance(expect.quiet(seen(out, host=NodeLook(active=0))), Holds)
    assert expect.quiet(seen(out, host=NodeLook(active=2))) == NotYet(
        "2 requests in flight on the node itself"
    )
    assert isinstance(expect.quiet(seen(out, host=NodeLook(active_error="ss is missing"))), NotYet)
    assert isinstance(expect.quiet(seen(look(row("web1")), host=NodeLook(active=0))), NotYet)


class TestUp:
    judge = staticmethod(expect.up(tail_s=4.0))

    def seen(self, now, before=None, spent_s=0.1, pid=1):
        was = before or row("web1", "NOLB")
        return seen(
            look(now, pid=pid),
            before={"restore": {"lb1": look(was), "lb2": look(was, balancer="lb2")}},
            spent_s=spent_s,
        )

    def test_a_check_that_passed_after_one_that_did_not_is_proof(self):
        assert isinstance(self.judge(self.seen(row("web1"))), Holds)

    @pytest.mark.parametrize("status", ["UP 1/3", "UP 2/3", "DOWN 1/2", "NOLB", "DRAIN", "MAINT"])
    def test_anything_but_exactly_up_is_not(self, status):
        assert isinstance(self.judge(self.seen(row("web1", status))), NotYet)

    def test_up_by_a_nudge_alone_is_no_proof(self):
        before = row("web1", "NOLB", check="L7OK")
        assert isinstance(self.judge(self.seen(row("web1"), before)), NotYet)

    def test_requests_answered_well_are_proof(self):
        before = row("web1", "NOLB", check="L7OK", counters=Counters(sessions=5, answered_2xx=5))
        now = row("web1", counters=Counters(sessions=7, answered_2xx=7))
        assert isinstance(self.judge(self.seen(now, before)), Holds)

    def test_requests_of_which_one_failed_are_not(self):
        before = row("web1", "NOLB", check="L7OK")
        now = row("web1", counters=Counters(sessions=2, answered_2xx=1, answered_5xx=1))
        assert isinstance(self.judge(self.seen(now, before)), NotYet)

    def test_counters_that_fell_are_not(self):
        before = row("web1", "NOLB", check="L7OK", counters=Counters(sessions=5, answered_2xx=5))
        assert isinstance(
            self.judge(self.seen(row("web1", counters=Counters(answered_2xx=1)), before)), NotYet
        )

    def test_a_passed_check_is_proof_once_one_must_have_been_made(self):
        before = row("web1", "NOLB", check="L7OK")
        assert isinstance(self.judge(self.seen(row("web1"), before, spent_s=4.1)), Holds)
        failed = row("web1", check="L4CON")
        assert isinstance(self.judge(self.seen(failed, before, spent_s=4.1)), NotYet)

    def test_a_new_process_proves_by_its_own_finished_check(self):
        before = row("web1", "NOLB", check="L7OK")
        assert isinstance(self.judge(self.seen(row("web1", check="INI"), before, pid=2)), NotYet)
        looks = self.seen(row("web1"), before, pid=2)
        assert isinstance(self.judge(looks), NotYet)  # lb2 is the same process still, and has no proof


class TestGuard:
    members = frozenset({"web1", "web2", "web3"})

    def judge(self, *rows, keep_up="50%", out_too=()):
        amount = Amount(int(keep_up.rstrip("%")), percent=keep_up.endswith("%"))
        judged = expect.guard(amount, self.members)
        return judged(seen(look(*rows), out_too=frozenset(out_too)))

    def test_enough_others(self):
        assert isinstance(self.judge(row("web1"), row("web2"), row("web3")), Holds)

    @pytest.mark.parametrize(
        "changes",
        [
            {"status": "UP 1/3"},
            {"status": "NOLB"},
            {"status": "DOWN"},
            {"status": "no check"},
            {"weight": 0},
            {"role": "backup"},
            {"check": "INI"},
        ],
    )
    def test_servers_that_do_not_count(self, changes):
        status = changes.pop("status", "UP")
        judged = self.judge(row("web1"), row("web2", status, **changes), row("web3"))
        assert isinstance(judged, NotYet)
        assert "1 other of 3 servers up, rollout.keep_up = 50% needs 2" in judged.why

    def test_those_on_their_way_out_do_not_count(self):
        assert isinstance(self.judge(row("web1"), row("web2"), row("web3"), out_too={"web2"}), NotYet)

    def test_unused_template_slots_are_not_part_of_the_whole(self):
        slots = [row(f"slot{at}", "MAINT") for at in range(20)]
        assert isinstance(self.judge(row("web1"), row("web2"), row("web3"), *slots), Holds)

    def test_nodes_of_ours_in_maint_are(self):
        assert isinstance(self.judge(row("web1"), row("web2", "MAINT"), row("web3")), NotYet)

    def test_a_server_that_is_down_takes_nothing_away(self):
        assert isinstance(self.judge(row("web1", "DOWN"), row("web2", "DOWN"), row("web3", "DOWN")), Holds)


class TestWatched:
    judge = staticmethod(expect.watched(WatchPolicy(for_s=2.0), frozenset({"web1", "web2", "web3"}), 4.0))

    def seen(self, spent_s=2.5, peer=None, **counted):
        zero = look(row("web1"), row("web2"))
        now = look(
            row("web1", counters=Counters(**counted)), row("web2", counters=peer or Counters(sessions=100))
        )
        return seen(
            now,
            look(row("web1"), row("web2"), balancer="lb2"),
            before={"watch": {"lb1": zero, "lb2": look(*zero.rows, balancer="lb2")}},
            spent_s=spent_s,
        )

    def test_a_clean_watch_ends(self):
        assert self.judge(self.seen(sessions=10)) == Holds("0 errors in 10 requests")
        assert isinstance(self.judge(self.seen(spent_s=1.0, sessions=10)), NotYet)

    @pytest.mark.parametrize("kind", ["answered_5xx", "connect_errors", "response_errors"])
    def test_an_error_beyond_the_budget_ends_it_at_once(self, kind):
        judged = self.judge(self.seen(spent_s=0.1, sessions=10, **{kind: 1}))
        assert isinstance(judged, Never)
        assert "1 error in 10 requests" in judged.why

    def test_what_its_peers_show_too_is_not_its_fault(self):
        peer = Counters(sessions=100, answered_5xx=10)
        assert isinstance(self.judge(self.seen(sessions=100, peer=peer, answered_5xx=10)), Holds)
        assert isinstance(self.judge(self.seen(sessions=100, peer=peer, answered_5xx=11)), Never)

    def test_a_404_that_was_under_way_is_waited_out(self):
        zero = look(row("web1"))
        before = {"watch": {"lb1": zero, "lb2": zero}}
        nolb = look(row("web1", "NOLB"))
        assert isinstance(self.judge(seen(nolb, before=before, spent_s=3.0)), NotYet)
        assert isinstance(self.judge(seen(nolb, before=before, spent_s=4.1)), Never)

    def test_a_server_that_goes_down_fails(self):
        zero = look(row("web1"))
        down = seen(look(row("web1", "DOWN")), before={"watch": {"lb1": zero, "lb2": zero}})
        assert isinstance(self.judge(down), Never)


def test_the_app_must_answer_with_the_release():
    judge = expect.answers_with("v2", version=True, ready=True)
    here = look(row("web1", "NOLB"))
    good = NodeLook(version=Answer(200, "v2\n"), ready=Answer(200))
    assert judge(seen(here, host=good)) == Holds("answers v2")
    old = NodeLook(version=Answer(200, "v1\n"), ready=Answer(200))
    assert judge(seen(here, host=old)) == NotYet("health.version answers 'v1', not 'v2'")
    refused = NodeLook(version=Answer(None, error="connection refused"), ready=Answer(200))
    assert judge(seen(here, host=refused)) == NotYet("health.version answers connection refused")
    unready = NodeLook(version=Answer(200, "v2"), ready=Answer(503))
    assert judge(seen(here, host=unready)) == NotYet("health.ready answers 503")


def test_the_link_and_the_flag():
    here = look(row("web1"))
    assert isinstance(expect.links_to("v2")(seen(here, host=NodeLook(disk=Disk("v2")))), Holds)
    assert isinstance(expect.links_to("v2")(seen(here, host=NodeLook(disk=Disk("v1")))), NotYet)
    assert isinstance(expect.links_to("v2")(seen(here)), NotYet)
    assert isinstance(expect.flagged(seen(here, host=NodeLook(check=Answer(404)))), Holds)
    assert isinstance(expect.flagged(seen(here, host=NodeLook(check=Answer(200)))), NotYet)
    assert isinstance(expect.unflagged(seen(here, host=NodeLook(check=Answer(200)))), Holds)
    assert isinstance(expect.unflagged(seen(here, host=NodeLook(check=Answer(502)))), NotYet)


def test_bound_clients_are_moved_where_the_sockets_allow_it():
    here = look(row("web1", "MAINT"), can_change=True)
    assert expect.moved(seen(here, look(row("web1", "NOLB"), balancer="lb2"))) == Holds("MAINT on lb1")
    late = look(row("web1", "NOLB"), balancer="lb2", can_change=True)
    assert expect.moved(seen(here, late)) == NotYet("NOLB on lb2")
    assert expect.moved(seen(look(row("web1", "NOLB")))) == Holds("no balancer's socket allows it")
