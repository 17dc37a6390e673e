"""The job kind: from the args of a row to its outcome and its line in domain_checks, on a little Internet."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from daemon.texts import json_text
from jobs import Context, Done, Retry
from jobs.context import Ledger
from jobs.dns.handler import RECHECK, DnsCheckArgs, dns_check
from jobs.dns.resolver import Resolver
from jobs.model import Job
from jobs.registry import KINDS
from jobs.values import duration
from tests.jobs.dns.internet import Internet, Zone
from tests.jobs.dns.internet_faults import Fault

NAME = "_token.shop.test"
TOKEN = {"type": "TXT", "name": "_token", "value": "abc"}
MAIL = {"type": "MX", "value": "mx.mail.test"}


@pytest.fixture
async def internet() -> AsyncIterator[Internet]:
    async with Internet() as internet:
        yield internet


@pytest.fixture
async def shop(internet: Internet) -> Zone:
    return await internet.zone("shop.test")


@pytest.fixture
def resolver(internet: Internet) -> Resolver:
    return Resolver(settings_of(internet))


def settings_of(internet: Internet, **other: Any) -> Any:
    return internet.settings(
        roots=tuple(server.address for server in internet.root.servers),
        authority_port=internet.port,
        allow_addresses=("127.0.0.0/8",),
        **other,
    )


class Tools:
    """What the daemon would hand over; this channel uses the resolver alone."""

    def __init__(self, resolver: Resolver) -> None:
        self.dns = resolver


async def check(
    resolver: Resolver, *expect: dict[str, str], attempt: int = 1, max_attempts: int | None = None
) -> tuple[Any, dict[str, Any]]:
    """The outcome and the ledger row, both as JSON would store them."""
    args = json.dumps({"domain": "Shop.test", "expect": expect})
    job = Job(1, 1, "dns_check", "default", 2, attempt, args, 0.0, max_attempts=max_attempts)
    ctx = Context(job, Tools(resolver), log=None, progress=None)  # type: ignore[arg-type] # neither is used
    outcome = await dns_check(KINDS["dns_check"].decode(args), ctx)
    [(ledger, row)] = ctx.records
    assert ledger == Ledger("domain_checks")
    return outcome, json.loads(json_text(row))


async def test_what_is_published_matches(shop: Zone, resolver: Resolver) -> None:
    shop.add(f'{NAME} TXT "a" "bc"', "shop.test MX 10 mx.mail.test.")
    outcome, row = await check(resolver, TOKEN, MAIL)
    assert isinstance(outcome, Done)
    assert outcome.result["verdict"] == "match"
    assert json.loads(json_text(outcome.result["records"])) == row["records"]
    assert (row["domain"], row["verdict"]) == ("shop.test", "match")
    assert {server.partition(" ")[0] for server in row["servers"]} >= {"ns1.shop.test", "ns2.shop.test"}
    assert row["duration_ms"] > 0
    assert [(r["type"], r["name"], r["found"], r["verdict"], r["state"]) for r in row["records"]] == [
        ("TXT", NAME, ["abc"], "match", "match"),
        ("MX", "shop.test", ["10 mx.mail.test"], "match", "match"),
    ]


@pytest.mark.req("BJ-20")
async def test_a_wrong_or_missing_record_is_a_result_and_not_a_failure(shop: Zone, resolver: Resolver) -> None:
    outcome, row = await check(resolver, TOKEN, MAIL)
    assert isinstance(outcome, Done)
    assert row["verdict"] == "absent"
    shop.add(f'{NAME} TXT "other"')
    outcome, row = await check(resolver, TOKEN, MAIL)
    assert isinstance(outcome, Done)
    assert outcome.result["verdict"] == row["verdict"] == "mismatch"
    assert "other" in outcome.result["conclusion"]


@pytest.mark.req("BJ-20")
@pytest.mark.parametrize("fault", ["servfail", "refused", "silent", "lame", "garbage"])
async def test_a_hiccup_of_all_servers_is_tried_again_and_says_why(
    internet: Internet, shop: Zone, resolver: Resolver, fault: Fault
) -> None:
    shop.add(f'{NAME} TXT "abc"', "shop.test MX 10 mx.mail.test.")
    for server in (*shop.servers, *internet.resolvers):
        server.fault(fault, name=NAME)
    if fault in ("silent", "garbage"):  # which only time reveals
        resolver = Resolver(settings_of(internet, timeout=duration("150ms"), tries=1))
    outcome, row = await check(resolver, TOKEN, MAIL)
    assert isinstance(outcome, Retry)
    assert outcome.code == "indeterminate"
    assert outcome.detail is not None
    assert outcome.detail["verdict"] == row["verdict"] == "indeterminate"
    assert [record["verdict"] for record in row["records"]] == ["indeterminate", "match"]
    assert outcome.reason == row["records"][0]["text"]


async def test_a_record_that_is_surely_missing_decides_though_another_is_unknown(
    internet: Internet, shop: Zone, resolver: Resolver
) -> None:
    for server in (*shop.servers, *internet.resolvers):
        server.fault("servfail", name=NAME)
    outcome, row = await check(resolver, TOKEN, MAIL)
    assert isinstance(outcome, Done)
    assert (outcome.result["verdict"], row["verdict"]) == ("absent", "absent")
    assert [record["verdict"] for record in row["records"]] == ["indeterminate", "absent"]


@pytest.mark.parametrize(
    ("attempt", "max_attempts", "last"),
    [(RECHECK.max_attempts, None, True), (RECHECK.max_attempts - 1, None, False), (1, 1, True), (10, 11, False)],
)
async def test_the_last_attempt_ends_with_what_is_known_nothing(
    internet: Internet, shop: Zone, resolver: Resolver, attempt: int, max_attempts: int | None, last: bool
) -> None:
    for server in (*shop.servers, *internet.resolvers):
        server.fault("refused")
    outcome, row = await check(resolver, TOKEN, attempt=attempt, max_attempts=max_attempts)
    assert isinstance(outcome, Done if last else Retry)
    assert row["verdict"] == "indeterminate"
    if isinstance(outcome, Done):
        assert outcome.result["verdict"] == "indeterminate"


async def test_expectations_for_one_record_set_share_one_question(shop: Zone, resolver: Resolver) -> None:
    shop.add(f'{NAME} TXT "abc"')
    _, row = await check(resolver, TOKEN, TOKEN | {"value": "def"}, TOKEN | {"name": f"{NAME}."})
    assert [record["verdict"] for record in row["records"]] == ["match", "mismatch", "match"]
    asked = [count for (name, rdtype, _), count in shop.servers[0].asked.items() if (name, rdtype) == (NAME, "TXT")]
    assert asked == [2], "once, and once more before it is held against the domain"


async def test_what_is_not_published_no_resolver_is_asked_for(
    internet: Internet, shop: Zone, resolver: Resolver
) -> None:
    """It would remember that for as long as the zone says, and be the last to see the record."""
    await check(resolver, TOKEN)
    assert not any(server.asked for server in internet.resolvers)


async def test_the_questions_of_one_check_are_asked_all_at_a_time(shop: Zone, resolver: Resolver) -> None:
    shop.fault("silent", type="TXT")
    async with asyncio.TaskGroup() as group:
        checking = group.create_task(
            check(resolver, *({"type": "TXT", "name": f"n{n}", "value": "x"} for n in range(10)))
        )
        async with asyncio.timeout(60):
            await shop.servers[0].asked_so_often(10)
        checking.cancel()


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
