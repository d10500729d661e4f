"""What trials write: into their logs, byte by byte and within limits, and on to the worker's own output."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from asktell.cli.logs import Shown
from asktell.worker.evaluation import Tail
from asktell.worker.events import Chunk, Line
from asktell.worker.logs import LogFile, Logs
from asktell.worker.workplace import Output, Workplace
from tests.unit.test_worker_evaluation import command, function, told
from tests.unit.test_worker_fake import FakeStudy

ODD = b"\xff\x00\xe4 caf\xc3\xa9\r\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def workplace(here: Path) -> Workplace:
    return Workplace(passage="none", logs=Logs(here / "logs", "w-1"))


def log_of(number: int) -> bytes:
    return Path(f"logs/default/fake/trial-{number}-20260101T000000.000000Z.log").read_bytes()


# Log files ----------------------------------------------------------------------------------------------------------


def test_all_that_a_command_writes_is_in_its_log_under_a_line_that_says_which_attempt_it_is(workplace) -> None:
    program = r"""printf '\377\000\344 odd\n{{"loss": 1}}\n'; echo no line end so far >&2; printf rest"""
    study = command(FakeStudy(), "sh", "-c", program, workplace=workplace)
    assert told(study) == ("succeeded", {"loss": 1.0})
    # Either stream may be read last, the one whose last line has an end or the other.
    title, *lines = log_of(1).splitlines()
    assert re.fullmatch(rb"=== trial 1, attempt 1, \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ, w-1", title)
    assert sorted(lines) == sorted([b"\xff\x00\xe4 odd", b'{"loss": 1}', b"no line end so far", b"rest"])


def test_all_that_a_function_prints_is_in_the_log_of_its_trial(workplace) -> None:
    source = "print('imported')\ndef objective(parameters, trial):\n    print('trial', trial.number)\n    return 1\n"
    function(FakeStudy(budget=2), source, workplace=workplace)
    first, second = (log_of(number).split(b"\n", 1)[1] for number in (1, 2))
    assert first.removeprefix(b"imported\n") == b"trial 1\n"
    assert second == b"trial 2\n"


def test_a_further_attempt_is_added_after_the_earlier_one(workplace) -> None:
    command(FakeStudy(), "printf", "first", workplace=workplace)
    command(FakeStudy(), "echo", "second", workplace=workplace)
    assert [line for line in log_of(1).split(b"\n") if not line.startswith(b"===")] == [b"first", b"second", b""]


def test_a_log_is_readable_while_it_is_written(here: Path) -> None:
    log = LogFile(here / "a.log", limit=1000)
    log.write(b"no line")
    assert (here / "a.log").read_bytes() == b"no line"
    log.close()


def test_a_log_keeps_its_beginning_and_its_end_and_says_how_much_is_left_out(here: Path) -> None:
    log = LogFile(here / "a.log", limit=1000)
    lines = [f"line {number:4}\n".encode() for number in range(5_000)]
    for line in lines:
        log.write(line)
        assert (here / "a.log").stat().st_size <= 1000 + len(line) + 60
    log.close()
    head, mark, tail = re.split(
        rb"(\[asktell: \d+ bytes of output are left out here\]\n)", (here / "a.log").read_bytes()
    )
    whole = b"".join(lines)
    assert whole.startswith(head)
    assert whole.endswith(tail)
    assert len(head) >= 500
    assert len(tail) >= 200
    left_out = int(re.findall(rb"\d+", mark)[0])
    assert len(head) + left_out + len(tail) == len(whole)


def test_a_later_attempt_has_the_whole_limit_again(here: Path) -> None:
    for title in ("one", "two"):
        log = LogFile(here / "a.log", limit=1000)
        log.begin(title)
        for number in range(500):
            log.write(f"{title} {number}\n".encode())
        log.close()
    text = (here / "a.log").read_text()
    assert text.startswith("one\none 0\n")
    assert "one 499\ntwo\ntwo 0\n" in text
    assert text.endswith("two 499\n")
    assert text.count("left out") == 2
    assert len(text) <= 2_200


def test_many_lines_at_once_leave_a_small_log_small(here: Path) -> None:
    log = LogFile(here / "a.log", limit=1000)
    for number in range(10):
        log.write(b"%d line\n" % number * 5_000)
        assert (here / "a.log").stat().st_size <= 1000 + 67
    log.close()
    assert (here / "a.log").read_bytes().endswith(b"9 line\n")


def test_one_line_longer_than_the_limit_is_bounded_too(here: Path) -> None:
    log = LogFile(here / "a.log", limit=1000)
    for _ in range(10):
        log.write(b"x" * 5_000)
    log.close()
    assert (here / "a.log").stat().st_size <= 5_000 + 1_100


def test_a_log_that_cannot_be_written_ends_no_training(here: Path, caplog) -> None:
    (here / "occupied").write_text("no directory")
    workplace = Workplace(passage="none", logs=Logs(here / "occupied", "w"))
    study = command(FakeStudy(), "echo", '{{"loss": 1}}', workplace=workplace)
    assert told(study) == ("succeeded", {"loss": 1.0})
    assert "trial 1 has no log: " in caplog.text


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_a_disk_that_is_full_ends_the_log_and_no_training(caplog) -> None:
    log = LogFile(Path("/dev/full"), limit=1000)
    log.write(b"x")
    log.write(b"x")
    assert caplog.text.count("the log /dev/full is not written on: ") == 1


# On to the worker's output ------------------------------------------------------------------------------------------


def test_output_passes_through_byte_by_byte_where_there_is_one_slot(capfdbinary) -> None:
    Output().show(Line("stdout", ODD))
    Output().show(Line("stderr", b"50 %\r"))
    assert tuple(capfdbinary.readouterr()) == (ODD, b"50 %\r")


def test_among_several_slots_each_line_has_its_trial_before_it(capfdbinary) -> None:
    output = Output(7, "prefixed")
    for data in (ODD, b"50 %\r", b"no end"):
        output.show(Line("stdout", data))
    Output(0, "prefixed").show(Line("stderr", b"importing\n"))
    assert tuple(capfdbinary.readouterr()) == (b"7| " + ODD + b"7| no end\n", b"importing\n")


def test_lines_that_come_together_have_their_trial_before_each(capfdbinary) -> None:
    chunk = Chunk("stdout", b"one\n10 %\r20 %\rtwo\nthree")
    Output(7, "prefixed").show(chunk)
    Output(7, "plain").show(chunk)
    Output(7, "prefixed").show(Chunk("stdout", b"30 %\r"))
    assert capfdbinary.readouterr().out == b"7| one\n7| two\n7| three\n" + chunk.data


def test_a_quiet_worker_passes_nothing_on(capfdbinary) -> None:
    Output(7, "none").show(Line("stdout", ODD))
    assert tuple(capfdbinary.readouterr()) == (b"", b"")


def test_variables_of_the_slot_reach_commands_and_functions() -> None:
    workplace = Workplace({"ASKTELL_SLOT": "3"}, passage="none")
    program = 'import os; print(\'{"loss": %s}\' % os.environ["ASKTELL_SLOT"])'
    study = command(
        FakeStudy(), sys.executable, "-c", program.replace("{", "{{").replace("}", "}}"), workplace=workplace
    )
    assert told(study) == ("succeeded", {"loss": 3.0})
    source = "import os\ndef objective(parameters, trial):\n    return float(os.environ['ASKTELL_SLOT'])\n"
    assert told(function(FakeStudy(), source, workplace=workplace)) == ("succeeded", {"loss": 3.0})


# Reading ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (None, b"a\nb\rc\n\nd\n"),
        (0, b""),
        (1, b"d\n"),
        (2, b"\nd\n"),
        (3, b"b\rc\n\nd\n"),
        (9, b"a\nb\rc\n\nd\n"),
    ],
)
def test_the_last_lines_are_shown(here: Path, capfdbinary, lines: int | None, expected: bytes) -> None:
    (here / "a.log").write_bytes(b"a\nb\rc\n\nd\n")
    Shown(here / "a.log", lines=lines).more()
    assert capfdbinary.readouterr().out == expected


def test_the_last_lines_of_a_long_file_are_shown_though_the_last_has_no_end(here: Path, capfdbinary) -> None:
    (here / "a.log").write_bytes(b"".join(b"%d\n" % number for number in range(100_000)) + b"rest")
    Shown(here / "a.log", lines=30_000).more()
    shown = capfdbinary.readouterr().out.split(b"\n")
    assert (len(shown), shown[0], shown[-1]) == (30_000, b"70001", b"rest")


def test_who_follows_a_log_that_is_cut_sees_every_line_once(here: Path, capfdbinary) -> None:
    log = LogFile(here / "a.log", limit=100_000)
    shown = Shown(here / "a.log", lines=None)
    for number in range(40_000):
        log.write(f"{number}\n".encode())
        if number % 100 == 0:
            shown.more()
    shown.more()
    log.close()
    assert [int(line) for line in capfdbinary.readouterr().out.split()] == list(range(40_000))
    assert b"left out" in (here / "a.log").read_bytes()


def test_who_follows_too_slowly_is_told_so(here: Path, capfdbinary) -> None:
    log = LogFile(here / "a.log", limit=10_000)
    shown = Shown(here / "a.log", lines=None)
    for number in range(4_000):
        log.write(f"{number}\n".encode())
        if number == 1_800:
            shown.more()
    shown.more()
    log.close()
    out = capfdbinary.readouterr().out
    assert b"\n[asktell: some output went by too fast to be shown]\n[asktell: " in out
    assert out.endswith(b"\n3999\n")


def test_another_streams_line_begins_on_its_own_where_one_was_left_unended(here: Path) -> None:
    log = LogFile(here / "a.log", limit=1000)
    output = Output(passage="none", log=log)
    for stream, data in (("stdout", b"half"), ("stdout", b" a line"), ("stderr", b"oops\n"), ("stdout", b"more\n")):
        output.keep(Line(stream, data))
    log.close()
    assert (here / "a.log").read_bytes() == b"half a line\noops\nmore\n"


def test_the_last_lines_of_a_quiet_stream_outlast_a_talkative_one() -> None:
    tail = Tail(Output(passage="none"))
    for stream, data in (("stderr", b"oops\n"), *(("stdout", b"%d\n" % number) for number in range(50))):
        tail.pass_on(Line(stream, data))
    assert str(tail).splitlines() == ["oops", *map(str, range(31, 50))]
    together = Tail(Output(passage="none"))
    together.pass_on(Chunk("stderr", b"oops\n"))
    together.pass_on(Chunk("stdout", b"".join(b"%d\n" % number for number in range(50))))
    assert str(together) == str(tail)
