"""Links to files: what they give, to whom, and for how long; over real HTTP."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec
import pytest

from daemon.admin import Admin
from daemon.log import Logger
from daemon.observe import Observer
from jobs.secrets import Secrets
from jobs.signed import Signer
from jobs.storage.faults import StorageError
from jobs.storage.links import PURPOSE, Link, link_of, url_of
from jobs.storage.settings import StorageSettings
from jobs.storage.storage import Storage
from tests.jobs.storage.bucket import S3
from tests.jobs.storage.conftest import ENV, LINKED

CONTENT = random.Random(7).randbytes(300_000)
PATH = "exports/7.zip"
SIGNER = Signer([ENV["JOBSD_SECRET_LINKS"]], "test")


@pytest.fixture
async def admin(local: Storage, tmp_path: Path) -> AsyncIterator[Admin]:
    with (tmp_path / "log").open("wb") as file:
        log = Logger(file)
        admin = Admin("127.0.0.1:0", Observer(log), {}, storage=lambda: local)
        await admin.start()
        await local.put(PATH, CONTENT)
        yield admin
        await admin.close()
        log.close()


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        yield session


def here(admin: Admin, url: str) -> str:
    """What the proxy before it makes of a public URL."""
    return f"http://{admin.addresses[0]}{urlsplit(url).path}"


async def test_a_link_gives_the_file_under_its_name(
    local: Storage, admin: Admin, client: aiohttp.ClientSession
) -> None:
    url = await local.link(PATH, name='Ann\'s "export" – 2026.zip')
    assert url.startswith("https://shop.example/files/")
    async with client.get(here(admin, url)) as answer:
        assert (answer.status, await answer.read()) == (200, CONTENT)
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Content-Disposition"] == (
            'attachment; filename="Ann_s _export_ _ 2026.zip"; '
            "filename*=UTF-8''Ann%27s%20%22export%22%20%E2%80%93%202026.zip"
        )
    async with client.head(here(admin, url)) as answer:
        assert (answer.status, answer.content_length) == (200, len(CONTENT))


@pytest.mark.parametrize(
    ("asked", "status", "given"),
    [
        ("bytes=0-99", 206, CONTENT[:100]),
        ("bytes=299990-", 206, CONTENT[-10:]),
        ("bytes=-5", 206, CONTENT[-5:]),
        ("bytes=300000-", 416, None),
    ],
)
async def test_a_download_that_broke_off_goes_on_where_it_was(
    local: Storage, admin: Admin, client: aiohttp.ClientSession, asked: str, status: int, given: bytes | None
) -> None:
    url = here(admin, await local.link(PATH, name="a.zip"))
    async with client.get(url, headers={"Range": asked}) as answer:
        assert answer.status == status
        assert given is None or await answer.read() == given


async def test_a_link_is_over_when_its_time_is(local: Storage, admin: Admin, client: aiohttp.ClientSession) -> None:
    over = url_of("https://shop.example", SIGNER, Link(PATH, int(time.time()) - 1, "a.zip"))
    async with client.get(here(admin, over)) as answer:
        assert answer.status == 410
        assert (await answer.json())["error"]["message"] == "This link is over"


@pytest.mark.parametrize(
    "link",
    [
        Link("archives/secret", 2**40, "a.zip"),
        Link("exports/../archives/secret", 2**40, "a.zip"),
        Link("exports/none", 2**40, "a.zip"),
        Link("exports/link", 2**40, "a.zip"),
        Link("exports", 2**40, "a.zip"),
        Link("/etc/passwd", 2**40, "a.zip"),
    ],
    ids=lambda link: link.path,
)
async def test_even_a_signed_link_leads_nowhere_else(
    local: Storage, admin: Admin, client: aiohttp.ClientSession, tmp_path: Path, link: Link
) -> None:
    await local.put("archives/secret", b"not for strangers")
    (tmp_path / "storage" / "exports" / "link").symlink_to("/etc/hostname")
    url = here(admin, url_of("https://shop.example", SIGNER, link))
    async with client.get(url) as answer:
        assert answer.status == 404
        assert b"not for strangers" not in await answer.read()


async def test_no_letter_of_a_link_may_change(local: Storage, admin: Admin, client: aiohttp.ClientSession) -> None:
    token, name = urlsplit(await local.link(PATH, name="a.zip")).path.split("/")[-2:]
    tried = [token[:i] + ("A" if token[i] != "A" else "B") + token[i + 1 :] for i in range(len(token))]
    for other in [*tried, token[:-4], token + "AAAA", "", "x", "%2e%2e%2f", "A" * 4000, "ä"]:
        async with client.get(f"http://{admin.addresses[0]}/files/{other}/{name}") as answer:
            assert answer.status in (404, 400), other
    for path in (f"/files/{token}/b.zip", f"/files/{token}", f"/files/{token}/a.zip/x", f"/files/../files/{token}/x"):
        async with client.get(f"http://{admin.addresses[0]}{path}") as answer:
            assert answer.status == 404, path


async def test_a_token_made_for_something_else_is_none(local: Storage) -> None:
    said = msgspec.json.encode(Link(PATH, 2**40, "a.zip"))
    assert link_of(SIGNER, SIGNER.token(PURPOSE, said)) is not None
    assert link_of(SIGNER, SIGNER.token(b"unsubscribe", said)) is None


async def test_secrets_of_links_can_be_replaced(local: Storage, tmp_path: Path, secrets: Secrets) -> None:
    def storage(*names: str) -> Storage:
        given: dict[str, Any] = {**LINKED, "link_secrets": tuple(f"secret://{name}" for name in names)}
        return Storage(StorageSettings(**given), tmp_path / "storage", secrets)

    await local.put(PATH, CONTENT)
    token = urlsplit(await storage("old").link(PATH, name="a.zip")).path.split("/")[-2]
    assert storage("links", "old").linked(token) is not None
    assert storage("links").linked(token) is None
    assert storage().linked(token) is None


@pytest.mark.parametrize(
    ("without", "said"),
    [("public_url", "storage.public_url is not set"), ("link_secrets", "storage.link_secrets names no secret")],
)
async def test_a_link_that_cannot_be_made_says_what_is_missing(
    tmp_path: Path, secrets: Secrets, without: str, said: str
) -> None:
    given: dict[str, Any] = {name: value for name, value in LINKED.items() if name != without}
    storage = Storage(StorageSettings(**given), tmp_path, secrets)
    await storage.put(PATH, b".")
    with pytest.raises(StorageError, match=said):
        await storage.link(PATH, name="a.zip")


async def test_a_link_is_made_for_what_lies_under_its_prefixes(storage: Storage) -> None:
    with pytest.raises(StorageError, match=r"under none of storage\.link_prefixes"):
        await storage.link("archives/a", name="a")


async def test_a_bucket_signs_links_itself(
    s3: S3, secrets: Secrets, tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    storage = Storage(s3.settings(), tmp_path, secrets)
    async with storage.writing(PATH, name="Ann's export.zip") as out:
        await out.write(CONTENT)
    url = await storage.link(PATH, name="ignored.zip", valid_s=90)
    assert "X-Amz-Expires=90" in url
    assert ENV["JOBSD_SECRET_LINKS"] not in url
    async with client.get(url, headers={"Range": "bytes=5-9"}) as answer:
        assert (answer.status, await answer.read()) == (206, CONTENT[5:10])
        assert answer.headers["Content-Disposition"].startswith('attachment; filename="Ann_s export.zip"')
    assert storage.linked("anything") is None


async def test_without_a_storage_the_page_says_that_it_is_not_there_yet(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    with (tmp_path / "log").open("wb") as file:
        log = Logger(file)
        admin = Admin("127.0.0.1:0", Observer(log), {})
        await admin.start()
        async with client.get(f"http://{admin.addresses[0]}/files/a/b") as answer:
            assert answer.status == 503
        await admin.close()
        log.close()
