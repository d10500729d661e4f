"""Stopping rules: in the contract each kind is a message with the fields of the domain's value."""

from __future__ import annotations

from dataclasses import asdict

from asktell.server.domain.errors import InvalidArgument
from asktell.server.domain.stopping import KINDS, StoppingRule, make_kind
from asktell.server.rpc.convert.metric import goal_message, read_goal
from asktell.v1 import metric_pb2
from asktell.v1 import stopping_pb2 as pb


def read_stopping_rule(message: pb.StoppingRule) -> StoppingRule:
    """The rule; paths start at `stopping_rule`."""
    name = message.WhichOneof("kind")
    if name is None:
        raise InvalidArgument("stopping_rule.kind", f"is missing: one of {', '.join(KINDS)}")
    unset = message.goal == metric_pb2.Objective.GOAL_UNSPECIFIED
    try:
        return StoppingRule(
            kind=make_kind(name, {field.name: value for field, value in getattr(message, name).ListFields()}),
            metric=message.metric,
            goal=None if unset else read_goal("goal", message.goal),
            warmup_steps=message.warmup_steps,
            max_step=message.max_step if message.HasField("max_step") else None,
        )
    except InvalidArgument as error:
        raise error.within("stopping_rule") from None


def stopping_message(rule: StoppingRule) -> pb.StoppingRule:
    """The message for a rule."""
    message = pb.StoppingRule(
        metric=rule.metric,
        goal=metric_pb2.Objective.GOAL_UNSPECIFIED if rule.goal is None else goal_message(rule.goal),
        warmup_steps=rule.warmup_steps,
        max_step=rule.max_step,
    )
    kind = getattr(message, rule.name)
    kind.SetInParent()
    for name, value in asdict(rule.kind).items():
        if value is not None:
            setattr(kind, name, value)
    return message
