"""The settings of a daemon: found, read, checked, and asked for by the engine."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daemon.config_check import Checker, Problem
from daemon.config_doubts import doubts, exposed_secrets
from daemon.config_env import CONFIG_VARIABLE
from daemon.config_jobs import problems as job_problems
from daemon.config_jobs import schedule_of
from daemon.config_layers import environment_layer, override_layer, profile_of, shipped_layer, systemd_layer
from daemon.config_tree import FILE_RANK, Origin, Table, file_table
from daemon.ordering import order_wait_s
from daemon.pattern import is_pattern, most_specific
from daemon.relay_limits import relay_limits
from daemon.retry_policy import retry_policy
from daemon.settings import AdminSettings, DaemonSettings, DatabaseSettings, LogSettings, RetentionSettings
from daemon.toml_source import MAX_BYTES, TomlError, TomlSource, read_toml
from daemon.work_settings import KindSettings, LaneSettings, LimitSettings, QueueSettings, ScheduleSettings
from jobs.catalogue.settings import JobSettings
from jobs.catalogue.verbs import SETTINGS
from jobs.dns.settings import DnsSettings
from jobs.email.settings import EmailSettings
from jobs.model import Policy
from jobs.monitor.settings import MonitorSettings
from jobs.push.settings import PushSettings
from jobs.sms.args import LANE
from jobs.sms.settings import SmsSettings
from jobs.storage.settings import StorageSettings
from jobs.values import key
from jobs.webhook.settings import WebhookSettings

SEARCH = (Path("config.toml"), Path("/etc/jobsd/config.toml"))
DEFAULT_TIMEOUT_S = 300.0
REMEMBERED = 10_000
"""Queues, and pairs of kind and queue, whose settings are kept at hand; more than that, and all are looked up anew."""


class ConfigError(Exception):
    """The config cannot be used; `problems` are all that is wrong with it, by line."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda p: (p.origin.rank, p.origin.line, p.path)))
        super().__init__("\n".join(str(problem) for problem in self.problems))


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything that is set.  Two are equal when they mean the same, wherever it was written."""

    profile: str = key(
        "development",
        "Which defaults hold; a value given here or in the environment means the same under both.",
        choices=("development", "production"),
    )
    database: DatabaseSettings = key(doc="The Postgres that holds the rows.")
    daemon: DaemonSettings = key(doc="One daemon's own life: what it serves, how it is found dead, how it stops.")
    admin: AdminSettings = key(doc="The HTTP side: /metrics, /livez, /readyz.")
    log: LogSettings = key(doc="Lines on standard output.")
    queues: dict[str, QueueSettings] = key(
        doc='Queues; under a pattern like "org:*:notifications" each queue it matches. A plain name beats patterns, '
        "the pattern with more letters of its own beats the others; the winner counts alone, nothing is mixed."
    )
    kinds: dict[str, KindSettings] = key(
        doc="Kinds of job, key by key over what their handlers declare and their queue says."
    )
    schedules: dict[str, ScheduleSettings] = key(doc="Rows inserted by the clock, one a tick however many daemons run.")
    jobs: dict[str, JobSettings] = key(
        doc="Upkeep of your own tables, without code: each is a kind of job of this name, and does to a table what its "
        "verb says.",
        variants=SETTINGS,
    )
    limits: dict[str, LimitSettings] = key(
        doc="At most so many jobs a second, or at once, exact over all daemons; of the jobs that all selectors match."
    )
    lanes: dict[str, LaneSettings] = key(
        doc='When a destination that fails is left alone; under a pattern like "*.example.com" each one it matches, '
        '"*" is all. As with queues, the most specific section counts alone.'
    )
    webhook: WebhookSettings = key(doc="Webhooks, and the HTTP client that handlers get.")
    email: EmailSettings = key(doc="E-mail.")
    push: PushSettings = key(doc="Push messages to browsers.")
    sms: SmsSettings = key(doc="Text messages.")
    dns: DnsSettings = key(doc="DNS checks.")
    monitor: MonitorSettings = key(doc="What jobs of verb monitor may look at, and who is told.")
    storage: StorageSettings = key(doc="Where archives and exports lie, and links to them.")
    retention: RetentionSettings = key(doc="How long finished work can be looked up.")

    source: str = field(default="", compare=False)
    origins: Mapping[str, Origin] = field(default_factory=dict, compare=False, repr=False)
    warnings: tuple[Problem, ...] = field(default=(), compare=False, repr=False)
    _queues: dict[str, QueueSettings] = field(default_factory=dict, init=False, compare=False, repr=False)
    _lanes: dict[str, LaneSettings] = field(default_factory=dict, init=False, compare=False, repr=False)
    _policies: dict[tuple[str, str], tuple[Policy | None, Policy]] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    def queue(self, name: str) -> QueueSettings:
        """The section of that name, else of the most specific pattern, else the defaults."""
        found = self._queues.get(name)
        if found is None:
            _bound(self._queues)
            found = self._queues[name] = self._find_queue(name)
        return found

    def lane(self, name: str) -> LaneSettings:
        """The section of that name, else of the most specific pattern, else the defaults."""
        found = self._lanes.get(name)
        if found is None:
            _bound(self._lanes)
            pattern = name if name in self.lanes and not is_pattern(name) else most_specific(self.lanes, name)
            found = self._lanes[name] = LaneSettings() if pattern is None else self.lanes[pattern]
        return found

    @property
    def all_schedules(self) -> dict[str, ScheduleSettings]:
        """[schedules.*], and those of jobs."""
        of_jobs = {name: schedule_of(job, name) for name, job in self.jobs.items()}
        return {**self.schedules, **{name: found for name, found in of_jobs.items() if found is not None}}

    @property
    def all_limits(self) -> dict[str, LimitSettings]:
        """[limits.*], and what each relay and provider takes: over all daemons, not from each."""
        providers = {
            f"provider:{name}": LimitSettings(kind="sms", lane=LANE + name, rate=provider.rate, burst=provider.burst)
            for name, provider in self.sms.providers.items()
            if provider.rate is not None
        }
        return {**self.limits, **relay_limits(self.email.relays), **providers}

    def kind(self, name: str) -> KindSettings | None:
        return self.kinds.get(name)

    def policy(self, kind: str, queue: str, declared: Policy | None) -> Policy:
        """[kinds.X] over the handler's `declared` over [queues.X] over the default.  Called for every job: 0.2 µs."""
        known = self._policies.get((kind, queue))
        if known is not None and known[0] is declared:
            return known[1]
        _bound(self._policies)
        policy = retry_policy(self.kinds.get(kind), declared, self.queue(queue))
        self._policies[kind, queue] = (declared, policy)
        return policy

    def timeout_s(self, kind: str, queue: str, declared: float | None) -> float:
        """[kinds.X] over [jobs.X] over [queues.X] over the handler's `declared`: an operator's deadline beats the
        code's."""
        section, job = self.kinds.get(kind), self.jobs.get(kind)
        own = (section.timeout if section else None, job.timeout if job else None)
        for timeout in (*own, self.queue(queue).timeout, declared):
            if timeout is not None:
                return timeout
        return DEFAULT_TIMEOUT_S

    def order_wait_s(self, kind: str, queue: str) -> float | None:
        """How long a failed job holds up those of its ordering key behind it; None: until it ends."""
        return order_wait_s(self.kinds.get(kind), self.queue(queue))

    def _find_queue(self, name: str) -> QueueSettings:
        if name in self.queues and not is_pattern(name):
            return self.queues[name]
        pattern = most_specific((known for known in self.queues if is_pattern(known)), name)
        return QueueSettings() if pattern is None else self.queues[pattern]


