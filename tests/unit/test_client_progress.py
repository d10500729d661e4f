"""What a loop says of its trials as they end."""

from __future__ import annotations

import io
import logging
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from asktell import client as at
from asktell.client import feasibility, progress
from asktell.client.aio import Client as AsyncClient
from asktell.client.views import TrialView
from asktell.v1 import trial_service_pb2 as pb2
from tests.unit.client_fake import precondition, serving


@pytest.fixture
def service():
    with serving() as service:
        yield service


@pytest.fixture(autouse=True)
def instant(monkeypatch):
    """Trials take no time at all, however busy the machine is."""
    monkeypatch.setattr("asktell.client.trust.time", SimpleNamespace(monotonic=lambda: 0.0))


@pytest.fixture
def client(service):
    with at.Client(service.target, retry_for=30) as client:
        yield client


def new_study(client, **options):
    defaults = {"parameters": [at.Float("x", 0, 1)], "objectives": [at.Minimize("y")], "max_trials": 4}
    return client.create_study("s", **(defaults | options))


def said(capsys):
    """The lines on standard error, without how long trials took."""
    return [line.replace(" in 0.0 s", "") for line in capsys.readouterr().err.splitlines()]


def objective(trial):
    """The second trial breaks, the third is the best."""
    if trial.number == 2:
        raise ValueError("boom")
    return {"y": (trial.number - 3) ** 2, "time": 7}


LINES = [
    "trial 1 succeeded: y=4, time=7; x=0.1; best 4 (trial 1); 1 of 4",
    "trial 2 failed; x=0.2; best 4 (trial 1); 2 of 4",
    "trial 3 succeeded: y=0, time=7; x=0.3; best 0 (trial 3); 3 of 4",
    "trial 4 succeeded: y=1, time=7; x=0.4; best 0 (trial 3); 4 of 4",
]


def test_a_loop_prints_a_line_for_each_ended_trial_and_costs_no_call(service, client, capsys):
    new_study(client).optimize(objective, progress=True)
    assert said(capsys) == LINES
    assert sorted(service.requests) == ["Ask", "CreateStudy", "GetStudy", "Tell"]


async def test_the_loop_for_asyncio_prints_the_same(service, capsys):
    async def evaluate(trial):
        return objective(trial)

    async with AsyncClient(service.target) as client:
        study = await client.create_study(
            "s", parameters=[at.Float("x", 0, 1)], objectives=[at.Minimize("y")], max_trials=4
        )
        await study.optimize(evaluate, progress=True)
    assert said(capsys) == LINES


def test_lines_are_logged_at_info_and_printed_only_if_wanted(client, caplog, capsys):
    with caplog.at_level(logging.INFO, logger="asktell.client"):
        new_study(client).optimize(objective, progress=False)
    logged = [record for record in caplog.records if record.levelno == logging.INFO]
    assert [record.message.replace(" in 0.0 s", "") for record in logged] == LINES
    assert {record.name for record in logged} == {"asktell.client"}
    assert said(capsys) == []


def test_the_best_of_before_is_read_once_and_only_for_lines_that_are_heard(service, client, capsys):
    study = new_study(client, max_trials=None)
    study.optimize(lambda trial: 3.0, count=1)
    service.studies[study.name].trial_counts.succeeded = 1
    study.refresh()
    study.optimize(lambda trial: 5.0, count=1)
    assert "ListOptimalTrials" not in service.requests
    study.optimize(lambda trial: 5.0, count=2, progress=True)
    assert len(service.requests["ListOptimalTrials"]) == 1
    assert said(capsys) == [
        "trial 3 succeeded: y=5; x=0.3; best 3 (trial 1); 2 trials",
        "trial 4 succeeded: y=5; x=0.4; best 3 (trial 1); 3 trials",
    ]


