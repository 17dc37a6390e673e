"""The verb `verify_domains`: a table of domain names and jobsd's own table `domains` are kept in step."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from jobs.catalogue import sampling
from jobs.catalogue.conditions import conditions
from jobs.catalogue.needs import Need, NeedsColumn, NeedsPair, NeedsTable, of_predicates
from jobs.catalogue.pages import Page, Pages, key_texts
from jobs.catalogue.predicates import predicates
from jobs.catalogue.settings import WHERE, BatchSettings, check_columns, check_pair, check_table, check_where
from jobs.catalogue.skeleton import NOTHING, ROW, Blocks, Parameters, Sql, joined, of
from jobs.catalogue.verb import Result, Verb, Work
from jobs.dns.expectation import Expectation
from jobs.values import key

_BLOCKS = Blocks("verify_domains.sql")

DOMAINS = "domains"
_KNOWN = {"state_column": "state", "verified_column": "verified_at", "conclusion_column": "conclusion"}
"""What a row is told, and the column of `domains` it stands in."""

SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyDomainsSettings(BatchSettings):
    """Registers names of a table with jobsd, which checks them; rows are told what came of it."""

    table: str = key(doc="Where the names are.", example='"app.custom_domains"')
    name_column: str = key(doc="The domain, as A-labels (xn--…).", example='"name"')
    org_column: str | None = key(
        None, "Whose it is: jobs.org_id; of owner_table where there is one.", example='"org_id"'
    )
    contact_column: str | None = key(
        None, "Who is told by e-mail; of owner_table where there is one.", example='"email"'
    )
    owner_column: str | None = key(
        None, "Whose a row is: a column with the key of owner_table.", example='"account_id"'
    )
    owner_table: str | None = key(None, "Where organisation and contact are.", example='"app.accounts"')
    where: dict[str, Any] = key(factory=dict, doc=WHERE, example="{ deleted_at = { null = true } }")
    expect: str = key(
        "[]",
        "Records beside the token, as dns_check takes them, in JSON.",
        example='\'[{"type": "MX", "value": "mx.shop.example"}]\'',
    )
    state_column: str | None = key(None, "Column that gets the state.", example='"state"')
    verified_column: str | None = key(
        None, "Column that gets the time when it was verified at first.", example='"verified_at"'
    )
    conclusion_column: str | None = key(None, "Column that gets what its owner should read.", example='"dns_says"')
    priority: int = key(2, "Priority of its rows; 1 is first.", minimum=1, maximum=4)

    def __post_init__(self) -> None:
        check_table("table", self.table)
        check_table("owner_table", self.owner_table)
        check_pair(owner_column=self.owner_column, owner_table=self.owner_table)
        for name in ("name_column", "org_column", "contact_column", "owner_column", *_KNOWN):
            check_columns(name, getattr(self, name))
        check_where("where", self.where)
        try:
            records = msgspec.json.decode(self.expect, type=tuple[Expectation, ...])
        except (msgspec.MsgspecError, ValueError) as error:
            raise ValueError(f"expect: {error}") from None
        if len(records) > 19:
            raise ValueError(f"expect: {len(records)} records are too many; at most 19")

    @property
    def told(self) -> dict[str, str]:
        """Columns of the user's rows, and what of `domains` goes into them."""
        return {column: known for name, known in _KNOWN.items() if (column := getattr(self, name)) is not None}


def _needs(settings: VerifyDomainsSettings) -> Iterator[Need]:
    table, owner = settings.table, settings.owner_table
    yield NeedsTable("verb", DOMAINS, ("select", "delete"), keyed=True)
    yield NeedsTable("table", table, ("select", "update") if settings.told else ("select",), keyed=True)
    yield NeedsColumn("name_column", table, settings.name_column, "text")
    if owner is not None and settings.owner_column is not None:
        yield NeedsTable("owner_table", owner, ("select",))
        yield NeedsColumn("owner_column", table, settings.owner_column)
        yield NeedsPair("owner_column", table, settings.owner_column, owner)
    for name in ("org_column", "contact_column"):
        if (column := getattr(settings, name)) is not None:
            yield NeedsColumn(name, owner or table, column, "text" if name == "contact_column" else "any")
    for name, family in (("state_column", "any"), ("verified_column", "time"), ("conclusion_column", "text")):
        if (column := getattr(settings, name)) is not None:
            yield NeedsColumn(name, table, column, family, written=True)  # type: ignore[arg-type] # three of them
    yield from of_predicates("where", table, predicates(settings.where))


async def _run(work: Work[VerifyDomainsSettings]) -> Result:
    """Those that are gone first: a name may have passed to another."""
    counted: Counter[str] = Counter(registered=0, changed=0, removed=0, told=0, refused=0)
    refused: list[str] = []
    async for percent, said in _steps(work):
        refused += (said.get("refused_names") or [])[: SHOWN - len(refused)]
        counted.update({name: said[name] for name in counted if name in said})
        await work.ctx.progress(percent, **counted)
    return {**counted, **({"refused_names": refused} if refused else {})}


async def _steps(work: Work[VerifyDomainsSettings]) -> AsyncIterator[tuple[float, Mapping[str, Any]]]:
    table = work.tables[work.settings.table]
    passes = [(work.tables[DOMAINS], _remove), (table, _register)]
    if work.settings.told:
        passes.append((table, _tell))
    for number, (about, statement) in enumerate(passes):
        pages = Pages(work, about)
        async for said in pages.run(partial(statement, work)):
            yield (100.0 * number + pages.percent(said["at"])) / len(passes), said


