"""The fixtures `jobs_queue` and what it is made of, for whoever runs pytest where jobsd is installed.

Loaded in every run of pytest, so it imports nothing of ours before a test asks for it.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from jobs.testing import Queue

async_fixture: Callable[[Callable[..., Any]], Any]
try:
    from pytest_asyncio import fixture as async_fixture
except ImportError:  # then anyio's plugin takes them as they are
    async_fixture = pytest.fixture


@pytest.fixture(scope="session")
def jobs_dsn() -> str | None:
    """Override it to have the databases made on a server of yours; None: PostgreSQL out of the wheel."""
    return None


@pytest.fixture(scope="session")
def jobs_schema() -> Any:
    """Override it with your own tables: SQL, a Path, or a function that is given a DSN."""
    return None


@pytest.fixture
def jobs_handlers() -> Any:
    """Override it with the modules or functions to be served; None: every kind that is registered."""
    return None


@pytest.fixture
def jobs_config() -> Any:
    """Override it with settings: TOML, or values by dotted path."""
    return ""


@pytest.fixture
def jobs_tools() -> Any:
    """Override it with clients in place of the fakes."""
    return None


@async_fixture
async def jobs_queue(
    jobs_dsn: str | None, jobs_schema: Any, jobs_handlers: Any, jobs_config: Any, jobs_tools: Any
) -> AsyncIterator[Queue]:
    """A queue in a database of this test's own."""
    from jobs.testing import queue  # noqa: PLC0415 - see above

    async with queue(
        dsn=jobs_dsn, schema=jobs_schema, handlers=jobs_handlers, config=jobs_config, tools=jobs_tools
    ) as made:
        yield made


def pytest_sessionfinish() -> None:
    """End the servers while their folders can still be removed in peace."""
    if kit := sys.modules.get("jobs.testing"):
        kit.close_servers()
