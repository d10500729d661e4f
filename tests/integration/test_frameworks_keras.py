"""The callback for Keras: what it reports, when it stops, and how it goes on."""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from asktell import client as at
from asktell.integrations.keras import AskTellCallback
from tests.trainings import WorkersTrial, new_study, one_thread, state, steps, study_that_stops_above  # noqa: F401 - a fixture.

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

INPUTS = np.random.default_rng(1).normal(size=(32, 4)).astype("float32")
LABELS = INPUTS.sum(1, keepdims=True)


def network(learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 0.1) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(learning_rate, momentum=0.9), loss="mse")
    return model


def fit(asktell: AskTellCallback, model: keras.Model, *, epochs: int, validate: bool = True, **options) -> list[int]:
    """The epochs that were trained, from 1."""
    options = {"initial_epoch": asktell.initial_epoch, "callbacks": [asktell]} | options
    data = (INPUTS, LABELS) if validate else None
    history = model.fit(
        INPUTS, LABELS, batch_size=8, shuffle=False, verbose=0, epochs=epochs, validation_data=data, **options
    )
    return [epoch + 1 for epoch in history.epoch]


def test_every_epoch_is_reported(client: at.Client) -> None:
    study = new_study(client)
    trial = study.ask()[0]
    model = network()
    fit(AskTellCallback(trial, {"loss": "val_loss", "training_loss": "loss"}), model, epochs=3)
    measurements = study.get_trial(trial.number).measurements
    assert [each.step for each in measurements] == [1, 2, 3]
    assert measurements[-1].metrics["loss"].value == pytest.approx(model.evaluate(INPUTS, LABELS, verbose=0), rel=1e-5)
    assert set(measurements[0].metrics) == {"loss", "training_loss"}


def test_the_training_stops_after_the_epoch_that_the_service_stops(client: at.Client) -> None:
    study = study_that_stops_above(client, 10)
    with study.ask()[0] as trial:
        diverge = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: logs.update(bad=99 if epoch == 2 else 1)
        )
        asktell = AskTellCallback(trial, {"loss": "bad"})
        assert fit(asktell, network(), epochs=5, callbacks=[diverge, asktell]) == [1, 2, 3]
        trial.tell(loss=1)
    assert steps(study, trial) == [1, 2, 3]
    assert state(study, trial) is at.TrialState.STOPPED


def test_a_lost_lease_stops_the_training(client: at.Client) -> None:
    study = new_study(client)
    trial = study.ask()[0]
    study.get_trial(trial.number).cancel()
    assert fit(AskTellCallback(trial, "loss"), network(), epochs=5) == [1]
    assert trial.lost


def test_epochs_without_a_validation_are_not_reported(client: at.Client) -> None:
    study = new_study(client)
    trial = study.ask()[0]
    fit(AskTellCallback(trial, {"loss": "val_loss"}), network(), epochs=4, validation_freq=2)
    assert steps(study, trial) == [2, 4]


@pytest.mark.parametrize(
    ("metrics", "validate", "complaint"),
    [
        ({"loss": "val_los"}, True, r"metrics\['loss'\]: the framework has no metric 'val_los', but loss, val_loss"),
        ({"val_loss": "score"}, True, "it seems to be the other way round"),
        ({"loss": "val_loss"}, False, "no metric 'val_loss', but loss"),
    ],
)
def test_a_metric_that_is_not_logged_is_named_with_those_that_are(
    client: at.Client, metrics: dict, validate: bool, complaint: str
) -> None:
    trial = new_study(client).ask()[0]
    with pytest.raises(at.InvalidArgument, match=complaint):
        fit(AskTellCallback(trial, metrics), network(), epochs=2, validate=validate)


class Crash(keras.callbacks.Callback):
    """Breaks the training in the midst of an epoch."""

    def on_epoch_begin(self, epoch, logs=None) -> None:
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None) -> None:
        if (self.epoch, batch) == (3, 2):
            raise RuntimeError("the machine went away")


def weights(model: keras.Model) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(variable) for variable in [*model.variables, *model.optimizer.variables]]


