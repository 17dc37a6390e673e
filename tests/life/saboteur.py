"""Loaded as a module of handlers: breaks one method of the daemon it is loaded into, once a file says when."""

from __future__ import annotations

import importlib
import os
from typing import Any

_WHAT = os.environ["JOBSD_TEST_SABOTAGE"]
_WHEN = os.environ["JOBSD_TEST_JOURNAL"] + ".sabotage"


def _break(module: str, owner: str, method: str) -> None:
    found = getattr(importlib.import_module(module), owner)
    works = getattr(found, method)

    async def broken(*args: Any, **named: Any) -> Any:
        if os.access(_WHEN, os.F_OK):
            raise RuntimeError(f"sabotaged {method}")
        return await works(*args, **named)

    setattr(found, method, broken)


_break(*_WHAT.split(":"))