def load(
    path: Path | str | None = None,
    env: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Config:
    """Reads the file, the environment and `overrides` (dotted path → value).

    The file is `path`, else $JOBSD_CONFIG, else ./config.toml, else /etc/jobsd/config.toml, else none: all defaults.

    ConfigError with every problem at once; what is merely doubtful is in `warnings`.
    """
    env = os.environ if env is None else env
    chosen = path or env.get(CONFIG_VARIABLE) or next(filter(_is_there, SEARCH), None)
    if chosen is None:
        return parse("", name="no file", env=env, overrides=overrides)
    config = parse(_text(Path(chosen)), name=str(chosen), env=env, overrides=overrides)
    exposed = exposed_secrets(config, config.origins, Path(chosen))
    return dataclasses.replace(config, warnings=(*config.warnings, *exposed))


def parse(
    text: str,
    *,
    name: str = "config.toml",
    env: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Config:
    """`load` of text that is already read; without `env`, no environment."""
    file = file_table(_toml(text, name), name)
    from_env, unknown_variables = environment_layer(env or {}, Config, file)
    from_overrides, wrong_paths = override_layer(overrides or {}, Config)
    given = from_overrides.lay_over(from_env).lay_over(file).lay_over(systemd_layer(env or {}))
    profile = profile_of(given)
    checker = Checker(Config, profile)
    config: Config = checker.settings(Config, Table(file.origin, given.lay_over(shipped_layer(profile, given)).items))
    if problems := [*unknown_variables, *wrong_paths, *checker.problems]:
        raise ConfigError(problems)
    if problems := job_problems(config, checker.origins):
        raise ConfigError(problems)
    warnings = doubts(config, checker.origins)
    return dataclasses.replace(config, source=name, origins=checker.origins, warnings=warnings)


def _is_there(path: Path) -> bool:
    """Also when it may not be read: to go on without it would be to serve another database."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _unusable(path, 1, f"cannot be read: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise _unusable(path, 1, f"is over {MAX_BYTES // 1024} KiB")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _unusable(path, line, "is not UTF-8, as TOML must be") from error


def _toml(text: str, name: str) -> TomlSource:
    try:
        return read_toml(text)
    except TomlError as error:
        raise _unusable(name, error.line, str(error)) from error


def _unusable(name: Path | str, line: int, message: str) -> ConfigError:
    return ConfigError([Problem(Origin(f"{name}:{line}", FILE_RANK, line), "", message)])


def _bound(known: dict[Any, Any]) -> None:
    if len(known) >= REMEMBERED:
        known.clear()