def _register(work: Work[VerifyDomainsSettings], page: Page) -> Sql:
    row = _Row(work, page.parameters)
    return _BLOCKS.fill(
        "register",
        scan=page.scan,
        key=key_texts(page.table),
        name=row.name,
        shown=row.shown,
        org=row.org,
        contact=row.contact,
        table=page.table.sql,
        same=page.same,
        joins=row.joins,
        condition=_BLOCKS.fill("every", conditions=row.conditions),
        fits=_BLOCKS.fill("fits"),
        expect=page.parameters.once("expect", work.settings.expect),
        job=page.parameters.once("job", work.name),
    )


def _remove(work: Work[VerifyDomainsSettings], page: Page) -> Sql:
    return _BLOCKS.fill(
        "remove",
        scan=page.scan,
        keys=page.keys,
        table=page.table.sql,
        same=page.same,
        condition=_gone(work, page.parameters),
    )


def _gone(work: Work[VerifyDomainsSettings], parameters: Parameters) -> Sql:
    """Of a row `t` of `domains`: that it is this job's, and stands for nothing any more."""
    table, row = work.tables[work.settings.table], _Row(work, parameters, _BLOCKS.fill("user_row"))
    return _BLOCKS.fill(
        "gone",
        job=parameters.once("job", work.name),
        table=table.sql,
        joins=row.joins,
        found=joined(
            (
                _BLOCKS.fill("key_is", column=column.sql, number=parameters.add(n), type=column.type)
                for n, column in enumerate(table.key, 1)
            ),
            " and ",
        ),
        name=row.name,
        org=row.org,
        conditions=row.conditions,
    )


def _tell(work: Work[VerifyDomainsSettings], page: Page) -> Sql:
    row, table = _Row(work, page.parameters), page.table
    places = [
        {"column": table.columns[column].sql, "known": _BLOCKS.fill(known), "type": table.columns[column].type}
        for column, known in work.settings.told.items()
    ]
    return _BLOCKS.fill(
        "tell",
        scan=page.scan,
        keys=page.keys,
        table=table.sql,
        same=page.same,
        joins=row.joins,
        org=row.org,
        name=row.name,
        condition=_BLOCKS.fill("every", conditions=row.conditions),
        other=joined((_BLOCKS.fill("differs", **each) for each in places), " or "),
        changes=joined(_BLOCKS.fill("set", **each) for each in places),
    )


class _Row:
    """Pieces that speak of a row of the user's table, which the statement calls `row`, and of its owner, `o`."""

    def __init__(self, work: Work[VerifyDomainsSettings], parameters: Parameters, row: Sql = ROW) -> None:
        settings, table = work.settings, work.tables[work.settings.table]
        named = of(row, table.columns[settings.name_column].sql)
        self.name = _BLOCKS.fill("name", column=named)
        self.shown = _BLOCKS.fill("text", column=named)
        self.conditions = conditions(predicates(settings.where), table, parameters, row)
        self.joins = NOTHING
        self._whose, self._row = table, row
        if settings.owner_table is not None and settings.owner_column is not None:
            self._whose, self._row = work.tables[settings.owner_table], _BLOCKS.fill("owner_row")
            self.joins = _BLOCKS.fill(
                "owner",
                owner=self._whose.sql,
                key=self._whose.key[0].sql,
                row=row,
                column=table.columns[settings.owner_column].sql,
            )
        self.org = self._of_owner(settings.org_column)
        self.contact = self._of_owner(settings.contact_column)
        self.fitting = _BLOCKS.fill(
            "fitting", fits=_BLOCKS.fill("fits"), name=self.name, org=self.org, contact=self.contact
        )

    def _of_owner(self, column: str | None) -> Sql:
        if column is None:
            return _BLOCKS.fill("nobody")
        return _BLOCKS.fill("text", column=of(self._row, self._whose.columns[column].sql))


async def _rehearse(work: Work[VerifyDomainsSettings]) -> Result:
    table, domains = work.tables[work.settings.table], work.tables[DOMAINS]
    whose = _Row(work, Parameters(work.now)).joins
    total = await sampling.count(work, table, partial(_missing, work), whose)
    name = work.settings.name_column
    rows = await sampling.sample(work, table, (name,), name, partial(_missing, work), whose)
    said = sampling.said("register", total, work.settings.table, rows)
    said["would_refuse"] = await sampling.count(work, table, partial(_unfit, work), whose)
    said["would_remove"] = await sampling.count(work, domains, partial(_gone, work))
    return said


def _missing(work: Work[VerifyDomainsSettings], parameters: Parameters) -> Sql:
    row = _Row(work, parameters)
    return _BLOCKS.fill("missing", org=row.org, name=row.name, fitting=row.fitting, conditions=row.conditions)


def _unfit(work: Work[VerifyDomainsSettings], parameters: Parameters) -> Sql:
    row = _Row(work, parameters)
    return _BLOCKS.fill("unfit", fitting=row.fitting, conditions=row.conditions)


VERIFY_DOMAINS = Verb(
    name="verify_domains",
    doc="Registers the names of a table with jobsd, which checks their DNS, and tells the rows what came of it.",
    settings=VerifyDomainsSettings,
    needs=_needs,
    run=_run,
    rehearse=_rehearse,
)
