"""Kinds that note down in a file when they begin and end, and misbehave in every way a handler can."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from time import monotonic, sleep
from typing import Annotated, Any, NoReturn

import msgspec

from jobs import Cancelled, Context, Dead, Ladder, Retry, Snooze, job
from jobs.context import Ledger
from jobs.model import Outcome

_JOURNAL = os.open(os.environ["JOBSD_TEST_JOURNAL"], os.O_WRONLY | os.O_APPEND)
_NAME = os.environ["JOBSD_DAEMON__NAME"]


class Typed(msgspec.Struct, forbid_unknown_fields=True):
    """Args that not every row has."""

    n: Annotated[int, msgspec.Meta(ge=-(2**31), lt=2**31)]
    name: str = ""


class Unprintable(Exception):
    """Whoever asks for its text gets another exception."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


def note(ctx: Context, what: str, extra: Any = None) -> None:
    """One write to a file opened for appending: whole, and kept though the process be killed right after."""
    line = {"id": ctx.job.id, "fence": ctx.fence, "what": what, "at": monotonic(), "by": _NAME, "extra": extra}
    os.write(_JOURNAL, json.dumps({**line, "worker": os.getpid()}).encode() + b"\n")


async def there(path: str) -> None:
    """A file of this name."""
    while not os.path.exists(path):  # noqa: ASYNC110, ASYNC240  another process makes it; a look takes a microsecond
        await asyncio.sleep(0.02)


@job("note", timeout="1h")
async def noting(args: dict[str, Any], ctx: Context) -> dict[str, int]:
    """Takes `seconds`, or until there is a file `until`; blocks the whole loop for `block` seconds first."""
    note(ctx, "start", {"attempt": ctx.job.attempt})
    try:
        if "block" in args:
            sleep(args["block"])  # noqa: ASYNC251  that is the point
        if "until" in args:
            await there(args["until"])
        if "seconds" in args:
            await asyncio.sleep(args["seconds"])
    except asyncio.CancelledError:
        note(ctx, "cancelled")
        raise
    note(ctx, "end")
    return {"fence": ctx.fence}


@job("note_other", timeout="1h")
async def noting_other(args: dict[str, Any], ctx: Context) -> dict[str, int]:
    """The same under another name."""
    return await noting(args, ctx)


@job("deliver")
async def delivering(args: dict[str, Any], ctx: Context) -> None:
    """Leaves a line in a channel's log: the webhooks', which the statement that ends the row writes, or the mails'."""
    if args.get("mail"):
        ctx.record(Ledger("email_deliveries"), {"recipient": "ada@shop.example", "outcome": "delivered"})
    else:
        ctx.record(Ledger("webhook_deliveries"), {"url": "http://localhost/", "outcome": "ok"})


@job("stubborn", timeout="1h")
async def stubborn(args: dict[str, Any], ctx: Context) -> None:
    """Goes on for `seconds`, or until there is a file `until`, whatever it is told."""
    note(ctx, "start")
    ends_at = monotonic() + args.get("seconds", 3600.0)
    while (left_s := ends_at - monotonic()) > 0:
        try:
            async with asyncio.timeout(left_s):
                await there(args.get("until", ""))
            break
        except TimeoutError:
            break
        except asyncio.CancelledError:
            note(ctx, "swallowed")
    note(ctx, "end")


@job("exit")
async def exiting(args: dict[str, Any], ctx: Context) -> NoReturn:
    """As a crash in C code ends the process."""
    note(ctx, "start")
    os._exit(1)


@job("shoot")
async def shooting(args: dict[str, Any], ctx: Context) -> None:
    """As the kernel's out-of-memory killer ends the process."""
    note(ctx, "start")
    os.kill(os.getpid(), signal.SIGKILL)


@job("typed", args=Typed)
async def typed(args: Typed, ctx: Context) -> int:
    note(ctx, "start")
    return args.n


@job("say", retry=Ladder("1m", "5m", "30m", "2h", jitter=0.2))
async def saying(args: dict[str, Any], ctx: Context) -> Any:
    """Ends as `args["what"]` tells it to."""
    note(ctx, "start", {"attempt": ctx.job.attempt, "max_attempts": ctx.job.max_attempts})
    return _say(args["what"])


def _say(what: str) -> Any:
    outcomes: dict[str, Outcome] = {
        "retry": Retry("try again", code="again"),
        "retry after": Retry("later", after="10m"),
        "snooze": Snooze("not now", after="1h"),
        "dead": Dead("never"),
        "dead nul": Dead("n\0ever \ud800", detail={"a\0": "\ud800"}),
        "cancelled": Cancelled("nobody wants it"),
        "outcome": Outcome("of no known class"),
    }
    if what in outcomes:
        raise outcomes[what]
    raised: dict[str, BaseException] = {
        "boom": RuntimeError("boom"),
        "unprintable": Unprintable(),
        "boom nul": ValueError("a\0b \udfff"),
        "exit": SystemExit(3),
        "huge": RuntimeError("x" * 1_000_000),
    }
    if what in raised:
        raise raised[what]
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    results: dict[str, Any] = {
        "nul": "a\0b",
        "surrogate": {"\ud800": ["\udfff"]},
        "nan": float("nan"),
        "int": 10**400,
        "object": object(),
        "deep": deep,
        "bytes": b"\xff\xfe",
    }
    return results[what]
