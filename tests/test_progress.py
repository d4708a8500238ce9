"""Progress: one line on a terminal, whole lines in a pipe, and the time that is left."""

import io
import os
import pty
import re
import subprocess
import sys

import pytest

from platemint.pipeline.progress import Count, Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("stream, lines", [(Terminal(), 1), (io.StringIO(), 2)])
def test_a_terminal_sees_one_line_and_a_pipe_a_few(stream, lines):
    progress = Progress(100_000, stream, every=0)
    progress.bar.mininterval = 0
    progress.bar.delay = 0
    progress.resume(40)
    progress.add(10, 10)
    progress.tell(end=True)
    said = stream.getvalue()
    assert "50 of 100,000 plates" in said and "50.0% accepted" in said and re.search(r"\d+:\d\d left", said)
    assert said.count("\n") == lines and "\n\n" not in said and ("\r" in said) == stream.isatty()
    progress.add(1, 0)
    assert stream.getvalue() == said, "it has ended"


def test_a_resumed_runs_time_left_is_by_what_was_done_since():
    progress = Progress(1000, stream := io.StringIO(), every=0)
    progress.bar._time = lambda: progress.bar.start_t + 10
    progress.resume(900)
    progress.add(50, 0)
    assert "950 of 1,000 plates,  5.00/s, 100.0% accepted, 00:10 left" in stream.getvalue()


def test_what_is_soon_done_is_not_told_in_a_pipe():
    count = Count(3, stream := io.StringIO(), "pictures")
    for _ in range(3):
        count.add(1, 0)
    count.close()
    assert stream.getvalue() == ""
    count = Count(3, stream, "pictures")
    count.bar._time = lambda: count.bar.start_t + 6
    count.add(1, 0)
    count.close()
    assert stream.getvalue().splitlines() == ["1 of 3 pictures, 00:12 left"] * 2


def test_nowhere_is_a_stream_too():
    for progress in (Progress(3, None), Count(3, None, "pictures")):
        progress.resume(1)
        progress.add(1, 1)
        progress.tell()
        progress.tell(end=True)
        progress.close()


def test_a_real_terminal_gets_no_colours_and_no_line_twice():
    program = "import sys; from platemint.pipeline.progress import Count; c = Count(2, sys.stderr, 'pictures')\n"
    program += "c.bar.delay = c.bar.mininterval = 0\nfor _ in range(2): c.add(1, 0)\nc.close()"
    main, side = pty.openpty()
    subprocess.run([sys.executable, "-c", program], stderr=side, check=True, env=os.environ | {"NO_COLOR": "1"})
    os.close(side)
    said = os.read(main, 10_000).decode()
    assert said.count("\n") == 1 and "2 of 2 pictures" in said and "\x1b" not in said


def test_items_are_counted_as_they_go_by():
    stream = io.StringIO()
    looked_at = Count(3, stream, "photographs looked at")
    assert [*looked_at.over("abc")] == ["a", "b", "c"] and looked_at.accepted == 3
    looked_at.tell(end=True)
    assert "3 of 3 photographs looked at" in stream.getvalue()
