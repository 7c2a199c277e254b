"""The pace of a training: what the display shows, when a state is written, and how an interruption is held back."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator

from vaelab.console import Advance

__all__ = ["Clock", "Saver", "interruption"]

SHOW_SECONDS = 0.2  # between two updates of the display
STATE_SHARE = 20  # a state is written when training since the last took this many times as long as writing it
STATE_SECONDS = 60  # within an epoch, a state is written this often


class Clock:
    """Seconds of training, those before a resumption included, and what the display shows of them."""

    def __init__(self, before: float, images: int) -> None:
        self.before, self.start, self.images, self.shown = before, time.monotonic(), images, 0.0

    def seconds(self) -> float:
        return self.before + time.monotonic() - self.start

    def show(self, advance: Advance, step: int, images: int, text: Callable[[], str]) -> None:
        """Show the step, the images seen so far a second, and the text, unless that was done just now."""
        now = time.monotonic()
        if now - self.shown >= SHOW_SECONDS:
            self.shown = now
            rate = (images - self.images) / (now - self.start)
            advance(step, f"{rate:,.0f} images/s, {text()}")


class Saver:
    """Says when a state is due: seldom enough that writing costs less than 5 % of the training."""

    def __init__(self) -> None:
        self.last, self.cost = time.monotonic(), 0.0

    def due(self, epoch_ended: bool) -> bool:
        since = time.monotonic() - self.last
        return since > STATE_SHARE * self.cost and (epoch_ended or since > STATE_SECONDS)

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """Time the writing of a state."""
        begun = time.monotonic()
        yield
        self.last = time.monotonic()
        self.cost = self.last - begun


@contextlib.contextmanager
def interruption(pass_on: Callable[[], object] = lambda: None) -> Iterator[Callable[[], bool]]:
    """Hold back the first Ctrl-C or SIGTERM, so that a step and its state are completed; the second one strikes.

    `pass_on` is called with the first, to tell others.

    A signal that is ignored (nohup) stays ignored, and outside the main thread, which signals do not reach, nothing is
    held back.
    """
    received: list[int] = []
    before = {}

    def put_back() -> None:
        for name, handler in before.items():
            signal.signal(name, handler)

    def receive(number: int, _: object) -> None:
        received.append(number)
        put_back()
        pass_on()

    if threading.current_thread() is threading.main_thread():
        known = {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)}
        before = {name: handler for name, handler in known.items() if handler not in (None, signal.SIG_IGN)}
        for name in before:
            signal.signal(name, receive)
    try:
        yield lambda: bool(received)
    finally:
        put_back()
