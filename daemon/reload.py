"""The config in force and what was opened for it; a reload replaces all of it, or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg

from daemon import systemd
from daemon.config import Config, ConfigError
from daemon.config_diff import diff
from daemon.config_show import digest
from daemon.handlers import load_kinds
from daemon.observe import Observer
from daemon.outfit import secret_folders, wanted
from daemon.rules import Setup
from jobs.clients import Clients, open_clients
from jobs.secrets import Secrets
from jobs.storage.storage import Storage


class Reload:
    """`apply` puts a new setup to work; `wait_for_current` waits for the attempts that still go by the old one."""

    def __init__(
        self,
        config: Config,
        load: Callable[[], Config],
        observer: Observer,
        apply: Callable[[Setup], None],
        wait_for_current: Callable[[], Awaitable[None]],
    ) -> None:
        self.config = self._started_with = config
        self._load = load
        self._observer = observer
        self._apply = apply
        self._wait_for_current = wait_for_current
        self._asked = asyncio.Event()
        self.storage: Storage | None = None
        """In force; None before there are clients."""

    def ask(self) -> None:
        """Read the config again, soon; calls that come meanwhile count as one."""
        self._asked.set()

    def open(self, handler_pool: asyncpg.Pool, reads: asyncpg.Pool) -> Setup:
        """What the daemon starts with."""
        kinds = load_kinds(self.config.daemon.handlers, self.config.daemon.kinds, self.config.jobs)
        self._secrets = Secrets(secret_folders(self.config))
        self._clients = open_clients(wanted(self.config), handler_pool, self._secrets, reads=reads)
        self.storage = self._clients.storage
        return Setup(self.config, self._clients, kinds)

    async def close(self) -> None:
        await self._clients.close()

    async def run(self, group: asyncio.TaskGroup) -> None:
        while True:
            await self._asked.wait()
            self._asked.clear()
            systemd.reloading()
            taken = self._swap(group)
            systemd.ready("serving" if taken else "serving; the last reload was refused, see the log")

    def _swap(self, group: asyncio.TaskGroup) -> bool:
        """Read, validate, prepare every part; then replace all of them, or none and return false."""
        try:
            new = self._load()
            kinds = load_kinds(self._started_with.daemon.handlers, new.daemon.kinds, new.jobs)
            clients = open_clients(wanted(new), self._clients.db, self._secrets_for(new), before=self._clients)
        except ConfigError as error:
            self._observer.life.reload_refused([str(problem) for problem in error.problems])
            return False
        except Exception as error:  # a part that cannot be prepared, whatever it says: nothing has changed yet
            self._observer.life.reload_refused([f"cannot be prepared: {error!r}"])
            return False
        what = diff(self.config, new)
        late = diff(self._started_with, new).restart_required
        old, self._clients, self.config, self._secrets = self._clients, clients, new, clients.secrets
        self.storage = clients.storage
        self._apply(Setup(new, clients, kinds))
        self._observer.configure(new.log.level, new.log.format, new.log.started)
        group.create_task(self._retire(old, clients))
        self._observer.life.reloaded([c.path for c in what.changed], what.added, what.removed, late, digest(new))
        return True

    async def _retire(self, old: Clients, new: Clients) -> None:
        """Close what the reload replaced once the attempts that began with it have ended."""
        await self._wait_for_current()
        await old.close(kept_by=new)

    def _secrets_for(self, config: Config) -> Secrets:
        folders = secret_folders(config)
        return self._secrets if folders == secret_folders(self.config) else Secrets(folders)
