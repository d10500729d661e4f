"""What a surrogate, where one chooses, expects of trials that stand at lower rungs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from asktell.server.domain.policy import Observation, SuggestRequest
from asktell.server.policies.deadline import Deadline

if TYPE_CHECKING:
    from asktell.server.policies.expectation import Expectation


class Foresight:
    """Expectations of one request's trials at the fidelity it aims at, learned when the first are wanted."""

    def __init__(self, request: SuggestRequest) -> None:
        self._request, self._deadline = request, Deadline.after(request.time_limit)
        self._expectation: Expectation | None = None
        self._broken = False

    def of(self, trials: Sequence[Observation]) -> Sequence[Observation]:
        """The trials as if they had ended at the aim, with what is expected there; as they are if the numerics break or time is over."""
        if self._broken:
            return trials
        try:
            expected = self._learned().of(trials)
        except Exception:  # noqa: BLE001 - an ask gets an answer whatever the numerics do
            self._broken = True
            return trials
        return trials if self._deadline.passed else expected

    def followed(self, request: SuggestRequest) -> SuggestRequest:
        """A request that comes after, with the fits that were made and the time that is left."""
        if self._expectation is None:
            return request
        return replace(request, hint=self.hint() or request.hint, time_limit=self._deadline.left)

    @property
    def late(self) -> bool:
        """Whether expectations may be missing because time is over."""
        return self._deadline.passed

    def hint(self) -> bytes:
        """The fits that were used, for the next request."""
        return b"" if self._expectation is None else self._expectation.hint()

    def _learned(self) -> Expectation:
        if self._expectation is None:
            # SciPy's optimisers take time and memory, which a server that only hands requests on can do without.
            from asktell.server.policies.expectation import Expectation  # noqa: PLC0415

            self._expectation = Expectation(self._request, self._deadline)
        return self._expectation
