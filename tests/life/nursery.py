"""Where daemon processes come from: forked off a process that has imported everything, in 0.1 s instead of 1.2."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import daemon.cli
import daemon.cli_serve  # what the commands below need, so that a child finds it imported
from daemon.handlers import BUILT_IN
from jobs.catalogue.verbs import PLACES
from tests import known_types

for _module in (*BUILT_IN, *(place.partition(":")[0] for place in PLACES.values())):
    importlib.import_module(_module)

_FORKSERVER = multiprocessing.get_context("forkserver")
_FORKSERVER.set_forkserver_preload([__name__])


def born(arguments: Sequence[str], env: Mapping[str, str], folder: Path, out: Path, err: Path) -> ForkServerProcess:
    """A process of its own that does what `jobsd …arguments` does, in `folder`, with exactly this environment."""
    child = _FORKSERVER.Process(target=_live, args=(list(arguments), dict(env), folder, out, err, known_types.arrays))
    child.start()
    return child


def _live(
    arguments: list[str], env: dict[str, str], folder: Path, out: Path, err: Path, types: known_types.Types
) -> None:
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    for path, fd in ((os.devnull, 0), (out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND), fd)
    known_types.believe(types)
    sys.exit(daemon.cli.main(arguments))
