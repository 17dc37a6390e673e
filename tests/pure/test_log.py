"""Log lines: what is written, what never is, and that nobody waits for them."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import select
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.events import LEVELS, LOG_LINES_DROPPED
from daemon.lines import LINE_MAX, json_line, mask, redact, text_line
from daemon.log import Bridge, Logger, is_journal
from jobs.model import Job
from jobs.values import Secret
from tests.examples import examples

JOB = Job(7, 1, "webhook", "default", 2, 1, '{"token": "hunter2"}', 0.0)


def line(**fields: Any) -> dict[str, Any]:
    text = json_line("info", "tested", fields)
    assert text.endswith(b"\n")
    assert text.count(b"\n") == 1
    found: dict[str, Any] = json.loads(text)
    return found


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no")


class NoTimeZone(tzinfo):
    def utcoffset(self, dt: datetime | None) -> timedelta:
        raise RuntimeError("no")

    def dst(self, dt: datetime | None) -> timedelta:
        raise RuntimeError("no")

    def tzname(self, dt: datetime | None) -> str:
        raise RuntimeError("no")


class Colour(StrEnum):
    RED = "red"


@dataclass
class Point:
    x: int
    password: Secret


def circle() -> list[Any]:
    ring: list[Any] = []
    ring.append(ring)
    return ring


# --- what a line holds -----------------------------------------------------------------------------------------------


@pytest.mark.req("JP-06")
def test_a_line_is_one_json_object_that_begins_with_when_how_bad_and_what() -> None:
    found = line(job_id=7)
    assert list(found) == ["ts", "level", "event", "job_id"]
    assert datetime.fromisoformat(found["ts"]).utcoffset() == timedelta(0)
    assert found["ts"].endswith("Z")
    assert (found["level"], found["event"], found["job_id"]) == ("info", "tested", 7)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("NUL \0 stays", "NUL \0 stays"),
        ("lone \ud800 surrogate", "lone \\ud800 surrogate"),
        (b"bytes \xff", "bytes \\xff"),
        ((1, 2), [1, 2]),
        ({3}, [3]),
        (timedelta(seconds=1.5), 1.5),
        (Colour.RED, "red"),
        (ValueError("bad"), "ValueError: bad"),
        ({1: 2}, {"1": 2}),
        (float("nan"), None),
        (2**70, hex(2**70)),
        (Hostile(), "<unprintable Hostile>"),
        (datetime(2026, 1, 1, tzinfo=NoTimeZone()), "<unprintable datetime>"),
        (datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01T00:00:00Z"),
        (JOB, "job 7"),
    ],
)
def test_whatever_a_field_holds_is_written_somehow(value: Any, written: Any) -> None:
    assert line(value=value)["value"] == written
    assert line(value=value, other="\ud800")["value"] == written  # also when the line had to be rebuilt


def test_circles_depth_and_width_are_cut_off() -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    for value in (circle(), deep, {str(n): "x" * 50 for n in range(10_000)}, "x" * 10_000_000, ["\x01"] * 100_000):
        assert len(json_line("info", "tested", {"value": value, "more": 1})) <= LINE_MAX


def test_of_a_long_line_the_beginning_is_kept_and_marked() -> None:
    found = line(job_id=7, text="x" * 100_000, lost=1)
    assert found["job_id"] == 7
    assert found["text"].endswith("x…")
    assert found["truncated"] is True
    assert "lost" not in found


any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.datetimes(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


@settings(max_examples=examples(60))
@given(st.dictionaries(st.text(), any_json))
def test_no_value_raises_or_breaks_the_line(fields: dict[str, Any]) -> None:
    for write in (json_line, text_line):
        text = mask(write("info", "tested", {"fields": fields}))
        assert len(text.splitlines()) == 1
    json.loads(mask(json_line("info", "tested", {"fields": fields})))


def test_text_is_for_people_and_cannot_drive_their_terminal() -> None:
    text = text_line(
        "error",
        "job_dead",
        {
            "job_id": 7,
            "reason": "two words",
            "error": {"class": "E", "message": "\x1b[2J\x9b\u202e", "trace": "a\n \x1b"},
        },
    ).decode()
    head, *trace = text.splitlines()
    assert head[10] == "T"
    assert 'Z error   job_dead job_id=7 reason="two words" error=' in head
    assert trace == ["    a", "     \\u001b"]
    assert not any(ord(sign) < 32 or 0x7F <= ord(sign) <= 0x9F or sign == "\u202e" for sign in text if sign != "\n")


# --- secrets ---------------------------------------------------------------------------------------------------------

CANARY = "c4n4ry"


@pytest.mark.parametrize(
    "fields",
    [
        {"value": Secret(CANARY)},
        {"value": {"deep": [Secret(CANARY)]}},
        {"value": Point(1, Secret(CANARY))},
        {"value": Secret(CANARY), "other": "\ud800"},
        {Secret(CANARY): 1},
        {"job": Job(7, 1, "webhook", "default", 2, 1, CANARY, 0.0)},
        {"password": CANARY},
        {"value": {"api_key": CANARY, "db_password": CANARY}},
        {"Authorization": f"Bearer {CANARY}"},
        {"error": f"cannot connect to postgresql://shop:{CANARY}@db:5432/shop?x=1"},
        {"error": f"cannot connect to postgresql://shop:{CANARY}@{CANARY}@db/shop"},
        {"error": f"cannot connect to postgresql://shop:a/b{CANARY}@db/shop"},
        {"error": f'cannot connect to redis://:qu"ote{CANARY}@db/0'},
        {"error": f"host=db password={CANARY} user=shop"},
        {"error": f"host=db password='{CANARY} {CANARY}' user=shop"},
        {"error": f"https://hook.example/?a=1&secret={CANARY}&b=2"},
    ],
)
def test_no_secret_reaches_the_log(fields: dict[str, Any]) -> None:
    for write in (json_line, text_line):
        text = mask(write("info", "tested", redact(fields)))
        assert CANARY.encode() not in text
        if write is json_line:
            json.loads(text)


@pytest.mark.parametrize(
    "text",
    [
        "https://hook.example:8443/path?mail=a@b.example",
        "https://hook.example/path/@user",
        "no secret named 'x': looked for JOBSD_SECRET_X",
        "secret://shop-key",
        "password authentication failed for user shop",
    ],
)
def test_what_is_no_secret_stays_readable(text: str) -> None:
    assert json.loads(mask(json_line("info", "tested", {"reason": text})))["reason"] == text


# --- the writer ------------------------------------------------------------------------------------------------------


@pytest.fixture
def file() -> Iterator[Any]:
    with tempfile.TemporaryFile() as found:
        yield found


def lines_of(file: Any) -> list[dict[str, Any]]:
    file.seek(0)
    return [json.loads(text) for text in file.read().splitlines()]


def test_lines_come_out_in_order_and_all_of_them_at_the_close(file: Any) -> None:
    log = Logger(file)
    for number in range(10_000):
        log.emit("info", "tested", {"number": number})
    log.close()
    assert [found["number"] for found in lines_of(file)] == list(range(10_000))
    assert log.dropped == 0


def test_a_stream_that_is_closed_is_written_to_all_the_same_and_nothing_else_is(tmp_path: Path) -> None:
    """The number of its descriptor goes to whatever is opened next: it was a connection to Postgres once."""
    with (tmp_path / "log").open("wb") as stream:
        log = Logger(stream)
        number = stream.fileno()
    with (tmp_path / "next").open("wb") as another:
        assert another.fileno() == number
        log.emit("info", "tested", {})
        log.close()
    assert log.dropped == 0
    assert json.loads((tmp_path / "log").read_bytes())["event"] == "tested"
    assert not (tmp_path / "next").read_bytes()


def test_a_closed_logger_keeps_no_descriptor(file: Any) -> None:
    before = set(os.listdir("/proc/self/fd"))
    log = Logger(file)
    log.close()
    log.close()
    assert set(os.listdir("/proc/self/fd")) == before


def test_lines_of_many_threads_are_all_there(file: Any) -> None:
    log = Logger(file)

    def write() -> None:
        for number in range(500):
            log.emit("info", "tested", {"number": number})

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    assert len(lines_of(file)) == 4000


def test_lines_below_the_level_are_not_written_and_the_level_can_change(file: Any) -> None:
    log = Logger(file, level="warning")
    for level in LEVELS:
        log.emit(level, "first", {})
    log.configure("debug", "json")
    log.emit("debug", "second", {})
    log.close()
    assert [found["level"] for found in lines_of(file)] == ["warning", "error", "debug"]


def read_lines(fd: int, count: int) -> list[dict[str, Any]]:
    """At least `count` lines of a pipe, and whole ones."""
    found = b""
    while found.count(b"\n") < count or not found.endswith(b"\n"):
        assert select.select([fd], [], [], 10)[0], "no line for 10 s"
        found += os.read(fd, 1 << 20)
    return [json.loads(text) for text in found.splitlines()]


def test_an_error_does_not_wait_for_company() -> None:
    read, write = os.pipe()
    with os.fdopen(write, "wb") as pipe:
        log = Logger(pipe, linger_s=3600)
        log.emit("info", "waits", {})
        log.emit("error", "hurries", {})
        assert [found["event"] for found in read_lines(read, 2)] == ["waits", "hurries"]
        log.close()
    os.close(read)


def test_a_reader_that_stops_reading_holds_nobody_up_and_the_loss_is_counted_and_told() -> None:
    read, write = os.pipe()
    with os.fdopen(write, "wb") as pipe:
        log = Logger(pipe, buffer_bytes=256 * 1024)
        for _ in range(
            20_000
        ):  # 2 MB, of which the pipe takes 64 KiB and the buffer 256 KiB; this returns all the same
            log.emit("info", "tested", {"text": "x" * 50})
        assert 0 < log.dropped < 20_000
        accounted = 0
        while accounted < 20_000:
            for found in read_lines(read, 1):
                accounted += found["lines"] if found["event"] == LOG_LINES_DROPPED.name else 1
        assert accounted == 20_000  # each line was read, or told to be lost
        log.emit("info", "afterwards", {})
        assert read_lines(read, 1)[0]["event"] == "afterwards"
        log.close()
    os.close(read)


def test_a_reader_that_is_gone_is_no_reason_to_die() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as pipe:
        log = Logger(pipe)
        for _ in range(10):
            log.emit("error", "tested", {})
        log.close()
        assert log.dropped == 10


def test_a_non_blocking_output_is_written_in_full() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    with os.fdopen(write, "wb") as pipe:
        log = Logger(pipe)
        for _ in range(3000):
            log.emit("info", "tested", {"text": "x" * 100})
        assert len(read_lines(read, 3000)) == 3000
        log.close()
    os.close(read)


def test_a_line_from_inside_a_line_does_not_lock_up(file: Any) -> None:
    """A garbage collection may run, and log, at any point of emit; here the lock is held when it does."""
    log = Logger(file)

    def emit_inside() -> None:
        with log._lock:
            log.emit("error", "inside", {})

    thread = threading.Thread(target=emit_inside, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    log.close()
    assert [found["event"] for found in lines_of(file)] == ["inside"]


def test_a_line_after_the_close_is_counted_as_lost(file: Any) -> None:
    log = Logger(file)
    log.close()
    log.emit("error", "late", {})
    assert log.dropped == 1


async def test_the_event_loop_runs_on_while_the_output_is_blocked() -> None:
    read, write = os.pipe()
    with os.fdopen(write, "wb") as pipe:
        log = Logger(pipe)
        for _ in range(2000):
            log.emit("error", "tested", {"text": "x" * 100})
        await asyncio.sleep(0)  # comes back although nothing reads the pipe
        found = await asyncio.to_thread(read_lines, read, 2000)
        assert len(found) == 2000
        log.close()
    os.close(read)


# --- the journal -----------------------------------------------------------------------------------------------------


def test_on_the_journal_each_line_begins_with_its_priority(file: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = os.fstat(file.fileno())
    monkeypatch.setenv("JOURNAL_STREAM", f"{stat.st_dev}:{stat.st_ino}")
    log = Logger(file, level="debug")
    for level in LEVELS:
        log.emit(level, "tested", {})
    log.close()
    file.seek(0)
    assert [text[:4] for text in file.read().splitlines()] == [b"<7>{", b"<6>{", b"<4>{", b"<3>{"]


def test_another_stream_than_the_journals_has_no_prefix(file: Any) -> None:
    assert not is_journal(file.fileno(), {"JOURNAL_STREAM": "1:2"})
    assert not is_journal(file.fileno(), {})
    assert not is_journal(-1, {})


# --- a whole process -------------------------------------------------------------------------------------------------

_PROGRAM = """
import logging, sys, tempfile, warnings
from daemon.log import Logger, hear_libraries
from daemon.observe import Observer
log = Logger(sys.stdout, linger_s=3600)
hear_libraries(Observer(log).life)
logging.getLogger("asyncpg.pool").warning("%s connections", 3)
logging.getLogger("asyncpg.pool").info("not heard")
warnings.warn("old")
log.emit("info", "last", {})
"""


def test_a_process_that_ends_without_closing_writes_what_it_has() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True, cwd=root)
    found = [json.loads(text) for text in done.stdout.splitlines()]
    assert [each["event"] for each in found] == ["library", "library", "last"]
    assert (found[0]["logger"], found[0]["message"]) == ("asyncpg.pool", "3 connections")
    assert "old" in found[1]["message"]
    assert done.stderr == ""


def test_a_librarys_broken_message_is_heard_as_it_is() -> None:
    heard: list[tuple[str, str, str, BaseException | None]] = []

    class Ear:
        def library(self, level: str, logger: str, message: str, error: BaseException | None) -> None:
            heard.append((level, logger, message, error))

    logger = logging.Logger("loose")
    logger.addHandler(Bridge(Ear()))
    error = ValueError("x")
    logger.warning("%d of %d", "one")
    logger.critical("broken", exc_info=error)
    logger.info("not heard")
    assert heard == [("warning", "loose", "%d of %d", None), ("error", "loose", "broken", error)]
