"""What handlers get in a test: fakes that keep what they are told, beside a real database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import asyncpg
import httpx2

from jobs.clients import Wanted
from jobs.dns.resolver import Resolver
from jobs.email.relay import Mail
from jobs.email.suppressions import Key as SuppressionKey
from jobs.email.suppressions import Suppression, open_suppressions
from jobs.email.template import Key as TemplateKey
from jobs.email.template import Template, open_templates
from jobs.email.turns import Turns
from jobs.loads import Loads
from jobs.monitor.prober import Prober
from jobs.push.client import Push
from jobs.secrets import Secrets
from jobs.sms.client import Sms
from jobs.storage.storage import Storage
from jobs.templates import Templates
from jobs.testing.dns import FakeDns
from jobs.testing.http import FakeHttp
from jobs.testing.mail import FakeMail
from jobs.webhook.endpoints import Endpoint, Event, open_endpoints, open_events
from jobs.webhook.health import Health
from jobs.webhook.settings import WebhookSettings

CONNECTIONS = 10


@dataclass(slots=True)
class Tools:
    """`jobs.context.Tools` of a test.  `given` replaces clients by name: http, mail, dns, secrets; whoever gives one
    closes it."""

    dsn: str
    wanted: Wanted
    given: Mapping[str, Any]
    fake_http: FakeHttp = field(default_factory=FakeHttp)
    fake_mail: FakeMail = field(init=False)
    fake_dns: FakeDns = field(default_factory=FakeDns)
    templates: Templates = field(default_factory=Templates)
    health: Health = field(default_factory=Health)
    turns: Turns = field(default_factory=Turns)
    _db: asyncpg.Pool | None = None
    _email_templates: Loads[TemplateKey, Template] | None = None
    _suppressions: Loads[SuppressionKey, Suppression] | None = None
    _endpoints: Loads[int, Endpoint] | None = None
    _events: Loads[int, Event] | None = None
    _push: Push | None = None
    _storage: Storage | None = None
    _monitor: Prober | None = None
    _folder: TemporaryDirectory[str] | None = None

    def __post_init__(self) -> None:
        self.fake_mail = FakeMail(self.wanted.email)
        if unknown := self.given.keys() - {"http", "mail", "dns", "secrets"}:
            raise TypeError(f"tools: {', '.join(sorted(unknown))} is none of http, mail, dns, secrets")

    @property
    def db(self) -> asyncpg.Pool:
        if self._db is None:
            raise RuntimeError("handlers run in a drain")
        return self._db

    @property
    def http(self) -> httpx2.AsyncClient:
        client: httpx2.AsyncClient = self.given.get("http", self.fake_http.client)
        return client

    @property
    def mail(self) -> Mail:
        mail: Mail = self.given.get("mail", self.fake_mail)
        return mail

    @property
    def dns(self) -> Resolver:
        resolver: Resolver = self.given.get("dns", self.fake_dns)
        return resolver

    @property
    def secrets(self) -> Secrets:
        """`tools={"secrets": {"pay": "…"}}`: secret://pay."""
        given = self.given.get("secrets", {})
        if isinstance(given, Secrets):
            return given
        return Secrets((), {f"JOBSD_SECRET_{name.upper().replace('-', '_')}": text for name, text in given.items()})

    @property
    def webhook(self) -> WebhookSettings:
        return self.wanted.webhook

    @property
    def push(self) -> Push:
        if self._push is None:
            self._push = Push(self.wanted.push, self.secrets)
        return self._push

    @property
    def sms(self) -> Sms:
        return Sms(self.wanted.sms, self.secrets)

    @property
    def storage(self) -> Storage:
        """A folder of its own, removed with the test."""
        if self._storage is None:
            self._folder = TemporaryDirectory(prefix="jobsd-storage-")
            self._storage = Storage(self.wanted.storage, Path(self._folder.name), self.secrets)
        return self._storage

    @property
    def monitor(self) -> Prober:
        """Looks at what is really there."""
        if self._monitor is None:
            self._monitor = Prober(self.wanted.monitor, self.wanted.dns)
        return self._monitor

    @property
    def email_templates(self) -> Loads[TemplateKey, Template]:
        if self._email_templates is None:
            self._email_templates = open_templates(self.db)
        return self._email_templates

    @property
    def suppressions(self) -> Loads[SuppressionKey, Suppression]:
        if self._suppressions is None:
            self._suppressions = open_suppressions(self.db)
        return self._suppressions

    @property
    def endpoints(self) -> Loads[int, Endpoint]:
        if self._endpoints is None:
            self._endpoints = open_endpoints(self.db)
        return self._endpoints

    @property
    def events(self) -> Loads[int, Event]:
        if self._events is None:
            self._events = open_events(self.db)
        return self._events

    async def ready(self) -> Tools:
        """With a pool for the handlers; connected, so that a handler's first pause is for its own statement."""
        if self._db is None:
            self._db = await asyncpg.create_pool(self.dsn, min_size=1, max_size=CONNECTIONS)
        for loads in (self._endpoints, self._email_templates):
            if loads is not None:
                loads.forget()  # a test may have changed one a moment ago
        return self

    def cut_off(self) -> None:
        """What became of the handlers' connections when their process died: gone, and nothing committed."""
        if self._db is not None:
            self._db.terminate()
            self._db = self._endpoints = self._events = self._email_templates = self._suppressions = None

    def clear(self) -> None:
        """Forget what the fakes were told."""
        for fake in (self.fake_http, self.fake_mail, self.fake_dns):
            fake.clear()

    async def close(self) -> None:
        self.cut_off()  # a handler that was killed may hold a connection, for which a close would wait
        await self.fake_http.aclose()
        await self.fake_mail.close()
        await self.fake_dns.close()
        await self.templates.close()
        if self._monitor is not None:
            self._monitor.close()
        if self._folder is not None:
            self._folder.cleanup()
