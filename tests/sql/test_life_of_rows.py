"""Whatever happens in whatever order, each row ends once and none is lost: a machine that makes it happen."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

import sql
from daemon import store as store_module
from daemon.embedded import Embedded
from daemon.settle import Transition, hand_back
from daemon.store import Store
from jobs.model import Cancelled, Dead, Done, Job, Outcome, Retry, Snooze
from tests.sql.rows import Pool, claim, die, ended

LONG = bool(os.environ.get("JOBSD_LONG"))
WORKERS = 3
CRASH_LIMIT = 3

_names = itertools.count()
