"""Templates of strangers: what they may do, and that nothing they do takes long, grows large or reaches us."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jobs.templates import TEXT_MAX, BadTemplate, Templates, TemplatesAway

CUT_OFF_S = 0.05
SIZE_MAX = 256 * 1024
TICK_S = 0.02  # the kernel counts CPU time in hundredths of a second: one at each end

ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
ONE_STEP = "{{ ([1] * n) | sum }}"  # for a large n: does not come back to Python for some 200 ms
DOUBLING = (
    "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x | tojson }}"
)


@pytest.fixture(scope="module")
async def templates() -> AsyncIterator[Templates]:
    """For all tests that leave the worker as good as it was, or have it replaced."""
    opened = Templates()
    yield opened
    await opened.close()


@pytest.fixture
async def fresh() -> AsyncIterator[Templates]:
    """That nobody has asked yet."""
    opened = Templates()
    yield opened
    await opened.close()


def worker(templates: Templates) -> Path:
    """What the kernel says of the process that rendered last."""
    return Path("/proc", str(templates._idle[-1].pid))


def cpu_s(process: Path) -> float:
    user, system = (process / "stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


async def test_data_becomes_text(templates: Templates) -> None:
    text = (
        'Order {{ payload.id }}: {% for i in payload["items"] %}{{ i.name }}{{ ", " if not loop.last }}{% endfor %} é\n'
    )
    data = {"payload": {"id": 7, "items": [{"name": "tea"}, {"name": "<milk>"}]}}
    assert await templates.render(text, json.dumps(data).encode()) == "Order 7: tea, <milk> é\n"
    escaped = await templates.render(text, json.dumps(data).encode(), escape=True)
    assert escaped == "Order 7: tea, &lt;milk&gt; é\n"


async def test_json_can_be_written(templates: Templates) -> None:
    data = {"payload": {"text": 'a "quoted" <é>\n', "n": 12345678901234567890123}}
    text = '{"said": {{ payload.text | tojson }}, "n": {{ payload.n }}, "all": {{ payload | tojson }}}'
    rendered = await templates.render(text, json.dumps(data).encode())
    assert json.loads(rendered) == {"said": data["payload"]["text"], "n": data["payload"]["n"], "all": data["payload"]}


async def test_one_worker_serves_many_and_a_second_only_when_both_are_needed(fresh: Templates) -> None:
    for _ in range(3):
        await fresh.render("x", b"{}")
    assert len(fresh._idle) == 1
    await asyncio.gather(*(fresh.render("{{ n }}", b'{"n":%d}' % n) for n in range(20)))
    assert len(fresh._idle) == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a\n{% if %}", "line 2: "),
        ("{{ nothing }}", "line 1: 'nothing' is undefined"),
        ("\n\n{{ payload.nothing }}", "line 3: 'dict object' has no attribute 'nothing'"),
        ("{{ 1 / 0 }}", "line 1: division by zero"),
        ("{% include 'x' %}", "line 1: no loader"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "maximum recursion depth"),
        ("{{ [1] | random }}", "No filter named 'random'"),
        ("{{ lipsum() }}", "'lipsum' is undefined"),
    ],
)
async def test_a_mistake_is_told_with_its_line(templates: Templates, text: str, says: str) -> None:
    with pytest.raises(BadTemplate) as refused:
        await templates.render(text, b'{"payload": {}}')
    assert refused.value.code == "template_error"
    assert says in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ payload.__class__ }}",
        "{{ payload['__class__'].__subclasses__() }}",
        "{{ payload.update.__globals__ }}",
        "{{ (payload | attr('__class__')).__base__ }}",
        "{{ ('{0.__class__}' | format(payload)) }}{{ '{0.__class__}'.format(payload).x }}",
        "{{ self.__init__.__globals__ }}",
        "{{ range.__self__ }}",
        "{{ payload.clear() }}",
        "{{ [].append(1) }}",
    ],
)
async def test_pythons_insides_are_out_of_reach(templates: Templates, text: str) -> None:
    with pytest.raises(BadTemplate) as refused:
        await templates.render(text, b'{"payload": {"a": 1}}')
    assert refused.value.code == "template_error"


@pytest.mark.parametrize("text", [ENDLESS, DOUBLING, "{{ range(99999) | list | pprint }}"])
async def test_a_loop_is_cut_off_within_50_ms_of_cpu_and_the_worker_goes_on(templates: Templates, text: str) -> None:
    spent: list[float] = []
    for _ in range(10):  # a machine that gives us half a core makes single steps of it long enough to be killed for
        await templates.render("x", b"{}")
        before = worker(templates)
        began = cpu_s(before)
        with pytest.raises(BadTemplate) as refused:
            await templates.render(text, b"{}")
        assert refused.value.code == "template_timeout"
        if before.exists():
            spent.append(cpu_s(before) - began)
            assert worker(templates) == before
        if len(spent) == 3:
            break
    assert len(spent) == 3
    assert min(spent) <= CUT_OFF_S + TICK_S


async def test_a_step_that_does_not_come_back_to_python_is_killed_and_another_worker_takes_over(
    templates: Templates,
) -> None:
    await templates.render("x", b"{}")
    before = worker(templates)
    with pytest.raises(BadTemplate, match="in one step") as refused:
        await templates.render(ONE_STEP, b'{"n": 40000000}')
    assert refused.value.code == "template_timeout"
    assert not before.exists()
    assert await templates.render("{{ a }}", b'{"a": 5}') == "5"


async def test_the_loop_of_the_daemon_runs_on_meanwhile(templates: Templates) -> None:
    """Turns of the loop while a template spins: none of it happens in this process."""
    await templates.render("x", b"{}")
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    with pytest.raises(BadTemplate):
        await templates.render(ENDLESS, b"{}")
    counting.cancel()
    assert turns > 50


@pytest.mark.parametrize(
    "text",
    [
        "{{ 'x' * 300000 }}",
        "{{ 'é' * 200000 }}",
        "{{ 'x' * 10 ** 10 }}",
        "{{ '%10000000000d' % 1 }}",
        "{% set x = 'x' * 1000 %}{% for i in range(1000) %}{{ x }}{% endfor %}",
    ],
)
async def test_what_grows_too_large_is_refused(templates: Templates, text: str) -> None:
    with pytest.raises(BadTemplate) as refused:
        await templates.render(text, b"{}", size_max=SIZE_MAX)
    assert refused.value.code == "template_too_large"


async def test_as_much_as_is_allowed_is_rendered(templates: Templates) -> None:
    assert len(await templates.render("{{ 'x' * 262144 }}", b"{}", size_max=SIZE_MAX)) == SIZE_MAX


async def test_a_template_of_any_length_is_not_even_sent(fresh: Templates) -> None:
    with pytest.raises(BadTemplate, match="longer than 65536"):
        await fresh.render("x" * (TEXT_MAX + 1), b"{}")
    assert fresh._idle == []


async def test_a_worker_knows_no_secret(fresh: Templates, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBSD_SECRET_SHOP", "hunter2")
    await fresh.render("x", b"{}")
    known = (worker(fresh) / "environ").read_bytes().split(b"\0")
    assert {entry.partition(b"=")[0] for entry in known} <= {b"", b"PYTHONPATH", b"LC_CTYPE"}


async def test_a_worker_that_was_killed_by_somebody_is_our_trouble_and_is_replaced(templates: Templates) -> None:
    await templates.render("x", b"{}")
    os.kill(int(worker(templates).name), 9)
    with pytest.raises(TemplatesAway):
        await templates.render("x", b"{}")
    assert await templates.render("x", b"{}") == "x"


@pytest.mark.parametrize("python", ["/nowhere/python", "/bin/true"])
async def test_no_worker_can_be_started(fresh: Templates, monkeypatch: pytest.MonkeyPatch, python: str) -> None:
    monkeypatch.setattr("sys.executable", python)
    with pytest.raises(TemplatesAway):
        await fresh.render("x", b"{}")


async def test_whoever_stops_waiting_leaves_no_worker_with_an_answer_for_another(fresh: Templates) -> None:
    await fresh.render("x", b"{}")
    waiting = asyncio.create_task(fresh.render(ENDLESS, b"{}"))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await fresh.render("mine", b"{}") == "mine"


async def test_closing_ends_the_workers(fresh: Templates) -> None:
    await fresh.render("x", b"{}")
    process = worker(fresh)
    await fresh.close()
    assert not process.exists()
