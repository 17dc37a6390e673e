"""Whatever tables and columns are called, and whatever the config says, a statement is what its skeleton says."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.config import ConfigError, parse
from jobs.catalogue.kinds import look
from tests.jobs.catalogue.house import zoo

SCHEMA = "create schema zoo; create table zoo.canary (id int)"
NASTY = [
    'a"; drop table zoo.canary; --',
    "{table}",
    "$1",
    "select",
    "A b",
    "é",
    "a.b",
    "''",
    '""',
    "%s",
    "\\",
    "a\nb",
    "{}",
]
NAMES = st.one_of(
    st.sampled_from(NASTY),
    st.text(st.characters(min_codepoint=1, exclude_categories=["Cs"]), min_size=1, max_size=12),
)


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def toml(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def gathered() -> list[tuple[str, str, str, str]]:
    """A table, two columns of it, and a value of the second."""
    made: list[tuple[str, str, str, str]] = []

    @settings(max_examples=60, database=None, suppress_health_check=list(HealthCheck))
    @given(st.tuples(NAMES, NAMES, NAMES, NAMES))
    def gather(names: tuple[str, str, str, str]) -> None:
        if len({*names[1:3], "id"}) == 3 and all(len(name.encode()) <= 40 for name in names):
            made.append((f"{len(made)} {names[0]}", *names[1:]))

    gather()
    return made


async def test_tables_and_columns_of_any_name_are_purged_of_what_fits_and_nothing_else_happens() -> None:
    made = gathered()
    config = "\n".join(
        f"[jobs.j{number}]\nverb = 'purge'\ntable = {toml('zoo.' + quoted(table))}\nage_column = {toml(age)}\n"
        f"retention = '1d'\nwhere = {{ {toml(state)} = {toml(value)} }}"
        for number, (table, age, state, value) in enumerate(made)
    )
    async with zoo(config, SCHEMA) as queue:
        async with queue.pool.acquire() as conn:
            for table, age, state, value in made:
                where = f"zoo.{quoted(table)}"
                await conn.execute(
                    f"create table {where} (id int primary key, {quoted(age)} timestamptz, {quoted(state)} text)"
                )
                await conn.execute(f"insert into {where} values (1, '2001-01-01', $1), (2, '2001-01-01', null)", value)
        for number in range(len(made)):
            await queue.enqueue(f"j{number}")
        ran = await queue.drain(raise_errors=True)
        assert [(one.outcome, one.result) for one in ran] == [("done", {"deleted": 1})] * len(made)
        assert await queue.pool.fetchval("select to_regclass('zoo.canary')") is not None
        assert len(made) > 20


async def test_names_out_of_the_blue_park_a_job_or_are_refused() -> None:
    def job(table: str) -> str:
        return f"[jobs.x]\nverb = 'purge'\ntable = {toml(table)}\nage_column = 'a'\nretention = '1d'\n"

    async with zoo() as queue, queue.pool.acquire() as conn:
        for name in (
            "information_schema.tables",
            'zoo."x""; drop table zoo.heap; --"',
            "zoo.none",
            "pg_catalog.pg_class",
        ):
            assert (await look(conn, parse(job(name)).jobs["x"])).reason is not None, name
    for name in ("zoo.visits; drop table zoo.heap", "zoo.visits where true", "a.b.c.d", "", "zoo.", "(select 1)"):
        with pytest.raises(ConfigError, match="is no table"):
            parse(job(name))
