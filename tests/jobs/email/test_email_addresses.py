from __future__ import annotations

import pytest

from jobs.email.address import mailbox


@pytest.mark.parametrize(
    ("text", "name", "wire"),
    [
        ("jane@x.example", "", "jane@x.example"),
        ("<jane@x.example>", "", "jane@x.example"),
        ("Jane Doe <jane.doe+tag@x.example>", "Jane Doe", "jane.doe+tag@x.example"),
        ('"Doe, Jane" <jane@x.example>', "Doe, Jane", "jane@x.example"),
        (r'"a \"b\" \\ c" <jane@x.example>', r'a "b" \ c', "jane@x.example"),
        ("Zażółć <jane@x.example>", "Zażółć", "jane@x.example"),
        ("root@localhost", "", "root@localhost"),
        ("jane@bücher.example", "", "jane@xn--bcher-kva.example"),
        ("używa@x.example", "", "używa@x.example"),
        ("o'neil!#$%&*/?=^_`{|}~@x.example", "", "o'neil!#$%&*/?=^_`{|}~@x.example"),
    ],
)
def test_a_mailbox_is_taken_as_it_is(text: str, name: str, wire: str) -> None:
    found = mailbox(text)
    assert (found.name, found.wire) == (name, wire)
    assert found.address in text


HOSTILE = [
    "",
    "jane",
    "@x.example",
    "jane@",
    "a@b.c>\r\nRCPT TO:<evil@x",
    "jane@x.example\r\nBcc: evil@x.example",
    "jane@x.example\n",
    "jane@x.example\0",
    "jane@x.example, evil@x.example",
    "jane@x.example evil@x.example",
    "jane@x.example;evil@x.example",
    "Doe, Jane <jane@x.example>",
    "evil@x.example <jane@x.example>",
    "<evil@x.example> <jane@x.example>",
    "Jane <jane@x.example> evil",
    "Jane <<jane@x.example>>",
    "Jane <jane@x.example",
    "jane@x.example>",
    "jane(comment)@x.example",
    "jane@x.example (comment)",
    '"jane"@x.example',
    '"a@b.c>\r\nRCPT TO:<evil@x"@x.example',
    "jane@[127.0.0.1]",
    "jane@evil@x.example",
    ".jane@x.example",
    "jane.@x.example",
    "ja..ne@x.example",
    "jane@-x.example",
    "jane@x..example",
    "jane@x.example.",
    "jane@x_y.example",
    "jane@x.example\u2028",
    "jane\u0085@x.example",
    "ja\u202ene@x.example",
    "ja\u00a0ne@x.example",
    "jane@x。example",
    "jane@straße.example",
    "jane@BÜCHER.example",
    "jane@\ud800.example",
    "\ud800@x.example",
    "=?utf-8?q?evil?=@x.example",
    "=?utf-8?q?x=0D=0ABcc:_evil@x?=@x.example",
    "undisclosed: ;",
    "a" * 65 + "@x.example",
    "a@" + ".".join(["a" * 60] * 5),
    "jane@" + "a" * 64 + ".example",
    'Jane "Doe <jane@x.example>',
    '"Jane\\" <jane@x.example>',
    "J" * 256 + " <jane@x.example>",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_no_mailbox_is_refused_and_never_cleaned(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        mailbox(text)


def test_only_a_local_part_outside_ascii_needs_smtputf8() -> None:
    assert mailbox("używa@x.example").needs_smtputf8
    assert not mailbox("Zażółć <jane@bücher.example>").needs_smtputf8
