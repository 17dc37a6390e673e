"""What an exception means to whoever typed the command: an exit code and what to do about it.  Pure."""

from __future__ import annotations

import asyncpg

from daemon.config import ConfigError
from daemon.exits import CONFIG, INTERNAL, UNAVAILABLE, USAGE
from daemon.handlers import HandlerError
from daemon.migrate import SchemaError
from daemon.pginstall import EmbeddedError
from daemon.statements import AWAY

_NO_SCHEMA = (asyncpg.UndefinedTableError, asyncpg.UndefinedFunctionError, asyncpg.UndefinedColumnError)
_NOT_FOR_US = (asyncpg.InvalidCatalogNameError, asyncpg.InvalidAuthorizationSpecificationError)


def meaning(error: Exception) -> tuple[int, str] | None:
    """(exit code, message), or None for what should not have happened."""
    match error:
        case ConfigError() | HandlerError() | SchemaError():
            return CONFIG, str(error)
        case EmbeddedError():
            return UNAVAILABLE, str(error)
        case asyncpg.PostgresError() if isinstance(error, _NO_SCHEMA):
            return CONFIG, f"the database's schema is not this version's ({error}); run: jobsd migrate"
        case asyncpg.InsufficientPrivilegeError():
            return CONFIG, f"the database role may not do this: {error}"
        case asyncpg.DataError() | asyncpg.IntegrityConstraintViolationError():
            return USAGE, _refused(error)
        case TimeoutError():
            return UNAVAILABLE, "the database gave no answer in time"
        case OSError() if not isinstance(error, ConnectionError):
            return INTERNAL, str(error)  # a full disk, a closed output: nothing of the database's
        case _ if isinstance(error, (*AWAY, *_NOT_FOR_US)):
            return UNAVAILABLE, f"the database is unavailable: {error}"
        case asyncpg.PostgresError():
            return INTERNAL, f"the database refuses: {error}"
    return None


def _refused(error: asyncpg.DataError | asyncpg.IntegrityConstraintViolationError) -> str:
    """A check's name says the rule: jobs_priority_1_to_4 → "priority 1 to 4"."""
    check = getattr(error, "constraint_name", None)
    if isinstance(error, asyncpg.CheckViolationError) and check:
        return f"refused; this must hold: {check.removeprefix('jobs_').removeprefix('job_').replace('_', ' ')}"
    detail = getattr(error, "detail", None)
    return f"refused: {error}{f' ({detail})' if detail else ''}"
