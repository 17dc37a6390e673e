"""Conclusions: the table of who says what, row by row, and what holds for any mixture of answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.dns.answer import Answer
from jobs.dns.conclusion import Conclusion, conclude, overall
from jobs.dns.sighting import Sighting
from jobs.dns.verdict import Verdict
from tests.jobs.dns.crowd import NOW, WANTED, concluded, findings, sighting

T = TypeVar("T")
Row = tuple[list[str], list[str], str]

TABLE: list[Row] = [
    # published on all name servers, and seen
    (["match", "match"], ["match", "match", "match"], "match match"),
    (["match", "match"], ["match", "match", "nxdomain"], "match match"),
    (["match", "match"], ["match", "match", "servfail"], "match match"),
    (["match"], ["match"], "match match"),
    (["match/unreachable", "match/unreachable"], [], "match match"),
    # published, and not seen yet
    (["match", "match"], ["nxdomain", "nxdomain", "nxdomain"], "match spreading"),
    (["match", "match"], ["match", "nxdomain", "nxdomain"], "match spreading"),
    (["match", "match"], ["match", "nxdomain", "servfail"], "match spreading"),
    (["match", "match"], ["other", "other", "match"], "match spreading"),
    # published, and resolvers cannot tell
    (["match", "match"], ["servfail", "timeout", "refused"], "match match"),
    (["match", "match"], ["match", "timeout", "timeout"], "match match"),
    # name servers differ
    (["match", "nxdomain"], ["match", "match", "match"], "indeterminate servers_disagree"),
    (["match", "other"], ["other", "other", "other"], "indeterminate servers_disagree"),
    (["match/nodata"], [], "indeterminate servers_disagree"),
    (["match", "nodata", "timeout"], [], "indeterminate servers_disagree"),
    # not published
    (["other", "other"], ["other", "other", "other"], "mismatch mismatch"),
    (["nxdomain", "nodata"], ["nxdomain", "nxdomain", "nodata"], "absent absent"),
    (["other", "nxdomain"], [], "mismatch mismatch"),
    (["nxdomain", "nxdomain"], ["match", "match", "match"], "absent absent"),
    (["nxdomain", "nxdomain"], ["servfail", "servfail", "servfail"], "absent absent"),
    (["other/timeout", "other/timeout"], [], "mismatch mismatch"),
    # one name server silent, the others have it
    (["match", "timeout"], ["match", "match", "nxdomain"], "match match"),
    (["match", "timeout"], ["valid", "nxdomain", "nxdomain"], "match spreading"),
    (["match", "timeout"], ["valid", "timeout", "timeout"], "match match"),
    (["match", "timeout"], ["match", "nxdomain", "nxdomain"], "indeterminate spreading"),
    (["match", "refused"], ["servfail", "timeout", "timeout"], "indeterminate authority_unreachable"),
    (["match", "lame"], [], "indeterminate authority_unreachable"),
    (["match", "no_address"], [], "match match"),
    (["match", "no_address"], ["nxdomain", "nxdomain", "nxdomain"], "match spreading"),
    # one name server silent, the others lack it
    (["nxdomain", "no_address"], [], "indeterminate authority_unreachable"),
    (["nxdomain", "no_address"], ["nxdomain", "nxdomain", "match"], "absent absent"),
    (["nxdomain", "timeout"], ["nxdomain", "nxdomain", "valid"], "indeterminate authority_unreachable"),
    (["nxdomain", "timeout"], ["nxdomain", "nxdomain", "match"], "absent absent"),
    (["other", "timeout"], ["other", "other", "other"], "mismatch mismatch"),
    (["nxdomain", "timeout"], ["match", "match", "match"], "indeterminate authority_unreachable"),
    (["nxdomain", "timeout"], ["nxdomain", "match", "timeout"], "indeterminate authority_unreachable"),
    (["nxdomain", "servfail"], ["servfail", "servfail", "servfail"], "indeterminate authority_unreachable"),
    (["nxdomain", "servfail"], [], "indeterminate authority_unreachable"),
    # no name server reached
    (["timeout", "refused"], ["match", "match", "nxdomain"], "match authority_unreachable"),
    (["timeout", "refused"], ["nxdomain", "nodata", "match"], "absent authority_unreachable"),
    (["timeout"], ["other", "other", "timeout"], "mismatch authority_unreachable"),
    (["timeout"], ["valid", "timeout", "timeout"], "match authority_unreachable"),
    (["timeout"], ["valid", "nxdomain", "nxdomain"], "indeterminate indeterminate"),
    (["timeout"], ["match", "nxdomain", "timeout"], "indeterminate indeterminate"),
    (["timeout"], ["other", "nxdomain", "timeout"], "indeterminate indeterminate"),
    (["timeout"], ["match", "match", "nxdomain", "nxdomain"], "indeterminate indeterminate"),
    (["timeout"], ["match"], "match authority_unreachable"),
    (["timeout"], ["nxdomain"], "absent authority_unreachable"),
    (["timeout"], ["match", "match"], "match authority_unreachable"),
    (["timeout"], ["match", "timeout"], "indeterminate indeterminate"),
    ([], ["match", "match", "match"], "match authority_unreachable"),
    # nobody can tell
    (["timeout", "servfail"], ["servfail", "refused", "timeout"], "indeterminate indeterminate"),
    (["timeout", "servfail"], [], "indeterminate indeterminate"),
    ([], [], "indeterminate indeterminate"),
]


@pytest.mark.req("BJ-20")
@pytest.mark.parametrize(("authorities", "resolvers", "expected"), TABLE)
def test_every_row_of_the_table(authorities: list[str], resolvers: list[str], expected: str) -> None:
    conclusion = concluded(sighting(authorities, resolvers))
    assert f"{conclusion.verdict} {conclusion.state}" == expected
    assert conclusion.accept == (conclusion.verdict == "match")


@pytest.mark.req("BJ-20")
@pytest.mark.parametrize(
    ("authorities", "resolvers", "expected"),
    [
        (["timeout"], ["servfail", "servfail", "servfail"], "indeterminate dnssec_broken"),
        (["timeout"], ["servfail", "match", "match"], "indeterminate dnssec_broken"),
        (["match", "match"], ["servfail", "match", "match"], "indeterminate dnssec_broken"),
        (["match", "match"], ["servfail", "valid", "match"], "match match"),
        (["timeout"], ["servfail", "valid", "match"], "match authority_unreachable"),
        (["nxdomain", "nxdomain"], ["servfail", "servfail", "servfail"], "absent absent"),
        (["match", "nxdomain"], ["servfail", "servfail", "servfail"], "indeterminate servers_disagree"),
    ],
)
def test_broken_dnssec_is_told_as_that_and_verifies_nothing(
    authorities: list[str], resolvers: list[str], expected: str
) -> None:
    conclusion = concluded(sighting(authorities, resolvers, bogus=True))
    assert f"{conclusion.verdict} {conclusion.state}" == expected


@pytest.mark.parametrize(
    ("authorities", "resolvers", "recheck_s"),
    [
        (["match"], ["match", "match"], None),
        (["other"], [], None),
        (["nxdomain"], ["nxdomain", "nxdomain"], None),
        (["match"], ["nxdomain:120", "nxdomain:900", "match"], 900),
        (["match"], ["nxdomain:86400", "nxdomain:60"], 3600),
        (["match"], ["other:86400", "nxdomain:60"], 86400),
        (["match"], ["nxdomain:0", "nxdomain:0"], 0),
        (["match", "nxdomain"], ["nxdomain:9", "nxdomain"], 600),
        (["match", "timeout"], ["nxdomain:9", "nxdomain"], 600),
        (["match", "timeout"], [], 300),
        (["timeout"], ["servfail", "servfail"], 300),
        (["timeout"], ["match", "nxdomain:1200"], 1200),
        (["timeout"], ["match", "other:86400"], 3600),
        (["timeout"], ["nxdomain:40", "nxdomain:50"], 50),
        (["timeout"], ["other:86400", "other:86400"], 3600),
        (["timeout"], ["match", "match"], None),
    ],
)
def test_it_is_looked_at_again_when_the_answer_may_be_another(
    authorities: list[str], resolvers: list[str], recheck_s: float | None
) -> None:
    assert concluded(sighting(authorities, resolvers)).recheck_s == recheck_s


def test_a_spreading_record_is_seen_when_the_last_resolver_has_forgotten() -> None:
    conclusion = concluded(sighting(["match"], ["nxdomain:120", "nxdomain:900", "match"]))
    assert conclusion.visible_by == NOW + timedelta(seconds=900)
    assert concluded(sighting(["match"], ["nxdomain:9999", "nodata"])).visible_by == NOW + timedelta(hours=1)
    assert concluded(sighting(["match"], ["match", "match"])).visible_by is None
    assert concluded(sighting(["nxdomain"], ["nxdomain", "nxdomain"])).visible_by is None


def test_a_negative_answer_without_a_ttl_is_taken_for_the_longest() -> None:
    seen = sighting(["match"], ["nxdomain", "nxdomain"])
    timeless = {server: replace(answer, ttl_s=None) for server, answer in seen.resolvers.items()}
    assert concluded(replace(seen, resolvers=timeless)).visible_by == NOW + timedelta(hours=1)


def test_a_validated_answer_vouches_only_where_all_validated_ones_agree() -> None:
    seen = sighting(["timeout"], ["valid", "other", "timeout"])
    said = {**seen.resolvers, "r2": replace(seen.resolvers["r2"], authentic=True)}
    assert concluded(seen).verdict == "indeterminate"
    alone = sighting(["timeout"], ["valid", "timeout", "timeout"])
    assert concluded(alone).verdict == "match"
    assert concluded(replace(alone, resolvers={**alone.resolvers, "r2": said["r2"]})).verdict == "indeterminate"


def test_a_delegation_that_differs_from_the_zone_is_told() -> None:
    seen = replace(sighting(["match"], []), only_parent=("ns8.example",), only_zone=("ns9.example",))
    assert concluded(seen).notes == (
        "the delegation of shop.example names ns8.example, which the zone itself does not",
        "shop.example itself names ns9.example, which its delegation does not",
    )


def test_each_server_is_there_with_what_it_said() -> None:
    conclusion = concluded(sighting(["match", "timeout"], ["nodata", "other"]))
    assert conclusion.servers == {
        "ns1.dns.example (192.0.2.11)": "match",
        "ns2.dns.example (192.0.2.21)": "timeout",
        "r1": "nodata",
        "r2": "other_value",
    }


def test_the_row_of_a_conclusion_has_what_a_result_has_always_had() -> None:
    row = concluded(sighting(["other"], [])).as_row()
    assert {key: row[key] for key in ("type", "name", "expected", "found", "verdict", "reason", "chain", "ttl_s")} == {
        "type": "TXT",
        "name": "_t.shop.example",
        "expected": "right",
        "found": ("wrong",),
        "verdict": "mismatch",
        "reason": "other_value",
        "chain": (),
        "ttl_s": 300,
    }


WORDS = st.sampled_from(
    ["match", "valid", "other", "nxdomain", "nodata", "timeout", "servfail", "refused", "lame", "truncated", "budget"]
)
HOSTS = st.lists(WORDS, min_size=1, max_size=2).map("/".join)
SIGHTINGS = st.builds(
    lambda authorities, resolvers, bogus, quorum: sighting(authorities, resolvers, bogus=bogus, quorum=quorum),
    st.lists(HOSTS, max_size=4),
    st.lists(WORDS, max_size=5),
    st.booleans(),
    st.integers(1, 3),
)


def outcomes(answers: Mapping[str, Answer]) -> set[str]:
    """What was said: right, other, no (both kinds of absence) or error."""
    return {
        "error" if answer.outcome == "error"
        else "no" if answer.outcome != "answer"
        else "right" if answer.values == ("right",)
        else "other"
        for answer in answers.values()
    }  # fmt: skip


@pytest.mark.req("BJ-20")
@given(seen=SIGHTINGS)
def test_nothing_is_absent_or_wrong_unless_a_server_said_so(seen: Sighting) -> None:
    conclusion = concluded(seen)
    said = outcomes(seen.authorities) | outcomes(seen.resolvers)
    assert conclusion.verdict != "absent" or "no" in said
    assert conclusion.verdict != "mismatch" or "other" in said
    assert conclusion.verdict != "match" or "right" in said
    assert said - {"error"} or conclusion.verdict == "indeterminate"


@pytest.mark.req("BJ-20")
@given(seen=SIGHTINGS)
def test_one_right_name_server_is_enough_against_a_no_and_one_wrong_one_against_a_yes(seen: Sighting) -> None:
    conclusion = concluded(seen)
    said = outcomes(seen.authorities)
    assert "right" not in said or conclusion.verdict in ("match", "indeterminate")
    assert not said & {"other", "no"} or not conclusion.accept


@given(seen=SIGHTINGS)
def test_no_is_said_only_by_all_name_servers_or_by_enough_resolvers(seen: Sighting) -> None:
    conclusion = concluded(seen)
    if conclusion.verdict in ("mismatch", "absent") and "error" in outcomes(seen.authorities):
        hosts: dict[str, set[str]] = {}
        for server, answer in seen.authorities.items():
            hosts.setdefault(server.split()[0], set()).update(outcomes({server: answer}))
        resolvers = [outcomes({server: answer}) for server, answer in seen.resolvers.items()]
        needed = min(seen.quorum, len(resolvers))
        assert all(said != {"error"} for said in hosts.values()) or (
            max(resolvers.count({"no"}), resolvers.count({"other"})) >= needed > 0
        )


@given(seen=SIGHTINGS, seed=st.integers(0, 2**32))
def test_the_order_of_servers_makes_no_difference(seen: Sighting, seed: int) -> None:
    dice = Random(seed)
    other = replace(seen, authorities=shuffled(seen.authorities, dice), resolvers=shuffled(seen.resolvers, dice))
    assert conclude(WANTED, other, shuffled(findings(other), dice), NOW) == concluded(seen)


def shuffled(mapping: Mapping[str, T], dice: Random) -> dict[str, T]:
    items = list(mapping.items())
    dice.shuffle(items)
    return dict(items)


@given(seen=SIGHTINGS)
def test_everybody_gets_a_sentence_that_ends(seen: Sighting) -> None:
    text = concluded(seen).text
    assert text[0].isupper()
    assert text.endswith(".")
    assert "{" not in text


# --- all records of a domain ---


def of(verdict: Verdict, *, advice: bool = False, recheck_s: float | None = None) -> Conclusion:
    words = {"match": "match", "mismatch": "other", "absent": "nxdomain", "indeterminate": "timeout"}
    return replace(concluded(sighting([words[verdict]], [])), advice=advice, recheck_s=recheck_s)


def test_the_gravest_record_decides_and_its_sentence_is_read() -> None:
    whole = overall([of("match"), of("absent"), of("mismatch"), of("indeterminate")])
    assert (whole.verdict, whole.state, whole.accept) == ("mismatch", "mismatch", False)
    assert whole.text == of("mismatch").text
    assert overall([of("match"), of("match")]).accept
    assert overall([of("match"), of("indeterminate")]).verdict == "indeterminate"


def test_advice_is_not_counted() -> None:
    assert overall([of("match"), of("mismatch", advice=True), of("indeterminate", advice=True)]).verdict == "match"
    assert overall([of("mismatch", advice=True)]).verdict == "match"


def test_the_next_look_is_at_the_earliest_time() -> None:
    assert overall([of("indeterminate", recheck_s=600), of("indeterminate", recheck_s=300)]).recheck_s == 300
    assert overall([of("match")]).recheck_s is None


def test_one_spreading_record_makes_the_domain_a_spreading_one() -> None:
    spreading = concluded(sighting(["match"], ["nxdomain", "nxdomain"]))
    whole = overall([of("match"), spreading])
    assert (whole.verdict, whole.state, whole.visible_by) == ("match", "spreading", spreading.visible_by)
