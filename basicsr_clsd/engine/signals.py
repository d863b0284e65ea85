"""Ending a run in good order when it is asked to."""

import signal
from types import FrameType, TracebackType

from basicsr_clsd.errors import StopRequested


class Signals:
    """Notes SIGINT and SIGTERM while the context lasts, instead of ending at once; a second SIGINT ends at once."""

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> 'Signals':
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]

    def request(self) -> StopRequested | None:
        """What a signal has asked for, if one has come."""
        return StopRequested(signal.Signals(self.number)) if self.number else None

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number == signal.SIGINT == number:
            raise KeyboardInterrupt
        self.number = number


def leave_to_parent(worker: int) -> None:
    """Let a loader process ignore both signals, which a terminal or scheduler sends to all: the run ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
