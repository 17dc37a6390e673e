"""Objects of a folder and of a bucket: written whole or not at all, read back, listed, removed."""

from __future__ import annotations

import hashlib
import os
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from jobs.secrets import Secrets
from jobs.storage import durable
from jobs.storage.faults import Changed, NotThere, StorageError, in_our_words
from jobs.storage.names import checked, segment
from jobs.storage.settings import StorageSettings
from jobs.storage.storage import Storage
from jobs.storage.writing import Writing, Written
from tests.jobs.storage.azure import Azure, with_azurite
from tests.jobs.storage.bucket import S3

MIB = 1 << 20


async def gathered(pieces: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in pieces])


async def paths(storage: Storage, prefix: str = "") -> list[str]:
    return sorted([stored.path async for stored in storage.list(prefix)])


class Boom(Exception):
    pass


@pytest.mark.parametrize("size", [0, 1, MIB, 5 * MIB, 12 * MIB + 7])
async def test_what_is_written_is_read_back(storage: Storage, size: int) -> None:
    content = os.urandom(size)
    async with storage.writing("exports/a.zip", name="a.zip") as out:
        for start in range(0, size, 700_001):
            await out.write(content[start : start + 700_001])
    assert out.written == Written("exports/a.zip", size, hashlib.sha256(content).hexdigest())
    assert await gathered(storage.read("exports/a.zip")) == content
    await storage.verify(out.written)
    head = await storage.head("exports/a.zip")
    assert (head.path, head.size_bytes) == ("exports/a.zip", size)
    assert abs(head.changed_at.timestamp() - time.time()) < 60


@pytest.mark.parametrize("size", [10, 11 * MIB])
async def test_nothing_is_seen_before_it_is_whole_nor_after_a_failure(storage: Storage, size: int) -> None:
    async def failing(path: str) -> None:
        async with storage.writing(path) as out:
            await out.write(b"x" * size)
            assert path not in await paths(storage) or path == "old"
            raise Boom

    await storage.put("old", b"as it was")
    for path in ("old", "new"):
        with pytest.raises(Boom):
            await failing(path)
    assert await paths(storage) == ["old"]
    assert await storage.get("old", most=100) == b"as it was"


async def test_an_object_of_the_same_name_is_replaced_whole(storage: Storage) -> None:
    await storage.put("a", b"first, and longer")
    await storage.put("a", b"second")
    assert await storage.get("a", most=100) == b"second"


async def test_what_somebody_has_changed_is_found(storage: Storage) -> None:
    written = await storage.put("a/b", b"0123456789")
    await storage.put("a/b", b"0123456780")
    with pytest.raises(Changed, match="a/b is not as it was written"):
        await storage.verify(written)
    await storage.put("a/b", b"012345678")
    with pytest.raises(Changed, match="9 bytes instead of 10"):
        await storage.verify(written)
    await storage.delete(["a/b"])
    with pytest.raises(NotThere, match="there is no a/b"):
        await storage.verify(written)


async def test_a_folder_of_objects_is_listed_and_what_is_beside_it_is_not(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.storage.storage.LIST_PAGE", 10)
    names = [f"exports/{number:03}.zip" for number in range(35)]
    for name in [*names, "exports2/x", "other"]:
        await storage.put(name, b".")
    assert await paths(storage, "exports/") == names
    assert await paths(storage, "exports") == names
    assert await paths(storage, "nothing") == []
    assert len(await paths(storage)) == 37


async def test_what_is_gone_already_is_no_error_to_delete(storage: Storage) -> None:
    for name in "abc":
        await storage.put(name, b".")
    await storage.delete(["a", "nowhere", "b"])
    await storage.delete(["a", "b"])
    await storage.delete([])
    assert await paths(storage) == ["c"]


async def test_what_is_old_expires_and_what_is_not_stays(local: Storage, tmp_path: Path) -> None:
    for name in ("exports/old", "exports/new", "archives/old"):
        await local.put(name, b".")
    for name in ("exports/old", "archives/old"):
        long_ago = time.time() - 3 * 86400
        os.utime(tmp_path / "storage" / name, (long_ago, long_ago))
    assert await local.expire("exports/", 2 * 86400) == 1
    assert await local.expire("exports/", 2 * 86400) == 0
    assert await paths(local) == ["archives/old", "exports/new"]


async def test_what_is_replaced_while_it_is_read_is_not_taken_for_one_object(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.storage.storage.BLOCK_BYTES", 4)
    await storage.put("a", b"0123456789")
    read = storage.read("a")
    assert await anext(read) == b"0123"
    await storage.put("a", b"abcdefghij")
    with pytest.raises(Changed, match="a was replaced while it was read"):
        await anext(read)


async def test_a_folder_is_no_object_and_stays(storage: Storage) -> None:
    await storage.put("exports/a", b".")
    await storage.delete(["exports"])
    assert await paths(storage) == ["exports/a"]


async def test_objects_of_a_bucket_expire_too(s3: S3, secrets: Secrets, tmp_path: Path) -> None:
    storage = Storage(s3.settings(), tmp_path, secrets)
    await storage.put("exports/a", b".")
    assert await storage.expire("exports/", 3600) == 0
    assert await storage.expire("exports/", -60) == 1
    assert await paths(storage) == []


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/etc/passwd",
        "a/",
        "a//b",
        "..",
        "a/../b",
        "./a",
        ".hidden",
        "a/.x",
        "a\\b",
        "a b",
        "ä",
        "a\0",
        "a#1",
        "-a",
    ],
)
async def test_a_path_that_could_mean_another_place_is_refused(local: Storage, path: str) -> None:
    with pytest.raises(ValueError, match="is no path of an object"):
        checked(path)
    with pytest.raises(ValueError, match="is no path of an object"):
        await local.put(path, b".")


