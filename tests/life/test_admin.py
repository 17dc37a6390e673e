"""The admin server over real sockets: what it answers, what it refuses, and that nothing holds it up."""

from __future__ import annotations

import asyncio
import json
import socket
import stat
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from daemon.admin import HEADERS, Admin, Check
from daemon.log import Logger
from daemon.observe import Observer, Slots

LOOPBACK = "127.0.0.1:0"


@pytest.fixture
def log_file() -> Iterator[Any]:
    with tempfile.TemporaryFile() as file:
        yield file


@pytest.fixture
def observer(log_file: Any) -> Iterator[Observer]:
    log = Logger(log_file)
    yield Observer(log)
    log.close()


@pytest.fixture
def checks() -> dict[str, Check]:
    """The test may replace any of them while the server runs."""
    return {"database": lambda: None, "listener": lambda: None}


@pytest.fixture
async def admin(observer: Observer, checks: dict[str, Check]) -> AsyncIterator[Admin]:
    admin = Admin(LOOPBACK, observer, checks, {"claimer": lambda: None})
    await admin.start()
    yield admin
    await admin.close()


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        yield session


def url(admin: Admin, path: str) -> str:
    return f"http://{admin.addresses[0]}{path}"


# --- metrics ----------------------------------------------------------------------------------------------------------


@pytest.mark.req("DC-04")
async def test_prometheus_scrapes_what_the_observer_counted(
    admin: Admin, observer: Observer, client: aiohttp.ClientSession
) -> None:
    observer.claimed(5, 0.001)
    observer.watch_slots(lambda: {"default": Slots(3, 100)})
    async with client.get(url(admin, "/metrics")) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        families = {family.name: family for family in text_string_to_metric_families(await answer.text())}
    assert families["jobsd_claims"].samples[0].value == 1
    assert families["jobsd_worker_slots_used"].samples[0].value == 3


async def test_a_scraper_may_ask_for_openmetrics(admin: Admin, client: aiohttp.ClientSession) -> None:
    wanted = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"}
    async with client.get(url(admin, "/metrics"), headers=wanted) as answer:
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
        assert (await answer.text()).endswith("# EOF\n")