def test_what_was_told_since_the_study_was_read_counts(service, client, capsys):
    study = new_study(client)
    (trial,) = study.ask()
    trial.tell(y=-1.0)
    service.studies[study.name].trial_counts.succeeded = 1
    study.optimize(lambda trial: 1.0, count=1, progress=True)
    assert said(capsys) == ["trial 2 succeeded: y=1; x=0.2; best -1 (trial 1); 2 of 4"]


async def test_what_was_told_since_the_study_was_read_counts_for_asyncio(service, client, capsys):
    async def evaluate(trial):
        return 1.0

    new_study(client)
    async with AsyncClient(service.target) as theirs:
        study = await theirs.get_study("s")
        (trial,) = await study.ask()
        await trial.tell(y=-1.0)
        service.studies[study.name].trial_counts.succeeded = 1
        await study.optimize(evaluate, count=1, progress=True)
    assert said(capsys) == ["trial 2 succeeded: y=1; x=0.2; best -1 (trial 1); 2 of 4"]


def test_why_a_trial_ended_stands_in_its_line_once(service, client, capsys):
    endings = iter([lambda trial: trial.fail("no GPU\nat all"), lambda trial: trial.infeasible("too wide")])
    study = new_study(client)
    study.optimize(lambda trial: next(endings)(trial), count=2, progress=True)
    service.directives[3] = (pb2.DIRECTIVE_STOP, "behind")
    study.optimize(lambda trial: trial.report(step=1, y=2.0).should_stop and None, count=1, progress=True)
    assert said(capsys) == [
        "trial 1 failed: no GPU; x=0.1; 1 of 4",
        "trial 2 infeasible: too wide; x=0.2; 2 of 4",
        "trial 3 stopped: behind; x=0.3; 1 of 4",
    ]


def test_nothing_is_said_of_a_trial_that_went_to_somebody_else(service, client, capsys):
    service.fail("Tell", precondition("trial 1: the lease was lost", "LEASE_LOST"))
    new_study(client).optimize(lambda trial: 1.0, count=1, progress=True)
    assert said(capsys) == []


@pytest.fixture
def unconfigured(monkeypatch):
    """Logging as a new interpreter has it: pytest's own handlers are those of the root, which this logger is not below."""
    monkeypatch.setattr(progress, "logger", logging.Logger("asktell.client", logging.WARNING))
    return monkeypatch


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_by_default_a_person_at_a_terminal_sees_the_lines(client, unconfigured):
    unconfigured.setattr(sys, "stderr", shown := Terminal())
    new_study(client).optimize(objective)
    assert len([line for line in shown.getvalue().splitlines() if "best" in line]) == len(LINES)


@pytest.mark.parametrize("progress_", [None, False])
def test_by_default_a_pipe_stays_silent_and_so_does_a_terminal_that_is_told_to(client, unconfigured, progress_):
    unconfigured.setattr(sys, "stderr", shown := io.StringIO() if progress_ is None else Terminal())
    new_study(client).optimize(lambda trial: 1.0, progress=progress_)
    assert shown.getvalue() == ""


def test_who_has_set_up_logging_has_the_say(client, unconfigured):
    unconfigured.setattr(sys, "stderr", shown := Terminal())
    progress.logger.addHandler(logging.NullHandler())
    new_study(client).optimize(lambda trial: 1.0)
    assert shown.getvalue() == ""


@pytest.mark.parametrize(
    ("shell", "wanted"), [(SimpleNamespace(kernel=1), True), (SimpleNamespace(), False), (None, False)]
)
def test_a_notebook_shows_them_and_a_shell_of_ipython_that_is_piped_does_not(unconfigured, shell, wanted):
    unconfigured.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    unconfigured.setattr(sys, "stderr", io.StringIO())
    assert progress.is_wanted(None) is wanted


def ticker_of(client, shown=True, **options):
    study = new_study(client, **options)
    return study, progress.Ticker(study.record, shown=shown)


def ended(study, number, metrics, *, state=at.TrialState.SUCCEEDED, **parameters):
    (trial,) = study.ask()
    told = {name: at.MetricValue(value) for name, value in metrics.items()}
    record = replace(trial.record, number=number, state=state, metrics=told, parameters=parameters or {"x": 0.5})
    return TrialView(record)


