"""What is allowed but probably not meant: warnings at start, at each reload, and in `config check`."""

from __future__ import annotations

import difflib
import ipaddress
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.config_check import Problem
from daemon.config_show import entries
from daemon.config_tree import FILE_RANK, Origin, dotted, nearest
from daemon.config_values import quoted
from daemon.pattern import is_pattern
from daemon.settings import EMBEDDED, Dsn
from jobs.catalogue.names import TableName, table_name
from jobs.catalogue.settings import JobSettings
from jobs.cleanup.purge_settings import PurgeSettings
from jobs.secrets import PREFIX
from jobs.usage.rollup_settings import RollupSettings
from jobs.values import Secret, duration_text

if TYPE_CHECKING:
    from daemon.config import Config

METADATA_SERVICE = ipaddress.ip_address("169.254.169.254")
"""Where clouds hand out a machine's credentials."""

Doubt = tuple[tuple[str, ...], str]
"""A key's path and what is doubtful about it."""


def doubts(config: Config, origins: Mapping[str, Origin]) -> tuple[Problem, ...]:
    """Everything doubtful that the settings alone show."""
    rules: tuple[Callable[[Config], Iterator[Doubt]], ...] = (
        _database,
        _daemon,
        _admin,
        _queues,
        _webhook,
        _relays,
        _forward,
        _mail,
        _retention,
        _sums,
    )
    return _located((doubt for rule in rules for doubt in rule(config)), origins)


def exposed_secrets(config: Config, origins: Mapping[str, Origin], file: Path) -> tuple[Problem, ...]:
    """Secrets written into a file that every user of the machine can read."""
    try:
        if not file.stat().st_mode & 0o004:
            return ()
    except OSError:
        return ()
    return _located(
        (
            (
                entry.path,
                f"is a secret in a file that everybody can read; chmod o-r {file}, or use {entry.path[-1]}_file",
            )
            for entry in entries(config)
            if _is_exposed(entry.value) and origins[dotted(entry.path)].rank == FILE_RANK
            if not origins[dotted(entry.path)].text.endswith("_file)")
        ),
        origins,
    )


def unserved_kinds(config: Config, known: Collection[str]) -> tuple[Problem, ...]:
    """Sections about kinds that none of the handlers in `known` serves: rows of theirs would wait."""

    def doubt(kind: str) -> str:
        close = difflib.get_close_matches(kind, known, 1)
        return f"no handler is registered for kind {quoted(kind)}" + (
            f"; did you mean {quoted(close[0])}?" if close else ""
        )

    named = [
        *((("kinds", name), name) for name in config.kinds),
        *((("schedules", name, "kind"), s.kind) for name, s in config.schedules.items()),
        *((("limits", name, "kind"), s.kind) for name, s in config.limits.items() if s.kind and not is_pattern(s.kind)),
    ]
    known = {*known, *config.jobs}
    return _located(((path, doubt(kind)) for path, kind in named if kind not in known), config.origins)


def _located(found: Iterable[Doubt], origins: Mapping[str, Origin]) -> tuple[Problem, ...]:
    return tuple(Problem(nearest(path, origins), dotted(path), message) for path, message in found)


def _database(config: Config) -> Iterator[Doubt]:
    database = config.database
    if config.profile == "production" and database.dsn == EMBEDDED:
        yield ("database", "dsn"), "the embedded database has no backups and serves one machine; it is for trying out"
    if 0 < database.statement_timeout < 5:
        yield ("database", "statement_timeout"), "is so short that a claim on a busy database may never end; 5s or more"
    if not database.statement_timeout:
        yield ("database", "statement_timeout"), "0 lets one stuck statement hold the daemon for ever"


def _daemon(config: Config) -> Iterator[Doubt]:
    daemon = config.daemon
    if daemon.lease < 5:
        yield ("daemon", "lease"), "under 5s, a daemon that only pauses is taken for dead and its jobs run twice"
    if daemon.drain_timeout > 85:
        yield (
            ("daemon", "drain_timeout"),
            "is longer than systemd waits before it kills (90s); raise TimeoutStopSec too",
        )
    if daemon.poll_interval < 0.05:
        yield ("daemon", "poll_interval"), "asks the database over 20 times a second even when there is nothing to do"
    if daemon.poll_interval > 10:
        yield ("daemon", "poll_interval"), "a row that becomes due while hints are lost waits this long"


