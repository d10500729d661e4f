"""Studies carried to another name, server and kind of database, byte by byte; and what is refused on the way."""

from __future__ import annotations

import itertools
import json
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from asktell.client import AlreadyExists, Client, InvalidArgument, StudyRecord
from asktell.client.archive import File
from asktell.v1 import metric_pb2 as metric
from asktell.v1 import search_space_pb2 as space
from asktell.v1 import study_service_pb2 as studies
from asktell.v1 import study_service_pb2_grpc
from asktell.v1 import trial_service_pb2 as trials
from tests.place import Place
from tests.processes import until
from tests.wire import (
    Wire,
    real,
    refusal,
    report_request,
    seconds,
    small_study,
    tell_request,
    text,
    whole,
)

IDS = itertools.count()
ODD = [float("nan"), float("inf"), float("-inf"), -0.0, 5e-324, 1e308, -1.7976931348623157e308, 0.1 + 0.2]
ODD_TEXTS = ["", "ü\u200f\u200b\n\t\U0001f600", "'; DROP TABLE trials; --", '"\\', "\x7f\x01"]


def odd_space() -> list[space.ParameterSpec]:
    """Choices of every kind, and conditions below conditions."""
    kinds = [real(1.0), whole(1), space.ParameterValue(bool_value=True), text("1"), space.ParameterValue(null_value=0)]
    return [
        space.ParameterSpec(name="x", float_spec=space.FloatSpec(low=-1e300, high=1e300), default_value=real(5e-324)),
        space.ParameterSpec(name="n", int_spec=space.IntSpec(low=-(2**53), high=2**53)),
        space.ParameterSpec(name="grid", float_spec=space.FloatSpec(low=0.1, high=0.9, step=0.1)),
        space.ParameterSpec(name="c", categorical_spec=space.CategoricalSpec(choices=[*kinds, *map(text, ODD_TEXTS)])),
        space.ParameterSpec(name="o", ordinal_spec=space.OrdinalSpec(values=[real(1e308), real(5e-324), whole(2)])),
        space.ParameterSpec(
            name="b", bool_spec=space.BoolSpec(), when=space.Condition(parent="c", values=[whole(1), text("1")])
        ),
        space.ParameterSpec(
            name="deep",
            int_spec=space.IntSpec(low=1, high=1024, log=True),
            when=space.Condition(parent="b", values=[space.ParameterValue(bool_value=True)]),
        ),
    ]


def odd_study(wire: Wire) -> str:
    """A study with a trial in every state and everything that a study can hold, at its limits."""
    message = small_study(budget={"max_trials": 1000, "max_failures": 7, "max_duration": seconds(1234.567891)})
    del message.spec.parameters[:]
    message.spec.parameters.extend(odd_space())
    message.spec.seed = -(2**63)
    message.spec.lease_duration.CopyFrom(seconds(3.000001))
    message.spec.late_tells = studies.StudySpec.LATE_TELLS_REFUSE
    message.spec.objectives.append(metric.Objective(metric="acc", goal=metric.Objective.GOAL_MAXIMIZE))
    message.labels.update({f"k{index}ü": note for index, note in enumerate(ODD_TEXTS)})
    name = wire.create(f"odd{next(IDS)}", message).name
    _finish_oddly(wire, name)
    _leave_unfinished(wire, name)
    return name


def _finish_oddly(wire: Wire, name: str) -> None:
    for index, value in enumerate(ODD):
        trial = wire.one(name, f"worker ü {index}", lease_duration=seconds(3600))
        for step in (0, 2**53, 7):
            wire.call("Report", _odd_report(trial, step, value))
        request = tell_request(trial, value)
        request.results[0].succeeded.metrics["acc"].CopyFrom(metric.MetricValue(value=-value, standard_error=5e-324))
        request.results[0].metadata.update({f"k{place}": note for place, note in enumerate(ODD_TEXTS)})
        request.results[0].checkpoint_uri = "s3://bucket/a%20b"
        wire.call("Tell", request)
    for outcome in (
        {"failed": trials.TrialResult.Failed(message="Traceback\nü" + "x" * 60_000)},
        {"infeasible": trials.TrialResult.Infeasible(message="no \U0001f600")},
        {"stopped": trials.TrialResult.Stopped(message="enough")},
        {"failed": trials.TrialResult.Failed(message="again", retry=True)},
    ):
        trial = wire.one(name, lease_duration=seconds(3600))
        wire.call("Report", report_request(trial, 3, 0.5))
        result = trials.TrialResult(number=trial.number, lease_token=trial.lease.token, **outcome)
        wire.call("Tell", trials.TellRequest(parent=name, results=[result]))


