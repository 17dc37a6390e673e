"""One text message without a daemon: the real handler, context and client, and nothing pretended but the row."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import jobs.sms.handler
from jobs.context import Context, Ledger, Tools
from jobs.model import Job, Outcome
from jobs.registry import KINDS
from jobs.sms.client import Sms
from jobs.sms.settings import ProviderSettings, SmsSettings
from tests.jobs.webhook.world import Log, World, world

KIND = KINDS["sms"]
TO = "+447700900123"
FORM = {"To": "{to}", "From": "{from}", "Body": "{text}"}


async def _no_progress(percent: float, **fields: Any) -> None:
    """Nobody watches."""


@dataclass
class Messages:
    """The tools of a daemon as far as text messages need them."""

    base: World
    sms: Sms
    logged: list[tuple[Ledger, Mapping[str, Any]]] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.base, name)

    async def send(self, *, dry_run: bool = False, job: dict[str, Any] | None = None, **args: Any) -> Outcome:
        """One attempt of a row; what it recorded is in `logged`."""
        text = json.dumps(
            {name: value for name, value in ({"to": TO, "text": "Hi"} | args).items() if value is not ...}
        )
        plain: dict[str, Any] = {"id": 7, "fence": 1, "queue": "default", "priority": 2, "attempt": 1, "run_at": 0.0}
        row = Job(kind="sms", args_json=text, **(plain | {"lane": "sms:main"} | (job or {})))
        ctx = Context(row, cast(Tools, self), cast(Any, Log(self.base.lines)), _no_progress, dry_run=dry_run)
        try:
            return await jobs.sms.handler.sms(KIND.decode(text), ctx)
        finally:
            self.logged += ctx.records

    @property
    def record(self) -> Mapping[str, Any]:
        return self.logged[-1][1]


@asynccontextmanager
async def messages(
    url: str,
    *,
    numbers: tuple[str, ...] = (),
    secrets: Mapping[str, str] | None = None,
    webhook: dict[str, Any] | None = None,
    **provider: Any,
) -> AsyncIterator[Messages]:
    """One provider, `main`, at `url`; a form and a sender unless `provider` says otherwise."""
    given = {"url": url, "form": FORM, "from_": "Shop", **provider}
    async with world(secrets=secrets, **(webhook or {})) as base:
        settings = SmsSettings(numbers=numbers, providers={"main": ProviderSettings(**given)})
        yield Messages(base, Sms(settings, base.secrets))
