"""What a row comes to, given what came of each of its recipients.  Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from jobs.email.judge import UNSUBSCRIBED, Verdict
from jobs.model import Dead, Done, Outcome, Retry, Snooze, spread

_DEFERRED_S = 30.0
_OURS = ("relay_rate", "relay_busy", "stopped")
"""We are at a limit of our own, or about to end; the relay knows nothing of it."""

_GREYLIST_S = (300.0, 900.0)
"""Before attempts 2 and 3 after greylisting: Postfix's first retry is after 5 min too, and 15 suffice nearly always."""


def decide(
    verdicts: Mapping[str, Verdict], *, attempt: int, after_s: float, asked_before: Collection[str], dice: float
) -> Outcome:
    """What the row comes to, given the verdict of every recipient, those of earlier attempts included.

    `after_s`: how long the relay is to be left alone, and none of its rows claimed.  A relay that took its rows or
    refused them for their own sake is well.  `asked_before`: recipients whose hand-over once before ended
    without an answer; a second time is the last.  `dice` in [0, 1) spreads those that wait for the same relay.
    """
    detail = {"recipients": {r: v.code for r, v in verdicts.items()}}
    of = {
        kind: [r for r, v in verdicts.items() if v.result == kind] for kind in ("soft", "hard", "unknown", "deferred")
    }
    doubtful = [r for r in of["unknown"] if r not in asked_before]
    if doubtful:
        reason = _reason("the relay took the message and never answered", doubtful, verdicts)
        detail["possible_duplicate"] = {r: verdicts[r].code for r in doubtful}
        return Retry(reason, code="unknown_after_dot", detail=detail)
    if of["deferred"]:
        asked_s = max(_wait_s(verdicts, of["deferred"]), after_s)
        reason = _reason("the relay does not take mail now", of["deferred"], verdicts)
        code = verdicts[of["deferred"][0]].code
        return Snooze(
            reason,
            after=spread((asked_s or _DEFERRED_S) * 1.1, 0.1 / 1.1, dice),
            code=code,
            lane_fault=None if code in _OURS else True,
            lane_after=None if code in _OURS or not asked_s else asked_s,
            lane_cause="quota" if code == "relay_quota" else "retry_after",
        )
    if of["soft"]:
        code = verdicts[of["soft"][0]].code
        grey = code == "greylisted" and attempt <= len(_GREYLIST_S)
        reason = _reason("not taken now", of["soft"], verdicts)
        well = None if code.startswith("connection_") else False
        after = _GREYLIST_S[attempt - 1] if grey else None
        return Retry(reason, after=after, code=code, detail=detail, lane_fault=well)
    if lost := of["hard"] + of["unknown"]:
        reason = _reason("not delivered", lost, verdicts)
        well = None if of["unknown"] else False
        return Dead(reason, code=verdicts[lost[0]].code, detail=detail, result=detail, lane_fault=well)
    if left_out := _left_out(verdicts):
        reason = _reason("not written to", left_out, verdicts)
        return Dead(reason, code="suppressed", detail=detail, result=detail)
    return Done(detail)


def _left_out(verdicts: Mapping[str, Verdict]) -> list[str]:
    """Where nobody was served: a dead letter, so that it can be tried again when the suppression is lifted.  Those who
    asked for no more mail are none: that is how it should be."""
    if any(v.result == "delivered" for v in verdicts.values()):
        return []
    return [r for r, v in verdicts.items() if v.result == "suppressed" and v.code != UNSUBSCRIBED]


def _wait_s(verdicts: Mapping[str, Verdict], recipients: Collection[str]) -> float:
    return max(verdicts[r].after_s for r in recipients)


def _reason(what: str, recipients: Collection[str], verdicts: Mapping[str, Verdict]) -> str:
    """For people: what, for how many, and the first one's own words."""
    first = next(iter(recipients))
    whom = "" if len(verdicts) == 1 else f" ({len(recipients)} of {len(verdicts)} recipients)"
    return f"{what}{whom}: {verdicts[first].why or verdicts[first].code}"
