"""The demo's verdict and its table, on made-up halves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drainctl.lab.compare import Half, lines, table, verdict
from drainctl.lab.report import Report

COUNTED = {
    "requests": 900,
    "failed": 0,
    "inconclusive": [],
    "balancers": {"lb1": {"retries": 2}, "lb2": {"retries": 1}},
}


def half(
    failed: int = 0,
    *,
    requests: int = 1000,
    proof: dict | None = None,
    load: str | None = None,
    problem: str | None = None,
) -> Half:
    bins = {"ok": requests - failed, "http_502": failed}
    report = Report(
        requests=requests,
        bins=bins,
        latency={"longest_s": 1.51},
        kinds={"get": {"p99_s": 0.012}},
        problem=load,
    )
    return Half("v2", report, 8.0, 4, {**COUNTED, "failed": failed} if proof is None else proof, problem)


@pytest.mark.parametrize(
    ("naive", "drained", "code", "said"),
    [
        (450, 0, 0, ["Naive restarts lost 450 of 1000 requests (45.0%); drainctl lost 0 of 1000."]),
        (
            0,
            0,
            1,
            ["the naive half failed: it shows 0 failures in 1000 requests, so it cannot tell good from bad"],
        ),
        (
            450,
            1,
            1,
            [
                "drainctl's half failed: 1 of 1000 requests failed (1 http_502)",
                "drainctl's half failed: the balancers counted 1 failures in 900 requests",
            ],
        ),
    ],
)
def test_only_a_naive_half_with_failures_and_ours_without_is_0(naive, drained, code, said):
    assert verdict(half(naive), half(drained)) == (code, said)


def test_both_halves_wrong_are_both_named():
    code, said = verdict(half(0), half(3))
    assert code == 1
    assert [sentence.partition(" half")[0] for sentence in said] == ["the naive", "drainctl's", "drainctl's"]


@pytest.mark.parametrize(
    ("naive", "drained", "said"),
    [
        (half(9, load="it was late"), half(), "the naive half failed: its load is not to be trusted"),
        (half(9), half(load="it was late"), "drainctl's half failed: its load is not to be trusted"),
        (half(9), half(problem="the rollout ended halted: x"), "drainctl's half failed: the rollout ended"),
        (half(9), half(requests=0), "drainctl's half failed: no request was sent"),
        (half(requests=0), half(), "the naive half failed: no request was sent"),
        (
            half(9),
            half(proof={**COUNTED, "failed": None, "inconclusive": ["lb1 was reloaded"]}),
            "drainctl's half failed: the balancers' proof is inconclusive: lb1 was reloaded",
        ),
        (half(9), half(proof={}), "drainctl's half failed: the balancers' proof is inconclusive: it was not"),
        (
            half(9),
            half(proof={**COUNTED, "failed": 2}),
            "drainctl's half failed: the balancers counted 2 failures in 900 requests",
        ),
    ],
)
def test_zero_failures_alone_do_not_make_a_half_good(naive, drained, said):
    code, sentences = verdict(naive, drained)
    assert code == 1
    assert len(sentences) == 1
    assert sentences[0].startswith(said)


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_the_exit_code_is_0_in_one_of_four_cases(naive, drained):
    assert (verdict(half(naive), half(drained))[0] == 0) == (naive > 0 and drained == 0)


def test_the_table_has_a_row_per_kind_of_failure_and_fits_80_columns():
    naive = half(
        12,
        proof={**COUNTED, "failed": None, "inconclusive": ["lb1 was reloaded"], "requests": 1},
    )
    naive.report.bins.update(ok=987, http_418=1)
    rows = {label.strip(): cells for label, *cells in table(naive, half())[:-2]}
    assert rows["requests"] == ["1000", "1000"]
    assert rows["failed"] == ["13", "0"]
    assert rows["http_502: the node's nginx found no app"] == ["12", "0"]
    assert rows["http_418"] == ["1", "0"]
    assert rows["longest request"] == ["1.51 s", "1.51 s"]
    assert rows["p99 of GET /"] == ["12 ms", "12 ms"]
    assert rows["seconds per node"] == ["2.0 s", "2.0 s"]
    assert rows["counted by HAProxy during the rollout"] == ["inconclusive", "900"]
    assert table(naive, half())[-2:] == [
        ("  failed", "inconclusive", "0"),
        ("  connections tried again (retries)", "3", "3"),
    ]
    assert {len(line) for line in lines(table(naive, half()))} == {76}
