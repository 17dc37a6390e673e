"""One event as one line of JSON or text: whatever a field holds, nothing is raised and no line is over LINE_MAX."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

import orjson

from jobs.model import Job
from jobs.values import Secret

LINE_MAX = 48 * 1024
"""Bytes; journald cuts longer ones (journald.conf, LineMax=)."""

SCRUBBED_MAX = 7_000
"""Characters kept of a line that must be rebuilt; JSON may write each as six bytes."""

DEPTH_MAX = 8
MASK = "***"

# Subclasses and dataclasses go through `_unknown`: there a Secret (a str) and a Job (with its args) are stopped.  So do
# times: orjson 3.13 ends the process with a segmentation fault when a time zone's utcoffset() raises.
OPTIONS = (
    orjson.OPT_APPEND_NEWLINE
    | orjson.OPT_PASSTHROUGH_SUBCLASS
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
)


def json_line(level: str, event: str, fields: Mapping[str, Any]) -> bytes:
    """`{"ts": …, "level": …, "event": …, …fields}` and a newline."""
    line = {"ts": _now(), "level": level, "event": event, **fields}
    try:
        text = orjson.dumps(line, _unknown, OPTIONS)
    except TypeError:  # surrogates, integers of over 64 bits, keys that are no strings, circles
        return _scrubbed(line)
    return text if len(text) <= LINE_MAX else _scrubbed(line)


def names_part(kind: str, queue: str) -> tuple[bytes, bytes]:
    """The parts of `completed_line` that all jobs of a kind and queue share; both sides of the job's number."""
    head = b'Z","level":"info","event":"job_completed","job_id":'
    return head, b',"job_type":%b,"queue":%b,"attempt":' % (orjson.dumps(kind), orjson.dumps(queue))


def completed_line(names: tuple[bytes, bytes], job_id: int, attempt: int, duration_ms: float) -> bytes:
    """What json_line says of a job that is done and belongs to nobody in particular, in a fifth of the time (measured:
    1.0 and 5.2 µs): of a busy daemon's lines nearly all are such."""
    return b'{"ts":"%b%b%d%b%d,"outcome":"done","duration_ms":%.3f}\n' % (
        _now_bytes(),
        names[0],
        job_id,
        names[1],
        attempt,
        duration_ms,
    )


_second_bytes: tuple[int, bytes] = (0, b"1970-01-01T00:00:00")


def _now_bytes() -> bytes:
    global _second_bytes
    second, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    at = _second_bytes
    if at[0] != second:
        at = _second_bytes = (second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)).encode())
    return b"%b.%06d" % (at[1], nanoseconds // 1000)


_second: tuple[int, str] = (0, "1970-01-01T00:00:00")


def _now() -> str:
    """RFC 3339 in UTC with microseconds.  The text of a second is kept: 0.4 µs instead of 1.0 (measured)."""
    global _second
    second, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    at = _second
    if at[0] != second:
        at = _second = (second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)))
    return f"{at[1]}.{nanoseconds // 1000:06d}Z"


def text_line(level: str, event: str, fields: Mapping[str, Any]) -> bytes:
    """The same for people: `2026-11-22T00:29:14.123Z info    job_completed job_id=7 …`, a trace below it."""
    line = orjson.loads(mask(json_line(level, event, fields)))
    ts, error = str(line.pop("ts")), line.get("error")
    trace = error.pop("trace", "") if isinstance(error, dict) else ""
    del line["level"], line["event"]
    words = [f"{ts[:23]}Z", f"{level:7}", _quiet(event), *(f"{_quiet(k)}={_word(v)}" for k, v in line.items())]
    below = "".join(f"    {_quiet(row)}\n" for row in str(trace).splitlines())
    return f"{' '.join(words)}\n{below}".encode()


