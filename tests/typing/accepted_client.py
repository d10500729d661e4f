"""What a type checker must accept of the client, with the types it must find."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from datetime import timedelta
from typing import assert_type

from asktell import client as at
from asktell.client import aio


def sync(client: at.Client) -> None:
    study = client.create_study(
        "digits",
        parameters=[
            at.Float("learning_rate", 1e-5, 1e-1, log=True, default=1e-3),
            at.Int("batch_size", 16, 256, log=True),
            at.Categorical("class_weight", ["balanced", None, 1, 0.5, True], default=None),
            at.Bool("nesterov", default=False),
            at.Ordinal("width", [16, 32, 64], when=("nesterov", [True])),
        ],
        objectives=[at.Maximize("accuracy"), at.Minimize("latency")],
        max_duration=timedelta(hours=1),
        lease_duration=30,
        late_tells="refuse",
    )
    assert_type(study, at.Study)
    assert_type(study.trials(), Generator[at.Trial, None, None])
    assert_type(study.best_trial, at.Trial | None)
    (trial,) = study.ask(fixed={"batch_size": 32})
    assert_type(trial, at.Trial)
    assert_type(trial.parameters, dict[str, at.ParameterValue])
    assert_type(trial.report(step=1, accuracy=0.5).should_stop, bool)
    trial.tell(accuracy=0.9, latency=(3, 0.1))
    trial.tell({"accuracy": at.MetricValue(0.9)}, checkpoint_uri="file:///tmp/a")
    trial.tell(0.9, metadata={"host": "a"})
    study.optimize(lambda trial: 0.5)
    study.optimize(lambda trial: {"accuracy": (0.5, None)}, on_error="raise")
    study.update(max_trials=None, labels={"a": "b"})
    study.update(max_duration=60, label_changes={"a": "b", "c": None})
    with trial as entered:
        assert_type(entered, at.Trial)


async def asynchronous(client: aio.Client) -> None:
    study = await client.get_study("digits")
    assert_type(study, aio.Study)
    assert_type(study.trials(), AsyncGenerator[aio.Trial, None])
    async for trial in study.trials():
        assert_type(trial, aio.Trial)
        await trial.tell(accuracy=0.9)
    assert_type(await study.best_trial(), aio.Trial | None)
