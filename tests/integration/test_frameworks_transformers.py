"""The callback for the Trainer of transformers: what it reports, when it stops, and how it goes on."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import json
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments

from asktell import client as at
from asktell.integrations.transformers import AskTellCallback
from tests.trainings import (
    WorkersTrial,
    new_study,
    on_each_device,
    one_thread,  # noqa: F401 - a fixture.
    state,
    steps,
    study_that_stops_above,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

TOKENS = torch.randint(0, 16, (32, 6), generator=torch.Generator().manual_seed(1))
DATA = [{"input_ids": tokens, "labels": int(tokens.sum() > 45)} for tokens in TOKENS]


def network(**_) -> BertForSequenceClassification:
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    return BertForSequenceClassification(BertConfig(vocab_size=16, num_labels=2, **sizes))


def trainer(asktell: AskTellCallback, tmp_path: Path, *, epochs: float, also=(), evaluation=DATA, **options) -> Trainer:
    arguments = {
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-2,
        "num_train_epochs": epochs,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "logging_strategy": "no",
    }
    return Trainer(
        network(),
        TrainingArguments(asktell.output_dir(tmp_path / "elsewhere"), **arguments | options),
        train_dataset=DATA,
        eval_dataset=evaluation,
        callbacks=[asktell, *also],
        compute_metrics=lambda predicted: {"accuracy": (predicted.predictions.argmax(1) == predicted.label_ids).mean()},
    )


def train(asktell: AskTellCallback, tmp_path: Path, **options) -> Trainer:
    trained = trainer(asktell, tmp_path, **options)
    trained.train(resume_from_checkpoint=asktell.checkpoint)
    return trained


def test_every_evaluation_in_training_is_reported_and_no_other(client: at.Client, tmp_path: Path) -> None:
    study = new_study(client)
    trial = study.ask()[0]
    trained = trainer(AskTellCallback(trial, {"loss": "eval_loss", "accuracy": "accuracy"}), tmp_path, epochs=2)
    trained.evaluate()
    trained.train()
    last = trained.evaluate()
    measurements = study.get_trial(trial.number).measurements
    assert [each.step for each in measurements] == [1, 2]
    for name in ("loss", "accuracy"):
        assert measurements[-1].metrics[name].value == pytest.approx(last[f"eval_{name}"])


def test_evaluations_by_steps_are_counted_by_steps(client: at.Client, tmp_path: Path) -> None:
    study = new_study(client)
    trial = study.ask()[0]
    train(AskTellCallback(trial, "loss"), tmp_path, epochs=2, eval_strategy="steps", eval_steps=3, save_strategy="no")
    # And once at the end.
    assert steps(study, trial) == [3, 6, 8]


def test_metrics_of_several_evaluation_sets_are_one_report(client: at.Client, tmp_path: Path) -> None:
    study = new_study(client)
    trial = study.ask()[0]
    metrics = {"loss": "eval_near_loss", "far": "eval_far_loss"}
    train(AskTellCallback(trial, metrics), tmp_path, epochs=2, evaluation={"near": DATA[:8], "far": DATA[8:]})
    assert [set(each.metrics) for each in study.get_trial(trial.number).measurements] == [{"loss", "far"}] * 2


class Worsen(TrainerCallback):
    """Makes the loss of an epoch bad, before it is reported."""

    def on_evaluate(self, args, state, control, metrics, **kwargs) -> None:
        metrics["eval_bad"] = 99 if round(state.epoch) == 3 else 1


def test_the_trainer_stops_after_the_epoch_that_the_service_stops(client: at.Client, tmp_path: Path) -> None:
    study = study_that_stops_above(client, 10)
    with study.ask()[0] as trial:
        asktell = AskTellCallback(trial, {"loss": "eval_bad"})
        trained = trainer(asktell, tmp_path, epochs=5)
        trained.remove_callback(asktell)
        trained.add_callback(Worsen())
        trained.add_callback(asktell)
        trained.train()
        trial.tell(loss=1)
    assert trained.state.epoch == 3
    assert steps(study, trial) == [1, 2, 3]
    assert state(study, trial) is at.TrialState.STOPPED


def test_a_lost_lease_stops_the_trainer(client: at.Client, tmp_path: Path) -> None:
    study = new_study(client)
    trial = study.ask()[0]
    study.get_trial(trial.number).cancel()
    assert train(AskTellCallback(trial, "loss"), tmp_path, epochs=5).state.epoch == 1
    assert trial.lost


@pytest.mark.parametrize(
    ("metrics", "complaint"),
    [
        ({"loss": "eval_los"}, r"metrics\['loss'\]: the framework has no metric 'eval_los', but accuracy, .*eval_loss"),
        ({"eval_loss": "score"}, "it seems to be the other way round"),
    ],
)
@pytest.mark.parametrize("epochs", [1, 3])
def test_a_metric_that_is_not_evaluated_is_named_with_those_that_are(
    client: at.Client, tmp_path: Path, metrics: dict, complaint: str, epochs: int
) -> None:
    trial = new_study(client).ask()[0]
    with pytest.raises(at.InvalidArgument, match=complaint):
        train(AskTellCallback(trial, metrics), tmp_path, epochs=epochs)


class Crash(TrainerCallback):
    """Breaks the training in the midst of an epoch."""

    def on_step_begin(self, args, state, control, **kwargs) -> None:
        if state.global_step == 14:
            raise RuntimeError("the machine went away")


@on_each_device
def test_a_training_that_was_cut_off_goes_on_to_the_very_same_weights(
    client: at.Client, tmp_path: Path, device: str
) -> None:
    options = {"epochs": 6, "use_cpu": device == "cpu"}
    whole = train(AskTellCallback(None, "loss"), tmp_path, save_strategy="no", **options)
    study = new_study(client, max_attempts=2)
    first = study.ask()[0]
    with pytest.raises(RuntimeError, match="the machine went away"):
        train(AskTellCallback(first, "loss", checkpoints=tmp_path), tmp_path, also=[Crash()], **options)
    first.fail("the machine went away", retry=True)
    second = study.ask()[0]
    resumed = train(AskTellCallback(second, "loss", checkpoints=tmp_path), tmp_path, **options)
    assert resumed.args.device.type == device
    assert steps(study, second) == [1, 2, 3, 4, 5, 6]
    assert (resumed.state.global_step, resumed.state.epoch) == (24, 6)
    assert all(map(torch.equal, resumed.model.state_dict().values(), whole.model.state_dict().values()))


def test_a_checkpoint_that_was_cut_off_is_passed_over(tmp_path: Path) -> None:
    trial = WorkersTrial(1, tmp_path / "1")
    asktell = AskTellCallback(trial, "loss")
    assert asktell.checkpoint is None
    train(asktell, tmp_path, epochs=2)
    newest = trial.checkpoint_dir / "checkpoint-8"
    assert asktell.checkpoint == str(newest)
    whole = (newest / "trainer_state.json").read_text()
    (newest / "trainer_state.json").write_text(whole[:-20])
    assert asktell.checkpoint == str(trial.checkpoint_dir / "checkpoint-4")
    (newest / "trainer_state.json").unlink()
    assert asktell.checkpoint == str(trial.checkpoint_dir / "checkpoint-4")


def test_a_trial_that_goes_on_from_its_parent_has_its_own_schedule(tmp_path: Path) -> None:
    parent = WorkersTrial(1, tmp_path / "1")
    train(AskTellCallback(parent, "loss"), tmp_path, epochs=2, learning_rate=0.1, weight_decay=0.1)
    child = parent.child(2, tmp_path / "2")
    rates = []

    class Watch(TrainerCallback):
        def on_step_begin(self, args, state, control, optimizer, **kwargs) -> None:
            rates.append([group["lr"] for group in optimizer.param_groups])

    trained = train(
        AskTellCallback(child, "loss"), tmp_path, epochs=4, learning_rate=0.01, weight_decay=0.2, also=[Watch()]
    )
    assert child.steps == [3, 4]
    # Linear from 0.01 at the first of 16 steps to 0 after the last one.
    assert rates == [[pytest.approx(0.01 * (16 - step) / 16)] * 2 for step in range(8, 16)]
    assert [group["weight_decay"] for group in trained.optimizer.param_groups] == [0.2, 0.0]
    kept = json.loads((child.checkpoint_dir / "checkpoint-16" / "trainer_state.json").read_text())
    assert kept["stateful_callbacks"]["AskTellCallback"]["attributes"] == {"trial": 2}


def test_epochs_after_the_parent_are_counted_from_where_it_stood_in_each_attempt(tmp_path: Path) -> None:
    def trained(trial: WorkersTrial, *, cut_after: float = 9.0) -> list[int]:
        asktell, before = AskTellCallback(trial, "loss"), len(trial.steps)
        train(asktell, tmp_path, epochs=min(asktell.after_parent(2), cut_after))
        return trial.steps[before:]

    parent = WorkersTrial(1, tmp_path / "1")
    assert trained(parent) == [1, 2]
    child = parent.child(2, tmp_path / "2")
    assert trained(child, cut_after=3) == [3]
    assert trained(child) == [4]
    assert trained(child.child(3, tmp_path / "3")) == [5, 6]
