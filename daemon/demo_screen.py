"""The demo's screen: lines that scroll by and, on a terminal, a foot that stays; drawn by a thread of its own."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.rule import Rule
from rich.text import Text

from daemon.demo_news import Line, Tone

WAITING_MAX = 500
"""Lines that wait to be drawn; what comes after them is counted, not shown."""

LINES_BESIDE_FOOT = 10
"""Where there are fewer, the foot shrinks to its first line: the lines that scroll are the point."""

NOTE_MIN = 12
"""With fewer columns left, a note is left out."""

STYLES: dict[Tone, str] = {"plain": "", "wait": "yellow", "bad": "red", "quiet": "dim", "told": "bold"}


@dataclass(frozen=True, slots=True)
class Foot:
    """What stays at the bottom: `status`, and `hints` where there is room."""

    status: str
    hints: tuple[str, ...]


class Screen:
    """Whoever reads slowly, or has stopped the terminal with Ctrl-S, holds up this thread and not the daemon.

    `on_gone` is called in that thread when nobody can read any more: the terminal is closed, or a pipe's reader is.
    """

    def __init__(self, stream: TextIO, on_gone: Callable[[], object]) -> None:
        self._console = Console(
            file=stream, highlight=False, markup=False, emoji=False, no_color="NO_COLOR" in os.environ or None
        )
        self.lives = self._console.is_terminal and not self._console.is_dumb_terminal
        """Whether there is a foot: on a terminal that can draw one."""
        self._on_gone = on_gone
        self._queue: queue.Queue[Line | Foot | None] = queue.Queue(WAITING_MAX)
        self._began = monotonic()
        self._left_out = 0
        self._hinted = False
        self._thread = threading.Thread(target=self._run, name="screen", daemon=True)
        self._thread.start()

    def show(self, line: Line) -> None:
        """Let it scroll by; never waits."""
        try:
            if self._left_out:
                self._queue.put_nowait(Line(f"… and {self._left_out} lines more", "quiet"))
                self._left_out = 0
            self._queue.put_nowait(line)
        except queue.Full:
            self._left_out += 1

    def say(self, text: str = "", tone: Tone = "plain") -> None:
        for part in text.split("\n"):
            self.show(Line(part, tone))

    def foot(self, foot: Foot) -> None:
        """From now on at the bottom; nothing without a terminal."""
        if self.lives and not self._queue.full():
            self._queue.put_nowait(foot)

    def close(self, timeout_s: float = 2.0) -> None:
        """Draw what is waiting and give the terminal back."""
        try:
            self._queue.put(None, timeout=timeout_s)
        except queue.Full:
            return  # nobody reads
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            self._draw()
        except (OSError, SystemExit):  # rich leaves by the latter when a pipe's reader is gone
            self._on_gone()

    def _draw(self) -> None:
        live: Live | None = None
        try:
            while (item := self._queue.get()) is not None:
                if isinstance(item, Line):
                    self._print(item)
                    continue
                self._print_hints(item)
                if live is None:
                    live = Live(
                        console=self._console, auto_refresh=False, transient=True,
                        redirect_stdout=False, redirect_stderr=False,
                    )  # fmt: skip
                    live.start()
                live.update(self._drawn(item), refresh=True)
        finally:
            if live is not None:
                live.stop()

    def _print(self, line: Line) -> None:
        style = STYLES if self.lives else dict.fromkeys(STYLES, "")
        text = Text(style=style["plain"])
        if line.is_event:
            text.append(f"{clock_text(monotonic() - self._began)}  ", style["quiet"])
        text.append(line.text, style[line.tone])
        if note := self._fitting(line.note, len(text)):
            text.append(f"  · {note}", style["quiet"])
        self._console.print(text, soft_wrap=True)  # what is copied from a terminal must not have our line breaks in it

    def _fitting(self, note: str, used: int) -> str:
        """As much of it as fits on the terminal's line."""
        room = self._console.width - used - len("  · ")
        if not self.lives or len(note) <= room:
            return note
        return f"{note[: room - 1]}…" if room > NOTE_MIN else ""

    def _print_hints(self, foot: Foot) -> None:
        """Once, where the foot has no room for them."""
        if not self._hinted and not self._has_room(foot):
            for hint in ("", *foot.hints, ""):
                self._print(Line(hint, "plain"))
        self._hinted = True

    def _drawn(self, foot: Foot) -> Group:
        parts = [Text(text, no_wrap=True, overflow="ellipsis") for text in (foot.status, *foot.hints)]
        return Group(Rule(style="dim"), *(parts if self._has_room(foot) else parts[:1]))

    def _has_room(self, foot: Foot) -> bool:
        width, height = self._console.size
        return width > max(map(len, foot.hints)) and height >= len(foot.hints) + LINES_BESIDE_FOOT


def clock_text(seconds: float) -> str:
    """67.2 → " 1:07"."""
    return f"{int(seconds) // 60:2}:{int(seconds) % 60:02}"
