"""Endpoints and events as deliveries need them, looked up for many rows at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

import sql
from jobs.loads import Loads
from jobs.values import Secret
from jobs.webhook.headers import BadHeader, check
from jobs.webhook.signing import MAX_SECRETS, Style

if TYPE_CHECKING:
    import asyncpg

    from jobs.webhook.judge import Gone  # it needs the HTTP client, which is a third of what a command imports

_SQL = sql.load("webhooks.sql")

LANE = "endpoint:"
"""`endpoint:12` is the lane of endpoint 12."""

STALE_S = 2.0
"""So long after a change of an endpoint it may still be sent to as before."""

ENDPOINTS_MAX = 10_000
EVENTS_MAX = 32 * 1024 * 1024
"""What is remembered: endpoints, and bytes of events."""

_OVERHEAD = 200  # bytes of an event beside its body
_RECENT_DAYS, _ALL_DAYS = 1, 36_500


@dataclass(frozen=True, slots=True)
class Signing:
    """One secret, or secret://NAME, and until when it signs (seconds since 1970; None: until it is replaced)."""

    secret: Secret
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A row of webhook_endpoints; `secrets` newest first.  `trouble`: why nothing can be sent to it, whatever it is.

    `failing_since`, `warned_at`: seconds since 1970.  `is_well_known`: enough has failed to disable it, in time.
    `is_doubted`: one message was answered 410.
    """

    id: int
    org_id: str | None
    name: str
    url: str
    headers: Mapping[str, str]
    signing: tuple[Style, ...]
    timeout_s: float | None
    gone: Gone
    client_certificate: str | None
    template: str | None
    content_type: str | None
    enabled: bool
    secrets: tuple[Signing, ...]
    failing_since: float | None = None
    warned_at: float | None = None
    is_well_known: bool = False
    is_doubted: bool = False
    trouble: str | None = None

    def secrets_at(self, now_s: float) -> tuple[str, ...]:
        """Those that sign at this time (seconds since 1970), newest first."""
        return tuple([s.secret for s in self.secrets if s.expires_at is None or s.expires_at > now_s][:MAX_SECRETS])


@dataclass(frozen=True, slots=True)
class Event:
    """A row of webhook_events; `body` is what is sent, the same bytes at each attempt."""

    id: int
    org_id: str | None
    event: str
    body: bytes
    content_type: str | None
    is_json: bool


def open_endpoints(db: asyncpg.Pool) -> Loads[int, Endpoint]:
    """By id."""

    async def load(ids: Sequence[int]) -> Mapping[int, Endpoint]:
        return {row["id"]: _endpoint(row) for row in await db.fetch(_SQL["endpoints"], ids)}

    return Loads(load, most=ENDPOINTS_MAX, stale_s=STALE_S)


def open_events(db: asyncpg.Pool) -> Loads[int, Event]:
    """By id.  Most are young, so the partitions of the last day are looked at first."""

    async def load(ids: Sequence[int]) -> Mapping[int, Event]:
        found = {row["id"]: _event(row) for row in await db.fetch(_SQL["events"], ids, _RECENT_DAYS)}
        if older := [key for key in ids if key not in found]:
            found |= {row["id"]: _event(row) for row in await db.fetch(_SQL["events"], older, _ALL_DAYS)}
        return found

    return Loads(load, most=EVENTS_MAX, weigh=_weight)


def is_event(kind: str, args: Mapping[str, Any]) -> bool:
    """Whether an insert of this row into `jobs` is one of an event (see the trigger jobs_insert)."""
    return kind == "webhook" and isinstance(args.get("event"), str) and not {"url", "endpoint"} & args.keys()


def lane_of(endpoint: int) -> str:
    return f"{LANE}{endpoint}"


def endpoint_of(lane: str) -> int | None:
    """The id that a lane `endpoint:12` names."""
    if not lane.startswith(LANE):
        return None
    digits = lane[len(LANE) :]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 18 else None


def _endpoint(row: asyncpg.Record) -> Endpoint:
    secrets = msgspec.json.decode(row["secrets"], type=list[tuple[str, float | None]])
    headers = msgspec.json.decode(row["headers"], type=dict[str, str])
    return Endpoint(
        id=row["id"],
        org_id=row["org_id"],
        name=row["name"],
        url=row["url"],
        headers=headers,
        signing=tuple(row["signing"]),
        timeout_s=row["timeout_s"],
        gone=row["gone"],
        client_certificate=row["client_certificate"],
        template=row["template"],
        content_type=row["content_type"],
        enabled=row["enabled"],
        secrets=tuple(Signing(Secret(text), expires_at) for text, expires_at in secrets),
        failing_since=row["failing_since"],
        warned_at=row["warned_at"],
        is_well_known=row["is_well_known"],
        is_doubted=row["is_doubted"],
        trouble=_trouble(headers),
    )


def _trouble(headers: Mapping[str, str]) -> str | None:
    """Whoever writes the table can write any text there, and one with a line end would be a second request."""
    try:
        check(headers)
    except BadHeader as error:
        return str(error)
    return None


def _event(row: asyncpg.Record) -> Event:
    is_json = row["body"] is None
    body = row["payload"].encode() if is_json else row["body"]
    return Event(row["id"], row["org_id"], row["event"], body, row["content_type"], is_json)


def _weight(event: Event) -> int:
    return len(event.body) + _OVERHEAD
