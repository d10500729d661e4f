"""The first points of a study that has sources: what was best in these, every other time, between those of the usual design."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, zip_longest

import numpy as np

from asktell.server.domain.errors import InvalidArgument
from asktell.server.domain.metric import Objective, OutcomeConstraint
from asktell.server.domain.policy import Candidate, Decision, Observation, Source, SuggestRequest
from asktell.server.domain.ranking import feasible
from asktell.server.domain.space import Parameters, ParameterValue, key
from asktell.server.policies.encoding import Encoder
from asktell.server.policies.initial_design import first_point, fits
from asktell.server.policies.kernel import Matrix
from asktell.server.policies.labels import measured
from asktell.server.policies.scope import Key

METHOD = "warm-start"
APART = 0.1
"""How far apart two of a source's points are at least in one number, as a share of its range, unless a name differs."""
MOST = 10
"""Points of one source; the initial design has no more."""


def warm_point(
    request: SuggestRequest, pending: Sequence[Parameters], seen: Collection[Key]
) -> dict[str, ParameterValue] | None:
    """The best point of a source that is not taken, the sources taking turns; None if it is no source's turn, or none has any left.

    It is every other time, beginning with the first, until a point of another making turns out better than all of theirs.
    """
    started = len(request.observations) + len(pending)
    if not request.sources or started % 2:
        return None
    encoder = Encoder.of(request.space)
    each = [_best(source, goal, request, encoder) for source in request.sources for goal in request.objectives]
    points = list(filter(None, chain.from_iterable(zip_longest(*each))))
    if _disappointed(request, {key(point) for point in points}):
        return None
    taken = encoder.encode([*(trial.parameters for trial in request.observations), *pending])
    for point in points:
        if key(point) not in seen and fits(point, request.fixed) and not _near(encoder, point, taken):
            return point
    return None


def credited(candidates: Iterable[Candidate], sources: Sequence[Source]) -> Iterator[Candidate]:
    """The candidates, with origins that tell from which sources the study starts, and which are gone."""
    there = ", ".join(source.name for source in sources if not source.gone)
    gone = ", ".join(source.name for source in sources if source.gone)
    words = "; ".join(
        filter(None, [there and f"starts from {there}", gone and f"goes on without {gone}, which is gone"])
    )
    for candidate in candidates:
        yield replace(candidate, origin=replace(candidate.origin, reason=words)) if words else candidate


def alone(policy: Callable[[SuggestRequest], Decision], *, name: str) -> Callable[[SuggestRequest], Decision]:
    """A policy that does not look at other studies, with origins that say so where the study names any."""

    def suggest(request: SuggestRequest) -> Decision:
        decision = policy(request)
        if not request.sources:
            return decision
        named = ", ".join(source.name for source in request.sources)
        words = f"does not start from {named}: {name} looks at no other study"
        return replace(decision, candidates=tuple(_explained(candidate, words) for candidate in decision.candidates))

    return suggest


def _explained(candidate: Candidate, words: str) -> Candidate:
    reason = "; ".join(filter(None, [candidate.origin.reason, words]))
    return replace(candidate, origin=replace(candidate.origin, reason=reason))


def _disappointed(request: SuggestRequest, warm: Collection[Key]) -> bool:
    """Whether a point of another making is the best of an objective, though some of the sources' were tried."""
    for objective in request.objectives:
        ordered = _ranked(request.observations, objective, request.outcome_constraints)
        ranked = [key(seen.parameters) in warm for seen in ordered]
        if any(ranked) and not ranked[0]:
            return True
    return False


def _best(
    source: Source, objective: Objective, request: SuggestRequest, encoder: Encoder
) -> Iterator[dict[str, ParameterValue]]:
    """A source's best points for an objective, which are some way apart."""
    kept = np.zeros((0, len(request.space)))
    for seen in _ranked(source.observations, objective, request.outcome_constraints):
        if len(kept) == MOST:
            return
        point = _completed(seen.parameters, request, encoder)
        if point is not None and not _near(encoder, point, kept):
            kept = np.concatenate([kept, encoder.encode([point])])
            yield point


def _ranked(
    observations: Sequence[Observation], objective: Objective, constraints: Sequence[OutcomeConstraint]
) -> list[Observation]:
    """What was measured, the best first; of it only what is feasible, if anything is known to be."""
    told = [seen for seen, useful in zip(observations, measured(observations, (objective,)), strict=True) if useful]
    told = [seen for seen in told if feasible(seen.metrics, constraints)] or told
    return sorted(told, key=lambda seen: (objective.loss(seen.metrics[objective.metric].value), seen.number))


def _completed(some: Parameters, request: SuggestRequest, encoder: Encoder) -> dict[str, ParameterValue] | None:
    """A whole configuration with some parameters given, on this study's grids; None if there is none that the space allows."""
    given = {**first_point(request), **some, **request.fixed}
    latent = [
        codes.encode(given[spec.name]) if spec.name in given else codes.inactive
        for spec, codes in zip(request.space, encoder.columns, strict=True)
    ]
    try:
        return request.space.check(encoder.decode(np.array(latent)))
    except InvalidArgument:
        return None


def _near(encoder: Encoder, point: Parameters, rows: Matrix) -> bool:
    gaps = np.abs(rows - encoder.encode([point]))
    return bool(np.all(np.where(encoder.nominal, gaps == 0, gaps < APART), axis=1).any())
