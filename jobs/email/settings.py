"""What the operator decides about mail: who it comes from, and through which relays it goes."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Any

from jobs.email.address import mailbox, wire_domain
from jobs.email.dkim_settings import DkimSettings
from jobs.email.forward_settings import ForwardSettings
from jobs.values import Duration, Rate, Secret, Size, key

_URL = re.compile(r"https://[A-Za-z0-9.:\[\]-]+(?:/[!$-;=@-Z_a-z~]*)?")  # neither query nor fragment
MAIN = "main"
"""The relay of mail that names none."""

MOST_AT_ONCE = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RelaySettings:
    """One `[email.relays.NAME]` section."""

    host: str = key(doc="Name or address of the relay; its certificate must be for this name.")
    port: int = key(587, "Port of the relay; with implicit TLS it is usually 465.", minimum=1, maximum=65535)
    tls: str = key(
        "required",
        "required: STARTTLS or nothing is sent; implicit: TLS from the first byte; none: in the clear.",
        choices=("required", "implicit", "none"),
    )
    username: str | None = key(None, "Account to log in with; none: no login.")
    password: Secret | None = key(None, "Its password, or secret://NAME.")
    password_file: str | None = key(None, "File that holds the password; read at each login.")
    verify_certificate: bool = key(True, "Whether the relay must show a certificate that is valid for its host name.")
    ca_file: str | None = key(None, "Certificates (PEM) to trust instead of the system's.")
    helo: str | None = key(None, "Name given in EHLO; the host's own by default.")
    connections: int = key(5, "Connections held to this relay at most.", minimum=1, maximum=1000)
    messages_per_connection: int = key(100, "Messages after which a connection is renewed.", minimum=1)
    pipelining: bool = key(
        True, "Whether commands are sent together where the relay offers it (RFC 2920): several times the speed."
    )
    recipients_per_message: int = key(
        50, "Recipients handed over at once; more are sent in several turns.", minimum=1, maximum=1000
    )
    idle: Duration = key(Duration(30.0), "How long an unused connection is kept.", minimum=0, maximum=3600)
    connect_timeout: Duration = key(
        Duration(30.0), "Limit for connecting, for the greeting and for the TLS handshake.", minimum=0.01
    )
    command_timeout: Duration = key(
        Duration(300.0), "Limit for the reply to EHLO, AUTH, MAIL or RCPT (RFC 5321: 5 min).", minimum=0.01
    )
    data_timeout: Duration = key(
        Duration(120.0), "Limit for the reply to DATA, and for each 64 KiB of the message.", minimum=0.01
    )
    final_timeout: Duration = key(
        Duration(600.0),
        "Limit for the reply to the message; shorter means duplicates (RFC 5321: 10 min).",
        minimum=0.01,
    )
    rate: Rate | None = key(None, "Messages this relay takes; each hand-over counts as one.")
    burst: int | None = key(None, "How many of `rate` may go at once; by default all of one period.", minimum=1)
    fallback: tuple[str, ...] = key(
        (),
        "Relays that take its mail, in this order, while it cannot be reached, refuses the login or has no quota left.",
    )

    def __post_init__(self) -> None:
        if not self.host or any(c.isspace() or not c.isprintable() for c in self.host):
            raise ValueError(f"host: {self.host!r} is no host name")
        if self.password is not None and self.password_file is not None:
            raise ValueError("password: it is set together with password_file; keep one of them")
        if (self.username is None) != (self.password is None and self.password_file is None):
            raise ValueError("username: a login takes both a username and a password (or password_file)")
        if self.helo is not None and not (self.helo.isascii() and self.helo.isprintable() and " " not in self.helo):
            raise ValueError(f"helo: {self.helo!r} is no host name")
        if self.rate is not None and self.rate.count > MOST_AT_ONCE:
            raise ValueError(f"rate: {self.rate} is too many to count; write it for a shorter period")
        if self.burst is not None and self.rate is None:
            raise ValueError("burst: it says how `rate` may be spent, and there is no rate")
        _check_bounds(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmailSettings:
    """The `[email]` section."""

    from_: str | None = key(None, 'Sender of mail that names none: "Shop <no-reply@shop.example>".', name="from")
    message_id_domain: str | None = key(None, "Right side of the Message-ID; by default the sender's domain.")
    bounce_domain: str | None = key(
        None, "Domain whose mail reaches rows of kind email_bounce; the envelope's sender is an address of it then."
    )
    unsubscribe_url: str | None = key(
        None, 'https:// address that takes people off a list, by a POST with "?token=…" after it.'
    )
    token_secrets: tuple[Secret, ...] | None = key(
        None, "Secrets, or secret://NAME, that those addresses are signed with: the first signs, all are believed."
    )
    max_size: Size = key(Size(10 * 1024**2), "Largest message, encoded, that is handed to a relay.", minimum=1024)
    dkim_unsigned: tuple[str, ...] = key(
        (), 'Headers that signatures leave out, since the relay rewrites them; Amazon SES: ["Date", "Message-ID"].'
    )
    forward: ForwardSettings = key(factory=ForwardSettings, doc="Mail that is forwarded: rows of email_forwards.")
    relays: dict[str, RelaySettings] = key(factory=dict, doc="The relays by name; `main` is for mail that names none.")
    dkim: dict[str, DkimSettings] = key(factory=dict, doc="Keys that sign mail by DKIM, each under a name of its own.")

    def __post_init__(self) -> None:
        try:
            if self.from_ is not None:
                mailbox(self.from_)
        except ValueError as error:
            raise ValueError(f"from: {error}") from None
        try:
            if self.message_id_domain is not None:
                wire_domain(self.message_id_domain)
        except ValueError as error:
            raise ValueError(f"message_id_domain: {error}") from None
        try:
            if self.bounce_domain is not None:
                wire_domain(self.bounce_domain)
        except ValueError as error:
            raise ValueError(f"bounce_domain: {error}") from None
        if self.unsubscribe_url is not None and not _URL.fullmatch(self.unsubscribe_url):
            raise ValueError('unsubscribe_url: is no address like "https://shop.example/unsubscribe"')
        if not self.token_secrets and (self.bounce_domain or self.unsubscribe_url):
            which = "bounce_domain" if self.bounce_domain else "unsubscribe_url"
            raise ValueError(f"{which}: nothing could be signed without token_secrets")
        places = [(one.domain.lower(), one.selector.lower()) for one in self.dkim.values()]
        if twice := next((place for place in places if places.count(place) > 1), None):
            raise ValueError(f"dkim: two keys have the selector {twice[1]!r} of {twice[0]!r}; give each one its own")
        if "from" in {name.lower() for name in self.dkim_unsigned}:
            raise ValueError("dkim_unsigned: a signature without From is none")
        if self.relays and MAIN not in self.relays:
            raise ValueError(f"relays: none is called {MAIN!r}; mail that names no relay goes through that one")
        for name, relay in self.relays.items():
            _check_fallback(name, relay, self.relays)
        _check_bounds(self)


def _check_fallback(name: str, relay: RelaySettings, relays: Collection[str]) -> None:
    for number, other in enumerate(relay.fallback):
        if other == name:
            raise ValueError(f"relays: {name}.fallback names the relay itself")
        if other not in relays:
            known = ", ".join(sorted(relays))
            raise ValueError(f"relays: {name}.fallback names {other!r}, and no relay is called that; there are {known}")
        if other in relay.fallback[:number]:
            raise ValueError(f"relays: {name}.fallback names {other!r} twice")


def _check_bounds(settings: Any) -> None:
    for field in fields(settings):
        low, high, choices = (field.metadata[m] for m in ("minimum", "maximum", "choices"))
        value = getattr(settings, field.name)
        if choices and value not in choices:
            raise ValueError(f"{field.name}: {value!r} is none of {', '.join(choices)}")
        if value is not None and low is not None and value < low:
            raise ValueError(f"{field.name}: {value} is less than {low}")
        if value is not None and high is not None and value > high:
            raise ValueError(f"{field.name}: {value} is more than {high}")
