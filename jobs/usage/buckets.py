"""Buckets of a roll-up, as pieces of its statements: days and weeks by the clock of a place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jobs.catalogue.ground import Column
from jobs.catalogue.skeleton import ROW, Blocks, Parameters, Sql, of

Unit = Literal["hour", "day", "week", "month"]

_BLOCKS = Blocks("rollup.sql")
_INSTANT = "timestamp with time zone"
_NO_CHANGES = {"UTC", "Etc/UTC", "GMT", "Etc/GMT"}
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

    def within(self, parameters: Parameters) -> Sql:
        """Whether a row `t` lies in the bucket of `a`."""
        places = {
            "time": self.time.sql,
            "start": self.start(_BLOCKS.fill("asked_bucket"), parameters),
            "step": parameters.once("step", f"1 {self.unit}"),
            "bucket": self.of_row(parameters),
            "zone": self._zone(parameters),
        }
        if self.time.base != _INSTANT:
            return _BLOCKS.fill("within_locals", **places)
        margin = "0" if self.zone in _NO_CHANGES else CLOCKS_CHANGE
        return _BLOCKS.fill("within_instants", margin=parameters.once("margin", margin), **places)

    def _zone(self, parameters: Parameters) -> Sql:
        return parameters.once("zone", self.zone)
