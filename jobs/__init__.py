"""What the work is.  Nothing here knows how it is claimed, limited or recorded."""

from jobs.children import Callback, New
from jobs.context import Context
from jobs.many import Row
from jobs.model import Cancelled, Dead, Done, Exponential, Fixed, Ladder, Retry, Snooze
from jobs.registry import job

__all__ = [
    "Callback",
    "Cancelled",
    "Context",
    "Dead",
    "Done",
    "Exponential",
    "Fixed",
    "Ladder",
    "New",
    "Retry",
    "Row",
    "Snooze",
    "job",
]
