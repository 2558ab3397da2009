"""Ctrl-C on long work: the first asks it to stop where that is sound, the second stops it at once."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
"""Ctrl-C, what ends a process politely, and where there is such a signal a terminal that was closed."""


@contextmanager
def stop_requests(on_request: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """Within it, the signals `ENDING` are remembered instead of raised; yields whether one has come.

    `on_request` is called at the first. The second raises KeyboardInterrupt.
    """
    asked = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        on_request()

    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield lambda: False
        return
    before = {number: signal.getsignal(number) for number in ENDING}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as `nohup` leaves SIGHUP
            signal.signal(number, handle)
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
