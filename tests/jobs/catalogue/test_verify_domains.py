"""`verify_domains` on somebody's own tables."""

from __future__ import annotations

from typing import Any

import pytest

from daemon.config import ConfigError, parse
from jobs.model import Done
from jobs.testing import Queue
from tests.jobs.catalogue.house import at_once, killed_everywhere, rehearsed, unlocked, whole, zoo

SCHEMA = """
create schema zoo;
create table zoo.keepers (id int primary key, house text, email text);
create table zoo.sites (
    id int generated always as identity primary key, keeper int references zoo.keepers, host text not null,
    closed boolean not null default false, dns text, since timestamptz, says text
);
insert into zoo.keepers values (1, 'north', 'ann@x.example'), (2, 'south', null);
"""
SITES = """
[jobs.sites]
verb = "verify_domains"
table = "zoo.sites"
name_column = "host"
owner_column = "keeper"
owner_table = "zoo.keepers"
org_column = "house"
contact_column = "email"
where = { closed = false }
expect = '[{"type": "MX", "value": "mx.zoo.example"}]'
state_column = "dns"
verified_column = "since"
conclusion_column = "says"
batch = 4
pause = "0"
"""


async def ran(queue: Queue) -> Any:
    await queue.enqueue("sites")
    one = (await queue.drain(raise_errors=True)).one()
    assert one.outcome == "done", one
    return one.result


async def sites(queue: Queue, count: int, keeper: int = 1, first: int = 1) -> None:
    await queue.pool.execute(
        "insert into zoo.sites (keeper, host) "
        "select $1, 'S' || n || '.Example.' from generate_series($2::int, $3::int) as n",
        keeper,
        first,
        first + count - 1,
    )


async def registered(queue: Queue) -> list[tuple[Any, ...]]:
    rows = await queue.pool.fetch("select org_id, domain, contact, expect from domains order by 1, 2")
    return [tuple(row) for row in rows]


@pytest.mark.req("BJ-20")
async def test_names_are_registered_once_each_for_its_organisation() -> None:
    async with zoo(SITES, SCHEMA) as queue:
        await sites(queue, 9)
        await sites(queue, 2, keeper=2, first=9)
        await queue.pool.execute("update zoo.sites set closed = true where host = 'S1.Example.'")
        await queue.pool.execute("insert into zoo.keepers values (3, $1, null)", "a\x01b")
        await queue.pool.execute(
            "insert into zoo.sites (keeper, host) values (1, 'not a name'), (1, 'münchen.example'), (3, 's1.example')"
        )
        said = await rehearsed(queue, SITES, "sites")
        assert isinstance(said, Done)
        counts = [said.result[f"would_{what}"] for what in ("register", "refuse", "remove")]
        assert counts == [10, 3, 0], "as a run then does"
        first = await ran(queue)
        assert first["registered"] == 10
        assert (first["refused"], sorted(first["refused_names"])) == (
            3,
            ["münchen.example", "not a name", "s1.example"],
        )
        mx = '[{"type": "MX", "value": "mx.zoo.example"}]'
        assert [row[:3] for row in await registered(queue)] == [
            *(("north", f"s{n}.example", "ann@x.example") for n in range(2, 10)),
            ("south", "s10.example", None),
            ("south", "s9.example", None),
        ]
        assert {row[3] for row in await registered(queue)} == {mx}
        waiting = await queue.pool.fetchval("select count(*) from jobs where kind = 'domain_check'")
        assert waiting == 10, "each insert asks for its first check"


@pytest.mark.req("BJ-20")
@pytest.mark.req("BJ-27")
async def test_a_second_run_changes_nothing_and_a_rehearsal_never_does() -> None:
    async with zoo(SITES, SCHEMA) as queue:
        await sites(queue, 6)
        assert (await ran(queue))["told"] == 6
        before = await whole(queue.pool)
        await rehearsed(queue, SITES, "sites")
        assert await whole(queue.pool) == before
        assert await ran(queue) == {"registered": 0, "changed": 0, "removed": 0, "told": 0, "refused": 0}
        after = await whole(queue.pool)
        for name in ("zoo.sites", "domains"):
            assert after[name] == before[name]
        last = await queue.pool.fetchval("select last_value from domains_id_seq")
        assert last == 6, "no row is made to find that it is there"


