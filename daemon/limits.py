"""Which buckets a job must take from, and who may start with what was granted.  Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from daemon.pattern import matches
from daemon.relay_limits import RelayLimit
from daemon.work_settings import LimitSettings
from jobs.model import Job

GATE = "limit:"

KEY_MAX = 150
"""Characters of a key that count: a gate's name has an end."""

KNOWN_MAX = 10_000
"""Answers remembered of each sort."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """One token bucket, or so many places, of a limit: `token_s` seconds grow one token, `burst` tokens fit in.

    `day`: it holds `burst` a day instead, one that begins so many seconds after midnight UTC (-1: any 24 hours).
    `at_call`: its tokens are taken when a handler asks for them, and not when its attempt starts.
    """

    name: str
    key: str
    token_s: float | None
    burst: int | None
    places: int | None
    day: int | None = None
    at_call: bool = False

    @property
    def has_tokens(self) -> bool:
        return self.token_s is not None or self.day is not None

    @property
    def gate(self) -> str:
        """Where rows wait for it."""
        return f"{GATE}{self.name}:{self.key}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Who starts, and who waits at which gate."""

    start: list[tuple[Job, tuple[Bucket, ...]]]
    wait: list[tuple[Job, Bucket]]


class Limits:
    """The limits of the config, ready to be asked at every claim."""

    def __init__(self, settings: Mapping[str, LimitSettings]) -> None:
        self._settings = dict(settings)
        self._at: dict[str, tuple[Bucket, ...]] = {}  # what stands at a gate: each claim asks
        self._concern: dict[tuple[str, str], bool] = {}

    def __bool__(self) -> bool:
        return bool(self._settings)

    def concern(self, kind: str, queue: str) -> bool:
        """Whether any limit may concern jobs of this kind and queue: of all others nobody need read the args."""
        found = self._concern.get((kind, queue))
        if found is None:
            if len(self._concern) >= KNOWN_MAX:
                self._concern.clear()
            found = self._concern[kind, queue] = any(
                (limit.kind is None or matches(limit.kind, kind))
                and (limit.queue is None or matches(limit.queue, queue))
                for limit in self._settings.values()
            )
        return found

    def buckets(self, job: Job, args: Mapping[str, Any]) -> tuple[Bucket, ...]:
        """The buckets `job` takes from, sorted; `args` is its args as a JSON object (for limits that go by one)."""
        found = []
        for name, limit in self._settings.items():
            if not _selected(limit, job, args):
                continue
            key = "" if limit.per is None else _value(job, args, limit.per)
            if key is not None:  # else there is nothing to go by: the limit does not concern this job
                found.append(_bucket(name, key[:KEY_MAX], limit))
        return tuple(sorted(found, key=lambda bucket: (bucket.name, bucket.key)))

    def named(self, names: Iterable[str]) -> tuple[Bucket, ...]:
        """The buckets of those of these limits that there are."""
        return tuple(_bucket(name, "", self._settings[name]) for name in names if name in self._settings)

    def buckets_at(self, gate: str) -> tuple[Bucket, ...]:
        """What the rows at `limit:NAME:KEY` may wait for: one, unless the name of a limit begins with another's and a
        colon; none when there is no such limit (any more)."""
        found = self._at.get(gate)
        if found is None:
            if len(self._at) >= KNOWN_MAX:
                self._at.clear()
            found = self._at[gate] = self._look_up(gate)
        return found

    def _look_up(self, gate: str) -> tuple[Bucket, ...]:
        parts = gate.removeprefix(GATE).split(":")
        split = [(":".join(parts[:n]), ":".join(parts[n:])) for n in range(1, len(parts))]
        return tuple(_bucket(name, key, self._settings[name]) for name, key in split if self._has(name, key))

    def _has(self, name: str, key: str) -> bool:
        return name in self._settings and (self._settings[name].per is not None or not key)


def share(wanting: Sequence[tuple[Job, tuple[Bucket, ...]]], usable: Mapping[Bucket, int]) -> Verdict:
    """Give out what is in hand, in the order of `wanting`: a job starts when each of its buckets still has one."""
    left = dict(usable)
    verdict = Verdict([], [])
    for job, buckets in wanting:
        short = next((bucket for bucket in buckets if left[bucket] <= 0), None)
        if short is not None:
            verdict.wait.append((job, short))
            continue
        for bucket in buckets:
            left[bucket] -= 1
        verdict.start.append((job, buckets))
    return verdict


def spent(start: Sequence[tuple[Job, tuple[Bucket, ...]]]) -> Counter[Bucket]:
    """What those that start take."""
    return Counter(bucket for _job, buckets in start for bucket in buckets)


def own_bucket(lane: str, limit: LimitSettings) -> Bucket:
    """The bucket of a limit that a destination brings itself."""
    return _bucket(lane, "", limit)


def _bucket(name: str, key: str, limit: LimitSettings) -> Bucket:
    token_s = None if limit.rate is None else 1.0 / limit.rate.per_second
    burst = None if limit.rate is None else limit.bucket
    if isinstance(limit, RelayLimit):
        return Bucket(name, key, token_s, limit.of_day or burst, None, limit.day, at_call=True)
    return Bucket(name, key, token_s, burst, limit.concurrency)


def _selected(limit: LimitSettings, job: Job, args: Mapping[str, Any]) -> bool:
    for column in ("queue", "kind", "org_id", "lane"):
        pattern = getattr(limit, column)
        if pattern is not None and not _fits(pattern, getattr(job, column)):
            return False
    if isinstance(limit, RelayLimit) and not limit.counts(job.kind, args):
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
