"""A real S3 server on loopback, and what a test may do to it behind our back.

Google's store is asked over its XML API, which is S3's but for who asks: so the same server answers for it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from jobs.storage.settings import StorageSettings

App = Callable[..., Any]

AMAZON = "AWS4-HMAC-SHA256 Credential=me/20260101/eu-central-1/s3/aws4_request, SignedHeaders=host, Signature=0"


@cache
def service_account(*, asks_nobody: bool = True) -> str:
    """A key as Google gives it out.  `asks_nobody`: of a server that needs no token."""
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return json.dumps(
        {
            "type": "service_account", "client_email": "jobsd-1@shop.iam.gserviceaccount.com", "private_key": pem,
            "private_key_id": "1", "disable_oauth": asks_nobody,
        }
    )  # fmt: skip


@dataclass
class Faulty:
    """Passes requests on; `refuse` answers the next ones of a method with a status instead, `slow` takes so many
    seconds for each MiB that is read."""

    app: App
    refuse: dict[str, int] = field(default_factory=dict)
    slow: float = 0.0
    seen: list[tuple[str, str]] = field(default_factory=list)

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        method = environ["REQUEST_METHOD"]
        if environ["PATH_INFO"].startswith("/google"):
            environ["HTTP_AUTHORIZATION"] = AMAZON  # the server goes by it, and verifies none
        self.seen.append((method, f"{environ['PATH_INFO']}?{environ.get('QUERY_STRING', '')}"))
        if status := self.refuse.get(method):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start(f"{status} Refused", [("Content-Type", "application/xml")])
            return [b"<Error><Code>AccessDenied</Code><Message>not for you</Message></Error>"]
        answer = self.app(environ, start)
        return self._slowly(answer) if self.slow and method == "GET" else answer

    def _slowly(self, answer: Any) -> Iterator[bytes]:
        content = b"".join(answer)
        for begin in range(0, len(content), 1 << 18):
            time.sleep(self.slow / 4)
            yield content[begin : begin + (1 << 18)]


@dataclass
class S3:
    """`settings()`: a bucket of its own each time."""

    url: str
    faults: Faulty
    buckets: int = 0

    def settings(self, **more: Any) -> StorageSettings:
        self.buckets += 1
        name = f"bucket-{self.buckets}"
        self._make(name)
        given = {"access_key": "me", "secret_key": "not-very-secret", "region": "eu-central-1", "endpoint": self.url}
        return StorageSettings(**{**given, "url": f"s3://{name}/jobsd", "allow_http": True, "retry_for": 0.0, **more})

    def of_google(self, **more: Any) -> StorageSettings:
        """The same, as Google Cloud Storage."""
        self.buckets += 1
        name = f"google{self.buckets}"  # the server takes a `-` for itself alone, and Google's client writes it %2D
        self._make(name)
        given = {"url": f"gs://{name}/jobsd", "secret_key": service_account(), "endpoint": self.url, "allow_http": True}
        return StorageSettings(**{**given, "retry_for": 0.0, **more})

    def _make(self, name: str) -> None:
        from moto.core.models import DEFAULT_ACCOUNT_ID
        from moto.s3.models import s3_backends

        s3_backends[DEFAULT_ACCOUNT_ID]["aws"].create_bucket(name, "eu-central-1")


@contextmanager
def s3_server() -> Iterator[S3]:
    """For as long as it is open.  Its library takes half a second, which is why nobody imports it before."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    faults = Faulty(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, faults, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield S3(f"http://127.0.0.1:{server.server_port}", faults)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
