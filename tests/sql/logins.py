"""A database whose rights follow the manifest, and logins in it.

Roles are the server's, so all of them are gone afterwards.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg

from daemon.embedded import Embedded
from daemon.manifest import manifest
from daemon.migrate import migrate

LOGINS = {
    "acme_app": "jobsd_producer",
    "globex_app": "jobsd_producer",
    "shop_app": "jobsd_producer",  # of no organisation: the application's own back end
    "acme_reader": "jobsd_reader",
    "acme_operator": "jobsd_operator",
    "acme_hooks": "jobsd_endpoints",
    "globex_hooks": "jobsd_endpoints",
    "shop_hooks": "jobsd_endpoints",
    "acme_mail": "jobsd_mail",
    "jobsd_serve": "jobsd_daemon",
    "jobsd_ann": "jobsd_operator",
    "jobsd_bob": "jobsd_reader",
}
MEMBERS = {
    "acme_app": "acme",
    "acme_reader": "acme",
    "acme_operator": "acme",
    "acme_hooks": "acme",
    "acme_mail": "acme",
    "globex_app": "globex",
    "globex_hooks": "globex",
}


def as_login(dsn: str, login: str) -> str:
    return dsn.replace("postgres@", f"{login}@", 1)


@asynccontextmanager
async def roles_in(dsn: str, schema: str = "public") -> AsyncIterator[None]:
    """The roles of the manifest and LOGINS, in effect in `schema` of this database."""
    try:
        await migrate(dsn, schema, roles=True)
        conn = await asyncpg.connect(dsn, server_settings={"search_path": schema})
        for login, group in LOGINS.items():
            await conn.execute(f"create role {login} login; grant {group} to {login}")
        for login, org in MEMBERS.items():
            await conn.execute("insert into job_org_members values ($1::text::regrole, $2)", login, org)
        await conn.close()
        yield
    finally:
        await drop_roles(dsn, *LOGINS, *manifest().roles)


@asynccontextmanager
async def connections(dsn: str, *logins: str) -> AsyncIterator[tuple[asyncpg.Connection, ...]]:
    """One of each login, in a database whose rights follow the manifest."""
    async with roles_in(dsn), AsyncExitStack() as open_ones:
        conns = [await asyncpg.connect(as_login(dsn, login)) for login in logins]
        for conn in conns:
            open_ones.push_async_callback(conn.close)
        yield tuple(conns)


@asynccontextmanager
async def template_with_roles(server: Embedded, admin: asyncpg.Connection, template: str) -> AsyncIterator[str]:
    """The name of a database to clone, in which `roles_in` is done already: it takes ten times as long as a clone."""
    name = f"{template}_with_roles"
    await admin.execute(f"create database {name} template {template}")
    try:
        async with roles_in(server.dsn(name)):
            yield name
    finally:
        await admin.execute(f"drop database {name} with (force)")


async def drop_roles(dsn: str, *roles: str) -> None:
    """With all that they own and were granted in this database; what is not there is passed over."""
    conn = await asyncpg.connect(dsn)
    there = await conn.fetch("select rolname from pg_roles where rolname = any ($1::text[])", list(roles))
    for (role,) in there:
        await conn.execute(f"drop owned by {role} cascade")
    for (role,) in there:
        await conn.execute(f"drop role {role}")
    await conn.close()
