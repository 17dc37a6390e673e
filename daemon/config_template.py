"""The shipped `config.toml` and the `.env` template, written from the settings classes."""

from __future__ import annotations

import json
import textwrap
import tomllib
from collections.abc import Iterator
from typing import Any

import sql
from daemon.config import Config
from daemon.config_env import variables
from daemon.config_schema import Array, Dictionary, Key, NamedSections, Section, keys_of
from daemon.config_show import value_text
from daemon.config_tree import DEFAULT, Table, dotted
from daemon.config_values import bare, quoted, toml_json
from daemon.work_settings import SHIPPED, QueueSettings
from jobs.catalogue.settings import BatchSettings

Path = tuple[str, ...]

HEAD = """\
# Settings of jobsd: every key with its default and what it changes.
#
# A line like `#key = value` is switched off: it shows a default that depends on the profile, or an example of a key
# that is unset.  Durations are "250ms", "30s", "5m", "2h", "30d" or "1h30m"; sizes "64KiB" or "1MiB"; rates "10/s".
# Each key can come from the environment instead, where JOBSD_DAEMON__LEASE is `lease` in [daemon]; `*` in a name
# stands for any characters.  `jobsd config check` says what is wrong with this file, `jobsd config show --origin`
# what holds and why.  SIGHUP (systemctl reload) puts changes to work, except where it says (restart).
"""

SAMPLE = """\
# The jobs of the sample application, switched off: each would do what it says to any tables that are called so, yours
# too.  Take the # off the lines of a section to switch it on; `jobsd config check --database` then asks whether its
# tables are there, and `jobsd test NAME` what it would do.  All of them at once: jobsd sample jobs >> config.toml
"""

EXAMPLES = {
    "database.dsn_file": '"/etc/jobsd/database-url"',
    "daemon.name": '"worker-1"',
    "daemon.secrets_dir": '"/etc/jobsd/secrets"',
    "queues.NAME.backoff": '"exponential"',
    "queues.NAME.jitter": "0.2",
    "kinds.NAME.jitter": "0.2",
    "queues.NAME.keep_done": '"1d"',
    "queues.NAME.keep_dead": '"14d"',
    "kinds.NAME.retry": '["1m", "5m", "30m", "2h"]',
    "kinds.NAME.backoff": '"fixed"',
    "kinds.NAME.max_delay": '"1h"',
    "queues.NAME.max_delay": '"1h"',
    "schedules.NAME.kind": '"heartbeat"',
    "schedules.NAME.cron": '"*/5 * * * *"',
    "schedules.NAME.org_id": '"42"',
    "limits.NAME.queue": '"notification"',
    "limits.NAME.kind": '"webhook"',
    "limits.NAME.org_id": '"42"',
    "limits.NAME.lane": '"*.example.com"',
    "limits.NAME.args": '{ account = "42" }',
    "limits.NAME.per": '"lane"',
    "webhook.ca_file": '"/etc/jobsd/private-ca.pem"',
    "webhook.proxy": '"http://proxy.internal:4750"',
    "webhook.proxy_file": '"/etc/jobsd/egress-proxy"',
    "email.from": '"Shop <no-reply@shop.example>"',
    "email.message_id_domain": '"shop.example"',
    "email.bounce_domain": '"bounces.shop.example"',
    "email.unsubscribe_url": '"https://shop.example/unsubscribe"',
    "email.token_secrets": '["secret://mail-tokens"]',
    "email.relays.NAME.host": '"relay.example"',
    "email.relays.NAME.username": '"shop"',
    "email.relays.NAME.password": '"secret://relay-password"',
    "email.relays.NAME.password_file": '"/etc/jobsd/relay-password"',
    "email.relays.NAME.ca_file": '"/etc/ssl/certs/relay.pem"',
    "push.private_key": '"secret://vapid"',
    "push.private_key_file": '"/etc/jobsd/vapid.pem"',
    "push.subject": '"mailto:ops@shop.example"',
    "storage.url": '"s3://shop-archives/jobsd"',
    "storage.endpoint": '"https://minio.shop.example"',
    "storage.region": '"eu-central-1"',
    "storage.access_key": '"AKIA0123456789ABCDEF"',
    "storage.secret_key": '"secret://storage-key"',
    "storage.secret_key_file": '"/etc/jobsd/storage-key"',
    "storage.public_url": '"https://shop.example"',
    "storage.link_secrets": '["secret://links"]',
    "sms.providers.NAME.url": '"https://sms.example/messages"',
    "sms.providers.NAME.form": '{ to = "{to}", from = "{from}", text = "{text}", ref = "{id}" }',
    "sms.providers.NAME.json": """'{"to": "{to}", "from": "{from}", "text": "{text}"}'""",
    "sms.providers.NAME.headers": '{ "Idempotency-Key" = "{id}" }',
    "sms.providers.NAME.username": '"shop"',
    "sms.providers.NAME.password": '"secret://sms-password"',
    "sms.providers.NAME.password_file": '"/etc/jobsd/sms-password"',
    "sms.providers.NAME.from": '"Shop"',
    "sms.providers.NAME.id_path": '"messages.0.id"',
    "sms.providers.NAME.code_path": '"messages.0.status"',
    "webhook.profiles.NAME.retry": '["10s", "1m", "10m", "1h", "6h", "24h"]',
    "email.relays.NAME.messages_per_day": "50000",
    "email.relays.NAME.day_starts": '"00:00"',
    "email.forward.domain": '"fwd.shop.example"',
    "email.dkim.NAME.domain": '"shop.example"',
    "email.dkim.NAME.selector": '"s2026"',
    "email.dkim.NAME.private_key": '"secret://dkim-shop"',
    "email.dkim.NAME.private_key_file": '"/etc/jobsd/dkim-shop.pem"',
    "email.relays.NAME.helo": '"mail.shop.example"',
}
"""For keys without a default that would show how to write them.  Those of named sections stand under NAME."""

