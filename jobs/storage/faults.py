"""What a store's error means for whoever has to put it right: what failed, where, and what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

LONGEST_WORDS = 300

_REFUSED = (
    *("lacked the necessary privileges", "lacked valid authentication", "Permission denied"),
    *("401 Unauthorized", "403 Forbidden"),
)
_SILENT = ("error sending request", "timed out", "dns error", "HTTP error")
_UNREADABLE = ("Invalid Access Key", "Unable to decode service account", "Unable to sign", "InvalidKey")
_NOWHERE = (
    "NoSuchBucket",
    "ContainerNotFound",
    "specified bucket does not exist",
    "specified container does not exist",
)
_FULL = ("No space left on device", "Disk quota exceeded")


class StorageError(Exception):
    """`fix`: what the operator may do.  Unless said otherwise it may be well at the next attempt."""

    def __init__(self, what: str, where: str, fix: str) -> None:
        super().__init__(f"{what} ({where}): {fix}")
        self.what = what
        self.where = where
        self.fix = fix


class NotThere(StorageError):
    """No object of that name."""


class Changed(StorageError):
    """What was read back is not what was written."""


def is_absent(error: FileNotFoundError) -> bool:
    """No object of that name; False: nor is there the bucket it should lie in."""
    return not any(word in str(error) for word in _NOWHERE)


@contextmanager
def in_our_words(doing: str, path: str, where: str) -> Iterator[None]:
    """Around one call of the library: `doing` like "write", `where` as operators know the store."""
    try:
        yield
    except StorageError:
        raise
    except Exception as error:  # the library's errors share no ancestor: some are its own, some are Python's
        raise _told(error, doing, path, where) from error


def _told(error: Exception, doing: str, path: str, where: str) -> StorageError:
    what = f"cannot {doing} {path}" if path else f"cannot {doing}"
    name, said = type(error).__name__, " ".join(str(error).partition("Debug source:")[0].split())
    words = said[:LONGEST_WORDS]
    if any(word in said for word in _NOWHERE):
        return StorageError(what, where, "there is no such bucket or container; check storage.url, or create it")
    if isinstance(error, FileNotFoundError):
        if doing == "write":
            return StorageError(what, where, f"the folder or the bucket is not there; check storage.url ({words})")
        return NotThere(f"there is no {path}", where, "it was never written here, or has been removed")
    if (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)) or any(w in said for w in _FULL):
        return StorageError(what, where, "no space is left; make room, or set storage.url to another place")
    if name == "PreconditionError":
        return Changed(f"{path} was replaced while it was read", where, "read it again")
    if name in ("PermissionDeniedError", "UnauthenticatedError") or any(word in said for word in _REFUSED):
        return StorageError(
            what, where, f"it is not allowed; check storage.access_key, storage.secret_key and its rights ({words})"
        )
    if any(word in said for word in _UNREADABLE):
        return StorageError(what, where, f"storage.secret_key is not what this store takes for a key ({words})")
    if any(word in said for word in _SILENT):
        return StorageError(what, where, f"the store does not answer; check storage.endpoint and the network ({words})")
    return StorageError(what, where, f"the store says: {words or name}")
