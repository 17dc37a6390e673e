"""What log lines say of a job and of an error."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from daemon.lines import redact
from daemon.log import Logger
from jobs.model import Job

MESSAGE_MAX = 1000
TRACE_MAX = 8000
"""Characters; of a trace the end is kept, where the cause is."""

_RAISED = re.compile(r"^([A-Za-z_][\w.]*)(?::|$)", re.MULTILINE)
_TRACEBACK = "Traceback (most recent call last):\n"
_LINE = frozenset({"ts", "level", "event"})


def job_fields(job: Job) -> dict[str, Any]:
    """Which row and attempt, and on whose behalf; never its args."""
    fields: dict[str, Any] = {
        "job_id": job.id,
        "job_type": job.kind,
        "queue": job.queue,
        "attempt": job.attempt,
    }
    if job.org_id is not None:
        fields["organization_id"] = job.org_id
    if job.project_id is not None:
        fields["project_id"] = job.project_id
    if job.actor_id is not None:
        fields["actor_id"] = job.actor_id
    if job.correlation_id is not None:
        fields["correlation_id"] = job.correlation_id
    if job.traceparent is not None:
        fields["trace_id"] = job.traceparent[3:35]  # W3C Trace Context § 3.2: version-traceid-parentid-flags
    return fields


def is_nobodys(job: Job) -> bool:
    """Whether there is nothing to say of on whose behalf it runs."""
    return (
        job.org_id is None
        and job.correlation_id is None
        and job.traceparent is None
        and job.actor_id is None
        and job.project_id is None
    )


def fault(error: BaseException | str) -> dict[str, str]:
    """`class`, `message` and `trace` of an exception; the message alone of a text."""
    if isinstance(error, str):
        return {"message": error[:MESSAGE_MAX]}
    try:
        message = str(error)
    except Exception:  # a stranger's __str__ may raise anything
        message = ""
    fields = {"class": type(error).__qualname__, "message": message[:MESSAGE_MAX]}
    if error.__traceback__ is not None:
        fields["trace"] = "".join(traceback.format_exception(error))[-TRACE_MAX:]
    return fields


def attempt_fault(code: str | None, reason: str | None, trace: str | None) -> dict[str, str]:
    """The same of a failed attempt.  Without a trace the code stands in for the class."""
    fields = {"class": _raised(trace) or code or "failed", "message": (reason or "")[:MESSAGE_MAX]}
    if trace:
        fields["trace"] = trace[-TRACE_MAX:]
    return fields


def _raised(trace: str | None) -> str | None:
    """The exception's name in the text of a traceback: the first line at the margin after the last frames."""
    if not trace:
        return None
    found = _RAISED.search(trace.rpartition(_TRACEBACK)[2])
    return found[1] if found else None


Keep = Callable[[Job, str, str, Mapping[str, Any]], None]
"""Keeps a line of a job: its level, event and fields."""


class JobLog:
    """The `ctx.log` of one attempt: the handler's own events and fields, with the job's added."""

    __slots__ = ("_job", "_keep", "_log")

    def __init__(self, log: Logger, job: Job, keep: Keep | None = None) -> None:
        self._log = log
        self._job = job
        self._keep = keep

    def __call__(self, event: str, **fields: Any) -> None:
        self._emit("info", event, fields)

    def debug(self, event: str, **fields: Any) -> None:
        self._emit("debug", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        self._emit("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._emit("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self._emit("error", event, fields)

    def _emit(self, level: str, event: str, fields: dict[str, Any]) -> None:
        kept = self._keep is not None and (level != "debug" or self._log.writes(level))
        if not kept and not self._log.writes(level):
            return
        fields = redact(fields)
        if kept and self._keep is not None:
            self._keep(self._job, level, event, fields)
        if not self._log.writes(level):
            return
        if not _LINE.isdisjoint(fields):  # ts and level belong to the line
            fields = {f"{name}_" if name in _LINE else name: value for name, value in fields.items()}
        self._log.emit(level, event, {**fields, **job_fields(self._job)})
