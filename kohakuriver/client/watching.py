"""Showing something again and again: in place on a terminal, one after the other elsewhere."""

import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import localtime, strftime
from typing import Any, NamedTuple, Self

from kohakuriver.client.command import Flag, Order
from kohakuriver.client.output import Screen, Style, fitted
from kohakuriver.client.pace import Patience
from kohakuriver.client.termination import unwound_when_terminated
from kohakuriver.model.errors import Unavailable
from kohakuriver.model.units import parse_seconds

ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"  # alternate screen, no cursor; and back
HOME, END_OF_LINE, BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


def interval(text: str) -> float:
    """Seconds between two looks: `0.5`, `2`, `1m`."""
    seconds = float(text) if text.replace(".", "", 1).isdecimal() else parse_seconds(text)
    if not 0.1 <= seconds <= 86400:
        raise ValueError(f"{text} is not between 0.1s and 1d")
    return seconds


INTERVAL = Flag(("--interval",), "How often to look (2s).", {"metavar": "TIME", "type": interval, "default": 2.0})


class Picture(NamedTuple):
    """What there is to see now; `code` is the exit code once nothing will change any more."""

    plain: Any
    lines: Callable[[Screen], Sequence[str]]
    code: int | None = None


Look = Callable[[], Picture]


def watch(order: Order, look: Look) -> int:
    """Show what `look` finds again and again; returns its exit code, or goes on until Ctrl-C."""
    if order.as_json or not order.screen.columns:
        return _one_after_the_other(order, look)
    picture = _on_terminal(order, look)
    order.screen.lines(picture.lines(order.screen.measured()))  # stays when the alternate screen is gone
    return picture.code or 0


def _on_terminal(order: Order, look: Look) -> Picture:
    picture, trouble = look(), ""
    with unwound_when_terminated(), Painter(order.screen) as painter:
        while True:
            painter.paint(_headed(order, picture, trouble))
            if picture.code is not None:
                return picture
            painter.pause(order.parsed.interval)
            try:
                picture, trouble = look(), ""
            except Unavailable as error:  # whoever looks at the screen decides how long to wait
                trouble = str(error)


def _headed(order: Order, picture: Picture, trouble: str) -> Callable[[Screen], Sequence[str]]:
    return lambda screen: [*_heading(order, screen, trouble), *picture.lines(screen)]


def _heading(order: Order, screen: Screen, trouble: str) -> list[str]:
    at = strftime("%H:%M:%S", localtime(order.clock.now()))
    title = f"{order.session.address}  {at}  every {order.parsed.interval:g}s, Ctrl-C ends"
    warning = [screen.paint(fitted(screen, trouble), Style.BAD)] if trouble else []
    return [screen.paint(fitted(screen, title), Style.FAINT), *warning, ""]


def _one_after_the_other(order: Order, look: Look) -> int:
    patience = Patience(order.clock, order.notes.warn)
    while True:
        try:
            picture = look()
            patience.well()
        except Unavailable as error:
            patience.bear(error)
            continue
        if order.as_json:
            order.screen.json_line(picture.plain)
        else:
            order.screen.lines([*picture.lines(order.screen), ""])
            order.screen.out.flush()
        if picture.code is not None:
            return picture.code
        order.clock.sleep(order.parsed.interval)


class Painter:
    """The alternate screen of a terminal; each picture overwrites the last, so that nothing flickers."""

    def __init__(self, screen: Screen) -> None:
        self._screen, self._out = screen, screen.out

    def __enter__(self) -> Self:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGWINCH])
        self._out.write(ENTER)
        return self

    def __exit__(self, *_: object) -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGWINCH])
        with suppress(OSError):  # a terminal that went away has nothing to restore
            self._out.write(LEAVE)
            self._out.flush()

    def paint(self, picture: Callable[[Screen], Sequence[str]]) -> None:
        """Show lines that are no wider than the terminal; those that do not fit below are counted."""
        screen = self._screen.measured()
        rows = max(2, screen.size()[1])
        shown = list(picture(screen))
        if len(shown) > rows:
            shown = [*shown[: rows - 1], f"{len(shown) - rows + 1} more lines"]
        self._out.write(HOME + "\n".join(line + END_OF_LINE for line in shown) + BELOW)
        self._out.flush()

    def pause(self, seconds: float) -> None:
        """Let time pass, but no more once the terminal changes its size."""
        signal.sigtimedwait([signal.SIGWINCH], seconds)
