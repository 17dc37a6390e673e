"""`ctx.http` that goes nowhere: requests are kept, replies are canned."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx2

REQUESTS_MAX = 100_000
Reply = httpx2.Response | Exception | Callable[[httpx2.Request], httpx2.Response]


@dataclass(frozen=True, slots=True)
class Sent:
    """One request that a handler made."""

    method: str
    url: str
    headers: Mapping[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return httpx2.Response(200, content=self.content).json()


@dataclass(slots=True)
class _Rule:
    method: str
    url: re.Pattern[str]
    replies: deque[Reply]


class FakeHttp:
    """`requests` are what was asked; `reply` says what is answered.  What nobody has an answer for gets `200 {}`, or
    fails where `strict` is set."""

    def __init__(self, *, strict: bool = False) -> None:
        self.requests: list[Sent] = []
        self.strict = strict
        self._rules: list[_Rule] = []
        self.client = httpx2.AsyncClient(transport=httpx2.MockTransport(self._answer))

    def reply(
        self,
        url: str,
        *replies: Reply | int,
        method: str = "*",
        json: Any = None,
        text: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Answer requests to `url` (`*` stands for anything): by `replies` in turn, of which the last is repeated.

        Each is a status, which gets `json` or `text` as its body, a response, an exception to raise, or a function of
        the request.  Of several rules that fit, the latest counts.
        """
        given = replies or (200,)
        made = [_response(r, json, text, headers) if isinstance(r, int) else r for r in given]
        pattern = re.compile(".*".join(re.escape(part) for part in url.split("*")))
        self._rules.insert(0, _Rule(method.upper(), pattern, deque(made)))

    def clear(self) -> None:
        """Forget the requests; the replies stay."""
        self.requests.clear()

    async def aclose(self) -> None:
        await self.client.aclose()

    async def _answer(self, request: httpx2.Request) -> httpx2.Response:
        url = str(request.url)
        sent = Sent(request.method, url, dict(request.headers), await request.aread())
        await asyncio.sleep(0)  # where a worker may die with its request unsent
        if len(self.requests) >= REQUESTS_MAX:
            raise AssertionError(f"over {REQUESTS_MAX:,} requests were made")
        self.requests.append(sent)
        await asyncio.sleep(0)  # and here with its reply unread
        for rule in self._rules:
            if rule.method in ("*", request.method) and rule.url.fullmatch(url):
                return _given(rule.replies.popleft() if len(rule.replies) > 1 else rule.replies[0], request)
        if self.strict:
            raise AssertionError(f"no reply was given for {request.method} {url}")
        return httpx2.Response(200, json={})


def _given(reply: Reply, request: httpx2.Request) -> httpx2.Response:
    if isinstance(reply, Exception):
        raise reply
    if isinstance(reply, httpx2.Response):  # a response can be read once
        return httpx2.Response(reply.status_code, headers=reply.headers, content=reply.content)
    return reply(request)


def _response(status: int, json: Any, text: str | None, headers: Mapping[str, str] | None) -> httpx2.Response:
    if text is not None:
        return httpx2.Response(status, text=text, headers=headers)
    return httpx2.Response(status, json={} if json is None else json, headers=headers)
