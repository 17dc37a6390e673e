"""What [jobs.NAME] says with the verb `threshold`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from jobs.catalogue.needs import Need, NeedsColumn, NeedsPair, NeedsTable, NeedsUnique
from jobs.catalogue.settings import BatchSettings, Mail, check_columns, check_table
from jobs.usage.zones import check_zone
from jobs.values import Duration, duration, key

WORDS = ("@threshold", "@used", "@allowed", "@percent", "@elapsed", "@now", "@event")
"""What a value may be beside a column of `cycles`, and `=` with a text of one's own."""

_IN_BRACES = re.compile(r"\{(\w+)\}")
_SAID = ("threshold", "used", "allowed", "percent")
"""What a mail may say."""

NUMBERS = ("@threshold", "@used", "@allowed", "@percent", "@elapsed")


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdSettings(BatchSettings):
    """Compares what was used with what is allowed, period by period, and tells once of each threshold."""

    cycles: str = key(
        doc="The periods: a table or a view with a row for each, and how much it allows.", example='"app.usage_cycles"'
    )
    key_column: str = key("id", "What tells periods apart, of `cycles`.")
    starts_column: str = key("starts_at", "When a period begins, of `cycles`.")
    ends_column: str = key("ends_at", "When it is over, of `cycles`.")
    allowed_column: str = key(doc="How much may be used in it, of `cycles`; null: any amount.", example='"bytes"')
    usage: str | None = key(
        None, "The rows to add up; unset: used_column is one of `cycles`.", example='"app.bandwidth_daily"'
    )
    by: str | None = key(None, "Whose they are: a column of `usage` and of `cycles`.", example='"account_id"')
    time_column: str | None = key(None, "When it was used, of `usage`.", example='"day"')
    used_column: str = key(doc="How much was used.", example='"bytes_used"')
    usage_timezone: str = key("UTC", "Whose days they are, where a time has no zone.")
    thresholds: tuple[int, ...] = key((60, 70, 80, 100), "Percent of what is allowed.")
    sliding: bool = key(
        True, "Thresholds below 100 are of that share of what is allowed which is as large as that of the period over."
    )
    sliding_from: float = key(
        0.25, "Of at least this share, so that the first day is not an alarm.", minimum=0.0, maximum=1.0
    )
    grace: Duration = key(
        duration("2d"), "Periods that are over are looked at for so long: some usage comes late.", minimum=0
    )
    events: str = key(doc="Where an event is inserted, unique by period and threshold.", example='"app.usage_events"')
    event_columns: dict[str, str] = key(
        doc="Its columns, and what goes in: a column of `cycles`, a word (@threshold, @used, @allowed, @percent, "
        "@elapsed, @now, @event) or `=text`.",
        example='{ cycle_id = "id", account_id = "account_id", threshold = "@threshold" }',
    )
    notify: str | None = key(None, "A table that gets a row for each event too.", example='"app.notifications"')
    notify_columns: dict[str, str] = key(
        factory=dict, doc="As event_columns.", example='{ account_id = "account_id", kind = "=usage", body = "@event" }'
    )
    email_column: str | None = key(
        None, "A column of `cycles` with an address that gets a mail, of the highest new threshold.", example='"email"'
    )
    email_subject: str = key("{threshold} % used", "May have {threshold}, {used}, {allowed} and {percent}.")
    email_text: str = key("{percent} % of what your plan allows has been used.", "As email_subject.")
    email_from: str | None = key(None, "Who writes; unset: email.from.", example='"Shop <usage@shop.example>"')
    org_column: str | None = key(
        None, "A column of `cycles` with the organisation whose mail it is.", example='"org_id"'
    )
    priority: int = key(2, "Priority of its rows; 1 is first.", minimum=1, maximum=4)

    def __post_init__(self) -> None:
        for field in ("cycles", "usage", "events", "notify"):
            if (table := getattr(self, field)) is not None:
                check_table(field, table)
        for field in ("key_column", "starts_column", "ends_column", "allowed_column", "by", "time_column"):
            check_columns(field, getattr(self, field))
        for field in ("used_column", "email_column", "org_column"):
            check_columns(field, getattr(self, field))
        given = [self.usage, self.by, self.time_column]
        if any(given) and not all(given):
            raise ValueError(
                "usage: goes with by and time_column; give all three, or none where `cycles` has used_column"
            )
        if not self.thresholds or not all(1 <= t <= 1000 for t in self.thresholds):
            raise ValueError("thresholds: give percents from 1 to 1000")
        check_zone("usage_timezone", self.usage_timezone)
        for field in ("event_columns", "notify_columns"):
            _check_values(field, getattr(self, field))
        for wanted in (self.key_column, "@threshold"):
            if wanted not in self.event_columns.values():
                raise ValueError(f"event_columns: a column must have {wanted!r}, or events could not be told apart")
        if bool(self.notify) != bool(self.notify_columns):
            raise ValueError("notify: goes with notify_columns; give both")
        for field in ("email_subject", "email_text"):
            for word in _IN_BRACES.findall(getattr(self, field)):
                if word not in _SAID:
                    there = ", ".join(f"{{{known}}}" for known in _SAID)
                    raise ValueError(f"{field}: {{{word}}} would stand there as it is; there are {there}")

    def mail(self) -> Mail | None:
        if self.email_column is None:
            return None
        return Mail(("email_from", self.email_from), ("email_subject", self.email_subject))

    def event_column(self, value: str) -> str:
        """The column of `events` that this goes into."""
        return next(column for column, found in self.event_columns.items() if found == value)


