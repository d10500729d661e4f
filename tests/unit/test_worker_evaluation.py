"""Trials in real processes: what is told of every way in which one can end. The study is a fake; the processes are not."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from asktell.client import Unavailable
from asktell.worker.command import Template
from asktell.worker.evaluation import Limits, Tail, Unfit, Unusable
from asktell.worker.events import Chunk, Line
from asktell.worker.interruption import Interruption
from asktell.worker.loop import Options, Worker
from asktell.worker.objective import Objective, ObjectiveEvaluation
from asktell.worker.program import Program
from asktell.worker.workplace import AS_IT_IS
from tests.processes import gone, until
from tests.unit.test_worker_fake import FakeStudy

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the worker needs process groups")

HOUR = "3600"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(study: FakeStudy, evaluator, interruption: Interruption) -> FakeStudy:
    options = Options(worker_id="w", max_trials=study.budget)
    Worker(study, evaluator, options=options, interruption=interruption).run()
    return study


def command(
    study: FakeStudy, *arguments: str, interruption=None, metrics_file=None, infeasible=(), workplace=AS_IT_IS, **limits
):
    wish = interruption or Interruption()
    program = Program(
        Template.parse(arguments),
        objectives=study.metrics,
        limits=Limits(**{"grace": 20.0, **limits}),
        interruption=wish,
        study=study.id,
        metrics_file=metrics_file,
        infeasible=frozenset(infeasible),
        workplace=workplace,
    )
    return run(study, program, wish)


def python(study: FakeStudy, program: str, **options) -> FakeStudy:
    return command(study, sys.executable, "-c", program.replace("{", "{{").replace("}", "}}"), **options)


def function(
    study: FakeStudy, source: str, interruption: Interruption | None = None, workplace=AS_IT_IS, **limits
) -> FakeStudy:
    Path("train.py").write_text(source)
    wish = interruption or Interruption()
    objective = Objective(
        "train:objective",
        objectives=study.metrics,
        limits=Limits(**{"grace": 20.0, **limits}),
        interruption=wish,
        workplace=workplace,
    )
    return run(study, objective, wish)


def told(study: FakeStudy) -> tuple:
    (said,) = study.said
    return said


# Command lines ------------------------------------------------------------------------------------------------------


def test_a_command_gets_its_parameters_as_arguments_and_environment_and_its_metrics_are_told() -> None:
    study = FakeStudy(parameters={"x": 0.25, "name": "a b"})
    command(
        study,
        "sh",
        "-c",
        'test "$2" = "a b" && test "$ASKTELL_PARAM_NAME" = "a b" && test "$ASKTELL_TRIAL" = 1 && echo "{{\\"loss\\": $1}}"',
        "sh",
        "{x}",
        "{name}",
    )
    assert told(study) == ("succeeded", {"loss": 0.25})


def test_awk_can_be_an_objective() -> None:
    study = command(FakeStudy(parameters={"x": 3.0}), "awk", 'BEGIN {{ printf "{{\\"loss\\": %g}}\\n", {x} * {x} }}')
    assert told(study) == ("succeeded", {"loss": 9.0})


def test_measurements_are_reported_and_other_output_passes_through(capfd) -> None:
    study = command(
        FakeStudy(),
        "printf",
        '{{"step": 1, "loss": 2}}\\nhello\\n{{"step": 2, "loss": 1}}\\nbye',
    )
    assert study.trials[0].reports == [(1, {"loss": 2.0}), (2, {"loss": 1.0})]
    assert told(study) == ("succeeded", {"loss": 1.0})
    assert capfd.readouterr().out == "hello\nbye"


def test_metrics_may_come_from_the_file_and_replace_those_of_the_output() -> None:
    program = """
