"""The pace of a training: what the display shows, when a state is written, and how an interruption is held back."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

__all__ = ["deferred_interrupts"]


@contextlib.contextmanager
def deferred_interrupts(on_first: Callable[[], object] = lambda: None) -> Iterator[Callable[[], bool]]:
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
        on_first()

    if threading.current_thread() is threading.main_thread():
        known = {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)}
        before = {name: handler for name, handler in known.items() if handler not in (None, signal.SIG_IGN)}
        for name in before:
            signal.signal(name, receive)
    try:
        yield lambda: bool(received)
    finally:
        put_back()
