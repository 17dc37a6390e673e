"""What running jobs say of themselves: how far they are, and log lines; written once a second, and with their end."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from time import time
from typing import Any

import asyncpg

from daemon.endings import whose
from daemon.observe import Observer
from daemon.settle import Transition
from daemon.statements import AWAY
from daemon.store import Store
from daemon.texts import json_text, plain
from jobs.context import Ledger
from jobs.model import Job

EVERY_S = 1.0
"""Between two writes of a daemon about jobs that run."""

PROGRESS_MAX = 4096
EVENT_MAX = 200
FIELDS_MAX = 1024
"""Bytes of JSON of a progress, characters of an event's name, bytes of JSON of a line's fields."""

LINES = Ledger("job_logs")

Line = dict[str, Any]


class Note:
    """What one attempt has said and is not written yet."""

    __slots__ = ("job", "lines", "progress", "said")

    def __init__(self, job: Job, most: int) -> None:
        self.job = job
        self.progress: str | None = None
        self.lines: deque[Line] = deque(maxlen=most)  # the newest
        self.said = 0
        """Lines so far: each has a number, so that a gap shows how many were dropped."""


class Notes:
    """Collects them.  A job that says nothing has no note, and costs nothing."""

    def __init__(self, store: Store, observer: Observer, lines_max: Callable[[], int]) -> None:
        self._store = store
        self._observer = observer
        self._lines_max = lines_max
        self.open: dict[tuple[int, int], Note] = {}
        self._dirty: dict[tuple[int, int], Note] = {}
        self._loop = asyncio.get_running_loop()
        self._writing: asyncio.Task[None] | None = None
        self._next_at = 0.0

    def progress(self, job: Job, value: Mapping[str, Any]) -> None:
        """The last value counts; ValueError when it is larger than anybody should have to read."""
        text = json_text(value)
        if (size := len(text.encode())) > PROGRESS_MAX:
            raise ValueError(f"progress has {size} bytes of JSON; {PROGRESS_MAX} are allowed")
        self._touched(job).progress = text

    def line(self, job: Job, level: str, event: str, fields: Mapping[str, Any]) -> None:
        """A line of the job's log; the oldest goes when there are too many."""
        if not (most := self._lines_max()):
            return
        note = self._touched(job)
        note.said += 1
        again = job.fence > 1 or note.said > most  # may have more lines in the table than it should
        text = _fields_text(fields)
        note.lines.append(
            {
                "fence": job.fence,
                "n": note.said,
                "said_at": time(),
                "level": level,
                "event": plain(event, EVENT_MAX),
                "fields": text,
                "keep": most if again else None,
            }
        )

    def close_with(self, transition: Transition) -> None:
        """The attempt has ended: what it said and is not written goes with its end."""
        note = self.open.pop(_key(transition.job), None)
        if note is None:
            return
        self._dirty.pop(_key(transition.job), None)
        transition.progress = note.progress
        if note.lines:
            transition.records = [*(transition.records or ()), *((LINES, line) for line in note.lines)]

    async def aclose(self) -> None:
        """Write nothing more."""
        if self._writing is not None:
            self._writing.cancel()
            with suppress(asyncio.CancelledError):
                await self._writing

    def _touched(self, job: Job) -> Note:
        note = self.open.get(_key(job))
        if note is None:
            note = self.open[_key(job)] = Note(job, self._lines_max())
        self._dirty[_key(job)] = note
        if self._writing is None:
            self._writing = self._loop.create_task(self._write())  # owned here, until aclose
        return note

    async def _write(self) -> None:
        """Until nothing is left to write."""
        try:
            while self._dirty:
                await asyncio.sleep(max(0.0, self._next_at - self._loop.time()))
                self._next_at = self._loop.time() + EVERY_S
                await self._write_once()
        finally:
            self._writing = None

    async def _write_once(self) -> None:
        """What is on the wire when its attempt ends is not written again: a failure may lose lines, as a crash does."""
        dirty, self._dirty = self._dirty, {}
        taken = [(note, note.progress, list(note.lines)) for note in dirty.values()]
        for note in dirty.values():
            note.progress = None
            note.lines.clear()
        said = [(note.job, progress) for note, progress, _lines in taken if progress is not None]
        lines = [{**line, **whose(note.job)} for note, _progress, lines in taken for line in lines]
        if not said and not lines:
            return
        try:
            await self._store.say(said, lines)
        except (*AWAY, asyncpg.PostgresError) as error:
            self._observer.keeper_failed("notes", error)
            if isinstance(error, AWAY):
                self._take_back(taken)

    def _take_back(self, taken: list[tuple[Note, str | None, list[Line]]]) -> None:
        for note, progress, lines in taken:
            if self.open.get(_key(note.job)) is note:
                note.progress = note.progress or progress
                newer = list(note.lines)
                note.lines.clear()
                note.lines.extend([*lines, *newer])
                self._dirty[_key(note.job)] = note


def _key(job: Job) -> tuple[int, int]:
    return job.id, job.fence


def _fields_text(fields: Mapping[str, Any]) -> str | None:
    """Their JSON as it is now, or the beginning of it where it is too long to keep; None when there are none."""
    if not fields:
        return None
    text = json_text(fields)
    if len(encoded := text.encode()) <= FIELDS_MAX:
        return text
    return json_text({"cut": encoded[:FIELDS_MAX].decode(errors="ignore")})
