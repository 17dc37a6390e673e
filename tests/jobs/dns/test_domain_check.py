"""The kind domain_check, from a row of table domains to its next state, on a little Internet."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import asyncpg
import pytest

from jobs.dns.policy import DomainPolicy
from jobs.dns.resolver import Resolver
from jobs.model import Dead, Snooze
from jobs.values import duration
from tests.jobs.dns.internet import Internet, Zone
from tests.jobs.dns.registry import Registry

pytestmark = pytest.mark.req("BJ-20")

NAME = "_jobsd-challenge.shop.test"


@pytest.fixture
async def internet() -> AsyncIterator[Internet]:
    async with Internet() as internet:
        yield internet


@pytest.fixture
async def shop(internet: Internet) -> Zone:
    return await internet.zone("shop.test", negative_ttl=600)


@pytest.fixture
def registry(internet: Internet, pool: asyncpg.Pool) -> Registry:
    return Registry(pool, resolver(internet))


def resolver(internet: Internet, **policy: object) -> Resolver:
    domains = replace(DomainPolicy(), **policy)  # type: ignore[arg-type]
    return Resolver(
        internet.settings(
            roots=tuple(server.address for server in internet.root.servers),
            authority_port=internet.port,
            allow_addresses=("127.0.0.0/8",),
            domains=domains,
        )
    )


def publish(zone: Zone, token: str) -> None:
    zone.set(NAME, "TXT", f'"token={token}"')


async def test_a_domain_is_verified_by_its_token_and_its_owner_is_told(registry: Registry, shop: Zone) -> None:
    token = await registry.register("shop.test", contact="ann@shop.test")
    first = await registry.check("shop.test")
    assert (first["state"], first["verdict"]) == ("pending", "absent")
    assert await registry.told() == []
    publish(shop, token)
    second = await registry.check("shop.test")
    assert (second["state"], second["state_before"], second["verdict"]) == ("verified", "pending", "match")
    assert await registry.told() == ["domain.verified"]
    [mail] = await registry.pool.fetch("select args from jobs where kind = 'email'")
    assert '"subject": "shop.test is verified"' in mail["args"]
    row = await registry.row("shop.test")
    assert row["name_servers"] == ["ns1.shop.test", "ns2.shop.test"]
    assert row["state"] == "verified"
    assert {s.partition(" ")[0] for s in first["records"][0]["servers"]} == {"ns1.shop.test", "ns2.shop.test"}


async def test_who_is_told_is_the_operators_to_say(registry: Registry, internet: Internet, shop: Zone) -> None:
    token = await registry.register("shop.test", contact="ann@shop.test")
    publish(shop, token)
    registry.resolver = resolver(internet, notify=())
    assert (await registry.check("shop.test"))["state"] == "verified"
    assert await registry.told() == []
    assert await registry.pool.fetchval("select count(*) from jobs where kind = 'email'") == 0


async def test_the_first_check_and_those_of_what_is_not_published_ask_no_resolver(
    registry: Registry, shop: Zone, internet: Internet
) -> None:
    """Or the question itself would make them remember for ten minutes that there is nothing."""
    token = await registry.register("shop.test")
    for _ in range(3):
        assert (await registry.check("shop.test"))["verdict"] == "absent"
    assert not any(server.asked for server in internet.resolvers)
    publish(shop, token)
    assert (await registry.check("shop.test"))["state"] == "verified"
    assert all(server.asked for server in internet.resolvers)


async def test_one_organisations_record_never_verifies_another(registry: Registry, shop: Zone) -> None:
    acme = await registry.register("shop.test", "acme")
    await registry.register("shop.test", "globex")
    await registry.register("shop.test", None)
    publish(shop, acme)
    assert (await registry.check("shop.test", "acme"))["state"] == "verified"
    assert (await registry.check("shop.test", "globex"))["state"] == "pending"
    assert (await registry.check("shop.test", None))["state"] == "pending"
    assert await registry.told("globex") == []


@pytest.mark.parametrize("fault", ["servfail", "refused", "lame"])
async def test_no_hiccup_moves_a_verified_domain(registry: Registry, shop: Zone, fault: str) -> None:
    token = await registry.register("shop.test")
    publish(shop, token)
    await registry.check("shop.test")
    shop.fault(fault)  # type: ignore[arg-type]
    for server in shop.servers:
        server.forget()
    before = await registry.row("shop.test")
    result = await registry.check("shop.test")
    row = await registry.row("shop.test")
    assert (result["state"], row["since"], row["mismatch_since"]) == ("verified", before["since"], None)
    assert await registry.told() == ["domain.verified"]


async def test_servers_that_disagree_are_named_and_change_nothing(registry: Registry, shop: Zone) -> None:
    token = await registry.register("shop.test")
    publish(shop, token)
    await registry.check("shop.test")
    shop.at(1).remove(NAME, "TXT")
    result = await registry.check("shop.test")
    assert result["state"] == "verified"
    assert "ns2.shop.test" in result["conclusion"]
    row = await registry.row("shop.test")
    assert row["next_check_at"] - row["checked_at"] == pytest.approx(timedelta(minutes=10), abs=timedelta(seconds=30))


async def test_a_record_that_is_gone_is_trouble_and_coming_back_ends_it(registry: Registry, shop: Zone) -> None:
    token = await registry.register("shop.test")
    publish(shop, token)
    await registry.check("shop.test")
    shop.remove(NAME, "TXT")
    assert (await registry.check("shop.test"))["state"] == "degraded"
    publish(shop, token)
    assert (await registry.check("shop.test"))["state"] == "verified"
    assert await registry.told() == ["domain.verified"]
    history = await registry.pool.fetch("select state_before, state_after from domain_checks order by ended_at")
    assert [tuple(line) for line in history] == [
        ("pending", "verified"),
        ("verified", "degraded"),
        ("degraded", "verified"),
    ]


async def test_a_second_click_is_answered_by_the_first(registry: Registry, shop: Zone) -> None:
    await registry.register("shop.test")
    first = await registry.check("shop.test")
    for server in shop.servers:
        server.forget()
    again = await registry.check("shop.test", soon=True)
    assert (again["asked"], again["verdict"], again["conclusion"]) == (False, "absent", first["conclusion"])
    assert "s ago" in again["why"]
    assert not any(server.asked for server in shop.servers)
    assert await registry.pool.fetchval("select count(*) from domain_checks") == 1


async def test_a_click_during_a_check_waits_for_it(registry: Registry, shop: Zone) -> None:
    await registry.register("shop.test")
    await registry.check("shop.test", killed=True)
    assert isinstance(await registry.outcome("shop.test", soon=True), Snooze)


async def test_a_check_that_is_killed_before_its_end_is_made_again_and_told_once(
    registry: Registry, shop: Zone
) -> None:
    token = await registry.register("shop.test")
    publish(shop, token)
    for killed in (True, True, False):
        result = await registry.check("shop.test", job=7, killed=killed, soon=True)
        assert (result["asked"], result["state"]) == (True, "verified")
    assert await registry.told() == ["domain.verified"]
    assert await registry.pool.fetchval("select checks from domains") == 1


async def test_a_dry_run_says_what_it_would_and_changes_nothing(registry: Registry, shop: Zone) -> None:
    token = await registry.register("shop.test")
    publish(shop, token)
    before = await registry.row("shop.test")
    assert (await registry.check("shop.test", dry_run=True))["state"] == "verified"
    assert dict(await registry.row("shop.test")) == dict(before)


async def test_further_records_are_part_of_it(registry: Registry, shop: Zone) -> None:
    token = await registry.register("shop.test", expect='[{"type": "MX", "value": "mx.mail.example"}]')
    publish(shop, token)
    result = await registry.check("shop.test")
    assert (result["state"], result["verdict"]) == ("pending", "absent")
    shop.add("shop.test MX 10 mx.mail.example.")
    assert (await registry.check("shop.test"))["state"] == "verified"


async def test_expectations_that_cannot_be_read_verify_nothing_and_say_so(registry: Registry, shop: Zone) -> None:
    token = await registry.register("shop.test", expect='[{"type": "LOC", "value": "52 22 23 N"}]')
    publish(shop, token)
    result = await registry.check("shop.test")
    assert (result["state"], result["verdict"]) == ("pending", "indeterminate")
    assert "LOC" in result["conclusion"]


async def test_a_domain_of_nobody_is_a_dead_letter_and_one_that_was_removed_is_not(registry: Registry) -> None:
    outcome = await registry.outcome("nobody.test")
    assert isinstance(outcome, Dead)
    assert outcome.code == "domain_unknown"
    assert "insert it into table domains" in outcome.reason
    assert (await registry.check("nobody.test", id=4711))["why"] == "it is no longer registered"


async def test_a_public_suffix_is_nobodys_whatever_it_publishes(registry: Registry, internet: Internet) -> None:
    suffix = await internet.zone("github.io")
    token = await registry.register("github.io")
    suffix.set("_jobsd-challenge.github.io", "TXT", f'"token={token}"')
    checked = await registry.check("github.io")
    assert (checked["state"], checked["verdict"]) == ("pending", "indeterminate")
    assert "github.io is a public suffix" in checked["conclusion"]
    assert not suffix.asked


async def test_an_outage_of_the_way_to_a_domain_is_no_change_of_its_name_servers(
    registry: Registry, internet: Internet, shop: Zone
) -> None:
    token = await registry.register("shop.test")
    publish(shop, token)
    registry.resolver = resolver(internet, on_new_name_servers="challenge")
    await registry.check("shop.test")
    internet.zones["test"].fault("servfail")
    registry.resolver = resolver(internet, on_new_name_servers="challenge")
    assert (await registry.check("shop.test"))["state"] == "verified"
    internet.heal()
    registry.resolver = resolver(internet, on_new_name_servers="challenge")
    assert (await registry.check("shop.test"))["state"] == "verified"
    assert (await registry.row("shop.test"))["token"] == token


async def test_other_name_servers_are_said_and_challenge_where_that_is_wanted(
    registry: Registry, internet: Internet, shop: Zone
) -> None:
    token = await registry.register("shop.test")
    publish(shop, token)
    await registry.check("shop.test")
    await registry.pool.execute("update domains set name_servers = '{ns1.old.test,ns2.old.test}'")
    advised = await registry.check("shop.test")
    assert advised["state"] == "verified"
    assert "were ns1.old.test, ns2.old.test, and are ns1.shop.test, ns2.shop.test" in advised["conclusion"]
    await registry.pool.execute("update domains set name_servers = '{ns1.old.test}'")
    registry.resolver = resolver(internet, on_new_name_servers="challenge", fail_after=duration("5d"))
    challenged = await registry.check("shop.test")
    row = await registry.row("shop.test")
    assert (challenged["state"], row["state"]) == ("degraded", "degraded")
    assert row["token"] != token
    assert await registry.told() == ["domain.verified", "domain.degraded"]
    publish(shop, row["token"])
    assert (await registry.check("shop.test"))["state"] == "verified"


@pytest.fixture
async def challenging(registry: Registry, internet: Internet) -> Registry:
    registry.resolver = resolver(internet, on_new_name_servers="challenge")
    return registry


async def move(internet: Internet, token: str | None) -> Zone:
    """The domain goes to a hoster; its records go with it, or do not."""
    hoster = await internet.zone("hoster.example")
    moved = await internet.zone("shop.test", on=hoster.servers)
    if token:
        publish(moved, token)
    return moved


async def test_a_check_that_could_not_tell_asks_for_no_new_token(
    challenging: Registry, internet: Internet, shop: Zone
) -> None:
    """The parent's servers refer to somebody else for a while, who does not know the domain."""
    token = await challenging.register("shop.test")
    publish(shop, token)
    await challenging.check("shop.test")
    stranger = await internet.zone("stranger.example")
    internet.delegate("shop.test", {server.host: [] for server in stranger.servers})
    checked = await challenging.check("shop.test")
    assert (checked["state"], checked["verdict"]) == ("verified", "indeterminate")
    assert "Its name servers were ns1.shop.test" in checked["conclusion"]
    internet.delegate("shop.test", {server.host: [server.address] for server in shop.servers})
    assert (await challenging.check("shop.test"))["state"] == "verified"
    assert (await challenging.row("shop.test"))["token"] == token


