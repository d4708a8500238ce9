"""How far a run is, by tqdm: one updating line on a terminal, a line now and then in a pipe. No colours in either."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TextIO, TypeVar

from tqdm import tqdm

T = TypeVar("T")


class _Line(tqdm):
    """tqdm as it is on a terminal; in a pipe whole lines, since a log cannot take back what it has."""

    monitor_interval = 0  # no thread that watches: callers say when something is done

    @staticmethod
    def status_printer(file: Any) -> Callable[[str], None]:
        """What writes the line: over the last one on a terminal, below it in a pipe."""
        return tqdm.status_printer(file) if file.isatty() else lambda line: print(line, file=file, flush=True)

    def close(self) -> None:
        """The last line, where one was shown."""
        if self.disable or self.fp.closed or self.fp.isatty():
            super().close()
        elif self.last_print_t >= self.start_t + self.delay:
            self.refresh()
        self.disable = True


class Progress:
    """Counts plates and says so on a stream (None: nowhere).

    total: plates the run shall hold. every: seconds between lines in a pipe, and before the first; a terminal is
    updated five times a second.
    """

    form = "{n:,} of {total:,} plates, {rate_noinv_fmt}{postfix}, {remaining} left"  # as tqdm names the figures

    def __init__(self, total: int, stream: TextIO | None, every: float = 10.0):
        self.accepted = self.rejected = self.before = 0
        self.terminal = stream is not None and stream.isatty()
        every = 0.2 if self.terminal else max(every, 1e-9)  # of a delay of 0 tqdm shows a line with no figures
        self.bar = _Line(
            total=total,
            file=stream or sys.stderr,
            disable=stream is None,
            bar_format=self.form,
            unit="",
            mininterval=every,
            delay=every,
            miniters=0,  # a batch of which nothing was accepted is news, too
            smoothing=0,  # the time left is by the rate of the whole run: shards end in bursts
            ncols=shutil.get_terminal_size().columns - 1,  # tqdm's own look is blank where a terminal has no size
            nrows=20,
            position=0,
        )

    def resume(self, accepted: int) -> None:
        """Plates of an earlier start: they count as done, not as speed."""
        self.accepted = self.before = accepted
        self.bar.initial = self.bar.n = self.bar.last_print_n = accepted

    def add(self, accepted: int, rejected: int) -> None:
        """A batch has been judged."""
        self.accepted += accepted
        self.rejected += rejected
        if note := self.note():
            self.bar.set_postfix_str(note, refresh=False)
        self.bar.update(accepted)

    def note(self) -> str:
        """What the line says besides the counts: the accepted share of the attempts."""
        new = self.accepted - self.before
        return f"{new / (new + self.rejected):.1%} accepted" if new + self.rejected else ""

    def tell(self, end: bool = False) -> None:
        """Writes the line now; `end` leaves it standing."""
        if not end:
            self.bar.refresh()
            return
        self.bar.delay = 0  # however short it was
        self.close()

    def close(self) -> None:
        """Leaves the last line standing, where one was shown."""
        self.bar.close()


class Count(Progress):
    """Progress without talk of acceptance. In a pipe nothing is said of what takes less than five seconds."""

    def __init__(self, total: int, stream: TextIO | None, things: str):
        self.form = f"{{n:,}} of {{total:,}} {things}, {{remaining}} left"
        super().__init__(total, stream, every=5.0)

    def note(self) -> str:
        """Nothing."""
        return ""

    def over(self, items: Iterable[T]) -> Iterator[T]:
        """The items, each counted when the next one is asked for."""
        for item in items:
            yield item
            self.add(1, 0)
