"""What is wrong on our side is charged to no message, and said of no receiver."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import jobs.webhook.names as names_module
from jobs.model import Outcome, Retry, Snooze
from jobs.secrets import Secrets
from jobs.webhook.faults import SENTENCES
from jobs.webhook.names import WELL_KNOWN, Names, Unresolved
from tests.jobs.webhook.certificate import client_pem
from tests.jobs.webhook.server import OK, Server, says
from tests.jobs.webhook.world import World, names, world

pytestmark = pytest.mark.req("OR-15")

SHOP = "http://shop.example/"


class NameServer:
    """What a lookup of each name comes to: addresses, an error, or None: no answer at all.  Counts what it is asked."""

    def __init__(self, says: Sequence[str] | int | None, well_known: Sequence[str] | int | None) -> None:
        self.says = says
        self.well_known = well_known
        self.asked: Counter[str] = Counter()

    async def __call__(self, host: str) -> Sequence[str]:
        self.asked[host] += 1
        said = self.well_known if host == WELL_KNOWN else self.says
        if said is None:
            await asyncio.Event().wait()
        if isinstance(said, int):
            raise socket.gaierror(said, "no")
        return said or []


def _is_ours(w: World, outcome: Outcome, code: str) -> None:
    assert isinstance(outcome, Snooze), "an attempt is not charged"
    assert outcome.lane_fault is None, "nothing is said of the receiver"
    assert outcome.code == w.record["code"] == code
    assert (w.record["outcome"], w.record["request_bytes"]) == ("retry", 0)
    assert outcome.reason == SENTENCES[code]


AGAIN, NOBODY, NO_DATA, REFUSED = socket.EAI_AGAIN, socket.EAI_NONAME, socket.EAI_NODATA, socket.EAI_FAIL


@pytest.mark.parametrize("says_", [AGAIN, REFUSED, None], ids=["fails", "refuses", "is silent"])
@pytest.mark.parametrize("well_known", [AGAIN, REFUSED, None], ids=["fails too", "refuses too", "is silent too"])
async def test_a_name_server_that_finds_no_name_at_all_is_ours(says_: int | None, well_known: int | None) -> None:
    async with world(lookup=NameServer(says_, well_known), dns_timeout=0.1) as w:
        _is_ours(w, await w.deliver(SHOP), "resolver_error")


@pytest.mark.parametrize("well_known", [["198.41.0.4"], NOBODY], ids=["finds another", "knows there is no other"])
@pytest.mark.parametrize(("says_", "code"), [(AGAIN, "dns_error"), (REFUSED, "dns_error"), (None, "dns_timeout")])
async def test_a_name_that_cannot_be_found_while_others_can_is_its_owners(
    says_: int | None, code: str, well_known: Any
) -> None:
    async with world(lookup=NameServer(says_, well_known), dns_timeout=0.1) as w:
        outcome = await w.deliver(SHOP)
    assert isinstance(outcome, Retry)
    assert outcome.lane_fault
    assert (w.record["outcome"], w.record["code"]) == ("retry", code)


@pytest.mark.parametrize("says_", [NOBODY, NO_DATA, []])
async def test_a_name_that_does_not_exist_is_believed_without_another_question(says_: Any) -> None:
    server = NameServer(says_, AGAIN)
    async with world(lookup=server) as w:
        assert isinstance(await w.deliver(SHOP), Retry)
    assert (w.record["code"], server.asked[WELL_KNOWN]) == ("dns_error", 0)


async def test_many_that_fail_together_ask_once_about_the_name_server() -> None:
    server = NameServer(AGAIN, AGAIN)
    async with world(lookup=server) as w:
        outcomes = await asyncio.gather(*(w.deliver(f"http://shop-{n}.example/") for n in range(50)))
    assert {type(outcome) for outcome in outcomes} == {Snooze}
    assert (server.asked[WELL_KNOWN], len(server.asked)) == (1, 51)


async def test_who_waits_behind_the_slow_names_of_others_is_not_charged(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lookup cannot be stopped, so names that somebody made slow hold the threads; the name server is well."""
    release, stuck = threading.Event(), threading.Semaphore(0)

    def getaddrinfo(host: str) -> list[tuple[Any, ...]]:
        if host.startswith("slow"):
            stuck.release()
            release.wait()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0))]

    monkeypatch.setattr(names_module, "_getaddrinfo", getaddrinfo)
    found = Names(0.2)
    try:
        slow = [asyncio.ensure_future(_code(found, f"slow-{n}.example")) for n in range(names_module._THREADS)]
        for _ in slow:
            await asyncio.to_thread(stuck.acquire)
        assert await _code(found, "shop.example") == "resolver_error"
        assert set(await asyncio.gather(*slow)) == {"dns_timeout"}, "they were asked for, and others are found"
    finally:
        release.set()
    async with asyncio.timeout(60):
        while await _code(found, "shop.example") != "found":
            pass
    found.close()


async def _code(found: Names, host: str) -> str:
    try:
        await found.of(host)
    except Unresolved as error:
        return error.code
    return "found"


@contextmanager
def no_more_files(spare: int = 0) -> Iterator[None]:
    """This process can open `spare` files, and no more."""
    free = os.dup(0)
    os.close(free)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + spare, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_without_files_no_name_is_found_and_that_is_ours() -> None:
    async with world() as w:
        with no_more_files():
            outcome = await w.deliver(SHOP)
    _is_ours(w, outcome, "local_error")


async def test_without_files_no_socket_is_made_and_that_is_ours() -> None:
    async with Server(says(OK)) as server, world() as w:
        with no_more_files():
            outcome = await w.deliver(server.url())
        _is_ours(w, outcome, "local_error")
        assert (await w.deliver(server.url())).__class__.__name__ == "Done"


async def test_without_files_a_secret_that_is_there_is_not_missing(tmp_path: Path) -> None:
    (tmp_path / "shop").write_text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    async with Server(says(OK)) as server, world() as w:
        w.secrets = Secrets((tmp_path,), {})
        with no_more_files():
            outcome = await w.deliver(server.url(), secret="secret://shop")
        _is_ours(w, outcome, "local_error")
        assert not isinstance(await w.deliver(server.url(), secret="secret://shop"), Snooze)


@pytest.mark.parametrize("spare", [0, 1])
async def test_without_files_a_client_certificate_is_not_called_invalid(spare: int, tmp_path: Path) -> None:
    pem, _certificate = client_pem(tmp_path, "alice")
    async with world(lookup=names(shop_example=["127.0.0.1"]), secrets={"mine": pem}) as w:
        with no_more_files(spare):
            outcome = await w.deliver("https://shop.example:1/", client_certificate="secret://mine")
        _is_ours(w, outcome, "local_error")
        await w.deliver("https://shop.example:1/", client_certificate="secret://mine")
    assert w.record["code"] == "connection_refused", "and is tried again when there are files"
