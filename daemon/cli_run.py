"""`jobsd run`: one job now, by hand or by cron."""

from __future__ import annotations

import asyncio
import difflib
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import msgspec

from daemon.cli_options import args_option, config_option, json_option, seconds
from daemon.cli_output import note, print_json
from daemon.cli_session import database, reaching
from daemon.config import Config, load
from daemon.exits import FAILED, OK, SKIPPED, UNAVAILABLE, Exit
from daemon.handlers import load_kinds
from daemon.log import Logger, hear_libraries
from daemon.observe import Observer
from daemon.one_shot import Ending, Locked, LockLost, OneShot
from daemon.operator_store import NewRow
from daemon.rehearsal import rehearse, unsaved
from daemon.runner import LEAK_GRACE_S
from daemon.settle import Ended, Transition
from daemon.work_settings import KindSettings
from jobs.model import Done, Failure
from jobs.registry import Kind
from jobs.values import Duration

OVERSTAY_S = LEAK_GRACE_S + 10.0
"""After its timeout a handler has so long to stop; one that blocks the whole process is ended with it."""

_ENDED: Mapping[Ended, str] = {
    "done": "is done",
    "retry": "failed",
    "snooze": "was put off",
    "dead": "is dead",
    "cancelled": "was cancelled",
    "handed_back": "was handed back",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for on the command line."""

    kind: Kind
    row: NewRow
    as_json: bool


def _job_options(command: Callable[..., int]) -> Callable[..., int]:
    """What `run` and `test` are both told: which job, and as whose."""
    options = (
        click.argument("kind_name", metavar="KIND"),
        config_option,
        args_option,
        click.option("--queue", metavar="NAME", help="Whose settings count; unset: the job's own, or default."),
        click.option("--org", "org_id", metavar="ID", help="The organisation it belongs to."),
        click.option("--timeout", "timeout_s", type=seconds, metavar="DURATION", help="End it after this."),
    )
    return functools.reduce(lambda told, option: option(told), reversed(options), command)


@click.command(short_help="One job now, in this process.")
@_job_options
@click.option("--dry-run", is_flag=True, help="Say what it would do; change nothing, not even insert a row.")
@json_option
def run(**asked: Any) -> int:
    """Runs one job of KIND now, and returns when it has ended: 0 done, 1 not done. What it found out is printed as
    JSON; log lines go to standard error.

    It lives the life of any row: it is inserted and claimed at once, counts against limits, and ends in the history. A
    failed attempt that may be made again leaves the row in its queue, for a daemon. Without --timeout it ends when its
    kind's setting says, after 5 minutes if none does. A paused queue does not hold it.

    At most one run of a kind goes on at a time: a second one ends at once with exit code 75. The lock is in the
    database, and free again as soon as its holder ends, however it ends.
    """
    return _call(**asked)


@click.command(short_help="What a job would do, without doing it.")
@_job_options
@json_option
def test(**asked: Any) -> int:
    """Rehearses a job of KIND: the same as `jobsd run KIND --dry-run`. A job of [jobs.NAME] says how many rows it is
    about, and shows some. Nothing is changed, and nothing can be: the database refuses whatever would write."""
    return _call(**asked, dry_run=True)


def _call(
    *,
    config_file: Path | None,
    kind_name: str,
    args_json: str,
    queue: str | None,
    org_id: str | None,
    timeout_s: Duration | None,
    dry_run: bool,
    as_json: bool,
) -> int:
    config = load(config_file)
    kind = _kind(config, kind_name)
    if timeout_s is not None:
        section = replace(config.kinds.get(kind_name) or KindSettings(), timeout=timeout_s)
        config = replace(config, kinds={**config.kinds, kind_name: section})
    try:
        kind.decode(args_json)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise click.BadParameter(f"{kind_name} cannot take them: {error}", param_hint="--args") from None
    own = config.jobs.get(kind_name)
    queue = queue or (own.queue if own else "default")
    wanted = Wanted(kind, NewRow(kind=kind_name, args_json=args_json, queue=queue, org_id=org_id), as_json)
    logger = Logger(sys.stderr)
    observer = Observer(logger)
    observer.configure(config.log.level, config.log.format, config.log.started)
    hear_libraries(observer.life)
    overstay = _Overstay()
    try:
        return asyncio.run(_rehearse(config, wanted, observer) if dry_run else _run(config, wanted, observer, overstay))
    finally:
        overstay.disarm()
        logger.close()


def _kind(config: Config, name: str) -> Kind:
    kinds = load_kinds(config.daemon.handlers, ("*",), config.jobs)
    if name not in kinds:
        close = difflib.get_close_matches(name, kinds, 1)
        hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(sorted(kinds))}"
        raise click.BadParameter(f"no handler for kind {name!r}; {hint}", param_hint="KIND")
    return kinds[name]


# --- for good ---------------------------------------------------------------------------------------------------------


class _Overstay:
    """The last resort against a handler that will not stop when its time is over, or blocks the whole process: it ends
    with the process, and its row is rescued when the lease has ended."""

    def __init__(self) -> None:
        self._timer: threading.Timer | None = None

    def arm(self, timeout_s: float) -> None:
        self._timer = threading.Timer(timeout_s + OVERSTAY_S, self._end)
        self._timer.daemon = True
        self._timer.start()

    def disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _end(self) -> None:
        note("stopped: its handler did not end when its time was over")
        os._exit(FAILED)


async def _run(config: Config, wanted: Wanted, observer: Observer, overstay: _Overstay) -> int:
    async with database(config) as found:
        one = OneShot(config, found, wanted.kind, observer, overstay.arm)
        if threading.current_thread() is threading.main_thread():  # nobody else hears signals
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, one.stop)
        try:
            with reaching():
                ending = await one.run(wanted.row)
        except Locked:
            raise Exit(SKIPPED, f"skipped: another run of {wanted.kind.name} holds the lock") from None
        except LockLost:
            raise Exit(UNAVAILABLE, "stopped: the connection that held the lock was lost") from None
        return _report(ending, as_json=wanted.as_json)


def _report(ending: Ending, *, as_json: bool) -> int:
    transition = ending.transition
    done = transition.state == "done" and not ending.late
    if as_json:
        print_json(
            {
                "id": transition.job.id,
                "kind": transition.job.kind,
                "outcome": "late" if ending.late else transition.outcome,
                "reason": transition.reason,
                "code": transition.code,
                "retry_in_s": transition.delay_s if transition.outcome == "retry" else None,
                "result": transition.result,
            }
        )
    elif transition.result is not None:
        print_json(transition.result)
    if not done:
        note(_not_done(transition, late=ending.late))
    return OK if done else FAILED


def _not_done(transition: Transition, *, late: bool) -> str:
    job = transition.job
    said = f"job {job.id} {_ENDED[transition.outcome]}" + (f": {transition.reason}" if transition.reason else "")
    if late:
        return f"job {job.id}: its lease was over before its end could be written; another worker has the row"
    if transition.state != "ready":
        return said
    if transition.gate:
        return f"job {job.id} waits at {transition.gate} in queue {job.queue}; see: jobsd jobs explain {job.id}"
    when = "" if transition.delay_s is None else f", due again in {transition.delay_s:.0f} s"
    return f"{said}; its row is back in queue {job.queue}{when}"


# --- rehearsed --------------------------------------------------------------------------------------------------------


async def _rehearse(config: Config, wanted: Wanted, observer: Observer) -> int:
    row = wanted.row
    job = unsaved(wanted.kind, row.args_json, row.queue or "default", row.org_id)
    async with database(config, as_it_is=True) as found:
        with reaching():
            outcome, trace = await rehearse(config, found, wanted.kind, job, observer)
    done = isinstance(outcome, Done)
    result = outcome.result if isinstance(outcome, Done) else None
    reason = outcome.reason if isinstance(outcome, Failure) else None
    word = type(outcome).__name__.lower()
    if wanted.as_json:
        print_json({"dry_run": True, "outcome": word, "reason": reason, "result": result})
    elif result is not None:
        print_json(result)
    if trace:
        click.echo(trace, err=True, nl=False)
    note("dry run: nothing was changed" if done else f"dry run: it would end as {word}: {reason}")
    return OK if done else FAILED
