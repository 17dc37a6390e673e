"""What [jobs.NAME] with the verb `purge` may say, and what that needs of the database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jobs.catalogue.audit import AUDIT_TABLE, AUDIT_VALUES, audit_needs, check_audit
from jobs.catalogue.facts import facts
from jobs.catalogue.ground import Table
from jobs.catalogue.needs import Fault, Need, NeedsColumn, NeedsPair, NeedsTable, of_predicates
from jobs.catalogue.predicates import predicates
from jobs.catalogue.settings import WHERE, BatchSettings, Mail, check_columns, check_pair, check_table, check_where
from jobs.cleanup.totals import check_totals, totals_needs
from jobs.values import Duration, key

AGE = "When a row became what it is; a row without a time is kept."


@dataclass(frozen=True, slots=True, kw_only=True)
class PurgeSettings(BatchSettings):
    """Deletes rows whose age is past `retention`."""

    table: str = key(doc="Where rows are deleted.", example='"app.spam_quarantine"')
    age_column: str = key(doc=AGE, example='"quarantined_at"')
    retention: Duration = key(doc="Rows older than this are deleted.", minimum=0, example='"30d"')
    where: dict[str, Any] = key(factory=dict, doc=WHERE, example='{ status = ["archived", "spam"], flagged = false }')
    idle_column: str | None = key(
        None,
        "When a row was last of use: rows go as well when that is longer ago than idle_retention.",
        example='"last_seen_at"',
    )
    idle_retention: Duration | None = key(None, "See idle_column.", minimum=0, example='"14d"')
    longer_where: dict[str, Any] = key(
        factory=dict, doc="Rows that fit this are kept for longer_retention.", example="{ critical = true }"
    )
    longer_retention: Duration | None = key(None, "See longer_where.", minimum=0, example='"2557d"')
    owner_column: str | None = key(
        None, "Whose a row is: a column with the key of owner_table.", example='"account_id"'
    )
    owner_table: str | None = key(None, "Those who may have a retention of their own.", example='"app.accounts"')
    owner_retention: str | None = key(
        None,
        "Its column with the retention of its rows, an interval or a number of days; null: `retention`.",
        example='"message_retention"',
    )
    owner_email: str | None = key(
        None, "Its column with the address that a warning goes to; without owner_table, one of the table.",
        example='"email"',
    )  # fmt: skip
    warn_before: Duration | None = key(
        None,
        "Its owner is told by mail so long before; and no row goes sooner than this after its warning.",
        minimum=60,
        example='"1d"',
    )
    warn_column: str | None = key(None, "When a row was warned of; null: not yet.", example='"warned_at"')
    warn_from: str | None = key(None, "Who tells; unset: email.from.", example='"Overflow Desk <hold@shop.example>"')
    warn_subject: str = key("Some of your data will be deleted", "Subject of the warning.")
    warn_text: str = key(
        "What is older than its retention will be deleted on {day}.",
        "What the warning says; {day} is the day from which on rows may go.",
    )
    parent_table: str | None = key(
        None, "Only rows whose parent is gone: parent_column names none of its rows.", example='"app.messages"'
    )
    parent_column: str | None = key(None, "See parent_table.", example='"message_id"')
    together: dict[str, str] = key(
        factory=dict,
        doc="Tables whose rows go with the row that they point to, and the column that does.",
        example='{ "app.header_snapshots" = "message_id" }',
    )
    totals_table: str | None = key(
        None,
        "Where deleted rows stay as sums, added in the same statement; unique by the columns of totals_by.",
        example='"app.message_statistics"',
    )
    totals_by: dict[str, str] = key(
        factory=dict,
        doc="Its columns, and what of a row they are: a column, or hour, day, week, month of one.",
        example='{ account_id = "account_id", day = "day:received_at" }',
    )
    totals_count: str | None = key(None, "Its column that counts rows.", example='"messages"')
    totals_sums: dict[str, str] = key(
        factory=dict, doc="Its columns, and the column that each is the sum of.", example='{ bytes = "size_bytes" }'
    )
    archive: bool = key(
        False, "Rows go into an archive in [storage] first: written, synced and read back.  Excludes together."
    )
    audit_table: str | None = key(None, AUDIT_TABLE, example='"app.audit_log"')
    audit_values: dict[str, str] = key(
        factory=dict,
        doc=AUDIT_VALUES,
        example='{ actor = "job:{job}", action = "spam.purged", detail = \'{"rows": {rows}}\' }',
    )
    queue: str = key("cleanup", "Queue of its rows.")
    priority: int = key(4, "Priority of its rows; 1 is first: notifications and retries come before clean-up.")

    def __post_init__(self) -> None:
        for name in ("table", "owner_table", "parent_table"):
            check_table(name, getattr(self, name))
        for name in ("age_column", "idle_column", "owner_column", "owner_retention", "owner_email"):
            check_columns(name, getattr(self, name))
        check_columns("warn_column", self.warn_column)
        check_columns("parent_column", self.parent_column)
        for name in self.together:
            check_table("together", name)
        check_columns("together", *self.together.values())
        check_where("where", self.where)
        check_where("longer_where", self.longer_where)
        check_pair(idle_column=self.idle_column, idle_retention=self.idle_retention)
        check_pair(longer_where=self.longer_where or None, longer_retention=self.longer_retention)
        check_pair(owner_column=self.owner_column, owner_table=self.owner_table)
        check_pair(warn_before=self.warn_before, warn_column=self.warn_column)
        check_pair(parent_table=self.parent_table, parent_column=self.parent_column)
        check_totals(self.totals_table, self.totals_by, self.totals_count, self.totals_sums)
        check_audit(self.audit_table, self.audit_values)
        if self.longer_retention is not None and self.longer_retention < self.retention:
            raise ValueError("longer_retention: is shorter than retention")
        if self.owner_retention is not None and self.owner_table is None:
            raise ValueError("owner_retention: is a column of owner_table; give that")
        if self.warn_before is not None and self.owner_email is None:
            raise ValueError("owner_email: a warning goes there; give the column with the address")
        if self.warn_before is not None and self.warn_before > self.retention:
            raise ValueError("warn_before: is longer than retention")
        if self.archive and self.together:
            child = next(iter(self.together))
            raise ValueError(
                f"together: rows of {child} would go and be in no archive, which has rows of {self.table} alone; leave "
                f"them out here, and give {child} a purge of its own with archive = true: by a time of its own before "
                f'this one, or with parent_table = "{self.table}" after it'
            )

    def mail(self) -> Mail | None:
        if self.warn_before is None:
            return None
        return Mail(("warn_from", self.warn_from), ("warn_subject", self.warn_subject))


def needs(settings: PurgeSettings) -> Iterator[Need]:
    table = settings.table
    yield NeedsTable("table", table, ("select", "delete", "update"), keyed=True)
    yield NeedsColumn("age_column", table, settings.age_column, "time")
    if settings.idle_column is not None:
        yield NeedsColumn("idle_column", table, settings.idle_column, "time")
    yield from of_predicates("where", table, predicates(settings.where))
    yield from of_predicates("longer_where", table, predicates(settings.longer_where))
    yield from _owner_needs(settings)
    if settings.warn_column is not None:
        yield NeedsColumn("warn_column", table, settings.warn_column, "time", written=True)
    if settings.parent_table is not None and settings.parent_column is not None:
        yield NeedsTable("parent_table", settings.parent_table, ("select",))
        yield NeedsColumn("parent_column", table, settings.parent_column)
        yield NeedsPair("parent_column", table, settings.parent_column, settings.parent_table)
    for child, column in settings.together.items():
        yield NeedsTable("together", child, ("select", "delete"))
        yield NeedsColumn("together", child, column)
        yield NeedsPair("together", child, column, table)
    yield from totals_needs(
        table, settings.totals_table, settings.totals_by, settings.totals_count, settings.totals_sums
    )
    yield from audit_needs(table, settings.audit_table, settings.audit_values)


def _owner_needs(settings: PurgeSettings) -> Iterator[Need]:
    table, owner = settings.table, settings.owner_table
    if owner is not None and settings.owner_column is not None:
        yield NeedsTable("owner_table", owner, ("select",))
        yield NeedsColumn("owner_column", table, settings.owner_column)
        yield NeedsPair("owner_column", table, settings.owner_column, owner)
        if settings.owner_retention is not None:
            yield NeedsColumn("owner_retention", owner, settings.owner_retention, "span")
    if settings.owner_email is not None:
        yield NeedsColumn("owner_email", owner or table, settings.owner_email, "text")


async def inspect(_conn: Any, settings: PurgeSettings, tables: Mapping[str, Table]) -> list[Fault]:
    """What a foreign key would delete beside them is in no archive, either."""
    pointing = tables[settings.table].referenced_by if settings.archive else ()
    return [
        Fault(
            "archive",
            f"rows of {child.table} would go with those that they point to, by {child.name} (on delete cascade), and "
            f"be in no archive: make it on delete restrict, and give {child.table} a purge of its own, before this one",
        )
        for child in pointing
        if child.action == "c"
    ]


def advise(settings: PurgeSettings, tables: Mapping[str, Table]) -> Iterator[str]:
    table = tables[settings.table]
    holds = facts(predicates(settings.where), table)
    for name in (settings.age_column, settings.idle_column):
        if name is not None and not table.leads(name, holds) and settings.parent_table is None:
            yield table.wants_index(name, why="each run reads the whole table")
    for name, pointing in settings.together.items():
        child = tables[name]
        if not child.found_by(pointing):
            yield child.wants_index(pointing, why="each page reads the whole table")
    known = {tables[name].sql for name in settings.together}
    for reference in table.referenced_by:
        if reference.action in "ar" and reference.table not in known:
            yield (
                f"rows that {reference.table}.{reference.column} points to cannot be deleted ({reference.name}): "
                "purge those first, or add the table to together"
            )
