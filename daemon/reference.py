"""The pages docs/metrics.md and docs/logs.md, written from the code: `python -m daemon.reference`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from daemon.events import EVENTS, FIELDS, LEVELS, Event
from daemon.metrics import LABELS, Metrics

DOCS = Path(__file__).parent.parent / "docs"

_METRICS = """# Metrics

`GET /metrics` on `admin.listen` answers in Prometheus' text format, or in OpenMetrics where the scraper asks for it.
All times are in seconds, all sizes in bytes. Queues and kinds come out of rows, so at most 500 of each have series of
their own; the rest are counted together as `other`.

The gauges of the table (`jobsd_ready`, `jobsd_scheduled`, `jobsd_running`, `jobsd_dead`, `jobsd_parked`,
`jobsd_oldest_ready_age_seconds`) speak of the whole database, not of one daemon: a timer samples them, never a scrape,
and `jobsd_sample_timestamp_seconds` says when. Over several daemons take `max by (queue)` of them, and `sum` of
everything else.

"""

_LOGS = """# Log lines

One line is one JSON object: `ts`, `level`, `event`, then the event's fields. A field without a value is left out. With
`log.format = "text"` the same is written for people. On the journal each line has its priority in front, as
sd-daemon(3) has it.

Lines are written by a thread of their own. When whoever reads them is too slow, lines are lost rather than work held
up: `log_lines_dropped` and `jobsd_log_lines_dropped_total` say how many. A line is at most 48 KiB; of a longer one the
beginning is kept, with `truncated`.

The args of a job are never logged. Secrets, the passwords in addresses (`postgresql://user:***@host`) and fields called
`password`, `secret`, `api_key` or `authorization` are written as `***`.

Handlers write lines of their own through `ctx.log`; these have the fields of `job_started` added. Whatever libraries
warn of comes as `library`.

"""


def metrics_page() -> str:
    rows = ((f"`{spec.name}`", spec.type, _words(spec.labels), spec.doc) for spec in Metrics().specs)
    return (
        _METRICS
        + _table(("metric", "type", "labels", "meaning"), rows)
        + "\n## Labels\n\n"
        + _table(("label", "values"), ((f"`{name}`", doc) for name, doc in LABELS.items()))
    )


def logs_page() -> str:
    return (
        _LOGS
        + "".join(map(_level, sorted(LEVELS, key=LEVELS.__getitem__, reverse=True)))
        + "## Fields\n\n"
        + _fields(FIELDS)
    )


def _level(level: str) -> str:
    found = [event for event in EVENTS.values() if event.level == level]
    return f"## {level.capitalize()}\n\n" + _table(("event", "meaning", "fields"), map(_event, found)) + "\n"


def _event(event: Event) -> tuple[str, ...]:
    return (f"`{event.name}`", event.doc, _words(event.fields))


def _fields(fields: Mapping[str, str]) -> str:
    return _table(("field", "meaning"), ((f"`{name}`", doc) for name, doc in fields.items()))


def _words(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


PAGES: Mapping[str, Callable[[], str]] = {"metrics.md": metrics_page, "logs.md": logs_page}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page())
