"""What the operator decides about monitors: what may be connected to, and who is told."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

from jobs.email.address import mailbox
from jobs.values import Duration, duration, key


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorSettings:
    """The `[monitor]` section."""

    allow_addresses: tuple[str, ...] = key(
        (), "Networks (CIDR) that may be looked at although they are not public, such as your own."
    )
    tell: tuple[str, ...] = key((), "Who is written to of every monitor that names nobody itself.")
    dns_timeout: Duration = key(duration("3s"), "Longest wait for a host name's addresses.", minimum=0.05, maximum=60)
    ca_file: Path | None = key(None, "A PEM file of certificate authorities that are believed besides the system's.")
    user_agent: str = key("jobsd-monitor", "The User-Agent of its web requests.")

    def __post_init__(self) -> None:
        for text in self.allow_addresses:
            try:
                ip_network(text)
            except ValueError as error:
                raise ValueError(f"allow_addresses: {error}") from None
        for address in self.tell:
            try:
                mailbox(address)
            except ValueError as error:
                raise ValueError(f"tell: {error}") from None
        if not (self.user_agent.isascii() and self.user_agent.isprintable() and self.user_agent.strip()):
            raise ValueError("user_agent: must be visible ASCII characters and single spaces")