def _check_values(field: str, values: dict[str, str]) -> None:
    for column, value in values.items():
        check_columns(field, column)
        if value.startswith("@"):
            if value not in WORDS:
                raise ValueError(f"{field}: {column}: {value!r} is no word; there are {', '.join(WORDS)}")
        elif not value.startswith("="):
            check_columns(field, value)


def needs(settings: ThresholdSettings) -> Iterator[Need]:
    cycles = settings.cycles
    yield NeedsTable("cycles", cycles, views=True)
    yield NeedsColumn("key_column", cycles, settings.key_column)
    yield NeedsColumn("starts_column", cycles, settings.starts_column, "time")
    yield NeedsColumn("ends_column", cycles, settings.ends_column, "time")
    yield NeedsColumn("allowed_column", cycles, settings.allowed_column, "number")
    for field in ("email_column", "org_column"):
        if (column := getattr(settings, field)) is not None:
            yield NeedsColumn(field, cycles, column, "text")
    if settings.usage is None or settings.by is None or settings.time_column is None:
        yield NeedsColumn("used_column", cycles, settings.used_column, "number")
    else:
        yield NeedsTable("usage", settings.usage, views=True)
        yield NeedsColumn("by", cycles, settings.by)
        yield NeedsColumn("by", settings.usage, settings.by)
        yield NeedsPair("by", settings.usage, settings.by, cycles, settings.by)
        yield NeedsColumn("time_column", settings.usage, settings.time_column, "time")
        yield NeedsColumn("used_column", settings.usage, settings.used_column, "number")
    event_key, event_threshold = settings.event_column(settings.key_column), settings.event_column("@threshold")
    yield from _written(settings, "events", settings.events, "event_columns", settings.event_columns)
    yield NeedsPair(f"event_columns.{event_key}", settings.events, event_key, cycles, settings.key_column)
    yield NeedsUnique("event_columns", settings.events, (event_key, event_threshold))
    if settings.notify is not None:
        yield from _written(settings, "notify", settings.notify, "notify_columns", settings.notify_columns)


def _written(
    settings: ThresholdSettings, field: str, table: str, columns_field: str, columns: dict[str, str]
) -> Iterator[Need]:
    yield NeedsTable(field, table, ("select", "insert"))
    for column, value in columns.items():
        place = f"{columns_field}.{column}"
        family = "number" if value in NUMBERS else "time" if value == "@now" else "json" if value == "@event" else "any"
        yield NeedsColumn(place, table, column, family, written=True)  # type: ignore[arg-type]
        if not value.startswith(("@", "=")):
            yield NeedsColumn(place, settings.cycles, value)
