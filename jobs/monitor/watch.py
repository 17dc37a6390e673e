"""What a `[jobs.NAME]` of verb monitor says: what is looked at, what is good enough, and who is told."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from jobs.catalogue.settings import JobSettings
from jobs.email.address import mailbox
from jobs.monitor import target as targets
from jobs.monitor.state import Limits
from jobs.values import Duration, duration, key

_STATUS = re.compile(r"([1-5]\d\d)(?:-([1-5]\d\d))?")
MOST = 20
"""Records that are expected, and people who are told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchSettings(JobSettings):
    """Looks at something, and tells when it is down, and when it is well again."""

    target: str = key(
        doc="What is looked at: https://…, http://…, tcp://host:port, tls://host:port, smtp://host, smtps://host, "
        "dns:name?type=MX, dns://server/name.",
        example='"https://shop.example/health"',
    )
    patience: Duration = key(duration("10s"), "A check that has not ended by then has failed.", minimum=0.1, maximum=60)
    slow: Duration | None = key(
        None, "A check that takes longer is poor; unset: none is.", minimum=0.001, maximum=60, example='"2s"'
    )
    failures: int = key(
        3, "So many failed checks in a row make it down, and so many that are not ok degraded.", minimum=1, maximum=100
    )
    successes: int = key(2, "So many good ones in a row take that back.", minimum=1, maximum=100)
    confirm: Duration = key(
        duration("30s"),
        'A check that points away from what was known is made again after this; "0": at the next tick.',
        minimum=0,
        maximum=3600,
    )
    expires: Duration = key(
        duration("14d"), "A certificate that ends within this is poor; one that has ended has failed.", minimum=0
    )
    status: str = key("200-399", 'Of http: the statuses that are good, like "200-299, 404".')
    contains: str | None = key(
        None, "Of http: words that must be in the first 64 KiB of the answer.", example='"all is well"'
    )
    expect: tuple[str, ...] = key((), 'Of dns: records that must all be there, like ["192.0.2.1"].')
    starttls: bool = key(True, "Of smtp: STARTTLS must be offered, and work.")
    notice: Literal["degraded", "down"] = key("degraded", "From which state on people are told.")
    tell: tuple[str, ...] | None = key(
        None, "Who is written to; unset: those of monitor.tell.", example='["ops@shop.example"]'
    )
    schedule: str | None = key("*/5 * * * *", "When it is looked at.")
    spread: Duration | None = key(
        duration("5m"), "Later than that by a part of this, which its name decides: not all at once.", maximum=86400
    )
    queue: str = key("monitoring", "Queue of its rows.")
    priority: int = key(2, "Priority of its rows; 1 is first.", minimum=1, maximum=4)
    timeout: Duration = key(duration("90s"), "One attempt ends after this, its place in the database included.")

    def __post_init__(self) -> None:
        scheme = _scheme(self.target)
        if self.slow is not None and self.slow >= self.patience:
            raise ValueError("slow: must be less than patience, after which a check has failed")
        if self.timeout <= self.patience:
            raise ValueError("timeout: must be more than patience")
        statuses(self.status)
        if self.contains is not None and scheme not in ("http", "https"):
            raise ValueError("contains: is for http: and https: only")
        if self.expect and scheme != "dns":
            raise ValueError("expect: is for dns: only")
        for name, values in (("expect", self.expect), ("tell", self.tell or ())):
            if len(values) > MOST:
                raise ValueError(f"{name}: at most {MOST}")
        for address in self.tell or ():
            try:
                mailbox(address)
            except ValueError as error:
                raise ValueError(f"tell: {error}") from None

    @property
    def limits(self) -> Limits:
        return Limits(failures=self.failures, successes=self.successes, notice=self.notice)


def statuses(text: str) -> tuple[range, ...]:
    """The statuses of "200-399, 404"."""
    found = []
    for part in text.split(","):
        match = _STATUS.fullmatch(part.strip())
        if match is None or int(match[1]) > int(match[2] or match[1]):
            raise ValueError(f'status: {part.strip()!r} is no status; write them like "200-399" or "200, 404"')
        found.append(range(int(match[1]), int(match[2] or match[1]) + 1))
    return tuple(found)


def _scheme(target: str) -> targets.Scheme:
    try:
        return targets.parse(target).scheme
    except ValueError as error:
        raise ValueError(f"target: {error}") from None
