"""Progress of long work: seen on a terminal, silent elsewhere."""

import io
import os
import pty
import subprocess
import sys

import pytest

from scaling_analysis.progress import progress_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_shown_on_a_terminal_and_nests(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar("outer", 2) as advance:
        with progress_bar("inner", 1) as advance_inner:
            advance_inner(1)
        advance(2)
    assert "outer" in screen.getvalue()
    assert "inner" in screen.getvalue()
    with progress_bar("again", 1) as advance:
        advance(1)
    assert "again" in screen.getvalue()


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
def test_progress_is_drawn_on_a_real_terminal_beside_the_output(tmp_path):
    main, side = pty.openpty()
    code = (
        "from scaling_analysis.progress import progress_bar\n"
        "with progress_bar('some fits', 2) as advance:\n"
        "    advance(2)\n"
        "print('the result')"
    )
    with (tmp_path / "said.txt").open("wb") as said:
        running = subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=said,
            stderr=side,
            env=os.environ | {"TERM": "xterm"},
        )
    os.close(side)
    shown = b""
    while True:  # a terminal holds little: what is not read stops the command
        try:
            piece = os.read(main, 65536)
        except OSError:  # the other side is closed and everything was read
            break
        if not piece:
            break
        shown += piece
    os.close(main)
    assert running.wait() == 0
    assert b"some fits" in shown
    assert (tmp_path / "said.txt").read_text() == "the result\n"
