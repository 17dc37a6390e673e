"""The library's store for our settings."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from jobs.storage.durable import made
from jobs.storage.settings import StorageSettings

if TYPE_CHECKING:
    from obstore.store import AzureStore, GCSStore, LocalStore, S3Store

CONNECT_S = 5


@dataclass(frozen=True, slots=True)
class Opened:
    """`folder`: of a local store, else None.  `where`: as operators know it."""

    library: Any
    store: LocalStore | S3Store | GCSStore | AzureStore
    folder: Path | None
    where: str


def opened(settings: StorageSettings, folder: Path, secret_key: str | None) -> Opened:
    """Nothing is asked of a bucket yet.  OSError: the folder cannot be made.

    The library is loaded here, when it is first needed: a daemon that stores nothing does without its 15 MB.
    """
    library: Any = importlib.import_module("obstore")
    stores: Any = importlib.import_module("obstore.store")
    url = settings.url
    if url is None or settings.scheme == "file":
        folder = made(folder if url is None else Path(unquote(urlsplit(url).path)))
        return Opened(library, stores.LocalStore(folder), folder, str(folder))
    options: dict[str, Any] = {
        "config": _config(settings, secret_key),
        "client_options": {
            "allow_http": settings.allow_http,
            "connect_timeout": timedelta(seconds=CONNECT_S),
            "timeout": timedelta(seconds=settings.timeout),
        },
        "retry_config": {"max_retries": 5, "retry_timeout": timedelta(seconds=settings.retry_for)},
    }
    return Opened(library, stores.from_url(_address(settings, url), **options), None, url)


def _address(settings: StorageSettings, url: str) -> str:
    """As the library writes it: of Azure it takes the account as an option, and the container for the host."""
    return f"az://{urlsplit(url).path.strip('/')}" if settings.scheme == "az" else url


def _config(settings: StorageSettings, secret_key: str | None) -> dict[str, str]:
    """By the names that the library has for each provider."""
    match settings.scheme:
        case "s3":
            given = {
                "access_key_id": settings.access_key,
                "secret_access_key": secret_key,
                "region": settings.region,
                "endpoint": settings.endpoint,
            }
        case "gs":
            given = {"service_account_key": secret_key, "base_url": settings.endpoint}
        case _:
            account = urlsplit(settings.url or "").netloc
            given = {"account_name": account, "account_key": secret_key, "endpoint": settings.endpoint}
    return {name: value for name, value in given.items() if value is not None}
