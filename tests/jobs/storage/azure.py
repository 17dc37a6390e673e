"""Microsoft's emulator of Azure Blob Storage, where it is: `npm install azurite`, and AZURITE=…/bin/azurite-blob."""

from __future__ import annotations

import base64
import hmac
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

import aiohttp
import pytest

from jobs.storage.settings import StorageSettings

AZURITE = os.environ.get("AZURITE") or shutil.which("azurite-blob")
with_azurite = pytest.mark.skipif(AZURITE is None, reason="there is no azurite here")
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Of every such emulator: it stands in its manual."""

VERSION = "2021-12-02"


@dataclass
class Azure:
    """`settings()`: a container of its own each time."""

    url: str
    containers: int = 0

    async def settings(self, **more: Any) -> StorageSettings:
        self.containers += 1
        name = f"box-{self.containers}"
        await self._make(name)
        given = {"url": f"az://{ACCOUNT}/{name}/jobsd", "secret_key": KEY, "endpoint": self.url, "allow_http": True}
        return StorageSettings(**{**given, "retry_for": 0.0, **more})

    async def _make(self, name: str) -> None:
        date = formatdate(usegmt=True)
        said = (
            f"PUT{chr(10) * 12}x-ms-date:{date}\nx-ms-version:{VERSION}\n/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
        )
        mac = base64.b64encode(hmac.digest(base64.b64decode(KEY), said.encode(), "sha256")).decode()
        headers = {"x-ms-date": date, "x-ms-version": VERSION, "Authorization": f"SharedKey {ACCOUNT}:{mac}"}
        async with (
            aiohttp.ClientSession() as client,
            client.put(
                f"{self.url}/{name}?restype=container", headers=headers, skip_auto_headers=["Content-Type"]
            ) as answer,
        ):
            assert answer.status == 201, await answer.text()


@contextmanager
def azurite() -> Iterator[Azure]:
    """For as long as it is open."""
    assert AZURITE is not None
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["--inMemoryPersistence", "--blobHost", "127.0.0.1", "--blobPort", str(port), "--silent"]
    with subprocess.Popen(
        [AZURITE, *options, "--skipApiVersionCheck", "--disableTelemetry"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        assert server.stdout is not None
        try:
            assert any("successfully listens" in line for line in server.stdout)
            yield Azure(f"http://127.0.0.1:{port}/{ACCOUNT}")
        finally:
            server.terminate()