@pytest.mark.parametrize("text", ["app", 'Odd "table"', "../..", "", "ä€", "x" * 300, "a.b/c"])
def test_any_text_makes_a_part_of_a_path(text: str) -> None:
    assert checked(f"a/{segment(text)}/b")


async def test_a_small_object_that_is_too_large_is_not_read(storage: Storage) -> None:
    await storage.put("a", b"x" * 101)
    with pytest.raises(StorageError, match="a is over 100 bytes"):
        await storage.get("a", most=100)


# --- a folder -------------------------------------------------------------------------------------------------------


async def test_nothing_counts_as_written_before_it_is_synced(
    local: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def noted(handle: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{handle}"))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    async with local.writing("a/b/c.zip") as out:
        await out.write(b".")
    folder = tmp_path / "storage"
    assert synced == [str(folder / name) for name in ("a/b/c.zip", "a/b", "a", ".")]

    def broken(handle: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    writing = local.writing("d")
    with pytest.raises(StorageError, match="cannot write d"):
        await _write(writing)
    with pytest.raises(RuntimeError, match="d is not complete"):
        assert writing.written


async def _write(writing: Writing) -> None:
    async with writing as out:
        await out.write(b".")


async def test_a_folder_is_open_to_us_alone(local: Storage, tmp_path: Path) -> None:
    await local.put("a", b".")
    assert (tmp_path / "storage").stat().st_mode & 0o777 == 0o700


async def test_what_is_stored_is_open_to_us_alone_even_in_a_folder_that_is_open_to_all(
    local: Storage, tmp_path: Path
) -> None:
    (tmp_path / "storage").mkdir()
    (tmp_path / "storage").chmod(0o755)
    await local.put("exports/job/a.zip", b".")
    for name in ("exports", "exports/job"):
        assert (tmp_path / "storage" / name).stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "storage").stat().st_mode & 0o777 == 0o755, "which is whoever made it's own affair"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), OSError(122, "Disk quota exceeded")])
