"""Every kind of bad input, through the wire, on both databases: the right status, the field at fault, and a database as it was."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import NULL_VALUE
from grpc import StatusCode

from asktell.v1 import metric_pb2 as metric
from asktell.v1 import search_space_pb2 as space
from asktell.v1 import study_service_pb2 as studies
from asktell.v1 import surrogate_service_pb2 as surrogates
from asktell.v1 import trial_service_pb2 as trials
from tests.place import Place
from tests.wire import Refusal, Wire, real, refusal, seconds, small_study, study_of, text, whole

NAN, INF = math.nan, math.inf
MEGABYTE = "x" * 1_048_576
CENTURY = 100 * 365.25 * 86_400
NOTHING = space.ParameterValue()
TRUE = space.ParameterValue(bool_value=True)
NULL = space.ParameterValue(null_value=NULL_VALUE)

BAD_IDS = {
    "empty": "",
    "a_mebibyte": MEGABYTE,
    "300_characters": "a" * 300,
    "nul": "a\0b",
    "right_to_left": "\u202eabc",
    "zero_width_twin": "a\u200bb",
    "cyrillic_twin": "\u0430bc",
    "newline": "abc\n",
    "sql": "'; DROP TABLE studies; --",
    "percent": "100%",
    "leading_underscore": "_",
    "upwards": "../etc",
    "slash": "a/b",
    "space": "a b",
    "dot": ".",
}
BAD_VARIABLES = {name: value for name, value in BAD_IDS.items() if name not in ("leading_underscore", "slash")}
BAD_NOTES: Mapping[str, tuple[dict[str, str], str]] = {
    "65_pairs": ({f"k{index}": "v" for index in range(65)}, ""),
    "an_empty_key": ({"": "v"}, ""),
    "a_long_key": ({"k" * 64: "v"}, ""),
    "a_key_with_nul": ({"k\0": "v"}, ""),
    "a_key_right_to_left": ({"\u202ek": "v"}, ""),
    "a_value_with_nul": ({"k": "v\0"}, "[k]"),
    "a_value_of_a_mebibyte": ({"k": MEGABYTE}, "[k]"),
}
BAD_KEYS = (
    "",
    "k-k",
    "k.k",
    "ä",
    "`k",
    "k`",
    "``",
    "`k`k`",
    "`k``",
    "k" * 64,
    f"`{'.' * 64}`",
    "`k\0`",
    "`\u202ek`",
    f"`{MEGABYTE}`",
)
"""As a mask names a label."""
BAD_URIS = {
    "javascript": "javascript:alert(1)",
    "data": "data:text/plain,x",
    "no_scheme": "/etc/passwd",
    "upwards": "../../etc/passwd",
    "ftp": "ftp://host/x",
    "blank": "s3://bucket/a b",
    "newline": "s3://bucket/a\n",
    "nul": "s3://bucket/\0",
    "right_to_left": "s3://bucket/\u202e",
    "nothing_behind": "s3://",
    "2049_characters": "s3://" + "x" * 2044,
    "a_mebibyte": "s3://" + MEGABYTE,
}
BAD_REQUEST_IDS = {
    "blank": "a b",
    "129_characters": "a" * 129,
    "a_mebibyte": MEGABYTE,
    "nul": "a\0",
    "newline": "a\n",
    "twin": "\u0430",
}
BAD_LEASE_TOKENS = {"empty": "", **BAD_REQUEST_IDS}
BAD_WORKERS = {
    "empty": "",
    "257_characters": "w" * 257,
    "a_mebibyte": MEGABYTE,
    "nul": "w\0",
    "newline": "w\n",
    "right_to_left": "\u202ew",
    "zero_width": "w\u200b",
}
BAD_POPULATIONS = {
    "of_none": studies.Population(size=0),
    "of_a_negative_size": studies.Population(size=-(2**31)),
    "of_1001": studies.Population(size=1_001),
    "that_exploits_nothing": studies.Population(exploit_fraction=0.0),
    "that_exploits_nan": studies.Population(exploit_fraction=NAN),
    "that_exploits_most": studies.Population(exploit_fraction=0.500001),
    "that_resamples_nan": studies.Population(resample_probability=NAN),
    "that_resamples_more_than_all": studies.Population(resample_probability=1.5),
    "that_stays": studies.Population(perturbation_factor=1.0),
    "that_leaps": studies.Population(perturbation_factor=INF),
}
BAD_STUDY_NAMES = {
    "empty": "",
    "nothing_in_it": "projects//studies/",
    "upwards": "projects/p/studies/../s",
    "a_trial": "projects/p/studies/s/trials/1",
    "wildcards": "projects/%/studies/_",
    "sql": "projects/p/studies/s' OR '1'='1",
    "nul": "projects/p/studies/s\0",
    "newline": "projects/p/studies/s\n",
    "a_mebibyte": "projects/p/studies/" + MEGABYTE,
}
BAD_TRIAL_NAMES = {
    **BAD_STUDY_NAMES,
    "a_trial": "projects/p/studies/s",
    "zero": "projects/p/studies/s/trials/0",
    "negative": "projects/p/studies/s/trials/-1",
    "padded": "projects/p/studies/s/trials/01",
    "exponent": "projects/p/studies/s/trials/1e3",
    "superscript": "projects/p/studies/s/trials/\u00b2",
    "17_digits": "projects/p/studies/s/trials/12345678901234567",
}
BAD_TOKENS = {
    "no_base64": "!!!",
    "not_ascii": "\u00e9",
    "not_text": base64.urlsafe_b64encode(b"\xff\xfe").decode(),
    "nul": base64.urlsafe_b64encode(b"a\0b").decode(),
    "cut": "YWJj"[:-1],
    "a_mebibyte": base64.urlsafe_b64encode(MEGABYTE.encode()).decode(),
}
NO_STUDY = "projects/p/studies/nobody"


@dataclass(frozen=True, slots=True)
class Scene:
    """Two studies with trials of every kind."""

    study: str
    mine: trials.Trial
    """Active, with its token."""
    rival: trials.Trial
    """Active, in the hands of another worker."""
    queued: trials.Trial
    ended: trials.Trial
    """As it was asked; told with a loss of 0.5."""
    cancelled: trials.Trial
    """As it was asked."""
    foreign: trials.Trial
    """Active, in another study."""


@dataclass(frozen=True, slots=True)
class Row:
    """A request that must be refused, how, and which field is at fault."""

    id: str
    method: str
    request: Callable[[Scene], Message]
    field: str
    code: StatusCode = StatusCode.INVALID_ARGUMENT
    reason: str = ""


def study_message() -> studies.Study:
    """A study with a parameter of every kind, and one under a condition."""
    message = small_study(lease_duration=seconds(3600))
    parameters = message.spec.parameters
    parameters.add(name="rate", float_spec=space.FloatSpec(low=1e-5, high=1, log=True))
    parameters.add(name="grid", float_spec=space.FloatSpec(low=0, high=1, step=0.25))
    parameters.add(name="size", int_spec=space.IntSpec(low=1, high=9, step=2))
    parameters.add(name="kind", categorical_spec=space.CategoricalSpec(choices=[text("a"), text("b"), whole(1)]))
    parameters.add(name="flag", bool_spec=space.BoolSpec())
    parameters.add(name="level", ordinal_spec=space.OrdinalSpec(values=[whole(16), whole(32)]))
    parameters.add(
        name="extra",
        float_spec=space.FloatSpec(low=0, high=1),
        when=space.Condition(parent="kind", values=[text("a")]),
    )
    return message


GOOD = {
    "x": real(0.5),
    "rate": real(0.01),
    "grid": real(0.25),
    "size": whole(3),
    "kind": text("b"),
    "flag": TRUE,
    "level": whole(16),
}


@pytest.fixture(scope="module")
def scenes() -> dict[str, Scene]:
    """One for each database."""
    return {}


@pytest.fixture
def scene(place: Place, scenes: dict[str, Scene]) -> Scene:
    """A study with trials of every kind, and another study."""
    database = place.server.database
    if database not in scenes:
        scenes[database] = set_up(place.wire)
    return scenes[database]


def set_up(wire: Wire) -> Scene:
    """The queued trial comes last, so that nobody is handed it."""
    study = wire.create("scene", study_message()).name
    other = wire.create("other", small_study(lease_duration=seconds(3600))).name
    mine, rival = (wire.one(study, worker) for worker in ("w", "rival"))
    ended, cancelled = (wire.one(study) for _ in range(2))
    wire.tell(ended, 0.5)
    wire.call("CancelTrial", trials.CancelTrialRequest(name=cancelled.name))
    new = trials.AddTrialsRequest(parent=study, trials=[trials.NewTrial(parameters=GOOD)])
    queued = wire.call("AddTrials", new).trials[0]
    return Scene(study, mine, rival, queued, ended, cancelled, wire.one(other))


def created(change: Callable[[studies.CreateStudyRequest], object]) -> Callable[[Scene], Message]:
    """CreateStudy of a good study but for a change."""

    def make(_: Scene) -> Message:
        request = studies.CreateStudyRequest(parent="projects/p", study_id="new", study=study_message())
        change(request)
        return request

    return make


def with_parameter(name: str = "new", **kind: Any) -> Callable[[Scene], Message]:
    """CreateStudy with one parameter more, the ninth."""
    return created(lambda request: request.study.spec.parameters.add(name=name, **kind))


def creations() -> Iterator[Row]:
    yield Row("no_parent", "CreateStudy", created(lambda r: r.ClearField("parent")), "parent")
    for name, value in BAD_IDS.items():
        yield Row(
            f"project_{name}", "CreateStudy", created(lambda r, v=value: _set(r, parent=f"projects/{v}")), "parent"
        )
        yield Row(f"id_{name}", "CreateStudy", created(lambda r, v=value: _set(r, study_id=v)), "study_id")
    for name, (notes, suffix) in BAD_NOTES.items():
        change = created(lambda r, v=notes: r.study.labels.update(v))
        yield Row(f"labels_{name}", "CreateStudy", change, f"study.labels{suffix}")
    yield Row("nothing_in_it", "CreateStudy", created(lambda r: r.study.Clear()), "study.spec.parameters")
    other = created(lambda r: _set(r, study_id="scene") and _set(r.study.spec, seed=2))
    yield Row("taken_by_another", "CreateStudy", other, "", StatusCode.ALREADY_EXISTS, "STUDY_EXISTS")


def _set(message: Message, /, **fields: Any) -> bool:
    for name, value in fields.items():
        setattr(message, name, value)
    return True


def parameters() -> Iterator[Row]:
    path = "study.spec.parameters"

    def row(name: str, field: str, /, **kind: Any) -> Row:
        return Row(f"parameter_{name}", "CreateStudy", with_parameter(**kind), f"{path}[8].{field}")

    def count(number: int) -> Callable[[Scene], Message]:
        many = [space.ParameterSpec(name=f"p{index}", bool_spec=space.BoolSpec()) for index in range(number)]
        return created(lambda r: r.study.spec.parameters.extend(many))

    yield Row("no_parameters", "CreateStudy", created(lambda r: r.study.spec.ClearField("parameters")), path)
    yield Row("501_parameters", "CreateStudy", count(493), path)
    yield Row("10000_parameters", "CreateStudy", count(9_992), path)
    for name, value in BAD_VARIABLES.items():
        yield row(f"name_{name}", "name", name=value, bool_spec=space.BoolSpec())
    yield row("named_as_another", "name", name="x", bool_spec=space.BoolSpec())
    yield row("of_no_kind", "kind")
    for name, field, low, high in (
        ("low_nan", "low", NAN, 1.0),
        ("low_inf", "low", -INF, 1.0),
        ("high_nan", "high", 0.0, NAN),
        ("high_inf", "high", 0.0, INF),
        ("low_above_high", "low", 1.0, 0.0),
        ("wider_than_numbers", "high", -1.7e308, 1.7e308),
    ):
        yield row(f"float_{name}", f"float_spec.{field}", float_spec=space.FloatSpec(low=low, high=high))
    for name, low in (("zero", 0.0), ("minus_zero", -0.0), ("negative", -1.0)):
        yield row(f"log_{name}", "float_spec.low", float_spec=space.FloatSpec(low=low, high=1, log=True))
    for name, step in (
        ("zero", 0),
        ("negative", -0.1),
        ("beyond", 1.5),
        ("nan", NAN),
        ("inf", INF),
        ("minute", 5e-324),
    ):
        yield row(f"step_{name}", "float_spec.step", float_spec=space.FloatSpec(low=0, high=1, step=step))
    yield row("step_on_log", "float_spec.step", float_spec=space.FloatSpec(low=1, high=9, log=True, step=1))
    yield row("step_in_a_point", "float_spec.step", float_spec=space.FloatSpec(low=1, high=1, step=1))
    big = 2**53
    for name, field, low, high in (
        ("low_above_high", "low", 2, 1),
        ("low_beyond", "low", -big - 1, 1),
        ("high_beyond", "high", 1, big + 1),
        ("low_smallest", "low", -(2**63), 1),
        ("high_largest", "high", 1, 2**63 - 1),
    ):
        yield row(f"int_{name}", f"int_spec.{field}", int_spec=space.IntSpec(low=low, high=high))
    yield row("int_log_zero", "int_spec.low", int_spec=space.IntSpec(low=0, high=9, log=True))
    for name, stride in (("zero", 0), ("negative", -1), ("beyond", 10), ("largest", 2**63 - 1)):
        yield row(f"int_step_{name}", "int_spec.step", int_spec=space.IntSpec(low=0, high=9, step=stride))
    yield row("int_step_on_log", "int_spec.step", int_spec=space.IntSpec(low=1, high=9, log=True, step=1))


def choices() -> Iterator[Row]:
    path = "study.spec.parameters[8]"
    for name, suffix, values in (
        ("none", "", []),
        ("1001", "", [whole(index) for index in range(1_001)]),
        ("a_million", "", [whole(index) for index in range(100)] * 10_000),
        ("nan", "[1]", [real(1), real(NAN)]),
        ("inf", "[0]", [real(INF)]),
        ("twice", "[1]", [text("a"), text("a")]),
        ("null_twice", "[1]", [NULL, NULL]),
        ("zero_and_minus_zero", "[1]", [real(0.0), real(-0.0)]),
        ("of_no_kind", "[1]", [text("a"), NOTHING]),
        ("nul", "[0]", [text("a\0")]),
        ("1025_characters", "[0]", [text("x" * 1025)]),
        ("a_mebibyte", "[0]", [text(MEGABYTE)]),
    ):
        categorical = with_parameter(categorical_spec=space.CategoricalSpec(choices=values))
        yield Row(f"choices_{name}", "CreateStudy", categorical, f"{path}.categorical_spec.choices{suffix}")
        ordinal = with_parameter(ordinal_spec=space.OrdinalSpec(values=values))
        yield Row(f"ordinals_{name}", "CreateStudy", ordinal, f"{path}.ordinal_spec.values{suffix}")


def defaults() -> Iterator[Row]:
    field = "study.spec.parameters[8].default_value"
    wide, integers = space.FloatSpec(low=0, high=1), space.IntSpec(low=0, high=9, step=3)
    kinds: list[tuple[str, dict[str, Any], space.ParameterValue]] = [
        ("above", {"float_spec": wide}, real(1.5)),
        ("nan", {"float_spec": wide}, real(NAN)),
        ("inf", {"float_spec": wide}, real(INF)),
        ("text_for_float", {"float_spec": wide}, text("0.5")),
        ("bool_for_float", {"float_spec": wide}, TRUE),
        ("null_for_float", {"float_spec": wide}, NULL),
        ("nothing", {"float_spec": wide}, NOTHING),
        ("off_the_grid", {"float_spec": space.FloatSpec(low=0, high=1, step=0.25)}, real(0.3)),
        ("float_for_int", {"int_spec": integers}, real(3.0)),
        ("off_the_int_grid", {"int_spec": integers}, whole(4)),
        ("int_for_bool", {"bool_spec": space.BoolSpec()}, whole(1)),
        ("no_choice", {"categorical_spec": space.CategoricalSpec(choices=[text("1")])}, whole(1)),
        ("no_ordinal", {"ordinal_spec": space.OrdinalSpec(values=[whole(1)])}, real(1.0)),
    ]
    for name, kind, value in kinds:
        yield Row(f"default_{name}", "CreateStudy", with_parameter(default_value=value, **kind), field)


def conditions() -> Iterator[Row]:
    def under(parent: str, *values: space.ParameterValue) -> Callable[[Scene], Message]:
        return with_parameter(bool_spec=space.BoolSpec(), when=space.Condition(parent=parent, values=values))

    def ring(request: studies.CreateStudyRequest) -> None:
        names = ["c0", "c1", "c2"]
        for name, parent in zip(names, [*names[1:], names[0]], strict=True):
            when = space.Condition(parent=parent, values=[TRUE])
            request.study.spec.parameters.add(name=name, bool_spec=space.BoolSpec(), when=when)

    def ladder(request: studies.CreateStudyRequest) -> None:
        for index in range(65):
            when = space.Condition(parent=f"c{index - 1}", values=[TRUE]) if index else None
            request.study.spec.parameters.add(name=f"c{index}", bool_spec=space.BoolSpec(), when=when)

    field = "study.spec.parameters[8].when"
    yield Row("parents_too_deep", "CreateStudy", created(ladder), "study.spec.parameters[72].when.parent")
    yield Row("parent_unknown", "CreateStudy", under("nobody", TRUE), f"{field}.parent")
    yield Row("parent_empty", "CreateStudy", under("", TRUE), f"{field}.parent")
    yield Row("parent_of_a_mebibyte", "CreateStudy", under(MEGABYTE, TRUE), f"{field}.parent")
    yield Row("parent_is_itself", "CreateStudy", under("new", TRUE), f"{field}.parent")
    yield Row("parents_in_a_ring", "CreateStudy", created(ring), f"{field}.parent")
    yield Row("condition_on_nothing", "CreateStudy", under("flag"), f"{field}.values")
    yield Row("condition_impossible", "CreateStudy", under("kind", text("a"), text("c")), f"{field}.values[1]")
    yield Row("condition_of_another_kind", "CreateStudy", under("flag", whole(1)), f"{field}.values[0]")
    yield Row("condition_nan", "CreateStudy", under("x", real(NAN)), f"{field}.values[0]")
    yield Row("condition_of_no_kind", "CreateStudy", under("flag", NOTHING), f"{field}.values[0]")


def specs() -> Iterator[Row]:
    path = "study.spec"

    def row(name: str, change: Callable[[studies.StudySpec], object], field: str, code: Any = None) -> Row:
        code = code or StatusCode.INVALID_ARGUMENT
        return Row(name, "CreateStudy", created(lambda r: change(r.study.spec)), f"{path}.{field}", code)

    goal = metric.Objective.GOAL_MINIMIZE
    yield row("no_objectives", lambda s: s.ClearField("objectives"), "objectives")
    many = [metric.Objective(metric=f"m{index}", goal=goal) for index in range(17)]
    yield row("18_objectives", lambda s: s.objectives.extend(many), "objectives")
    yield row("objective_twice", lambda s: s.objectives.add(metric="loss", goal=goal), "objectives[1].metric")
    for name, value in BAD_VARIABLES.items():
        yield row(f"metric_{name}", lambda s, v=value: s.objectives.add(metric=v, goal=goal), "objectives[1].metric")
    yield row("no_goal", lambda s: s.objectives.add(metric="m"), "objectives[1].goal")
    yield row("unknown_goal", lambda s: s.objectives.add(metric="m", goal=99), "objectives[1].goal")
    yield row("policy_unknown", lambda s: _set(s, policy="telepathy"), "policy")
    yield row("policy_nul", lambda s: _set(s, policy="gp\0"), "policy")
    yield row("policy_of_a_mebibyte", lambda s: _set(s, policy=MEGABYTE), "policy")
    for name, lease in leases():
        yield row(f"lease_{name}", lambda s, v=lease: s.lease_duration.CopyFrom(v), "lease_duration")
    yield row("attempts_negative", lambda s: _set(s, max_attempts=-1), "max_attempts")
    yield row("attempts_101", lambda s: _set(s, max_attempts=101), "max_attempts")
    yield row("late_tells_unknown", lambda s: _set(s, late_tells=99), "late_tells")
    for name, population in BAD_POPULATIONS.items():
        part = "population" + "".join(f".{field.name}" for field, _ in population.ListFields())
        change = lambda s, v=population: _set(s, policy="pbt") and s.population.CopyFrom(v)  # noqa: E731
        yield row(f"population_{name}", change, part)
    yield row("population_of_another_policy", lambda s: s.population.SetInParent(), "population")
    yield from constraints(row)
    yield from bounds(row)
    for limit in ("max_trials", "max_failures", "max_parallel"):
        for name, number in (("zero", 0), ("negative", -1), ("largest", 2**63 - 1)):
            change = created(lambda r, k=limit, v=number: _set(r.study.budget, **{k: v}))
            yield Row(f"{limit}_{name}", "CreateStudy", change, f"study.budget.{limit}")
    for name, time in (("zero", Duration()), ("negative", seconds(-1)), ("ten_thousand_years", seconds(315e9))):
        change = created(lambda r, v=time: r.study.budget.max_duration.CopyFrom(v))
        yield Row(f"max_duration_{name}", "CreateStudy", change, "study.budget.max_duration")


def widenings() -> Iterator[Row]:
    """Changes of the search space that do not make it wider, or make no sense."""

    def widen(alter: Callable[[Any], object]) -> Callable[[Scene], Message]:
        def make(scene: Scene) -> Message:
            request = studies.UpdateStudyRequest(
                study=studies.Study(name=scene.study), update_mask=FieldMask(paths=["spec.parameters"])
            )
            request.study.spec.parameters.extend(study_message().spec.parameters)
            alter(request.study.spec.parameters)
            return request

        return make

    place = {spec.name: index for index, spec in enumerate(study_message().spec.parameters)}

    def row(name: str, parameter: str, field: str, alter: Callable[[Any], object]) -> Row:
        path = f"study.spec.parameters[{place[parameter]}].{field}"
        return Row(f"widen_{name}", "UpdateStudy", widen(lambda specs: alter(specs[place[parameter]])), path)

    yield Row(
        "widen_to_nothing", "UpdateStudy", widen(lambda specs: specs.__delitem__(slice(None))), "study.spec.parameters"
    )
    yield Row("widen_by_removing", "UpdateStudy", widen(lambda specs: specs.__delitem__(0)), "study.spec.parameters")
    added = f"study.spec.parameters[{len(place)}].name"
    yield Row(
        "widen_by_adding", "UpdateStudy", widen(lambda specs: specs.add(name="new").bool_spec.SetInParent()), added
    )
    yield row("by_renaming", "x", "name", lambda spec: _set(spec, name="y"))
    yield row("low", "x", "float_spec.low", lambda spec: _set(spec.float_spec, low=0.1))
    yield row("high", "x", "float_spec.high", lambda spec: _set(spec.float_spec, high=0.9))
    yield row("nan", "x", "float_spec.high", lambda spec: _set(spec.float_spec, high=NAN))
    yield row("log_to_zero", "rate", "float_spec.low", lambda spec: _set(spec.float_spec, low=0))
    yield row("scale", "rate", "float_spec.log", lambda spec: _set(spec.float_spec, log=False))
    yield row("step", "grid", "float_spec.step", lambda spec: _set(spec.float_spec, step=0.2))
    yield row("grid", "grid", "float_spec.low", lambda spec: _set(spec.float_spec, low=-0.1))
    yield row("kind", "x", "kind", lambda spec: spec.bool_spec.SetInParent())
    yield row("choices", "kind", "categorical_spec.choices", lambda spec: spec.categorical_spec.choices.__delitem__(1))
    yield row("order", "level", "ordinal_spec.values", lambda spec: spec.ordinal_spec.values.reverse())
    yield row("condition", "x", "when", lambda spec: spec.when.CopyFrom(space.Condition(parent="flag", values=[TRUE])))
    yield row("default", "x", "default_value", lambda spec: spec.default_value.CopyFrom(real(2)))


BAD_CONSTRAINTS = {
    "empty": "",
    "number": "1",
    "no_comparison": "x + n",
    "strict": "x < 1",
    "equation": "x == 1",
    "call": "log(x) <= 1",
    "import": "__import__('os').system('true') <= 1",
    "attribute": "x.real <= 1",
    "index": "x[0] <= 1",
    "lambda": "(lambda: 1)() <= x",
    "walrus": "(x := 1) <= 1",
    "unknown": "y <= 1",
    "twin": "\u0445 <= 1",
    "categorical": "kind <= 1",
    "bool": "flag <= 1",
    "nowhere": "x >= 1e9",
    "without_parameters": "1 <= 2",
    "cancelled": "x - x <= 2",
    "nul": "x\0 <= 1",
    "newline_and_more": "x <= 1\nx",
    "nested": "(" * 400 + "x" + ")" * 400 + " <= 1",
    "power": "2 ** 999999999 * x <= 1",
    "towers": "x ** x <= 1",
    "huge": "9" * 400 + " * x <= 1",
    "divided": "1 / x <= 1",
    "long": "x" + " + x" * 300 + " <= 1",
    "a_mebibyte": MEGABYTE,
}


def constraints(row: Callable[..., Row]) -> Iterator[Row]:
    """Constraints between parameters that cannot be."""
    for name, written in BAD_CONSTRAINTS.items():
        yield row(f"between_{name}", lambda s, v=written: s.input_constraints.append(v), "input_constraints[0]")
    yield row("65_constraints", lambda s: s.input_constraints.extend(["x <= 1"] * 65), "input_constraints")
    chain = [" <= ".join(["x", "rate"] * 40)] * 2
    yield row("158_comparisons", lambda s: s.input_constraints.extend(chain), "input_constraints")
    squares = "(x + rate + grid + size + level + extra)**2 <= 900"
    yield row("525_terms", lambda s: s.input_constraints.extend([squares] * 25), "input_constraints")
    contradiction = ["x <= 0.2", "x >= 0.3"]
    yield row("contradiction", lambda s: s.input_constraints.extend(contradiction), "input_constraints[1]")


def bounds(row: Callable[..., Row]) -> Iterator[Row]:
    """Outcome constraints, and what hypervolume is measured from, that cannot be."""
    path = "outcome_constraints[0]"
    for name, value in (("nan", math.nan), ("infinite", math.inf)):
        yield row(f"bound_{name}", bounded(bound=value), f"{path}.bound")
        yield row(f"reference_{name}", lambda s, v=value: _set(s.objectives[0], reference=v), "objectives[0].reference")
    for name, value in BAD_VARIABLES.items():
        yield row(f"constrained_{name}", bounded(metric=value), f"{path}.metric")
    for name, relation in (("none", 0), ("unknown", 99)):
        yield row(f"relation_{name}", bounded(relation=relation), f"{path}.relation")
    yield row("objective_constrained", bounded(metric="loss"), f"{path}.metric")
    yield row("constrained_twice", bounded(count=2), "outcome_constraints[1].metric")
    yield row("17_constraints", bounded(count=17), "outcome_constraints")


def bounded(count: int = 1, **fields: Any) -> Callable[[Any], None]:
    """A change that adds outcome constraints, all alike."""
    usual = {"metric": "m", "relation": metric.OutcomeConstraint.RELATION_AT_MOST, "bound": 1}
    message = metric.OutcomeConstraint(**(usual | fields))
    return lambda spec: spec.outcome_constraints.extend([message] * count)


def leases() -> Iterator[tuple[str, Duration]]:
    yield "zero", Duration()
    yield "negative", seconds(-60)
    yield "below_a_second", seconds(0.999)
    yield "a_hundred_years", seconds(CENTURY)
    yield "beyond_protobuf", Duration(seconds=2**62)
    yield "of_two_signs", Duration(seconds=60, nanos=-1)


def changes() -> Iterator[Row]:
    paused = {"state": studies.Study.STATE_PAUSED}

    def change(*paths: str, name: str = "", **fields: Any) -> Callable[[Scene], Message]:
        return lambda scene: studies.UpdateStudyRequest(
            study=studies.Study(name=name or scene.study, **fields), update_mask=FieldMask(paths=paths)
        )

    for name, study in BAD_STUDY_NAMES.items():
        yield Row(f"update_{name}", "UpdateStudy", change("state", name=study or "/", **paused), "study.name")
    yield Row("mask_empty", "UpdateStudy", change(), "update_mask")
    for path in (
        "name",
        "spec",
        "seed",
        "*",
        "state.x",
        "",
        "budget.",
        "budget.max",
        "budget.max_trials.x",
        "trial_counts",
        MEGABYTE,
    ):
        yield Row(f"mask_{path[:20]}", "UpdateStudy", change("labels", path), "update_mask")
    for key in BAD_KEYS:
        yield Row(f"mask_labels.{key[:20]}", "UpdateStudy", change("state", f"labels.{key}", **paused), "update_mask")
    for field, part in (("labels", "labels.k"), ("labels", "labels.`k.k`"), ("budget", "budget.max_duration")):
        yield Row(f"mask_{field}_and_{part}", "UpdateStudy", change(part, field), "update_mask")
    yield from widenings()
    yield Row("state_missing", "UpdateStudy", change("state"), "study.state")
    yield Row("state_unknown", "UpdateStudy", change("state", state=99), "study.state")
    budget = studies.Budget(max_trials=0)
    yield Row("budget_zero", "UpdateStudy", change("budget", budget=budget), "study.budget.max_trials")
    limit = change("budget.max_trials", budget=budget)
    yield Row("limit_zero", "UpdateStudy", limit, "study.budget.max_trials")
    note = change("labels.j", "labels.k", labels={"j": "v", "k": MEGABYTE})
    yield Row("label_of_a_mebibyte", "UpdateStudy", note, "study.labels[k]")
    both = change("state", "budget", state=studies.Study.STATE_PAUSED, budget=budget)
    yield Row("half_good", "UpdateStudy", both, "study.budget.max_trials")
    for name, (notes, suffix) in BAD_NOTES.items():
        yield Row(f"update_labels_{name}", "UpdateStudy", change("labels", labels=notes), f"study.labels{suffix}")
    missing = change("labels", name=NO_STUDY)
    yield Row("update_of_nobody", "UpdateStudy", missing, "", StatusCode.NOT_FOUND, "STUDY_NOT_FOUND")


def names() -> Iterator[Row]:
    """The same resource names for every method that takes one."""
    of_studies: Mapping[str, Callable[[str], Message]] = {
        "GetStudy": lambda name: studies.GetStudyRequest(name=name),
        "DeleteStudy": lambda name: studies.DeleteStudyRequest(name=name),
        "Ask": lambda name: trials.AskRequest(parent=name, worker_id="w"),
        "Tell": lambda name: trials.TellRequest(parent=name, results=[_result(1, "t")]),
        "RenewLeases": lambda name: trials.RenewLeasesRequest(parent=name, renewals=[_renewal(1, "t")]),
        "AddTrials": lambda name: trials.AddTrialsRequest(parent=name, trials=[trials.NewTrial(parameters=GOOD)]),
        "ListTrials": lambda name: trials.ListTrialsRequest(parent=name),
        "ListOptimalTrials": lambda name: trials.ListOptimalTrialsRequest(parent=name),
    }
    for method, make in of_studies.items():
        field = "name" if method in ("GetStudy", "DeleteStudy") else "parent"
        for name, value in BAD_STUDY_NAMES.items():
            yield Row(f"{method}_{name}", method, _constant(make(value)), field)
        missing = _constant(make(NO_STUDY))
        yield Row(f"{method}_of_nobody", method, missing, "", StatusCode.NOT_FOUND, "STUDY_NOT_FOUND")
    of_trials: Mapping[str, Callable[[str], Message]] = {
        "GetTrial": lambda name: trials.GetTrialRequest(name=name),
        "CancelTrial": lambda name: trials.CancelTrialRequest(name=name),
        "ReleaseTrial": lambda name: trials.ReleaseTrialRequest(name=name, lease_token="t"),
        "Report": lambda name: trials.ReportRequest(name=name, lease_token="t", measurements=[_measurement(1)]),
    }
    for method, make in of_trials.items():
        for name, value in BAD_TRIAL_NAMES.items():
            yield Row(f"{method}_{name}", method, _constant(make(value)), "name")
        nowhere, unborn = _constant(make(f"{NO_STUDY}/trials/1")), _of_scene(make, "/trials/9999999999999999")
        yield Row(f"{method}_nowhere", method, nowhere, "", StatusCode.NOT_FOUND, "STUDY_NOT_FOUND")
        yield Row(f"{method}_unborn", method, unborn, "", StatusCode.NOT_FOUND, "TRIAL_NOT_FOUND")


def _constant(request: Message) -> Callable[[Scene], Message]:
    return lambda _: request


def _of_scene(make: Callable[[str], Message], suffix: str) -> Callable[[Scene], Message]:
    return lambda scene: make(scene.study + suffix)


def pages() -> Iterator[Row]:
    projects: Mapping[str, str] = {"empty": "", "a_study": "projects/p/studies/s", "nul": "projects/p\0", "bare": "p"}
    for name, value in projects.items():
        yield Row(f"list_of_{name}", "ListStudies", _constant(studies.ListStudiesRequest(parent=value)), "parent")
    for size in (-1, 1_001, 2**31 - 1):
        of_studies = studies.ListStudiesRequest(parent="projects/p", page_size=size)
        yield Row(f"studies_page_of_{size}", "ListStudies", _constant(of_studies), "page_size")
        of_trials = _listing(page_size=size)
        yield Row(f"trials_page_of_{size}", "ListTrials", of_trials, "page_size")
    for name, token in BAD_TOKENS.items():
        forged = studies.ListStudiesRequest(parent="projects/p", page_token=token)
        yield Row(f"studies_token_{name}", "ListStudies", _constant(forged), "page_token")
        yield Row(f"trials_token_{name}", "ListTrials", _listing(page_token=token), "page_token")
    for name, content in (
        ("text", b"abc"),
        ("negative", b"-1"),
        ("17_digits", b"1" * 17),
        ("superscript", "\u00b2".encode()),
    ):
        token = base64.urlsafe_b64encode(content).decode()
        yield Row(f"trials_token_{name}", "ListTrials", _listing(page_token=token), "page_token")
    queued = trials.Trial.STATE_QUEUED
    yield Row("state_zero", "ListTrials", _listing(states=[queued, 0]), "states[1]")
    yield Row("state_99", "ListTrials", _listing(states=[99]), "states[0]")
    for name, worker in BAD_WORKERS.items():
        if worker:
            yield Row(f"list_worker_{name}", "ListTrials", _listing(worker_id=worker), "worker_id")


def _listing(**fields: Any) -> Callable[[Scene], Message]:
    return lambda scene: trials.ListTrialsRequest(parent=scene.study, **fields)


def asks() -> Iterator[Row]:
    def ask(**fields: Any) -> Callable[[Scene], Message]:
        return lambda scene: trials.AskRequest(**{"parent": scene.study, "worker_id": "w", **fields})

    for count in (0, -1, 1_001, 10**9, -(2**31)):
        yield Row(f"count_{count}", "Ask", ask(count=count), "count")
    for name, worker in BAD_WORKERS.items():
        yield Row(f"ask_worker_{name}", "Ask", ask(worker_id=worker), "worker_id")
    for name, lease in leases():
        yield Row(f"ask_lease_{name}", "Ask", ask(lease_duration=lease), "lease_duration")
    for name, value in BAD_REQUEST_IDS.items():
        yield Row(f"ask_request_id_{name}", "Ask", ask(request_id=value), "request_id")
    for name, parameter, fixed in _bad_values():
        field = f"fixed_parameters[{parameter[:64]}]"
        yield Row(f"fixed_{name}", "Ask", ask(fixed_parameters={parameter: fixed}), field)


def _bad_values() -> Iterator[tuple[str, str, space.ParameterValue]]:
    """A value that its parameter cannot have, whatever the others have."""
    yield "unknown", "nobody", real(1)
    yield "nul", "x\0", real(1)
    yield "a_mebibyte", MEGABYTE, real(1)
    yield "nameless", "", real(1)
    yield "nan", "x", real(NAN)
    yield "inf", "x", real(INF)
    yield "minus_inf", "x", real(-INF)
    yield "below", "x", real(-5e-324)
    yield "above", "x", real(1.0000000000000002)
    yield "huge", "x", real(1e308)
    yield "text_for_float", "x", text("0.5")
    yield "bool_for_float", "x", TRUE
    yield "null_for_float", "x", NULL
    yield "of_no_kind", "x", NOTHING
    yield "off_the_grid", "grid", real(0.3)
    # Of 3.0 and 16.0 the integers are taken, since tables with gaps have no others.
    yield "float_for_int", "size", real(3.5)
    yield "off_the_int_grid", "size", whole(2)
    yield "largest_int", "size", whole(2**63 - 1)
    yield "no_choice", "kind", text("c")
    yield "choice_of_another_kind", "kind", text("1")
    yield "bool_for_choice", "kind", TRUE
    yield "int_for_bool", "flag", whole(1)
    yield "float_for_ordinal", "level", real(17.0)
    yield "long_choice", "kind", text(MEGABYTE)


def _result(number: int, token: str, loss: float = 0.5) -> trials.TrialResult:
    succeeded = trials.TrialResult.Succeeded(metrics={"loss": metric.MetricValue(value=loss)})
    return trials.TrialResult(number=number, lease_token=token, succeeded=succeeded)


def _renewal(number: int, token: str) -> trials.LeaseRenewal:
    return trials.LeaseRenewal(number=number, lease_token=token)


def _measurement(step: int, **metrics: float) -> metric.Measurement:
    values = {name: metric.MetricValue(value=value) for name, value in (metrics or {"loss": 1.0}).items()}
    return metric.Measurement(step=step, metrics=values)


def told(change: Callable[[trials.TrialResult], object]) -> Callable[[Scene], Message]:
    """Tell of two good results, the second with a change."""

    def make(scene: Scene) -> Message:
        results = [_result(trial.number, trial.lease.token) for trial in (scene.rival, scene.mine)]
        change(results[1])
        return trials.TellRequest(parent=scene.study, results=results)

    return make


def tells() -> Iterator[Row]:
    def row(name: str, change: Callable[[trials.TrialResult], object], field: str) -> Row:
        return Row(f"tell_{name}", "Tell", told(change), f"results[1].{field}")

    def tell(*results: trials.TrialResult, **fields: Any) -> Callable[[Scene], Message]:
        return lambda scene: trials.TellRequest(parent=scene.study, results=results, **fields)

    yield Row("tell_nothing", "Tell", tell(), "results")
    yield Row("tell_1001", "Tell", tell(*(_result(index, "t") for index in range(1_001))), "results")
    for name, value in BAD_REQUEST_IDS.items():
        yield Row(f"tell_request_id_{name}", "Tell", tell(_result(1, "t"), request_id=value), "request_id")
    for independent in (False, True):
        twice = lambda scene, i=independent: _twice(scene, independent=i)  # noqa: E731
        yield Row(f"tell_twice_in_one_{independent}", "Tell", twice, "results[1].number")
    for name, token in BAD_LEASE_TOKENS.items():
        yield row(f"token_{name}", lambda r, v=token: _set(r, lease_token=v), "lease_token")
    yield row("no_outcome", lambda r: r.ClearField("succeeded"), "outcome")
    yield row("no_metrics", lambda r: r.succeeded.metrics.clear(), "succeeded.metrics[loss]")
    yield row("objective_missing", lambda r: _rename(r, "lose"), "succeeded.metrics[loss]")
    for name, error in (("negative", -1e-9), ("nan", NAN), ("inf", INF), ("minus_inf", -INF)):
        change = lambda r, v=error: _set(r.succeeded.metrics["loss"], standard_error=v)  # noqa: E731
        yield row(f"error_{name}", change, "succeeded.metrics[loss].standard_error")
    extra = {f"m{index}": metric.MetricValue(value=1) for index in range(100)}
    yield row(
        "101_metrics", lambda r: [r.succeeded.metrics[k].CopyFrom(v) for k, v in extra.items()], "succeeded.metrics"
    )
    for name, value in BAD_VARIABLES.items():
        change = lambda r, v=value: _set(r.succeeded.metrics[v], value=1)  # noqa: E731
        yield row(f"metric_{name}", change, f"succeeded.metrics[{value[:64]}]")
    for outcome in ("failed", "infeasible", "stopped"):
        for name, message in (("nul", "\0"), ("a_mebibyte", MEGABYTE)):
            change = lambda r, k=outcome, v=message: _set(getattr(r, k), message=v)  # noqa: E731
            yield row(f"{outcome}_message_{name}", change, f"{outcome}.message")
    for name, (notes, suffix) in BAD_NOTES.items():
        yield row(f"metadata_{name}", lambda r, v=notes: r.metadata.update(v), f"metadata{suffix}")
    for name, uri in BAD_URIS.items():
        yield row(f"uri_{name}", lambda r, v=uri: _set(r, checkpoint_uri=v), "checkpoint_uri")


def _merged(result: trials.TrialResult, more: trials.TrialResult) -> trials.TrialResult:
    result.MergeFrom(more)
    return result


def _twice(scene: Scene, *, independent: bool) -> Message:
    result = _result(scene.mine.number, scene.mine.lease.token)
    return trials.TellRequest(parent=scene.study, results=[result, result], independent=independent)


def _rename(result: trials.TrialResult, name: str) -> None:
    result.succeeded.metrics[name].CopyFrom(result.succeeded.metrics["loss"])
    del result.succeeded.metrics["loss"]


def out_of_turn() -> Iterator[Row]:
    """Results that are well formed and come at the wrong time, from the wrong hands or for the wrong trial."""

    def row(name: str, change: Callable[[Scene], trials.TrialResult], reason: str) -> Row:
        def make(scene: Scene) -> Message:
            good = _result(scene.mine.number, scene.mine.lease.token)
            return trials.TellRequest(parent=scene.study, results=[good, change(scene)])

        code = StatusCode.NOT_FOUND if reason == "TRIAL_NOT_FOUND" else StatusCode.FAILED_PRECONDITION
        return Row(f"tell_{name}", "Tell", make, "", code, reason)

    yield row("unborn", lambda s: _result(2**62, s.mine.lease.token), "TRIAL_NOT_FOUND")
    yield row("number_zero", lambda s: _result(0, s.mine.lease.token), "TRIAL_NOT_FOUND")
    yield row("number_negative", lambda s: _result(-(2**63), s.mine.lease.token), "TRIAL_NOT_FOUND")
    yield row("before_its_ask", lambda s: _result(s.queued.number, "abc-1"), "LEASE_UNKNOWN")
    yield row("anothers_token", lambda s: _result(s.rival.number, s.mine.lease.token), "LEASE_UNKNOWN")
    yield row("token_of_tomorrow", lambda s: _result(s.rival.number, _next(s.rival)), "LEASE_UNKNOWN")
    yield row("token_sql", lambda s: _result(s.rival.number, "'OR'1'='1"), "LEASE_UNKNOWN")
    yield row(
        "token_of_an_endless_attempt",
        lambda s: _result(s.rival.number, _next(s.rival)[:-1] + "9" * 90),
        "LEASE_UNKNOWN",
    )
    yield row("twice_otherwise", lambda s: _result(s.ended.number, s.ended.lease.token, 0.6), "TRIAL_ENDED")
    yield row("twice_with_nan", lambda s: _result(s.ended.number, s.ended.lease.token, NAN), "TRIAL_ENDED")
    for name, more in (
        ("metadata", trials.TrialResult(metadata={"k": "v"})),
        ("checkpoint", trials.TrialResult(checkpoint_uri="file:///left")),
    ):
        change = lambda s, v=more: _merged(_result(s.ended.number, s.ended.lease.token), v)  # noqa: E731
        yield row(f"twice_with_other_{name}", change, "TRIAL_ENDED")
    yield row("cancelled", lambda s: _result(s.cancelled.number, s.cancelled.lease.token), "TRIAL_ENDED")

    def foreign(scene: Scene) -> Message:
        result = _result(scene.foreign.number, scene.foreign.lease.token)
        return trials.TellRequest(parent=scene.study, results=[result])

    code = StatusCode.FAILED_PRECONDITION
    yield Row("tell_of_another_study", "Tell", foreign, "", code, "LEASE_UNKNOWN")

    def elsewhere(scene: Scene) -> Message:
        result = _result(scene.mine.number, scene.mine.lease.token)
        return trials.TellRequest(parent=study_of(scene.foreign).replace("/p/", "/q/"), results=[result])

    yield Row("tell_in_another_project", "Tell", elsewhere, "", StatusCode.NOT_FOUND, "STUDY_NOT_FOUND")
    cancel = lambda s: trials.CancelTrialRequest(name=s.ended.name)  # noqa: E731
    yield Row("cancel_of_an_ended_trial", "CancelTrial", cancel, "", code, "TRIAL_ENDED")
    release = lambda s: trials.ReleaseTrialRequest(name=s.rival.name, lease_token=s.mine.lease.token)  # noqa: E731
    yield Row("release_with_anothers_token", "ReleaseTrial", release, "", code, "LEASE_UNKNOWN")


def _next(trial: trials.Trial) -> str:
    nonce, _, attempt = trial.lease.token.rpartition("-")
    return f"{nonce}-{int(attempt) + 1}"


def reports() -> Iterator[Row]:
    def report(*measurements: metric.Measurement, **fields: Any) -> Callable[[Scene], Message]:
        return lambda scene: trials.ReportRequest(
            **{"name": scene.mine.name, "lease_token": scene.mine.lease.token, "measurements": measurements, **fields}
        )

    good = _measurement(7)
    yield Row("report_nothing", "Report", report(), "measurements")
    many = [_measurement(step) for step in range(1_001)]
    yield Row("report_1001_with_uri", "Report", report(*many, checkpoint_uri="s3://b/1"), "measurements")
    yield Row("report_1001", "Report", report(*many), "measurements")
    yield Row("step_negative", "Report", report(good, _measurement(-1)), "measurements[1].step")
    yield Row("step_beyond", "Report", report(good, _measurement(2**53 + 1), good), "measurements[1].step")
    yield Row("step_smallest", "Report", report(good, _measurement(-(2**63))), "measurements[1].step")
    yield Row("step_twice", "Report", report(good, _measurement(3), good), "measurements[2].step")
    yield Row("no_metrics", "Report", report(good, metric.Measurement(step=1)), "measurements[1].metrics")
    bad = metric.Measurement(step=1, metrics={"loss": metric.MetricValue(value=1, standard_error=NAN)})
    yield Row("report_error_nan", "Report", report(good, bad), "measurements[1].metrics[loss].standard_error")
    wide = _measurement(1, **{f"m{index}": 1.0 for index in range(101)})
    yield Row("report_101_metrics", "Report", report(good, wide), "measurements[1].metrics")
    for name, value in BAD_VARIABLES.items():
        named = report(good, _measurement(1, **{value: 1.0}))
        yield Row(f"report_metric_{name}", "Report", named, f"measurements[1].metrics[{value[:64]}]")
    for name, uri in BAD_URIS.items():
        yield Row(f"report_uri_{name}", "Report", report(good, checkpoint_uri=uri), "checkpoint_uri")
        yield Row(f"report_uri_alone_{name}", "Report", report(checkpoint_uri=uri), "checkpoint_uri")
        released = _release(checkpoint_uri=uri)
        yield Row(f"release_uri_{name}", "ReleaseTrial", released, "checkpoint_uri")
    for name, token in BAD_LEASE_TOKENS.items():
        yield Row(f"report_token_{name}", "Report", report(good, lease_token=token), "lease_token")
        yield Row(f"release_token_{name}", "ReleaseTrial", _release(lease_token=token), "lease_token")


def _release(**fields: Any) -> Callable[[Scene], Message]:
    return lambda scene: trials.ReleaseTrialRequest(
        **{"name": scene.mine.name, "lease_token": scene.mine.lease.token, **fields}
    )


def renewals() -> Iterator[Row]:
    def renew(*leases: trials.LeaseRenewal) -> Callable[[Scene], Message]:
        return lambda scene: trials.RenewLeasesRequest(parent=scene.study, renewals=leases)

    yield Row("renew_nothing", "RenewLeases", renew(), "renewals")
    yield Row("renew_1001", "RenewLeases", renew(*(_renewal(n, "t") for n in range(1_001))), "renewals")
    twice = renew(_renewal(1, "a"), _renewal(1, "b"))
    yield Row("renew_twice", "RenewLeases", twice, "renewals[1].number")
    for name, token in BAD_LEASE_TOKENS.items():
        bad = renew(_renewal(1, "a"), _renewal(2, token))
        yield Row(f"renew_token_{name}", "RenewLeases", bad, "renewals[1].lease_token")


def additions() -> Iterator[Row]:
    def add(change: Callable[[trials.NewTrial], object]) -> Callable[[Scene], Message]:
        def make(scene: Scene) -> Message:
            new = [trials.NewTrial(parameters=GOOD) for _ in range(2)]
            change(new[1])
            return trials.AddTrialsRequest(parent=scene.study, trials=new)

        return make

    def row(name: str, change: Callable[[trials.NewTrial], object], field: str) -> Row:
        return Row(f"add_{name}", "AddTrials", add(change), f"trials[1].{field}")

    def put(name: str, value: space.ParameterValue) -> Callable[[trials.NewTrial], object]:
        return lambda new: new.parameters[name].CopyFrom(value)

    nothing = lambda s: trials.AddTrialsRequest(parent=s.study)  # noqa: E731
    yield Row("add_nothing", "AddTrials", nothing, "trials")
    many = [trials.NewTrial(parameters=GOOD)] * 1_001
    yield Row("add_1001", "AddTrials", lambda s: trials.AddTrialsRequest(parent=s.study, trials=many), "trials")
    for name, value in BAD_REQUEST_IDS.items():
        request = lambda s, v=value: trials.AddTrialsRequest(parent=s.study, trials=many[:1], request_id=v)  # noqa: E731
        yield Row(f"add_request_id_{name}", "AddTrials", request, "request_id")
    for name, parameter, bad in _bad_values():
        yield row(name, put(parameter, bad), f"parameters[{parameter[:64]}]")
    yield row("omitted", lambda n: n.parameters.pop("x"), "parameters[x]")
    yield row("inactive", put("extra", real(0.5)), "parameters[extra]")
    yield row("missing_under_a_condition", put("kind", text("a")), "parameters[extra]")
    states = trials.Trial
    for name, state in (("active", states.STATE_ACTIVE), ("cancelled", states.STATE_CANCELLED), ("99", 99), ("-1", -1)):
        yield row(f"state_{name}", lambda n, v=state: _set(n, state=v), "state")
    yield row("succeeded_with_nothing", lambda n: _set(n, state=states.STATE_SUCCEEDED), "metrics[loss]")
    yield row("queued_with_metrics", lambda n: _set(n.metrics["loss"], value=1), "metrics")
    failed = lambda n: _set(n, state=states.STATE_FAILED) and _set(n.metrics["loss"], value=1)  # noqa: E731
    yield row("failed_with_metrics", failed, "metrics")
    yield row("queued_with_measurements", lambda n: n.measurements.append(_measurement(1)), "measurements")

    def measured(*steps: int) -> Callable[[trials.NewTrial], object]:
        taken = [_measurement(step) for step in steps]
        return lambda new: _set(new, state=states.STATE_STOPPED) and new.measurements.extend(taken)

    yield row("step_negative", measured(5, -1), "measurements[1].step")
    yield row("step_twice", measured(5, 4, 5), "measurements[2].step")
    for name, message in (("nul", "\0"), ("a_mebibyte", MEGABYTE)):
        failing = lambda n, v=message: _set(n, state=states.STATE_FAILED, message=v)  # noqa: E731
        yield row(f"message_{name}", failing, "message")
    for name, (notes, suffix) in BAD_NOTES.items():
        yield row(f"metadata_{name}", lambda n, v=notes: n.metadata.update(v), f"metadata{suffix}")


def beliefs() -> Iterator[Row]:
    def points(*changes: Callable[[Any], object]) -> Callable[[Scene], Message]:
        made = []
        for change in changes:
            point = space.Parameters(values=GOOD)
            change(point.values)
            made.append(point)
        return lambda scene: surrogates.PredictRequest(parent=scene.study, points=made)

    def same(_: Any) -> None: ...

    for name, study in BAD_STUDY_NAMES.items():
        for method in ("Predict", "Importance", "CrossValidate"):
            request = getattr(surrogates, f"{method}Request")
            yield Row(f"{method}_{name}", method, lambda _, r=request, n=study: r(parent=n), "parent")
    for method in ("Predict", "Importance", "CrossValidate"):
        request = getattr(surrogates, f"{method}Request")
        asked = {"points": [space.Parameters(values=GOOD)]} if method == "Predict" else {}
        yield Row(
            f"{method}_nowhere", method, lambda _, r=request, a=asked: r(parent=NO_STUDY, **a), "", StatusCode.NOT_FOUND
        )
        few = lambda s, r=request, a=asked: r(parent=s.study, **a)  # noqa: E731
        yield Row(f"{method}_too_few", method, few, "", StatusCode.FAILED_PRECONDITION, "TOO_FEW_OBSERVATIONS")
    yield Row("no_points", "Predict", points(), "points")
    yield Row("1001_points", "Predict", points(*[same] * 1_001), "points")
    yield Row("empty_point", "Predict", points(same, lambda v: list(map(v.pop, list(v)))), "points[1].values[x]")
    yield Row(
        "unknown_parameter", "Predict", points(lambda v: v["nobody"].CopyFrom(real(1))), "points[0].values[nobody]"
    )
    yield Row("out_of_range", "Predict", points(lambda v: v["x"].CopyFrom(real(1e9))), "points[0].values[x]")
    yield Row("no_value", "Predict", points(lambda v: v["x"].Clear()), "points[0].values[x]")
    unknown = lambda s: surrogates.ImportanceRequest(parent=s.study, method=99)  # noqa: E731
    yield Row("method_unknown", "Importance", unknown, "method")


ROWS = [
    row
    for table in (
        *(creations, parameters, choices, defaults, conditions, specs, changes, names, pages),
        *(asks, tells, out_of_turn, reports, renewals, additions, beliefs),
    )
    for row in table()
]


def test_the_table_names_each_row_once() -> None:
    assert len({(row.method, row.id) for row in ROWS}) == len(ROWS) > 400


@pytest.mark.parametrize("method", sorted({row.method for row in ROWS}))
def test_bad_input_is_refused_by_field_and_changes_nothing(method: str, place: Place, scene: Scene) -> None:
    before = place.dump()
    wrong = [problem for row in ROWS if row.method == method for problem in _problems(row, place, scene)]
    assert not wrong, "\n".join(wrong)
    assert place.dump() == before


def _problems(row: Row, place: Place, scene: Scene) -> Iterator[str]:
    request = row.request(scene)
    try:
        got = refusal(lambda: place.wire.call(row.method, request))
    except AssertionError as error:
        yield f"{row.method} {row.id}: {error}"
    else:
        if (got.code, got.field) != (row.code, row.field) or (row.reason and got.reason != row.reason):
            wanted = f"{row.code.name} {row.field[:100]!r} {row.reason}"
            yield f"{row.method} {row.id}: {got.code.name} {got.field[:100]!r} {got.reason} for {wanted}: {got.message[:200]}"


def test_a_result_that_is_wrong_in_itself_is_refused_alone_among_independent_ones_as_the_call_would_be(
    place: Place, scene: Scene
) -> None:
    study = place.wire.create("independent", small_study()).name
    mine, rival = (place.wire.one(study) for _ in range(2))
    own = replace(scene, study=study, mine=mine, rival=rival)
    rows = [row for row in tells() if row.field.startswith("results[1].") and "twice" not in row.id]
    assert "results[1].outcome" in {row.field for row in rows}
    for row in rows:
        request = row.request(own)
        whole_call = refusal(lambda request=request: place.wire.call("Tell", request))
        request.independent = True
        reply = place.wire.call("Tell", request)
        assert [trial.number for trial in reply.trials] == [rival.number], row.id
        assert [_refusal(each) for each in reply.refusals] == [(mine.number, whole_call)], row.id
    assert [trial.state for trial in place.wire.all_trials(study)] == [
        trials.Trial.STATE_ACTIVE,
        trials.Trial.STATE_SUCCEEDED,
    ]


def _refusal(one: trials.TellResponse.Refusal) -> tuple[int, Refusal]:
    code = next(status for status in StatusCode if status.value[0] == one.code)
    return one.number, Refusal(code, one.message, one.reason, one.field)


def test_a_lost_lease_is_an_answer_that_changes_nothing(place: Place, scene: Scene) -> None:
    before = place.dump()
    for token in ("t", scene.foreign.lease.token, _next(scene.rival), "'OR'1'='1"):
        report = trials.ReportRequest(name=scene.rival.name, lease_token=token, measurements=[_measurement(1)])
        assert place.wire.call("Report", report).directive == trials.DIRECTIVE_ABANDON
        renew = trials.RenewLeasesRequest(parent=scene.study, renewals=[_renewal(scene.rival.number, token)])
        (lease,) = place.wire.call("RenewLeases", renew).leases
        assert (lease.number, lease.directive) == (scene.rival.number, trials.DIRECTIVE_ABANDON)
        assert not lease.HasField("lease")
    nobody = trials.RenewLeasesRequest(parent=scene.study, renewals=[_renewal(2**62, "t")])
    assert place.wire.call("RenewLeases", nobody).leases[0].directive == trials.DIRECTIVE_ABANDON
    assert place.dump() == before


def test_repetitions_change_nothing(place: Place, scene: Scene) -> None:
    wire = place.wire
    before = place.dump()
    again = trials.TellRequest(parent=scene.study, results=[_result(scene.ended.number, scene.ended.lease.token)])
    assert wire.call("Tell", again).trials[0].metrics["loss"].value == 0.5
    cancelled = wire.call("CancelTrial", trials.CancelTrialRequest(name=scene.cancelled.name))
    assert cancelled.state == trials.Trial.STATE_CANCELLED
    same = studies.CreateStudyRequest(parent="projects/p", study_id="scene", study=study_message())
    assert wire.call("CreateStudy", same).name == scene.study
    assert place.dump() == before


def test_a_finished_study_answers_that_it_is_finished(place: Place) -> None:
    name = place.wire.create("finished", small_study()).name
    finished = studies.Study(name=name, state=studies.Study.STATE_FINISHED)
    place.wire.call("UpdateStudy", studies.UpdateStudyRequest(study=finished, update_mask=FieldMask(paths=["state"])))
    before = place.dump()
    answer = place.wire.ask(name)
    assert (answer.reason, answer.study_state) == (trials.AskResponse.REASON_FINISHED, trials.AskResponse.STATE_CLOSED)
    assert not answer.trials
    assert not answer.HasField("retry_after")
    assert place.dump() == before
