"""What the config says about the daemon itself: one class a section, one field a key."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from daemon.work_settings import QUEUE_PATTERN
from jobs.values import Duration, Secret, duration, key

EMBEDDED = "embedded"

_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_PASSWORD = re.compile(r"(?<=://)([^:@/?#]*:).*(@)|([?&](?:ssl)?password=)[^&#]*")


class Dsn(Secret):
    """Where the database is; shown without its password."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Dsn({self.shown})"

    @property
    def shown(self) -> str:
        return _PASSWORD.sub(r"\1\3***\2", self)


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseSettings:
    """The Postgres that holds the rows."""

    dsn: Dsn = key(
        Dsn(EMBEDDED),
        '"embedded" (PostgreSQL 18 out of the wheel, under daemon.state_dir) or "postgresql://user@host/name"; '
        "DATABASE_URL and the systemd credential database-url are understood too.",
        restart=True,
    )
    schema: str = key("public", "The schema all tables live in; reached through search_path.", restart=True)
    pool_size: int = key(
        10,
        "Connections for handlers' own statements; the engine has a few more.",
        minimum=1,
        maximum=1000,
        restart=True,
    )
    transaction_pool_size: int = key(
        5, "Connections for transactional handlers: so many run at once.", minimum=1, maximum=1000, restart=True
    )
    transaction_timeout: Duration = key(
        duration("1m"),
        "A transactional handler ends after this, whatever its timeout: its transaction holds locks.",
        minimum=0.1,
        maximum=3600,
        restart=True,
    )
    connect_timeout: Duration = key(
        duration("10s"), "Give up a connection attempt after this.", minimum=0.1, maximum=600, restart=True
    )
    statement_timeout: Duration = key(
        duration("30s"), "Postgres ends any statement of the daemon's after this; 0 is never.", minimum=0, restart=True
    )
    application_name: str = key("jobsd", "How the daemon's connections show in pg_stat_activity.", restart=True)

    def __post_init__(self) -> None:
        if self.dsn != EMBEDDED:
            _check_dsn(self.dsn)
        if not _SCHEMA.fullmatch(self.schema) or self.schema.startswith("pg_"):
            raise ValueError(f"schema: {self.schema!r} is no schema name: lower-case letters, digits and _, not pg_…")


