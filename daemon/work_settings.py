"""What the config says about the work: queues, kinds, schedules and limits, which people name themselves."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any, ClassVar

from daemon.cron import Missed, parse
from jobs.values import Duration, Rate, duration, key
from jobs.webhook.endpoints import is_event

KIND = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]{0,99}")
QUEUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@-]{0,127}")
QUEUE_PATTERN = re.compile(r"[A-Za-z0-9*][A-Za-z0-9_.:@*-]{0,127}")
"""What the checks of table `jobs` let through; a queue's settings may also stand under a pattern."""
LANE_PATTERN = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,255}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrySettings:
    """When a job is tried again, and how long one attempt may take.  An unset key leaves what would hold without it."""

    timeout: Duration | None = key(
        None, "End an attempt after this; unset: as its handler declares, else 5m.", minimum=0.001
    )
    attempts: int | None = key(None, "So many attempts in all, then it is a dead letter.", minimum=1, maximum=1000)
    retry: tuple[Duration, ...] = key(
        (), "A ladder: the waits before attempt 2, 3, …; excludes backoff, delay, max_delay."
    )
    backoff: str | None = key(
        None,
        "exponential: delay, doubled each time, up to max_delay; fixed: always delay.",
        choices=("exponential", "fixed"),
    )
    delay: Duration | None = key(None, "The first wait of a backoff; unset: 15s.", minimum=0)
    max_delay: Duration | None = key(None, "The longest wait of an exponential backoff; unset: 1h.", minimum=0)
    jitter: float | None = key(
        None,
        "Spread each wait by this share up and down, so that a herd does not return together; unset: 0.2.",
        minimum=0,
        maximum=1,
    )
    ordering: str | None = key(
        None,
        "block: a failed job that is to be tried again holds up the later ones of its ordering key; skip: they go on "
        "without it; unset: block.",
        choices=("block", "skip"),
    )
    ordering_wait: Duration | None = key(
        None, "So long at most, from its first failure, does it hold them up; unset: until it ends.", minimum=0.001
    )

    def __post_init__(self) -> None:
        if self.ordering == "skip" and self.ordering_wait is not None:
            raise ValueError("ordering_wait: means nothing where ordering is skip; take one of them away")
        if self.retry and (self.backoff or self.delay is not None or self.max_delay is not None):
            raise ValueError("retry: a ladder says every wait by itself; take away backoff, delay and max_delay")
        if self.delay is not None and self.max_delay is not None and self.delay > self.max_delay:
            raise ValueError("max_delay: is shorter than delay")
        if self.backoff == "fixed" and self.max_delay is not None:
            raise ValueError("max_delay: a fixed backoff always waits delay; take max_delay away")


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSettings(RetrySettings):
    """A queue, or under a pattern each queue it matches; see Config.queue for which section counts."""

    NAMES: ClassVar = (QUEUE_PATTERN, "letters, digits and _ . : @ -, and * for any characters")

    concurrency: int = key(100, "Jobs of this queue at once in one daemon.", minimum=1, maximum=100_000)
    keep_done: Duration | None = key(
        None,
        'Done rows are deleted after this; "0": at once; unset: with their day, as retention.history says.',
        minimum=0,
    )
    keep_dead: Duration | None = key(
        None,
        'Dead and cancelled rows are deleted after this; "0": at once; unset: with their day.',
        minimum=0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class KindSettings(RetrySettings):
    """One kind of job, whatever its handler declares and its queue says."""

    NAMES: ClassVar = (KIND, "a letter, then letters, digits and _ . : -")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleSettings:
    """Inserts one row a tick, however many daemons run."""

    NAMES: ClassVar = (KIND, "a letter, then letters, digits and _ . : -")

    kind: str = key(doc="The kind of the rows it inserts.")
    cron: str = key(doc="Five fields: minute, hour, day of month, month, day of week (0 and 7 are Sunday).")
    timezone: str = key("UTC", 'Whose clock the fields mean, like "Europe/Warsaw".')
    spread: Duration = key(
        Duration(0.0),
        "Its rows are due later than the tick, by a part of this that its name decides: the same each time.",
        minimum=0,
        maximum=86400,
    )
    missed: Missed = key(
        "one",
        "Ticks that passed while no daemon ran: skip them, run one for all, or all.",
    )
    overlap: str = key(
        "skip", "A tick while the last one's job is unfinished: skip it, or allow both.", choices=("skip", "allow")
    )
    args: dict[str, Any] = key(factory=dict, doc="Args of the rows.")
    queue: str = key("default", "Queue of the rows.")
    org_id: str | None = key(None, "Organisation of the rows.")
    priority: int = key(2, "Priority of the rows; 1 is first.", minimum=1, maximum=4)
    enabled: bool = key(True, "false: kept, but no ticks.")

    def __post_init__(self) -> None:
        if not KIND.fullmatch(self.kind):
            raise ValueError(f"kind: {self.kind!r} is no kind: a letter, then letters, digits and _ . : -")
        if not QUEUE.fullmatch(self.queue):
            raise ValueError(f"queue: {self.queue!r} is no queue: letters, digits and _ . : @ -")
        if self.org_id is not None and not (0 < len(self.org_id) <= 128 and self.org_id.isprintable()):
            raise ValueError("org_id: takes 1 to 128 printable characters")
        if is_event(self.kind, self.args):
            raise ValueError("args: an event is no row that a schedule could wait for; give url or endpoint")
        if len(json.dumps(self.args)) > 200_000:
            raise ValueError("args: are over 200 KB of JSON; a row takes 256 KiB")
        try:
            parse(self.cron, self.timezone)
        except ValueError as error:
            field = "" if str(error).startswith("timezone: ") else "cron: "
            raise ValueError(f"{field}{error}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSettings:
    """At most so many jobs a second, or at once, over all daemons; of the jobs that all its selectors match."""

    queue: str | None = key(None, "Jobs of this queue; a name or a pattern.")
    kind: str | None = key(None, "Jobs of this kind; a name or a pattern.")
    org_id: str | None = key(None, "Jobs of this organisation; exact or a pattern.")
    lane: str | None = key(None, "Jobs to this destination (host, relay, domain); exact or a pattern.")
    args: dict[str, str] = key(
        factory=dict, doc='Jobs whose args have this value: "args.account" = "42", or a pattern.'
    )
    per: str | None = key(
        None, 'One bucket for each queue, kind, org_id, lane, or value of "args.KEY"; unset: one for all.'
    )
    rate: Rate | None = key(None, 'Jobs in a period: "10/s", "600/m", "20000/d".')
    burst: int | None = key(
        None, "So many at once before the rate counts; unset: a second's worth.", minimum=1, maximum=10**6
    )
    concurrency: int | None = key(None, "Jobs at once.", minimum=1, maximum=10**6)

    def __post_init__(self) -> None:
        columns = ("queue", "kind", "org_id", "lane")
        if self.rate is None and self.concurrency is None:
            raise ValueError("rate: give rate, concurrency or both; this limits nothing")
        if self.burst is not None and self.rate is None:
            raise ValueError("burst: means nothing without rate")
        if not (self.per or self.args or any(getattr(self, column) is not None for column in columns)):
            raise ValueError('per: say which jobs: queue, kind, org_id, lane, "args.KEY", or per')
        if self.per and self.per not in columns and not re.fullmatch(r"args\.[^.\s]+", self.per):
            raise ValueError(f'per: {self.per!r} is none of {", ".join(columns)}, "args.KEY"')

    @property
    def bucket(self) -> int:
        """How many tokens the bucket holds: `burst`, or a second's worth of `rate`, at least one; 0 without a rate."""
        if self.rate is None:
            return 0
        return self.burst or max(1, math.ceil(self.rate.per_second))


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneSettings:
    """A destination (host, relay, domain), or under a pattern each one it matches; see Config.lane."""

    NAMES: ClassVar = (LANE_PATTERN, "a host, relay or domain, and * for any characters")

    enabled: bool = key(True, "false: never closed by its failures or its Retry-After; a pause still holds.")
    failures: int = key(5, "Closed after so many failures in a row, of the destination and not of a row.", minimum=1)
    ratio: float = key(0.7, "Closed too when this share of its attempts failed within window.", minimum=0.01, maximum=1)
    ratio_of: int = key(10, "The share counts once there were so many.", minimum=2, maximum=10**6)
    window: Duration = key(duration("5m"), "How far back the share looks.", minimum=1)
    open: Duration = key(duration("30s"), "Closed for so long; doubled each time a probe fails.", minimum=0.1)
    open_max: Duration = key(duration("10m"), "Never closed for longer than this without a probe.", minimum=0.1)
    jitter: float = key(0.2, "Spread these times by this share up and down.", minimum=0, maximum=0.9)
    probe_timeout: Duration = key(
        duration("60s"), "A probe without an answer after this died with its daemon; another may be made.", minimum=1
    )
    start: int = key(
        10, "Attempts at once in one daemon until the destination has answered; more with each answer.", minimum=1
    )
    concurrency: int | None = key(None, "Attempts at once in one daemon, however well it answers.", minimum=1)

    def __post_init__(self) -> None:
        if self.open > self.open_max:
            raise ValueError("open_max: is shorter than open")


SHIPPED: dict[str, dict[str, Any]] = {
    "development": {
        "queues": {
            "default": {},
            "cleanup": {"concurrency": 1, "attempts": 3, "backoff": "exponential", "delay": "1s"},
            "maintenance": {"concurrency": 1, "attempts": 3, "backoff": "exponential", "delay": "1s"},
            "notification": {"concurrency": 5, "attempts": 5, "backoff": "exponential", "delay": "1s"},
            "report": {"concurrency": 2, "attempts": 3, "backoff": "exponential", "delay": "1s"},
        }
    },
    "production": {
        "queues": {
            "default": {},
            "cleanup": {"concurrency": 2, "attempts": 5, "backoff": "exponential", "delay": "1s"},
            "maintenance": {"concurrency": 1, "attempts": 5, "backoff": "exponential", "delay": "1s"},
            "notification": {"concurrency": 10, "attempts": 7, "backoff": "exponential", "delay": "1s"},
            "report": {"concurrency": 3, "attempts": 5, "backoff": "exponential", "delay": "1s"},
        }
    },
}
"""The queues that are there without being asked for, by profile; written as in the file, which overrides key by key."""
