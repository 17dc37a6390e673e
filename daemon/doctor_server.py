"""How the server is set up, judged: settings, connections, indexes, and who keeps vacuum from its work.  Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from daemon.doctor import Finding
from daemon.manifest import manifest

SLOT_BEHIND = 10_000_000
SLOT_KEPT_BYTES = 10 << 30
"""A replication slot that keeps so many transactions' dead rows, or so much write-ahead log, is nobody's plan."""


def settings(held: Mapping[str, str]) -> list[Finding]:
    """`held`: name and value; a setting that this server does not have is passed over."""
    found = []
    for name, wanted in manifest().settings.items():
        if name in held and not wanted.allows(held[name]):
            verdict = "ok" if wanted.level == "advice" else wanted.level
            found.append(Finding(f"setting {name}", verdict, f"is {held[name]}: {wanted.says}", wanted.fix))
    return found or [Finding("settings", "ok", "as they should be")]


def connections(most: int, taken: int, *, each: int, daemons: int) -> Finding:
    """`most`: who may connect beside superusers; `each`: what one daemon of this config takes when it is busy."""
    needed = each * max(daemons, 1)
    if needed > most:
        return Finding(
            "connections",
            "warn",
            f"{max(daemons, 1)} daemons of this config take up to {needed}, and the server has {most}",
            "raise max_connections, or lower database.pool_size",
        )
    if taken > most * 0.9:
        fix = "raise max_connections, or see who has so many: select usename, count(*) from pg_stat_activity group by 1"
        return Finding("connections", "warn", f"{taken} of {most} are taken", fix)
    return Finding("connections", "ok", f"{taken} of {most} are taken; a daemon takes up to {each}")


def indexes(invalid: Sequence[Mapping[str, Any]]) -> list[Finding]:
    return [
        Finding(
            f"index {row['index']}",
            "fail",
            f"is not valid: its build was broken off, and no query on {row['place']} uses it",
            f"reindex index concurrently {row['index']}",
        )
        for row in invalid
    ] or [Finding("indexes", "ok", "all valid")]


def slots(rows: Sequence[Mapping[str, Any]]) -> list[Finding]:
    return list(_slots(rows)) or [Finding("replication slots", "ok", "none holds anything back")]


def _slots(rows: Sequence[Mapping[str, Any]]) -> list[Finding]:
    found = []
    for row in rows:
        behind, kept = row["behind"] or 0, row["kept"] or 0
        if behind < SLOT_BEHIND and kept < SLOT_KEPT_BYTES:
            continue
        says = f"keeps the dead rows of {behind:,} transactions and {kept / 2**30:.1f} GiB of write-ahead log"
        fix = (
            "its reader is slow: look at its log, and at pg_stat_replication"
            if row["active"]
            else f"nobody reads it; if nobody will: select pg_drop_replication_slot('{row['slot']}')"
        )
        found.append(Finding(f"replication slot {row['slot']}", "warn", says, fix))
    return found
