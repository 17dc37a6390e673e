"""Test handlers and producers against real Postgres, on a clock of the test's own, in milliseconds."""

from jobs.testing.dns import FakeDns
from jobs.testing.http import FakeHttp, Sent
from jobs.testing.idempotency import Idempotency
from jobs.testing.mail import FakeMail, Mailed
from jobs.testing.queue import NotEnqueued, Queue, StillBusy, queue
from jobs.testing.ran import Drained, Ran
from jobs.testing.rows import Row
from jobs.testing.server import close_servers

__all__ = [
    "Drained",
    "FakeDns",
    "FakeHttp",
    "FakeMail",
    "Idempotency",
    "Mailed",
    "NotEnqueued",
    "Queue",
    "Ran",
    "Row",
    "Sent",
    "StillBusy",
    "close_servers",
    "queue",
]