@pytest.mark.req("BJ-20")
async def test_rows_are_told_what_their_domains_are() -> None:
    async with zoo(SITES, SCHEMA) as queue:
        await sites(queue, 3)
        await ran(queue)
        await queue.pool.execute(
            "update domains set state = 'verified', verified_at = now(), conclusion = 'All is well.' "
            "where domain = 's2.example'"
        )
        assert (await ran(queue))["told"] == 1
        rows = await queue.pool.fetch("select dns, since is not null as since, says from zoo.sites order by id")
        assert [tuple(row) for row in rows] == [
            ("pending", False, None),
            ("verified", True, "All is well."),
            ("pending", False, None),
        ]


@pytest.mark.req("BJ-20")
async def test_what_is_gone_or_renamed_is_looked_at_no_more_and_others_registrations_stay() -> None:
    async with zoo(SITES, SCHEMA) as queue:
        await queue.pool.execute(
            "insert into domains (org_id, domain) values ('north', 's3.example'), ('north', 'own.example')"
        )
        await sites(queue, 5)
        token = await queue.pool.fetchval("select token from domains where domain = 's3.example'")
        assert (await ran(queue))["registered"] == 4
        await queue.pool.execute("delete from zoo.sites where host in ('S1.Example.', 'S3.Example.')")
        await queue.pool.execute("update zoo.sites set host = 'new.example' where host = 'S2.Example.'")
        await queue.pool.execute("update zoo.sites set closed = true where host = 'S4.Example.'")
        said = await ran(queue)
        assert (said["removed"], said["registered"]) == (3, 1)
        assert [row[1] for row in await registered(queue)] == ["new.example", "own.example", "s3.example", "s5.example"]
        assert await queue.pool.fetchval("select token from domains where domain = 's3.example'") == token


@pytest.mark.req("BJ-20")
async def test_other_records_and_contacts_reach_what_is_registered() -> None:
    async with zoo(SITES, SCHEMA) as queue:
        await sites(queue, 2)
        await ran(queue)
        await queue.pool.execute("update zoo.keepers set email = 'eve@x.example' where id = 1")
        assert (await ran(queue))["changed"] == 2
        assert {row[2] for row in await registered(queue)} == {"eve@x.example"}
        assert (await ran(queue))["changed"] == 0
        others = SITES.replace("mx.zoo.example", "mx2.zoo.example")
        assert (await unlocked(queue, others, "sites"))["changed"] == 2
        assert {row[3] for row in await registered(queue)} == {'[{"type": "MX", "value": "mx2.zoo.example"}]'}


@pytest.mark.req("BJ-20")
async def test_what_is_no_name_of_the_dns_is_refused_and_the_others_go_on() -> None:
    async with zoo(SITES, SCHEMA) as queue:
        long = ".".join(["x" * 60] * 4)
        for host in ("x" * 63 + ".example", "x" * 64 + ".example", long[:-8], long, "example"):
            await queue.pool.execute("insert into zoo.sites (keeper, host) values (1, $1)", host)
        said = await ran(queue)
        assert (said["registered"], said["refused"]) == (2, 3)


@pytest.mark.req("BJ-20")
async def test_of_two_rows_with_a_name_the_first_has_it_and_what_others_registered_is_not_changed() -> None:
    async with zoo(SITES, SCHEMA) as queue:
        await queue.pool.execute("insert into zoo.keepers values (3, 'north', 'bea@x.example')")
        await queue.pool.execute(
            "insert into domains (org_id, domain, contact) values ('north', 's2.example', 'cyd@x.example')"
        )
        await sites(queue, 5)
        await queue.pool.execute("insert into zoo.sites (keeper, host) values (3, 's1.example')")
        await ran(queue)
        before = await registered(queue)
        assert [row[2] for row in before[:2]] == ["ann@x.example", "cyd@x.example"]
        assert before[1][3] == "[]"
        assert (await ran(queue))["changed"] == 0
        assert await registered(queue) == before


