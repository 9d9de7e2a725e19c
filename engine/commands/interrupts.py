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


class Interrupted(Exception):
    """The command was stopped by a signal. Its message says how to go on."""


@contextmanager
def stops_after_step(listener: "Listener", shows: bool, alone: bool = True) -> Iterator[None]:
    """A context in which the first Ctrl-C or SIGTERM sets `listener.stop_requested`, and the second ends the command at
    once, by KeyboardInterrupt.

    Args:
        shows: whether this process says so on standard error.
        alone: whether this is the only process. A launcher ends several by SIGTERM once one has failed; the others then
            wait for that one, and must not go on to the end of a step.
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

    signals = (signal.SIGINT, signal.SIGTERM) if alone else (signal.SIGINT,)
    before = {number: signal.signal(number, stop) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