def _odd_report(trial: trials.Trial, step: int, value: float) -> trials.ReportRequest:
    request = report_request(trial, step, value)
    request.measurements[0].metrics["other/metric:1"].CopyFrom(metric.MetricValue(value=value, standard_error=0.0))
    return request


def _leave_unfinished(wire: Wire, name: str) -> None:
    """Released, active, enqueued and cancelled trials; the failed one is queued again, and is handed out first."""
    held = wire.one(name, "holder", lease_duration=seconds(3600))
    released = wire.one(name, "releaser", lease_duration=seconds(3600))
    release = trials.ReleaseTrialRequest(
        name=released.name, lease_token=released.lease.token, checkpoint_uri="file:///tmp/x"
    )
    wire.call("ReleaseTrial", release)
    parameters = dict(held.parameters.items())
    new = trials.AddTrialsRequest(parent=name, trials=[trials.NewTrial(parameters=parameters)] * 2)
    added = wire.call("AddTrials", new).trials
    wire.call("CancelTrial", trials.CancelTrialRequest(name=added[0].name))


def client_of(place: Place) -> Client:
    return Client(place.server.target, project="p", retry_for=0)


def short(name: str) -> str:
    return name.rpartition("/")[2]


def test_a_study_is_the_same_bytes_under_another_name_and_on_the_other_kind_of_database(
    place: Place, elsewhere: Place, tmp_path: Path
) -> None:
    name = short(odd_study(place.wire))
    first, second, third = (tmp_path / f"{number}.jsonl" for number in (1, 2, 3))
    with client_of(place) as here, client_of(elsewhere) as there:
        assert here.get_study(name).export(first) == 15
        there.import_study(first).export(second)
        here.import_study(second, "back-home").export(third)
        here.delete_study("back-home")
    assert first.read_bytes() == second.read_bytes()
    lines, renamed = (path.read_text().splitlines()[:-1] for path in (second, third))
    assert [line.replace("/studies/back-home", f"/studies/{name}") for line in renamed] == lines
    for what in ("NaN", "-Infinity", "-0.0", "5e-324", "1e+308", '"seed":"-9223372036854775808"', "1234.567891s"):
        assert what in first.read_text(), what


def test_every_trial_of_the_imported_study_reads_as_the_original(
    place: Place, elsewhere: Place, tmp_path: Path
) -> None:
    name = odd_study(place.wire)
    moved(place, elsewhere, name, tmp_path)
    for number in range(1, 16):
        original, copy = (served.wire.trial(name, number) for served in (place, elsewhere))
        if original.state == trials.Trial.STATE_ACTIVE:
            original.state = trials.Trial.STATE_QUEUED
            original.ClearField("lease")
        assert original.SerializeToString(deterministic=True) == copy.SerializeToString(deterministic=True)


def moved(place: Place, elsewhere: Place, name: str, tmp_path: Path) -> None:
    with client_of(place) as here, client_of(elsewhere) as there:
        here.get_study(short(name)).export(tmp_path / "study.jsonl")
        there.import_study(tmp_path / "study.jsonl")


@pytest.mark.parametrize("policy", ["random", "gp"])
def test_the_next_proposal_of_the_imported_study_is_that_of_the_original(
    place: Place, elsewhere: Place, tmp_path: Path, policy: str
) -> None:
    name = place.wire.create(f"next{next(IDS)}", small_study(policy=policy, seed=7)).name
    for index in range(12):
        place.wire.tell(place.wire.one(name), (index - 5) ** 2 / 7)
    moved(place, elsewhere, name, tmp_path)
    for _ in range(3):
        mine, its = (served.wire.one(name) for served in (place, elsewhere))
        assert (mine.number, mine.parameters["x"]) == (its.number, its.parameters["x"])
        for served, trial in ((place, mine), (elsewhere, its)):
            served.wire.tell(trial, trial.parameters["x"].double_value)


