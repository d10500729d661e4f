"""Pictures of studies from Python: what is drawn, of studies on a real server."""

from __future__ import annotations

import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import pytest
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import same_color
from matplotlib.figure import Figure

from asktell import client as at
from asktell.client import FinishedTrial, Measurement, MetricValue, TrialState, aio
from asktell.client.plots.canvas import BLUE, GREY, ORANGE, PALE, RED

SPACE = [
    at.Float("rate", 1e-5, 1e-1, log=True),
    at.Categorical("optimizer", ["adam", "sgd"]),
    at.Float("momentum", 0.0, 0.99, when=("optimizer", ["sgd"])),
    at.Int("width", 16, 1024, log=True),
]
PNG = b"\x89PNG"


def trial(place: int, state: TrialState = TrialState.SUCCEEDED, *, steps: int = 5) -> FinishedTrial:
    """The trial at a place, the better the later; its curve ends at its loss."""
    optimizer = ("sgd", "adam")[place % 2]
    parameters = {"rate": 10 ** (-5 + 4 * (place % 7) / 6), "optimizer": optimizer, "width": 2 ** (4 + place % 7)}
    if optimizer == "sgd":
        parameters["momentum"] = 0.1 * (place % 9)
    loss = 2.0 - 0.05 * place + 0.1 * (place % 3)
    curve = [Measurement(step, {"loss": MetricValue(loss + 1 / step - 1 / steps)}) for step in range(1, steps + 1)]
    told = {"loss": loss} if state in (TrialState.SUCCEEDED, TrialState.STOPPED) else {}
    message = "" if told else "broke"
    return FinishedTrial(parameters=parameters, state=state, metrics=told, measurements=curve, message=message)


@pytest.fixture
def told(client: at.Client) -> at.Study:
    """Twelve that succeeded, three stopped early, two failed, one infeasible, one stopped with nothing; one active."""
    study = client.create_study("told", parameters=SPACE, objectives=[at.Minimize("loss")], policy="random")
    study.import_trials(
        [
            *(trial(place) for place in range(12)),
            *(trial(place, TrialState.STOPPED, steps=2) for place in range(3)),
            *(trial(place, TrialState.FAILED, steps=1) for place in range(2)),
            trial(5, TrialState.INFEASIBLE, steps=1),
            FinishedTrial(parameters=trial(1).parameters, state=TrialState.STOPPED),
        ]
    )
    study.ask()
    return study


def words(figure: Figure) -> list[str]:
    """What stands in the legend, which lies outside of all axes."""
    assert all(axes.get_legend() is None for axes in figure.axes)
    figure.draw_without_rendering()
    (box,) = figure.legends
    assert not any(box.get_window_extent().overlaps(axes.get_window_extent()) for axes in figure.axes)
    return [text.get_text() for text in box.get_texts()]


def title(figure: Figure) -> str:
    return figure.get_suptitle().replace("\n", " ")


def dots(figure: Figure, label: str) -> PathCollection:
    (found,) = [
        each
        for axes in figure.axes
        for each in axes.collections
        if isinstance(each, PathCollection) and str(each.get_label()).startswith(label)
    ]
    return found


def inside(figure: Figure) -> bool:
    """Whether all words lie on the figure, and none of an axis on the title."""
    figure.draw_without_rendering()
    edge = figure.bbox.padded(1)
    head = figure._suptitle.get_window_extent()
    texts = [text for axes in figure.axes for text in (axes.xaxis.label, axes.yaxis.label, axes.title)]
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    return all(
        edge.x0 <= box.x0 and box.x1 <= edge.x1 and edge.y0 <= box.y0 and box.y1 <= edge.y1 and not box.overlaps(head)
        for box in boxes
    )


@pytest.mark.parametrize(
    ("losses", "scale"), [((0.5, 0.2, 3e6), "log"), ((0.5, 0.2, 9.0), "linear"), ((0.5, -0.2, 3e6), "linear")]
)
def test_one_trial_that_diverged_does_not_flatten_the_course(client: at.Client, losses, scale) -> None:
    study = client.create_study("course", parameters=[at.Float("x", 0, 1)], objectives=[at.Minimize("loss")])
    study.import_trials([FinishedTrial(parameters={"x": 0.1}, metrics={"loss": loss}) for loss in losses])
    (axes,) = study.plot().axes
    assert axes.get_yscale() == scale


