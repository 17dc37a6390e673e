"""What a row and its outcome come to, before and after the handler is called.  Pure, but for the jitter's dice."""

from __future__ import annotations

import random
from typing import Any

from daemon.replies import DONE
from daemon.rules import Rules
from daemon.settle import Transition, hand_back, settle
from daemon.texts import json_text, plain
from jobs.context import Context
from jobs.model import Dead, Job, Outcome
from jobs.registry import Kind

RESULT_MAX = 65_536
"""Bytes of JSON that a handler may return; what is larger belongs elsewhere."""


def decode(kind: Kind, job: Job) -> tuple[Outcome | None, Any]:
    """The args as the kind's type; Dead when they do not fit or are no JSON that any parser here reads."""
    try:
        args = kind.decode(job.args_json)
        if job.lane is None and kind.lane is not None:
            job.lane = kind.lane(args)
    except Exception as error:  # the kind's type and its lane are strangers' code, on strangers' data
        return Dead(f"args: {plain(error)}", code="invalid_args"), None
    return None, args


def transition(
    job: Job, rules: Rules, context: Context | None, outcome: Outcome | None, trace: str | None
) -> Transition:
    """What is written of an attempt."""
    if outcome is DONE:
        t = Transition(job, "done", "done", keep=rules.keep_done)
    elif outcome is None:
        t = hand_back(job)
    else:
        most = job.max_attempts or rules.policy.max_attempts
        t = settle(job, outcome, rules.policy, most, random.random())  # noqa: S311  jitter
        t.trace = trace
        t.keep = rules.keep_done if t.state == "done" else rules.keep_dead
    if context is not None and context.records:
        t.records = context.records
    if t.result is not None:
        t = _bounded(t, rules)
    return t


def _bounded(t: Transition, rules: Rules) -> Transition:
    """The same with its result as it is stored; dead when that is too large: another attempt would return the same."""
    t.result_json = json_text(t.result)
    if (size := len(t.result_json.encode())) <= RESULT_MAX:
        return t
    says = f"its result has {size} bytes of JSON; {RESULT_MAX} are allowed: store it elsewhere and return where"
    return Transition(
        t.job, "dead", "dead", says, "result_too_large", failed=True, keep=rules.keep_dead, records=t.records
    )
