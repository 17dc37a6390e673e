"""The `webhook_replay` kind: sends events to an endpoint once more, a few seconds' worth at a time.

Each step finds the next events, inserts their deliveries and writes down how far it came, in one commit that only
the attempt which has the row can make; then the row goes back to its queue until the next ones are due.  So it holds no
slot while it waits, a kill loses nothing and repeats nothing, and cancelling the row ends it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import Any

import msgspec

import sql
from jobs.context import Context
from jobs.model import Dead, Done, Fixed, Outcome, Snooze
from jobs.registry import job
from jobs.webhook.selection import Candidate, Key, ReplayArgs, Selection, TooManyWait, Whom, find

_SQL = sql.load("replay.sql")

STEP_S = 5.0
"""Deliveries of so many seconds are inserted ahead: that much goes on after the row is cancelled."""

STEP_MAX_S = 60.0
LOOK_SHARE = 0.05
"""Looking takes so much of the time at most: a step that had to look for long sends for longer."""

BATCH = 1000
"""Rows one step inserts at most."""

LOOK_MAX_S = 20.0
"""A step that has found too little by then lets others have a turn."""

AHEAD_S = 1.0
"""A step begins so much before the first of its deliveries is due."""

AGAIN_S = 30.0
COUNT_MAX = 1_000_000
SAMPLE = 10


class State(msgspec.Struct, frozen=True, kw_only=True):
    """How far a replay came; the row's progress.  `enqueued`: deliveries that it inserted; `passed`: events that
    another replay has under way; `next_at`: when the next delivery may be due."""

    until: datetime
    percent: float = 0.0
    enqueued: int = 0
    passed: int = 0
    after_at: datetime | None = None
    after_id: int = 0
    next_at: datetime | None = None

    @property
    def after(self) -> Key:
        return Key() if self.after_at is None else Key(self.after_at, self.after_id)


@dataclass(frozen=True, slots=True)
class Found:
    """Events to send, how far was looked for them, and whether there is nothing behind that."""

    events: Sequence[int]
    after: Key
    is_all: bool


@dataclass(frozen=True, slots=True)
class Count:
    """How many events a replay would send, and some of them; `exact`: there are no more."""

    events: int
    exact: bool
    sample: Sequence[Candidate]


class _Lost(Exception):
    """Another attempt has the row."""


@job("webhook_replay", args=ReplayArgs, retry=Fixed(AGAIN_S, max_attempts=20), timeout="2m")
async def webhook_replay(args: ReplayArgs, ctx: Context) -> Outcome:
    """One step, and when to take the next."""
    async with ctx.db.acquire() as conn:
        whom = await find(conn, args.endpoint, ctx.job.org_id)
        if whom is None or whom.org_id != ctx.job.org_id:
            return Dead(f"there is no endpoint {args.endpoint} of this job's organisation", code="endpoint_unknown")
        if not whom.enabled and not ctx.dry_run:
            return Snooze(f"endpoint {whom.id} is disabled", after=AGAIN_S, code="endpoint_disabled")
        try:
            return await (_rehearse(conn, args, whom) if ctx.dry_run else _step(conn, args, whom, ctx))
        except TooManyWait:
            return Snooze("too many of the endpoint's deliveries wait", after=AGAIN_S, code="too_many_wait")
        except _Lost:
            return Snooze("another attempt has this row", after=AGAIN_S, code="row_lost")


async def count(conn: Any, args: ReplayArgs, whom: Whom, *, look: int = COUNT_MAX) -> Count:
    """What there is to send now, in the first `look` rows."""
    selection = Selection(conn, args, whom, _until(args, whom))
    events, looked, after, sample = 0, 0, Key(), list[Candidate]()
    while (page := await selection.page(after)).last is not None:
        sample += page.candidates[: SAMPLE - len(sample)]
        events, looked, after = events + len(page.candidates), looked + page.looked, page.last
        if args.most is not None and events >= args.most:
            return Count(args.most, True, sample[: args.most])
        if looked >= look:
            return Count(events, False, sample)
    return Count(events, True, sample)


async def _rehearse(conn: Any, args: ReplayArgs, whom: Whom) -> Outcome:
    found = await count(conn, args, whom)
    return Done({"would": f"send {found.events} events to endpoint {whom.id} once more", "exact": found.exact})


async def _step(conn: Any, args: ReplayArgs, whom: Whom, ctx: Context) -> Outcome:
    text = await conn.fetchval(_SQL["so_far"], ctx.job.id)
    state = State(until=_until(args, whom)) if text is None else msgspec.json.decode(text, type=State)
    selection = Selection(conn, args, whom, state.until)
    left = BATCH if args.most is None else args.most - state.enqueued
    found = await _look(selection, state.after, args.per_second, left) if left > 0 else Found([], state.after, True)
    state = await _commit(conn, args, whom, ctx, state, found, selection)
    if found.is_all:
        return Done({"enqueued": state.enqueued, "passed": state.passed})
    wait_s = ((state.next_at or whom.now) - whom.now).total_seconds() - AHEAD_S
    return Snooze(f"{state.enqueued} sent on so far", after=max(0.0, wait_s), code="replaying")


async def _look(selection: Selection, after: Key, per_second: float, left: int) -> Found:
    """As many events as are sent until the next step."""
    began, events = monotonic(), list[int]()
    while (page := await selection.page(after)).last is not None:
        spent_s = monotonic() - began
        ahead_s = min(max(STEP_S, spent_s / LOOK_SHARE), STEP_MAX_S)
        room = max(1, min(int(per_second * ahead_s), left, BATCH))
        taken = page.candidates[: room - len(events)]
        events += [candidate.event_id for candidate in taken]
        after = page.last if len(taken) == len(page.candidates) else taken[-1].key
        if len(events) >= room or spent_s > LOOK_MAX_S:
            return Found(events, after, False)
    return Found(events, after, True)


async def _commit(
    conn: Any, args: ReplayArgs, whom: Whom, ctx: Context, state: State, found: Found, selection: Selection
) -> State:
    """The deliveries and how far the replay came, or neither; the deliveries one after the other at its rate, whenever
    its steps are made."""
    first_at = max(whom.now, state.next_at or whom.now)
    every_s = 1.0 / args.per_second
    async with conn.transaction():
        added = 0
        if found.events:
            given = (whom.id, list(found.events), ctx.job.id, first_at, every_s)
            added = await conn.fetchval(_SQL["enqueue"], *given)
        state = msgspec.structs.replace(
            state,
            percent=100.0 if found.is_all else selection.percent(found.after),
            enqueued=state.enqueued + added,
            passed=state.passed + len(found.events) - added,
            after_at=found.after.at,
            after_id=found.after.id,
            next_at=first_at + timedelta(seconds=len(found.events) * every_s),
        )
        job = ctx.job
        noted = await conn.fetchval(_SQL["note"], job.id, job.fence, job.worker_id, msgspec.json.encode(state).decode())
        if noted is None:
            raise _Lost
    return state


def _until(args: ReplayArgs, whom: Whom) -> datetime:
    return whom.now if args.until is None else min(args.until, whom.now)
