"""What is written about the settings is read off the same classes that read them, so it cannot be out of date."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from daemon.config import Config, ConfigError, parse
from daemon.config_docs import render_docs
from daemon.config_env import variables
from daemon.config_json_schema import json_schema
from daemon.config_schema import keys_of
from daemon.config_show import digest, entries, show
from daemon.config_template import env_template, render_template
from daemon.config_tree import DEFAULT, Table, dotted
from tests.jobs.email.dkim_keys import ed25519_pem

HOME = Path(__file__).parents[2]
RICH = """
profile = "production"
[database]
dsn = "postgresql://u:canary@h/d"
[queues."org:*:mail"]
retry = ["1m", "1h30m"]
jitter = 0.5
keep_done = "0"
[schedules.tick]
kind = "tick"
cron = "*/5 * * * *"
args = { text = "a \\"quoted\\" \\n line", list = [1, 2.5, true, { deep = [] }], "odd key" = "\\u007f" }
[limits.a]
per = "args.account"
args = { account = "4*" }
rate = "10/s"
[email]
max_size = "1MiB"
[email.relays.main]
host = "relay.example"
username = "u"
password = "canary"
[webhook]
allow_ports = [443, "8000-8999"]
"""


def test_what_is_shown_can_be_read_back() -> None:
    config = parse(RICH)
    shown = show(config, origin=True)
    back = parse(shown, overrides={"database.dsn": config.database.dsn, "email.relays.main.password": "canary"})
    assert back == config
    assert digest(back) == digest(config) != digest(parse(""))


def test_what_is_shown_says_who_set_it() -> None:
    lines = show(parse(RICH, env={"JOBSD_DAEMON__LEASE": "10s"}), origin=True).splitlines()
    assert 'cron = "*/5 * * * *"  # config.toml:11' in lines
    assert 'lease = "10s"  # env JOBSD_DAEMON__LEASE' in lines
    assert 'format = "json"  # profile' in lines
    assert "pool_size = 10  # default" in lines


def test_the_json_form_has_the_words_of_the_file() -> None:
    config = parse(RICH)
    tree = json.loads(show(config, as_json=True))
    assert tree["queues"]["org:*:mail"]["retry"] == ["1m", "1h30m"]
    assert (tree["limits"]["a"]["rate"], tree["email"]["max_size"], tree["daemon"]["name"]) == ("10/s", "1MiB", None)
    assert tree["schedules"]["tick"]["args"] == config.schedules["tick"].args
    beside = json.loads(show(config, as_json=True, origin=True))
    assert beside["email"]["max_size"] == {"value": "1MiB", "origin": "config.toml:18"}


def test_no_secret_is_ever_shown() -> None:
    config = parse(RICH)
    everything = [show(config), show(config, as_json=True), repr(config), *(e.text for e in entries(config))]
    assert not any("canary" in text for text in everything)
    assert 'dsn = "postgresql://u:***@h/d"' in everything[0]


# the shipped file, the .env template, the page and the schema


@pytest.mark.req("BJ-23")
def test_the_shipped_files_are_what_the_classes_say() -> None:
    hint = "write them again: python -m daemon.config_docs"
    assert (HOME / "config.toml").read_text() == render_template(), hint
    assert (HOME / "docs" / "config.md").read_text() == render_docs(), hint


def test_the_shipped_file_sets_exactly_the_defaults_of_either_profile() -> None:
    shipped = render_template()
    assert parse(shipped) == parse("")
    assert parse(shipped, env={"JOBSD_PROFILE": "production"}) == parse("", env={"JOBSD_PROFILE": "production"})
    assert parse(shipped).warnings == ()


def test_the_shipped_file_leaves_the_database_to_the_environment_and_to_systemd(tmp_path: Path) -> None:
    (tmp_path / "database-url").write_text("postgresql:///credential")
    assert (
        parse(render_template(), env={"CREDENTIALS_DIRECTORY": str(tmp_path)}).database.dsn
        == "postgresql:///credential"
    )


@pytest.mark.req("BJ-23")
def test_every_key_stands_in_the_shipped_file_the_page_and_the_env_template() -> None:
    named = {
        "queues": "default",
        "kinds": "webhook",
        "schedules": "heartbeat",
        "limits": "example_com",
        "relays": "main",
        "dkim": "shop",
    }
    shipped = tomllib.loads(switched_on(render_template()))
    for name, key, path in variables(Config, Table(DEFAULT, {section: name_table() for section in named})):
        at: Any = shipped
        for step, above in zip(path, ("", *path), strict=False):
            at = at[named.get(above, step)]
        assert f"\n#{name}=" in env_template(), dotted(path)
        assert f"\n| `{key.name}`" in render_docs(), dotted(path)


def name_table() -> Table:
    return Table(DEFAULT, {"name": Table(DEFAULT)})


def switched_on(template: str) -> str:
    """The shipped file with every example in it switched on; of a key that is there twice, the first."""
    seen: set[str] = set()
    lines: list[str] = []
    section = ""
    for line in template.splitlines():
        if line.startswith("# ") or line == "#":
            continue
        line = line.removeprefix("#")
        section = line if line.startswith("[") else section
        if section + line.split(" = ")[0] not in seen or not line:
            lines.append(line)
        seen.add(section + line.split(" = ")[0])
    return "\n".join(lines)


EXCLUSIVE = {
    "retry": {"backoff", "delay", "max_delay"},
    "dsn": {"dsn_file"},
    "password": {"password_file"},
    "private_key": {"private_key_file"},
    "proxy": {"proxy_file"},
    "secret_key": {"secret_key_file"},
    "form": {"json"},
}


@pytest.mark.parametrize("left_out", [EXCLUSIVE.keys(), {k for ks in EXCLUSIVE.values() for k in ks}])
def test_every_example_of_the_shipped_file_is_right(left_out: set[str], tmp_path: Path) -> None:
    text = switched_on(render_template()).replace("/etc/jobsd/database-url", str(tmp_path / "dsn"))
    text = text.replace("/etc/jobsd/egress-proxy", str(tmp_path / "proxy"))
    text = text.replace("/etc/jobsd/dkim-shop.pem", str(tmp_path / "dkim"))
    (tmp_path / "dkim").write_text(ed25519_pem())
    text = text.replace("/etc/jobsd/vapid.pem", str(tmp_path / "vapid"))
    text = text.replace("/etc/jobsd/sms-password", str(tmp_path / "vapid"))
    text = text.replace("/etc/jobsd/storage-key", str(tmp_path / "vapid"))
    text = re.sub(r'^backoff = "fixed"', 'backoff = "exponential"', text, flags=re.MULTILINE)
    (tmp_path / "dsn").write_text("embedded")
    (tmp_path / "vapid").write_text("a key")
    (tmp_path / "proxy").write_text("http://proxy.internal:4750\n")
    parse("\n".join(line for line in text.splitlines() if line.split(" = ")[0] not in left_out))


def test_the_schema_accepts_the_shipped_file_with_every_example_and_refuses_what_the_checker_refuses() -> None:
    schema = json_schema()
    assert complaints(schema, tomllib.loads(switched_on(render_template()))) == []
    for wrong in (
        "x = 1",
        "[daemon]\nlaese = '1s'",
        "[log]\nlevel = 'loud'",
        "[dns]\ntries = 0",
        "[schedules.a]\nkind = 'a'",
        "[jobs.a]\nverb = 'purge'",
        "[jobs.a]\nverb = 'purges'",
    ):
        assert complaints(schema, tomllib.loads(wrong)) != []
        with pytest.raises(ConfigError):
            parse(wrong)


TYPES: dict[str, Any] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "object": dict,
    "array": list,
}


def complaints(schema: dict[str, Any], value: Any) -> list[str]:
    """As much of JSON Schema as ours uses."""
    wanted = schema.get("type", [])
    kinds = [TYPES[name] for name in ([wanted] if isinstance(wanted, str) else wanted)]
    if kinds and not any(isinstance(value, kind) for kind in kinds):
        return [f"{value!r} is no {wanted}"]
    too_small = isinstance(value, int | float) and value < schema.get("minimum", value)
    if too_small or value not in schema.get("enum", [value]):
        return [f"{value!r} is not allowed"]
    if "const" in schema and value != schema["const"]:
        return [f"{value!r} is not {schema['const']!r}"]
    if "oneOf" in schema:
        ways = [complaints(way, value) for way in schema["oneOf"]]
        return [] if ways.count([]) == 1 else min(ways, key=len)
    if isinstance(value, list):
        return [c for element in value for c in complaints(schema.get("items", {}), element)]
    if not isinstance(value, dict):
        return []
    found = [f"{name} is missing" for name in schema.get("required", []) if name not in value]
    for name, inner in value.items():
        known = schema.get("properties", {}).get(name, schema.get("additionalProperties", {}))
        found += [f"{name} is unknown"] if known is False else complaints(known, inner)
    return found


def test_names_that_no_variable_can_have_are_left_out_of_the_environment() -> None:
    queues = {name: Table(DEFAULT) for name in ("org:*", "a__b", "bulk-mail")}
    names = {name for name, _, _ in variables(Config, Table(DEFAULT, {"queues": Table(DEFAULT, dict(queues))}))}
    assert {name.split("__")[1] for name in names if name.startswith("JOBSD_QUEUES__")} == {"BULK_MAIL"}


def test_every_key_says_what_it_changes() -> None:
    for name, key, _ in variables(Config, Table(DEFAULT)):
        assert len(key.doc) > 5, name
        assert key.doc.endswith("."), name
        assert "\n" not in key.doc, name
    assert keys_of(Config)["profile"].choices == ("development", "production")
