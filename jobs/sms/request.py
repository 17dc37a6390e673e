"""The request that a provider understands: its form or its JSON, filled in."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from jobs.secrets import PREFIX as SECRET_REFERENCE
from jobs.sms.settings import PLACEHOLDER, ProviderSettings
from jobs.webhook.attempt import Message
from jobs.webhook.headers import check
from jobs.webhook.target import Target

Secret = Callable[[str], str]
"""The text itself, or what its secret://NAME stands for."""


def request(
    provider: ProviderSettings,
    message: Mapping[str, str],
    *,
    secret: Secret,
    target: Callable[[str], Target],
    user_agent: str,
) -> Message:
    """`message` has a value for each placeholder; `target` judges a URL.  BadHeader for one that cannot be sent."""

    def filled(text: str) -> str:
        """In one pass: what a text or a secret says is no placeholder."""
        if text.startswith(SECRET_REFERENCE):
            return secret(text)
        return PLACEHOLDER.sub(lambda match: message[match[1]], text)

    headers = {"user-agent": user_agent, "accept": "application/json", "accept-encoding": "identity"}
    given = {name.lower(): filled(value) for name, value in provider.headers.items()}
    if given:
        check(given)
    if provider.password is not None:
        headers["authorization"] = _authorization(provider.username, secret(provider.password))
    url, body = provider.url, b""
    if provider.json is not None:
        headers["content-type"] = "application/json"
        body = json.dumps(_everywhere(provider.json_body, filled), ensure_ascii=False).encode("utf-8", "replace")
    else:
        form = urlencode({name: filled(value) for name, value in provider.form.items()}, errors="replace")
        if provider.method == "GET":
            url += ("&" if "?" in url else "?") + form
        else:
            headers["content-type"] = "application/x-www-form-urlencoded"
            body = form.encode()
    return Message(target(url), headers | given, body, method=provider.method, once=not provider.may_repeat)


def _authorization(username: str | None, password: str) -> str:
    if username is None:
        return f"Bearer {password}"
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


def _everywhere(value: Any, filled: Callable[[str], str]) -> Any:
    match value:
        case str():
            return filled(value)
        case dict():
            return {name: _everywhere(member, filled) for name, member in value.items()}
        case list():
            return [_everywhere(member, filled) for member in value]
    return value