import json, os
print('{"loss": 5}')
json.dump({"loss": 2, "size": [7, 1]}, open(os.environ["ASKTELL_METRICS_FILE"], "w"), indent=1)
"""
    study = python(FakeStudy(), program)
    assert told(study) == ("succeeded", {"loss": 2.0, "size": (7.0, 1.0)})


def test_a_metrics_file_of_an_earlier_trial_does_not_count() -> None:
    study = FakeStudy(budget=2)
    command(
        study,
        "sh",
        "-c",
        "if [ {trial.number} = 1 ]; then echo '{{\"loss\": 1}}' > metrics.json; fi",
        metrics_file="metrics.json",
    )
    assert study.said[0] == ("succeeded", {"loss": 1.0})
    assert study.said[1][0] == "failed"


def test_a_line_that_cannot_be_read_is_named_by_its_number_however_the_lines_came() -> None:
    program = (
        r"""printf 'one\ntwo\n'; sleep 0.2; printf '{{"step": 1}}\nthree\n'; sleep 0.2; echo '{{"loss": "high"}}'"""
    )
    what, (message, _) = told(command(FakeStudy(), "sh", "-c", program))
    assert what == "failed"
    assert message.endswith('; line 5: loss is "high", not a number')


def test_a_command_that_fails_is_told_with_its_last_lines_and_how_it_ended() -> None:
    study = command(FakeStudy(), "sh", "-c", "seq 1 50; echo oops >&2; exit 3")
    what, (message, _) = told(study)
    lines = message.splitlines()
    assert (what, lines[-1], len(lines)) == ("failed", "exit status 3", 21)
    assert {"oops", "50"} <= set(lines)


def test_a_command_that_is_killed_is_told_with_the_signal() -> None:
    what, (message, _) = told(command(FakeStudy(), "sh", "-c", "kill -SEGV $$"))
    assert (what, message) == ("failed", "killed by SIGSEGV")


@pytest.mark.parametrize(
    ("program", "again"),
    [
        ("kill -KILL $$", True),
        ("kill -TERM $$", True),
        ("kill -HUP $$", True),
        ("sh -c 'kill -KILL $$'; exit $?", True),
        ("kill -SEGV $$", False),
        ("kill -ABRT $$", False),
        ("sh -c 'kill -SEGV $$'; exit $?", False),
        ("exit 3", False),
        ("exit 1", False),
    ],
)
def test_a_training_that_somebody_else_killed_is_tried_again_and_one_that_crashed_is_not(
    program: str, again: bool
) -> None:
    what, (_, retry) = told(command(FakeStudy(), "sh", "-c", program))
    assert (what, retry) == ("failed", again)


def test_an_exit_status_may_mean_that_the_parameters_cannot_work() -> None:
    study = command(
        FakeStudy(budget=2), "sh", "-c", "echo width is odd; exit $((40 + {trial.number}))", infeasible={42}
    )
    assert study.said == [
        ("failed", ("width is odd\nexit status 41", False)),
        ("infeasible", "width is odd\nexit status 42"),
    ]


def test_a_command_without_the_objectives_fails_and_says_what_it_gave() -> None:
    study = command(FakeStudy(metrics=("accuracy", "latency")), "echo", '{{"latency": 3}}')
    what, (message, _) = told(study)
    assert what == "failed"
    assert message == "exit status 0: no value for accuracy: the result has latency"


def test_a_program_that_is_not_there_is_refused_before_a_trial_is_asked_for() -> None:
    study = FakeStudy()
    with pytest.raises(Unusable, match="there is no program 'no-such-program'"):
        command(study, "no-such-program")
    assert study.asked == []


@pytest.mark.parametrize(
    ("name", "hint"),
    [("{here}/train.sh", "chmod"), ("train.sh", "write ./train.sh"), ("train", "is written train:FUNCTION")],
)
def test_a_file_that_is_no_program_is_told_what_it_lacks(
    name: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "train.sh").write_text("echo")
    (tmp_path / "train.py").write_text("def objective(parameters, trial): ...")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Unusable, match=hint):
        command(FakeStudy(), name.format(here=tmp_path))


def test_a_file_that_cannot_run_fails_its_trial() -> None:
    what, (message, _) = told(command(FakeStudy(parameters={"x": "no-such-program"}), "{x}"))
    assert what == "failed"
    assert "cannot start 'no-such-program': No such file or directory" in message


def test_a_command_that_is_to_stop_gets_sigterm_and_is_told_as_stopped() -> None:
    study = FakeStudy(stops={1})
    command(study, "sh", "-c", f'echo \'{{{{"step": 0, "loss": 4}}}}\'; exec sleep {HOUR}')
    assert told(study) == ("stopped", ({"loss": 4.0}, "no longer promising"))


def test_a_command_whose_trial_is_lost_is_ended_and_nothing_is_told() -> None:
    study = FakeStudy(losses={1})
    command(study, "sh", "-c", f'echo \'{{{{"step": 0, "loss": 4}}}}\'; exec sleep {HOUR}')
    assert told(study) == ()


def test_a_command_that_ignores_sigterm_is_killed_after_the_grace() -> None:
    study = FakeStudy(stops={1})
    program = f"trap '' TERM; echo '{{{{\"step\": 0, \"loss\": 4}}}}'; sleep {HOUR} & wait; sleep {HOUR}"
    command(study, "sh", "-c", program, grace=0.2)
    assert told(study)[0] == "stopped"


def test_a_trial_that_runs_too_long_fails() -> None:
    assert told(command(FakeStudy(), "sleep", HOUR, timeout=0.2)) == ("failed", ("ran longer than 0.2 s", False))


def test_a_report_that_does_not_arrive_ends_nothing() -> None:
    study = FakeStudy(deaf=[Unavailable("down")])
    command(study, "printf", '{{"step": 1, "loss": 2}}\\n{{"step": 2, "loss": 1}}\\n')
    assert study.trials[0].reports == [(2, {"loss": 1.0})]
    assert told(study) == ("succeeded", {"loss": 1.0})


def interrupt_when(path: Path, interruption: Interruption) -> threading.Thread:
    def wait() -> None:
        until(path.exists)
        interruption.interrupt()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_an_interruption_ends_the_command_with_all_it_started_and_gives_the_trial_back(here: Path) -> None:
    study, interruption = FakeStudy(), Interruption()
    thread = interrupt_when(here / "ready", interruption)
    command(
        study,
        "sh",
        "-c",
        f"sleep {HOUR} & echo $! > pid; touch ready; sleep {HOUR}",
        interruption=interruption,
    )
    thread.join()
    assert told(study) == ("released", None)
    assert gone(int((here / "pid").read_text()))


def test_a_result_that_is_complete_counts_though_the_worker_was_to_end(here: Path) -> None:
    study, interruption = FakeStudy(), Interruption()
    thread = interrupt_when(here / "ready", interruption)
    program = "trap 'exit 0' TERM; echo '{{\"loss\": 1}}'; touch ready; while :; do sleep 0.05; done"
    command(study, "sh", "-c", program, interruption=interruption)
    thread.join()
    assert told(study) == ("succeeded", {"loss": 1.0})


def test_a_partial_result_does_not_count_when_the_worker_was_to_end(here: Path) -> None:
    study, interruption = FakeStudy(), Interruption()
    thread = interrupt_when(here / "ready", interruption)
    program = "trap 'exit 0' TERM; echo '{{\"step\": 1, \"loss\": 1}}'; touch ready; while :; do sleep 0.05; done"
    command(study, "sh", "-c", program, interruption=interruption)
    thread.join()
    assert told(study) == ("released", None)


def test_what_a_command_leaves_running_ends_with_it(here: Path) -> None:
    command(FakeStudy(), "sh", "-c", f"sleep {HOUR} & echo $! > pid; echo '{{{{\"loss\": 1}}}}'")
    assert gone(int((here / "pid").read_text()))


def test_a_trial_that_ran_too_long_says_what_it_was_at(monkeypatch: pytest.MonkeyPatch) -> None:
    now, pass_on = [0.0], Tail.pass_on

    def hear(tail: Tail, said: Line | Chunk) -> None:
        pass_on(tail, said)
        now[0] = 3.1

    # Its time passes once it has said something, however long it takes to begin.
    monkeypatch.setattr(Tail, "pass_on", hear)
    monkeypatch.setattr("asktell.worker.evaluation.time", SimpleNamespace(monotonic=lambda: now[0]))
    study = command(FakeStudy(), "sh", "-c", "echo downloading; exec sleep 3600", timeout=3.0)
    assert told(study) == ("failed", ("downloading\nran longer than 3 s", False))


@pytest.mark.parametrize(
    ("arguments", "metrics_file", "said"),
    [
        (("true",), "out/{trial.number}.json", "the metrics file {here}/out/1.json was not written"),
        (
            ("sh", "-c", "echo nothing > {metrics_file}"),
            "a.txt",
            "the metrics file {here}/a.txt has no JSON object of numbers",
        ),
        (("mkdir", "-p", "out"), "out", "the metrics file {here}/out is not a file"),
        (("sh", "-c", ": {metrics_file}"), None, "was not written"),
    ],
)
def test_a_metrics_file_that_a_command_did_not_write_is_named(arguments, metrics_file, said: str) -> None:
    study = command(FakeStudy(), *arguments, metrics_file=metrics_file)
    what, (message, _) = told(study)
    assert what == "failed"
    assert 'no value for loss: no line of metrics was seen, such as {"loss": 0.5}; the metrics file ' in message
    assert message.endswith(said.format(here=Path.cwd()))


def test_a_command_that_was_told_of_no_metrics_file_is_not_asked_for_one() -> None:
    _, (message, _) = told(command(FakeStudy(), "true"))
    assert message.endswith('no line of metrics was seen, such as {"loss": 0.5}')


def test_a_metrics_file_that_is_no_file_is_left_alone() -> None:
    study = FakeStudy(budget=2)
    command(
        study,
        "sh",
        "-c",
        "if [ {trial.number} = 1 ]; then mkdir {metrics_file}; else mkfifo {metrics_file}; fi; echo '{{\"loss\": 1}}'",
    )
    assert study.said == [("succeeded", {"loss": 1.0})] * 2


def test_parameters_too_long_for_the_environment_are_in_a_file_and_harm_nothing() -> None:
    parameters = {"x": 0.5, "long": "y" * 200_000, **{f"p{index}": "z" * 1_000 for index in range(300)}}
    program = """
