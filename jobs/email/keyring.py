"""The secrets that this daemon signs bounce addresses and links with, looked up when they are needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobs.email.tokens import Tokens
from jobs.model import Retry
from jobs.secrets import SecretMissing

if TYPE_CHECKING:
    from jobs.context import Context


class NoKeys(Exception):
    """They are the operator's to put right; until then the row waits its ladder's time."""

    def __init__(self, outcome: Retry) -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome


def tokens(ctx: Context) -> Tokens | None:
    """None where the config names no secret; NoKeys where it names some that are not here, or are none."""
    named = ctx.mail.settings.token_secrets
    if not named:
        return None
    try:
        return Tokens([str(ctx.tools.secrets.resolve(secret)) for secret in named])
    except SecretMissing as error:
        ctx.log.warning("email_secret_missing", error=str(error))  # says where it was looked for: for operators
        raise NoKeys(Retry("a secret of email.token_secrets is not here", code="secret_missing")) from None
    except (ValueError, OSError) as error:
        raise NoKeys(Retry(str(error), code="secret_invalid")) from None
