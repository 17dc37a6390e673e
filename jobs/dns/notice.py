"""What the owner of a domain is told: an event, and an e-mail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from jobs.dns.policy import DomainPolicy
from jobs.dns.state import Notice, State, Step

_SUBJECTS: Mapping[Notice, str] = {
    "verified": "{domain} is verified",
    "degraded": "{domain}: its DNS records need a look",
    "failed": "{domain} is no longer verified",
    "expired": "{domain} was not verified",
}
_BACK = "{domain} is well again"


@dataclass(frozen=True, slots=True)
class About:
    """A step that its owner is told of.  `publish`: what should be there, as registered.to_publish has it."""

    domain: str
    org_id: str | None
    state_before: State
    step: Step
    conclusion: str
    publish: Sequence[Mapping[str, str]]

    @property
    def notice(self) -> Notice:
        return self.step.notice or "verified"

    @property
    def is_back(self) -> bool:
        """It was verified before; one that had expired, or is pending, may never have been."""
        memory = self.step.memory
        return self.notice == "verified" and memory.verified_at is not None and memory.verified_at < memory.since


def event(about: About, policy: DomainPolicy) -> dict[str, Any]:
    """The payload of domain.verified, .degraded, .failed or .expired."""
    return {
        "domain": about.domain,
        "org_id": about.org_id,
        "state": about.step.memory.state,
        "state_before": about.state_before,
        "reason": about.conclusion,
        "publish": list(about.publish),
        "fails_at": fails_at(about, policy),
        "next_check_at": _time(about.step.next_check_at),
        "page": page(about.domain, policy),
    }


def mail(about: About, contact: str, policy: DomainPolicy) -> dict[str, Any]:
    """Args of kind `email`: by the template of the settings, or in our words."""
    if policy.template:
        data = {"notice": about.notice, "is_back": about.is_back, **event(about, policy)}
        return {"to": contact, "template": policy.template, "data": data}
    subject = (_BACK if about.is_back else _SUBJECTS[about.notice]).format(domain=about.domain)
    parts = [_says(about, policy)]
    if about.notice != "verified":
        records = [f"  {one['name']}  {one['type']}  {one['value']}" for one in about.publish]
        parts += [f"What we see: {about.conclusion}", "\n".join(["What should be there:", "", *records])]
    parts += [where] if (where := page(about.domain, policy)) else []
    return {"to": contact, "subject": subject, "text": "\n\n".join(parts) + "\n"}


def page(domain: str, policy: DomainPolicy) -> str:
    return policy.page.replace("{domain}", domain)


def fails_at(about: About, policy: DomainPolicy) -> str | None:
    """When a domain in trouble will no longer be verified, if nothing changes."""
    at = about.step.memory.noticed_at
    if about.notice != "degraded" or at is None:
        return None
    return _time(at + timedelta(seconds=max(policy.fail_after - about.step.memory.mismatch_s, 0.0)))


def _says(about: About, policy: DomainPolicy) -> str:
    domain = about.domain
    match about.notice:
        case "verified" if about.is_back:
            return f"The records of {domain} are as they should be again. There is nothing left to do."
        case "verified":
            return (
                f"The records of {domain} are as they should be. Please leave them in place: we look again every day, "
                "and tell you when something is amiss."
            )
        case "degraded":
            return (
                f"The name servers of {domain} do not have what they should. If that stays so, the domain will no "
                f"longer be verified from about {fails_at(about, policy)}. Once the records are right, nothing else is "
                "to be done."
            )
        case "failed":
            return (
                f"The name servers of {domain} have not had what they should for days, so the domain is no longer "
                "verified. Once the records are right it will be again, by itself, within a day or so."
            )
        case "expired":
            return (
                f"We have looked for the records of {domain} for a long time, and look no more. Once they are there, "
                "ask for a check."
            )


def _time(at: Any) -> str | None:
    return None if at is None else at.strftime("%Y-%m-%dT%H:%M:%SZ")
