"""What a monitor looks at, read from one URL: https, http, tcp, tls, smtp, smtps or dns."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal
from urllib.parse import parse_qs, unquote, urlsplit

from jobs.dns import names
from jobs.webhook import target as web

Scheme = Literal["https", "http", "tcp", "tls", "smtp", "smtps", "dns"]

PORTS = {"https": 443, "http": 80, "tcp": None, "tls": 443, "smtp": 25, "smtps": 465, "dns": 53}
TYPES = ("A", "AAAA", "CAA", "CNAME", "MX", "NS", "PTR", "SOA", "SRV", "TXT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """`host` and `port` are where to connect; of dns, the name server ("": those of `[dns]`), and then `name` and
    `type` are what it is asked.  `path` and `authority` are a web request's."""

    scheme: Scheme
    host: str
    port: int
    path: str = ""
    authority: str = ""
    name: str = ""
    type: str = ""


def parse(text: str) -> Target:
    """The target of `text`; ValueError says what is wrong with it."""
    scheme = text.partition(":")[0].lower()
    match scheme:
        case "https" | "http":
            return _web(text)
        case "dns":
            return _dns(text)
        case "tcp" | "tls" | "smtp" | "smtps":
            return _line(text, scheme)
    raise ValueError(f"{text!r} is nothing that can be monitored; begin with {', '.join(f'{s}:' for s in PORTS)}")


def _web(text: str) -> Target:
    found = web.parse(text)
    url = found.url
    return Target(
        scheme="https" if found.scheme == "https" else "http",
        host=found.host,
        port=found.port,
        path=url.raw_path_qs,
        authority=url.raw_authority,
    )


def _line(text: str, scheme: Literal["tcp", "tls", "smtp", "smtps"]) -> Target:
    parts = urlsplit(text)
    if parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError(f"{text!r}: {scheme}://host:port is all there is to it")
    port = _port(PORTS[scheme] if parts.port is None else parts.port, text)
    return Target(scheme=scheme, host=_host(parts.hostname, text), port=port)


def _dns(text: str) -> Target:
    """RFC 4501: dns:name?type=MX, or dns://server:port/name?type=MX."""
    parts = urlsplit(text)
    query = parse_qs(parts.query, keep_blank_values=True)
    rdtype = query.pop("type", ["A"])[0].upper()
    if query or parts.fragment:
        raise ValueError(f"{text!r}: type is all that can be asked for, as in dns:example.org?type=MX")
    if rdtype not in TYPES:
        raise ValueError(f"{text!r}: {rdtype!r} is no type that is looked at; those are {', '.join(TYPES)}")
    server = ""
    if parts.netloc:
        server = parts.hostname or ""
        try:
            ip_address(server)
        except ValueError:
            raise ValueError(f"{text!r}: a name server is an address, as in dns://192.0.2.1/example.org") from None
    name = names.normal(unquote(parts.path.removeprefix("/")))
    port = 53 if parts.port is None else _port(parts.port, text)
    return Target(scheme="dns", host=server, port=port, name=name, type=rdtype)


def _host(host: str | None, text: str) -> str:
    if not host:
        raise ValueError(f"{text!r} names no host")
    try:
        ip_address(host)
    except ValueError:
        return names.normal(host)
    return host


def _port(port: int | None, text: str) -> int:
    if port is None or not 1 <= port <= 65535:
        raise ValueError(f"{text!r} needs a port from 1 to 65535, as in tcp://db.example.org:5432")
    return port