import json, os
assert not {"ASKTELL_PARAMETERS", "ASKTELL_PARAM_LONG", "ASKTELL_PARAM_P0"} & set(os.environ)
parameters = json.load(open(os.environ["ASKTELL_PARAMETERS_FILE"]))
print(json.dumps({"loss": parameters["x"], "length": len(parameters["long"]), "count": len(parameters)}))
"""
    study = python(FakeStudy(parameters=parameters), program)
    assert told(study) == ("succeeded", {"loss": 0.5, "length": 200_000.0, "count": 302.0})


@pytest.mark.parametrize(
    ("value", "reason"),
    [("y" * 200_000, "Argument list too long"), ("a\0b", "embedded null byte")],
    ids=["long", "NUL"],
)
def test_a_command_that_the_parameters_keep_from_starting_is_a_failure_that_says_so(value: str, reason: str) -> None:
    study = command(FakeStudy(budget=2, parameters={"name": value}), "echo", "{name}")
    assert [what for what, _ in study.said] == ["failed", "failed"]
    message, _ = study.said[0][1]
    assert message.startswith("cannot start 'echo': ")
    assert reason in message


def test_a_metric_whose_name_cannot_be_encoded_is_an_outcome_like_any_other() -> None:
    study = python(FakeStudy(), r"""print('{"loss": 1.0, "\\ud800": 2.0}')""")
    assert told(study) == ("succeeded", {"loss": 1.0, "\ud800": 2.0})


# Python functions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("returned", "metrics"),
    [
        ("0.5", {"loss": 0.5}),
        ("(0.5, 0.1)", {"loss": (0.5, 0.1)}),
        ("{'loss': (0.5, 0.1), 'size': 3}", {"loss": (0.5, 0.1), "size": 3.0}),
        ("__import__('numpy').float32(0.5)", {"loss": 0.5}),
        ("trial.tell(loss=0.5)", {"loss": 0.5}),
        ("trial.tell({'loss': parameters['x']})", {"loss": 0.5}),
    ],
)
def test_a_function_may_return_its_metrics_in_several_ways(returned: str, metrics: dict) -> None:
    study = function(FakeStudy(), f"def objective(parameters, trial):\n    return {returned}\n")
    assert told(study) == ("succeeded", metrics)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return None", 'returned None and told nothing: return a number, or {"loss": ...}'),
        ("return 'high'", "TypeError: loss is 'high', not a number"),
        ("return {'size': 3}", "the objective returned no loss, only size"),
        ("return {'loss': True}", "loss is True, not a number"),
        ("raise ValueError('too wide')", "ValueError: too wide"),
        ("trial.fail('gave up')", "gave up"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "killed by SIGSEGV"),
        ("import os; os._exit(7)", "exit status 7"),
        ("trial.report(step=-1, loss=1)", "ValueError: a report has a step from 0"),
    ],
)
def test_a_function_that_fails_is_told_with_the_reason(body: str, message: str) -> None:
    what, (said, _) = told(function(FakeStudy(), f"def objective(parameters, trial):\n    {body}\n"))
    assert what == "failed"
    assert message in said
    assert "return trial.outcome" not in said
    assert "objective(trial.parameters" not in said


def test_a_function_may_find_its_parameters_infeasible() -> None:
    study = function(FakeStudy(), "def objective(parameters, trial):\n    trial.infeasible('no memory')\n")
    assert told(study) == ("infeasible", "no memory")


def test_a_function_reports_and_hears_whether_to_stop() -> None:
    source = """
