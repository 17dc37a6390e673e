"""What the daemon rests on, judged: what was seen becomes findings, with a remedy for each fault.  Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from typing import Any, Literal

from daemon.manifest import manifest
from jobs.catalogue.kinds import Look

Verdict = Literal["ok", "warn", "fail"]

SKEW_WARN_S = 1.0
HORIZON_S = 600.0
"""A snapshot that old keeps the dead rows of everything that ended since: claims get slower with each of them."""

TRIGGERS = {
    ("jobs", "jobs_keys"): "a second row with the same idempotency key is not refused; on_duplicate and batch_id mean "
    "nothing",
    (
        "jobs",
        "jobs_insert",
    ): "daemons find new rows only at their next poll, and producers can insert rows that none can claim",
    (
        "job_keys_unsure",
        "job_keys_settled",
    ): "an idempotency key whose row a unique key kept out shuts out the next try",
    ("job_workers", "job_workers_hear"): "the first row after a daemon has come may wait for its next poll",
    ("webhook_events", "webhook_fan_out"): "events reach no endpoint",
    ("webhook_events", "webhook_events_once"): "a second event with the same idempotency key is sent again",
    ("email_forwards", "email_forwards_insert"): "forwards are promised to their senders and never sent",
    ("webhook_endpoints", "webhook_endpoints_held"): "what is for a disabled endpoint is sent all the same",
}
"""Harm of a trigger that does not fire, by its table and its name."""
INJECTION = "=?utf-8?q?x=0D=0ABcc:_evil@x?="
"""An encoded line end.  Some patch levels of Python 3.11 and 3.12 write it out as one, and so a header of its own."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, how it is, and what to do about it."""

    check: str
    verdict: Verdict
    says: str
    fix: str = ""


def server(version: int, shown: str, *, standby: bool) -> Finding:
    wanted = manifest()
    major, minor = divmod(version, 10_000)
    if major < wanted.oldest:
        fix = f"upgrade to PostgreSQL {wanted.oldest} or newer"
        return Finding("database", "fail", f"PostgreSQL {shown} is too old", fix)
    if standby:
        return Finding(
            "database", "fail", "the server is a standby: nothing can be written", "point database.dsn at the primary"
        )
    if minor < wanted.safe.get(major, 0):
        return Finding(
            "database",
            "warn",
            f"PostgreSQL {shown} may use a plan made for one role's rows for another's (CVE-2024-10976)",
            f"upgrade to {major}.{wanted.safe[major]} or newer",
        )
    if major > wanted.newest:
        says = f"PostgreSQL {shown} is newer than any that this version was tried with, up to {wanted.newest}"
        return Finding("database", "ok", says, "look for a newer jobsd")
    return Finding("database", "ok", f"PostgreSQL {shown}")


def schema(pending: Sequence[str]) -> Finding:
    if pending:
        return Finding("schema", "fail", f"{len(pending)} migrations behind, next {pending[0]}", "jobsd migrate")
    return Finding("schema", "ok", "current")


def durability(synchronous_commit: str, fsync: str) -> Finding:
    """The engine relaxes commits itself where it may; as a default it loses producers' rows and finished work."""
    if fsync == "off":
        return Finding(
            "durability", "warn", "fsync is off: a crash of the machine can destroy the database", "fsync = on"
        )
    if synchronous_commit == "off":
        return Finding(
            "durability",
            "warn",
            "synchronous_commit is off for this role or database: after a crash of the server finished jobs run again",
            "alter role … reset synchronous_commit, or alter database … reset synchronous_commit",
        )
    return Finding("durability", "ok", f"synchronous_commit = {synchronous_commit}")


def clock(skew_s: float, doubt_s: float) -> Finding:
    """`skew_s`: the server's clock less ours; `doubt_s`: how long the question took, and so how wrong that may be."""
    if abs(skew_s) > SKEW_WARN_S + doubt_s:
        return Finding(
            "clock",
            "warn",
            f"the database's clock is {skew_s:+.1f} s from this machine's: times in logs disagree",
            "keep both in time, with chrony or systemd-timesyncd",
        )
    return Finding("clock", "ok", f"{skew_s:+.3f} s from the database's")


def dkim(unusable: Sequence[str]) -> list[Finding]:
    """Keys that should sign mail and cannot be had."""
    fix = "give the daemon the secret; `jobsd email dkim` shows the keys it has"
    return [Finding("dkim", "fail", f"mail waits, since it cannot be signed: {why}", fix) for why in unusable]


def partitions(missing: Mapping[str, int]) -> Finding:
    """`missing`: of today's and tomorrow's partition, how many are not there, by table."""
    without = [table for table, count in missing.items() if count]
    if without:
        return Finding(
            "partitions",
            "warn",
            f"today's or tomorrow's partition is missing: {', '.join(without)}",
            "jobsd migrate makes them; a running daemon does so every 10 minutes",
        )
    return Finding("partitions", "ok", "made ahead")


def strays(tables: Sequence[str]) -> Finding:
    if tables:
        return Finding(
            "default partitions",
            "warn",
            f"rows came when no partition was there, and no retention reaches them: {', '.join(tables)}",
            f"move the rows of {tables[0]}_default away, or delete them",
        )
    return Finding("default partitions", "ok", "empty")


