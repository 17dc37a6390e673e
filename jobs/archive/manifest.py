"""What stands beside each file of an archive, and says what is in it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Literal

import msgspec

from jobs.archive.table import Table
from jobs.storage.faults import Changed
from jobs.storage.storage import Storage

FORMAT: Literal["jobsd-archive-1"] = "jobsd-archive-1"
FOLDER = "archives"
FILE_END = ".jsonl.zst"
MANIFEST_END = ".manifest.json"
LARGEST = 4 << 20


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A file's rows are counted and hashed here; a file without its manifest was never completed, and nothing that
    stands in it was deleted for its sake.  The same rows may stand in files of two `run`s: of the first, which was
    killed before it deleted them, and of the next.

    `range`: which rows were asked for; `first`, `last`: the keys of the first and the last line.
    """

    format: Literal["jobsd-archive-1"]
    table: Table
    job: str
    run: str
    part: int
    rows: int
    range: Mapping[str, str]
    first: Mapping[str, str | None]
    last: Mapping[str, str | None]
    file: str
    size_bytes: int
    sha256: str
    content_bytes: int
    content_sha256: str
    written_at: str
    tool: str

    def encoded(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


def manifest_path(file: str) -> str:
    return file.removesuffix(FILE_END) + MANIFEST_END


async def read_manifest(storage: Storage, path: str) -> Manifest:
    """NotThere, Changed: it is damaged, or none."""
    content = await storage.get(path, most=LARGEST)
    try:
        manifest = msgspec.json.decode(content, type=Manifest)
    except msgspec.DecodeError as error:
        raise Changed(f"{path} is no manifest of this version", storage.where, str(error)) from None
    if manifest_path(manifest.file) != path:  # else the file beside it would be taken for whole when that one is
        raise Changed(f"{path} is of another file", storage.where, f"{manifest.file}; it was moved or copied")
    return manifest


async def files(storage: Storage, under: str = FOLDER) -> AsyncGenerator[tuple[str, bool], None]:
    """Each file of an archive, by its path, and whether it has a manifest."""
    data: list[str] = []
    manifests: set[str] = set()
    async with aclosing(storage.list(under)) as found:
        async for stored in found:
            if stored.path.endswith(FILE_END):
                data.append(stored.path)
            elif stored.path.endswith(MANIFEST_END):
                manifests.add(stored.path)
    for path in sorted(data):
        yield path, manifest_path(path) in manifests
    for path in sorted(manifests - {manifest_path(file) for file in data}):
        yield path.removesuffix(MANIFEST_END) + FILE_END, True  # a manifest whose file is gone: verify says so
