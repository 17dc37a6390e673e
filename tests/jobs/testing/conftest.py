"""What somebody's conftest.py says about their project."""

from __future__ import annotations

import pytest

SCHEMA = """
create table orders (id int primary key, cents int not null);
create table charges (order_id int primary key, charged_at timestamptz not null default now());
create table payments (order_id int not null);
insert into orders values (7, 1999), (8, 500);
"""


@pytest.fixture(scope="session")
def jobs_schema() -> str:
    return SCHEMA


@pytest.fixture
def jobs_handlers() -> list[str]:
    return ["tests.jobs.testing.shop.handlers"]
