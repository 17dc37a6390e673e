"""The demo's webhook receiver: verifies Standard Webhooks signatures, and fails in the ways real receivers do."""

from __future__ import annotations

import hmac
import time
from collections import Counter
from collections.abc import Mapping

from aiohttp import web

from daemon.demo_moods import MOST, FirstTime
from jobs.webhook.signing import decode_secret, sign

TOLERANCE_S = 300
"""How old or new a signature's time may be (Standard Webhooks leaves it open; its libraries take five minutes)."""

BUSY_S = 3

SYSTEMS = ("crm", "ledger", "stock")
"""Receivers that have an endpoint each."""


class WebhookSink:
    """POST /orders: 204 · /flaky: 503, then 204 · /busy: 503 with Retry-After, then 204 · /gone: 410 · /broken: 500 ·
    /crm, /ledger, /stock: 204, or 500 while they are among the `broken`.

    A message that is signed must be signed right, or it is a 401; `verified` counts those that were, and `heard` what
    came to the last three, by the webhook-id.
    """

    def __init__(self, secret: str) -> None:
        self._key = decode_secret(secret)
        self._is_first = FirstTime()
        self._runner: web.AppRunner | None = None
        self.verified = 0
        self.broken: set[str] = set()
        self.heard: dict[str, Counter[str]] = {name: Counter() for name in SYSTEMS}

    async def start(self, host: str, port: int) -> int:
        """Listen; the port.  OSError: it is taken."""
        app = web.Application(client_max_size=1024**2)
        app.router.add_post("/{path:.*}", self._take)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner
        found: int = runner.addresses[0][1]
        return found

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        if "webhook-signature" in request.headers:
            if not is_signed(self._key, request.headers, body, time.time()):
                return web.Response(status=401, text="the signature is not right")
            self.verified += 1
        return self._answer(request.path, request.headers.get("webhook-id", ""))

    def _answer(self, path: str, message_id: str) -> web.Response:
        match path:
            case "/orders":
                return web.Response(status=204)
            case "/flaky":
                if self._is_first(message_id):
                    return web.Response(status=503, text="try again")
                return web.Response(status=204)
            case "/busy":
                if self._is_first(message_id):
                    return web.Response(status=503, headers={"Retry-After": str(BUSY_S)}, text="too much to do")
                return web.Response(status=204)
            case "/gone":
                return web.Response(status=410, text="nobody wants this any more")
            case "/broken":
                return web.Response(status=500, text="out of order")
        if (name := path.removeprefix("/")) in SYSTEMS:
            return self._hear(name, message_id)
        return web.Response(
            status=404, text=f"there are /orders, /flaky, /busy, /gone, /broken, /{', /'.join(SYSTEMS)}"
        )

    def _hear(self, name: str, message_id: str) -> web.Response:
        if name in self.broken:
            return web.Response(status=500, text="out of order")
        if len(self.heard[name]) >= MOST:
            self.heard[name].clear()
        self.heard[name][message_id] += 1
        return web.Response(status=204)


def is_signed(key: bytes, headers: Mapping[str, str], body: bytes, now: float) -> bool:
    """Whether `body` was signed with `key`, lately: what every receiver should do with the raw bytes."""
    message_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not (timestamp.isascii() and timestamp.isdigit()) or abs(now - int(timestamp[:12])) > TOLERANCE_S:
        return False
    expected = sign([key], message_id, int(timestamp), body).encode()
    given = headers.get("webhook-signature", "").encode().split()
    return any(hmac.compare_digest(expected, one) for one in given)
