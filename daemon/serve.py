"""The process around a daemon: event loop, signals, log, exit code."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import os
import signal
import sys
from collections.abc import Callable

import uvloop

from daemon.app import Daemon
from daemon.config import Config
from daemon.handlers import HandlerError
from daemon.log import Logger, hear_libraries
from daemon.migrate import SchemaError
from daemon.observe import Observer
from daemon.pginstall import EmbeddedError

CONFIG_EXIT = 78
DATABASE_EXIT = 69

GARBAGE_AFTER = (10_000, 20, 50)
"""Python looks for cyclic garbage when there are so many more objects than after the last look.  At its own 700, while
a thousand slots hold many times as many, looking was a tenth of what the daemon does for a no-op job."""


def serve(config: Config, load: Callable[[], Config]) -> int:
    """Run the daemon in this process until it is told to stop; returns the exit code.

    SIGTERM and SIGINT drain, a second one forces; SIGHUP calls `load` for the new config.
    """
    faulthandler.enable()  # a watchdog's SIGABRT shows where the loop hung
    gc.set_threshold(*GARBAGE_AFTER)
    gc.freeze()  # what is loaded now stays, and need not be walked through again
    logger = Logger(sys.stdout, config.log.level, config.log.format)
    observer = Observer(logger)
    observer.configure(config.log.level, config.log.format, config.log.started)
    hear_libraries(observer.life)
    try:
        return uvloop.run(_run(config, load, observer))
    except (SchemaError, HandlerError) as error:
        return _refuse(CONFIG_EXIT, error)
    except (EmbeddedError, OSError) as error:
        return _refuse(DATABASE_EXIT, error)
    finally:
        logger.close()


async def _run(config: Config, load: Callable[[], Config], observer: Observer) -> int:
    daemon = Daemon(config, load, observer)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, daemon.stop)
    loop.add_signal_handler(signal.SIGHUP, daemon.reload)
    code = await daemon.run()
    if daemon.stubborn:  # a handler goes on that swallowed its cancellation; the loop would wait for it for ever
        observer.log.close()
        os._exit(code)
    return code


def _refuse(code: int, error: Exception) -> int:
    sys.stderr.write(f"jobsd: {error}\n")
    return code
