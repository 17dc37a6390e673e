"""What is to be sent, whoever says so, before secrets are looked up and anything is signed."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from jobs.model import Job
from jobs.webhook.args import WebhookArgs
from jobs.webhook.signing import Style


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """The same for each attempt and each replay.  `message_id` is what receivers know a repetition by.

    `body` is sent as it is, unless there is a `template`: then it is JSON, and the template's variable `payload`.
    `headers`, `secrets` and `client_certificate` may be references to secrets.
    """

    url: str
    body: bytes
    content_type: str
    message_id: str
    event: str | None
    headers: Mapping[str, str]
    secrets: tuple[str, ...]
    signing: tuple[Style, ...]
    client_certificate: str | None
    template: str | None


def of_row(args: WebhookArgs, job: Job) -> Draft:
    """Of a row that says all of it itself."""
    return Draft(
        url=args.url or "",
        body=bytes(args.payload) if args.body is None else args.body,
        content_type=args.content_type,
        message_id=f"msg_{job.id}",
        event=args.event,
        headers=args.headers,
        secrets=tuple(args.secrets),
        signing=args.signing,
        client_certificate=args.client_certificate,
        template=args.template,
    )
