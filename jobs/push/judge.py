"""What a push service's answer means: a pure function of the status, the headers, and what it said before."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from jobs.model import Dead, Done, Retry, Snooze
from jobs.notification import Verdict, translated
from jobs.webhook.judge import judge_failure

REFUSALS = frozenset([400, 401, 403])
"""Our key, or the subscription's tie to it (RFC 8292, 4.2; services use all three for either)."""

HELD_S = 300.0
"""For so long a service that refuses our key is left alone."""

DOUBT = 3
"""So many subscriptions refused in a row are no longer to blame themselves."""


class Standing:
    """What one service has made of our key so far."""

    __slots__ = ("_refused", "_taken")

    def __init__(self) -> None:
        self._taken = False
        self._refused: set[str] = set()

    def took(self) -> None:
        self._taken = True
        self._refused.clear()

    def refused(self, endpoint: str) -> bool:
        """Whether that is our side's fault.  A service that takes messages under this key refuses one for its
        subscription's sake, most likely made with another key; until it takes any, and when it has refused several,
        the key is to blame."""
        if len(self._refused) < DOUBT:
            self._refused.add(endpoint)
        return not self._taken or len(self._refused) >= DOUBT


def judge(status: int, headers: Mapping[str, str], longest_s: float, now: datetime, *, ours: bool) -> Verdict:
    """`ours`: a refusal is.  `longest_s`: the longest wait a service may ask for."""
    code, detail = f"http_{status}", {"status": status}
    if 200 <= status <= 299:
        return Verdict("delivered", code, Done(detail))
    if status in (404, 410):
        gone = Dead("the subscription is gone", code="gone", detail=detail, result=detail, lane_fault=False)
        return Verdict("hard", "gone", gone)
    if status == 413:
        large = Dead("the push service takes no message so large", code="too_large", detail=detail, lane_fault=False)
        return Verdict("hard", "too_large", large)
    if status in REFUSALS:
        return _refusal(status, ours=ours)
    return translated(judge_failure(status, headers, longest_s, now))


def spent(status: int) -> Verdict:
    """Refused for our key's sake for as long as we are patient."""
    reason = f"the push service has answered {status} for as long as push.refused_for"
    return Verdict("hard", "refused", Dead(reason, code="refused", detail={"status": status}))


def _refusal(status: int, *, ours: bool) -> Verdict:
    detail = {"status": status}
    if not ours:
        reason = f"the push service answered {status} to this subscription, and takes others"
        return Verdict("soft", "refused", Retry(reason, code="refused", detail=detail, lane_fault=False))
    reason = f"the push service answered {status}: it does not take our key"
    held = Snooze(reason, after=HELD_S, code="key_refused", detail=detail, lane_fault=True, lane_after=HELD_S)
    return Verdict("deferred", "key_refused", held)