def _check_dsn(dsn: Dsn) -> None:
    """Never repeats the value: where it is wrong, nobody knows which part of it is the password."""
    try:
        parts = urlsplit(dsn)
        known, _port = parts.scheme in ("postgresql", "postgres"), parts.port
    except ValueError:
        raise ValueError("dsn: host or port cannot be read; in a password write : / @ as %3A %2F %40") from None
    if not known:
        raise ValueError(f'dsn: is neither "{EMBEDDED}" nor an address like "postgresql://user@host/name"')


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonSettings:
    """One daemon's own life: what it serves, how it is found dead, how it stops."""

    name: str | None = key(
        None, "How this daemon is called in logs and job_workers; the host's name if unset.", restart=True
    )
    handlers: tuple[str, ...] = key((), "Modules with @job functions, imported at start.", restart=True)
    queues: tuple[str, ...] = key(("*",), "Queues this daemon serves; names or patterns like org:*:notifications.")
    kinds: tuple[str, ...] = key(("*",), "Kinds this daemon serves, of those it has handlers for; names or patterns.")
    state_dir: Path = key(
        Path("var"),
        "Where the embedded database lives; $STATE_DIRECTORY (systemd) if unset.",
        production=Path("/var/lib/jobsd"),
        restart=True,
    )
    secrets_dir: Path | None = key(
        None, "A folder with one file a secret, for secret://NAME; after systemd's credentials."
    )
    lease: Duration = key(
        duration("30s"),
        "A daemon silent for this long is dead: its rows are rescued.",
        minimum=1,
        maximum=3600,
        restart=True,
    )
    drain_timeout: Duration = key(
        duration("30s"),
        "At a stop, running jobs get this long; then their rows are handed back.",
        minimum=0,
        maximum=86400,
    )
    poll_interval: Duration = key(
        duration("1s"), "Look for due rows at least this often, hints or none.", minimum=0.01, maximum=60
    )
    crash_limit: int = key(
        3, "A row whose worker died under it this many times is a dead letter.", minimum=1, maximum=100
    )

    @property
    def postgres_folder(self) -> Path:
        """Where the data of `database.dsn = "embedded"` is kept."""
        return self.state_dir.absolute() / "postgres"

    def __post_init__(self) -> None:
        for module in self.handlers:
            if not all(part.isidentifier() for part in module.split(".")):
                raise ValueError(f'handlers: {module!r} is no module; write it like "shop.handlers"')
        for pattern in self.queues:
            if not QUEUE_PATTERN.fullmatch(pattern):
                raise ValueError(f"queues: {pattern!r} can match no queue: letters, digits and _ . : @ - *")
        for field in ("queues", "kinds"):
            if not getattr(self, field):
                raise ValueError(f'{field}: an empty list serves nothing; ["*"] is every one')


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminSettings:
    """The HTTP side: /metrics, /livez, /readyz."""

    listen: str = key(
        "127.0.0.1:9464", 'Address and port, "[::1]:9464", "unix:/run/jobsd/admin.sock", or "" for none.', restart=True
    )

    def __post_init__(self) -> None:
        address = self.address
        if isinstance(address, Path) and not address.is_absolute():
            raise ValueError(f"listen: {self.listen!r} needs an absolute path after unix:")

    @property
    def address(self) -> tuple[str, int] | Path | None:
        """Host and port (0: any free one), the path of a socket, or None for no listener."""
        if not self.listen:
            return None
        if self.listen.startswith("unix:"):
            return Path(self.listen.removeprefix("unix:"))
        host, _, port = self.listen.rpartition(":")
        if not host or not (port.isascii() and port.isdigit()) or int(port[:6]) > 65535:
            raise ValueError(f'listen: {self.listen!r} is no address; write one like "127.0.0.1:9464"')
        return host.removeprefix("[").removesuffix("]"), int(port)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """Lines on standard output."""

    level: str = key("info", "Lines below this are not written.", choices=("debug", "info", "warning", "error"))
    format: str = key("text", "json: one object a line; text: for people.", choices=("json", "text"), production="json")
    started: str = key(
        "debug",
        "The level of job_started lines; job_completed and job_failed are always there.",
        choices=("debug", "info"),
    )
    job_lines: int = key(
        100, "Lines kept of each job, the newest, for `jobsd jobs logs`; 0: none.", minimum=0, maximum=10_000
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionSettings:
    """How long finished work can be looked up.  Pruning drops whole days."""

    history: Duration = key(duration("30d"), "Finished rows, in job_history.", minimum=0)
    attempts: Duration = key(duration("30d"), "Failed attempts, in job_attempts.", minimum=0)
    idempotency_keys: Duration = key(
        duration("7d"), "A second insert with the same key adds no row for this long.", minimum=0
    )
    webhook_deliveries: Duration = key(duration("30d"), "The log of webhook attempts.", minimum=0)
    webhook_events: Duration = key(
        duration("30d"), "Events, in webhook_events; a delivery that is still to be made then is dead.", minimum=0
    )
    email_deliveries: Duration = key(duration("30d"), "The log of e-mail attempts.", minimum=0)
    notification_deliveries: Duration = key(
        duration("30d"), "The log of attempts at push messages and text messages.", minimum=0
    )
    email_forwards: Duration = key(
        duration("7d"),
        "Forwarded messages, in email_forwards; one that still waits then is given up. Bytes go with each one's end.",
        minimum=3600,
    )
    domain_checks: Duration = key(duration("90d"), "The log of DNS checks.", minimum=0)
    monitor_checks: Duration = key(
        duration("90d"),
        "What monitors found; one that nobody has looked at for so long, and at least 90 days, is forgotten.",
        minimum=0,
    )
    job_logs: Duration = key(duration("7d"), "Lines that jobs logged, in job_logs.", minimum=0)
    batches: Duration = key(duration("30d"), "Batches that are over, in job_batches.", minimum=0)
    audit: Duration = key(duration("365d"), "Who paused, retried, cancelled or deleted what.", minimum=0)
    undo: Duration = key(duration("7d"), "How long `jobsd undo` can take an operation back.", minimum=0)
    partitions_ahead: int = key(3, "Daily partitions made this many days ahead.", minimum=2, maximum=60)
