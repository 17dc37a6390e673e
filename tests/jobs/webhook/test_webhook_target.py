"""A URL is read once and in one way, or not at all."""

from __future__ import annotations

import pytest

from jobs.webhook.args import lane
from jobs.webhook.target import BadUrl, parse
from tests.jobs.webhook.world import KIND


@pytest.mark.req("AS-09")
@pytest.mark.parametrize(
    "text",
    [
        *("", "example.com", "//example.com/", "ftp://example.com/", "javascript:1", "file:///etc/passwd", "http:///x"),
        *("http://user:secret@example.com/", "http://user@example.com/", "http://@example.com/"),
        *("http://a@b:80@127.0.0.1/", "http://[::1]:80@example.com/", "http://example.com\\@evil/"),
        *(
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://0/",
            "http://0177.0.0.1/",
            "http://1.2.3.4.5/",
        ),
        *(
            "http://127.0.0.1./",
            "http://127.0.0.01/",
            "http://example.0x7f/",
            "http://[fe80::1%25eth0]/",
            "http://[::1/",
            "http://[]@",
        ),
        *("http://exa%6dple.com/", "http://localhost%00.example.com/", "http://a..b/", "http://-a/", "http://xn--/"),
        *("http://example.com:99999/", "http://example.com:80:80/", "http://" + "a" * 64 + ".com/"),
        *("http://exa mple.com/", "http://example.com/\r\nx: y", "http://\t127.0.0.1/", "http://example.com/\x00"),
        "https://example.com/" + "a" * 4096,
    ],
)
def test_an_ambiguous_or_impossible_url_is_refused(text: str) -> None:
    with pytest.raises(BadUrl) as refused:
        parse(text)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "host", "port", "is_literal"),
    [
        ("https://Example.COM", "example.com", 443, False),
        ("http://example.com.:8080/", "example.com", 8080, False),
        ("https://ⓔxample.com/", "example.com", 443, False),
        ("https://bücher.example/", "xn--bcher-kva.example", 443, False),
        ("http://１２７.０.０.１/", "127.0.0.1", 80, True),
        ("http://①②⑦。⓪。⓪。①/", "127.0.0.1", 80, True),
        ("http://[::1]:81/", "::1", 81, True),
        ("http://example.com#@127.0.0.1/", "example.com", 80, False),
    ],
)
def test_the_host_judged_is_the_host_connected_to(text: str, host: str, port: int, is_literal: bool) -> None:
    target = parse(text)
    assert (target.host, target.port, target.is_literal) == (host, port, is_literal)
    assert (target.url.raw_host or "").rstrip(".") == host
    assert target.url.port == port


def test_a_signed_query_is_sent_as_it_was_given() -> None:
    assert parse("https://EXAMPLE.com/a%2Fb?x=%2F%7e+b&a").url.raw_path_qs == "/a%2Fb?x=%2F%7e+b&a"


def test_a_rows_lane_is_the_host_of_its_url() -> None:
    assert lane(KIND.decode('{"url": "https://Hooks.Example.com:8443/x", "payload": 1}')) == "hooks.example.com"
    assert lane(KIND.decode('{"url": "nonsense", "payload": 1}')) is None
