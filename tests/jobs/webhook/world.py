"""One webhook attempt without a daemon: the real handler, context and client, and nothing pretended but the row."""

from __future__ import annotations

import json
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import jobs.webhook.handler
from jobs.context import Context, Tools
from jobs.model import Job, Outcome
from jobs.registry import KINDS
from jobs.secrets import Secrets
from jobs.templates import Templates
from jobs.values import duration
from jobs.webhook.names import Lookup
from jobs.webhook.settings import WebhookSettings
from jobs.webhook.transport import HttpClient, open_http

KIND = KINDS["webhook"]
handler = jobs.webhook.handler.webhook
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class Log:
    """Keeps what a handler logs."""

    def __init__(self, lines: list[dict[str, Any]]) -> None:
        self._lines = lines

    def __getattr__(self, level: str) -> Any:
        return lambda event, **fields: self._lines.append({"level": level, "event": event, **fields})


async def _no_progress(percent: float, **fields: Any) -> None:
    """Nobody watches."""


@dataclass
class World:
    """The tools of a daemon as far as webhooks need them."""

    webhook: WebhookSettings
    http: HttpClient
    secrets: Secrets
    templates: Templates = field(default_factory=Templates)
    records: list[Mapping[str, Any]] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)

    async def deliver(
        self, url: str, payload: str | None = '{"a": 1}', *, dry_run: bool = False, **more: Any
    ) -> Outcome:
        """Run one attempt of a row; `job_*` go to the row, the rest to its args.  Its records are in `records`."""
        row = {name.removeprefix("job_"): more.pop(name) for name in list(more) if name.startswith("job_")}
        args_json = f'{{"url": {json.dumps(url)}' + ("" if payload is None else f', "payload": {payload}')
        args_json += "".join(f", {json.dumps(name)}: {json.dumps(value)}" for name, value in more.items()) + "}"
        base: dict[str, Any] = {"id": 7, "fence": 1, "queue": "default", "priority": 2, "attempt": 1, "run_at": 0.0}
        job = Job(kind="webhook", args_json=args_json, **(base | row))
        ctx = Context(job, cast(Tools, self), cast(Any, Log(self.lines)), _no_progress, dry_run=dry_run)
        try:
            return await handler(KIND.decode(args_json), ctx)
        finally:
            self.records += [row for _ledger, row in ctx.records]

    @property
    def record(self) -> Mapping[str, Any]:
        """The newest delivery record."""
        return self.records[-1]


@asynccontextmanager
async def world(
    *,
    lookup: Lookup | None = None,
    tls: ssl.SSLContext | None = None,
    secrets: Mapping[str, str] | None = None,
    **settings: Any,
) -> AsyncIterator[World]:
    """Loopback and every port allowed, short waits; `settings` override."""
    defaults: dict[str, Any] = {
        "allow_http": True,
        "allow_ports": ("1-65535",),
        "allow_addresses": ("127.0.0.0/8",),
        "timeout": duration("5s"),
    }
    chosen = WebhookSettings(**(defaults | settings))
    env = {f"JOBSD_SECRET_{name.upper().replace('-', '_')}": value for name, value in (secrets or {}).items()}
    http = open_http(chosen, lookup=lookup, tls=tls)
    templates = Templates()
    try:
        yield World(chosen, http, Secrets(env=env), templates)
    finally:
        await http.aclose()
        await templates.close()


def names(**addresses: Sequence[str]) -> Lookup:
    """A name service that knows `addresses` (`_` stands for `.`) and no other name."""

    async def lookup(host: str) -> Sequence[str]:
        try:
            return addresses[host.replace(".", "_")]
        except KeyError:
            raise socket.gaierror(socket.EAI_NONAME, "unknown") from None

    return lookup


_watched: list[list[tuple[Any, ...]]] = []


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if event == "socket.__new__" and _watched and args[1] in (socket.AF_INET, socket.AF_INET6):
        for seen in _watched:
            seen.append(args[1:])


sys.addaudithook(_hook)  # the interpreter's own report: nothing can make a socket past it


@contextmanager
def sockets_made() -> Iterator[list[tuple[Any, ...]]]:
    """Every internet socket this process makes inside the block."""
    seen: list[tuple[Any, ...]] = []
    _watched.append(seen)
    try:
        yield seen
    finally:
        _watched.remove(seen)
