"""Several servers' answers taken as one: how much a "yes" takes, and how much a "no"."""

from __future__ import annotations

import pytest

from jobs.dns.answer import Answer, failed
from jobs.dns.delegation import Spot
from jobs.dns.voices import beyond_doubt, prevailing, unanimous, without_our_faults
from tests.jobs.dns.book import found, nodata, nxdomain

pytestmark = pytest.mark.req("BJ-20")

A1, A2, B = "a (192.0.2.1)", "a (2001:db8::1)", "b (192.0.2.2)"


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({A1: found("x"), B: found("x")}, "x"),
        ({A1: found("x", "y"), B: found("y", "x")}, "x"),
        ({A1: found("x"), A2: failed("timeout"), B: found("x")}, "x"),
        ({A1: found("x"), B: failed("timeout")}, "timeout"),
        ({A1: nodata(), B: failed("servfail")}, "servfail"),
        ({A1: found("x"), B: found("z")}, "disagree"),
        ({A1: found("x"), A2: found("z")}, "disagree"),
        ({A1: found("x"), B: nodata()}, "disagree"),
        ({A1: nodata(), B: nxdomain()}, "disagree"),
        ({A1: nxdomain(), B: nxdomain()}, "nxdomain"),
        ({A1: found("x"), B: found("x"), "c": failed("no_address")}, "no_address"),
        ({}, "no_address"),
    ],
)
def test_all_say_it_or_nobody_does(answers: dict[str, Answer], said: str) -> None:
    answer = unanimous(answers, "TXT")
    assert (answer.values[:1] or (answer.said,)) == (said,)


def test_addresses_may_differ_and_all_of_them_count() -> None:
    answers = {A1: found("192.0.2.7"), B: found("192.0.2.8"), "c (192.0.2.3)": nodata()}
    assert unanimous(answers, "A").values == ("192.0.2.7", "192.0.2.8")
    assert unanimous({A1: nodata(), B: nodata()}, "A").outcome == "nodata"
    assert unanimous({A1: found("192.0.2.7"), B: failed("timeout")}, "A").reason == "timeout"


def test_one_yes_is_enough_and_one_failure_keeps_a_no_from_counting() -> None:
    assert beyond_doubt({A1: nodata(), B: found("x")}).values == ("x",)
    assert beyond_doubt({A1: nodata(), B: failed("timeout")}).reason == "timeout"
    assert prevailing({A1: nodata(), B: found("x")}).values == ("x",)
    assert prevailing({A1: failed("refused")}).reason == "refused"


def test_a_way_that_is_not_there_is_left_out_only_beside_one_that_is() -> None:
    four, six, other = Spot("a", "192.0.2.1"), Spot("a", "2001:db8::1"), Spot("b", "2001:db8::2")
    said = {four: found("x"), six: failed("no_route"), other: failed("no_route")}
    assert without_our_faults(said).keys() == {four, other}
