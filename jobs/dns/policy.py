"""What the operator decides about registered domains: how often they are looked at, and when their owners are told."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from jobs.values import Duration, duration, key


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainPolicy:
    """The `[dns.domains]` section."""

    first_steps: tuple[Duration, ...] = key(
        tuple(duration(step) for step in ("1m", "2m", "5m", "10m", "30m")),
        "Waits after the first checks of a new domain; then every `step`.",
    )
    step: Duration = key(
        duration("1h"),
        "A new domain is checked so often for `fast_for`; one in trouble until it is well, or failed.",
        minimum=1,
        maximum=86400,
    )
    fast_for: Duration = key(duration("72h"), "Then a new domain is checked once a day.", minimum=0)
    give_up_after: Duration = key(
        duration("30d"), "A domain that is not verified by then expires: nobody looks any more.", minimum=60
    )
    every: Duration = key(
        duration("24h"),
        "A verified domain is checked so often, each at a time of its own.",
        minimum=1,
        maximum=30 * 86400,
    )
    warn_after: Duration = key(
        duration("24h"), "Its name servers have lacked its records for so long: its owner is told.", minimum=0
    )
    fail_after: Duration = key(duration("5d"), "And for so long: it is no longer verified.", minimum=1)
    notice_every: Duration = key(duration("7d"), "At most one warning about a domain in this time.", minimum=0)
    unsure_step: Duration = key(
        duration("5m"), "After a check that could not tell; doubled each time up to `step`.", minimum=1, maximum=86400
    )
    disagree_step: Duration = key(
        duration("10m"), "After name servers disagreed; doubled likewise.", minimum=1, maximum=86400
    )
    check_gap: Duration = key(
        duration("10s"),
        "A second check of a domain within this time is answered by the first.",
        minimum=0,
        maximum=3600,
    )
    per_minute: int = key(
        1000, "Checks that the plan inserts in a minute, over all daemons.", minimum=1, maximum=1_000_000
    )
    on_new_name_servers: Literal["advise", "challenge"] = key(
        "advise",
        "When all name servers of a verified domain are others than before: say so, or also ask for a new token.",
    )
    notify: tuple[str, ...] = key(
        ("webhook", "email"),
        'How owners are told: "webhook": events domain.verified, .degraded, .failed, .expired; "email": to `contact`.',
    )
    page: str = key("", 'Where owners look, "https://example.com/domains/{domain}"; part of every notice.')
    template: str = key("", "The e-mail template of notices, by its name; ours where empty.")

    def __post_init__(self) -> None:
        for name in self.notify:
            if name not in ("webhook", "email"):
                raise ValueError(f'notify: {name!r} is no way to tell anybody; there are "webhook" and "email"')
        if any(step <= 0 for step in self.first_steps):
            raise ValueError("first_steps: a wait is longer than nothing")
        if self.warn_after > self.fail_after:
            raise ValueError("warn_after: a warning must come before the end (fail_after)")
        for field in fields(self):
            low, high, value = field.metadata["minimum"], field.metadata["maximum"], getattr(self, field.name)
            if (low is not None and value < low) or (high is not None and value > high):
                raise ValueError(f"{field.name}: {value} is out of bounds")
