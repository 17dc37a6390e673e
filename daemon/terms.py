"""What a destination brings itself: how many of its rows at once and how often, when again, and in which order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

import sql
from daemon.limits import GATE, Bucket, own_bucket
from daemon.statements import Statements
from daemon.work_settings import LimitSettings
from jobs.loads import Loads
from jobs.model import Job, Terms
from jobs.values import rate
from jobs.webhook.endpoints import LANE, STALE_S, endpoint_of, lane_of

_SQL = sql.load("webhooks.sql")

KNOWN_MAX = 10_000
"""Destinations remembered; one that is not is asked for when its next row is claimed."""


@dataclass(frozen=True, slots=True)
class Own:
    """Of one destination.  `bucket` None: it limits nothing."""

    terms: Terms
    limit: LimitSettings | None
    bucket: Bucket | None


class TermsStore(Statements):
    """Raises one of AWAY when Postgres is."""

    async def of_endpoints(self, ids: Sequence[int]) -> dict[int, Own]:
        return {row["id"]: _own(row) for row in await self._fetch(_SQL["terms"], ids)}


class TermsBook:
    """Looked up for all rows of a claim at once, at most every STALE_S.  Destinations without terms cost a look at
    their names."""

    def __init__(self, store: TermsStore) -> None:
        self._loads: Loads[int, Own] = Loads(store.of_endpoints, most=KNOWN_MAX, stale_s=STALE_S)
        self._limiting = False

    @property
    def limiting(self) -> bool:
        """Whether a destination that was met here limits its rows."""
        return self._limiting

    async def learn(self, jobs: Iterable[Job]) -> None:
        """Tell these jobs the terms of their lanes.  One of AWAY: nothing is known of some."""
        bound = [(job, of) for job in jobs if job.lane is not None and (of := endpoint_of(job.lane)) is not None]
        if not bound:
            return
        await self._loads.have(list({of for _job, of in bound}))
        for job, of in bound:
            own = self._loads.peek(of)
            job.terms = None if own is None else own.terms
            self._limiting = self._limiting or (own is not None and own.bucket is not None)

    async def refresh(self, gates: Iterable[str]) -> None:
        """Rows stand at these gates: what was raised lets them go on."""
        if waited_for := {of for gate in gates if (of := own_limit_at(gate)) is not None}:
            await self._loads.have(list(waited_for))

    def bucket_of(self, lane: str | None) -> Bucket | None:
        """The bucket that rows of this lane take from, if there is one."""
        of = None if lane is None else endpoint_of(lane)
        own = None if of is None else self._loads.peek(of)
        return None if own is None else own.bucket

    def buckets_at(self, gate: str) -> tuple[Bucket, ...]:
        """What the rows at `limit:endpoint:12:` wait for."""
        of = own_limit_at(gate)
        bucket = None if of is None else self.bucket_of(lane_of(of))
        return () if bucket is None else (bucket,)

    def close(self) -> None:
        self._loads.close()


def limit_of(row: Mapping[str, Any]) -> LimitSettings | None:
    """The limit that an endpoint's row stands for."""
    text, concurrency = row["rate"], row["concurrency"]
    if text is None and concurrency is None:
        return None
    per = None if text is None else rate(text)
    return LimitSettings(lane=lane_of(row["id"]), rate=per, burst=row["burst"], concurrency=concurrency)


def _own(row: asyncpg.Record) -> Own:
    limit = limit_of(dict(row))
    bucket = None if limit is None else own_bucket(lane_of(row["id"]), limit)
    return Own(Terms(profile=row["profile"], ordering=row["ordering"]), limit, bucket)


def own_limit_at(gate: str) -> int | None:
    """The endpoint whose own bucket stands behind `limit:endpoint:12:`."""
    return endpoint_of(gate[len(GATE) : -1]) if gate.startswith(GATE + LANE) and gate.endswith(":") else None
