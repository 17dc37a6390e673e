"""What text messages need beside the HTTP client: the providers' settings, and their secrets."""

from __future__ import annotations

from jobs.secrets import Secrets
from jobs.sms.settings import ProviderSettings, SmsSettings


class UnknownProvider(LookupError):
    """The settings have none of that name."""


class Sms:
    """`ctx.tools.sms`: opened once from the settings."""

    def __init__(self, settings: SmsSettings, secrets: Secrets) -> None:
        self.settings = settings
        self._secrets = secrets

    def provider(self, name: str) -> ProviderSettings:
        """UnknownProvider."""
        try:
            return self.settings.providers[name]
        except KeyError:
            raise UnknownProvider(f"there is no [sms.providers.{name}]") from None

    def allows(self, number: str) -> bool:
        return not self.settings.numbers or number.startswith(self.settings.numbers)

    def secret(self, text: str) -> str:
        """SecretMissing."""
        return str(self._secrets.resolve(text))
