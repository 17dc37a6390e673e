"""`ctx.storage`: objects by path, written whole or not at all, and read back to be sure."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from jobs.secrets import SecretMissing, Secrets
from jobs.signed import Signer
from jobs.storage.durable import clear_left_behind
from jobs.storage.faults import Changed, StorageError, in_our_words, is_absent
from jobs.storage.links import LONGEST_NAME, Link, disposition, link_of, url_of
from jobs.storage.names import checked, is_path
from jobs.storage.opening import Opened, opened
from jobs.storage.settings import LONGEST_LINK_S, StorageSettings
from jobs.storage.writing import Writing, Written

BLOCK_BYTES = 8 << 20
"""What is read by one request: each must end within storage.timeout, however large the object is, and however long
whoever reads it takes between two."""

DELETED_AT_ONCE = 500
LIST_PAGE = 200


@dataclass(frozen=True, slots=True)
class Stored:
    """An object that is there."""

    path: str
    size_bytes: int
    changed_at: datetime


class Gone(LookupError):
    """A link that was good, and is no more."""


class Storage:
    """Opened when it is first used, and anew when its secret has changed.

    Paths are `letters/and-digits/like_this.zip`; ValueError for others.  StorageError says what failed, where, and what
    an operator may do about it; a job that meets one is tried again by its ladder.
    """

    def __init__(self, settings: StorageSettings, folder: Path, secrets: Secrets) -> None:
        """`folder`: where objects lie if storage.url is not set."""
        self.settings = settings
        self._folder = folder
        self._secrets = secrets
        self._opened: tuple[str | None, Opened] | None = None

    # --- objects ----------------------------------------------------------------------------------------------------

    def writing(self, path: str, *, content_type: str = "application/octet-stream", name: str | None = None) -> Writing:
        """An object to be written in pieces, with memory for three of storage.part_size.  `name`: what a browser calls
        it when it is downloaded by a link."""
        attributes = {"Content-Type": content_type}
        if name is not None:
            attributes["Content-Disposition"] = disposition(name)
        return Writing(self._open(), checked(path), self.settings.part_size, attributes)

    async def put(self, path: str, data: bytes, *, content_type: str = "application/octet-stream") -> Written:
        async with self.writing(path, content_type=content_type) as out:
            await out.write(data)
        return out.written

    async def read(self, path: str) -> AsyncGenerator[bytes, None]:
        """In pieces of 8 MiB, all of the object that is there now; NotThere, Changed if it is replaced meanwhile."""
        opened = self._open()
        with in_our_words("read", checked(path), opened.where):
            meta = await opened.library.head_async(opened.store, path)
            for start in range(0, meta["size"], BLOCK_BYTES):
                wanted = {"range": (start, min(start + BLOCK_BYTES, meta["size"])), "if_match": meta["e_tag"]}
                found = await opened.library.get_async(opened.store, path, options=wanted)
                yield bytes(await found.bytes_async())

    async def get(self, path: str, *, most: int) -> bytes:
        """A small object, whole; StorageError if it is over `most` bytes."""
        whole = bytearray()
        async with aclosing(self.read(path)) as pieces:
            async for piece in pieces:
                whole += piece
                if len(whole) > most:
                    raise StorageError(f"{path} is over {most} bytes", self.where, "it is not what it is named for")
        return bytes(whole)

    async def verify(self, written: Written) -> None:
        """Read it back, whole; Changed if it is not what was written, NotThere."""
        digest, size = hashlib.sha256(), 0
        async with aclosing(self.read(written.path)) as pieces:
            async for piece in pieces:
                await asyncio.to_thread(digest.update, piece)
                size += len(piece)
        if (size, digest.hexdigest()) != (written.size_bytes, written.sha256):
            raise Changed(
                f"{written.path} is not as it was written",
                self.where,
                f"{size} bytes instead of {written.size_bytes}, or other ones; look at the disk or the bucket",
            )

    async def head(self, path: str) -> Stored:
        """NotThere."""
        opened = self._open()
        with in_our_words("read", checked(path), opened.where):
            meta = await opened.library.head_async(opened.store, path)
        return Stored(meta["path"], meta["size"], meta["last_modified"])

    async def list(self, prefix: str = "") -> AsyncGenerator[Stored, None]:
        """Whatever lies under the folder `prefix`, in no certain order."""
        opened = self._open()
        under = checked(prefix.rstrip("/")) if prefix else None
        with in_our_words("list", prefix, opened.where):
            async for page in opened.library.list(opened.store, under, chunk_size=LIST_PAGE):
                for meta in page:
                    yield Stored(meta["path"], meta["size"], meta["last_modified"])

    async def delete(self, paths: Iterable[str]) -> None:
        """What is not there is no error."""
        opened = self._open()
        names = [checked(path) for path in paths]
        for start in range(0, len(names), DELETED_AT_ONCE):
            some = names[start : start + DELETED_AT_ONCE]
            with in_our_words("delete", some[0], opened.where):
                if opened.folder is not None:
                    await asyncio.to_thread(_unlink, opened.folder, some)
                else:
                    await _delete_of_bucket(opened, some)

    async def expire(self, prefix: str, age_s: float) -> int:
        """Delete what lies under `prefix` and was written so long ago; how many.  Clears what killed writers left."""
        before = time.time() - age_s
        old: list[str] = []
        async with aclosing(self.list(prefix)) as found:
            async for stored in found:
                if stored.changed_at.timestamp() < before:
                    old.append(stored.path)
        await self.delete(old)
        await self.tidy(prefix)
        return len(old)

    async def tidy(self, prefix: str) -> None:
        """Remove what killed writers left in a local folder a day ago; in a bucket that is up to its own rules."""
        opened = self._open()
        if opened.folder is not None and (opened.folder / prefix).is_dir():
            with in_our_words("tidy", prefix, opened.where):
                await asyncio.to_thread(clear_left_behind, opened.folder / prefix)

    @property
    def where(self) -> str:
        """As operators know it."""
        return self._open().where

    # --- links ------------------------------------------------------------------------------------------------------

    async def link(self, path: str, *, name: str, valid_s: float | None = None) -> str:
        """A URL that gives this one object to whoever has it, for `valid_s` (storage.link_for), up to 7 days.  `name`:
        what a browser calls it; of an object in a bucket, that is the name it was written with."""
        opened, settings = self._open(), self.settings
        valid_s = settings.link_for if valid_s is None else valid_s
        if not 0 < valid_s <= LONGEST_LINK_S:
            raise ValueError(f"a link can be good for up to {LONGEST_LINK_S:.0f} s, and not for {valid_s:.0f}")
        if not 0 < len(name.encode()) <= LONGEST_NAME or name in (".", "..") or "/" in name:
            raise ValueError(f"{name[:80]!r} is no name of a file: 1 to {LONGEST_NAME} bytes, without a slash")
        if not checked(path).startswith(settings.link_prefixes):
            raise StorageError(f"no link for {path}", opened.where, "it lies under none of storage.link_prefixes")
        if opened.folder is None:
            with in_our_words("sign a link to", path, opened.where):
                signed: str = await opened.library.sign_async(
                    opened.store, "GET", path, expires_in=timedelta(seconds=valid_s)
                )
                return signed
        if settings.public_url is None:
            raise StorageError(f"no link for {path}", opened.where, "storage.public_url is not set")
        return url_of(settings.public_url, self._signer(), Link(path, int(time.time() + valid_s), name))

    def linked(self, token: str) -> tuple[Path, Link] | None:
        """The local file that a link's token stands for; None if there is none, Gone if it is over."""
        opened = self._open()
        if opened.folder is None or not self.settings.link_secrets:
            return None
        link = link_of(self._signer(), token)
        if link is None or not link.path.startswith(self.settings.link_prefixes) or not is_path(link.path):
            return None
        if link.expires_at <= time.time():
            raise Gone("this link is over")
        path = opened.folder / link.path
        return (path, link) if path.resolve() == path and path.is_file() else None  # no symlink on the way

    def _signer(self) -> Signer:
        named = self.settings.link_secrets
        if not named:
            raise StorageError("no link can be signed", "the config", "storage.link_secrets names no secret")
        try:
            return Signer([str(self._secrets.resolve(secret)) for secret in named], "storage.link_secrets")
        except (SecretMissing, ValueError, OSError) as error:
            raise StorageError("no link can be signed", "storage.link_secrets", str(error)) from None

    # --- opening ----------------------------------------------------------------------------------------------------

    def _open(self) -> Opened:
        secret_key = self._secret_key()
        if self._opened is None or self._opened[0] != secret_key:
            where = self.settings.url or str(self._folder)
            with in_our_words("open the storage", "", where):
                self._opened = secret_key, opened(self.settings, self._folder, secret_key)
        return self._opened[1]

    def _secret_key(self) -> str | None:
        """Looked up at each use: a secret that was replaced counts at once."""
        if self.settings.secret_key is None:
            return None
        try:
            return str(self._secrets.resolve(self.settings.secret_key))
        except (SecretMissing, OSError, UnicodeDecodeError) as error:
            raise StorageError("no key for the storage", "storage.secret_key", str(error)) from None


def _unlink(folder: Path, paths: list[str]) -> None:
    for path in paths:
        with suppress(FileNotFoundError, IsADirectoryError):  # a folder is no object, whatever it is called
            (folder / path).unlink()


async def _delete_of_bucket(opened: Opened, paths: list[str]) -> None:
    try:
        await opened.library.delete_async(opened.store, paths)
    except FileNotFoundError as error:  # Google and Azure say so of the first that is not there; others are still to go
        if not is_absent(error):
            raise
        for path in paths:
            try:
                await opened.library.delete_async(opened.store, path)
            except FileNotFoundError:
                continue