def test_the_course_shows_every_trial_and_names_each_kind_once(told: at.Study) -> None:
    figure = told.plot()
    assert title(figure) == "told: 20 trials, 1 active"
    assert words(figure) == [
        "stopped early (3)",
        "succeeded (12)",
        "best: 1.55",
        "failed (2)",
        "infeasible (1)",
        "without a finite value (1)",
    ]
    stopped, succeeded = dots(figure, "stopped early"), dots(figure, "succeeded")
    assert [int(x) for x, _ in stopped.get_offsets()] == [13, 14, 15]
    assert [y for _, y in stopped.get_offsets()] == [told.get_trial(number).value() for number in (13, 14, 15)]
    assert len(stopped.get_facecolor()) == 0
    assert len(succeeded.get_offsets()) == 12
    (failed,) = [line for line in figure.axes[0].lines if same_color(line.get_color(), RED)]
    assert [int(x) for x in failed.get_xdata()] == [16, 17]
    assert inside(figure)


def test_what_there_is_none_of_is_not_in_the_legend(client: at.Client) -> None:
    study = client.create_study("plain", parameters=SPACE, objectives=[at.Minimize("loss")])
    study.import_trials([trial(0)])
    assert words(study.plot()) == ["succeeded (1)", "best: 2"]
    assert title(study.plot()) == "plain: 1 trial"


def test_a_study_without_trials_says_so(client: at.Client) -> None:
    study = client.create_study("new", parameters=SPACE, objectives=[at.Minimize("loss")])
    with pytest.raises(at.FailedPrecondition, match="new has no trials yet"):
        study.plot()
    with pytest.raises(at.FailedPrecondition, match="has no best trial yet"):
        study.plot_slices()


def test_curves_are_one_line_a_trial_and_the_best_stands_out(told: at.Study) -> None:
    figure = told.plot_curves()
    assert title(figure) == "told: 18 of 20 trials by step"
    assert words(figure) == ["stopped early (3)", "failed (3)", "succeeded (11)", "best: trial 10"]
    lines = {str(each.get_label()): each for each in figure.axes[0].collections if isinstance(each, LineCollection)}
    assert {label: len(each.get_segments()) for label, each in lines.items()} == {
        "stopped early (3)": 3,
        "failed (3)": 3,
        "succeeded (11)": 11,
        "best: trial 10": 1,
    }
    assert same_color(lines["stopped early (3)"].get_colors()[0][:3], PALE)
    (best,) = lines["best: trial 10"].get_segments()
    assert [tuple(point) for point in best] == [
        (each.step, each.metrics["loss"].value) for each in told.get_trial(10).measurements
    ]
    assert figure.axes[0].get_ylabel() == "loss (minimize)"
    with pytest.raises(at.FailedPrecondition, match="no trial of study 'told' reported 'accuracy'; they reported loss"):
        told.plot_curves(metric="accuracy")


def test_parallel_coordinates_have_a_line_a_trial_and_a_place_for_what_is_inactive(told: at.Study) -> None:
    figure = told.plot_parallel()
    (axes,) = figure.axes
    assert title(figure) == "told: 12 trials of 20 with a result"
    names = [text.get_text().replace("\n", "") for text in axes.get_xticklabels()]
    assert names == ["rate", "optimizer", "momentum", "width", "loss (minimize)"]
    every, best = (each for each in axes.collections if isinstance(each, LineCollection))
    assert len(every.get_segments()) == 12
    (line,) = best.get_segments()
    assert [list(point) for point in line] in [[list(point) for point in each] for each in every.get_segments()]
    assert same_color(best.get_colors()[0], ORANGE)
    lowest = [segment[2][1] for segment in every.get_segments() if segment[1][1] == 0.0]  # momentum under adam
    assert len(lowest) == 6
    assert all(height < 0.0 for height in lowest)
    assert {"inactive", "adam", "sgd", "16", "1024"} <= {text.get_text() for text in axes.texts}
    assert words(figure) == ["a trial: the darker, the better", "best"]


