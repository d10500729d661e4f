"""SurrogateService."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from asktell.server.application.beliefs import Oracle
from asktell.server.domain.study import StudyName
from asktell.server.rpc.convert import beliefs as convert
from asktell.v1 import surrogate_service_pb2 as pb
from asktell.v1.surrogate_service_pb2_grpc import SurrogateServiceServicer

MARGIN = 0.1
"""What is left of the caller's patience for the reply's way, in seconds."""


@dataclass(frozen=True, slots=True)
class SurrogateServicer(SurrogateServiceServicer):
    """Unpacks, calls the use case, packs."""

    oracle: Oracle

    async def Predict(self, request: pb.PredictRequest, context: Any) -> pb.PredictResponse:
        name, points = StudyName.parse(request.parent, path="parent"), convert.read_points(request)
        return convert.predict_message(await self.oracle.predict(name, points, patience=_patience(context)))

    async def Importance(self, request: pb.ImportanceRequest, context: Any) -> pb.ImportanceResponse:
        name, question = StudyName.parse(request.parent, path="parent"), convert.read_importance(request)
        found = await self.oracle.ask(name, question, patience=_patience(context))
        return convert.importance_message(found)

    async def CrossValidate(self, request: pb.CrossValidateRequest, context: Any) -> pb.CrossValidateResponse:
        name, question = StudyName.parse(request.parent, path="parent"), convert.read_cross_validate(request)
        found = await self.oracle.ask(name, question, patience=_patience(context))
        return convert.cross_validate_message(found)


def _patience(context: Any) -> float:
    remaining = context.time_remaining()
    return math.inf if remaining is None else float(remaining) - MARGIN
