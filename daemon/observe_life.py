"""What a daemon says of itself: its life, its config, its lease and its ears, its own pages; one method, one event."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from typing import Any

from daemon import events
from daemon.fields import fault
from daemon.voice import Error, Voice, ms

BLOCKED_S = 1.0
"""An event loop that late is worth a line: heartbeats and time limits are late by as much."""


class LifeObserver:
    """Part of daemon.observe.Observer, and as careful."""

    def __init__(self, voice: Voice) -> None:
        self._voice = voice
        self.metrics = voice.metrics
        self.log = voice.log
        self._has_listened = False

    def daemon_starting(self, version: str) -> None:
        python = platform.python_version()
        self.metrics.build.info({"version": version, "python": python})
        self._voice.say(events.DAEMON_STARTING, version=version, python=python, pid=os.getpid())

    def config_loaded(self, path: object, hash: str, warnings: Sequence[str]) -> None:
        self._config_taken(hash)
        self._voice.say(events.CONFIG_LOADED, path=str(path), hash=hash, warnings=list(warnings))

    def migrated(self, name: str, seconds: float) -> None:
        self._voice.say(events.MIGRATED, name=name, seconds=round(seconds, 3))

    def daemon_ready(self, seconds: float) -> None:
        self._voice.say(events.DAEMON_READY, seconds=round(seconds, 3))

    def daemon_draining(self, running: int) -> None:
        self._voice.say(events.DAEMON_DRAINING, running=running)

    def daemon_stopped(self, seconds: float, handed_back: int) -> None:
        self._voice.say(events.DAEMON_STOPPED, seconds=round(seconds, 3), handed_back=handed_back)

    def reloaded(
        self,
        changed: Sequence[str],
        added: Sequence[str],
        removed: Sequence[str],
        restart_required: Sequence[str],
        hash: str,
    ) -> None:
        """Names of keys, never their values."""
        self._config_taken(hash)
        self.metrics.restart_required.set(len(restart_required))
        self._voice.say(
            events.CONFIG_RELOADED,
            changed=list(changed),
            added=list(added),
            removed=list(removed),
            restart_required=list(restart_required),
            hash=hash,
        )

    def reload_refused(self, errors: Sequence[str]) -> None:
        self.metrics.reload_ok.set(0)
        self._voice.say(events.RELOAD_REFUSED, errors=list(errors))

    def _config_taken(self, hash: str) -> None:
        self.metrics.reload_ok.set(1)
        self.metrics.reload_time.set(time.time())
        self.metrics.config.info({"hash": hash})

    def worker_registered(self, worker_id: object) -> None:
        self._voice.say(events.WORKER_REGISTERED, worker_id=worker_id)

    def worker_lost(self, reason: str) -> None:
        self.metrics.lease_lost.inc()
        self._voice.say(events.WORKER_LOST, reason=reason)

    def worker_fenced(self, worker_id: object, running: int) -> None:
        self.metrics.fenced.inc()
        self._voice.say(events.WORKER_FENCED, worker_id=worker_id, running=running)

    def heartbeat(self, seconds: float, skew_s: float) -> None:
        """`skew_s`: the database's clock less this daemon's."""
        self.metrics.heartbeat.observe(seconds)
        self.metrics.skew.set(skew_s)
        if self.log.writes("debug"):
            self._voice.say(events.HEARTBEAT, duration_ms=ms(seconds), skew_s=round(skew_s, 6))

    def heartbeat_failed(self, error: Error) -> None:
        self.metrics.heartbeat_failures.inc()
        self._voice.say_seldom(events.HEARTBEAT_FAILED, "", error=fault(error))

    def listening(self, seconds_deaf: float) -> None:
        """The first time is no reconnect."""
        if self._has_listened:
            self.metrics.reconnects.inc()
        self._has_listened = True
        self.metrics.connected.set(1)
        self._voice.say(events.LISTENING, seconds_deaf=round(seconds_deaf, 3))

    def deaf(self, error: Error) -> None:
        self.metrics.connected.set(0)
        self._voice.say_seldom(events.DEAF, "", error=fault(error))

    def hint(self) -> None:
        """A notification came.  No line: anybody who may connect can send thousands a second."""
        self.metrics.notifies.inc()

    def pool(self, size: int, idle: int) -> None:
        self.metrics.pool_size.set(size)
        self.metrics.pool_idle.set(idle)

    def loop_lag(self, seconds: float) -> None:
        self.metrics.lag.observe(seconds)
        if seconds >= BLOCKED_S:
            self._voice.say_seldom(events.LOOP_BLOCKED, "", lag_s=round(seconds, 3))

    def library(self, level: str, logger: str, message: str, error: BaseException | None) -> None:
        """What a library said through `logging` (see daemon.log.Bridge)."""
        self.metrics.library.child(self.metrics.name(logger.partition(".")[0])).inc()
        suppressed = self._voice.seldom.suppressed(logger, self.metrics.name(message.partition("\n")[0][:40]))
        if suppressed is None:
            return
        fields: dict[str, Any] = {"logger": logger, "message": message}
        if error is not None:
            fields["error"] = fault(error)
        if suppressed:
            fields["suppressed"] = suppressed
        self.log.emit(level, events.LIBRARY.name, fields)

    def admin_listening(self, addresses: Sequence[str]) -> None:
        self._voice.say(events.ADMIN_LISTENING, addresses=list(addresses))

    def admin_answered(self, path: str, status: int) -> None:
        """`path` is one of our own pages or "other".  No line: scrapes and probes come every few seconds."""
        self.metrics.requests.child(path, str(status)).inc()

    def admin_failed(self, path: str, error: Error) -> None:
        self._voice.say_seldom(events.ADMIN_FAILED, path, path=path, error=fault(error))
