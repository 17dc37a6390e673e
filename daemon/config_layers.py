"""Lays what was given over what is shipped: defaults < profile < credential < file < environment < command line."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from typing import Any

from daemon.config_check import Problem
from daemon.config_env import NOT_SETTINGS, PREFIX, UnknownVariable, text_value, variable_given
from daemon.config_schema import find
from daemon.config_tree import (
    CREDENTIAL_RANK,
    DATABASE_URL_RANK,
    DEFAULT,
    ENV_RANK,
    OVERRIDE,
    PROFILE,
    Given,
    Origin,
    Table,
    value_table,
)
from daemon.work_settings import SHIPPED

CREDENTIAL = "database-url"

_A_LADDER_REPLACES = ("backoff", "delay", "max_delay")


def systemd_layer(env: Mapping[str, str]) -> Table:
    """What the unit passes on: the state folder, and the credential `database-url`."""
    table = Table(DEFAULT)
    if folder := env.get("STATE_DIRECTORY", "").split(":")[0]:
        table.put(("daemon", "state_dir"), Given(folder, Origin("env STATE_DIRECTORY", CREDENTIAL_RANK)))
    if folder := env.get("CREDENTIALS_DIRECTORY", ""):
        path = os.path.join(folder, CREDENTIAL)
        if os.path.isfile(path):
            given = Given(path, Origin(f"credential {CREDENTIAL}", CREDENTIAL_RANK))
            table.put(("database", "dsn_file"), given)
    return table


def environment_layer(env: Mapping[str, str], root: type[Any], file: Table) -> tuple[Table, list[Problem]]:
    """DATABASE_URL and every JOBSD_ variable; those that are no settings are problems."""
    table, problems = Table(DEFAULT), []
    if url := env.get("DATABASE_URL"):
        table.put(("database", "dsn"), Given(url, Origin("env DATABASE_URL", DATABASE_URL_RANK)))
    for name in sorted(env):
        if not name.startswith(PREFIX) or name.startswith(NOT_SETTINGS):
            continue
        try:
            table.put(*variable_given(name, env[name], root, file))
        except UnknownVariable as unknown:
            problems.append(Problem(Origin(f"env {name}", ENV_RANK), "", str(unknown)))
    return table, problems


def override_layer(overrides: Mapping[str, Any], root: type[Any]) -> tuple[Table, list[Problem]]:
    """Settings by dotted path, `queues."org:*".concurrency`; text is read like a variable's, tables may be mappings."""
    table, problems = Table(OVERRIDE), []
    for dotted, value in overrides.items():
        if not (path := _path(dotted)):
            problems.append(Problem(OVERRIDE, dotted, "is no path of a setting, like queues.default.concurrency"))
        elif isinstance(value, Mapping):
            table = value_table(_nested(path, value), OVERRIDE).lay_over(table)
        else:
            key = find(root, path)
            read = text_value(key, value) if key and isinstance(value, str) else value
            table.put(path, Given(read, OVERRIDE))
    return table, problems


def profile_of(given: Table) -> str:
    """The profile asked for, as far as there is such a one."""
    item = given.items.get("profile")
    return "production" if isinstance(item, Given) and item.value == "production" else "development"


def shipped_layer(profile: str, given: Table) -> Table:
    """The shipped queues; where a ladder was given for one, without the backoff it takes the place of."""
    shipped = value_table(SHIPPED[profile], PROFILE if profile == "production" else DEFAULT)
    queues, given_queues = shipped.items["queues"], given.items.get("queues")
    if isinstance(queues, Table) and isinstance(given_queues, Table):
        for name, queue in given_queues.items.items():
            below = queues.items.get(name)
            ladder = queue.items.get("retry") if isinstance(queue, Table) else None
            if isinstance(ladder, Given) and ladder.value and isinstance(below, Table):
                below.items = {k: v for k, v in below.items.items() if k not in _A_LADDER_REPLACES}
    return shipped


def _path(dotted: str) -> tuple[str, ...]:
    try:
        inner: Any = tomllib.loads(f"{dotted} = 0")
    except ValueError:
        return ()
    path: tuple[str, ...] = ()
    while isinstance(inner, dict) and len(inner) == 1:
        ((name, inner),) = inner.items()
        path = (*path, name)
    return path if inner == 0 else ()


def _nested(path: tuple[str, ...], value: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in reversed(path):
        value = {name: value}
    return value
