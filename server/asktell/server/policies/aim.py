"""At which fidelity configurations are compared that were measured at several."""

from __future__ import annotations

from dataclasses import dataclass

from asktell.server.domain.space import Parameters
from asktell.server.policies.encoding import Encoder
from asktell.server.policies.kernel import Matrix


@dataclass(frozen=True, slots=True)
class Aim:
    """The column of the fidelity, in feature rows and in settled ones, and the code of the value that is aimed at."""

    feature: int
    column: int
    code: float

    @classmethod
    def of(cls, encoder: Encoder, aim: Parameters) -> Aim | None:
        """The aim of a request; None if everything was measured where it is compared."""
        for place, spec in enumerate(encoder.space):
            if spec.name in aim:
                feature = encoder.layout.owners.tolist().index(place)
                return cls(feature, place, encoder.columns[place].encode(aim[spec.name]))
        return None

    def raised(self, rows: Matrix) -> Matrix:
        """Feature rows (`n x D`) as if they were at the aim."""
        raised = rows.copy()
        raised[:, self.feature] = self.code
        return raised

    def settled(self, rows: Matrix) -> Matrix:
        """Settled rows (`n x d`) as if they were at the aim."""
        raised = rows.copy()
        raised[:, self.column] = self.code
        return raised
