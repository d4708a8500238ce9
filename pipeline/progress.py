"""How far a run is: one updating line on a terminal, a line now and then in a pipe."""

from __future__ import annotations

import time
from typing import TextIO


class Progress:
    """Counts plates and says so on a stream (None: nowhere).

    total: plates the run shall hold. every: seconds between lines in a pipe; a terminal is updated five times a second.
    """

    def __init__(self, total: int, stream: TextIO | None, every: float = 10.0):
        self.total, self.stream = total, stream
        self.accepted = self.rejected = self.before = 0
        self.terminal = stream is not None and stream.isatty()
        self.every = 0.2 if self.terminal else every
        self.start = self.told = time.monotonic()

    def resume(self, accepted: int) -> None:
        """Plates of an earlier start: they count as done, not as speed."""
        self.accepted = self.before = accepted

    def add(self, accepted: int, rejected: int) -> None:
        """A batch has been judged."""
        self.accepted += accepted
        self.rejected += rejected
        if time.monotonic() - self.told >= self.every:
            self.tell()

    def tell(self, end: bool = False) -> None:
        """Writes the line now; `end` leaves it standing."""
        if self.stream is None:
            return
        self.told = time.monotonic()
        opening, closing = ("\r", "\n" if end else "\x1b[K") if self.terminal else ("", "\n")
        self.stream.write(opening + self.line() + closing)
        self.stream.flush()

    def line(self) -> str:
        """Plates done, rate, accepted share of the attempts, and the time left at this rate."""
        new = self.accepted - self.before
        rate = new / max(time.monotonic() - self.start, 1e-6)
        share = f", {new / (new + self.rejected):.1%} accepted" if new + self.rejected else ""
        left = f", {_clock((self.total - self.accepted) / rate)} left" if 0 < new and self.accepted < self.total else ""
        return f"{self.accepted:,} of {self.total:,} plates, {rate:.1f}/s{share}{left}"


class Count(Progress):
    """Progress without talk of acceptance. In a pipe nothing is said of what takes less than five seconds."""

    def __init__(self, total: int, stream: TextIO | None, things: str):
        super().__init__(total, stream, every=5.0)
        self.things = things

    def line(self) -> str:
        """Things done, and the time left at this rate."""
        new = self.accepted - self.before
        rate = new / max(time.monotonic() - self.start, 1e-6)
        left = f", {_clock((self.total - self.accepted) / rate)} left" if 0 < new and self.accepted < self.total else ""
        return f"{self.accepted:,} of {self.total:,} {self.things}{left}"

    def close(self) -> None:
        """Leaves the last line standing, where one was shown."""
        if self.told > self.start:
            self.tell(end=True)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
