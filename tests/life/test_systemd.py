"""What is said to systemd, and when the watchdog is fed."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daemon import systemd
from daemon.systemd import Part, Watchdog, stalled


class Manager:
    """The receiving end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)

    def heard(self) -> list[str]:
        said: list[str] = []
        while True:
            try:
                said += self.socket.recv(4096).decode().split("\n")
            except BlockingIOError:
                return said


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    if request.param == "abstract" and sys.platform != "linux":
        pytest.skip("abstract sockets are Linux's")
    address = f"@jobsd-test-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    manager = Manager(address)
    yield manager
    manager.socket.close()


def test_a_life_is_told_in_the_words_of_sd_notify(manager: Manager) -> None:
    systemd.extend_timeout(2.5)
    systemd.ready("serving")
    systemd.status("12 running")
    systemd.ping()
    systemd.stopping("draining 3")
    assert manager.heard() == [
        "EXTEND_TIMEOUT_USEC=2500000",
        *("READY=1", "STATUS=serving"),
        "STATUS=12 running",
        "WATCHDOG=1",
        *("STOPPING=1", "STATUS=draining 3"),
    ]


def test_a_reload_is_dated_so_that_systemd_knows_which_one_is_meant(manager: Manager) -> None:
    assert systemd.reloading()
    begun, dated, status = manager.heard()
    assert (begun, status) == ("RELOADING=1", "STATUS=reloading")
    assert dated.removeprefix("MONOTONIC_USEC=").isdecimal()


def test_a_status_from_outside_cannot_claim_readiness(manager: Manager) -> None:
    systemd.status("refused:\nREADY=1\r\nMAINPID=1 " + "x" * 9999)
    (line,) = manager.heard()
    assert line.startswith("STATUS=refused: READY=1 MAINPID=1 xxx")
    assert len(line) < 250


@pytest.mark.parametrize("address", ["", "/nowhere/notify", "vsock:2:1234"])
def test_without_a_listening_manager_nothing_happens(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert systemd.ready("serving") is False


def test_a_manager_that_does_not_read_cannot_stop_the_daemon(manager: Manager) -> None:
    while systemd.ping():
        pass
    assert "WATCHDOG=1" in manager.heard()
    assert systemd.ping()


@pytest.mark.parametrize(
    ("environ", "interval_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_ours_only_if_systemd_watches_this_process(
    environ: dict[str, str], interval_s: float | None
) -> None:
    assert systemd.watchdog_interval_s(environ) == interval_s


def test_a_part_is_stalled_past_its_own_allowance_and_not_at_it() -> None:
    parts = {"heartbeat": Part(10, 100), "claimer": Part(5, 100), "finisher": Part(60, 100)}
    assert stalled(parts, 105) == ()
    assert stalled(parts, 106) == ("claimer",)
    assert stalled(parts, 111) == ("claimer", "heartbeat")
    assert stalled({}, 111) == ()


class Scene:
    """A watchdog with a clock to turn by hand, and what it told the log."""

    def __init__(self, interval_s: float | None = 30.0) -> None:
        self.now_s = 1000.0
        self.told: list[tuple[str, ...]] = []
        self.watchdog = Watchdog(interval_s, self.told.append, clock=lambda: self.now_s)


def test_one_idle_part_starves_the_watchdog_though_the_others_work(manager: Manager) -> None:
    scene = Scene()
    for name in ("claimer", "finisher", "heartbeat"):
        scene.watchdog.watch(name, allowance_s=10)
    for _ in range(2):
        scene.now_s += 8
        scene.watchdog.beat("finisher")
        scene.watchdog.beat("heartbeat")
        scene.watchdog.look()
    assert scene.told == [("claimer",)]
    assert manager.heard() == ["WATCHDOG=1"]


def test_a_part_that_comes_back_is_fed_again_and_told_once(manager: Manager) -> None:
    scene = Scene()
    scene.watchdog.watch("claimer", allowance_s=10)
    scene.now_s += 11
    assert [scene.watchdog.look(), scene.watchdog.look()] == [False, False]
    scene.watchdog.beat("claimer")
    assert scene.watchdog.look()
    assert scene.told == [("claimer",), ()]
    assert manager.heard() == ["WATCHDOG=1"]


def test_a_part_that_ended_as_it_should_is_not_missed(manager: Manager) -> None:
    scene = Scene()
    scene.watchdog.watch("claimer", allowance_s=10)
    scene.watchdog.release("claimer")
    scene.watchdog.beat("claimer")
    scene.now_s += 60
    assert scene.watchdog.look()
    assert manager.heard() == ["WATCHDOG=1"]


def test_a_reload_may_change_an_allowance() -> None:
    scene = Scene()
    scene.watchdog.watch("claimer", allowance_s=10)
    scene.watchdog.watch("claimer", allowance_s=60)
    scene.now_s += 30
    assert scene.watchdog.stalled() == ()


def test_without_systemd_stalls_are_still_seen_but_nothing_is_sent(manager: Manager) -> None:
    scene = Scene(interval_s=None)
    scene.watchdog.watch("claimer", allowance_s=10)
    scene.now_s += 11
    assert scene.watchdog.look() is False
    assert scene.told == [("claimer",)]
    assert manager.heard() == []


async def test_it_looks_by_itself_several_times_an_interval(manager: Manager) -> None:
    loop = asyncio.get_running_loop()
    enough = asyncio.Event()
    heard: list[str] = []

    def read(hear: Callable[[], list[str]]) -> None:
        heard.extend(hear())
        if len(heard) >= 4:
            enough.set()

    loop.add_reader(manager.socket, read, manager.heard)
    running = asyncio.create_task(Watchdog(0.04, lambda stalled: None).run())
    try:
        async with asyncio.timeout(60):
            await enough.wait()
    finally:
        running.cancel()
        loop.remove_reader(manager.socket)
    assert set(heard) == {"WATCHDOG=1"}
