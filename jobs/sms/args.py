"""What a row of kind `sms` says, checked before its handler is called."""

from __future__ import annotations

from typing import Annotated

import msgspec

from jobs.sms.settings import MAIN
from jobs.templates import TEXT_MAX
from jobs.values import duration

LANE = "sms:"
"""Before a provider's name: a mail relay may have the same."""

_NONE = msgspec.Raw()
_SHOWN = 4, 2


class SmsArgs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`to` is a number as E.164 has it.  `text` is sent as it is; a `template` is rendered with `payload` as its
    variable, and the result is sent.  `timeout` can only shorten the setting."""

    to: Annotated[str, msgspec.Meta(pattern=r"\A\+[1-9][0-9]{6,14}\Z")]
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=TEXT_MAX)] | None = None
    template: Annotated[str, msgspec.Meta(min_length=1, max_length=TEXT_MAX)] | None = None
    payload: msgspec.Raw = _NONE
    from_: Annotated[str, msgspec.Meta(min_length=1, max_length=32, pattern=r"\A[^\x00-\x1f\x7f]+\Z")] | None = (
        msgspec.field(default=None, name="from")
    )
    provider: Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"\A[^\x00-\x1f\x7f]+\Z")] | None = None
    timeout: str | float | None = None

    def __post_init__(self) -> None:
        if (self.text is None) == (self.template is None):
            raise ValueError("text: give either text or template")
        if (self.template is None) != (self.payload == _NONE):
            raise ValueError("payload: goes with template")
        if self.timeout is not None and not 0 < duration(self.timeout) < float("inf"):
            raise ValueError("timeout: must be longer than zero")


def lane(args: SmsArgs) -> str:
    """The provider's."""
    return LANE + (args.provider or MAIN)


def masked(number: str) -> str:
    """Its first and last digits: enough to tell it by, for those who know it."""
    start, end = _SHOWN
    return number[:start] + "*" * (len(number) - start - end) + number[-end:]