def objective(parameters, trial):
    for step in range(100):
        directive = trial.report(step=step, loss=step)
        if directive.should_stop:
            assert trial.should_stop and directive.message == "no longer promising"
            return -1
    return 1
"""
    study = FakeStudy(budget=2, stops={2})
    function(study, source)
    assert study.said[0] == ("succeeded", {"loss": 1.0})
    assert study.said[1] == ("stopped", ({"loss": -1.0}, "no longer promising"))
    assert [len(trial.reports) for trial in study.trials] == [100, 1]


def test_a_function_that_does_not_stop_is_ended_after_the_grace() -> None:
    source = """
import time
def objective(parameters, trial):
    trial.report(step=0, loss=1)
    while True:
        time.sleep(0.01)
"""
    assert told(function(FakeStudy(stops={1}), source, grace=0.3))[0] == "stopped"


def test_one_process_serves_many_trials_and_a_failure_brings_a_new_one() -> None:
    source = """
import os
def objective(parameters, trial):
    if trial.number == 2:
        raise RuntimeError("CUDA error")
    return {"loss": 1, "pid": os.getpid()}
"""
    study = function(FakeStudy(budget=4), source)
    first, _, third, fourth = (said[1] for said in study.said)
    assert third["pid"] == fourth["pid"] != first["pid"]


def test_an_interruption_lets_a_function_clean_up(here: Path) -> None:
    source = """
