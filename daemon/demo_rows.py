"""The demo's rows: what is inserted, and how each of them must end."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

RECEIVER = "http://sink"
"""Stands in the statements for the address of the webhook sink, known only when it listens."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One row: what it shows, its statement, and the end it must come to.

    `state` and `attempt` as in job_status (attempt None: any); `why` is the verdict of a DNS check, the code of a dead
    letter, or the gate at which a row waits.
    """

    shows: str
    statement: str
    state: str = "done"
    attempt: int | None = 1
    why: str | None = None

    def at(self, receiver: str) -> Sample:
        """The same with the sink's address in its statement."""
        statement = self.statement.replace(RECEIVER, receiver)
        return Sample(self.shows, statement, self.state, self.attempt, self.why)


SAMPLES = (
    Sample(
        "a signed webhook",
        """insert into jobs (kind, args) values ('webhook',
  '{"url": "http://sink/orders", "payload": {"order": 1001, "total": "19.90"}, "secret": "secret://demo"}');""",
    ),
    Sample(
        "its receiver fails at first",
        """insert into jobs (kind, args, org_id) values ('webhook',
  '{"url": "http://sink/flaky", "payload": {"order": 1002}, "secret": "secret://demo"}', 'acme');""",
        attempt=2,
    ),
    Sample(
        "asks for 3 s of patience: Retry-After",
        """insert into jobs (kind, args) values ('webhook',
  '{"url": "http://sink/busy", "payload": {"order": 1003}, "secret": "secret://demo"}');""",
        attempt=2,
    ),
    Sample(
        "its receiver is gone for good",
        """insert into jobs (kind, args) values ('webhook',
  '{"url": "http://sink/gone", "payload": {"order": 1004}, "secret": "secret://demo"}');""",
        "dead",
        why="http_410",
    ),
    Sample(
        "never works; max_attempts is 2",
        """insert into jobs (kind, args, max_attempts) values ('webhook',
  '{"url": "http://sink/broken", "payload": {"order": 1005}, "secret": "secret://demo"}', 2);""",
        "dead",
        2,
        "http_500",
    ),
    Sample(
        "an inner address: no webhook may go there",
        """insert into jobs (kind, args) values ('webhook',
  '{"url": "http://169.254.169.254/latest/meta-data", "payload": {}}');""",
        "dead",
        why="blocked",
    ),
    Sample(
        "due in 5 s",
        """insert into jobs (kind, args, run_at) values ('webhook',
  '{"url": "http://sink/orders", "payload": {"order": 1006}, "secret": "secret://demo"}', now() + interval '5 s');""",
    ),
    Sample(
        "a mail",
        """insert into jobs (kind, args) values ('email',
  '{"to": "Ada <ada@shop.example>", "subject": "Your order 1001", "text": "Thank you."}');""",
    ),
    Sample(
        "the mailbox is busy at first",
        """insert into jobs (kind, args) values ('email',
  '{"to": "busy@shop.example", "subject": "Your order 1002", "text": "Thank you."}');""",
        attempt=2,
    ),
    Sample(
        "there is no such mailbox",
        """insert into jobs (kind, args) values ('email',
  '{"to": "nobody@shop.example", "subject": "Your order 1003", "text": "Thank you."}');""",
        "dead",
        why="bad_recipient",
    ),
    Sample(
        "the record is as it should be",
        """insert into jobs (kind, args) values ('dns_check',
  '{"domain": "shop.example", "expect": [{"type": "TXT", "name": "_verify", "value": "token=4711"}]}');""",
        why="match",
    ),
    Sample(
        "the record says something else",
        """insert into jobs (kind, args) values ('dns_check',
  '{"domain": "shop.example", "expect": [{"type": "A", "value": "192.0.2.99"}]}');""",
        why="mismatch",
    ),
    Sample(
        "the record is not there",
        """insert into jobs (kind, args) values ('dns_check',
  '{"domain": "new.shop.example", "expect": [{"type": "TXT", "value": "token=4711"}]}');""",
        why="absent",
    ),
    Sample(
        "the name server fails at first",
        """insert into jobs (kind, args) values ('dns_check',
  '{"domain": "flaky.shop.example", "expect": [{"type": "TXT", "value": "token=4711"}]}');""",
        attempt=2,
        why="match",
    ),
    Sample(
        "its args are wrong",
        """insert into jobs (kind, args) values ('webhook', '{"link": "http://sink/orders"}');""",
        "dead",
        why="invalid_args",
    ),
    Sample(
        "a kind that no daemon serves: it waits",
        """insert into jobs (kind, args, expires_at) values ('thumbnail',
  '{"image": 7}', now() + interval '1 hour');""",
        "ready",
        0,
        "kind:thumbnail",
    ),
    *(
        Sample(
            f"its limit is one a second ({n} of 4)",
            """insert into jobs (kind, args, lane) values ('webhook',
  '{"url": "http://sink/orders", "payload": {"batch": 1}, "secret": "secret://demo"}', 'partner');""",
        )
        for n in range(1, 5)
    ),
)

TRICKLE = (
    """insert into jobs (kind, args) values ('webhook',
  '{"url": "http://sink/orders", "payload": {"order": 2001}, "secret": "secret://demo"}');""",
    """insert into jobs (kind, args) values ('email',
  '{"to": ["Ada <ada@shop.example>", "Bob <bob@shop.example>"], "subject": "News", "text": "There is a new tea."}');""",
    """insert into jobs (kind, args) values ('dns_check',
  '{"domain": "shop.example", "expect": [{"type": "MX", "value": "mail.shop.example"}]}');""",
    """insert into jobs (kind, args) values ('webhook',
  '{"url": "http://sink/flaky", "payload": {"order": 2002}, "secret": "secret://demo"}');""",
    """insert into webhook_events (org_id, event, payload) values ('acme', 'order.paid', '{"order": 2003}');""",
)


def trickle(receiver: str) -> Iterator[str]:
    """Statements without end, for a demo that goes on."""
    return itertools.cycle(statement.replace(RECEIVER, receiver) for statement in TRICKLE)


def script(samples: Sequence[Sample]) -> str:
    """All statements, each under a line that says what it shows."""
    return "\n\n".join(f"-- {sample.shows}\n{sample.statement}" for sample in samples) + "\n"


def difference(sample: Sample, found: Mapping[str, Any] | None) -> str | None:
    """How the row is not, or not yet, what it must become; None when it is.  `found`: (state, attempt, why)."""
    if found is None:
        return "is in no table"
    if (
        found["state"] == sample.state
        and sample.attempt in (None, found["attempt"])
        and sample.why in (None, found["why"])
    ):
        return None
    is_now = ", ".join(str(part) for part in (found["state"], f"attempt {found['attempt']}", found["why"]) if part)
    must = ", ".join(str(part) for part in (sample.state, f"attempt {sample.attempt}", sample.why) if part)
    return f"is {is_now} instead of {must}"