@pytest.mark.req("BJ-20")
async def test_a_row_is_told_of_its_own_organisations_domain_and_goes_with_its_owner_to_another() -> None:
    async with zoo(SITES, SCHEMA) as queue:
        for keeper in (1, 2):
            await sites(queue, 1, keeper=keeper)
        await ran(queue)
        await queue.pool.execute("update domains set state = 'verified' where org_id = 'north'")
        await ran(queue)
        told = "select dns from zoo.sites order by keeper"
        assert [row[0] for row in await queue.pool.fetch(told)] == ["verified", "pending"]
        await queue.pool.execute("update zoo.keepers set house = 'east' where id = 1")
        said = await ran(queue)
        assert (said["removed"], said["registered"]) == (1, 1)
        assert [row[0] for row in await registered(queue)] == ["east", "south"]
        assert [row[0] for row in await queue.pool.fetch(told)] == ["pending", "pending"], "east has shown nothing yet"


@pytest.mark.req("BJ-20")
@pytest.mark.req("BJ-27")
async def test_killed_anywhere_it_comes_to_the_same() -> None:
    async with zoo(SITES, SCHEMA) as queue:

        async def seed() -> None:
            await queue.pool.execute("delete from jobs; delete from domains; truncate zoo.sites restart identity")
            await sites(queue, 9)
            await queue.pool.execute(
                "insert into domains (org_id, domain, registered_by, registered_key) "
                "values ('north', 'old.example', 'sites', '{99}')"
            )

        async def state() -> Any:
            told = await queue.pool.fetch("select host, dns from zoo.sites order by id")
            return [row[1] for row in await registered(queue)], told

        assert await killed_everywhere(queue, "sites", seed, state, step=3) >= 4


async def known(queue: Queue) -> Any:
    """What is registered, how often a first check was asked for, and what the rows were told."""
    checks = "select args ->> 'domain', count(*) from jobs where kind = 'domain_check' group by 1 order by 1"
    told = "select host, dns from zoo.sites order by id"
    return await registered(queue), await queue.pool.fetch(checks), await queue.pool.fetch(told)


@pytest.mark.req("BJ-20")
@pytest.mark.req("BJ-27")
async def test_run_twice_and_beside_itself_it_comes_to_the_same() -> None:
    async with zoo(SITES, SCHEMA) as queue:
        await sites(queue, 6)
        assert (await queue.check_idempotent("sites", state=lambda: known(queue), points=2)).pauses == 2


@pytest.mark.req("BJ-20")
@pytest.mark.req("BJ-27")
async def test_three_at_once_that_no_lock_keeps_apart_are_one() -> None:
    async with zoo(SITES, SCHEMA) as queue:
        await sites(queue, 30)
        await queue.pool.execute(
            "insert into domains (org_id, domain, registered_by, registered_key) "
            "select 'north', 'old' || n || '.example', 'sites', array['9' || n] from generate_series(1, 20) n"
        )
        said = await at_once(queue, SITES, "sites", "insert on domains")
        assert [sum(one[what] for one in said) for what in ("registered", "removed", "told")] == [30, 20, 30]
        names, checks, told = await known(queue)
        assert len(names) == 30
        assert {count for name, count in checks if name.startswith("s")} == {1}
        assert {dns for _, dns in told} == {"pending"}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ('expect = \'[{"type": "MX"}]\'', "expect"),
        ('owner_column = "keeper"', "owner_table"),
    ],
)
def test_settings_that_mean_nothing_are_refused(change: str, named: str) -> None:
    config = f'[jobs.sites]\nverb = "verify_domains"\ntable = "zoo.sites"\nname_column = "host"\n{change}\n'
    with pytest.raises(ConfigError, match=named):
        parse(config)
