"""What one request saw on its way, noted by the parts of the HTTP client that see it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from time import monotonic


@dataclass(slots=True)
class Trip:
    """Kept small: a connection's callbacks hold the context, and so the trip, that opened it for as long as it lives.

    `dialled`: a socket was made, so the connection was not out of the pool.  `tls_from`: when its TLS handshake began.
    `tunnelled`: a proxy said that it is connected to the server.  `sent_at`: when a connection stood and writing began;
    None means that no byte of the request left.  `address` is the peer's, for operators only.
    """

    started_at: float = field(default_factory=monotonic)
    phases_s: dict[str, float] = field(default_factory=dict)
    dialled: bool = False
    tunnelled: bool = False
    was_blocked: bool = False
    resolving: bool = False
    tls_from: float | None = None
    sent_at: float | None = None
    address: str | None = None

    @property
    def reused(self) -> bool:
        """The request went out on a connection that had been idle in the pool."""
        return self.sent_at is not None and not self.dialled

    def shaking_hands(self) -> None:
        """There is a connection, and its TLS handshake begins."""
        self.tls_from = monotonic()

    def sending(self, peer: str | None) -> None:
        """A connection to `peer` stands, TLS included, and the request's first byte is about to leave."""
        self.sent_at = monotonic()
        self.address = peer
        connected_at = self.sent_at
        if self.tls_from is not None:
            connected_at = self.tls_from
            self.phases_s["tls"] = self.sent_at - connected_at
        self.phases_s["connect"] = max(0.0, connected_at - self.started_at - self.phases_s.get("dns", 0.0))

    def answered(self) -> None:
        """The response's head is here."""
        if self.sent_at is not None:
            self.phases_s["first_byte"] = monotonic() - self.sent_at

    def ended(self) -> None:
        """The response's body is here, or will not come."""
        if self.sent_at is not None:
            self.phases_s["body"] = monotonic() - self.sent_at - self.phases_s.get("first_byte", 0.0)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Note how long the block took, also when it fails."""
        began = monotonic()
        try:
            yield
        finally:
            self.phases_s[name] = monotonic() - began


_CURRENT: ContextVar[Trip] = ContextVar("trip")


def begin() -> Trip:
    """The trip of the request this task makes next."""
    trip = Trip()
    _CURRENT.set(trip)
    return trip


def current() -> Trip:
    """The running request's trip.  The client's own sub-tasks inherit it with their context."""
    return _CURRENT.get()
