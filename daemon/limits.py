"""Which buckets a job must take from, and who may start with what was granted.  Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from daemon.pattern import matches
from daemon.work_settings import LimitSettings
from jobs.model import Job

GATE = "limit:"


@dataclass(frozen=True, slots=True)
class Bucket:
    """One token bucket, or so many places, of a limit: `token_s` seconds grow one token, `burst` tokens fit in."""

    name: str
    key: str
    token_s: float | None
    burst: int | None
    places: int | None

    @property
    def gate(self) -> str:
        """Where rows wait for it."""
        return f"{GATE}{self.name}:{self.key}"


@dataclass(frozen=True, slots=True)
class Grant:
    """What was granted, and the seconds until one more can be (None: when a place comes free)."""

    granted: int
    retry_s: float | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Who starts, who waits at which gate, and what was taken for nothing and goes back."""

    start: list[tuple[Job, tuple[Bucket, ...]]]
    wait: list[tuple[Job, Bucket]]
    unused: Counter[Bucket]


Args = Callable[[Job], Any]
"""Gives a job's args as an object, once one of its limits asks for them."""


class Limits:
    """The limits of the config, ready to be asked at every claim."""

    def __init__(self, settings: Mapping[str, LimitSettings]) -> None:
        self._settings = dict(settings)

    def __bool__(self) -> bool:
        return bool(self._settings)

    def buckets(self, job: Job, args: Mapping[str, Any]) -> tuple[Bucket, ...]:
        """The buckets `job` takes from, sorted; `args` is its args as a JSON object (for limits that go by one)."""
        found = []
        for name, limit in self._settings.items():
            if not _selected(limit, job, args):
                continue
            key = "" if limit.per is None else _value(job, args, limit.per)
            if key is None:  # nothing to go by: the limit does not concern this job
                continue
            token_s = None if limit.rate is None else 1.0 / limit.rate.per_second
            burst = None if limit.rate is None else limit.bucket
            found.append(Bucket(name, key[:150], token_s, burst, limit.concurrency))
        return tuple(sorted(found, key=lambda bucket: (bucket.name, bucket.key)))


def share(wanting: Sequence[tuple[Job, tuple[Bucket, ...]]], grants: Mapping[Bucket, Grant]) -> Verdict:
    """Give out what was granted, in the order of `wanting`: a job starts when each of its buckets still has one."""
    left = {bucket: grant.granted for bucket, grant in grants.items()}
    verdict = Verdict([], [], Counter())
    for job, buckets in wanting:
        short = next((bucket for bucket in buckets if left[bucket] <= 0), None)
        if short is not None:
            verdict.wait.append((job, short))
            continue
        for bucket in buckets:
            left[bucket] -= 1
        verdict.start.append((job, buckets))
    verdict.unused.update({bucket: count for bucket, count in left.items() if count > 0})
    return verdict


def _selected(limit: LimitSettings, job: Job, args: Mapping[str, Any]) -> bool:
    for column in ("queue", "kind", "org_id", "lane"):
        pattern = getattr(limit, column)
        if pattern is not None and not _fits(pattern, getattr(job, column)):
            return False
    return all(_fits(pattern, _text(args.get(key))) for key, pattern in limit.args.items())


def _fits(pattern: str, value: str | None) -> bool:
    return value is not None and matches(pattern, value)


def _value(job: Job, args: Mapping[str, Any], per: str) -> str | None:
    if per.startswith("args."):
        return _text(args.get(per.removeprefix("args.")))
    return getattr(job, per)  # type: ignore[no-any-return]  # one of four text columns, checked by the config


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