def test_slices_draw_the_trials_and_a_parameter_that_others_depend_on(told: at.Study) -> None:
    point = {"rate": 1e-3, "optimizer": "adam", "width": 128}
    figure = told.plot_slices(point)
    labels = [axes.get_xlabel() for axes in figure.axes]
    assert labels == ["rate", "optimizer\nwith momentum=0.495", "width"]
    assert title(figure) == "told: expected around rate=0.001, optimizer=adam, width=128"
    points = [
        next(line for line in axes.lines if line.get_marker() == "o" and same_color(line.get_color(), GREY))
        for axes in figure.axes
    ]
    assert [len(line.get_xdata()) for line in points] == [12, 12, 12]
    expected = told.predict([{**point, "optimizer": "sgd", "momentum": 0.495}])[0]["loss"].mean
    (mean,) = [
        line
        for line in figure.axes[1].lines
        if line.get_marker() == "o" and same_color(line.get_color(), BLUE) and len(line.get_xdata()) == 1
    ]
    assert list(mean.get_ydata()) == [pytest.approx(expected)]


def test_slices_of_a_trial_are_around_its_values_and_along_what_is_wanted(told: at.Study) -> None:
    figure = told.plot_slices(1, along=["width", "rate"])
    assert [axes.get_xlabel() for axes in figure.axes] == ["width", "rate"]
    assert title(figure) == "told: expected around trial 1"
    with pytest.raises(at.InvalidArgument, match="rat: is no parameter of the study; there are: rate,"):
        told.plot_slices(along=["rat"])
    with pytest.raises(at.FailedPrecondition, match="there is nothing to draw along"):
        told.plot_slices(2, along=["momentum"])


def test_what_lies_beyond_the_edge_of_slices_is_counted_once_however_many_panels_there_are(client: at.Client) -> None:
    study = client.create_study(
        "diverged",
        parameters=[at.Float("a", 0, 1), at.Float("b", 0, 1), at.Float("c", 0, 1)],
        objectives=[at.Minimize("loss")],
    )
    losses = [0.1 * place for place in range(10)]
    study.import_trials(
        [
            FinishedTrial(parameters={"a": each, "b": 1 - each, "c": (7 * each) % 1}, metrics={"loss": loss})
            for each, loss in zip((0.1 * place for place in range(11)), [*losses, 1e9], strict=True)
        ]
    )
    assert "trials that succeeded, whatever their other values, 1 beyond the edge" in words(study.plot_slices())


def test_results_of_seven_digits_have_room_beside_each_other(client: at.Client) -> None:
    study = client.create_study("large", parameters=[at.Float("x", 0, 1)], objectives=[at.Minimize("loss")])
    study.import_trials(
        [FinishedTrial(parameters={"x": x / 10}, metrics={"loss": 670_000.0 * x / 10}) for x in range(11)]
    )
    figure = study.plot_validation()
    figure.draw_without_rendering()
    low, high = figure.axes[0].get_xlim()
    boxes = [
        text.get_window_extent()
        for at_, text in zip(figure.axes[0].get_xticks(), figure.axes[0].get_xticklabels(), strict=True)
        if low <= at_ <= high
    ]
    assert len(boxes) > 2
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_without_a_finite_result_there_are_no_lines_and_no_ticks(client: at.Client) -> None:
    study = client.create_study("endless", parameters=SPACE, objectives=[at.Minimize("loss"), at.Minimize("time")])
    (active,) = study.ask()
    active.tell(loss=math.inf, time=1.0)
    with pytest.raises(
        at.FailedPrecondition, match="no trial of study 'endless' has succeeded yet with finite results"
    ):
        study.plot_parallel()
    (axes,) = study.plot_front().axes
    assert (*axes.get_xticks(), *axes.get_yticks()) == ()


