"""The `heartbeat` kind: does nothing, and so proves that rows go through the whole system."""

from __future__ import annotations

from typing import Any

from jobs.context import Context
from jobs.model import Fixed
from jobs.registry import job


@job("heartbeat", args=dict[str, Any], retry=Fixed(60.0, max_attempts=3), timeout="10s")
async def heartbeat(args: dict[str, Any], ctx: Context) -> None:
    """Schedule it, and alert when jobsd_end_to_end_seconds of kind heartbeat grows or its count stands still."""
