from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from tests.jobs.email.certificate import Certificate, make


@pytest.fixture(scope="session")
def certificate_for(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Certificate]:
    """Makes one that is valid for the address given."""
    return partial(make, tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def certificate(certificate_for: Callable[[str], Certificate]) -> Certificate:
    return certificate_for("127.0.0.1")
