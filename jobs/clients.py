"""The clients a daemon opens once from its settings and hands to every attempt."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

from jobs.dns.resolver import Resolver
from jobs.dns.settings import DnsSettings
from jobs.email.relay import Mail
from jobs.email.settings import EmailSettings
from jobs.email.suppressions import Key as SuppressionKey
from jobs.email.suppressions import Suppression, open_suppressions
from jobs.email.template import Key as TemplateKey
from jobs.email.template import Template, open_templates
from jobs.email.turns import Turns
from jobs.loads import Loads
from jobs.monitor.prober import Prober
from jobs.monitor.settings import MonitorSettings
from jobs.push.client import Push
from jobs.push.settings import PushSettings
from jobs.secrets import Secrets
from jobs.sms.client import Sms
from jobs.sms.settings import SmsSettings
from jobs.storage.settings import StorageSettings
from jobs.storage.storage import Storage
from jobs.templates import Templates
from jobs.webhook.endpoints import Endpoint, Event, open_endpoints, open_events
from jobs.webhook.health import Health
from jobs.webhook.settings import WebhookSettings
from jobs.webhook.transport import HttpClient, open_http


@dataclass(frozen=True, slots=True)
class Wanted:
    """The settings the clients are made of."""

    webhook: WebhookSettings
    email: EmailSettings
    dns: DnsSettings
    push: PushSettings = field(default_factory=PushSettings)
    sms: SmsSettings = field(default_factory=SmsSettings)
    storage: StorageSettings = field(default_factory=StorageSettings)
    storage_folder: Path = Path("var/storage")
    monitor: MonitorSettings = field(default_factory=MonitorSettings)


@dataclass(slots=True)
class Clients:
    """`jobs.context.Tools`, open.  Close it when the last attempt that uses it has ended."""

    wanted: Wanted
    db: asyncpg.Pool
    http: HttpClient
    mail: Mail
    dns: Resolver
    secrets: Secrets
    templates: Templates
    email_templates: Loads[TemplateKey, Template]
    suppressions: Loads[SuppressionKey, Suppression]
    endpoints: Loads[int, Endpoint]
    events: Loads[int, Event]
    health: Health
    turns: Turns
    push: Push
    sms: Sms
    storage: Storage
    monitor: Prober

    @property
    def webhook(self) -> WebhookSettings:
        return self.wanted.webhook

    async def close(self, *, kept_by: Clients | None = None) -> None:
        """Close what `kept_by` does not go on using; the pool belongs to the daemon."""
        if kept_by is None or self.http is not kept_by.http:
            await self.http.aclose()
        if kept_by is None or self.mail is not kept_by.mail:
            await self.mail.close()
        if kept_by is None or self.dns is not kept_by.dns:
            await self.dns.close()
        if kept_by is None or self.templates is not kept_by.templates:
            await self.templates.close()
        if kept_by is None or self.monitor is not kept_by.monitor:
            self.monitor.close()
        if kept_by is None:
            self.email_templates.close()
            self.suppressions.close()
            self.endpoints.close()
            self.events.close()


def open_clients(
    wanted: Wanted,
    db: asyncpg.Pool,
    secrets: Secrets,
    before: Clients | None = None,
    *,
    reads: asyncpg.Pool | None = None,
) -> Clients:
    """Clients for these settings; those whose settings are as they were `before` are kept, with their connections.
    `reads`: connections for what attempts look up, which leaves nothing behind in a session; else those of `db`.

    Whatever cannot be opened raises here, before anything is replaced.
    """
    email_templates = before.email_templates if before else open_templates(reads or db)
    suppressions = before.suppressions if before else open_suppressions(reads or db)
    endpoints = before.endpoints if before else open_endpoints(reads or db)
    events = before.events if before else open_events(reads or db)
    health = before.health if before else Health()
    turns = before.turns if before else Turns()
    if before is not None and before.secrets is not secrets:
        before = None
    http = before.http if before and before.wanted.webhook == wanted.webhook else open_http(wanted.webhook)
    mail = before.mail if before and before.wanted.email == wanted.email else Mail(wanted.email, secrets, turns)
    dns = before.dns if before and before.wanted.dns == wanted.dns else Resolver(wanted.dns)
    templates = before.templates if before else Templates()
    push = before.push if before and before.wanted.push == wanted.push else Push(wanted.push, secrets)
    fits = before is not None and before.monitor.fits(wanted.monitor, wanted.dns)
    monitor = before.monitor if before and fits else Prober(wanted.monitor, wanted.dns)
    return Clients(
        wanted,
        db,
        http,
        mail,
        dns,
        secrets,
        templates,
        email_templates,
        suppressions,
        endpoints,
        events,
        health,
        turns,
        push,
        Sms(wanted.sms, secrets),
        Storage(wanted.storage, wanted.storage_folder, secrets),
        monitor,
    )