def triggers(firing: Sequence[str]) -> list[Finding]:
    return [
        Finding(f"trigger {name}", "ok", "fires")
        if name in firing
        else Finding(
            f"trigger {name}", "fail", f"missing or disabled: {harm}", f"alter table {table} enable trigger {name}"
        )
        for (table, name), harm in TRIGGERS.items()
    ]


def profiles(unknown: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """`unknown`: profile, endpoint, endpoints."""
    return [
        Finding(
            "retry profiles",
            "warn",
            f"{row['endpoints']} webhook endpoints, {row['endpoint']} among them, ask for the profile "
            f"{row['profile']!r}, which this config does not have: they are tried again as by default",
            f"add [webhook.profiles.{row['profile']}] to the config of every daemon, or jobsd endpoints edit "
            f"{row['endpoint']} --profile default",
        )
        for row in unknown
    ] or [Finding("retry profiles", "ok", "all that endpoints ask for are there")]


def hearing(heard_s: float | None, *, pooled: bool) -> list[Finding]:
    """`heard_s`: how long a hint took from another connection; None: it never came.  `pooled`: statements of one
    connection were answered by several backends."""
    found = []
    if pooled:
        found.append(
            Finding(
                "pooler",
                "warn",
                "a transaction pooler stands before the server: LISTEN and the locks of `jobsd run` do not hold",
                "point database.dsn at the server itself, or at a pooler in session mode",
            )
        )
    if heard_s is None:
        fix = "look for a pooler in transaction mode in between: LISTEN needs a connection of its own"
        found.append(Finding("listen", "warn", "no hint within 1 s: new rows wait for the next poll", fix))
    else:
        found.append(Finding("listen", "ok", f"a hint came after {heard_s * 1000:.0f} ms"))
    return found


def workers(rows: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """`rows`: job_workers.  One that serves no queue is a `jobsd run`, not a daemon."""
    daemons = [row for row in rows if row["queues"]]
    alive = [row for row in daemons if row["lives"]]
    lost = [row for row in rows if not row["lives"]]
    found = []
    if alive:
        found.append(Finding("daemons", "ok", f"{len(alive)} alive: {', '.join(row['name'] for row in alive[:5])}"))
    else:
        found.append(Finding("daemons", "warn", "none is alive: rows wait", "start one: jobsd serve"))
    if lost:
        names = ", ".join(row["name"] for row in lost[:5])
        fix = "a living daemon does so within seconds; if one lives, read its log"
        found.append(
            Finding("rescue", "warn", f"the rows of {len(lost)} lost workers are not rescued yet: {names}", fix)
        )
    return found


def unserved(parked: Mapping[str, int]) -> list[Finding]:
    """`parked`: rows by kind."""
    fix = "add the module with their handlers to daemon.handlers, and look at daemon.kinds"
    return [
        Finding("kinds", "warn", f"{rows} rows of kind {kind} are parked: no daemon serves it", fix)
        for kind, rows in sorted(parked.items())
    ] or [Finding("kinds", "ok", "no rows are parked")]


def catalogue(looked: Mapping[str, Look]) -> list[Finding]:
    """What the database says of the tables that jobs of the config name."""
    if not looked:
        return []
    mend = "correct [jobs.{}], or make what is missing; the job goes on by itself"
    return [
        *(
            Finding("jobs", "warn", f"jobs.{name} is parked: {fault}", mend.format(name))
            for name, one in looked.items()
            for fault in one.faults
        ),
        *(Finding("jobs", "warn", f"jobs.{name}: {says}") for name, one in looked.items() for says in one.advice),
    ] or [Finding("jobs", "ok", f"{len(looked)} jobs of the config find their tables")]


def horizon(holders: Sequence[Mapping[str, Any]]) -> list[Finding]:
    return [
        Finding(
            "vacuum horizon",
            "warn",
            f"{row['holder']} ({row['name']}, {row['state']}) has held a snapshot for {row['age_s'] / 60:.0f} min: "
            "finished rows cannot be removed, and claims get slower",
            "end its transaction" + _ending(row["holder"]),
        )
        for row in holders
    ] or [Finding("vacuum horizon", "ok", "no snapshot is older than 10 min")]


def _ending(holder: str) -> str:
    """`holder`: "process 7" or "prepared transaction NAME"."""
    name = holder.removeprefix("prepared transaction ")
    if name == holder:
        return f": select pg_terminate_backend({holder.removeprefix('process ')})"
    return ": rollback prepared '{}'".format(name.replace("'", "''"))


def python() -> Finding:
    """Runs the known input instead of comparing versions: distributions mend older ones."""
    message = EmailMessage(policy=SMTP)
    try:
        message["Subject"] = INJECTION
        written = message.as_bytes()
    except ValueError:  # HeaderWriteError is one: refused, as it should be
        written = b""
    if any(line.lower().startswith(b"bcc:") for line in written.splitlines()):
        return Finding(
            "python",
            "warn",
            "this Python writes header lines that an encoded subject smuggles in; the e-mail channel refuses such "
            "mail, your own handlers may not",
            "upgrade to the newest patch release of this Python",
        )
    return Finding("python", "ok", "e-mail headers are written safely")
