"""`jobsd archive`: what was archived before it was deleted; whether it is whole; and back with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

import click

from daemon.cli_options import config_option, confirm, dry_run_option, json_option, yes_option
from daemon.cli_output import note, print_json, print_rows
from daemon.cli_session import Session, with_session
from daemon.config import Config, load
from daemon.exits import FAILED, OK, Exit
from daemon.outfit import secret_folders, wanted
from jobs.archive.manifest import FILE_END, FOLDER, MANIFEST_END, Manifest, files, manifest_path, read_manifest
from jobs.archive.reading import check
from jobs.archive.restore import Unfit, columns_for, restore
from jobs.archive.table import NoTable, Table, named
from jobs.secrets import Secrets
from jobs.storage.faults import Changed, NotThere, StorageError
from jobs.storage.storage import Storage

LISTED = ("file", "table", "rows", "size_bytes", "written_at", "run")
NO_MANIFEST = "it has no manifest: it was never completed, and nothing was deleted for its sake"


@click.group(short_help="Archives: list them, verify them, put their rows back.")
def archive() -> None:
    """Files of rows that a job with `archive = true` has deleted; see docs/archives.md."""


under_argument = click.argument("under", metavar="[PATH]", default=FOLDER)


@archive.command("list", short_help="Files, and what is in them.")
@under_argument
@config_option
@json_option
def list_(under: str, config_file: Path | None, as_json: bool) -> None:
    """Each file under PATH (all of them), as its manifest says; those without a manifest have no rows."""
    storage = _storage(load(config_file))

    async def rows() -> list[dict[str, Any]]:
        return [_row(file, found) async for file, found in _manifests(storage, under)]

    with _told():
        found = asyncio.run(rows())
    print_rows(found, LISTED, as_json=as_json)


@archive.command(short_help="Read files back and compare them with their manifests.")
@under_argument
@config_option
@json_option
def verify(under: str, config_file: Path | None, as_json: bool) -> int:
    """Reads every file under PATH (all of them), or the one that PATH is, and compares its hashes and its number of
    rows. Exit code 1 if one is not what its manifest says or cannot be read, or if there is nothing under PATH."""
    storage = _storage(load(config_file))
    with _told():
        verdicts = asyncio.run(_verdicts(storage, under))
    if as_json:
        print_json(verdicts)
    else:
        for verdict in verdicts:
            click.echo(
                f"{verdict['verdict']:10}  {verdict['file']}" + (f"  {verdict['why']}" if verdict["why"] else "")
            )
    damaged, unread = (sum(each["verdict"] == verdict for each in verdicts) for verdict in ("damaged", "unread"))
    counted = f"{len(verdicts)} files, {sum(v['rows'] for v in verdicts)} rows, {damaged} damaged"
    note(counted + (f", {unread} could not be read now" if unread else ""))
    return FAILED if damaged or unread else OK


@archive.command("restore", short_help="Put a file's rows back into a table.")
@click.argument("file", metavar="FILE")
@click.option("--into", metavar="SCHEMA.TABLE", help="Another table than the one they came from.")
@config_option
@dry_run_option
@yes_option
@json_option
def restore_(file: str, into: str | None, config_file: Path | None, dry_run: bool, yes: bool, as_json: bool) -> int:
    """Verifies FILE and inserts its rows, in one transaction. Rows whose key is there already stay as they are."""
    file = _file_of(file)
    if not dry_run:
        confirm(f"Put the rows of {file} back?", yes=yes)
    with _told():
        done = with_session(config_file, lambda session: _restored(session, file, into, dry_run=dry_run))
    if as_json:
        print_json(done)
    else:
        click.echo(
            f"{'would be ' if dry_run else ''}added: {done['added']} of {done['rows']} rows, into {done['into']}"
        )
    return OK


async def _restored(session: Session, file: str, into: str | None, *, dry_run: bool) -> dict[str, Any]:
    storage = _storage(session.config)
    manifest = await read_manifest(storage, manifest_path(file))
    table = await _target(session, manifest, into)
    columns_for(manifest, table)
    added = manifest.rows
    if dry_run:
        await check(storage, manifest)
    else:
        added = await restore(session.conn, storage, manifest, table, lambda _read: None)
    return {"file": file, "into": str(table), "rows": manifest.rows, "added": added, "dry_run": dry_run}


async def _target(session: Session, manifest: Manifest, into: str | None) -> Table:
    return await named(session.conn, into or manifest.table.sql)


async def _verdicts(storage: Storage, under: str) -> list[dict[str, Any]]:
    found = []
    async for file, manifest in _manifests(storage, under):
        found.append({"file": file, **await _verdict(storage, manifest)})
    return found


async def _verdict(storage: Storage, manifest: Manifest | StorageError | None) -> dict[str, Any]:
    match manifest:
        case None:
            return {"verdict": "incomplete", "rows": 0, "why": NO_MANIFEST}
        case StorageError():
            return _bad(manifest)
    try:
        await check(storage, manifest)
    except StorageError as error:
        return _bad(error)
    return {"verdict": "whole", "rows": manifest.rows, "why": ""}


def _bad(error: StorageError) -> dict[str, Any]:
    """A store that does not answer says nothing of the file."""
    verdict = "damaged" if isinstance(error, Changed | NotThere) else "unread"
    return {"verdict": verdict, "rows": 0, "why": str(error)}


async def _manifests(storage: Storage, under: str) -> AsyncGenerator[tuple[str, Manifest | StorageError | None], None]:
    """Of one file, or of all under a folder; None: it has none.  NotThere if PATH leads nowhere."""
    under = _file_of(under)
    if under.endswith(FILE_END):
        yield under, await _manifest(storage, under)
        return
    some = False
    async with aclosing(files(storage, under)) as found:
        async for file, has_manifest in found:
            some = True
            yield file, await _manifest(storage, file) if has_manifest else None
    if not some and under != FOLDER:
        raise NotThere(f"there is no archive under {under}", storage.where, "`jobsd archive list` shows all of them")


def _file_of(path: str) -> str:
    """The file that a manifest is of; anything else as it is."""
    return path.removesuffix(MANIFEST_END) + FILE_END if path.endswith(MANIFEST_END) else path


async def _manifest(storage: Storage, file: str) -> Manifest | StorageError:
    try:
        return await read_manifest(storage, manifest_path(file))
    except StorageError as error:
        return error


def _row(file: str, manifest: Manifest | StorageError | None) -> dict[str, Any]:
    if not isinstance(manifest, Manifest):
        return dict.fromkeys(LISTED) | {"file": file}
    return {
        "file": file,
        "table": str(manifest.table),
        "rows": manifest.rows,
        "size_bytes": manifest.size_bytes,
        "written_at": manifest.written_at,
        "run": manifest.run,
        "job": manifest.job,
        "range": manifest.range,
        "first": manifest.first,
        "last": manifest.last,
        "sha256": manifest.sha256,
    }


@contextmanager
def _told() -> Iterator[None]:
    """What they say is for whoever typed the command."""
    try:
        yield
    except (StorageError, NoTable, Unfit, ValueError) as error:
        raise Exit(FAILED, str(error)) from error


def _storage(config: Config) -> Storage:
    outfit = wanted(config)
    return Storage(outfit.storage, outfit.storage_folder, Secrets(secret_folders(config)))
