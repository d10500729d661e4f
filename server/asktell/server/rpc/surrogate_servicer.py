"""SurrogateService: in the contract, not in this server yet."""

from __future__ import annotations

from typing import Any, NoReturn

from asktell.server.domain.errors import Unsupported
from asktell.v1 import surrogate_service_pb2 as pb
from asktell.v1.surrogate_service_pb2_grpc import SurrogateServiceServicer


class SurrogateServicer(SurrogateServiceServicer):
    """Answers UNIMPLEMENTED."""

    async def Predict(self, request: pb.PredictRequest, context: Any) -> NoReturn:
        raise Unsupported("parent", "this server does not predict yet")

    async def Importance(self, request: pb.ImportanceRequest, context: Any) -> NoReturn:
        raise Unsupported("parent", "this server does not rank parameters yet")

    async def CrossValidate(self, request: pb.CrossValidateRequest, context: Any) -> NoReturn:
        raise Unsupported("parent", "this server does not cross-validate yet")
