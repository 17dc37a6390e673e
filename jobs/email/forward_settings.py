"""What the operator decides about mail that is forwarded."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.email.address import wire_domain
from jobs.values import Duration, Secret, Size, duration, key


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardSettings:
    """The `[email.forward]` section."""

    domain: str | None = key(
        None, "Domain of ours that rewritten senders (SRS) are of, and that bounces come back to; none: forwards wait."
    )
    srs_secrets: tuple[Secret, ...] = key(
        (), "Signs rewritten senders, or secret://NAME; the first signs, those behind it are still good."
    )
    ages: tuple[Duration, ...] = key(
        (duration("1h"), duration("6h"), duration("24h"), duration("48h")),
        "When a forward is tried again, counted from its first failure; the last is the end.",
    )
    greylist_ages: tuple[Duration, ...] = key(
        (duration("5m"), duration("15m")), "Further tries of one that was greylisted, counted likewise."
    )
    max_received: int = key(30, "With more Received headers than this it goes in circles.", minimum=1, maximum=1000)
    memory: Size = key(Size(256 * 1024**2), "Bytes of forwarded messages that a daemon holds at once.", minimum=1024)

    def __post_init__(self) -> None:
        try:
            if self.domain is not None:
                wire_domain(self.domain)
        except ValueError as error:
            raise ValueError(f"domain: {error}") from None
        if any(not secret for secret in self.srs_secrets):
            raise ValueError("srs_secrets: one of them is empty")
        for name, ages in (("ages", self.ages), ("greylist_ages", self.greylist_ages)):
            if any(age <= 0 for age in ages) or list(ages) != sorted(set(ages)):
                raise ValueError(f"{name}: write ages that grow, like 1h, 6h, 24h")
        if not self.ages:
            raise ValueError("ages: there must be one")
