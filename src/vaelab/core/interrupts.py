"""Interruptions: Ctrl-C and SIGTERM, held back until the work can stop without loss."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["deferred_interrupts", "sigterm_as_interrupt"]

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def deferred_interrupts(on_first: Callable[[], object] = lambda: None) -> Iterator[Callable[[], bool]]:
    """Hold back the first Ctrl-C or SIGTERM, so that the work under way can be completed; the second one acts at once.

    A signal that is ignored (as under nohup) stays ignored. Signals reach the main thread only: in other threads
    nothing is held back.

    Args:
        on_first: Called when the first signal arrives, for example to pass it on to other processes.

    Yields:
        A function that says whether a signal has arrived.
    """
    received: list[int] = []
    previous: dict[signal.Signals, Any] = {}

    def restore_handlers() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def receive(number: int, _: object) -> None:
        received.append(number)
        restore_handlers()
        on_first()

    if threading.current_thread() is threading.main_thread():
        for number in STOP_SIGNALS:
            handler = signal.getsignal(number)
            if handler not in (None, signal.SIG_IGN):
                previous[number] = handler
                signal.signal(number, receive)
    try:
        yield lambda: bool(received)
    finally:
        restore_handlers()


@contextlib.contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM raise KeyboardInterrupt, as Ctrl-C does, so that the user is told how to go on."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def interrupt(number: int, _: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
