"""Links to files: what they give, to whom, and for how long; over real HTTP."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp
import msgspec
import pytest
from yarl import URL

from daemon.admin import Admin
from daemon.log import Logger
from daemon.observe import Observer
from jobs.secrets import Secrets
from jobs.signed import Signer
from jobs.storage.faults import StorageError
from jobs.storage.links import PURPOSE, Link, link_of, url_of
from jobs.storage.settings import StorageSettings
from jobs.storage.storage import Storage
from jobs.values import Duration, Secret
from tests.jobs.storage.azure import with_azurite
from tests.jobs.storage.bucket import S3, service_account
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


async def test_a_link_leads_to_no_file_beside_its_own(
    local: Storage, admin: Admin, client: aiohttp.ClientSession
) -> None:
    for end in (".gz", ".br"):
        await local.put(PATH + end, b"somebody else's")
    async with client.get(
        here(admin, await local.link(PATH, name="a.zip")), headers={"Accept-Encoding": "gzip, br"}
    ) as answer:
        assert (answer.status, await answer.read()) == (200, CONTENT)
        assert "Content-Encoding" not in answer.headers


@pytest.mark.parametrize("name", ["a b+c%2F&?#;=.zip", "ü€😀.zip", 'a"\r\nX: y', "x" * 200, "...", "%", "a\\b"])
async def test_any_name_of_a_file_is_one(
    local: Storage, admin: Admin, client: aiohttp.ClientSession, name: str
) -> None:
    url = URL(f"http://{admin.addresses[0]}{urlsplit(await local.link(PATH, name=name)).path}", encoded=True)
    async with client.get(url) as answer:
        assert (answer.status, await answer.read()) == (200, CONTENT)
        said = answer.headers["Content-Disposition"]
        assert said.endswith(f"filename*=UTF-8''{quote(name, safe='')}")
        assert "X" not in answer.headers


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "x" * 201, "€" * 70])
async def test_what_cannot_be_the_name_of_a_file_makes_no_link(storage: Storage, name: str) -> None:
    with pytest.raises(ValueError, match="is no name of a file"):
        await storage.link(PATH, name=name)


async def test_how_long_a_link_is_good_is_what_its_job_says(local: Storage) -> None:
    await local.put(PATH, b".")
    for asked, until in ((None, 7 * 86400), (90.0, 90), (7 * 86400.0, 7 * 86400)):
        url = await local.link(PATH, name="a", valid_s=asked)
        link = link_of(SIGNER, urlsplit(url).path.split("/")[-2])
        assert link is not None
        assert abs(link.expires_at - time.time() - until) < 60
    for asked in (0.0, -1.0, 8 * 86400.0):
        with pytest.raises(ValueError, match="a link can be good for up to 604800 s"):
            await local.link(PATH, name="a", valid_s=asked)


async def test_a_default_of_an_hour_takes_nothing_from_a_link_that_is_to_be_good_for_a_week(
    tmp_path: Path, secrets: Secrets
) -> None:
    storage = Storage(StorageSettings(**LINKED, link_for=Duration(3600)), tmp_path, secrets)  # type: ignore[arg-type]
    for asked, until in ((None, 3600), (86400.0, 86400)):
        link = link_of(SIGNER, urlsplit(await storage.link(PATH, name="a", valid_s=asked)).path.split("/")[-2])
        assert link is not None
        assert abs(link.expires_at - time.time() - until) < 60


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
        Link("exports/inside", 2**40, "a.zip"),
        Link("exports/folder/secret", 2**40, "a.zip"),
        Link("exports", 2**40, "a.zip"),
        Link("/etc/passwd", 2**40, "a.zip"),
    ],
    ids=lambda link: link.path,
)
async def test_even_a_signed_link_leads_nowhere_else(
    local: Storage, admin: Admin, client: aiohttp.ClientSession, tmp_path: Path, link: Link
) -> None:
    await local.put("archives/secret", b"not for strangers")
    exports = tmp_path / "storage" / "exports"
    (exports / "link").symlink_to("/etc/hostname")
    (exports / "inside").symlink_to("../archives/secret")
    (exports / "folder").symlink_to("../archives")
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


@pytest.mark.parametrize(
    ("store", "until"),
    [("s3", "X-Amz-Expires=90"), ("google", "X-Goog-Expires=90"), pytest.param("azure", "se=", marks=with_azurite)],
)
async def test_a_bucket_signs_links_itself(
    request: pytest.FixtureRequest,
    secrets: Secrets,
    tmp_path: Path,
    client: aiohttp.ClientSession,
    store: str,
    until: str,
) -> None:
    s3: S3 = request.getfixturevalue("s3")
    match store:
        case "azure":
            settings = await request.getfixturevalue("azure").settings()
        case "google":
            settings = s3.of_google()
            signing = replace(settings, secret_key=Secret(service_account(asks_nobody=False)))
        case _:
            settings = s3.settings()
    storage = Storage(settings, tmp_path, secrets)
    async with storage.writing(PATH, name="Ann's export.zip") as out:
        await out.write(CONTENT)
    if store == "google":
        storage = Storage(signing, tmp_path, secrets)
    url = await storage.link(PATH, name="ignored.zip", valid_s=90)
    assert until in url
    assert ENV["JOBSD_SECRET_LINKS"] not in url
    async with client.get(URL(url, encoded=True), headers={"Range": "bytes=5-9"}) as answer:
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
