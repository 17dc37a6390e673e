"""One push without a daemon: the real handler, context and client, and nothing pretended but the row."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import jobs.push.handler
from jobs.context import Context, Ledger, Tools
from jobs.model import Job, Outcome
from jobs.push.client import Push
from jobs.push.settings import PushSettings
from jobs.push.vapid import public_of
from jobs.registry import KINDS
from jobs.values import Secret
from tests.jobs.push.browser import Browser
from tests.jobs.webhook.world import Log, World, world

KIND = KINDS["push"]
KEY = base64.urlsafe_b64encode(bytes(range(1, 33))).decode().rstrip("=")
PUBLIC = public_of(KEY)
SUBJECT = "mailto:ops@shop.example"


@dataclass
class Past:
    """`ctx.db` of a job that was tried first so long ago."""

    tried_s: float | None = None

    async def fetchval(self, _statement: str, _job: int) -> float | None:
        return self.tried_s


async def _no_progress(percent: float, **fields: Any) -> None:
    """Nobody watches."""


@dataclass
class Pushes:
    """The tools of a daemon as far as push messages need them."""

    base: World
    push: Push
    db: Any = field(default_factory=Past)
    browser: Browser = field(default_factory=Browser)
    logged: list[tuple[Ledger, Mapping[str, Any]]] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.base, name)

    async def send(
        self, endpoint: str, *, dry_run: bool = False, job: dict[str, Any] | None = None, **args: Any
    ) -> Outcome:
        """One attempt of a row to this endpoint; what it recorded is in `logged`."""
        args = {"subscription": self.browser.subscription(endpoint), **({"payload": {"n": 1}} | args)}
        text = json.dumps({name: value for name, value in args.items() if value is not ...})
        plain: dict[str, Any] = {"id": 7, "fence": 1, "queue": "default", "priority": 2, "attempt": 1, "run_at": 0.0}
        row = Job(kind="push", args_json=text, **(plain | (job or {})))
        ctx = Context(row, cast(Tools, self), cast(Any, Log(self.base.lines)), _no_progress, dry_run=dry_run)
        try:
            return await jobs.push.handler.push(KIND.decode(text), ctx)
        finally:
            self.logged += ctx.records

    @property
    def record(self) -> Mapping[str, Any]:
        """The newest row of the delivery log."""
        return [row for ledger, row in self.logged if ledger == "notification_deliveries"][-1]

    @property
    def events(self) -> list[Mapping[str, Any]]:
        return [row for ledger, row in self.logged if ledger == "push_gone"]


@asynccontextmanager
async def pushes(
    *, secrets: Mapping[str, str] | None = None, push: dict[str, Any] | None = None, **webhook: Any
) -> AsyncIterator[Pushes]:
    """A key, and loopback allowed; `push` and `webhook` override."""
    given: dict[str, Any] = {"private_key": Secret("secret://vapid"), "subject": SUBJECT}
    async with world(secrets=secrets or {"vapid": KEY}, **webhook) as base:
        yield Pushes(base, Push(PushSettings(**(given | (push or {}))), base.secrets))


def some_bytes(n: int) -> bytes:
    return os.urandom(n)
