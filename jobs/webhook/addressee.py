"""To whom a row goes: to the URL it names, or to an endpoint, with the row's own payload or an event's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import time

import asyncpg
import msgspec

from jobs.context import Context
from jobs.model import Dead, Outcome, Retry, Snooze
from jobs.webhook.args import JSON, WebhookArgs
from jobs.webhook.draft import Draft, of_row
from jobs.webhook.endpoints import Endpoint, Event
from jobs.webhook.judge import Gone

DISABLED_S = 5.0
"""A row that was claimed before its endpoint's lane was closed comes back so soon, and waits at the lane's gate."""

AWAY_S = 5.0

OCTETS = "application/octet-stream"

_AWAY = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)


class Addressed(msgspec.Struct, frozen=True):
    """`endpoint`, `event_id` and `replay` are for the delivery log; `timeout_s` is the endpoint's own."""

    draft: Draft
    endpoint: Endpoint | None = None
    event_id: int | None = None
    replay: int | None = None
    timeout_s: float | None = None
    gone: Gone = "confirm"


class NoAddressee(Exception):
    """Nothing is sent.  `told`: it is an attempt, for the delivery log."""

    def __init__(self, outcome: Outcome, code: str, *, told: bool) -> None:
        super().__init__(code)
        self.outcome = outcome
        self.code = code
        self.told = told


async def addressed(args: WebhookArgs, ctx: Context, *, clock: Callable[[], float] = time) -> Addressed:
    """NoAddressee says why there is none.  What cannot be looked up is our own fault and is not charged."""
    if args.endpoint is None:
        return Addressed(of_row(args, ctx.job))
    try:
        endpoint = await ctx.tools.endpoints.get(args.endpoint)
        event = None if args.event_id is None else await ctx.tools.events.get(args.event_id)
    except _AWAY as error:
        ctx.log.warning("webhook_endpoint_unread", error=repr(error))
        away = Snooze("the endpoint could not be looked up", after=AWAY_S, code="database_away")
        raise NoAddressee(away, "database_away", told=False) from None
    if endpoint is None or endpoint.org_id != ctx.job.org_id:
        raise _dead("endpoint_unknown", f"there is no endpoint {args.endpoint} of this job's organisation")
    if not endpoint.enabled:
        later = Snooze(f"endpoint {endpoint.id} is disabled", after=DISABLED_S, code="endpoint_disabled")
        raise NoAddressee(later, "endpoint_disabled", told=False)
    if args.event_id is not None and (event is None or event.org_id != ctx.job.org_id):
        raise _dead("event_gone", f"event {args.event_id} is no longer kept")
    if endpoint.trouble is not None:
        raise NoAddressee(Retry(endpoint.trouble, code="endpoint_invalid"), "endpoint_invalid", told=True)
    secrets = endpoint.secrets_at(clock())
    if endpoint.signing and not secrets:
        reason = f"endpoint {endpoint.id} has no secret to sign with"
        raise NoAddressee(Retry(reason, code="secret_missing"), "secret_missing", told=True)
    draft = _draft(args, ctx, endpoint, event, secrets)
    return Addressed(draft, endpoint, args.event_id, args.replay, endpoint.timeout_s, endpoint.gone)


def _draft(args: WebhookArgs, ctx: Context, endpoint: Endpoint, event: Event | None, secrets: tuple[str, ...]) -> Draft:
    """An event's id is that of the message, whoever it goes to and however often.  A template makes something of JSON;
    other bytes are sent as they are."""
    body, content_type, made = _content(args, endpoint, event)
    return Draft(
        url=endpoint.url,
        body=body,
        content_type=content_type,
        message_id=f"msg_{ctx.job.id}" if event is None else f"msg_e{event.id}",
        event=args.event if event is None else event.event,
        headers=_headers(endpoint.headers, args.headers),
        secrets=secrets if endpoint.signing else (),
        signing=endpoint.signing,
        client_certificate=endpoint.client_certificate,
        template=endpoint.template if made else None,
    )


def _headers(own: Mapping[str, str], given: Mapping[str, str]) -> Mapping[str, str]:
    """An endpoint's, and those of a row, which win."""
    if not given:
        return own
    names = {name.lower() for name in given}
    return {**{name: value for name, value in own.items() if name.lower() not in names}, **given}


def _content(args: WebhookArgs, endpoint: Endpoint, event: Event | None) -> tuple[bytes, str, bool]:
    """The bytes, their type, and whether the endpoint's template makes others of them."""
    if event is None:
        is_json, body = args.body is None, bytes(args.payload) if args.body is None else args.body
        own = None if args.content_type == JSON else args.content_type
    else:
        is_json, body, own = event.is_json, event.body, event.content_type
    if not is_json:
        return body, own or OCTETS, False
    if endpoint.template is not None:
        return body, endpoint.content_type or JSON, True
    return body, own or endpoint.content_type or JSON, False


def _dead(code: str, reason: str) -> NoAddressee:
    return NoAddressee(Dead(reason, code=code), code, told=True)
