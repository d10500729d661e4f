"""Studies for the tests of frameworks."""

from __future__ import annotations

from asktell import client as at

SPACE = [at.Float("learning_rate", 1e-3, 1, log=True)]


def new_study(client: at.Client, **options) -> at.Study:
    """A study that minimises `loss`."""
    return client.create_study(
        "training", parameters=SPACE, objectives=[at.Minimize("loss")], policy="random", **options
    )


def study_that_stops_above(client: at.Client, loss: float) -> at.Study:
    """A study that stops a trial whose loss is above a bound, with a trial that leads: one that leads would not be stopped."""
    study = new_study(client, stopping_rule=at.ThresholdRule(at_most=loss))
    with study.ask()[0] as leader:
        for step in (1, 1000):
            leader.report(step=step, loss=-1)
        leader.tell(loss=-1)
    return study


def steps(study: at.Study, trial: at.Trial) -> list[int]:
    """The steps that were reported."""
    return [measurement.step for measurement in study.get_trial(trial.number).measurements]


def state(study: at.Study, trial: at.Trial) -> at.TrialState:
    """How a trial stands at the service."""
    return study.get_trial(trial.number).state
