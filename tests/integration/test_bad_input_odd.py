"""Input that is odd and good: accepted, and kept exactly as it was given, on both databases."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable

import pytest
from google.protobuf.struct_pb2 import NULL_VALUE

from asktell.v1 import metric_pb2 as metric
from asktell.v1 import search_space_pb2 as space
from asktell.v1 import study_service_pb2 as studies
from asktell.v1 import trial_service_pb2 as trials
from tests.place import Place
from tests.wire import real, seconds, small_study, text, whole

DENORMAL = 5e-324
DEPTH = 64
"""Levels of a space: parameters one below the other."""
LARGEST = 1.7976931348623157e308
ODD_TEXTS = [
    "",
    " ",
    "\n\r\t",
    "'; DROP TABLE trials; --",
    '"; --',
    "100%",
    "_",
    "../../etc/passwd",
    "a/b",
    "\\",
    "{}",
    "\u202eright to left\u202c",
    "\u05e2\u05d1\u05e8\u05d9\u05ea",
    "a\u200bb",
    "ab",
    "\u00e9",
    "e\u0301",
    "\U0001f9ea",
    "\uffff",
    "\x01\x7f\x85",
    "NaN",
    "null",
    "1",
    "true",
    "x" * 1_024,
    "\U0001f9ea" * 1_024,
]
ODD_REALS = [-0.0, DENORMAL, -DENORMAL, 2.2250738585072014e-308, 1e308, LARGEST, -LARGEST, 0.1, 1 / 3, 1e15, 2.0**53]
ODD_INTEGERS = [0, 1, -1, 2**53 + 1, 2**63 - 1, -(2**63)]
ODD_CHOICES = [
    *map(text, ODD_TEXTS),
    *map(real, ODD_REALS),
    *map(whole, ODD_INTEGERS),
    real(1.0),
    space.ParameterValue(bool_value=True),
    space.ParameterValue(bool_value=False),
    space.ParameterValue(null_value=NULL_VALUE),
]


def bits(values: Iterable[float]) -> list[bytes]:
    """Numbers by their bits: -0.0 is not 0.0, and NaN equals itself."""
    return [struct.pack("<d", value) for value in values]


def test_odd_choices_are_kept_with_their_kinds_and_bits(place: Place) -> None:
    message = small_study()
    message.spec.parameters.add(name="kind", categorical_spec=space.CategoricalSpec(choices=ODD_CHOICES))
    message.spec.parameters.add(name="level", ordinal_spec=space.OrdinalSpec(values=ODD_CHOICES))
    study = place.wire.create("odd-choices", message)
    kept = place.wire.study(study.name).spec.parameters
    wanted = [choice.SerializeToString() for choice in ODD_CHOICES]
    assert [choice.SerializeToString() for choice in kept[1].categorical_spec.choices] == wanted
    assert [choice.SerializeToString() for choice in kept[2].ordinal_spec.values] == wanted
    new = [trials.NewTrial(parameters={"x": real(0.5), "kind": choice, "level": choice}) for choice in ODD_CHOICES]
    place.wire.call("AddTrials", trials.AddTrialsRequest(parent=study.name, trials=new))
    stored = place.wire.all_trials(study.name)
    assert [trial.parameters["kind"].SerializeToString() for trial in stored] == wanted
    assert [trial.parameters["level"].SerializeToString() for trial in stored] == wanted


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("denormals", space.FloatSpec(low=DENORMAL, high=4 * DENORMAL)),
        ("denormal-logs", space.FloatSpec(low=DENORMAL, high=LARGEST, log=True)),
        ("huge", space.FloatSpec(low=0, high=LARGEST)),
        ("a-point", space.FloatSpec(low=-0.0, high=-0.0)),
        ("neighbours", space.FloatSpec(low=1, high=math.nextafter(1, 2))),
        ("negative", space.FloatSpec(low=-LARGEST, high=0)),
        ("uneven-step", space.FloatSpec(low=0, high=1, step=0.3)),
        ("fine-step", space.FloatSpec(low=0, high=1, step=1e-15)),
    ],
)
@pytest.mark.parametrize("policy", ["random", "gp"])
def test_odd_ranges_are_kept_and_searched(place: Place, name: str, policy: str, spec: space.FloatSpec) -> None:
    message = small_study(policy=policy)
    message.spec.parameters[0].float_spec.CopyFrom(spec)
    study = place.wire.create(f"odd-{name}-{policy}", message)
    kept = place.wire.study(study.name).spec.parameters[0].float_spec
    assert bits([kept.low, kept.high]) == bits([spec.low, spec.high])
    asked = place.wire.ask(study.name, count=3).trials
    assert asked
    assert all(spec.low <= trial.parameters["x"].double_value <= spec.high for trial in asked)


def test_integers_reach_two_to_the_53_both_ways(place: Place) -> None:
    message = small_study()
    message.spec.parameters.add(name="n", int_spec=space.IntSpec(low=-(2**53), high=2**53))
    study = place.wire.create("odd-integers", message)
    ends = [-(2**53), -1, 0, 2**53 - 1, 2**53]
    new = [trials.NewTrial(parameters={"x": real(0.5), "n": whole(end)}) for end in ends]
    place.wire.call("AddTrials", trials.AddTrialsRequest(parent=study.name, trials=new))
    assert [trial.parameters["n"].int64_value for trial in place.wire.all_trials(study.name)] == ends


def test_metrics_keep_their_bits_also_where_they_are_no_numbers(place: Place) -> None:
    odd = [math.nan, math.inf, -math.inf, -0.0, DENORMAL, LARGEST, -LARGEST, 0.1]
    study = place.wire.create("odd-metrics", small_study()).name
    asked = place.wire.ask(study, count=len(odd)).trials
    for trial, value in zip(asked, odd, strict=True):
        measured = metric.MetricValue(value=value, standard_error=DENORMAL)
        report = metric.Measurement(step=2**53, metrics={"loss": measured})
        request = trials.ReportRequest(name=trial.name, lease_token=trial.lease.token, measurements=[report])
        assert place.wire.call("Report", request).directive == trials.DIRECTIVE_CONTINUE
        place.wire.tell(trial, value)
        place.wire.tell(trial, value)
    ended = [place.wire.trial(study, trial.number) for trial in asked]
    assert bits(trial.metrics["loss"].value for trial in ended) == bits(odd)
    reported = [trial.measurements[0].metrics["loss"] for trial in ended]
    assert bits(value.value for value in reported) == bits(odd)
    assert bits(value.standard_error for value in reported) == bits([DENORMAL] * len(odd))
    assert [trial.measurements[0].step for trial in ended] == [2**53] * len(odd)
    best = place.wire.call("ListOptimalTrials", trials.ListOptimalTrialsRequest(parent=study)).trials
    assert [trial.metrics["loss"].value for trial in best] == [-LARGEST]
    assert place.wire.ask(study).trials


def test_steps_may_come_out_of_order_and_again(place: Place) -> None:
    study = place.wire.create("odd-steps", small_study()).name
    trial = place.wire.one(study)
    for steps in ([5, 1], [3], [1, 0]):
        reports = [metric.Measurement(step=step, metrics={"loss": metric.MetricValue(value=step)}) for step in steps]
        request = trials.ReportRequest(name=trial.name, lease_token=trial.lease.token, measurements=reports)
        assert place.wire.call("Report", request).directive == trials.DIRECTIVE_CONTINUE
    assert [report.step for report in place.wire.trial(study, 1).measurements] == [0, 1, 3, 5]
    stopped = trials.TrialResult(number=1, lease_token=trial.lease.token, stopped=trials.TrialResult.Stopped())
    (told,) = place.wire.call("Tell", trials.TellRequest(parent=study, results=[stopped])).trials
    assert told.metrics["loss"].value == 5


def test_odd_texts_are_kept_in_notes_and_messages(place: Place) -> None:
    notes = {f"key {index}": value[:1_024] for index, value in enumerate(ODD_TEXTS)}
    notes |= {"'; DROP TABLE studies; --": "a", "%": "b", "_": "c", "../": "d", "{": "e", "\u00e9": "f", "e\u0301": "g"}
    message = small_study()
    message.labels.update(notes)
    study = place.wire.create("odd-notes", message)
    assert dict(place.wire.study(study.name).labels) == notes
    everything = "".join(ODD_TEXTS)
    for trial in place.wire.ask(study.name, "'; DROP TABLE trials; --", count=2).trials:
        outcome = trials.TrialResult.Infeasible(message=everything)
        result = trials.TrialResult(
            number=trial.number, lease_token=trial.lease.token, infeasible=outcome, metadata=notes
        )
        place.wire.call("Tell", trials.TellRequest(parent=study.name, results=[result]))
        kept = place.wire.trial(study.name, trial.number)
        assert (dict(kept.metadata), kept.message) == (notes, everything)
    listed = trials.ListTrialsRequest(parent=study.name, worker_id="'; DROP TABLE trials; --")
    assert len(place.wire.call("ListTrials", listed).trials) == 2
    none = trials.ListTrialsRequest(parent=study.name, worker_id="%")
    assert not place.wire.call("ListTrials", none).trials


@pytest.mark.parametrize("study_id", ["a", "A", "a.b", "a_b", "a%".replace("%", "-"), "0", "con", "select", "x" * 128])
def test_odd_ids_name_different_studies(place: Place, study_id: str) -> None:
    name = place.wire.create(study_id, small_study(seed=len(study_id))).name
    assert name == f"projects/p/studies/{study_id}"
    assert place.wire.study(name).name == name
    place.wire.call("DeleteStudy", studies.DeleteStudyRequest(name=name))


def test_uris_are_kept_and_not_opened(place: Place, tmp_path_factory: pytest.TempPathFactory) -> None:
    secret = tmp_path_factory.mktemp("secret") / "secret"
    secret.write_text("nobody may read this")
    before = secret.stat().st_atime_ns
    study = place.wire.create("odd-uris", small_study()).name
    trial = place.wire.one(study)
    for uri in (f"file://{secret}", "http://127.0.0.1:1/", "s3://b/'%;--", "s3://" + "x" * 2_043):
        released = trials.ReleaseTrialRequest(name=trial.name, lease_token=trial.lease.token, checkpoint_uri=uri)
        assert place.wire.call("ReleaseTrial", released).checkpoint_uri == uri
        trial = place.wire.one(study)
        assert trial.checkpoint_uri == uri
    assert secret.stat().st_atime_ns == before


def test_the_largest_space_is_searched(place: Place) -> None:
    message = small_study()
    message.spec.ClearField("parameters")
    true = space.ParameterValue(bool_value=True)
    for index in range(500):
        under = space.Condition(parent=f"p{index - 1}", values=[true]) if index % DEPTH else None
        message.spec.parameters.add(name=f"p{index}", bool_spec=space.BoolSpec(), when=under)
    study = place.wire.create("largest", message)
    assert len(place.wire.study(study.name).spec.parameters) == 500
    asked = place.wire.ask(study.name, count=5).trials
    assert len(asked) == 5
    for trial in asked:
        chosen = {name: value.bool_value for name, value in trial.parameters.items()}
        for index in range(500):
            active = index % DEPTH == 0 or chosen.get(f"p{index - 1}", False)
            assert (f"p{index}" in chosen) is active


def test_a_thousand_choices_and_a_thousand_trials_in_one_call(place: Place) -> None:
    message = small_study(lease_duration=seconds(604_800), max_attempts=100)
    choices = [text(f"choice {index}") for index in range(1_000)]
    message.spec.parameters.add(name="kind", categorical_spec=space.CategoricalSpec(choices=choices))
    study = place.wire.create("thousand", message).name
    asked = place.wire.ask(study, count=1_000).trials
    assert [trial.number for trial in asked] == list(range(1, 1_001))
    values = {"loss": metric.MetricValue(value=1)}
    results = [
        trials.TrialResult(
            number=trial.number, lease_token=trial.lease.token, succeeded=trials.TrialResult.Succeeded(metrics=values)
        )
        for trial in asked
    ]
    told = place.wire.call("Tell", trials.TellRequest(parent=study, results=results)).trials
    assert {trial.state for trial in told} == {trials.Trial.STATE_SUCCEEDED}
    assert place.wire.study(study).trial_counts.succeeded == 1_000
