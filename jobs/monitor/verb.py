"""The verb `monitor`: one look at what is watched, what it comes to, and who is told of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import msgspec

import sql
from jobs.catalogue.verb import Result, Verb, Work
from jobs.context import Ledger
from jobs.model import Snooze
from jobs.monitor.notices import notice
from jobs.monitor.reading import Reading
from jobs.monitor.state import Health, Step, step
from jobs.monitor.watch import WatchSettings

_SQL = sql.load("monitors.sql")

LEDGER = Ledger("monitor_checks")

GAP_S = 3600.0
"""Checks that are to decide something come within minutes (`confirm`); after a longer time nobody has looked, as when
no daemon ran: a first check that fails then must not be the third in a row."""


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Args of its rows."""


_NEW = Health()


@dataclass(frozen=True, slots=True)
class Known:
    """What is written of a monitor.  `version` grows with each check: who has read an older one changes nothing."""

    health: Health = _NEW
    version: int = 0
    began_at: datetime | None = None


async def run(work: Work[WatchSettings]) -> Result:
    """What the check found is a line in monitor_checks.  That line, the monitor's new state and what people are told
    are written in the commit that ends this attempt, or not at all."""
    known, reading, taken = await _look(work)
    ctx, health = work.ctx, taken.health
    ctx.record(LEDGER, _line(work, known, reading, taken))
    if health.state != known.health.state:
        ctx.log.info("monitor_changed", was=known.health.state, state=health.state, code=reading.code)
    if taken.again and work.settings.confirm:
        why = reading.reason or "it answers"
        raise Snooze(f"looked at again soon: {why}", after=work.settings.confirm, code="monitor_again")
    return _result(reading, taken)


async def rehearse(work: Work[WatchSettings]) -> Result:
    """The check is made; nothing is written, and nobody is told."""
    _known, reading, taken = await _look(work)
    return _result(reading, taken) | {"reason": reading.reason, "latency_ms": reading.latency_ms}


def _result(reading: Reading, taken: Step) -> Result:
    return {"outcome": reading.outcome, "code": reading.code, "state": taken.health.state}


async def _look(work: Work[WatchSettings]) -> tuple[Known, Reading, Step]:
    row = await work.conn.fetchrow(_SQL["known"], work.name)
    known = _known(row, work) if row else Known()
    reading = await work.ctx.tools.monitor.check(work.settings, work.ctx.dns)
    return known, reading, step(known.health, reading.outcome, work.settings.limits)


def _known(row: Mapping[str, Any], work: Work[WatchSettings]) -> Known:
    counts = {name: row[name] for name in ("state", "failures", "troubles", "answers", "goods", "told")}
    health, confirm = Health(**counts), work.settings.confirm
    gap_s = (work.now - row["checked_at"]).total_seconds()
    if confirm and gap_s > max(GAP_S, 2 * confirm):
        health = health.after_a_gap()
    return Known(health, row["version"], row["began_at"])


def _line(work: Work[WatchSettings], known: Known, reading: Reading, taken: Step) -> dict[str, Any]:
    settings, told = work.settings, None
    if taken.notice is not None:
        tell = work.ctx.tools.monitor.settings.tell if settings.tell is None else settings.tell
        told = notice(
            taken.notice,
            name=work.name,
            target=settings.target,
            reading=reading,
            began_at=known.began_at,
            now=work.now,
            tell=tell,
        )
    return {
        "monitor": work.name,
        "target": settings.target,
        "version": known.version,
        "was": known.health.state,
        **asdict(taken.health),
        "outcome": reading.outcome,
        "code": reading.code,
        "reason": reading.reason,
        "latency_ms": reading.latency_ms,
        "phases": dict(reading.phases_ms),
        "address": reading.address,
        "expires_at": reading.expires_at.isoformat() if reading.expires_at else None,
        "notice": taken.notice,
        "payload": told.payload if told else None,
        "mail": told.mail if told else None,
    }


def _no_tables(_settings: WatchSettings) -> Iterable[Any]:
    return ()


MONITOR = Verb(
    name="monitor",
    doc="looks at a web page, a port, a certificate, a mail server or a name, and tells when it is down and well again",
    settings=WatchSettings,
    needs=_no_tables,
    run=run,
    rehearse=rehearse,
    args=Nothing,
)
