"""What a provider's answer means: its own code first, then the status.  Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from jobs.model import Dead, Done, Failure, Retry, Snooze
from jobs.notification import Verdict
from jobs.sms.settings import ProviderSettings
from jobs.webhook.retry_after import retry_after_s

_OURS = frozenset([401, 402, 403, 404, 405, 407])
"""Login, balance, rights, and an address that the operator wrote: it will be the same for every message."""

_AGAIN = frozenset([408, 425])
_LOST = frozenset([502, 504])
"""Said by whoever stands before the provider, and does not know what became of the request."""


class Said(msgspec.Struct, frozen=True):
    """What stands in an answer, where the settings say it does."""

    message_id: str | None
    code: str | None


def read(provider: ProviderSettings, body: bytes) -> Said:
    """Nothing where it is no JSON, or has another shape."""
    if provider.id_path is None and provider.code_path is None:
        return Said(None, None)
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return Said(None, None)
    return Said(_at(answer, provider.id_path), _at(answer, provider.code_path))


def judge(
    provider: ProviderSettings, status: int, headers: Mapping[str, str], said: Said, longest_s: float, now: datetime
) -> Verdict:
    """`longest_s`: the longest wait a provider may ask for."""
    http = f"http_{status}"
    well = 200 <= status <= 299
    if well and (said.code in provider.ok or (said.code is None and not provider.ok)):
        return Verdict("delivered", http, Done({"status": status, "message_id": said.message_id}))
    code = http if said.code is None else f"provider_{said.code}"
    names = {http} if said.code is None else {http, said.code}
    if well and said.code is None:
        return doubtful(provider, "no_code", "the provider's answer does not say whether it took the message")
    after_s = retry_after_s(headers.get("retry-after"), now, longest_s)
    reason = f"the provider answered {status}" + ("" if said.code is None else f", code {said.code}")
    detail = {"status": status, "code": said.code}
    if names & {*provider.hard}:
        return Verdict("hard", code, Dead(reason, code=code, detail=detail, lane_fault=False))
    if names & {*provider.soft}:
        return Verdict("soft", code, Retry(reason, after=after_s, code=code, detail=detail, lane_fault=False))
    if names & {*provider.deferred} or status in _OURS or status == 429 or 300 <= status <= 399:
        wait_s = after_s or provider.deferred_for
        held = Snooze(reason, after=wait_s, code=code, detail=detail, lane_fault=True, lane_after=wait_s)
        return Verdict("deferred", code, held)
    if status in _LOST:
        return doubtful(provider, http, reason)
    if well or status >= 500 or status in _AGAIN:
        again = Retry(
            reason,
            after=after_s,
            code=code,
            detail=detail,
            lane_fault=status >= 500,
            lane_after=after_s if status == 503 else None,
        )
        return Verdict("soft", code, again)
    return Verdict("hard", code, Dead(reason, code=code, detail=detail, lane_fault=False))


def doubtful(provider: ProviderSettings, code: str, reason: str, *, fault: bool | None = True) -> Verdict:
    """It may have been sent.  A provider that does not know a message again would send it twice, so that is left to the
    operator.  `fault`: the provider's."""
    if provider.may_repeat:
        return Verdict("unknown", code, Retry(reason, code=code, lane_fault=fault))
    reason += "; it may have been sent, and is not sent again"
    return Verdict("unknown", code, Dead(reason, code="unknown", detail={"cause": code}, lane_fault=fault))


def unanswered(provider: ProviderSettings, verdict: Verdict) -> Verdict:
    """`verdict` of a request that no answer came to."""
    said = verdict.outcome
    if verdict.result != "unknown" or not isinstance(said, Failure):
        return verdict
    return doubtful(provider, verdict.code, said.reason, fault=said.lane_fault)


def _at(value: Any, path: str | None) -> str | None:
    """The text or number there."""
    if path is None:
        return None
    for name in path.split("."):
        match value:
            case dict():
                value = value.get(name)
            case list():
                value = value[int(name)] if name.isascii() and name.isdigit() and int(name) < len(value) else None
            case _:
                return None
    is_plain = isinstance(value, str | int) and not isinstance(value, bool)
    return str(value)[:64] if is_plain and value != "" else None
