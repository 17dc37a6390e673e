"""Daemons on the test's own database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.life.fleet import Fleet, fleet_on


@pytest.fixture
async def fleet(database: str, tmp_path: Path) -> AsyncIterator[Fleet]:
    async with fleet_on(database, tmp_path) as fleet:
        yield fleet