def test_an_active_trial_goes_to_the_next_worker_with_its_attempts_and_the_old_lease_is_unknown(
    place: Place, elsewhere: Place, tmp_path: Path
) -> None:
    name = place.wire.create(f"active{next(IDS)}", small_study()).name
    held = place.wire.one(name, lease_duration=seconds(3600))
    report = report_request(held, 1, 0.5)
    report.checkpoint_uri = "s3://b/1"
    place.wire.call("Report", report)
    moved(place, elsewhere, name, tmp_path)
    assert held.lease.token.partition("-")[0] not in (tmp_path / "study.jsonl").read_text()
    stale = refusal(lambda: elsewhere.wire.call("Tell", tell_request(held, 1.0)))
    assert (stale.code, stale.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "LEASE_UNKNOWN")
    taken = elsewhere.wire.one(name, "next")
    assert (taken.number, taken.attempt, taken.spent_attempts, taken.checkpoint_uri) == (1, 2, 0, "s3://b/1")
    assert place.wire.trial(name, 1).state == trials.Trial.STATE_ACTIVE


def test_many_measurements_and_trials_go_through_in_order(place: Place, elsewhere: Place, tmp_path: Path) -> None:
    name = place.wire.create(f"many{next(IDS)}", small_study()).name
    trial = place.wire.one(name, lease_duration=seconds(3600))
    for start in range(0, 3500, 700):
        measured = [
            metric.Measurement(step=step, metrics={m: metric.MetricValue(value=step / 3) for m in ("loss", "acc")})
            for step in range(start, start + 700)
        ]
        place.wire.call(
            "Report", trials.ReportRequest(name=trial.name, lease_token=trial.lease.token, measurements=measured)
        )
    place.wire.enqueue(name, [index / 1000 for index in range(1000)])
    place.wire.tell(trial, 1.0)
    moved(place, elsewhere, name, tmp_path)
    assert elsewhere.wire.trial(name, 1) == place.wire.trial(name, 1)
    assert elsewhere.wire.all_trials(name) == place.wire.all_trials(name)


def test_an_export_is_one_moment_of_a_study_that_is_worked_on(place: Place, tmp_path: Path) -> None:
    name = place.wire.create(f"moment{next(IDS)}", small_study()).name
    with client_of(place) as client:
        lines = client.get_study(short(name)).export_lines()
        for _ in range(5):
            place.wire.tell(place.wire.one(name), 1.0)
        header = json.loads(next(lines))["header"]
        place.wire.tell(place.wire.one(name), 1.0)
        found = [json.loads(line) for line in lines]
    assert int(found[-1]["end"]["trial_count"]) == len(found) - 1 == int(header["next_number"]) - 1


# Imports: all or none.