async def test_a_slow_rendering_holds_up_nothing_else(
    admin: Admin, observer: Observer, client: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()

    def render(accept: str) -> tuple[bytes, str]:
        assert go_on.wait(60)  # in the event loop this would wait in vain
        return b"late", "text/plain"

    monkeypatch.setattr(observer.metrics, "render", render)
    async with asyncio.TaskGroup() as group:
        scrape = group.create_task(client.get(url(admin, "/metrics")))
        async with client.get(url(admin, "/livez")) as answer:
            assert answer.status == 200
        assert not scrape.done()
        go_on.set()
    assert await scrape.result().text() == "late"


# --- health -----------------------------------------------------------------------------------------------------------


async def test_ready_while_every_check_is_fine(admin: Admin, client: aiohttp.ClientSession) -> None:
    async with client.get(url(admin, "/readyz")) as answer:
        assert (answer.status, await answer.json()) == (200, {"status": "ok"})
    async with client.get(url(admin, "/readyz?verbose")) as answer:
        assert await answer.json() == {"status": "ok", "checks": {"database": "ok", "listener": "ok"}}


async def test_not_ready_while_one_is_not_and_ready_again_when_it_is(
    admin: Admin, checks: dict[str, Check], client: aiohttp.ClientSession
) -> None:
    checks["database"] = lambda: "no answer for 12 s"
    async with client.get(url(admin, "/readyz")) as answer:
        assert (answer.status, await answer.json()) == (503, {"status": "failing", "failing": ["database"]})
    async with client.get(url(admin, "/readyz?verbose")) as answer:
        assert (await answer.json())["checks"] == {"database": "no answer for 12 s", "listener": "ok"}
    async with client.get(url(admin, "/livez")) as answer:
        assert answer.status == 200  # a database that is away is no reason to restart this process
    checks["database"] = lambda: None
    async with client.get(url(admin, "/readyz")) as answer:
        assert answer.status == 200


async def test_a_check_that_breaks_fails_and_says_so(
    admin: Admin, checks: dict[str, Check], client: aiohttp.ClientSession
) -> None:
    def broken() -> str | None:
        raise KeyError("secret details")

    checks["listener"] = broken
    async with client.get(url(admin, "/readyz?verbose")) as answer:
        assert answer.status == 503
        assert (await answer.json())["checks"]["listener"] == "the check itself failed: KeyError"


# --- what it refuses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("POST", "/livez", 405), ("DELETE", "/metrics", 405), ("GET", "/nowhere", 404), ("GET", "/../etc/passwd", 404)],
)
async def test_a_refusal_is_json_too(
    admin: Admin, client: aiohttp.ClientSession, method: str, path: str, status: int
) -> None:
    async with client.request(method, url(admin, path), data=b"ignored") as answer:
        assert answer.status == status
        assert (await answer.json())["error"]["status"] == status
        assert ("Allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize("path", ["/", "/metrics", "/livez", "/readyz", "/nowhere"])
async def test_every_answer_forbids_browsers_to_do_anything_with_it(
    admin: Admin, client: aiohttp.ClientSession, path: str
) -> None:
    for method in ("GET", "HEAD"):
        async with client.request(method, url(admin, path)) as answer:
            assert answer.headers.items() >= HEADERS.items()
            assert bool(await answer.read()) == (method == "GET")


async def test_a_body_is_not_waited_for(admin: Admin) -> None:
    host, port = admin.addresses[0].split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
    async with asyncio.timeout(60):
        answer = await reader.read()  # to the end: the connection is closed too
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    writer.close()


async def test_a_page_that_breaks_is_logged_and_tells_strangers_nothing(
    admin: Admin, observer: Observer, client: aiohttp.ClientSession, log_file: Any
) -> None:
    def broken() -> dict[str, Slots]:
        raise RuntimeError("inner details")

    observer.watch_slots(broken)
    async with client.get(url(admin, "/metrics")) as answer:
        assert answer.status == 500
        assert "inner" not in await answer.text()
    observer.log.close()
    log_file.seek(0)
    failed = [line for text in log_file if (line := json.loads(text))["event"] == "admin_failed"]
    assert [(line["path"], line["error"]["message"]) for line in failed] == [("/metrics", "inner details")]
    value = observer.metrics.registry.get_sample_value
    assert value("jobsd_admin_requests_total", {"path": "/metrics", "status": "500"}) == 1


# --- addresses --------------------------------------------------------------------------------------------------------


async def test_no_address_no_server(observer: Observer) -> None:
    admin = Admin("", observer, {})
    await admin.start()
    assert admin.addresses == ()
    await admin.close()


async def test_a_nonsensical_address_is_refused_at_once(observer: Observer) -> None:
    with pytest.raises(ValueError, match="is no address"):
        Admin("nonsense", observer, {})


async def test_an_address_in_use_is_an_error_that_leaves_nothing_behind(admin: Admin, observer: Observer) -> None:
    second = Admin(admin.addresses[0], observer, {})
    with pytest.raises(OSError, match="in use"):
        await second.start()
    assert second.addresses == ()


async def test_a_new_address_answers_before_the_old_one_goes(
    admin: Admin, observer: Observer, client: aiohttp.ClientSession
) -> None:
    new = Admin(LOOPBACK, observer, {})
    await new.start()
    for each in (admin, new):
        async with client.get(url(each, "/livez")) as answer:
            assert answer.status == 200
    old = url(admin, "/livez")
    await admin.close()
    async with client.get(url(new, "/livez")) as answer:
        assert answer.status == 200
    async with aiohttp.ClientSession() as other:
        with pytest.raises(aiohttp.ClientConnectorError):
            await other.get(old)
    await new.close()


async def get_over(path: Path) -> int:
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session,
        session.get("http://admin/livez") as answer,
    ):
        return answer.status


async def test_a_unix_socket_is_for_owner_and_group_and_goes_with_its_server(
    observer: Observer, tmp_path: Path
) -> None:
    path = tmp_path / "admin.sock"
    admin = Admin(f"unix:{path}", observer, {})
    await admin.start()
    assert admin.addresses == (f"unix:{path}",)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert await get_over(path) == 200
    await admin.close()
    assert not path.exists()


async def test_a_dead_daemons_socket_is_replaced_and_a_living_ones_is_not(observer: Observer, tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    admin = Admin(f"unix:{path}", observer, {})
    await admin.start()
    second = Admin(f"unix:{path}", observer, {})
    with pytest.raises(OSError, match="another process listens there"):
        await second.start()
    assert await get_over(path) == 200
    await admin.close()


async def test_a_socket_that_somebody_else_put_there_is_left_alone(observer: Observer, tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    admin = Admin(f"unix:{path}", observer, {})
    await admin.start()
    path.unlink()
    path.touch()
    await admin.close()
    assert path.exists()
