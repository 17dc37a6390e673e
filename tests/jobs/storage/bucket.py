"""A real S3 server on loopback, and what a test may do to it behind our back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from jobs.storage.settings import StorageSettings

App = Callable[..., Any]


@dataclass
class Faulty:
    """Passes requests on; `refuse` answers the next ones of a method with a status instead."""

    app: App
    refuse: dict[str, int] = field(default_factory=dict)
    seen: list[tuple[str, str]] = field(default_factory=list)

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        method = environ["REQUEST_METHOD"]
        self.seen.append((method, f"{environ['PATH_INFO']}?{environ.get('QUERY_STRING', '')}"))
        if status := self.refuse.get(method):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start(f"{status} Refused", [("Content-Type", "application/xml")])
            return [b"<Error><Code>AccessDenied</Code><Message>not for you</Message></Error>"]
        return self.app(environ, start)


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