def best_after(capsys, study, ticker, *trials):
    for trial in trials:
        ticker.ended(trial, seconds=0.0, why_is_said=False)
    last = capsys.readouterr().err.splitlines()[-1]
    return last.partition("best ")[2].partition(";")[0]


def test_only_a_feasible_trial_is_the_best(client, capsys):
    study, ticker = ticker_of(client, outcome_constraints=[at.AtMost("gb", 3)], max_trials=9)
    trials = [
        ended(study, 1, {"y": 3.0, "gb": 2.0}),
        ended(study, 2, {"y": 1.0, "gb": 4.0}),
        ended(study, 3, {"y": 0.0}),
        ended(study, 4, {"y": 2.0, "gb": 3.0}),
        ended(study, 5, {"y": float("-inf"), "gb": 1.0}),
    ]
    assert best_after(capsys, study, ticker, *trials) == "2 (trial 4)"


def test_the_best_is_one_at_the_highest_fidelity(client, capsys):
    study, ticker = ticker_of(
        client,
        parameters=[at.Float("x", 0, 1), at.Int("epochs", 1, 9)],
        objectives=[at.Maximize("y")],
        fidelity=at.Fidelity("epochs"),
    )
    short, long = ended(study, 1, {"y": 9.0}, epochs=1), ended(study, 2, {"y": 5.0}, epochs=9)
    assert best_after(capsys, study, ticker, long, short) == "5 (trial 2)"


@pytest.mark.parametrize("options", [{"noisy": True}, {"objectives": [at.Minimize("y"), at.Maximize("z")]}])
def test_where_no_single_result_is_the_best_none_is_named(client, capsys, options):
    study, ticker = ticker_of(client, **options)
    assert not ticker.wants_best
    assert best_after(capsys, study, ticker, ended(study, 1, {"y": 1.0, "z": 2.0})) == ""


def test_of_many_parameters_and_metrics_a_line_has_what_there_is_room_for(client, capsys):
    names = [f"block_{place}.learning_rate" for place in range(40)]
    study, ticker = ticker_of(client, parameters=[at.Float(name, 0, 1) for name in names])
    many = {"y": 1.0} | {f"metric_{place:02}": 0.5 for place in range(60)}
    ticker.ended(ended(study, 1, many, **dict.fromkeys(reversed(names), 0.123456)), seconds=1.5, why_is_said=False)
    line = capsys.readouterr().err
    assert line.startswith("trial 1 succeeded in 1.5 s: y=1, metric_00=0.5, ")
    assert "; block_0.learning_rate=0.1235, block_1.learning_rate=0.1235, " in line
    assert " more; best 1 (trial 1); 1 of 4\n" in line
    assert len(line) < 2 * progress.SHORT + 120


@pytest.mark.parametrize(
    ("state", "metrics", "feasible"),
    [
        (at.TrialState.SUCCEEDED, {"y": 1.0, "gb": 3.0}, True),
        (at.TrialState.STOPPED, {"gb": 2.0}, True),
        (at.TrialState.SUCCEEDED, {"y": 1.0, "gb": 3.5}, False),
        (at.TrialState.SUCCEEDED, {"y": 1.0}, None),
        (at.TrialState.SUCCEEDED, {"y": 1.0, "gb": float("nan")}, None),
        (at.TrialState.SUCCEEDED, {"y": 1.0, "gb": float("-inf")}, False),
        (at.TrialState.INFEASIBLE, {}, False),
        (at.TrialState.FAILED, {}, None),
        (at.TrialState.ACTIVE, {}, None),
    ],
)
def test_a_trial_is_feasible_if_it_is_known_to_be(client, state, metrics, feasible):
    study = new_study(client, outcome_constraints=[at.AtMost("gb", 3)])
    assert feasibility.of(ended(study, 1, metrics, state=state).record, study.record) is feasible
