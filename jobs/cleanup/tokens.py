"""The verb `tokens`: what has expired, or was used, is deleted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from jobs.catalogue.audit import AUDIT_TABLE, AUDIT_VALUES
from jobs.catalogue.ground import Table
from jobs.catalogue.needs import Need
from jobs.catalogue.settings import WHERE, BatchSettings
from jobs.catalogue.verb import Result, Verb, Work
from jobs.cleanup import purge
from jobs.cleanup.purge_settings import PurgeSettings, advise, needs
from jobs.values import Duration, key

_NAMES = {"age_column": "expires_column", "idle_column": "used_column"}
"""What a purge calls them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokensSettings(BatchSettings):
    """Deletes tokens that have expired or were used; live ones are never touched."""

    table: str = key(doc="Where the tokens are.", example='"app.magic_links"')
    expires_column: str = key(doc="When a token stops being good; null: never.", example='"expires_at"')
    used_column: str | None = key(None, "When it was used; used ones go as well.", example='"used_at"')
    grace: Duration = key(Duration(0.0), "They are kept for so long after that.", minimum=0)
    where: dict[str, Any] = key(factory=dict, doc=WHERE, example='{ purpose = ["login", "reset"] }')
    together: dict[str, str] = key(
        factory=dict,
        doc="Tables whose rows go with the token that they point to, and the column that does.",
        example='{ "app.token_uses" = "token_id" }',
    )
    audit_table: str | None = key(None, AUDIT_TABLE, example='"app.audit_log"')
    audit_values: dict[str, str] = key(
        factory=dict,
        doc=AUDIT_VALUES,
        example='{ actor = "job:{job}", action = "tokens.purged", detail = \'{"rows": {rows}}\' }',
    )
    queue: str = key("cleanup", "Queue of its rows.")
    priority: int = key(4, "Priority of its rows; 1 is first: notifications and retries come before clean-up.")

    def __post_init__(self) -> None:
        try:
            self.as_purge()
        except ValueError as error:
            name, colon, message = str(error).partition(":")
            raise ValueError(f"{_NAMES.get(name, name)}{colon}{message}") from None

    def as_purge(self) -> PurgeSettings:
        """A token's age counts from when it stopped being good."""
        return PurgeSettings(
            verb=self.verb,
            table=self.table,
            age_column=self.expires_column,
            retention=self.grace,
            idle_column=self.used_column,
            idle_retention=None if self.used_column is None else self.grace,
            where=self.where,
            together=self.together,
            audit_table=self.audit_table,
            audit_values=self.audit_values,
            batch=self.batch,
            pause=self.pause,
            lock_timeout=self.lock_timeout,
        )


def _needs(settings: TokensSettings) -> Iterator[Need]:
    return (replace(need, key=_NAMES.get(need.key, need.key)) for need in needs(settings.as_purge()))


def _advise(settings: TokensSettings, tables: Mapping[str, Table]) -> Iterator[str]:
    return advise(settings.as_purge(), tables)


def _purge(work: Work[TokensSettings]) -> Work[PurgeSettings]:
    return Work(
        name=work.name,
        settings=work.settings.as_purge(),
        args=work.args,
        ctx=work.ctx,
        conn=work.conn,
        tables=work.tables,
        now=work.now,
    )


async def _run(work: Work[TokensSettings]) -> Result:
    return await purge.run(_purge(work))


async def _rehearse(work: Work[TokensSettings]) -> Result:
    return await purge.rehearse(_purge(work))


TOKENS = Verb(
    name="tokens",
    doc="Deletes tokens that have expired or were used.",
    settings=TokensSettings,
    needs=_needs,
    run=_run,
    rehearse=_rehearse,
    advise=_advise,
)
