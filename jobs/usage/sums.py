"""The statements of a roll-up: which buckets rows have come for, and what these buckets come to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from jobs.catalogue.ground import Column, Table
from jobs.catalogue.pages import Page
from jobs.catalogue.skeleton import ROW, Blocks, Parameters, Sql, alias, joined, of
from jobs.usage.buckets import Buckets

_BLOCKS = Blocks("rollup.sql")

Bucket = tuple[str, ...]
"""The values of its owner, then when it is, all as texts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """`by`: pairs of columns, of `source` and of `into`, that say whose it is; `sums` likewise, where None counts rows;
    `computed`: where `into` has the time of the last change; `kept_s`: rows of the source are purged after this."""

    source: Table
    into: Table
    by: Sequence[tuple[Column, Column]]
    buckets: Buckets
    sums: Sequence[tuple[Column | None, Column]]
    computed: Column | None
    kept_s: float | None = None

    def lands(self, parameters: Parameters) -> Sql:
        """What a page of the source has of each row."""
        return self._place([mine for mine, _ in self.by], self.buckets.of_row(parameters), parameters)

    def stands(self, parameters: Parameters) -> Sql:
        """The same of a page of `into`."""
        return self._place([theirs for _, theirs in self.by], of(ROW, self.buckets.column.sql), parameters)

    def _place(self, owner: Sequence[Column], bucket: Sql, parameters: Parameters) -> Sql:
        by = joined(_BLOCKS.fill("owner", column=column.sql) for column in owner)
        return _BLOCKS.fill("lands", by=by, bucket=bucket, start=self.buckets.start(bucket, parameters))

    def oldest(self, first: datetime) -> Callable[[Page], Sql]:
        """Of one page of the source."""
        return lambda page: _BLOCKS.fill(
            "oldest", scan=page.scan, first=page.parameters.add(first), slack=page.parameters.add(self.buckets.slack)
        )

    def touched(self, first: datetime) -> Callable[[Page], Sql]:
        """Of one page; buckets that began before `first` are left as they are."""
        return lambda page: _BLOCKS.fill("touched", scan=page.scan, first=page.parameters.add(first))

    def write(self, asked: Sequence[Bucket], parameters: Parameters) -> Sql:
        values = [*(theirs for _, theirs in self.by), self.buckets.column, *(theirs for _, theirs in self.sums)]
        names = [*self._names(), *self._sum_names()]
        worked_out = [_BLOCKS.fill("worked_out", name=name) for name in names]
        columns = [column.sql for column in values]
        assigned = [theirs.sql for _, theirs in self.sums]
        if self.computed is not None:
            columns.append(self.computed.sql)
            assigned.append(self.computed.sql)
            worked_out.append(_BLOCKS.fill("now"))
        return _BLOCKS.fill(
            "write",
            summed=self._summed(asked, parameters),
            into=self.into.sql,
            match=self._match(),
            columns=joined(columns),
            values=joined(worked_out),
            order=joined(_BLOCKS.fill("worked_out", name=name) for name in self._names()),
            key=joined(column.sql for column in self._key()),
            set=joined(_BLOCKS.fill("assign", column=column) for column in assigned),
            have=joined(_BLOCKS.fill("held", column=theirs.sql) for _, theirs in self.sums),
            want=joined(_BLOCKS.fill("excluded", column=theirs.sql) for _, theirs in self.sums),
        )

    def compare(self, asked: Sequence[Bucket], parameters: Parameters) -> Sql:
        return _BLOCKS.fill(
            "compare",
            summed=self._summed(asked, parameters),
            into=self.into.sql,
            match=self._match(),
            shown=joined(
                _BLOCKS.fill("shown_as", name=name, column=column.sql)
                for name, column in zip(
                    [*self._names(), *self._sum_names()], [*self._key(), *(into for _, into in self.sums)], strict=True
                )
            ),
            there=_BLOCKS.fill("there", column=self.buckets.column.sql),
            have=joined(_BLOCKS.fill("held", column=theirs.sql) for _, theirs in self.sums),
            want=joined(_BLOCKS.fill("worked_out", name=name) for name in self._sum_names()),
        )

    def _summed(self, asked: Sequence[Bucket], parameters: Parameters) -> Sql:
        names, key = self._names(), self._key()
        texts = [[bucket[place] for bucket in asked] for place in range(len(names))]
        return _BLOCKS.fill(
            "summed",
            asked=joined(
                _BLOCKS.fill("asked", name=name, type=column.type) for name, column in zip(names, key, strict=True)
            ),
            names=joined(names),
            values=joined(_BLOCKS.fill("parameter", value=parameters.add(text)) for text in texts),
            sums=joined(
                self._sum(source, into, name) for (source, into), name in zip(self.sums, self._sum_names(), strict=True)
            ),
            source=self.source.sql,
            same=joined(
                (
                    _BLOCKS.fill("of_row", column=mine.sql, name=name)
                    for (mine, _), name in zip(self.by, names[:-1], strict=True)
                ),
                " and ",
            ),
            within=_BLOCKS.fill("and", condition=self.buckets.within(parameters, self._owner())),
            whole=self._whole(parameters),
        )

    def _owner(self) -> list[tuple[Column, Sql]]:
        """Whose a bucket is, in the order of an index that has his rows by time."""
        asked = {mine.name: (mine, name) for (mine, _), name in zip(self.by, self._names()[:-1], strict=True)}
        found = (asked[column] for column in self.source.ranged(asked, self.buckets.time.name))
        return [(mine, _BLOCKS.fill("asked_owner", name=name)) for mine, name in found]

    def _whole(self, parameters: Parameters) -> Sql:
        if self.kept_s is None:
            return _BLOCKS.fill("always")
        start = self.buckets.start(_BLOCKS.fill("asked_bucket"), parameters)
        return _BLOCKS.fill("kept", start=start, retention=parameters.add(f"{self.kept_s} seconds"))

    def _sum(self, source: Column | None, into: Column, name: Sql) -> Sql:
        if source is None:
            return _BLOCKS.fill("count", type=into.type, name=name)
        return _BLOCKS.fill("sum", column=source.sql, type=into.type, name=name)

    def _match(self) -> Sql:
        pairs = zip(self._key(), self._names(), strict=True)
        return joined((_BLOCKS.fill("of_target", column=column.sql, name=name) for column, name in pairs), " and ")

    def _key(self) -> list[Column]:
        return [*(theirs for _, theirs in self.by), self.buckets.column]

    def _names(self) -> list[Sql]:
        return [*(alias("b", n) for n in range(1, len(self.by) + 1)), _BLOCKS.fill("bucket")]

    def _sum_names(self) -> list[Sql]:
        return [alias("s", n) for n in range(1, len(self.sums) + 1)]
