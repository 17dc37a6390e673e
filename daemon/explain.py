"""Why a job does not run: the gates between it and a handler, in the order in which it meets them.  Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from daemon.explain_lanes import LaneHold, busy_lane, lane_gates
from daemon.explain_relays import RelayState, relay_gate
from daemon.lanes import LANE_GATE
from daemon.limits import GATE
from daemon.pattern import matches
from daemon.relay_limits import RelayLimit
from daemon.sources import KIND_GATE, RETRY_GATE, SUSPECT_GATE
from daemon.work_settings import LimitSettings

MANY = 10_000
"""Counts end here: so many or more."""

ORGS_MAX = 100
"""And those of organisations here."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A live row and what surrounds it, at the database's `now`.

    `behind`: the job that its ordering key lets run first; `ahead`: due rows that come first in its queue and gate, by
    class and time; `others`: organisations that wait there in its class too, up to 100; `before_it`: rows of its own
    organisation that come first in its class; `busy`: running rows of its queue; all but `others` up to MANY.
    """

    id: int
    kind: str
    queue: str
    state: str
    gate: str
    priority: int
    run_at: datetime
    expires_at: datetime | None
    started_at: datetime | None
    ordering_key: str | None
    now: datetime
    worker: str | None
    worker_lives: bool | None
    lease_until: datetime | None
    paused: str | None
    paused_at: datetime | None
    paused_until: datetime | None
    paused_by: str | None
    pause_reason: str | None
    cancel_asked: bool
    behind: int | None
    ahead: int
    org_id: str | None
    others: int
    before_it: int
    busy: int


@dataclass(frozen=True, slots=True)
class Daemon:
    """One that lives and takes rows: `queues` are patterns."""

    name: str
    kinds: Sequence[str]
    queues: Sequence[str]


@dataclass(frozen=True, slots=True)
class BucketState:
    """The bucket a row waits at: its settings (None: this config has no such limit), debt in seconds, places taken; of
    a relay's the part of its rate that it lends, and (quarter of an hour, used) of its day."""

    name: str
    key: str
    settings: LimitSettings | None
    debt_s: float
    held: int
    share: float = 1.0
    slots: tuple[tuple[float, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Gate:
    """What holds a job: a word for it, a sentence, when it opens if that is known, and what opens it."""

    name: str
    says: str
    opens_at: datetime | None = None
    opens: str = ""


def gates(
    row: Standing,
    daemons: Sequence[Daemon],
    slots: int,
    bucket: BucketState | None,
    lane: Sequence[LaneHold] = (),
    unfit: str | None = None,
) -> list[Gate]:
    """Every gate that is shut, the one that holds the row now first; never empty.

    `slots`: how many jobs of the row's queue one daemon runs at once, by this config.  `lane`: what holds its lane.
    `unfit`: what the database lacks for a job of the config.
    """
    if row.state == "running":
        return [_running(row)]
    return list(_shut(row, daemons, slots, bucket, lane, unfit)) or [_due(row)]


def _running(row: Standing) -> Gate:
    since = f"since {_time(row.started_at)}" if row.started_at else ""
    if row.worker_lives and row.cancel_asked:
        return Gate(
            "cancelling",
            f"runs on {row.worker} {since}, and is asked to stop",
            opens="never: it ends as cancelled, unless it ends by itself first",
        )
    if row.worker_lives:
        return Gate(
            "running", f"runs on {row.worker} {since}", opens="when its handler returns, or its timeout ends it"
        )
    return Gate(
        "lost",
        f"its worker{f' {row.worker}' if row.worker else ''} died while it ran, {since}",
        max(row.lease_until or row.now, row.now),
        "a living daemon takes it back about a second after the lease has ended",
    )


def _shut(
    row: Standing,
    daemons: Sequence[Daemon],
    slots: int,
    bucket: BucketState | None,
    lane: Sequence[LaneHold],
    unfit: str | None,
) -> Iterator[Gate]:
    if row.cancel_asked:
        yield Gate("cancelling", "somebody wants it stopped", opens="never: within seconds it ends as cancelled")
    if row.expires_at is not None and row.expires_at <= row.now:
        yield Gate(
            "expired", f"its expires_at, {_time(row.expires_at)}, has passed", opens="never: it becomes a dead letter"
        )
    if row.run_at > row.now:
        yield Gate("run_at", f"not before {_time(row.run_at)}", row.run_at, "by the database's clock")
    if row.paused_at is not None:
        yield _paused(row)
    if unfit is not None:
        yield Gate(
            "parked",
            f"its job is parked: jobs.{row.kind}.{unfit}",
            opens="by itself, seconds after the database has it: jobsd config check --database",
        )
    else:
        yield from _unserved(row, daemons)
    for found in lane_gates(lane, row.now):
        yield Gate(found.name, found.says, found.opens_at, found.opens)
    if row.gate.startswith(LANE_GATE) and not lane and row.paused_at is None:
        busy = busy_lane(row.gate.removeprefix(LANE_GATE))
        yield Gate(busy.name, busy.says, opens=busy.opens)
    if row.gate.startswith(GATE):
        yield _limited(row, bucket)
    if row.gate == SUSPECT_GATE:
        yield Gate(
            "suspect",
            "its worker died while it ran, as often as a row may: such rows run one at a time in each daemon",
            opens="when the one before it has ended",
        )
    if row.behind is not None:
        yield Gate(
            "ordering_key",
            f"job {row.behind} of the same kind and ordering key comes first",
            opens=f"when job {row.behind} has ended; see: jobsd jobs explain {row.behind}",
        )
    serving = sum(any(matches(pattern, row.queue) for pattern in daemon.queues) for daemon in daemons)
    if serving and row.run_at <= row.now and row.busy >= slots * serving:
        yield _no_slot(row)


def _no_slot(row: Standing) -> Gate:
    """Where several organisations wait, it is not the rows ahead that count, but whose turn it is."""
    taken = f"{_count(row.busy)} jobs of queue {row.queue} run, as many as its daemons take at once"
    opens = f"when slots come free; more: queues.{row.queue}.concurrency"
    if not row.others:
        return Gate("slots", f"{taken}, and {_count(row.ahead)} due rows come first", opens=opens)
    others = f"{'100 or more' if row.others >= ORGS_MAX else row.others} other{'s' if row.others > 1 else ''}"
    whose = f"organisation {row.org_id} takes turns" if row.org_id else "rows without an organisation take turns"
    return Gate(
        "share",
        f"{taken}; {whose} with {others}, and {_count(row.before_it)} of these rows come first",
        opens=opens + (f", or: jobsd orgs weight {row.org_id} N" if row.org_id else ""),
    )


def _paused(row: Standing) -> Gate:
    noun, _, name = (row.paused or "").partition(":")
    who = f" by {row.paused_by}" if row.paused_by else ""
    why = f": {row.pause_reason}" if row.pause_reason else ""
    when = f" since {_time(row.paused_at)}" if row.paused_at else ""
    word = "organisation" if noun == "org" else noun
    return Gate("paused", f"{word} {name} is paused{when}{who}{why}", row.paused_until, f"jobsd {noun}s resume {name}")


def _unserved(row: Standing, daemons: Sequence[Daemon]) -> Iterator[Gate]:
    """Nobody would take it, whatever else is open."""
    if not daemons:
        yield Gate(
            "no_daemon", "no daemon lives that takes rows of this database", opens="when one is started: jobsd serve"
        )
        return
    of_queue = [daemon for daemon in daemons if any(matches(pattern, row.queue) for pattern in daemon.queues)]
    if not of_queue:
        yield Gate(
            "no_daemon_for_queue",
            f"no living daemon serves queue {row.queue}",
            opens="when one does: daemon.queues of its config",
        )
    if not any(row.kind in daemon.kinds for daemon in of_queue or daemons):
        parked = " and it is parked" if row.gate.startswith(KIND_GATE) else ""
        yield Gate(
            "no_daemon_for_kind",
            f"no living daemon{f' of queue {row.queue}' if of_queue else ''} has a handler for kind {row.kind}{parked}",
            opens="when one has: daemon.handlers and daemon.kinds of its config",
        )


def _limited(row: Standing, bucket: BucketState | None) -> Gate:
    """A token for it comes after those of the rows ahead; a place, when somebody leaves one."""
    if bucket is None or bucket.settings is None:
        return Gate(
            "limit", f"it waits at {row.gate}, which this config does not have", opens="when a daemon looks again"
        )
    limit = bucket.settings
    if isinstance(limit, RelayLimit):
        state = RelayState(bucket.name, bucket.debt_s, bucket.share, bucket.slots)
        gate = relay_gate(state, limit, row.ahead, row.now.timestamp())
        return Gate("relay_rate", gate.says, row.now + timedelta(seconds=gate.opens_s), gate.opens)
    name = f"limit {bucket.name}" + (f" for {bucket.key}" if bucket.key else "")
    if limit.concurrency is not None and bucket.held >= limit.concurrency:
        return Gate(
            "limit",
            f"{name}: {bucket.held} of {limit.concurrency} places are taken, and {_count(row.ahead)} rows come first",
            opens="when those that hold places have ended",
        )
    if limit.rate is None:
        return Gate("limit", f"{name}: a place is free", row.now, "at the next claim")
    token_s = 1.0 / limit.rate.per_second
    wait_s = max(0.0, bucket.debt_s - (limit.bucket - 1) * token_s) + row.ahead * token_s
    return Gate(
        "limit",
        f"{name}: {limit.rate} is used up, and {_count(row.ahead)} rows come first",
        row.now + timedelta(seconds=wait_s),
        "when its token has grown",
    )


def _due(row: Standing) -> Gate:
    waited_s = (row.now - row.run_at).total_seconds()
    says = f"due for {waited_s:.1f} s; {_count(row.ahead)} due rows come first"
    if row.gate == RETRY_GATE:
        opens = "nothing holds it; while first attempts wait, retries have at most 30 % of its queue's slots"
        return Gate("due", says.replace("due rows", "due retries"), row.now, opens)
    return Gate("due", says, row.now, "nothing holds it: the next claim of its queue takes it")


def split(gate: str) -> tuple[list[str], list[str]]:
    """The names and keys that `limit:NAME:KEY` may stand for: both may have colons of their own."""
    parts = gate.removeprefix(GATE).split(":")
    cuts = range(1, len(parts))
    return [":".join(parts[:cut]) for cut in cuts], [":".join(parts[cut:]) for cut in cuts]


def bucket_of(gate: str, limits: Mapping[str, LimitSettings]) -> tuple[str, str] | None:
    """The (name, key) of `gate` among the config's limits."""
    return next(((name, key) for name, key in zip(*split(gate), strict=True) if name in limits), None)


def _count(number: int) -> str:
    return f"{MANY} or more" if number >= MANY else str(number)


def _time(at: datetime | None) -> str:
    return "" if at is None else at.strftime("%Y-%m-%d %H:%M:%S UTC")
