"""The headers of a delivery: what a row may set, what it may not, and what is added."""

from __future__ import annotations

import re
from collections.abc import Mapping

from jobs.webhook.signing import SIGNATURE_HEADERS

MAX_HEADERS = 64
MAX_BYTES = 8 * 1024

# Set by us or by the HTTP client.  A row that could set them would choose another virtual host, smuggle a second
# request past a proxy, or forge the signature.
RESERVED = frozenset(
    [
        *("accept-encoding", "connection", "content-length", "expect", "host", "http2-settings", "keep-alive"),
        *("proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding"),
        "upgrade",
        *SIGNATURE_HEADERS,
    ]
)
RESERVED_PREFIX = "webhook-"

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")  # RFC 9110: token
_VALUE = re.compile(r"[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?|")  # RFC 9110: field-value, without obs-text
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")  # W3C Trace Context
_CORRELATION = re.compile(r"[\x21-\x7e]{1,256}")


class BadHeader(ValueError):
    """A header that must not be sent.  The message names it and never shows its value."""


def check(headers: Mapping[str, str]) -> None:
    """BadHeader for the first one that is reserved, given twice, or no header by RFC 9110; or if they are too many."""
    if len(headers) > MAX_HEADERS:
        raise BadHeader(f"headers: {len(headers)} are more than {MAX_HEADERS}")
    if sum(len(name) + len(value) + 4 for name, value in headers.items()) > MAX_BYTES:
        raise BadHeader(f"headers: together more than {MAX_BYTES} bytes")
    seen: set[str] = set()
    for name, value in headers.items():
        lower = name.lower()
        if not _NAME.fullmatch(name):
            raise BadHeader(f"headers: {name[:64]!r} is no header name")
        if lower in RESERVED or lower.startswith(RESERVED_PREFIX):
            raise BadHeader(f"headers: {lower} is reserved")
        if lower in seen:
            raise BadHeader(f"headers: {lower} is given twice")
        if not _VALUE.fullmatch(value):
            raise BadHeader(f"headers: the value of {lower} has characters that no header may have")
        seen.add(lower)


def outgoing(
    given: Mapping[str, str],
    *,
    user_agent: str,
    content_type: str,
    message_id: str,
    timestamp: int,
    signatures: Mapping[str, str],
    traceparent: str | None,
    correlation_id: str | None,
) -> dict[str, str]:
    """Every header of one attempt but Host and Content-Length.  `given` has passed `check` and wins over what is only a
    default; identifiers of the row that are not well-formed stay behind."""
    headers = {"content-type": content_type, "user-agent": user_agent, "accept": "*/*"}
    if traceparent and _TRACEPARENT.fullmatch(traceparent):
        headers["traceparent"] = traceparent
    if correlation_id and _CORRELATION.fullmatch(correlation_id):
        headers["x-correlation-id"] = correlation_id
    for name, value in given.items():
        headers[name.lower()] = value
    headers["accept-encoding"] = "identity"
    headers["webhook-id"] = message_id
    headers["webhook-timestamp"] = str(timestamp)
    headers.update(signatures)
    return headers
