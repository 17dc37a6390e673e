"""Storages to test with: a folder, and buckets of real servers."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.secrets import Secrets
from jobs.storage.settings import StorageSettings
from jobs.storage.storage import Storage
from tests.jobs.storage.azure import Azure, azurite, with_azurite
from tests.jobs.storage.bucket import S3, s3_server

LINKED = {"public_url": "https://shop.example", "link_secrets": ("secret://links",)}
ENV = {"JOBSD_SECRET_LINKS": "a secret that is long enough", "JOBSD_SECRET_OLD": "another secret, from last year"}


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """One for the session: it takes half a second to load."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with s3_server() as server:
        yield server


@pytest.fixture
def secrets() -> Secrets:
    return Secrets((), ENV)


@pytest.fixture
def local(tmp_path: Path, secrets: Secrets) -> Storage:
    return Storage(StorageSettings(**LINKED), tmp_path / "storage", secrets)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def azure() -> Iterator[Azure]:
    """One for the session: it takes three seconds to start."""
    with azurite() as server:
        yield server


@pytest.fixture(
    params=[
        "folder",
        "s3",
        "google",
        pytest.param("azure", marks=with_azurite),
    ]
)
async def storage(request: pytest.FixtureRequest, secrets: Secrets, tmp_path: Path) -> Storage:
    """Every promise holds for each."""
    if request.param == "folder":
        local: Storage = request.getfixturevalue("local")
        return local
    if request.param == "azure":
        azure: Azure = request.getfixturevalue("azure")
        return Storage(await azure.settings(), tmp_path, secrets)
    s3: S3 = request.getfixturevalue("s3")
    return Storage(s3.settings() if request.param == "s3" else s3.of_google(), tmp_path, secrets)
