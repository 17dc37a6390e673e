"""`pytest --forks 5`: the tests are collected once, and run in processes that are forked off then.

pytest-xdist collects them in each of its processes, for eight seconds of CPU each.  Otherwise this does as it does: one
process runs the whole of a file, in its order, and takes the next file when it is done.  What a module's tests share is
so made once.  Files come in the order of their folders: those which wait long (faults, life) are not left for the end.
"""

from __future__ import annotations

import os
import pickle
import selectors
import struct
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, NoReturn

import pytest

_NUMBER = struct.Struct("<H")
_SIZE = struct.Struct("<I")


def add_option(parser: pytest.Parser) -> None:
    parser.getgroup("forks").addoption(
        "--forks", type=int, default=0, metavar="N", help="run the tests in N processes, forked once all are collected"
    )


class Forks:
    """The plugin of a run with `--forks`."""

    def __init__(self, count: int) -> None:
        self._count = count

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        if session.config.option.collectonly or session.testsfailed:
            return None
        files = [list(items) for _, items in groupby(session.items, lambda item: item.path)]
        queue = _queue_of(len(files))
        children = [_fork(session, number, files, queue) for number in range(min(self._count, len(files)))]
        try:
            _listen(session, children, queue)
        finally:
            os.close(queue)
        return True


@dataclass(slots=True)
class _Child:
    """`runs`: the test that it is in; empty once it has come to its end."""

    pid: int
    says: int
    name: str
    runs: str = "its start"
    heard: bytes = b""

    @property
    def node(self) -> SimpleNamespace:
        """As xdist's, for the terminal, which names it in a failure."""
        return SimpleNamespace(gateway=SimpleNamespace(id=self.name), _workerinfocache=f"[{self.name}]")

    def messages(self) -> Iterator[dict[str, Any]]:
        """Those that are whole by now; one without a word is the last."""
        piece = os.read(self.says, 1 << 20)
        self.heard += piece
        while (end := self._end()) <= len(self.heard):
            yield pickle.loads(self.heard[_SIZE.size : end])
            self.heard = self.heard[end:]
        if not piece:
            yield {}

    def _end(self) -> int:
        """Where the first message ends."""
        known = len(self.heard) >= _SIZE.size
        return _SIZE.size + (_SIZE.unpack_from(self.heard)[0] if known else 0)


def _queue_of(count: int) -> int:
    """A pipe with the numbers of all files; each is read by one process."""
    reads, writes = os.pipe()
    os.write(writes, b"".join(map(_NUMBER.pack, range(count))))
    os.close(writes)
    return reads


def _numbers(queue: int) -> Iterator[int]:
    while number := os.read(queue, _NUMBER.size):
        yield _NUMBER.unpack(number)[0]


# --- in a child -------------------------------------------------------------------------------------------------------


def _fork(session: pytest.Session, number: int, files: list[list[pytest.Item]], queue: int) -> _Child:
    reads, writes = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if not pid:
        os.close(reads)
        _live(session, number, files, queue, writes)
    os.close(writes)
    return _Child(pid, reads, f"gw{number}")


def _live(session: pytest.Session, number: int, files: list[list[pytest.Item]], queue: int, says: int) -> NoReturn:
    """Never returns: what stands on this process's stack belongs to its parent."""
    code = 1
    try:
        with os.fdopen(says, "wb") as out:
            _settle_in(session.config, number)
            session.config.pluginmanager.register(_Reporter(session.config, out))
            _run(session, files, queue)
            session.config.hook.pytest_sessionfinish(session=session, exitstatus=session.exitstatus)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _settle_in(config: pytest.Config, number: int) -> None:
    """Own files behind stdout and stderr, a folder of its own, and no word to the terminal."""
    os.environ["PYTEST_XDIST_WORKER"] = f"gw{number}"
    config.workerinput = {"workerid": f"gw{number}"}  # type: ignore[attr-defined] # not the whole run
    capture = config.pluginmanager.getplugin("capturemanager")
    capture.stop_global_capturing()
    capture.start_global_capturing()
    factory = config._tmp_path_factory  # type: ignore[attr-defined]
    factory._basetemp = Path(factory.getbasetemp(), f"gw{number}")
    factory._basetemp.mkdir(mode=0o700)
    config.pluginmanager.unregister(name="terminalreporter")


def _run(session: pytest.Session, files: list[list[pytest.Item]], queue: int) -> None:
    """A test is told which comes next, so that what they share is kept for it."""
    items = (item for number in _numbers(queue) for item in files[number])
    item = next(items, None)
    while item is not None:
        upcoming = next(items, None)
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=upcoming)
        item = upcoming


class _Reporter:
    def __init__(self, config: pytest.Config, out: BinaryIO) -> None:
        self._config = config
        self._out = out

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        _send(self._out, {"runs": nodeid})

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        _send(self._out, {"report": data})


def _send(out: BinaryIO, words: dict[str, Any]) -> None:
    frame = pickle.dumps(words)
    out.write(_SIZE.pack(len(frame)) + frame)
    out.flush()


# --- in the parent ----------------------------------------------------------------------------------------------------


def _listen(session: pytest.Session, children: list[_Child], queue: int) -> None:
    """Until all of them have ended.  When the run is to stop, nobody begins another file."""
    with selectors.DefaultSelector() as selector:
        for child in children:
            selector.register(child.says, selectors.EVENT_READ, child)
        while selector.get_map():
            for key, _ in selector.select():
                if not _hear(session, key.data):
                    selector.unregister(key.fileobj)
                    _end(session, key.data)
            if session.shouldfail or session.shouldstop:
                list(_numbers(queue))
    if session.shouldfail:
        raise session.Failed(session.shouldfail)
    if session.shouldstop:
        raise session.Interrupted(session.shouldstop)


def _hear(session: pytest.Session, child: _Child) -> bool:
    """False after its last word."""
    config = session.config
    for words in child.messages():
        if "runs" in words:
            child.runs = words["runs"]
        elif "report" in words:
            report = config.hook.pytest_report_from_serializable(config=config, data=words["report"])
            report.node = child.node
            config.hook.pytest_runtest_logreport(report=report)
        else:
            return False
    return True


def _end(session: pytest.Session, child: _Child) -> None:
    os.close(child.says)
    _pid, status = os.waitpid(child.pid, 0)
    if status:
        code = os.waitstatus_to_exitcode(status)
        session.shouldstop = f"process {child.name} ended ({code}) in {child.runs}"