def _admin(config: Config) -> Iterator[Doubt]:
    address = config.admin.address
    if isinstance(address, tuple) and not is_loopback(address[0]):
        yield ("admin", "listen"), "whoever reaches this address can read it: there is no password"


def _queues(config: Config) -> Iterator[Doubt]:
    for name, queue in config.queues.items():
        if queue.concurrency > 5000:
            yield ("queues", name, "concurrency"), "over 5000 jobs at once wait for each other in one process"
        if queue.attempts and queue.attempts > 100:
            yield ("queues", name, "attempts"), "over 100 attempts keep a hopeless job for a long time"
        for outcome in ("done", "dead"):
            kept = getattr(queue, f"keep_{outcome}")
            if kept is not None and kept > config.retention.history:
                yield ("queues", name, f"keep_{outcome}"), "is longer than retention.history, which drops whole days"


def _webhook(config: Config) -> Iterator[Doubt]:
    for text in config.webhook.allow_addresses:
        network = ipaddress.ip_network(text)
        if network.prefixlen == 0:
            yield ("webhook", "allow_addresses"), f"{text} switches the guard against internal targets off"
        elif METADATA_SERVICE in network:
            yield (
                ("webhook", "allow_addresses"),
                f"{text} lets jobs reach the cloud's credentials at {METADATA_SERVICE}",
            )


def _relays(config: Config) -> Iterator[Doubt]:
    for name, relay in config.email.relays.items():
        path = ("email", "relays", name)
        if is_loopback(relay.host):
            continue
        if relay.tls == "none":
            yield (*path, "tls"), f"mail and passwords travel to {relay.host} in the clear"
        elif not relay.verify_certificate:
            yield (*path, "verify_certificate"), f"anybody between here and {relay.host} can read the mail"
        if (relay.tls, relay.port) in (("required", 465), ("implicit", 587), ("implicit", 25)):
            other = "implicit" if relay.tls == "required" else "required"
            yield (*path, "tls"), f'port {relay.port} usually speaks tls = "{other}"; the connection may hang'
        if relay.password_file and not os.path.isfile(relay.password_file):
            yield (*path, "password_file"), f"there is no file {relay.password_file} now; it is read at each login"


def _forward(config: Config) -> Iterator[Doubt]:
    forward = config.email.forward
    if forward.domain is not None and not forward.srs_secrets:
        yield ("email", "forward", "domain"), "srs_secrets is empty: forwards wait; make one: openssl rand -base64 32"


def _mail(config: Config) -> Iterator[Doubt]:
    writers = [dotted(("jobs", name)) for name, job in config.jobs.items() if job.mail() is not None]
    if config.monitor.tell:
        writers.append("monitor.tell")
    if writers and "main" not in config.email.relays:
        yield (
            ("email", "relays"),
            f"no relay is called main: mail of {', '.join(writers)} becomes dead letters, "
            "unless another daemon sends it",
        )


def _retention(config: Config) -> Iterator[Doubt]:
    if config.retention.history < 86400:
        yield ("retention", "history"), "under a day, what happened yesterday cannot be looked up"
    if config.retention.idempotency_keys < 3600:
        yield ("retention", "idempotency_keys"), "under an hour, a producer that tries again later makes a second job"


def _sums(config: Config) -> Iterator[Doubt]:
    """Roll-ups of rows that another job deletes."""
    kept = [found for name, job in config.jobs.items() if (found := _kept(name, job)) is not None]
    for name, job in config.jobs.items():
        if isinstance(job, RollupSettings):
            for by, table, seconds in kept:
                if table_name(job.source) == table and (job.source_retention is None or job.source_retention > seconds):
                    yield (
                        ("jobs", name, "source_retention"),
                        f"jobs.{by} deletes rows of {job.source} after {duration_text(seconds)}: without as much here, "
                        "or less, sums are worked out anew of what is left",
                    )


def _kept(name: str, job: JobSettings) -> tuple[str, TableName, float] | None:
    """The job, the table whose rows it deletes, and how old these are at least."""
    if isinstance(job, PurgeSettings):
        least = job.retention if job.idle_retention is None else min(job.retention, job.idle_retention)
        return name, table_name(job.table), least
    if isinstance(job, RollupSettings) and job.retention is not None:
        return name, table_name(job.into), job.retention
    return None


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _is_exposed(value: object) -> bool:
    if isinstance(value, Dsn):
        return value.shown != value
    return isinstance(value, Secret) and not value.startswith(PREFIX)