def test_a_training_that_was_cut_off_goes_on_to_the_very_same_weights(client: at.Client, tmp_path: Path) -> None:
    whole = network()
    fit(AskTellCallback(WorkersTrial(1, tmp_path / "other"), "loss"), whole, epochs=6)
    study = new_study(client, max_attempts=2)
    first = study.ask()[0]
    asktell = AskTellCallback(first, "loss", checkpoints=tmp_path)
    with pytest.raises(RuntimeError, match="the machine went away"):
        fit(asktell, network(), epochs=6, callbacks=[asktell, Crash()])
    first.fail("the machine went away", retry=True)
    second = study.ask()[0]
    resumed = network()
    assert fit(AskTellCallback(second, "loss", checkpoints=tmp_path), resumed, epochs=6) == [4, 5, 6]
    assert steps(study, second) == [1, 2, 3, 4, 5, 6]
    assert all(map(np.array_equal, weights(resumed), weights(whole)))


def test_one_checkpoint_is_kept_and_a_broken_write_counts_for_nothing(tmp_path: Path) -> None:
    trial = WorkersTrial(3, tmp_path)
    fit(AskTellCallback(trial, "loss"), network(), epochs=2)
    (tmp_path / "part.weights.h5").write_bytes(b"cut off")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keras-trial-3-epoch-2.weights.h5", "part.weights.h5"]
    assert AskTellCallback(trial, "loss").initial_epoch == 2


def test_a_checkpoint_needs_the_initial_epoch(tmp_path: Path) -> None:
    trial = WorkersTrial(1, tmp_path)
    fit(AskTellCallback(trial, "loss"), network(), epochs=2)
    with pytest.raises(at.FailedPrecondition, match="2 epochs behind it"):
        fit(AskTellCallback(trial, "loss"), network(), epochs=4, initial_epoch=0)


def test_a_trial_that_goes_on_from_its_parent_has_its_own_learning_rate(tmp_path: Path) -> None:
    parent = WorkersTrial(1, tmp_path / "1")
    fit(AskTellCallback(parent, "loss"), network(0.1), epochs=2)
    child = parent.child(2, tmp_path / "2")
    model = network(0.01)
    assert fit(AskTellCallback(child, "loss"), model, epochs=3) == [3]
    assert float(model.optimizer.learning_rate) == pytest.approx(0.01)
    again = network(0.5)
    fit(AskTellCallback(child, "loss"), again, epochs=4)
    assert float(again.optimizer.learning_rate) == pytest.approx(0.01)


def test_epochs_after_the_parent_are_counted_from_where_it_stood_in_each_attempt(tmp_path: Path) -> None:
    def trained(trial: WorkersTrial, *, cut_after: int = 9) -> list[int]:
        asktell = AskTellCallback(trial, "loss")
        return fit(asktell, network(0.1), epochs=min(asktell.after_parent(2), cut_after))

    parent = WorkersTrial(1, tmp_path / "1")
    assert trained(parent) == [1, 2]
    child = parent.child(2, tmp_path / "2")
    assert trained(child, cut_after=3) == [3]
    assert trained(child) == [4]
    assert trained(child) == []
    assert trained(child.child(3, tmp_path / "3")) == [5, 6]


def test_a_learning_rate_by_schedule_stays_a_schedule(tmp_path: Path) -> None:
    trial = WorkersTrial(1, tmp_path)
    fit(AskTellCallback(trial, "loss"), network(keras.optimizers.schedules.ExponentialDecay(0.1, 4, 0.5)), epochs=2)
    model = network(keras.optimizers.schedules.ExponentialDecay(0.1, 4, 0.5))
    fit(AskTellCallback(trial, "loss"), model, epochs=3)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.1 * 0.5**3)


def test_a_training_that_was_cut_off_after_its_last_epoch_has_its_weights_and_complains_of_nothing(
    tmp_path: Path,
) -> None:
    trial = WorkersTrial(1, tmp_path)
    model, again = network(), network()
    fit(AskTellCallback(trial, {"loss": "val_loss"}), model, epochs=2)
    assert fit(AskTellCallback(trial, {"loss": "val_loss"}), again, epochs=2) == []
    assert all(map(np.array_equal, weights(again), weights(model)))


def test_a_backend_that_is_not_there_is_not_taken_for_keras_itself() -> None:
    program = "import sys; sys.modules['tensorflow'] = None; import asktell.integrations.keras"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "MissingExtra: Keras computes with a library that is not there: set KERAS_BACKEND" in done.stderr
