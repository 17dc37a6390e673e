"""What a row of kind push may say."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from jobs.push.args import lane
from jobs.push.settings import PushSettings
from jobs.registry import KINDS
from jobs.values import Secret, Size
from tests.jobs.push.browser import Browser
from tests.jobs.push.pushes import KIND

SUBSCRIPTION = Browser().subscription("https://push.example:443/s/7")
PLAIN = {"subscription": SUBSCRIPTION, "payload": 1}


def keys(**changed: str) -> dict[str, Any]:
    return {"subscription": {**SUBSCRIPTION, "keys": {**SUBSCRIPTION["keys"], **changed}}, "payload": 1}


def decode(args: dict[str, Any]) -> Any:
    return KIND.decode(json.dumps(args))


def test_a_subscription_is_taken_as_browsers_print_it() -> None:
    assert lane(decode({**PLAIN, "subscription": {**SUBSCRIPTION, "of tomorrow": True}})) == "push.example"
    assert KINDS["push"].lane is lane


def test_an_endpoint_that_is_no_url_has_no_lane() -> None:
    assert lane(decode({**PLAIN, "subscription": {**SUBSCRIPTION, "endpoint": "push.example"}})) is None


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({"subscription": SUBSCRIPTION}, "give either payload or text"),
        ({**PLAIN, "text": "a"}, "give either payload or text"),
        ({"subscription": SUBSCRIPTION, "text": "a", "template": "b"}, "a template takes payload"),
        ({**PLAIN, "topic": "a b"}, "topic"),
        ({**PLAIN, "topic": "a" * 33}, "topic"),
        ({**PLAIN, "urgency": "now"}, "urgency"),
        ({**PLAIN, "ttl": "29d"}, "ttl: must be between 0 and 28 days"),
        ({**PLAIN, "ttl": "-1s"}, "not a duration"),
        ({**PLAIN, "timeout": 0}, "timeout: must be longer than zero"),
        ({**PLAIN, "payloadd": 1}, "payloadd"),
        (keys(auth="AAAA"), "auth: has 3 bytes and not 16"),
        (keys(p256dh="*"), "p256dh: is no URL-safe base64"),
        ({"payload": 1, "subscription": {"endpoint": "https://a.example"}}, "keys"),
    ],
)
def test_what_cannot_be_sent_is_refused_with_its_place(args: dict[str, Any], says: str) -> None:
    with pytest.raises((msgspec.ValidationError, ValueError), match=says):
        decode(args)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"private_key": Secret("x"), "subject": "ops@shop.example"}, "mailto:"),
        ({"private_key": Secret("x"), "subject": "http://shop.example"}, "mailto:"),
    ],
)
def test_a_section_that_no_service_would_take_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        PushSettings(**given)


def test_padding_may_be_left_out() -> None:
    assert PushSettings(padding=Size(0)).padding == 0
