"""The rights in a database: look at them, and put the manifest into effect."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import asyncpg

import sql
from daemon.manifest import Manifest, Policy, Right, manifest
from daemon.roles import PHASES, Change, Relation, Routine, Seen, drift, whole_plan

_SQL = sql.load("roles.sql")
_REFUSED = (
    asyncpg.InsufficientPrivilegeError,
    asyncpg.UndefinedObjectError,  # a role that could not be made
    asyncpg.LockNotAvailableError,  # somebody uses the table all the time; the next one to migrate tries again
)

Conn = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was changed, and what this role could not change, with what Postgres said."""

    done: tuple[Change, ...]
    left: tuple[tuple[Change, str], ...]


async def seen(conn: Conn, wanted: Manifest) -> Seen:
    """What holds in the schema that `conn` sees."""
    me = await conn.fetchrow(_SQL["me"])
    if me is None:
        raise ConnectionError("no answer")
    roles, tables = list(wanted.roles), list(wanted.tables)
    policies: defaultdict[str, dict[str, Policy]] = defaultdict(dict)
    for row in await conn.fetch(_SQL["policies"], tables):
        using = row["using"] if row["command"] == "*" else "for some commands only"
        policies[row["name"]][row["policy"]] = Policy(using, row["check"])
    in_schema = await conn.fetch(_SQL["schema"], roles)
    return Seen(
        me=me["role"],
        super=me["super"],
        schema=me["schema"],
        roles=frozenset(row["role"] for row in await conn.fetch(_SQL["roles"], roles)),
        relations={row["name"]: _relation(row) for row in await conn.fetch(_SQL["relations"], tables)},
        rights=frozenset(Right(*row) for row in await conn.fetch(_SQL["rights"], tables)),
        functions=[_routine(row) for row in await conn.fetch(_SQL["functions"], list(wanted.functions))],
        policies=policies,
        domains={row["name"]: row["owner"] for row in await conn.fetch(_SQL["domains"], list(wanted.domains))},
        enters=frozenset(row["role"] for row in in_schema if row["enters"]),
        creates=frozenset(row["role"] for row in in_schema if row["creates"]),
    )


async def put_right(conn: Conn, *, create: bool, own: bool) -> Outcome:
    """Mend what differs from the manifest, a statement a transaction, so that what this role may not do keeps it from
    nothing else.  Call it under the migrations' lock: two at once would get in each other's way."""
    wanted = manifest()
    done: list[Change] = []
    left: list[tuple[Change, str]] = []
    for phase in PHASES:
        changes = drift(wanted, await seen(conn, wanted), create=create, own=own)
        for change in changes:
            if change.phase == phase:
                said = await _refusal(conn, change.statement)
                if said is None:
                    done.append(change)
                else:
                    left.append((change, said))
    return Outcome(tuple(done), tuple(left))


async def plan(conn: Conn) -> list[Change]:
    """What `put_right` would do with everything asked for."""
    wanted = manifest()
    return whole_plan(wanted, await seen(conn, wanted))


async def _refusal(conn: Conn, statement: str) -> str | None:
    try:
        await conn.execute(statement)
    except _REFUSED as error:
        return str(error)
    return None


def _relation(row: asyncpg.Record) -> Relation:
    return Relation(row["name"], row["kind"], row["owner"], row["guarded"], row["parent"], frozenset(row["columns"]))


def _routine(row: asyncpg.Record) -> Routine:
    return Routine(row["place"], row["name"], row["owner"], row["definer"], row["pinned"], frozenset(row["callers"]))
