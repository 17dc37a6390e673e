"""Whether a relay is well, as one process sees it: when it is left alone, and what an operator is told."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.email.judge import Verdict, judge
from jobs.email.reply import Alert, Answer

LOGIN_REST_S = 300.0
"""After a refused login: wrong passwords lock accounts."""

_TROUBLE = frozenset(
    ("relay_connect", "relay_tls", "relay_hello", "relay_auth", "relay_closing", "relay_lost", "relay_timeout",
     "relay_garbled", "relay_quota")
)  # fmt: skip
"""It cannot be reached, closes its door, refuses the login or has no quota left."""

_ALERTS = ("relay_auth", "relay_tls", "relay_quota")
"""What no waiting mends, or not soon: somebody has to look."""


def passes_on(answer: Answer) -> bool:
    """Whether another relay may be offered what this one did not take: the trouble is the relay's own, and it was not
    given the message."""
    if answer.phase == "queue":
        return answer.fault == "resting"
    return answer.phase != "final" and judge(answer).code in _TROUBLE


class Rest:
    """A relay that failed is left alone for 10 s, then 20 s, and so on up to 5 min; or for as long as it takes."""

    FIRST_S = 10.0
    LONGEST_S = 300.0

    def __init__(self) -> None:
        self._until = float("-inf")
        self._next_s = self.FIRST_S

    def left_s(self, now: float) -> float:
        return max(0.0, self._until - now)

    def failed(self, now: float, *, at_least_s: float = 0.0) -> None:
        """What fails while it rests was under way when it began, and tells nothing new."""
        if now < self._until:
            return
        self._until = now + max(self._next_s, at_least_s)
        self._next_s = min(self._next_s * 2, self.LONGEST_S)

    def worked(self) -> None:
        self._next_s = self.FIRST_S
        self._until = float("-inf")


class Health:
    """`name` is the relay's."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._rest = Rest()
        self._is_ill = False
        self._probed_until = float("-inf")
        self._off: str | None = None
        self._alerts: list[Alert] = []

    def left_s(self, now: float, *, spare_s: float = 0.0) -> float:
        """How long it is to be left alone.  `spare_s`, where another relay can do its work: after its rest one message
        tries it, and has so long for that; the others pass it by meanwhile."""
        if left_s := self._rest.left_s(now):
            return left_s
        if not (self._is_ill and spare_s):
            return 0.0
        if now < self._probed_until:
            return self._probed_until - now
        self._probed_until = now + spare_s
        return 0.0

    def note(self, answers: Sequence[Answer], now: float) -> None:
        """What it has just answered.  Any reply about a message shows that it is well."""
        if not self._is_ill and all(_is_taken(answer) for answer in answers):
            return
        verdicts = [judge(answer) for answer in answers if answer.phase != "queue"]
        trouble = [verdict for verdict in verdicts if verdict.code in _TROUBLE]
        if trouble:
            self._failed(trouble[0], now)
        elif any(answer.reply for answer in answers):
            self._worked()

    def alerts(self) -> Sequence[Alert]:
        """What an operator is to be told: each once."""
        told, self._alerts = tuple(self._alerts), []
        return told

    def _failed(self, verdict: Verdict, now: float) -> None:
        login = verdict.code == "relay_auth" and verdict.result == "deferred" and not verdict.why.startswith("4")
        self._rest.failed(now, at_least_s=LOGIN_REST_S if login else verdict.after_s)
        self._is_ill = True
        self._probed_until = float("-inf")
        if verdict.code in _ALERTS and self._off != verdict.code:
            self._off = verdict.code
            self._alerts.append(Alert(self._name, True, verdict.code, verdict.why))

    def _worked(self) -> None:
        if self._is_ill:
            self._is_ill = False
            self._rest.worked()
        if self._off is not None:
            self._alerts.append(Alert(self._name, False, self._off))
            self._off = None


def _is_taken(answer: Answer) -> bool:
    return answer.phase == "final" and answer.reply is not None and answer.reply.code == 250