def test_the_hypervolume_of_one_trial_stands_at_whole_numbers(client: at.Client) -> None:
    study = client.create_study("single", parameters=SPACE, objectives=[at.Minimize("loss"), at.Minimize("time")])
    study.import_trials([FinishedTrial(parameters=trial(1).parameters, metrics={"loss": 1.0, "time": 2.0})])
    figure = study.plot_front()
    figure.draw_without_rendering()
    assert [text.get_text() for text in figure.axes[1].get_xticklabels()] == ["0", "1", "2"]


def wide(client: at.Client, count: int, *, objectives: int = 1) -> at.Study:
    """A study of many parameters with long names, some of many long choices, and metrics with long names."""
    names = [f"model.encoder.block_{place}.learning_rate" for place in range(count - 1)]
    choices = ["sgd", "adam", "rmsprop", "adamw-with-a-rather-long-name-$x$", "lion"]
    metrics = [f"validation_cross_entropy_loss_per_token_{place}" for place in range(objectives)]
    study = client.create_study(
        f"wide-study-with-a-rather-long-name-{count}",
        parameters=[*(at.Float(name, 0.0, 1.0) for name in names), at.Categorical("optimizer", choices)],
        objectives=[at.Minimize(metric) for metric in metrics],
    )
    study.import_trials(
        [
            FinishedTrial(
                parameters={
                    **{name: (place * (rank + 3)) % 11 / 11 for rank, name in enumerate(names)},
                    "optimizer": choices[place % 5],
                },
                metrics={metric: float((place * (rank + 2)) % 7) for rank, metric in enumerate(metrics)},
            )
            for place in range(12)
        ]
    )
    return study


@pytest.mark.parametrize(
    ("count", "objectives", "grid"), [(1, 1, (1, 1)), (4, 1, (1, 4)), (12, 1, (3, 4)), (5, 2, (4, 4))]
)
def test_slices_stand_four_in_a_row(client: at.Client, count: int, objectives: int, grid: tuple[int, int]) -> None:
    figure = wide(client, count, objectives=objectives).plot_slices()
    rows, columns = grid
    assert tuple(figure.axes[0].get_gridspec().get_geometry()) == grid
    assert sum(axes.axison for axes in figure.axes) == count * objectives
    width, height = figure.get_size_inches()
    assert width <= 3.6 * 4 + 0.1
    assert 3.1 * rows <= height <= 4.6 * rows
    assert min(axes.get_window_extent().height for axes in figure.axes) >= 0.6 * 3.1 * figure.dpi
    assert inside(figure)
    labels = [text for axes in figure.axes for text in axes.get_xticklabels() if text.get_text().startswith("adamw")]
    assert {len(text.get_text()) for text in labels} == {18}
    assert columns == min(count, 4)


@pytest.mark.parametrize("name", ["plot", "plot_parallel", "plot_contour", "plot_importance", "plot_validation"])
def test_long_names_stay_on_the_figure_and_off_the_title(client: at.Client, name: str) -> None:
    figure = getattr(wide(client, 12), name)()
    assert inside(figure)
    assert figure.get_figwidth() <= 20.0


def test_a_contour_has_the_mean_with_the_trials_and_the_deviation(told: at.Study) -> None:
    figure = told.plot_contour("rate", "width", around=1)
    mean, deviation, *bars = figure.axes
    assert (mean.get_title(loc="left"), deviation.get_title(loc="left"), len(bars)) == ("mean", "standard deviation", 2)
    assert (mean.get_xlabel(), mean.get_ylabel()) == ("rate", "width")
    assert (mean.get_xscale(), mean.get_yscale()) == ("log", "log")
    assert [text.get_text() for text in mean.get_yticklabels()] == ["16", "32", "64", "128", "256", "512", "1024"]
    assert words(figure) == ["trials with a result (12)", "trial 1"]
    (offsets,) = [
        each.get_offsets() for each in mean.collections if str(each.get_label()).startswith("trials with a result")
    ]
    assert len(offsets) == 12
    start = told.get_trial(1).parameters
    (cross,) = [line for line in mean.lines if line.get_marker() == "X"]
    assert (cross.get_xdata()[0], cross.get_ydata()[0]) == (start["rate"], start["width"])


