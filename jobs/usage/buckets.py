"""Buckets of a roll-up, as pieces of its statements: days and weeks by the clock of a place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from jobs.catalogue.ground import Column
from jobs.catalogue.skeleton import ROW, Blocks, Parameters, Sql, joined, of

Unit = Literal["hour", "day", "week", "month"]

_BLOCKS = Blocks("rollup.sql")
_INSTANT = "timestamp with time zone"
_NO_CHANGES = {"UTC", "Etc/UTC", "GMT", "Etc/GMT"}
_CHANGE = timedelta(hours=3)
CLOCKS_CHANGE = "3 hours"
"""A bucket's rows are looked for so much around it, where clocks change, and then told by what bucket they are of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Buckets:
    """`time`: when a row of the source happened; `column`: where the target has its bucket; `zone`: whose days."""

    time: Column
    column: Column
    unit: Unit
    zone: str

    def of_row(self, parameters: Parameters) -> Sql:
        """Of a row `t` of the source, as the target has it."""
        kind = "instant_bucket" if self.time.base == _INSTANT else "local_bucket"
        places = {"unit": parameters.once("unit", self.unit), "time": of(ROW, self.time.sql), "type": self.column.type}
        if self.column.base == _INSTANT:
            return _BLOCKS.fill(f"{kind}_as_instant", zone=self._zone(parameters), **places)
        if kind == "instant_bucket":
            places["zone"] = self._zone(parameters)
        return _BLOCKS.fill(kind, **places)

    def start(self, bucket: Sql, parameters: Parameters) -> Sql:
        """When this bucket begins, as a moment."""
        if self.column.base == _INSTANT:
            return _BLOCKS.fill("start_as_instant", bucket=bucket)
        return _BLOCKS.fill("start", bucket=bucket, zone=self._zone(parameters))

    @property
    def slack(self) -> str:
        """By so much the same rows may lie in another bucket, in another zone or in buckets of another length."""
        return f"1 {self.unit} 1440 minutes"

    def hands(self, moment: datetime) -> datetime:
        """What rows have that happened from this moment on: of times without a zone, what clocks there show, as if it
        were UTC; not later than that where clocks go back, and of dates the whole day."""
        if self.time.base == _INSTANT:
            return moment
        shown = moment.astimezone(ZoneInfo(self.zone)).replace(tzinfo=UTC) - (_CHANGE if self._changes else timedelta())
        return shown.replace(hour=0, minute=0, second=0, microsecond=0) if self.time.base == "date" else shown

    def moment(self, hands: datetime) -> datetime:
        """When clocks show this first."""
        return hands if self.time.base == _INSTANT else hands.replace(tzinfo=ZoneInfo(self.zone)).astimezone(UTC)

    def within(self, parameters: Parameters, owner: Sequence[tuple[Column, Sql]]) -> Sql:
        """Whether a row `t` lies in the bucket of `a`.  `owner`: columns that say whose it is, and their values, in the
        order of an index that has his rows by time; (): there is none."""
        asked = _BLOCKS.fill("asked_bucket")
        margin = parameters.once("margin", CLOCKS_CHANGE if self._changes else "0")
        lengths = {"step": parameters.once("step", f"1 {self.unit}"), "margin": margin}
        if self.time.base == _INSTANT:
            start = self.start(asked, parameters)
            end = _BLOCKS.fill("instants_end", start=start, zone=self._zone(parameters), **lengths)
        else:
            start = _BLOCKS.fill("shown", bucket=asked)
            if self.column.base == _INSTANT:
                start = _BLOCKS.fill("shown_of_instant", bucket=asked, zone=self._zone(parameters))
            end = _BLOCKS.fill("locals_end", start=start, **lengths)
        time = self.time.sql
        until = _BLOCKS.fill("until", time=time, end=end)
        if owner:
            columns = joined(of(ROW, column.sql) for column, _ in owner)
            until = _BLOCKS.fill(
                "until_of_owner", columns=columns, time=time, owner=joined(value for _, value in owner), end=end
            )
        return _BLOCKS.fill(
            "within", time=time, start=start, margin=margin, until=until, bucket=self.of_row(parameters)
        )

    @property
    def _changes(self) -> bool:
        return self.zone not in _NO_CHANGES

    def _zone(self, parameters: Parameters) -> Sql:
        return parameters.once("zone", self.zone)
