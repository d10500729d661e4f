"""A study with thousands of values: what is read of it and packed for it does not hold the event loop, on which all other calls wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from grpc import StatusCode

from asktell.server import bootstrap
from asktell.server.rpc import study_servicer
from asktell.server.rpc.convert import trial as convert
from asktell.server.settings import Settings
from asktell.v1 import metric_pb2 as metric
from asktell.v1 import search_space_pb2 as space
from asktell.v1 import study_service_pb2 as studies
from asktell.v1 import trial_service_pb2 as trials
from asktell.v1.study_service_pb2_grpc import StudyServiceStub
from asktell.v1.trial_service_pb2_grpc import TrialServiceStub
from tests.wire import real, refusal_of, small_study, text

ROOM = [("grpc.max_receive_message_length", 16 * 1024 * 1024)]


class Seen:
    """Which of the servicer's translations ran on the event loop's thread, and which on another one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loop = threading.get_ident()
        self.places: set[tuple[str, bool]] = set()
        for name in ("read_create", "read_update", "study_message"):
            monkeypatch.setattr(study_servicer, name, self._noted(name, getattr(study_servicer, name)))
        for name in ("read_report", "read_tell", "read_add"):
            monkeypatch.setattr(convert, name, self._noted(name, getattr(convert, name)))

    def _noted(self, name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any, **named: Any) -> Any:
            self.places.add((name, threading.get_ident() == self.loop))
            return run(*arguments, **named)

        return noted

    def take(self) -> set[tuple[str, bool]]:
        """Those since the last time, each with whether it ran on the loop."""
        places, self.places = self.places, set()
        return places


def study_of(parameters: int, choices: int) -> studies.Study:
    study = small_study()
    values = space.CategoricalSpec(choices=[text(f"v{index}") for index in range(choices)])
    study.spec.parameters.extend(
        space.ParameterSpec(name=f"c{index}", categorical_spec=values) for index in range(parameters)
    )
    return study


def creation(study_id: str, study: studies.Study) -> studies.CreateStudyRequest:
    return studies.CreateStudyRequest(parent="projects/p", study_id=study_id, study=study)


def widening(name: str, study: studies.Study) -> studies.UpdateStudyRequest:
    """Another choice for each parameter."""
    wider = studies.Study(name=name, spec=study.spec)
    for parameter in wider.spec.parameters[1:]:
        parameter.categorical_spec.choices.append(text("another"))
    return studies.UpdateStudyRequest(study=wider, update_mask=FieldMask(paths=["spec.parameters"]))


def imports(name: str, count: int) -> trials.AddTrialsRequest:
    """Trials that are to be evaluated, with some metadata."""
    new = [
        trials.NewTrial(parameters={"x": real(index / count)}, metadata={"note": "x" * 50}) for index in range(count)
    ]
    return trials.AddTrialsRequest(parent=name, trials=new)


def report(trial: trials.Trial, count: int) -> trials.ReportRequest:
    steps = [
        metric.Measurement(step=step, metrics={name: metric.MetricValue(value=step) for name in ("loss", "accuracy")})
        for step in range(count)
    ]
    return trials.ReportRequest(name=trial.name, lease_token=trial.lease.token, measurements=steps)


def success(trial: trials.Trial) -> trials.TrialResult:
    ended = trials.TrialResult.Succeeded(metrics={"loss": metric.MetricValue(value=1)})
    return trials.TrialResult(
        number=trial.number, lease_token=trial.lease.token, succeeded=ended, metadata={"note": "x" * 50}
    )


async def test_what_is_large_is_read_and_packed_beside_the_event_loop_and_what_is_small_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Seen(monkeypatch)
    settings = Settings(listen="127.0.0.1:0", database=str(tmp_path / "asktell.db"), speculate=False)
    async with (
        bootstrap.running(settings) as running,
        grpc.aio.insecure_channel(running.target, options=ROOM) as channel,
    ):
        stub = StudyServiceStub(channel)
        for study, on_loop in ((study_of(10, 999), False), (study_of(2, 10), True)):
            request = creation(f"s{on_loop}", study)
            created = await stub.CreateStudy(request)
            assert [spec.name for spec in created.spec.parameters] == [spec.name for spec in study.spec.parameters]
            assert await stub.CreateStudy(request) == created
            assert seen.take() == {("read_create", on_loop), ("study_message", on_loop)}
            widened = await stub.UpdateStudy(widening(created.name, study))
            assert widened.spec.parameters[1].categorical_spec.choices[-1] == text("another")
            assert seen.take() == {("read_update", on_loop), ("study_message", on_loop)}
            labelled = studies.Study(name=created.name, labels={"a": "b"})
            await stub.UpdateStudy(
                studies.UpdateStudyRequest(study=labelled, update_mask=FieldMask(paths=["labels.a"]))
            )
            assert seen.take() == {("read_update", True), ("study_message", on_loop)}
            assert (await stub.GetStudy(studies.GetStudyRequest(name=created.name))).labels == {"a": "b"}
            listed = await stub.ListStudies(studies.ListStudiesRequest(parent="projects/p", page_size=1))
            assert len(listed.studies) == 1
            assert seen.take() == {("study_message", False)}


async def test_large_reports_results_and_imports_are_read_beside_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Seen(monkeypatch)
    settings = Settings(listen="127.0.0.1:0", database=str(tmp_path / "asktell.db"), speculate=False)
    async with bootstrap.running(settings) as running, grpc.aio.insecure_channel(running.target) as channel:
        study = await StudyServiceStub(channel).CreateStudy(creation("s", small_study()))
        stub = TrialServiceStub(channel)
        seen.take()
        for count, on_loop in ((1_000, False), (3, True)):
            assert len((await stub.AddTrials(imports(study.name, count))).trials) == count
            asked = await stub.Ask(trials.AskRequest(parent=study.name, count=count, worker_id="w"))
            await stub.Report(report(asked.trials[0], count))
            results = list(map(success, asked.trials))
            told = await stub.Tell(trials.TellRequest(parent=study.name, results=results))
            assert len(told.trials) == count
            assert seen.take() == {(name, on_loop) for name in ("read_add", "read_report", "read_tell")}


async def test_large_studies_that_are_created_at_once_are_all_there_and_a_wrong_one_is_refused_by_field(
    tmp_path: Path,
) -> None:
    settings = Settings(listen="127.0.0.1:0", database=str(tmp_path / "asktell.db"), speculate=False)
    large, wrong = study_of(10, 1000), study_of(10, 1000)
    wrong.spec.parameters[9].categorical_spec.choices.append(text("v0"))
    async with bootstrap.running(settings) as running, grpc.aio.insecure_channel(running.target) as channel:
        stub = StudyServiceStub(channel)
        requests = [creation(f"s{index}", large) for index in range(4)]
        *created, refused = await asyncio.gather(
            *map(stub.CreateStudy, requests), stub.CreateStudy(creation("wrong", wrong)), return_exceptions=True
        )
        assert [study.name for study in created] == [f"projects/p/studies/s{index}" for index in range(4)]
        found = refusal_of(refused)
        assert (found.code, found.field) == (
            StatusCode.INVALID_ARGUMENT,
            "study.spec.parameters[9].categorical_spec.choices",
        )
