"""Writes what people read about the settings, config.toml and docs/config.md: `python -m daemon.config_docs`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from daemon.config import Config
from daemon.config_schema import Array, Dictionary, Key, NamedSections, Section, keys_of
from daemon.config_show import value_text
from daemon.config_template import EXAMPLES, own_keys, render_template, summary
from daemon.config_tree import dotted
from daemon.config_values import Scalar, toml_json
from daemon.work_settings import SHIPPED

HOME = Path(__file__).parent.parent

INTRODUCTION = """\
# Configuration

One TOML file: the one `-c` names, else `$JOBSD_CONFIG`, else `./config.toml`, else `/etc/jobsd/config.toml`; without
any, the defaults hold. The shipped `config.toml` lists every key. `jobsd config check` says all that is wrong with a
file at once, each with its line; `jobsd config show --origin` says what holds and who set it.

## Who wins

Later ones win, key by key:

1. the default
2. `profile = "production"`: other defaults for some keys, nothing else
3. what systemd passes: `$STATE_DIRECTORY`, and the credential `database-url` for `database.dsn`
4. the file
5. `DATABASE_URL`, for `database.dsn`
6. `JOBSD_<SECTION>__<KEY>` in the environment
7. the command line

`JOBSD_DAEMON__LEASE=10s` is `lease` in `[daemon]`; `JOBSD_EMAIL__RELAYS__MAIN__PORT=25` is `port` in
`[email.relays.main]`. Names in variables are lower case, unless the file has the name otherwise; `-` is written `_`.
Lists are comma separated, tables are JSON, and an empty text unsets a key that can be unset. A `JOBSD_` variable that
means nothing is an error; `jobsd config env` writes a template of all of them.

## How values are written

| type | written |
|---|---|
| duration | `"250ms"`, `"30s"`, `"5m"`, `"2h"`, `"30d"`, `"1h30m"`; `"0"` is zero |
| size | `"512"`, `"64KiB"`, `"1MiB"`, `"2GiB"` |
| rate | `"10/s"`, `"600/m"`, `"5000/h"`, `"20000/d"` |
| pattern | `*` stands for any characters or none: `"org:*:notifications"` |
| path | a relative one begins where the daemon was started |

## Secrets

A secret never stands on a command line, and shows as `***` wherever settings are printed. Each key of type secret has a
sister, `KEY_file`, that names a file with the secret in it; of the two, the one that was given by the higher authority
counts, and both by the same is an error. `secret://NAME`, where a key or a job's args allow it, is looked up when it is
needed: in `JOBSD_SECRET_NAME`, then as a file `NAME` among systemd's credentials, then in `daemon.secrets_dir`.

## Reload

SIGHUP (`systemctl reload jobsd`) reads everything again, checks it, prepares every part, and swaps all of it or
nothing. Keys marked † need a restart: a reload that changes one says so and leaves it as it was.

## Retries and deadlines

The waits between attempts are those of `[kinds.NAME]`, key by key over what the handler declares, or else over
`[queues.NAME]`, or else 15 s doubled each time up to an hour, ten attempts, ±20 %. A row's own `max_attempts` beats
them all. `attempts` cuts a ladder short, or repeats its last wait. The deadline of one attempt is `timeout` of
`[kinds.NAME]`, else of `[queues.NAME]`, else the handler's, else five minutes.
"""


def render_docs() -> str:
    """docs/config.md."""
    return INTRODUCTION + "\n" + "\n".join(_tables(Config, ())) + "\n"


def _tables(settings: type[Any], path: tuple[str, ...]) -> Iterator[str]:
    keys = keys_of(settings)
    plain = [key for key in keys.values() if not isinstance(key.shape, Section | NamedSections)]
    if plain:
        yield from ("| key | type | default | what it changes |", "|---|---|---|---|")
        yield from (_row(key, (*path, key.name)) for key in plain)
        yield ""
    for key in keys.values():
        here = (*path, key.name)
        match key.shape:
            case Section(inner):
                yield from (f"## [{dotted(here)}]", "", key.doc, "")
                yield from _tables(inner, here)
            case NamedSections(inner, variants):
                yield from (f"## [{dotted(here)}.NAME]", "", key.doc, "")
                yield from _tables(inner, (*here, "NAME"))
                for word, variant in variants.items():
                    first = next(iter(keys_of(inner)))
                    yield from (f'### [{dotted(here)}.NAME] with {first} = "{word}"', "", *summary(variant), "")
                    yield from ("| key | type | default | what it changes |", "|---|---|---|---|")
                    yield from (_row(own, (*here, "NAME", own.name)) for own in own_keys(variant, inner))
                    yield ""
                if here == ("queues",):
                    yield from _shipped()


def _row(key: Key, path: tuple[str, ...]) -> str:
    mark = " †" if key.restart else ""
    cells = (f"`{key.name}`{mark}", _type(key), _default(key, path), key.doc)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _type(key: Key) -> str:
    match key.shape:
        case Array(item):
            word = f"list of {item.word}s"
        case Dictionary():
            word = "table"
        case Scalar(word=word):
            pass
        case _:
            word = "section"
    if key.choices:
        word = ", ".join(f"`{choice}`" for choice in key.choices)
    return word + _bounds(key)


def _bounds(key: Key) -> str:
    scalar = key.shape.item if isinstance(key.shape, Array) else key.shape
    if not isinstance(scalar, Scalar):
        return ""
    low, high = (None if bound is None else scalar.text(bound).strip('"') for bound in (key.minimum, key.maximum))
    if low is not None and high is not None:
        return f", {low} to {high}"
    return f", at least {low}" if low not in (None, "0") else f", at most {high}" if high else ""


def _default(key: Key, path: tuple[str, ...]) -> str:
    if key.required:
        return f"required, like `{EXAMPLES.get(dotted(path), key.example)}`"
    if key.default is None:
        return "unset"
    production = "" if key.default == key.production else f"; production: `{value_text(key, key.production)}`"
    return f"`{value_text(key, key.default)}`{production}"


def _shipped() -> Iterator[str]:
    """The queues that are there unasked, with the numbers of both profiles."""
    development, production = (SHIPPED[profile]["queues"] for profile in ("development", "production"))
    yield from (
        "These are there unasked. A key given takes the place of the one here, and `retry` that of the whole backoff.",
        "",
    )
    yield from ("| queue | development | production |", "|---|---|---|")
    for name, numbers in development.items():
        if numbers:
            yield f"| `{name}` | `{toml_json(numbers)[1:-1]}` | `{toml_json(production[name])[1:-1]}` |"
    yield ""


if __name__ == "__main__":
    (HOME / "config.toml").write_text(render_template())
    (HOME / "docs" / "config.md").write_text(render_docs())