def test_a_contour_of_a_choice_is_blank_where_the_other_parameter_is_inactive(told: at.Study) -> None:
    figure = told.plot_contour("momentum", "optimizer", around=1)
    cells = figure.axes[0].collections[0].get_array()
    assert cells.shape == (2, 25)
    assert cells.mask[0].all()
    assert not cells.mask[1].any()
    point = {**told.get_trial(1).parameters, "momentum": 0.0}
    assert cells[1][0] == pytest.approx(told.predict([point])[0]["loss"].mean)


def test_a_contour_takes_the_two_parameters_that_matter_most(told: at.Study) -> None:
    figure = told.plot_contour()
    most = [name for name in told.importance()["loss"] if name in told.best_trial.parameters][:2]
    assert [figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()] == most
    with pytest.raises(at.InvalidArgument, match="give two parameters, or none"):
        told.plot_contour("rate")
    with pytest.raises(at.InvalidArgument, match="'speed' has no surrogate; there are: loss"):
        told.plot_contour("rate", "width", metric="speed")


def test_what_constraints_forbid_stays_blank(client: at.Client) -> None:
    study = client.create_study(
        "bound",
        parameters=[at.Float("a", 0, 1), at.Float("b", 0, 1)],
        constraints=["a + b <= 1"],
        objectives=[at.Minimize("loss")],
    )
    study.import_trials(
        [FinishedTrial(parameters={"a": a, "b": 0.5 - a}, metrics={"loss": a}) for a in (0.1, 0.2, 0.4)]
    )
    first, second = study.plot_slices({"a": 0.25, "b": 0.5}).axes
    ends = [max(axes.lines[1].get_xdata()) for axes in (first, second)]
    assert ends == [0.5, 0.75]
    figure = study.plot_contour("a", "b")
    assert len(figure.axes) == 4


def front(client: at.Client, count: int) -> at.Study:
    study = client.create_study(
        "front", parameters=[at.Float("x", 0, 1)], objectives=[at.Minimize(f"m{place}") for place in range(count)]
    )
    study.import_trials(
        [
            *(
                FinishedTrial(
                    parameters={"x": place / 12},
                    metrics={f"m{rank}": float((7 * place + 3 * rank) % 11) for rank in range(count)},
                )
                for place in range(12)
            ),
            FinishedTrial(parameters={"x": 0.5}, state=TrialState.FAILED, message="broke"),
        ]
    )
    return study


@pytest.mark.parametrize(("count", "panels"), [(2, 2), (3, 4)])
def test_the_legend_of_a_front_lies_outside_of_its_points(client: at.Client, count: int, panels: int) -> None:
    study = front(client, count)
    figure = study.plot_front()
    optimal = len(study.optimal_trials())
    assert title(figure) == f"front: {optimal} of 13 trials on the front, 1 failed"
    assert len(figure.axes) == panels
    assert f"front ({optimal})" in words(figure)
    assert title(study.plot()) == title(figure)
    assert len(study.plot_parallel().axes[0].get_xticklabels()) == 1 + count
    (orange,) = [each for each in figure.axes[0].collections if str(each.get_label()).startswith("front")]
    assert len(orange.get_offsets()) == optimal


def test_one_objective_has_no_front(told: at.Study) -> None:
    with pytest.raises(at.FailedPrecondition, match="study 'told' has one objective, and so no front: see plot"):
        told.plot_front()


def test_a_thousand_trials_are_all_drawn(client: at.Client) -> None:
    study = client.create_study("thousand", parameters=SPACE, objectives=[at.Minimize("loss")])
    states = [TrialState.SUCCEEDED, TrialState.STOPPED]
    study.import_trials(trial(place, states[place % 2], steps=2 + place % 5) for place in range(1000))
    assert words(study.plot())[:2] == ["stopped early (500)", "succeeded (500)"]
    assert words(study.plot_curves())[:2] == ["stopped early (500)", "succeeded (499)"]
    assert len(study.plot_parallel().axes[0].collections[0].get_segments()) == 500