def _unknown(value: Any) -> Any:
    """What orjson does not write by itself."""
    if isinstance(value, Secret):
        return MASK
    if isinstance(value, Job):  # never its args
        return f"job {value.id}"
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Mapping):
        return redact(dict(value))
    if isinstance(value, (list, tuple, set, frozenset)):
        return list(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, date):  # and datetime
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, (bytes, bytearray)):
        return value.decode(errors="backslashreplace")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return redact({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    return _described(value)


def _described(value: object) -> str:
    try:
        return f"{type(value).__name__}: {value}" if isinstance(value, BaseException) else repr(value)
    except Exception:  # a stranger's __repr__ may raise anything
        return f"<unprintable {type(value).__name__}>"


def _scrubbed(line: Mapping[Any, Any]) -> bytes:
    return orjson.dumps(_Scrub().mapping(line, 0), None, orjson.OPT_APPEND_NEWLINE)


class _Scrub:
    """Rebuilds values out of what JSON can hold, within SCRUBBED_MAX characters; what comes after them is left out."""

    def __init__(self) -> None:
        self.left = SCRUBBED_MAX

    def value(self, value: Any, depth: int) -> Any:
        self.left -= 6  # quotes and commas count too
        try:
            return self._value(value, depth)
        except Exception:  # a stranger's mapping or time zone may raise anything
            return self.text(f"<unprintable {type(value).__name__}>")

    def _value(self, value: Any, depth: int) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, float):
            return float(value)
        if isinstance(value, int):
            return int(value) if -(2**63) <= value < 2**64 else self.text(hex(value))
        if isinstance(value, str):
            return self.text(MASK if isinstance(value, Secret) else value)
        if depth >= DEPTH_MAX or self.left <= 0:
            return "…"
        if isinstance(value, Mapping):
            return self.mapping(value, depth + 1)
        if isinstance(value, (list, tuple, set, frozenset)):
            return self.items(value, depth + 1)
        return self.value(_unknown(value), depth + 1)

    def text(self, text: str) -> str:
        kept = text[: max(self.left, 0)]
        self.left -= len(kept)
        return kept.encode(errors="backslashreplace").decode() + ("…" if len(kept) < len(text) else "")

    def mapping(self, mapping: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key, value in mapping.items():
            if self.left <= 0:
                out["truncated"] = True
                break
            name = self.text(key if type(key) is str else _text_of(key))
            out[name] = self.value(value, depth)
        return out

    def items(self, items: list[Any] | tuple[Any, ...] | set[Any] | frozenset[Any], depth: int) -> list[Any]:
        out = []
        for item in items:
            if self.left <= 0:
                out.append("…")
                break
            out.append(self.value(item, depth))
        return out


def _text_of(key: object) -> str:
    return MASK if isinstance(key, Secret) else _described(key)


# --- secrets in the middle of somebody's message -------------------------------------------------------------------

_CHARACTER = rb'(?:\\.|[^\s"\\])'
# scheme://user:password@host; host:8080/path has a port there, which is none
_URL = re.compile(rb'(://[^\s:/@"\\]*:)(?!\d{1,5}[/?#"\s\\])' + _CHARACTER + rb"+@")
# password=…, password='…' in a keyword DSN or a query
_KEYWORD = re.compile(rb"""(?i)((?:password|passwd|secret|api_?key)=)('[^'"]*'|(?:\\.|[^\s"\\&])+)""")
# "password":"…" as a field of the line
_NAMES = ("password", "passwd", "secret", "api_key", "apikey", "authorization")


def mask(line: bytes) -> bytes:
    """`line` with passwords inside URLs and DSNs as `***`."""
    if b"@" in line:  # one byte is found in 0.03 µs, a word in 0.5 (measured)
        line = _URL.sub(rb"\1***@", line)
    return _KEYWORD.sub(rb"\1***", line) if b"=" in line else line


def redact(value: Any, depth: int = 0) -> Any:
    """`value` with everything in it that is called a password, a secret and the like as `***`."""
    if depth < DEPTH_MAX and isinstance(value, dict):
        return {
            name: MASK if isinstance(name, str) and name.lower().endswith(_NAMES) else redact(inner, depth + 1)
            for name, inner in value.items()
        }
    if depth < DEPTH_MAX and isinstance(value, list):
        return [redact(inner, depth + 1) for inner in value]
    return value


# --- text for a terminal -------------------------------------------------------------------------------------------

_PLAIN = re.compile(r"[\w.:/@+*×%-]+")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def _word(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value):
        return value
    return _quiet(orjson.dumps(value).decode())


def _quiet(text: str) -> str:
    """No control characters: a job's error text must not drive the terminal of whoever reads it."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