async def test_a_full_disk_says_so(local: Storage, monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    monkeypatch.setattr(durable, "_sync", _raising(error))
    with pytest.raises(StorageError, match="no space is left; make room, or set"):
        await local.put("a", b".")
    words = f"Generic LocalFileSystem error: Unable to copy data to file: {error.strerror} (os error {error.errno})"
    with pytest.raises(StorageError, match="no space is left"), in_our_words("write", "a", "here"):
        raise RuntimeError(words)  # as the library says it


def _raising(error: OSError) -> Callable[..., None]:
    def raise_it(*_: object) -> None:
        raise error

    return raise_it


async def test_what_a_killed_writer_left_is_no_object_and_is_cleared_a_day_later(
    local: Storage, tmp_path: Path
) -> None:
    await local.put("exports/a.zip", b".")
    left, under_way = (tmp_path / "storage" / "exports" / name for name in ("b.zip#1", "c.zip#1"))
    for path in (left, under_way):
        path.write_bytes(b"half of it")
    long_ago = time.time() - durable.LEFT_BEHIND_S - 60
    os.utime(left, (long_ago, long_ago))
    assert await paths(local) == ["exports/a.zip"]
    await local.expire("exports/", 3600)
    assert not left.exists()
    assert under_way.exists()


async def test_a_folder_that_cannot_be_made_says_so(tmp_path: Path, secrets: Secrets) -> None:
    (tmp_path / "file").write_text("")
    storage = Storage(StorageSettings(), tmp_path / "file" / "storage", secrets)
    with pytest.raises(StorageError, match=r"cannot open the storage \(.*file/storage\)"):
        await storage.put("a", b".")


async def test_memory_stays_flat_however_large_an_object_is(local: Storage) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    block = os.urandom(MIB)
    await local.put("warm", block * 6)
    before = resident()
    async with local.writing("large") as out:
        for _ in range(120):
            await out.write(block)
    await local.verify(out.written)
    assert resident() - before < 40 * MIB


# --- a bucket -------------------------------------------------------------------------------------------------------


async def test_large_objects_go_in_parts_and_a_failure_takes_them_back(
    s3: S3, secrets: Secrets, tmp_path: Path
) -> None:
    storage = Storage(s3.settings(), tmp_path, secrets)
    s3.faults.seen.clear()
    async with storage.writing("large") as out:
        await out.write(b"x" * 11 * MIB)
    assert sum(method == "PUT" and "partNumber" in url for method, url in s3.faults.seen) == 3
    with pytest.raises(Boom):
        await _failing(storage.writing("failed"))
    assert any(method == "DELETE" and "uploadId" in url for method, url in s3.faults.seen)


async def test_a_large_object_is_read_however_long_all_of_it_takes(
    s3: S3, secrets: Secrets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.storage.storage.BLOCK_BYTES", MIB)
    storage = Storage(s3.settings(timeout=1.0), tmp_path, secrets)
    written = await storage.put("large", os.urandom(5 * MIB))
    monkeypatch.setattr(s3.faults, "slow", 0.3)
    await storage.verify(written)


async def _failing(writing: Writing) -> None:
    async with writing:
        await writing.write(b"x" * 11 * MIB)
        raise Boom


async def test_a_store_that_refuses_us_says_what_to_check(s3: S3, secrets: Secrets, tmp_path: Path) -> None:
    storage = Storage(s3.settings(), tmp_path, secrets)
    s3.faults.refuse["PUT"] = 403
    try:
        with pytest.raises(
            StorageError, match=r"cannot write a \(s3://bucket-\d+/jobsd\): it is not allowed; check stor"
        ):
            await storage.put("a", b".")
    finally:
        s3.faults.refuse.clear()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"url": "s3://no-such-bucket/x"}, "cannot write a (s3://no-such-bucket/x): there is no such bucket"),
        ({"endpoint": "http://127.0.0.1:1"}, "the store does not answer; check storage.endpoint"),
        ({"secret_key": "secret://nobody"}, "no key for the storage (storage.secret_key): no secret named 'nobody'"),
        ({"url": "gs://box/x", "secret_key": "hidden"}, "storage.secret_key is not what this store takes for a key"),
        (
            {"url": "az://shop/box", "secret_key": "%hidden"},
            "storage.secret_key is not what this store takes for a key",
        ),
    ],
)
async def test_what_is_wrong_with_the_settings_is_said(
    s3: S3, secrets: Secrets, tmp_path: Path, more: dict[str, str], said: str
) -> None:
    with pytest.raises(StorageError) as error:
        await Storage(s3.settings(**more), tmp_path, secrets).put("a", b".")
    assert said in str(error.value)
    assert "hidden" not in str(error.value)
    assert "Debug" not in str(error.value)


@pytest.mark.parametrize("store", ["s3", "google", pytest.param("azure", marks=with_azurite)])
async def test_in_a_bucket_that_is_not_there_nothing_counts_as_deleted(
    request: pytest.FixtureRequest, s3: S3, secrets: Secrets, tmp_path: Path, store: str
) -> None:
    match store:
        case "azure":
            settings = await request.getfixturevalue("azure").settings(url="az://devstoreaccount1/nowhere/x")
        case "google":
            settings = s3.of_google(url="gs://googlenowhere/x")
        case _:
            settings = s3.settings(url="s3://nowhere/x")
    storage = Storage(settings, tmp_path, secrets)
    for doing in (storage.delete(["a", "b"]), storage.put("a", b"."), paths(storage)):
        with pytest.raises(StorageError, match="there is no such bucket or container") as error:
            await doing
        assert not isinstance(error.value, NotThere)


@with_azurite
async def test_a_wrong_key_for_azure_says_what_to_check(azure: Azure, secrets: Secrets, tmp_path: Path) -> None:
    storage = Storage(await azure.settings(secret_key=b64encode(b"x" * 64).decode()), tmp_path, secrets)
    for doing in (storage.put("a", b"."), storage.head("a"), storage.delete(["a"]), paths(storage)):
        with pytest.raises(StorageError, match="it is not allowed; check storage"):
            await doing


async def test_a_secret_that_was_replaced_counts_at_once(s3: S3, tmp_path: Path) -> None:
    env = {"JOBSD_SECRET_S3": "first"}
    storage = Storage(s3.settings(secret_key="secret://s3"), tmp_path, Secrets((), env))
    await storage.put("a", b".")
    del env["JOBSD_SECRET_S3"]
    with pytest.raises(StorageError, match="no secret named 's3'"):
        await storage.put("a", b".")
    env["JOBSD_SECRET_S3"] = "second"
    await storage.put("a", b".")
