"""What cannot be opened is said with its key before anything is."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.config import parse
from daemon.exits import CONFIG, Exit
from daemon.outfit import wanted


@pytest.mark.parametrize("section", ["webhook", "monitor"])
@pytest.mark.parametrize("text", [None, "no certificate"])
def test_a_file_of_certificates_that_cannot_be_used_is_named_with_its_key(
    section: str, text: str | None, tmp_path: Path
) -> None:
    file = tmp_path / "ca.pem"
    if text is not None:
        file.write_text(text)
    with pytest.raises(Exit, match=rf"^{section}\.ca_file: {file} is no PEM file") as raised:
        wanted(parse(f'[{section}]\nca_file = "{file}"\n'))
    assert raised.value.code == CONFIG
