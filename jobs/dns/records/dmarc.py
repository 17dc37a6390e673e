"""DMARC: the policy that receivers will apply is at least the one required (RFC 9989)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from jobs.dns.answer import Answer
from jobs.dns.records import tags, text
from jobs.dns.verdict import Ask, Judged, match, mismatch, missing, unknown

POLICIES = ("none", "quarantine", "reject")
PREFIX = "_dmarc."
LABELS_AFTER_JUMP = 7
"""The walk asks for the domain itself, then for what its last seven labels name, and so on up: eight questions at most
(RFC 9989, 4.10)."""

_REPORTS = re.compile(r"\s*[a-z][a-z0-9+.-]*:[^,\s]+", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The one DMARC record of `domain`."""

    domain: str
    text: str
    tags: Mapping[str, str]

    @property
    def psd(self) -> str:
        return self.tags.get("psd", "u").lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """What the walk up from a domain met: its records from the longest name to the shortest, and where several records
    of one name have made each other void.  `failed`: the reason why a name could not be asked for."""

    records: tuple[Record, ...]
    several: tuple[str, ...]
    failed: str = ""


def normal(value: str) -> str:
    """ "p=reject" of "reject", "p=reject" or a whole record."""
    policy = tags.lenient(value).get("p", value.strip()).lower()
    if policy not in POLICIES:
        raise ValueError(f'{value[:80]!r} is no policy; write "none", "quarantine" or "reject"')
    return f"p={policy}"


async def judge(name: str, value: str, answer: Answer, ask: Ask) -> Judged:
    """Reasons: several_records (they count as none), no_record, invalid_policy, testing (t=y), weak_policy.

    Facts: at, the domain whose record counts; tag, the tag the policy was taken from; policy; walked, how many names
    were asked for.
    """
    author = name.removeprefix(PREFIX)
    if answer.outcome == "error":
        return unknown(answer.reason)
    walk = await _walk(author, answer, ask)
    if walk.failed:
        return unknown(walk.failed)
    if not walk.records:
        return _none(answer, walk)
    record = _applied(author, walk.records)
    if record is None:
        return _none(answer, walk)
    judged = await _judge_record(author, value.removeprefix("p="), record, ask)
    several = [f"several DMARC records at _dmarc.{domain} count as none" for domain in walk.several]
    return replace(judged, found=(record.text,), notes=(*judged.notes, *several))


async def _walk(author: str, answer: Answer, ask: Ask) -> Walk:
    """The domain's own record ends it, for then no other matters; so does one that says psd=y or psd=n."""
    records: list[Record] = []
    several: list[str] = []
    for domain in targets(author):
        if domain != author:
            answer = await ask(PREFIX + domain, "TXT")
        if answer.outcome == "error":
            return Walk(records=(), several=(), failed=answer.reason)
        found = [value for value in answer.values if is_record(value)]
        if len(found) > 1:
            several.append(domain)
        if len(found) == 1:
            record = Record(domain=domain, text=found[0], tags=tags.lenient(found[0]))
            records.append(record)
            if domain == author or record.psd in ("y", "n"):
                break
    return Walk(records=tuple(records), several=tuple(several))


def targets(author: str) -> list[str]:
    """The domains a walk up from `author` asks for, at most eight."""
    labels = author.split(".")
    rest = labels[1:] if len(labels) <= LABELS_AFTER_JUMP else labels[-LABELS_AFTER_JUMP:]
    return [author, *(".".join(rest[level:]) for level in range(len(rest)))]


def is_record(value: str) -> bool:
    """The tag v must be the first and say DMARC1 in just these letters."""
    version, equals, number = value.partition(";")[0].partition("=")
    return bool(equals) and version.strip() == "v" and number.strip() == "DMARC1"


def _applied(author: str, records: tuple[Record, ...]) -> Record | None:
    """The domain's own record, else its organisation's, else that of the public suffix above it (4.10.1, 4.10.2)."""
    by_domain = {record.domain: record for record in records}
    if author in by_domain:
        return by_domain[author]
    last = records[-1]
    if last.psd != "y":
        return last
    below = author.split(".")[-len(last.domain.split(".")) - 1 :]
    return by_domain.get(".".join(below), last)


async def _judge_record(author: str, required: str, record: Record, ask: Ask) -> Judged:
    policies = {tag: _policy(record, tag) for tag in _tags_for(author, record)}
    if "" in policies.values():
        return mismatch("invalid_policy", at=record.domain)
    tag = await _tag(author, policies, ask)
    if tag not in policies:
        return unknown(tag, at=record.domain)
    policy = policies[tag]
    facts = {"at": record.domain, "tag": tag, "policy": policy}
    if POLICIES.index(policy) < POLICIES.index(required):
        return mismatch("weak_policy", _notes(record), **facts)
    if required != "none" and record.tags.get("t", "n").lower() == "y":
        return mismatch("testing", _notes(record), **facts)
    return match(_notes(record), **facts)


def _tags_for(author: str, record: Record) -> list[str]:
    """p= is for the domain itself, sp= for those below it, and np= for those below it that do not exist."""
    below = [tag for tag in ("np", "sp") if tag in record.tags]
    return ["p"] if author == record.domain else [*below, "p"]


def _policy(record: Record, tag: str) -> str:
    """A record without p= means none.  What is no policy means none too if reports are asked for, else the record is
    void (4.10.1): empty."""
    policy = record.tags.get(tag, "none").lower()
    if policy in POLICIES:
        return policy
    return "none" if _REPORTS.match(record.tags.get("rua", "")) else ""


async def _tag(author: str, policies: Mapping[str, str], ask: Ask) -> str:
    """The tag that counts; or, where that depends on whether `author` exists and nobody can tell, why not."""
    existing = "sp" if "sp" in policies else "p"
    if policies.get("np", policies[existing]) == policies[existing]:
        return existing
    exists = await ask(author, "A")
    if exists.outcome == "error":
        return exists.reason
    return "np" if exists.outcome == "nxdomain" else existing


def _notes(record: Record) -> list[str]:
    notes = []
    if record.tags.get("t", "n").lower() == "y":
        notes.append("t=y asks receivers not to apply the policy yet")
    if (percent := record.tags.get("pct", "100")) != "100":
        notes.append(f"pct={percent[:10]} is no longer part of DMARC; receivers that still heed it apply less")
    if "p" not in record.tags:
        notes.append("p= is missing, which counts as p=none; older receivers take the record for void")
    return notes


def _none(answer: Answer, walk: Walk) -> Judged:
    if walk.several:
        return mismatch("several_records", at=walk.several[0])
    if any(is_record(text.unquoted(value)) and not is_record(value) for value in answer.values):
        return mismatch("quoted")
    return missing(answer)