import pathlib, time
def objective(parameters, trial):
    try:
        pathlib.Path("ready").touch()
        time.sleep(3600)
    finally:
        pathlib.Path("clean").touch()
"""
    study, interruption = FakeStudy(), Interruption()
    thread = interrupt_when(here / "ready", interruption)
    function(study, source, interruption=interruption)
    thread.join()
    assert told(study) == ("released", None)
    assert (here / "clean").exists()


def test_a_function_that_holds_the_interpreter_does_not_hold_up_the_worker() -> None:
    source = """
import re
def objective(parameters, trial):
    re.match(r"(a+)+$", "a" * 40 + "b")
"""
    study = function(FakeStudy(), source, timeout=0.5, grace=0.1)
    assert told(study) == ("failed", ("ran longer than 0.5 s", False))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("objective = 3", "train:objective is int, not a function"),
        ("other = 3", "has no 'objective'"),
        ("import no_such_module", "No module named 'no_such_module'"),
        ("def objective(:", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import os; os._exit(3)", "could not be imported: exit status 3"),
    ],
)
def test_a_function_that_cannot_be_loaded_is_refused_before_a_trial_is_asked_for(source: str, message: str) -> None:
    study = FakeStudy()
    with pytest.raises(Unusable, match=message):
        function(study, source)
    assert study.asked == []


@pytest.mark.parametrize(
    ("source", "arguments"),
    [
        ("def objective(trial: object, /) -> float: return 1", "(trial, /)"),
        ("def objective(parameters, trial, data): return 1", "(parameters, trial, data)"),
        ("def objective(*, parameters, trial): return 1", "(*, parameters, trial)"),
        ("objective = lambda: 1", "()"),
        ("class objective:\n    def __init__(self, width=3): pass", "(width=3)"),
    ],
)
def test_a_function_of_other_arguments_is_refused_before_a_trial_is_asked_for(source: str, arguments: str) -> None:
    study = FakeStudy()
    with pytest.raises(Unfit) as raised:
        function(study, source)
    assert str(raised.value) == f"train:objective takes {arguments}; asktell work calls it with (parameters, trial)"
    assert study.asked == []


@pytest.mark.parametrize(
    "source",
    [
        "def objective(*everything): return 1",
        "def objective(parameters, trial, epochs=3, **others): return 1",
        # What is called takes both, whatever it wraps.
        """
