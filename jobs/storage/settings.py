"""What the operator decides about storage: where it is, and for how long links to it are good."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from jobs.values import Duration, Secret, Size, duration, key, size

SCHEMES = ("file", "s3", "gs", "az")
LONGEST_LINK_S = 7 * 86400.0
"""No store signs a link for longer."""

SMALLEST_PART = 5 * 1024 * 1024
"""What S3 takes for a part of an object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageSettings:
    """The `[storage]` section."""

    url: str | None = key(
        None,
        '"s3://bucket/prefix", "gs://bucket/prefix", "az://account/container/prefix" or "file:///folder"; '
        "unset: the folder storage under daemon.state_dir.",
    )
    endpoint: str | None = key(
        None, 'The server to ask, where it is not the provider\'s own: "https://minio.shop.example".'
    )
    region: str | None = key(None, "The bucket's region (S3).")
    access_key: str | None = key(
        None, "The access key's id (S3); unset: what the environment or the machine's own role gives."
    )
    secret_key: Secret | None = key(
        None, "The secret access key (S3), the account's key (Azure), or the service account's JSON (Google)."
    )
    allow_http: bool = key(False, "Whether the endpoint may be asked without TLS.")
    part_size: Size = key(
        size("5MiB"), "An object is sent in parts of this size; two are in memory.", minimum=SMALLEST_PART
    )
    timeout: Duration = key(duration("1m"), "Longest time for one request to the store.", minimum=0.1, maximum=3600)
    retry_for: Duration = key(
        duration("30s"), "A request that fails is made again for so long, before the job is.", minimum=0, maximum=600
    )
    public_url: str | None = key(
        None,
        "Where strangers reach /files/ of this daemon's admin address, for links to a local folder: "
        '"https://shop.example".',
    )
    link_secrets: tuple[Secret, ...] | None = key(
        None, "Secrets that links to a local folder are signed with; the first one signs, each is believed."
    )
    link_for: Duration = key(
        duration("7d"), "How long a link is good, where its job does not say.", minimum=60, maximum=LONGEST_LINK_S
    )
    link_prefixes: tuple[str, ...] = key(("exports/",), "Links are made and served for what lies under these alone.")

    def __post_init__(self) -> None:
        if self.url is not None:
            _check_url(self.url)
        if self.endpoint is not None:
            _check_page("endpoint", self.endpoint)
            if self.endpoint.startswith("http:") and not self.allow_http:
                raise ValueError("endpoint: it is http://, which takes allow_http = true")
        if self.public_url is not None:
            _check_page("public_url", self.public_url)
        for prefix in self.link_prefixes:
            if not prefix.endswith("/") or prefix.startswith("/") or ".." in PurePosixPath(prefix).parts:
                raise ValueError(f'link_prefixes: {prefix!r} is no folder like "exports/"')

    @property
    def scheme(self) -> str:
        return "file" if self.url is None else urlsplit(self.url).scheme


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise ValueError(f"url: {url!r} begins with none of {', '.join(f'{scheme}://' for scheme in SCHEMES)}")
    if parts.scheme == "file" and (parts.netloc or not parts.path.startswith("/")):
        raise ValueError(f'url: {url!r} names no folder; write it with three slashes: "file:///srv/jobsd"')
    if parts.scheme != "file" and not parts.netloc:
        raise ValueError(f"url: {url!r} names no bucket")
    if parts.scheme == "az" and not parts.path.strip("/"):
        raise ValueError(f'url: {url!r} names no container; write "az://account/container"')
    if "@" in parts.netloc:
        raise ValueError("url: it holds a key, which belongs to access_key and secret_key")


def _check_page(name: str, url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f'{name}: {url!r} is no address like "https://shop.example"')