NAMES = {
    "kinds": "webhook",
    "schedules": "heartbeat",
    "limits": "example_com",
    "lanes": "*.example.com",
    "relays": "main",
    "dkim": "shop",
    "providers": "main",
    "profiles": "patient",
}
"""What the example of a named section is called."""


def render_template() -> str:
    """The shipped config.toml: as it stands, it sets exactly the defaults."""
    return "\n".join([HEAD, *_lines(Config, ()), "", *_sample()]).rstrip("\n") + "\n"


def _sample() -> Iterator[str]:
    """A user's own tables may be called as the sample's are, so nothing here is on by itself."""
    yield from SAMPLE.splitlines()
    yield ""
    for line in sql.text("reference/jobs.toml").splitlines():
        yield line if not line or line.startswith("#") else f"#{line}"


def env_template() -> str:
    """Every variable with its default, all switched off; `NAME` stands for the name of a queue, kind and so on."""
    lines = [
        "# Settings of jobsd from the environment; they win over config.toml.  NAME is the name of a queue, a kind, …",
        "",
        "# The database; JOBSD_DATABASE__DSN wins over it.",
        "#DATABASE_URL=postgresql://jobsd@db.example/shop",
        "# What secret://NAME means.",
        "#JOBSD_SECRET_NAME=",
    ]
    names = Table(DEFAULT)
    for section in (
        ("queues",),
        ("kinds",),
        ("schedules",),
        ("limits",),
        ("lanes",),
        ("jobs",),
        ("webhook", "profiles"),
        ("email", "relays"),
        ("email", "dkim"),
        ("sms", "providers"),
    ):
        names.put((*section, "name"), Table(DEFAULT))
    for variable, key, path in variables(Config, names):
        value = _env_text(key, dotted(path).replace(".name.", ".NAME."))
        lines += [f"# {key.doc}", f"#{variable}={value}"]
    return "\n".join(lines) + "\n"


def default_text(key: Key, path: Path, profile: str = "development") -> str:
    """The default in TOML, or an example where there is none, or none that would show anything."""
    if example := EXAMPLES.get(dotted(path), key.example):
        return example
    value = key.default_in(profile)
    return _example(key) if key.required or value is None else value_text(key, value)


