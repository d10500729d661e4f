"""Results of several trials that are told in one call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from asktell.client import calls
from asktell.client.calls import BATCH, Call
from asktell.client.errors import AskTellError, InvalidArgument, ResultsRefused
from asktell.client.outcomes import Told
from asktell.client.trial_protocol import TrialProtocol
from asktell.client.values import TrialRecord
from asktell.v1 import trial_service_pb2

TrialT = TypeVar("TrialT", bound=TrialProtocol)


@dataclass(frozen=True, slots=True)
class Together(Generic[TrialT]):
    """Trials of one study, and the call that tells what became of each."""

    trials: Sequence[TrialT]
    call: Call[list[TrialRecord | AskTellError]]

    @classmethod
    def of(cls, study: str, results: Iterable[tuple[TrialT, Told | Exception]]) -> Together[TrialT]:
        """What to tell of trials: at most 1,000, each once. InvalidArgument or FailedPrecondition for one that cannot be told."""
        pairs = [_pair(index, pair) for index, pair in enumerate(results)]
        if not 1 <= len(pairs) <= BATCH:
            raise InvalidArgument.at("results", f"has {len(pairs):,} results; 1 to {BATCH:,} are allowed")
        _require_different([trial for trial, _ in pairs])
        packed = [_packed(study, index, trial, told) for index, (trial, told) in enumerate(pairs)]
        return cls([trial for trial, _ in pairs], calls.tell_all(study, packed))

    def take(self, replies: list[TrialRecord | AskTellError]) -> None:
        """Take in what the service made of each. ResultsRefused if it refused some."""
        for trial, reply in zip(self.trials, replies, strict=True):
            trial.hear_of_result(reply)
        pairs = zip(self.trials, replies, strict=True)
        refusals = {trial.number: reply for trial, reply in pairs if isinstance(reply, AskTellError)}
        if refusals:
            raise ResultsRefused(refusals, of=len(replies))


def _pair(index: int, pair: Any) -> Any:
    if isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], TrialProtocol):
        return pair
    raise InvalidArgument.at(
        f"results[{index}]",
        f"is no pair of a trial and its metrics: give zip(trials, losses); it is {type(pair).__name__}",
    )


def _require_different(trials: Sequence[TrialProtocol]) -> None:
    seen: set[str] = set()
    for index, trial in enumerate(trials):
        if trial.name in seen:
            raise InvalidArgument.at(f"results[{index}]", f"trial {trial.number} stands there twice")
        seen.add(trial.name)


def _packed(study: str, index: int, trial: TrialProtocol, told: Told | Exception) -> trial_service_pb2.TrialResult:
    if trial.name.rpartition("/trials/")[0] != study:
        raise InvalidArgument.at(f"results[{index}]", f"{trial.name} is of another study than {study}")
    try:
        return trial.pack_result(told)
    except InvalidArgument as error:
        field, description = error.field_violations[0]
        raise InvalidArgument.at(f"results[{index}].{field}", description) from error