import functools
def train(trial): return 1
@functools.wraps(train)
def objective(parameters, trial): return train(trial)
""",
        # It does not say what it takes.
        """
class Silent:
    __signature__ = "unknown"
    def __call__(self, parameters, trial): return 1
objective = Silent()
""",
    ],
)
def test_a_function_that_may_take_both_arguments_is_called(source: str) -> None:
    assert told(function(FakeStudy(), source)) == ("succeeded", {"loss": 1.0})


def test_a_process_that_was_killed_between_trials_costs_no_trial() -> None:
    source = """
import os, pathlib, signal, threading, time
def die():
    while not pathlib.Path("told").exists():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)
def objective(parameters, trial):
    if trial.number == 1:
        threading.Thread(target=die).start()
    return 1
"""
    Path("train.py").write_text(source)
    study, wish = FakeStudy(budget=2), Interruption()
    objective = Objective("train:objective", objectives=("loss",), limits=Limits(), interruption=wish)
    objective.prepare()
    first = study.ask_once().trials[0]
    with first.keep_alive():
        assert objective.evaluate(first).metrics == {"loss": 1.0}
    Path("told").touch()
    process = objective._process
    assert process is not None
    process.wait()
    until(lambda: not process._events._batches.empty())
    objective.prepare()
    second = study.ask_once().trials[0]
    with second.keep_alive():
        assert objective.evaluate(second).metrics == {"loss": 1.0}
    objective.close()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            "trial.report(step=2**70, loss=1.0)",
            f"ValueError: a report has a step from 0 to 2**63 - 1 and a metric, not step {2**70}",
        ),
        ("return 10**400", "not a number"),
        ("raise ValueError('\\ud800')", "ValueError: ?"),
    ],
)
def test_what_no_message_can_carry_is_the_functions_failure(body: str, reason: str) -> None:
    what, (message, _) = told(function(FakeStudy(), f"def objective(parameters, trial):\n    {body}\n"))
    assert what == "failed"
    assert reason in message


def test_a_function_that_prints_without_end_between_trials_does_not_keep_the_worker_from_the_next(monkeypatch) -> None:
    monkeypatch.setattr("asktell.worker.objective.IDLE_EVENTS", 100)
    source = """
import threading
def flood():
    while True:
        print("x" * 100)
def objective(parameters, trial):
    if trial.number == 1:
        threading.Thread(target=flood, daemon=True).start()
    return 1
"""
    assert [what for what, _ in function(FakeStudy(budget=2), source).said] == ["succeeded"] * 2


def test_an_evaluation_that_breaks_leaves_no_process_to_speak_for_the_next_trial(monkeypatch) -> None:
    source = "def objective(parameters, trial):\n    return trial.number\n"
    heard = ObjectiveEvaluation._hear

    def break_once(evaluation, message):
        if evaluation.trial.number == 1:
            raise RuntimeError("broken")
        return heard(evaluation, message)

    monkeypatch.setattr(ObjectiveEvaluation, "_hear", break_once)
    study = function(FakeStudy(budget=2), source)
    assert study.said == [("failed", ("RuntimeError: broken", False)), ("succeeded", {"loss": 2.0})]


def test_sigterm_to_the_training_alone_is_a_failure_with_the_signal_named(here: Path, monkeypatch) -> None:
    monkeypatch.setattr("asktell.worker.evaluation.SCHEDULER_SECONDS", 0.1)
    what, (message, _) = told(command(FakeStudy(), "sh", "-c", "kill -TERM $$"))
    assert (what, message) == ("failed", f"killed by {signal.SIGTERM.name}")