def _lines(settings: type[Any], path: Path) -> Iterator[str]:
    for key in keys_of(settings).values():
        here = (*path, key.name)
        match key.shape:
            case Section(inner):
                yield from _header(f"[{dotted(here)}]", key.doc)
                yield from _lines(inner, here)
            case NamedSections(inner) if inner is QueueSettings:
                yield from _queues(inner, key)
            case NamedSections(inner, variants) if variants:
                for number, (word, variant) in enumerate(variants.items()):
                    doc = "" if number else f"{key.doc} What several verbs have stands here, with the first of them. "
                    yield from _header(f"#[{dotted((*here, f'any_{word}'))}]", doc + " ".join(summary(variant)))
                    if number:
                        yield f"#{next(iter(keys_of(inner)))} = {quoted(word)}"
                    yield from _example_section(variant, here, but=BatchSettings if number else None)
            case NamedSections(inner):
                yield from _header(f"#[{dotted((*here, NAMES[key.name]))}]", key.doc)
                yield from _example_section(inner, here)
            case _:
                yield from _pair(key, here, commented=_is_commented(key))


def _queues(settings: type[Any], queues: Key) -> Iterator[str]:
    yield from _header("[queues.default]", queues.doc)
    for key in keys_of(settings).values():
        yield from _pair(key, (queues.name, "NAME", key.name), commented=_is_commented(key))
    for name, shipped in SHIPPED["development"]["queues"].items():
        if shipped:
            yield from _header(f"[queues.{bare(name)}]", "")
            production = SHIPPED["production"]["queues"][name]
            for key_name, value in shipped.items():
                other = production[key_name]
                note = "" if value == other else f"  # in production {toml_json(other)}"
                yield f"#{key_name} = {toml_json(value)}{note}"


def _example_section(settings: type[Any], path: Path, but: type[Any] | None = None) -> Iterator[str]:
    for key in own_keys(settings, but):
        yield from _pair(key, (*path, "NAME", key.name), commented=True)


def own_keys(settings: type[Any], but: type[Any] | None) -> list[Key]:
    """Those that `but` does not have, or not with this default."""
    common = {} if but is None else keys_of(but)
    return [key for key in keys_of(settings).values() if common.get(key.name) != key]


def summary(settings: type[Any]) -> list[str]:
    """The first line of a settings class's docstring."""
    return (settings.__doc__ or "").strip().splitlines()[:1]


def _is_commented(key: Key) -> bool:
    return key.required or key.default is None or key.secret or key.default != key.production


def _pair(key: Key, path: Path, *, commented: bool) -> Iterator[str]:
    notes = "  (restart)" if key.restart else ""
    if key.default != key.production:
        notes += f"  In production: {value_text(key, key.production)}."
    yield from _prose(key.doc + notes)
    yield f"{'#' if commented else ''}{bare(key.name)} = {default_text(key, path)}"


def _header(header: str, doc: str) -> Iterator[str]:
    yield ""
    yield from _prose(" ".join(doc.split()))
    yield header


def _prose(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, 118)]


def _example(key: Key) -> str:
    if key.choices:
        return quoted(key.choices[0])
    shape = key.shape.item if isinstance(key.shape, Array | Dictionary) else key.shape
    word, example = getattr(shape, "word", ""), getattr(shape, "example", "")
    return example if word in ("integer", "number", "boolean", "integer or string") else quoted(example)


def _env_text(key: Key, path: str) -> str:
    value = None if key.required else key.default
    match key.shape:
        case Array(item) if value is not None:
            text = ",".join(_unquoted(item.text(element)) for element in value)
        case Array() if path in EXAMPLES:
            text = ",".join(tomllib.loads(f"example = {EXAMPLES[path]}")["example"])
        case Dictionary():
            text = json.dumps(value or {})
        case _:
            example = EXAMPLES.get(path) or key.example or _example(key)
            text = _unquoted(example if value is None else value_text(key, value))
    return f'"{text}"' if any(c.isspace() for c in text) else text


def _unquoted(text: str) -> str:
    return str(json.loads(text)) if text.startswith('"') else text
