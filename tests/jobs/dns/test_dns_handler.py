"""The job kind: from the args of a row to its outcome and its line in domain_checks."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest

from jobs import Context, Done, Retry
from jobs.context import Ledger
from jobs.dns.handler import RECHECK, DnsCheckArgs, dns_check
from jobs.dns.resolver import Resolver
from jobs.model import Job
from jobs.registry import KINDS
from tests.jobs.dns.server import DnsServer, Fault

TOKEN = {"type": "TXT", "name": "_token", "value": "abc"}
MAIL = {"type": "MX", "value": "mx.example.net"}


class Tools:
    """What the daemon would hand over; this channel uses the resolver alone."""

    def __init__(self, resolver: Resolver) -> None:
        self.dns = resolver


async def check(
    resolver: Resolver, *expect: dict[str, str], attempt: int = 1, max_attempts: int | None = None
) -> tuple[Any, dict[str, Any]]:
    """The outcome and the ledger row, both as JSON would store them."""
    args = json.dumps({"domain": "Example.test", "expect": expect})
    job = Job(1, 1, "dns_check", "default", 2, attempt, args, 0.0, max_attempts=max_attempts)
    ctx = Context(job, Tools(resolver), log=None, progress=None)  # type: ignore[arg-type] # neither is used
    outcome = await dns_check(KINDS["dns_check"].decode(args), ctx)
    [(ledger, row)] = ctx.records
    assert ledger == Ledger("domain_checks")
    return outcome, json.loads(msgspec.json.encode(row))


async def test_what_is_published_matches(server: DnsServer, resolver: Resolver) -> None:
    server.add('_token.example.test. 60 IN TXT "a" "bc"', "example.test. 300 IN MX 10 mx.example.net.")
    outcome, row = await check(resolver, TOKEN, MAIL)
    assert isinstance(outcome, Done)
    assert outcome.result["verdict"] == "match"
    assert json.loads(msgspec.json.encode(outcome.result["records"])) == row["records"]
    assert row["domain"] == "example.test"
    assert row["verdict"] == "match"
    assert row["servers"] == {server.place: "answer"}
    assert row["duration_ms"] > 0
    assert [(r["type"], r["name"], r["found"], r["verdict"]) for r in row["records"]] == [
        ("TXT", "_token.example.test", ["abc"], "match"),
        ("MX", "example.test", ["10 mx.example.net"], "match"),
    ]


@pytest.mark.req("BJ-20")
async def test_a_wrong_or_missing_record_is_a_result_and_not_a_failure(server: DnsServer, resolver: Resolver) -> None:
    outcome, row = await check(resolver, TOKEN, MAIL)
    assert isinstance(outcome, Done)
    assert row["verdict"] == "absent"
    assert row["records"][0]["ttl_s"] == 60
    server.add('_token.example.test. 60 IN TXT "other"')
    outcome, row = await check(resolver, TOKEN, MAIL)
    assert isinstance(outcome, Done)
    assert outcome.result["verdict"] == row["verdict"] == "mismatch"


@pytest.mark.req("BJ-20")
@pytest.mark.parametrize("fault", ["servfail", "refused", "silent", "referral", "garbage", "cut_off"])
async def test_a_resolvers_hiccup_is_tried_again_and_says_why(
    server: DnsServer, resolver: Resolver, hasty: Resolver, fault: Fault
) -> None:
    server.add('_token.example.test. 60 IN TXT "abc"', "example.test. 60 IN MX 10 mx.example.net.")
    server.faults["_token.example.test."] = fault
    outcome, row = await check(hasty if fault in ("silent", "garbage") else resolver, TOKEN, MAIL)
    assert isinstance(outcome, Retry)
    assert outcome.code == "indeterminate"
    assert outcome.reason.startswith("no usable answer for TXT _token.example.test (")
    assert outcome.detail is not None
    assert outcome.detail["verdict"] == row["verdict"] == "indeterminate"
    assert [record["verdict"] for record in row["records"]] == ["indeterminate", "match"]
    assert row["servers"][server.place] not in ("answer", "nxdomain", "nodata")


async def test_a_record_that_is_surely_missing_decides_though_another_is_unknown(
    server: DnsServer, resolver: Resolver
) -> None:
    server.faults["_token.example.test."] = "servfail"
    outcome, row = await check(resolver, TOKEN, MAIL)
    assert isinstance(outcome, Done)
    assert (outcome.result["verdict"], row["verdict"]) == ("absent", "absent")
    assert [record["verdict"] for record in row["records"]] == ["indeterminate", "absent"]


@pytest.mark.parametrize(
    ("attempt", "max_attempts", "last"),
    [(RECHECK.max_attempts, None, True), (RECHECK.max_attempts - 1, None, False), (1, 1, True), (10, 11, False)],
)
async def test_the_last_attempt_ends_with_what_is_known_nothing(
    server: DnsServer, resolver: Resolver, attempt: int, max_attempts: int | None, last: bool
) -> None:
    server.fault = "refused"
    outcome, row = await check(resolver, TOKEN, attempt=attempt, max_attempts=max_attempts)
    assert isinstance(outcome, Done if last else Retry)
    assert row["verdict"] == "indeterminate"
    if isinstance(outcome, Done):
        assert outcome.result["verdict"] == "indeterminate"


async def test_expectations_for_one_record_set_share_one_question(server: DnsServer, resolver: Resolver) -> None:
    server.add('_token.example.test. 60 IN TXT "abc"')
    _, row = await check(resolver, TOKEN, TOKEN | {"value": "def"}, TOKEN | {"name": "_token.example.test."})
    assert [record["verdict"] for record in row["records"]] == ["match", "mismatch", "match"]
    assert server.asked.total() == 1


async def test_the_questions_of_one_check_are_asked_all_at_a_time(server: DnsServer, resolver: Resolver) -> None:
    server.fault = "silent"
    async with asyncio.TaskGroup() as group:
        checking = group.create_task(
            check(resolver, *({"type": "TXT", "name": f"n{n}", "value": "x"} for n in range(20)))
        )
        async with asyncio.timeout(60):
            await server.asked_so_often(20)
        checking.cancel()


@pytest.mark.parametrize("expect", [(TOKEN, MAIL), (MAIL, TOKEN)])
async def test_what_a_server_failed_to_say_outweighs_what_it_said(
    server: DnsServer, resolver: Resolver, expect: tuple[dict[str, str], ...]
) -> None:
    server.faults["_token.example.test."] = "refused"
    _, row = await check(resolver, *expect)
    assert row["servers"] == {server.place: "refused"}


def test_a_check_belongs_to_the_lane_of_its_domain() -> None:
    kind = KINDS["dns_check"]
    assert kind.lane is not None
    assert kind.lane(kind.decode('{"domain":"BÜCHER.example.","expect":[{"type":"A","value":"192.0.2.1"}]}')) == (
        "xn--bcher-kva.example"
    )


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        ({"domain": "example.test"}, "expect"),
        ({"domain": "example.test", "expect": []}, "expect"),
        ({"domain": "example.test", "expect": [TOKEN] * 21}, "expect"),
        ({"domain": "exa mple.test", "expect": [TOKEN]}, "is not a domain name"),
        ({"domain": "example.test", "expect": [TOKEN], "nameserver": "10.0.0.1"}, "nameserver"),
        ({"domain": "example.test", "expect": [TOKEN | {"type": "ANY"}]}, "ANY"),
        ({"domain": "example.test", "expect": [TOKEN | {"value": ""}]}, "value"),
        ({"domain": "example.test", "expect": [TOKEN | {"value": "x" * 4097}]}, "value"),
        ({"domain": "example.test", "expect": [TOKEN | {"name": "victim.org."}]}, "nor below it"),
        ({"domain": "example.test", "expect": [{"type": "A", "value": "nowhere"}]}, "nowhere"),
        ({"domain": "example.test", "expect": [{"type": "MX", "value": "ten mx.test"}]}, "is not an MX"),
    ],
)
def test_args_that_cannot_be_meant_are_refused_with_the_place(args: dict[str, Any], complaint: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=complaint):
        msgspec.json.decode(json.dumps(args), type=DnsCheckArgs)
