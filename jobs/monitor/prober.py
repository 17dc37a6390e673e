"""Makes one check of whatever kind, within its time."""

from __future__ import annotations

import asyncio
import socket
from datetime import UTC, datetime

from jobs.dns.resolver import Resolver
from jobs.dns.settings import DnsSettings
from jobs.monitor import target as targets
from jobs.monitor.mail import check_mail
from jobs.monitor.reach import Reach
from jobs.monitor.reading import Look, Reading, Unwell, answered, failed
from jobs.monitor.settings import MonitorSettings
from jobs.monitor.target import Target
from jobs.monitor.watch import WatchSettings, statuses
from jobs.monitor.web import check_web
from jobs.monitor.zone import check_zone
from jobs.values import duration_text
from jobs.webhook.names import Lookup


class Prober:
    """`ctx.tools.monitor`.  Open it inside the running loop."""

    def __init__(self, settings: MonitorSettings, dns: DnsSettings, lookup: Lookup | None = None) -> None:
        self.settings = settings
        self._dns = dns
        self._reach = Reach(settings, lookup)

    def fits(self, settings: MonitorSettings, dns: DnsSettings) -> bool:
        """Whether it is what these settings ask for."""
        return self.settings == settings and self._dns == dns

    def close(self) -> None:
        self._reach.close()

    async def check(self, watch: WatchSettings, resolver: Resolver) -> Reading:
        """What one check finds.  It raises nothing: whatever goes wrong is what was found."""
        look = Look(watch.patience)
        try:
            async with asyncio.timeout(watch.patience):
                await self._check(targets.parse(watch.target), watch, look, resolver)
        except Unwell as why:
            return failed(look, why)
        except TimeoutError:
            within = duration_text(watch.patience)
            return failed(look, Unwell("timeout", f"no end within {within}: it waits for {look.doing}"))
        return answered(look, slow_s=watch.slow, expires_s=watch.expires, now=datetime.now(UTC))

    async def _check(self, target: Target, watch: WatchSettings, look: Look, resolver: Resolver) -> None:
        match target.scheme:
            case "https" | "http":
                good = statuses(watch.status)
                agent = self.settings.user_agent
                await check_web(self._reach, target, look, user_agent=agent, statuses=good, contains=watch.contains)
            case "smtp" | "smtps":
                await check_mail(self._reach, target, look, helo=socket.gethostname(), starttls=watch.starttls)
            case "dns":
                await check_zone(self._reach, target, look, resolver=resolver, settings=self._dns, expect=watch.expect)
            case "tls":
                async with self._reach.line(target.host, target.port, look, tls=True):
                    pass
            case "tcp":
                (await self._reach.connect(target.host, target.port, look)).close()
