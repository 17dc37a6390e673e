"""What a worker says and asks about itself.  One method, one statement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import sql
from daemon.statements import Statements

_WORKER = sql.load("worker.sql")
_CONTROL = sql.load("control.sql")

LEFT_MAX = 1_000
"""Claims that a worker hands back as it leaves; were there more, the rescue would return them."""


class Wish(NamedTuple):
    """A row that runs here and that somebody wants stopped."""

    id: int
    fence: int
    actor: str | None
    reason: str | None


class WorkerStore(Statements):
    """Raises one of AWAY when Postgres is."""

    async def register(
        self, name: str, version: str, kinds: Sequence[str], queues: Sequence[str], lease_s: float
    ) -> int:
        worker_id: int = await self._value(_WORKER["register"], name, version, kinds, queues, lease_s)
        return worker_id

    async def asked(self, worker_id: int, most: int) -> list[Wish]:
        """Rows of this worker that somebody wants stopped."""
        return [Wish(*row) for row in await self._fetch(_CONTROL["asked"], worker_id, most)]

    async def leave(self, worker_id: int) -> None:
        await self._execute(_WORKER["leave"], worker_id, LEFT_MAX)
