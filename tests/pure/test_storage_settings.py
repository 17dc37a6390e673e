"""[storage]: what is refused, with the place and the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.config import ConfigError, parse


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('url = "ftp://x"', "url: 'ftp://x' begins with none of file://, s3://, gs://, az://"),
        ('url = "file://srv/jobsd"', 'write it with three slashes: "file:///srv/jobsd"'),
        ('url = "s3:///x"', "names no bucket"),
        ('url = "az://account"', 'names no container; write "az://account/container"'),
        ('url = "s3://key@bucket"', "it holds a key, which belongs to access_key and secret_key"),
        ('endpoint = "http://minio:9000"', "it is http://, which takes allow_http = true"),
        ('endpoint = "minio:9000"', "is no address like"),
        ('public_url = "shop.example"', "public_url: 'shop.example' is no address like"),
        ('public_url = "https://shop.example/?x=1"', "is no address like"),
        ('link_prefixes = ["exports"]', "is no folder like"),
        ('link_prefixes = ["../"]', "is no folder like"),
        ('part_size = "1MiB"', "part_size"),
        ('link_for = "8d"', "link_for"),
    ],
)
def test_settings_that_cannot_work_are_refused(line: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse(f"[storage]\n{line}\n")
    assert said in str(error.value)


@pytest.mark.parametrize(
    "url", ["file:///srv/jobsd", "s3://bucket", "s3://b/p/q", "gs://b", "az://account/container/p"]
)
def test_every_store_can_be_named(url: str) -> None:
    assert parse(f'[storage]\nurl = "{url}"\n').storage.scheme == url.partition(":")[0]


def test_its_key_may_stand_in_a_file_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("hidden\n")
    config = parse(f'[storage]\nurl = "s3://b"\nsecret_key_file = "{file}"\n')
    assert (str(config.storage.secret_key), repr(config.storage.secret_key)) == ("hidden", "Secret(***)")
