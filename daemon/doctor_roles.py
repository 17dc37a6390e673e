"""The rights in the database, judged: what differs from the manifest, and who is above it.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from daemon.doctor import Finding
from daemon.manifest import OWNER, PUBLIC, Manifest
from daemon.roles import Seen, drift, strangers


def rights(manifest: Manifest, seen: Seen) -> list[Finding]:
    """One finding for each difference, with the statement that mends it."""
    return [
        _roles(manifest, seen),
        *_owner(seen),
        *_schema(seen),
        *_strangers(manifest, seen),
        *(
            Finding(change.place, "fail", change.says, change.statement)
            for change in drift(manifest, seen, create=False, own=False)
        ),
    ]


def me(row: Mapping[str, Any], seen: Seen, *, embedded: bool) -> list[Finding]:
    """Who asks: most likely who serves, too.  `row`: super, bypasses, sees."""
    found = []
    jobs = seen.relations.get("jobs")
    if row["super"] and not embedded:
        says = f"{row['role']} is a superuser: whoever has the daemon's password has the server"
        found.append(Finding("login", "warn", says, "connect as a member of jobsd_daemon; see docs/isolation.md"))
    elif jobs is not None and jobs.owner == row["role"] and OWNER in seen.roles:
        says = f"{row['role']} owns the tables: no policy and no right binds it"
        found.append(Finding("login", "warn", says, "jobsd roles apply, and connect as a member of jobsd_daemon"))
    elif not embedded:
        found.append(Finding("login", "ok", f"{row['role']} is no superuser"))
    if not row["super"] and not row["sees"]:
        says = f"{row['role']} does not see what other sessions do: those that hold vacuum back are not all named"
        found.append(Finding("sight", "ok", says, f"grant pg_read_all_stats to {row['role']}"))
    return found


def _roles(manifest: Manifest, seen: Seen) -> Finding:
    missing = sorted(manifest.roles.keys() - seen.roles)
    if not seen.roles:
        says = "none of jobsd's roles exist: whoever connects has what its login was given by hand"
        return Finding("roles", "ok", says, "to have them: jobsd roles apply, or jobsd roles sql")
    if missing:
        return Finding("roles", "warn", f"missing: {', '.join(missing)}", "jobsd roles apply")
    return Finding("roles", "ok", "all there")


def _owner(seen: Seen) -> list[Finding]:
    jobs = seen.relations.get("jobs")
    if OWNER not in seen.roles or jobs is None or jobs.owner == OWNER:
        return []
    says = f"the tables are owned by {jobs.owner}, whom no policy binds, and not by {OWNER}"
    return [Finding("owner", "warn", says, "jobsd roles apply")]


def _schema(seen: Seen) -> list[Finding]:
    if PUBLIC not in seen.creates:
        return []
    says = "everybody may create objects in it, and so stand in for what other programs look for there"
    fix = f'revoke create on schema "{seen.schema}" from public'
    return [Finding(f"schema {seen.schema}", "warn", says, fix)]


def _strangers(manifest: Manifest, seen: Seen) -> list[Finding]:
    return [
        Finding(
            f"role {role}",
            "warn",
            f"has rights of its own on {', '.join(objects[:5])}, which the manifest does not know",
            f'if it inserts: grant jobsd_producer to "{role}"; and then: '
            f'revoke all on {", ".join(objects[:5])} from "{role}"',
        )
        for role, objects in strangers(manifest, seen).items()
    ]
