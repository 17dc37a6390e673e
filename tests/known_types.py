"""What asyncpg asks each new connection about types is asked once: it takes the server 10 ms, a test's database 20."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import asyncpg

_BUILT_IN = 16384
"""Types below have the same number in every database."""

_answers: dict[frozenset[int], Any] = {}
_NOT_ASKED = SimpleNamespace(name="known")

_Connection: Any = asyncpg.Connection
Types = Sequence[Mapping[str, Any]]
arrays: list[dict[str, Any]] = []
"""Of PostgreSQL's own types, and what is in them, as the suite's server describes them."""


async def learn(conn: asyncpg.Connection) -> None:
    """Fill `arrays`."""
    oids = await conn.fetch("select oid from pg_type where typcategory = 'A' and oid < $1", _BUILT_IN)
    described, _ = await _Connection._introspect_types(conn, [row[0] for row in oids], None)
    arrays[:] = map(dict, described)


def remember() -> None:
    """Every connection that this process makes from now on asks for PostgreSQL's own types only once."""
    asked = _Connection._introspect_types

    async def introspect(self: asyncpg.Connection, typeoids: Iterable[int], within_s: float | None) -> tuple[Any, Any]:
        wanted = frozenset(typeoids)
        if max(wanted) >= _BUILT_IN:
            return await asked(self, wanted, within_s)  # type: ignore[no-any-return]
        if wanted not in _answers:
            _answers[wanted], _ = await asked(self, wanted, within_s)
        return _answers[wanted], _NOT_ASKED

    _Connection._introspect_types = introspect


def believe(types: Types) -> None:
    """Every connection that this process makes from now on need not ask for these."""
    known = {described["oid"]: described for described in types}
    asked = _Connection._introspect_types

    async def introspect(self: asyncpg.Connection, typeoids: Iterable[int], within_s: float | None) -> tuple[Any, Any]:
        wanted = set(typeoids)
        if not wanted <= known.keys():
            return await asked(self, wanted, within_s)  # type: ignore[no-any-return]
        wanted |= {known[oid]["elemtype"] for oid in wanted}
        return [described for oid, described in known.items() if oid in wanted], _NOT_ASKED

    _Connection._introspect_types = introspect


class OfAClone(asyncpg.Connection):
    """A connection to a clone of the suite's template: its own types have the same numbers in each."""

    __slots__ = ()
    below = _BUILT_IN

    async def _introspect_types(self, typeoids: Iterable[int], within_s: float | None) -> tuple[Any, Any]:
        wanted = frozenset(typeoids)
        if max(wanted) >= self.below:  # of a type that the test has made
            return await super()._introspect_types(typeoids, within_s)  # type: ignore[no-any-return,misc]
        if wanted not in _answers:
            _answers[wanted], _ = await super()._introspect_types(typeoids, within_s)  # type: ignore[misc]
        return _answers[wanted], _NOT_ASKED
