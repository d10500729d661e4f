"""What a surrogate believes."""

from __future__ import annotations

from collections.abc import Sequence

from asktell.server.domain.beliefs import (
    CrossValidate,
    Importance,
    ImportanceMethod,
    LeftOut,
    Predictions,
    RankParameters,
)
from asktell.server.domain.errors import InvalidArgument
from asktell.server.domain.space import Parameters
from asktell.server.domain.trial import Prediction
from asktell.server.rpc.convert.space import read_parameters
from asktell.v1 import surrogate_service_pb2 as pb
from asktell.v1 import trial_service_pb2

_METHODS = {
    pb.ImportanceRequest.METHOD_UNSPECIFIED: ImportanceMethod.SOBOL,
    pb.ImportanceRequest.METHOD_SOBOL: ImportanceMethod.SOBOL,
    pb.ImportanceRequest.METHOD_PED_ANOVA: ImportanceMethod.PED_ANOVA,
}


def read_points(request: pb.PredictRequest) -> tuple[Parameters, ...]:
    """The points of Predict."""
    return tuple(read_parameters(f"points[{index}].values", point.values) for index, point in enumerate(request.points))


def read_importance(request: pb.ImportanceRequest) -> RankParameters:
    """The question of Importance."""
    if request.method not in _METHODS:
        raise InvalidArgument("method", f"{request.method} is not METHOD_SOBOL or METHOD_PED_ANOVA")
    return RankParameters(_METHODS[request.method])


def read_cross_validate(_: pb.CrossValidateRequest) -> CrossValidate:
    """The question of CrossValidate."""
    return CrossValidate()


def predict_message(predictions: Sequence[Predictions]) -> pb.PredictResponse:
    """The reply of Predict."""
    packed = (
        pb.Prediction(metrics={name: _predicted(prediction) for name, prediction in each.items()})
        for each in predictions
    )
    return pb.PredictResponse(predictions=packed)


def importance_message(importances: Sequence[Importance]) -> pb.ImportanceResponse:
    """The reply of Importance."""
    packed = (
        pb.ParameterImportance(metric=each.metric, parameter=each.parameter, importance=each.share)
        for each in importances
    )
    return pb.ImportanceResponse(importances=packed)


def cross_validate_message(found: Sequence[LeftOut]) -> pb.CrossValidateResponse:
    """The reply of CrossValidate."""
    packed = (
        pb.LeaveOneOut(
            number=left.number, metric=left.metric, observed=left.observed, predicted=_predicted(left.predicted)
        )
        for left in found
    )
    return pb.CrossValidateResponse(predictions=packed)


def _predicted(prediction: Prediction) -> trial_service_pb2.PredictedMetric:
    return trial_service_pb2.PredictedMetric(mean=prediction.mean, standard_deviation=prediction.standard_deviation)
