"""Names as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.dns import names


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Example.COM", "example.com"),
        ("example.com.", "example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("xn--BCHER-kva.example", "xn--bcher-kva.example"),
        ("straße.example", "xn--strae-oqa.example"),
        ("_dmarc.example.com", "_dmarc.example.com"),
        ("bücher。example", "xn--bcher-kva.example"),
        ("localhost", "localhost"),
    ],
)
def test_one_name_has_one_form(text: str, name: str) -> None:
    assert names.normal(text) == name


@pytest.mark.parametrize(
    "text",
    ["", ".", "@", "a b.example", "a..example", "https://example.com", "*.example.com", "a\\032b.example",
     "x" * 64 + ".de", "a.\x00.example", "ex\nample.com", ".".join(["x" * 60] * 5), "\ud800.example"],
)  # fmt: skip
def test_what_is_no_name_is_refused_with_a_reason(text: str) -> None:
    with pytest.raises(ValueError, match="is not a domain name"):
        names.normal(text)


@given(st.text(max_size=80))
def test_any_text_is_a_name_in_normal_form_or_a_value_error(text: str) -> None:
    try:
        name = names.normal(text)
    except ValueError:
        return
    assert names.normal(name) == name


@pytest.mark.parametrize(
    ("name", "full"),
    [
        (None, "example.com"),
        ("@", "example.com"),
        ("example.com", "example.com"),
        ("Example.com.", "example.com"),
        ("_dmarc", "_dmarc.example.com"),
        ("s1._domainkey", "s1._domainkey.example.com"),
        ("_dmarc.example.com", "_dmarc.example.com"),
        ("_dmarc.example.com.", "_dmarc.example.com"),
        ("notexample.com", "notexample.com.example.com"),
    ],
)
def test_a_name_is_read_as_a_zone_file_reads_it(name: str | None, full: str) -> None:
    assert names.under("example.com", name) == full


@pytest.mark.parametrize("name", ["victim.org.", "com.", "notexample.com.", "evilexample.com."])
def test_a_check_of_one_domain_never_asks_about_another(name: str) -> None:
    with pytest.raises(ValueError, match=r"neither 'example\.com' nor below it"):
        names.under("example.com", name)


def test_a_relative_name_may_not_grow_too_long() -> None:
    with pytest.raises(ValueError, match="is not a domain name"):
        names.under(".".join(["x" * 60] * 3), ".".join(["y" * 60] * 2))
