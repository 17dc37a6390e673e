"""What [jobs.NAME] says with the verb `rollup`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from jobs.catalogue.needs import Need, NeedsColumn, NeedsPair, NeedsTable, NeedsUnique
from jobs.catalogue.settings import BatchSettings, check_columns, check_table
from jobs.usage.buckets import Unit
from jobs.usage.zones import check_zone
from jobs.values import Duration, key


@dataclass(frozen=True, slots=True, kw_only=True)
class RollupSettings(BatchSettings):
    """Adds up rows of `source` in `into`, a row for each owner and bucket."""

    source: str = key(doc="The rows to add up; only ever added to.", example='"app.bandwidth"')
    into: str = key(doc="Where the sums are, unique by owner and bucket.", example='"app.bandwidth_daily"')
    by: tuple[str, ...] = key(doc="Whose they are: columns of both tables.", example='["account_id"]')
    time_column: str = key(doc="When a row of the source happened.", example='"happened_at"')
    bucket: Unit = key("day", "How long a bucket is; weeks begin on Monday.")
    bucket_column: str = key(doc="Where `into` has when a bucket begins.", example='"day"')
    bucket_timezone: str = key("UTC", 'Whose days they are, like "Europe/Warsaw".')
    sums: dict[str, str] = key(
        factory=dict,
        doc="Columns of `into`, and the column of the source that each is the sum of.",
        example='{ bytes_used = "bytes", emails = "emails" }',
    )
    count_column: str | None = key(None, "Where `into` has how many rows they are.", example='"requests"')
    computed_column: str | None = key(None, "Where `into` has when its row was last changed.", example='"computed_at"')
    arrived_column: str | None = key(
        None,
        "When a row of the source came to the table, by its default now(): only what is new is read, and rows are "
        "counted in however late. Unset: rows are looked for by time_column.",
        example='"recorded_at"',
    )
    late: Duration | None = key(
        None,
        "So much of what was read is read again: how long a transaction that adds rows may last; unset: 1h. Without "
        "arrived_column: how late rows may come; unset: 7d.",
        minimum=0,
        example='"1h"',
    )
    source_retention: Duration | None = key(
        None,
        "Rows of the source are purged after this: buckets from before that are left as they are.",
        minimum=3600,
        example='"90d"',
    )
    retention: Duration | None = key(
        None, "Buckets that began longer ago are deleted from `into`; unset: none.", minimum=3600, example='"400d"'
    )
    batch: int = key(
        10_000,
        "Rows or buckets of one transaction at most; fewer when it takes longer than 100ms.",
        minimum=1,
        maximum=50_000,
    )

    def __post_init__(self) -> None:
        for field in ("source", "into"):
            check_table(field, getattr(self, field))
        for field in ("time_column", "bucket_column", "count_column", "computed_column", "arrived_column"):
            check_columns(field, getattr(self, field))
        check_columns("by", *self.by)
        check_columns("sums", *self.sums, *self.sums.values())
        if not self.by:
            raise ValueError("by: name at least one column")
        if not self.sums and self.count_column is None:
            raise ValueError("sums: add up a column, or count rows in count_column")
        check_zone("bucket_timezone", self.bucket_timezone)
        written = [*self.by, self.bucket_column, *self.sums, self.count_column, self.computed_column]
        twice = {name for name in written if name is not None and written.count(name) > 1}
        if twice:
            raise ValueError(f"sums: {', '.join(sorted(twice))} of `into` would be written twice")
        if self.source == self.into:
            raise ValueError("into: is the source")


def needs(settings: RollupSettings) -> Iterator[Need]:
    source, into = settings.source, settings.into
    yield NeedsTable("source", source, keyed=True)
    yield NeedsTable("into", into, ("select", "insert", "update", "delete"), keyed=True)
    for column in settings.by:
        yield NeedsColumn("by", source, column)
        yield NeedsColumn("by", into, column, written=True)
        yield NeedsPair("by", source, column, into, column)
    yield NeedsColumn("time_column", source, settings.time_column, "time")
    yield NeedsColumn(
        "bucket_column", into, settings.bucket_column, "moment" if settings.bucket == "hour" else "time", written=True
    )
    yield NeedsUnique("bucket_column", into, (*settings.by, settings.bucket_column))
    for name, column in settings.sums.items():
        yield NeedsColumn(f"sums.{name}", source, column, "number")
        yield NeedsColumn(f"sums.{name}", into, name, "number", written=True)
    if settings.count_column is not None:
        yield NeedsColumn("count_column", into, settings.count_column, "number", written=True)
    if settings.computed_column is not None:
        yield NeedsColumn("computed_column", into, settings.computed_column, "moment", written=True)
    if settings.arrived_column is not None:
        yield NeedsColumn("arrived_column", source, settings.arrived_column, "moment")
