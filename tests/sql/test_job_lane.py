"""The lane that SQL derives from a row is the one its handler derives, or none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import asyncpg
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import jobs.dns.handler
import jobs.email.handler
import jobs.push.handler
import jobs.sms.handler
import jobs.webhook.handler  # noqa: F401  its kind is asked for by name, as those of the four above
from jobs.registry import KINDS
from tests.examples import examples
from tests.sql.rows import Pool

URLS = [
    *("http://example.com/", "https://Example.COM:443/a?b#c", "HTTP://ex.com", "http://ex.com.", "http://ex.com.:81/x"),
    *("http://a_b.c/", "http://-a.com/", "http://a-.com/", "http://xn--bcher-kva.de/", "http://xn--/", "http://é.com/"),
    *("http://ex.com:0/", "http://ex.com:/", "http://ex.com:65535/", "http://ex.com:65536/", "http://ex.com:00080/"),
    *(
        "http://127.0.0.1:9/",
        "http://127.0.0.1./",
        "http://127.0.0.01/",
        "http://256.0.0.1/",
        "http://1.2/",
        "http://1",
    ),
    *(
        "http://a.0x1/",
        "http://0x7f.1",
        "http://a.0x",
        "https://[::1]:5/",
        "http://[::ffff:1.2.3.4]/",
        "http://[fe80::1%25e]/",
    ),
    *(
        "http://u:p@ex.com/",
        "http://u@ex.com",
        "http://ex.com\\@evil.com/",
        "http://ex.com\\x/",
        "http://ex.com:80@evil/",
        "http://[]@",
    ),
    *(
        "http://ex.com/ x",
        "http://ex.com/\tx",
        "\nhttp://ex.com",
        "http://ex.com/\x7f",
        "http://ex.com/é",
        "http://ex.com/[",
    ),
    *(
        "ftp://ex.com/",
        "//ex.com/",
        "http:ex.com",
        "http:///ex.com",
        "",
        "http://",
        "http://?x",
        "http://.com",
        "http://a..b/",
    ),
    *("http://ex%2ecom/", "http://ex.com/%zz%", "http://ex.com?[]", "http://ex.com#a", "http://K.com/", "http://ſ.com"),
    *(f"http://{'a' * 63}.com/", f"http://{'a' * 64}.com/", f"http://{'a.' * 126}a/", f"http://{'a.' * 127}a/"),
    *(f"http://{'a.' * 126}ab./", f"http://ex.com/{'a' * 4082}", f"http://ex.com/{'a' * 4083}"),
]
DOMAINS = [
    *(
        "Example.COM.",
        "-a.com",
        "a_b",
        "xn--bcher-kva.de",
        "bücher.de",
        "a..b",
        ".",
        ".a",
        "a b",
        "a\\.b",
        "1.2.3.4",
        "@",
    ),
    *(
        "a" * 63,
        "a" * 64,
        "a." * 126 + "a",
        "a." * 127,
        "a." * 126 + "ab",
        "K.com",
        "STRASSE.de",
        "straße.de",
        "a/b",
        "*.a",
    ),
]
RELAYS: list[Any] = [None, "main", "bulk", "", "x" * 64, "x" * 65, "Ünïcode", "a b", "a\tb", 5, ["main"], {}]

PUSH_KEYS = {"p256dh": "B" + 86 * "A", "auth": 22 * "A"}

PLAIN: dict[str, dict[str, Any]] = {
    "email": {"to": "a@example.com", "subject": "s", "text": "t"},
    "webhook": {"payload": 1},
    "sms": {"to": "+447700900123", "text": "t"},
}

piece = st.sampled_from([
    *("a", "B", "z9", "-", "_", ".", "..", ":", "80", "65536", "@", "/", "?", "#", "[", "]", "%", "0x", "127.0.0.1"),
    *("1", "xn--", "é", "\\", "\x7f", " ", "example.com", "::1", "。", "\u212a", "ß", "‍", "%00", "\U0001f600"),
])  # fmt: skip
text = st.one_of(
    st.lists(piece, max_size=12).map("".join),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30),
)
url = st.builds(
    lambda scheme, rest: scheme + rest, st.sampled_from(["http://", "https://", "HTTP://", "ws://", ""]), text
)


def handlers_lane(kind: str, args: dict[str, Any]) -> str | None:
    """What the daemon derives once the row is claimed; None as well for args it refuses."""
    known = KINDS[kind]
    assert known.lane is not None
    try:
        return known.lane(known.decode(json.dumps(args)))
    except (msgspec.ValidationError, ValueError):
        return None


async def sql_lanes(pool: Pool | asyncpg.Connection, rows: Sequence[tuple[str, dict[str, Any]]]) -> list[str | None]:
    found = await pool.fetch(
        """select job_lane(kind, args::jsonb, null)
           from unnest($1::text[], $2::text[]) with ordinality as t (kind, args, n) order by n""",
        [kind for kind, _args in rows],
        [json.dumps(args) for _kind, args in rows],
    )
    return [row[0] for row in found]


def rows_of(urls: Sequence[str], domains: Sequence[str], relays: Sequence[Any]) -> list[tuple[str, dict[str, Any]]]:
    expect = [{"type": "TXT", "value": "v"}]
    return [
        *(("webhook", {**PLAIN["webhook"], "url": text}) for text in urls),
        *(("push", {"subscription": {"endpoint": text, "keys": PUSH_KEYS}, "text": ""}) for text in urls),
        *(("dns_check", {"domain": domain, "expect": expect}) for domain in domains),
        *(("email", {**PLAIN["email"], "relay": relay}) for relay in relays),
        *(("sms", {**PLAIN["sms"], "provider": relay}) for relay in relays),
        ("email", PLAIN["email"]),
        ("sms", PLAIN["sms"]),
    ]


async def check(pool: Pool | asyncpg.Connection, rows: Sequence[tuple[str, dict[str, Any]]]) -> int:
    """No lane of SQL's differs from the handler's; how many it knew."""
    known = 0
    for (kind, args), lane in zip(rows, await sql_lanes(pool, rows), strict=True):
        assert lane in (None, handlers_lane(kind, args)), (kind, args)
        known += lane is not None
    return known


async def test_sql_and_handlers_agree_on_what_people_write(pool: Pool) -> None:
    rows = rows_of(URLS, DOMAINS, RELAYS)
    assert await check(pool, rows) > 50, "most ordinary ones are told in SQL"


async def test_sql_tells_the_lane_of_what_is_ordinary(pool: Pool) -> None:
    rows = rows_of(["https://hooks.example.com/a", "http://127.0.0.9:8080"], ["example.com"], ["bulk"])
    assert await sql_lanes(pool, rows) == [
        *["hooks.example.com", "127.0.0.9"] * 2,
        *("example.com", "bulk", "sms:bulk", "main", "sms:main"),
    ]


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(url, min_size=20, max_size=60), st.lists(text, max_size=20), st.lists(text, max_size=10))
async def test_sql_and_handlers_agree_on_whatever_is_generated(
    pool: Pool, urls: list[str], domains: list[str], relays: list[str]
) -> None:
    await check(pool, rows_of(urls, domains, relays))


async def test_a_row_for_an_endpoint_has_the_lane_of_that_endpoint(pool: Pool) -> None:
    given = [12, 0, -1, 1.0, 1.5, 1e3, 10**17, 10**18, 2**63, "12", "main", None, [12], {"id": 12}, True]
    rows: list[tuple[str, dict[str, Any]]] = [("webhook", {"endpoint": one, "payload": 1}) for one in given]
    rows += [("webhook", {"endpoint": 12, "event_id": 3}), ("webhook", {"endpoint": 12, "url": "https://a.com/"})]
    assert await check(pool, [row for row in rows if "url" not in row[1]]) >= 3
    assert (await sql_lanes(pool, rows))[:1] == ["endpoint:12"]
    assert (await sql_lanes(pool, rows))[-2] == "endpoint:12"


async def test_mail_cannot_stand_in_the_lane_of_an_endpoint(pool: Pool) -> None:
    rows = rows_of([], [], ["endpoint:12", "endpoint", "bulk"])
    assert (await sql_lanes(pool, rows))[:3] == [None, "endpoint", "bulk"]
    await check(pool, rows)


async def test_a_lane_that_is_given_counts_and_other_kinds_have_none(pool: Pool) -> None:
    told = await pool.fetchval("select job_lane('webhook', '{\"url\": \"http://a.com\"}', 'mine')")
    other = await pool.fetchval("select job_lane('noop', '{\"url\": \"http://a.com\"}', null)")
    assert (told, other) == ("mine", None)


@pytest.mark.parametrize(
    "args",
    [
        '{"subscription": []}',
        '{"subscription": {"endpoint": 5}}',
        '{"subscription": {"endpoint": {"https:": "//a.b/"}}}',
    ],
)
async def test_what_is_no_subscription_has_no_lane(pool: Pool, args: str) -> None:
    assert await pool.fetchval("select job_lane('push', $1::text::jsonb, null)", args) is None


@pytest.mark.parametrize("args", ['{"url": 5}', '{"url": null}', '{"url": ["http://a.com"]}', "{}"])
async def test_args_of_another_type_have_no_lane(pool: Pool, args: str) -> None:
    assert await pool.fetchval("select job_lane('webhook', $1::text::jsonb, null)", args) is None
    assert await pool.fetchval("select job_lane('dns_check', $1::text::jsonb, null)", args) is None


async def test_the_function_is_inlined(pool: Pool) -> None:
    """Called as a function it would cost a claim some 10 µs a row."""
    plan = await pool.fetch("explain (verbose) select job_lane(kind, args, lane) from jobs")
    text = "\n".join(row[0] for row in plan)
    assert "CASE" in text
    assert "job_lane" not in text