async def test_a_domain_that_moves_before_it_is_verified_keeps_its_token(
    challenging: Registry, internet: Internet, shop: Zone
) -> None:
    token = await challenging.register("shop.test")
    assert (await challenging.check("shop.test"))["state"] == "pending"
    await move(internet, token)
    assert (await challenging.check("shop.test"))["state"] == "verified"
    assert (await challenging.row("shop.test"))["token"] == token


async def test_a_domain_whose_records_follow_its_move_later_is_challenged_all_the_same(
    challenging: Registry, internet: Internet, shop: Zone
) -> None:
    """Or whoever has got it would only have to copy the old token a day later."""
    token = await challenging.register("shop.test")
    publish(shop, token)
    await challenging.check("shop.test")
    moved = await move(internet, None)
    gone = await challenging.check("shop.test")
    assert gone["state"] == "degraded"
    assert gone["conclusion"].endswith("ns2.hoster.example: the domain may have another owner.")
    publish(moved, token)
    assert (await challenging.check("shop.test"))["state"] == "degraded"
    new = (await challenging.row("shop.test"))["token"]
    assert new != token
    publish(moved, new)
    assert (await challenging.check("shop.test"))["state"] == "verified"


async def test_a_registry_of_which_one_server_is_behind_moves_no_verified_domain(
    registry: Registry, internet: Internet, shop: Zone
) -> None:
    """It leads to where the domain was before, and those servers have never heard of the token."""
    old = await internet.zone("before.example")
    await internet.zone("shop.test", on=old.servers)
    tld = internet.zones["test"]
    tld.servers[1].zones["test"] = copy.deepcopy(tld.at(0))
    internet.delegate("shop.test", {server.host: [server.address] for server in shop.servers})
    tld.at(1).set("shop.test", "NS", *(f"{server.host}." for server in old.servers))
    token = await registry.register("shop.test")
    publish(shop, token)
    while (await registry.check("shop.test"))["state"] != "verified":
        pass
    for _ in range(8):
        assert (await registry.check("shop.test"))["state"] == "verified"