def test_importance_and_validation_are_pictures_of_what_they_say(told: at.Study) -> None:
    (bars,) = told.plot_importance(method="ped-anova").axes
    shares = told.importance(method="ped-anova")["loss"]
    assert [bar.get_width() for bar in bars.patches] == list(shares.values())
    assert [text.get_text() for text in bars.get_yticklabels()] == list(shares)
    scatter, calibration = told.plot_validation().axes
    assert scatter.get_title(loc="left") == "loss: 15 trials"  # the surrogate learns from those that were stopped too
    assert calibration.get_title(loc="left") == "calibration"


def test_a_lineage_is_drawn_among_all_trainings(client: at.Client) -> None:
    study = client.create_study(
        "raised",
        parameters=[at.Float("rate", 1e-5, 1e-1, log=True), at.Int("epochs", 1, 81, log=True)],
        objectives=[at.Minimize("loss")],
        fidelity=at.Fidelity("epochs"),
        policy="random",
        seed=2,
    )
    for place, each in enumerate(study.ask(3)):
        each.tell(loss=float(place), checkpoint_uri=f"file:///{place}")
    study.ask()[0].tell(loss=0.5)
    figure = study.plot_lineage()
    assert title(figure) == "raised: the schedule of trial 4"
    assert [axes.get_ylabel() for axes in figure.axes] == ["rate", "epochs", "loss (minimize)"]
    assert title(study.plot_lineage(2)) == "raised: the schedule of trial 2"


def test_a_notebook_shows_a_figure_and_a_file_has_it(told: at.Study, tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    figure = told.plot()
    assert isinstance(figure, Figure)
    content, size = figure._repr_png_()
    assert content.startswith(PNG)
    assert size == {"width": 840, "height": 420}
    for ending, magic in ((".png", PNG), (".svg", b"<?xml"), (".pdf", b"%PDF")):
        figure.savefig(tmp_path / f"course{ending}")
        assert (tmp_path / f"course{ending}").read_bytes().startswith(magic)
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize(
    "name",
    [
        "plot",
        "plot_curves",
        "plot_parallel",
        "plot_slices",
        "plot_contour",
        "plot_importance",
        "plot_validation",
        "plot_lineage",
    ],
)
async def test_asyncio_draws_the_same(told: at.Study, client: at.Client, name: str) -> None:
    async with aio.Client(client.target, project=client.project) as asynchronous:
        theirs = await getattr(await asynchronous.get_study("told"), name)()
        ours = getattr(told, name)()
        assert title(theirs) == title(ours)
        assert [str(axes.get_xlabel()) for axes in theirs.axes] == [str(axes.get_xlabel()) for axes in ours.axes]
        assert [len(axes.get_children()) for axes in theirs.axes] == [len(axes.get_children()) for axes in ours.axes]
        with pytest.raises(at.FailedPrecondition, match="no front"):
            await (await asynchronous.get_study("told")).plot_front()


def test_without_matplotlib_the_extra_is_named_before_anything_is_asked() -> None:
    program = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from asktell.client import pictures, MissingExtra\n"
        "from asktell.client.drawn import DrawnStudy\n"
        "class Study(DrawnStudy):\n"
        "    def _answer(self, call): raise AssertionError(call)\n"
        "for name in [name for name in vars(DrawnStudy) if name.startswith('plot')]:\n"
        "    try: getattr(Study(None), name)()\n"
        "    except MissingExtra as error: print(name, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 9
    assert all("pictures need the plot extra: pip install 'asktell[plot]'" in line for line in lines)


def test_results_over_decades_are_drawn_on_a_log_scale(client: at.Client) -> None:
    study = client.create_study("decades", parameters=[at.Float("x", 0, 1)], objectives=[at.Minimize("loss")])
    curve = [Measurement(step, {"loss": MetricValue(math.exp(-step))}) for step in range(1, 9)]
    study.import_trials([FinishedTrial(parameters={"x": 0.5}, metrics={"loss": 0.1}, measurements=curve)])
    assert study.plot_curves().axes[0].get_yscale() == "log"
