"""Events of a child process: bounded, complete, and never in the way of its end."""

from __future__ import annotations

import os
import sys
import threading
from itertools import count
from pathlib import Path

import pytest

from asktell.worker import events
from asktell.worker.events import MAX_BATCHES, Chunk, Events, Exited, Line
from asktell.worker.process import Guard, Process
from tests.processes import until

FLOOD = "import itertools, sys\nfor i in itertools.count(): print(i)"


def start(program: str, *, grace: float = 20.0) -> Process:
    return Process([sys.executable, "-c", program], environment=dict(os.environ), guard=Guard(grace))


def test_who_puts_waits_for_room() -> None:
    under_way, put = Events(), []

    def flood() -> None:
        for number in range(3 * MAX_BATCHES):
            under_way.put((Line("stdout", str(number).encode()),))
            put.append(number)

    writer = threading.Thread(target=flood, daemon=True)
    writer.start()
    until(lambda: len(put) == MAX_BATCHES)
    assert under_way.next(60) == Line("stdout", b"0")
    until(lambda: len(put) == MAX_BATCHES + 1)
    rest = [under_way.next(60) for _ in range(3 * MAX_BATCHES - 1)]
    assert rest == [Line("stdout", str(number).encode()) for number in range(1, 3 * MAX_BATCHES)]
    writer.join(60)
    assert not writer.is_alive()


def test_nobody_waits_for_room_once_nobody_listens() -> None:
    under_way, over = Events(), threading.Event()

    def flood() -> None:
        for _ in count():
            if over.is_set():
                return
            under_way.put((Line("stdout", b"x"),))

    writers = [threading.Thread(target=flood, daemon=True) for _ in range(4)]
    for writer in writers:
        writer.start()
    until(lambda: under_way._batches.full())
    over.set()
    under_way.ignore()
    for writer in writers:
        writer.join(60)
    assert not any(writer.is_alive() for writer in writers)


def test_the_pipe_holds_back_a_process_that_nobody_listens_to() -> None:
    process = start("import sys\nfor i in range(40): sys.stdout.write('ab\\n' * 10_000)\nprint('end')")
    until(lambda: process._events._batches.full())
    lines = []
    while not isinstance(event := process.next_event(60), Exited):
        assert process._events._batches.qsize() <= MAX_BATCHES
        lines.append(event)
    assert len(lines) == 400_001
    assert lines[-1] == Line("stdout", b"end\n")
    assert event == Exited(0)


def test_lines_that_come_together_are_taken_together() -> None:
    process = start("import sys\nfor i in range(40): sys.stdout.write('ab\\n' * 10_000)\nprint('end')")
    pieces = []
    while not isinstance(piece := process.next_piece(60), Exited):
        pieces.append(piece)
    assert sum(piece.count for piece in pieces) == 400_001
    assert len(pieces) < 4_000
    assert b"".join(piece.data for piece in pieces) == b"ab\n" * 400_000 + b"end\n"


@pytest.mark.parametrize(
    ("data", "lines", "has_objects"),
    [
        (b"a\nb\r\nc\rd", [b"a\n", b"b\r\n", b"c\r", b"d"], False),
        (b'{"loss": 1}', [b'{"loss": 1}'], True),
        (b'50 %\r {"loss": 1}\n', [b"50 %\r", b' {"loss": 1}\n'], True),
        (b'at {"loss": 1}\nloss {\n', [b'at {"loss": 1}\n', b"loss {\n"], False),
        (b"\n\n\t{\n", [b"\n", b"\n", b"\t{\n"], True),
        # Blank lines are gone through once: from each of them anew, this would take longer than the suite.
        (b"\n" * 1_000_000 + b"a {\n", [b"\n"] * 1_000_000 + [b"a {\n"], False),
    ],
)
def test_a_chunk_knows_its_lines_and_whether_one_may_be_an_object(data, lines, has_objects: bool) -> None:
    chunk = Chunk("stdout", data)
    assert [line.data for line in chunk.lines] == lines
    assert (chunk.count, chunk.has_objects) == (len(lines), has_objects)


@pytest.mark.parametrize("width", [1, 50, 3_000, 70_000])
def test_the_last_lines_of_a_chunk_are_whole_and_not_blank(width: int) -> None:
    lines = [b"%03d" % number + b"x" * width for number in range(100)]
    found = Chunk("stderr", b"\n \n".join(lines)).last(20)
    assert [line.data.strip() for line in found] == lines[-20:]
    assert Chunk("stderr", b"\n\n").last(20) == []


def test_every_line_comes_before_the_end_however_late_it_is_listened_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "SILENT_SECONDS", 0.1)
    # More than queue and pipe hold, so that the reader waits long after the process has ended.
    process = start("import sys\nfor i in range(9): sys.stdout.write('x' * 65_535 + '\\n')\nprint('end', flush=True)")
    process.wait()
    # Patience with a pipe that is silent runs out meanwhile; it must not count while the reader waits for room.
    threading.Event().wait(0.5)
    seen = []
    while not isinstance(event := process.next_event(60), Exited):
        seen.append(event)
    assert seen[-1] == Line("stdout", b"end\n")


def test_a_process_that_floods_its_output_ends_when_it_is_closed() -> None:
    process = start("import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n" + FLOOD, grace=3600.0)
    until(lambda: process._events._batches.full())
    process.close()
    # Not by SIGKILL: it could write what it had to say and leave by itself.
    assert process.wait() == 7


def test_a_daemon_that_floods_an_inherited_pipe_does_not_keep_a_process_from_ending(tmp_path: Path) -> None:
    floods = tmp_path / "floods"
    daemon = f"import os\nos.setsid()\nprint('daemon', os.getpid(), flush=True)\nopen({str(floods)!r}, 'x')\n{FLOOD}"
    # The process ends once the daemon has said its first line.
    wait = f"while not os.path.exists({str(floods)!r}): time.sleep(0.01)"
    program = f"import os, subprocess, sys, time\nsubprocess.Popen([sys.executable, '-c', {daemon!r}])\n{wait}"
    process = start(program)
    first = process.next_event(60)
    assert isinstance(first, Line)
    daemon_id = int(first.text.split()[1])
    try:
        while not isinstance(event := process.next_event(60), Exited):
            assert event is not None
        assert event == Exited(0)
    finally:
        os.kill(daemon_id, 9)
