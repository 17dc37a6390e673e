"""The exit codes of `jobsd`, and which failure means which."""

from __future__ import annotations

OK = 0
FAILED = 1
"""The job failed; or what was asked for is not so: no such row, a check that fails."""
USAGE = 2
UNAVAILABLE = 69
INTERNAL = 70
SKIPPED = 75
CONFIG = 78


class Exit(Exception):
    """Ends the command with `code`; the message, if any, goes to standard error."""

    def __init__(self, code: int, message: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
