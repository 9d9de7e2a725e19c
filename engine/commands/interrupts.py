"""Ctrl-C and SIGTERM during a training: it ends after the step under way, and keeps a checkpoint."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.learning.listener import Listener

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):
    """The command was stopped by a signal. Its message says how to go on."""


@contextmanager
def stops_after_step(listener: "Listener", shows: bool) -> Iterator[None]:
    """A context in which the first Ctrl-C or SIGTERM sets `listener.stop_requested`, and the second ends the command at
    once, by KeyboardInterrupt.

    Args:
        shows: whether this process says so on standard error.
    """
    if threading.current_thread() is not threading.main_thread():  # only the main thread gets signals
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        if listener.stop_requested:
            raise KeyboardInterrupt
        listener.stop_requested = True
        if shows:
            print("\nStopping after this step. Once more stops at once.", file=sys.stderr, flush=True)

    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