@pytest.fixture(scope="module")
def exported(on_sqlite: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of an odd study."""
    path = tmp_path_factory.mktemp("exported") / "archive.jsonl"
    with client_of(on_sqlite) as client:
        client.get_study(short(odd_study(on_sqlite.wire))).export(path)
    return path


@pytest.fixture
def archive(exported: Path, tmp_path: Path) -> Path:
    """A file of an odd study to change, without the digest, so that the server judges all of it."""
    path = Path(shutil.copy(exported, tmp_path))
    rewrite(path, lambda lines: lines)
    return path


def rewrite(path: Path, change: Callable[[list[Any]], list[Any]]) -> None:
    """Change the records of a file; none keeps its digest."""
    records = change([json.loads(line) for line in path.read_text().splitlines()])
    for record in records:
        record.get("end", {}).pop("sha256", None)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def test_an_import_repeated_is_one_study_and_into_another_is_refused(place: Place, archive: Path) -> None:
    name = f"twice{next(IDS)}"
    with client_of(place) as client:
        first = client.import_study(archive, name)
        before = place.dump()
        assert client.import_study(archive, name).record == first.record
        assert place.dump() == before
        first.pause()
        before = place.dump()
        with pytest.raises(AlreadyExists, match="is not equal to the archive"):
            client.import_study(archive, name)
        rewrite(archive, lambda lines: [_paused(lines[0]), *lines[1:]])
        with pytest.raises(AlreadyExists, match="is not equal to the archive"):
            client.import_study(archive, name)
        assert place.dump() == before


def _paused(header: Any) -> Any:
    """As if it had been paused at another time."""
    study = header["header"]["study"]
    return {
        "header": {
            **header["header"],
            "study": {**study, "state": "STATE_PAUSED", "sequence": str(int(study["sequence"]) + 1)},
        }
    }


def test_a_request_id_gets_the_first_reply_also_when_the_study_went_on(place: Place, archive: Path) -> None:
    name = f"request{next(IDS)}"
    stub = study_service_pb2_grpc.StudyServiceStub(place.wire.channel)

    def send(*, request_id: str, file: Path = archive) -> studies.Study:
        reply: studies.Study = stub.ImportStudy(File(file).requests("projects/p", name, request_id), timeout=60)
        return reply

    first = send(request_id="a")
    place.wire.one(first.name, lease_duration=seconds(3600))
    before = place.dump()
    assert send(request_id="a") == first
    assert refusal(lambda: send(request_id="b")).code is grpc.StatusCode.ALREADY_EXISTS
    rewrite(archive, lambda lines: [*lines[:-2], {"end": {**lines[-1]["end"], "trial_count": "14"}}])
    assert refusal(lambda: send(request_id="a")).code in (
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.INVALID_ARGUMENT,
    )
    assert place.dump() == before


def test_copies_of_an_import_sent_at_once_make_one_study(place: Place, archive: Path) -> None:
    name, project = f"copies{next(IDS)}", f"alone{next(IDS)}"

    def send(_: int) -> StudyRecord:
        with Client(place.server.target, project=project, retry_for=0) as client:
            return client.import_study(archive, name).record

    with ThreadPoolExecutor(4) as pool:
        records = list(pool.map(send, range(4)))
    assert all(record == records[0] for record in records)
    (listed,) = place.wire.call("ListStudies", studies.ListStudiesRequest(parent=f"projects/{project}")).studies
    assert listed.name == records[0].name
    assert not [row for row in place.dump()["studies"] if "#staged" in row]


def test_nothing_of_an_import_is_seen_before_its_end_nor_left_when_it_breaks(place: Place, archive: Path) -> None:
    name, project = f"broken{next(IDS)}", f"alone{next(IDS)}"
    before = place.dump()
    (request,) = File(archive).requests(f"projects/{project}", name, "")
    head = studies.ImportStudyRequest(parent=request.parent, study_id=name, records=request.records[:-1])
    stub = study_service_pb2_grpc.StudyServiceStub(place.wire.channel)
    gate = Gate()
    call = stub.ImportStudy.future(itertools.chain([head], gate), timeout=60)
    until(lambda: any("#staged" in row for row in place.dump()["studies"]))
    listed = place.wire.call("ListStudies", studies.ListStudiesRequest(parent=f"projects/{project}"))
    assert not listed.studies
    call.cancel()
    gate.open()
    until(lambda: place.dump() == before)


class Gate:
    """Requests that come to an end when the gate is opened."""

    def __init__(self) -> None:
        self._opened = threading.Event()

    def open(self) -> None:
        self._opened.set()

    def __iter__(self) -> Iterator[studies.ImportStudyRequest]:
        self._opened.wait(60)
        return iter(())


BAD: dict[str, tuple[Callable[[list[Any]], list[Any]], str]] = {
    "no header": (lambda lines: lines[1:], "line 1: must be the header"),
    "two headers": (lambda lines: [lines[0], *lines], "line 2: is a second header"),
    "no end": (lambda lines: lines[:-1], "is missing: the file was cut off"),
    "a trial less": (lambda lines: [*_without_last_trial(lines)], "end.trial_count: is 15, but there are 14 trials"),
    "a trial twice": (lambda lines: [*lines[:2], *lines[1:]], "line 3: trial.number: 1 is not between 1"),
    "another order": (lambda lines: [lines[0], *reversed(lines[1:-1]), lines[-1]], "is not between"),
    "after the end": (lambda lines: [*lines, lines[-1]], "follows the end"),
    "an empty record": (lambda lines: [*lines[:-1], {}, lines[-1]], "is empty: a record is header, trial"),
    "another version": (lambda lines: edited(lines, "header", "format_version", 2), "header.format_version: is 2"),
    "no seed": (
        lambda lines: edited(lines, "header", "study", "spec", "seed", None),
        "header.study.spec.seed: is miss",
    ),
    "another policy": (
        lambda lines: edited(lines, "header", "study", "spec", "policy", "x"),
        "spec.policy: 'x' is no pol",
    ),
    "a bad label": (
        lambda lines: edited(lines, "header", "study", "labels", {"": "x"}),
        "study.labels: '' is not a key",
    ),
    "a number too many": (
        lambda lines: edited(lines, "header", "next_number", "15"),
        "trial.number: 15 is not between",
    ),
    "other counts": (
        lambda lines: edited(lines, "header", "study", "trial_counts", "failed", "3"),
        "end: the header counts",
    ),
    "an active trial": (
        lambda lines: edited(lines, "trial", "state", "STATE_ACTIVE"),
        "trial.state: an archive holds no",
    ),
    "no state": (lambda lines: edited(lines, "trial", "state", None), "line 2: trial.state: 0 is not a state"),
    "a parameter outside": (
        lambda lines: edited(lines, "trial", "parameters", "x", {"double_value": 1e301}),
        "line 2: trial.parameters[x]: 1e+301 is outside",
    ),
    "a missing objective": (
        lambda lines: edited(lines, "trial", "metrics", "acc", None),
        "trial.metrics[acc]: is an obj",
    ),
    "no end time": (
        lambda lines: edited(lines, "trial", "end_time", None),
        "trial.end_time: a succeeded trial has one",
    ),
    "a time too fine": (
        lambda lines: edited(lines, "trial", "create_time", "2026-01-01T00:00:00.000000001Z"),
        "trial.create_time: 1 ns is finer",
    ),
    "a sequence of the study's own": (
        lambda lines: edited(lines, "header", "own_sequence", lines[1]["trial"]["sequence"]),
        "trial.sequence: ",
    ),
    "no sequence of its own": (
        lambda lines: edited(lines, "header", "own_sequence", None),
        "header.own_sequence: must be from 1",
    ),
    "a sequence ahead": (lambda lines: edited(lines, "trial", "sequence", "999999"), "trial.sequence: must be from 1"),
    "attempts unlike": (
        lambda lines: edited(lines, "trial", "spent_attempts", 5),
        "trial.spent_attempts: must be from 0",
    ),
    "a checkpoint of none": (
        lambda lines: edited(lines, "trial", "checkpoint_uri", "x"),
        "trial.checkpoint_uri: 'x' is",
    ),
    "a parent of none": (
        lambda lines: edited(lines, "trial", "parent", "1"),
        "trial.parent: 1 is not the number of an",
    ),
    "a member below none": (lambda lines: edited(lines, "trial", "member", -1), "trial.member: must be from 0"),
    "a lease": (lambda lines: edited(lines, "trial", "lease", {"token": "x"}), "trial.lease: must be absent"),
    "another's measurement": (lambda lines: edited(lines, "reported", "number", "2"), "reported.number: 2 is not that"),
    "steps out of order": (
        lambda lines: [*lines[:2], _reversed(lines[2]), *lines[3:]],
        "line 3: reported.measurements[1].step: 7 follows",
    ),
    "an unknown field": (lambda lines: edited(lines, "trial", "colour", "red"), "line 2: is no record of an archive: "),
    "a number as text": (
        lambda lines: edited(lines, "trial", "attempt", "many"),
        "line 2: is no record of an archive: ",
    ),
}


def _without_last_trial(lines: list[Any]) -> list[Any]:
    last = max(index for index, line in enumerate(lines) if "trial" in line)
    return lines[:last] + lines[last + 1 :]


def _reversed(line: Any) -> Any:
    return {"reported": {**line["reported"], "measurements": line["reported"]["measurements"][::-1]}}


def edited(lines: list[Any], kind: str, *path: Any) -> list[Any]:
    """The records with one value of the first record of a kind put in place of another; None takes it away."""
    *parents, name, value = path
    part = next(line[kind] for line in lines if kind in line)
    for parent in parents:
        part = part.setdefault(parent, {})
    if value is None:
        del part[name]
    else:
        part[name] = value
    return lines


@pytest.mark.parametrize("case", BAD)
def test_what_no_export_writes_is_refused_by_line_and_field_and_changes_nothing(
    place: Place, archive: Path, case: str
) -> None:
    change, why = BAD[case]
    rewrite(archive, change)
    before = place.dump()
    with client_of(place) as client, pytest.raises(InvalidArgument) as caught:
        client.import_study(archive, f"bad{next(IDS)}")
    assert why in str(caught.value)
    assert place.dump() == before


def test_whatever_is_done_to_a_file_it_is_refused(place: Place, exported: Path, tmp_path: Path) -> None:
    """Bytes cut off, changed, doubled; lines taken away, doubled, swapped: 60 files by chance, of a printed seed."""
    seed = 5
    print(f"seed {seed}")
    chance = random.Random(seed)
    whole_file, broken = exported.read_bytes(), tmp_path / "broken.jsonl"
    with client_of(place) as client:
        before = place.dump()
        for _ in range(60):
            content = damaged(whole_file, chance)
            broken.write_bytes(content)
            if content.rstrip(b"\n") == whole_file.rstrip(b"\n"):
                continue  # The end of the last line says nothing.
            with pytest.raises(InvalidArgument, match=r"broken.jsonl line \d+: "):
                client.import_study(broken, f"fuzz{next(IDS)}")
        assert place.dump() == before


def damaged(content: bytes, chance: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    place, other = chance.randrange(len(content)), chance.randrange(len(lines) - 1)
    match chance.randrange(6):
        case 0:
            return content[:place]
        case 1:
            return content[:place] + bytes([content[place] ^ 1 << chance.randrange(8)]) + content[place + 1 :]
        case 2:
            return content[:place] + content[place + 1 :]
        case 3:
            return b"".join(lines[:other] + lines[other + 1 :])
        case 4:
            return b"".join(lines[: other + 1] + lines[other:])
        case _:
            lines[other], lines[other - 1] = lines[other - 1], lines[other]
            return b"".join(lines)


def test_an_import_that_names_no_place_is_refused(place: Place) -> None:
    stub = study_service_pb2_grpc.StudyServiceStub(place.wire.channel)
    for requests, field in (
        ([], "parent"),
        ([studies.ImportStudyRequest()], "parent"),
        ([studies.ImportStudyRequest(parent="projects/p", study_id="a/b")], "study_id"),
        ([studies.ImportStudyRequest(parent="projects/p", request_id="a b")], "request_id"),
        ([studies.ImportStudyRequest(parent="projects/p"), studies.ImportStudyRequest(study_id="x")], "study_id"),
        ([studies.ImportStudyRequest(parent="projects/p")], "records[0]"),
    ):
        assert refusal(lambda requests=requests: stub.ImportStudy(iter(requests), timeout=30)).field == field


def test_an_export_of_no_study_is_not_found(place: Place) -> None:
    stub = study_service_pb2_grpc.StudyServiceStub(place.wire.channel)
    for name, code in (("projects/p/studies/none", "NOT_FOUND"), ("nonsense", "INVALID_ARGUMENT")):
        got = refusal(lambda name=name: list(stub.ExportStudy(studies.ExportStudyRequest(name=name), timeout=30)))
        assert got.code.name == code
