"""What push messages need beside the HTTP client: the key, and how each service takes it."""

from __future__ import annotations

from collections import OrderedDict

from jobs.push.judge import Standing
from jobs.push.settings import PushSettings
from jobs.push.vapid import Vapid, vapid
from jobs.secrets import Secrets

SERVICES_MAX = 1000
"""Remembered; the one unused for longest makes room."""


class NotSetUp(LookupError):
    """There is no key to send with."""


class Push:
    """`ctx.tools.push`: opened once from the settings."""

    def __init__(self, settings: PushSettings, secrets: Secrets) -> None:
        self.settings = settings
        self._secrets = secrets
        self._standings: OrderedDict[tuple[str, str], Standing] = OrderedDict()

    @property
    def vapid(self) -> Vapid:
        """The key as its secret is now; NotSetUp, SecretMissing, BadVapidKey."""
        if self.settings.private_key is None or self.settings.subject is None:
            raise NotSetUp("push.private_key and push.subject are not both set; services ask for both")
        return vapid(self._secrets.resolve(self.settings.private_key))

    def standing(self, service: str, public: str) -> Standing:
        """Of the key whose public half this is, at `service`."""
        found = self._standings.setdefault((service, public), Standing())
        self._standings.move_to_end((service, public))
        if len(self._standings) > SERVICES_MAX:
            self._standings.popitem(last=False)
        return found
