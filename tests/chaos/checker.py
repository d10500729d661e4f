"""What the service promises, as rules that a recorded history and the trials in the database must keep.

Each rule takes what happened and yields a sentence for each violation. The rules know nothing of how the service works.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from itertools import pairwise

from google.protobuf.timestamp_pb2 import Timestamp

from asktell.v1 import trial_service_pb2 as trials
from tests.chaos.history import Event

Trial = trials.Trial

SLACK = 2.0
"""Seconds that a client process may take to notice, on a loaded machine, that its attempt is over."""

LIVE = (Trial.STATE_QUEUED, Trial.STATE_ACTIVE)
PASSING = {("UNAVAILABLE", ""), ("RESOURCE_EXHAUSTED", "")}
LATE = {("FAILED_PRECONDITION", "LEASE_LOST"), ("FAILED_PRECONDITION", "TRIAL_ENDED")}
SHORT = {("DEADLINE_EXCEEDED", "")}


@dataclass(frozen=True, kw_only=True)
class Happened:
    """All that is known: the attempts of all clients, the trials that the database has in the end, and whether late tells are refused."""

    history: Sequence[Event]
    stored: Sequence[trials.Trial]
    refuses_late: bool = False

    @cached_property
    def begun(self) -> dict[str, float]:
        """When each request was first sent: the service may have done it then, though the reply came with a later attempt."""
        found: dict[str, float] = {}
        for event in self.history:
            found[event.request_id] = min(event.start, found.get(event.request_id, event.start))
        return found

    def answered(self, method: str) -> Iterator[Event]:
        """The attempts of a method that got a reply."""
        return (event for event in self.history if event.method == method and event.reply is not None)

    @cached_property
    def by_number(self) -> dict[int, trials.Trial]:
        """The trials in the database."""
        return {trial.number: trial for trial in self.stored}

    @cached_property
    def claims(self) -> list[Claim]:
        """What was handed out: once for each request, however often its reply was repeated."""
        found: dict[tuple[str, int, str], Claim] = {}
        for event in self.answered("Ask"):
            for trial in event.reply.trials:
                found.setdefault((event.request_id, trial.number, trial.lease.token), Claim(event, trial))
        return list(found.values())


@dataclass(frozen=True, slots=True)
class Claim:
    """A trial as it was handed out, and the first attempt of its request that brought the reply."""

    event: Event
    trial: trials.Trial

    def __str__(self) -> str:
        return f"trial {self.trial.number}, attempt {self.trial.attempt}, of {self.event.worker} by {self.event.request_id}"


Rule = Callable[[Happened], Iterator[str]]


def stuck(happened: Happened) -> Iterator[str]:
    """Every attempt ends by its deadline."""
    for event in happened.history:
        if event.end is None:
            yield f"{event.method} of {event.worker} never ended"
        elif event.end - event.start > event.allowed + SLACK:
            yield f"{event.method} of {event.worker} took {event.end - event.start:.1f} s, allowed were {event.allowed:.1f}"


def unforeseen_errors(happened: Happened) -> Iterator[str]:
    """Errors say that the service is away for now, or that a lease was lost; a renewal may be cut short by its own small deadline."""
    for event in happened.history:
        allowed = {"Tell": LATE, "RenewLeases": SHORT}.get(event.method, set())
        if event.code and not {(event.code, event.reason), (event.code, "")} & (PASSING | allowed):
            yield f"{event.method} of {event.worker} got {event.code} {event.reason}"


def unequal_replies(happened: Happened) -> Iterator[str]:
    """A repeated request gets the reply that the first one got."""
    first: dict[tuple[str, str], Event] = {}
    for event in happened.history:
        if event.reply is not None and event.request_id:
            known = first.setdefault((event.method, event.request_id), event)
            if known.reply != event.reply and not _handed_out_nothing(known, event):
                yield f"{event.method} {event.request_id} of {event.worker} got two different replies"


def _handed_out_nothing(*asks: Event) -> bool:
    """An Ask that hands out nothing changes nothing, and is answered anew."""
    return asks[0].method == "Ask" and not asks[0].reply.trials


def lost_tells(happened: Happened) -> Iterator[str]:
    """What was acknowledged stands."""
    attempts = {claim.trial.lease.token: claim.trial.attempt for claim in happened.claims}
    for event in happened.answered("Tell"):
        for result in event.request.results:
            stored = happened.by_number.get(result.number)
            if stored is None or not _stands(result, stored, attempt=attempts.get(result.lease_token, 0)):
                yield f"the acknowledged tell of {event.worker} for trial {result.number} is lost"


def _stands(result: trials.TrialResult, stored: trials.Trial, *, attempt: int) -> bool:
    match result.WhichOneof("outcome"):
        case "succeeded":
            return stored.state == Trial.STATE_SUCCEEDED and stored.metrics == result.succeeded.metrics
        case "stopped":
            return stored.state == Trial.STATE_STOPPED
        case "infeasible":
            return stored.state == Trial.STATE_INFEASIBLE
        case _:
            return stored.state == Trial.STATE_FAILED or (result.failed.retry and stored.attempt > attempt)


def claimed_twice(happened: Happened) -> Iterator[str]:
    """An attempt of a trial, and a lease's token, belong to one claim."""
    owners: dict[tuple[int, int] | str, Claim] = {}
    for claim in happened.claims:
        for key in ((claim.trial.number, claim.trial.attempt), claim.trial.lease.token):
            owner = owners.setdefault(key, claim)
            if owner is not claim:
                yield f"handed out twice: {owner}; {claim}"
                break


def overlapping_claims(happened: Happened) -> Iterator[str]:
    """A trial is handed on only after the lease before, with all its renewals that were acknowledged, has run out or was given back."""
    expiry, returned = _expiries(happened), _given_back(happened)
    for earlier, later in _successive(happened, key=lambda claim: claim.trial.attempt):
        token = earlier.trial.lease.token
        if token not in returned and _time(later.trial.start_time) < expiry[token]:
            yield f"two live claims: {earlier} until {expiry[token]}; {later} from {_time(later.trial.start_time)}"


def _expiries(happened: Happened) -> dict[str, datetime]:
    """When each lease ran out at the earliest, as far as clients were told."""
    found: dict[str, datetime] = defaultdict(lambda: datetime.min.replace(tzinfo=UTC))
    for claim in happened.claims:
        lease = claim.trial.lease
        found[lease.token] = max(found[lease.token], _time(lease.expire_time))
    for event in happened.answered("RenewLeases"):
        for renewal, renewed in zip(event.request.renewals, event.reply.leases, strict=True):
            if renewed.HasField("lease"):
                found[renewal.lease_token] = max(found[renewal.lease_token], _time(renewed.lease.expire_time))
    return found


def _given_back(happened: Happened) -> set[str]:
    """Leases whose holders gave them up, whether they heard of it or not."""
    released = {event.request.lease_token for event in happened.history if event.method == "ReleaseTrial"}
    tells = [event.request for event in happened.history if event.method == "Tell"]
    failed = {result.lease_token for tell in tells for result in tell.results if result.HasField("failed")}
    return released | failed


def regressing_attempts(happened: Happened) -> Iterator[str]:
    """Attempts, and so the fencing tokens that hold them, only grow: in the order of changes, and in the order that clients saw."""
    for earlier, later in _successive(happened, key=lambda claim: claim.trial.sequence):
        if earlier.trial.attempt >= later.trial.attempt:
            yield f"attempts went back: {earlier}; then {later}"
    for earlier, later in _successive(happened, key=lambda claim: claim.trial.attempt):
        if later.event.end is not None and later.event.end < happened.begun[earlier.event.request_id]:
            yield f"attempts went back: {later}; and after that {earlier}"
    for claim in happened.claims:
        stored = happened.by_number.get(claim.trial.number)
        if stored is not None and stored.attempt < claim.trial.attempt:
            yield f"the database is at attempt {stored.attempt}, after {claim}"


def stale_tells(happened: Happened) -> Iterator[str]:
    """Where late tells are refused, only the last holder's tell is taken."""
    if not happened.refuses_late:
        return
    attempts = {claim.trial.lease.token: claim.trial.attempt for claim in happened.claims}
    for event in happened.answered("Tell"):
        for result, told in zip(event.request.results, event.reply.trials, strict=True):
            last = happened.by_number.get(result.number, told).attempt
            if told.state not in LIVE and attempts.get(result.lease_token, last) != last:
                yield f"a stale tell of {event.worker} for trial {result.number} was taken: it is at attempt {last}"


def changed_ends(happened: Happened) -> Iterator[str]:
    """A trial ends once, and stays so."""
    for event in happened.answered("Tell"):
        for told in event.reply.trials:
            if told.state not in LIVE and told != happened.by_number.get(told.number):
                yield f"trial {told.number} ended, and changed after {event.worker} was told so"


def unended_trials(happened: Happened) -> Iterator[str]:
    """Each trial is in a terminal state once all work is done."""
    for trial in happened.stored:
        if trial.state in LIVE:
            yield f"trial {trial.number} is {Trial.State.Name(trial.state)}"


def duplicates(happened: Happened) -> Iterator[str]:
    """Numbers are 1, 2, 3 and so on; no configuration of a continuous space is there twice; what was handed out is what is stored."""
    numbers = [trial.number for trial in happened.stored]
    if sorted(numbers) != list(range(1, len(numbers) + 1)):
        yield f"the numbers of the {len(numbers)} trials are not 1 to {len(numbers)}"
    owners: dict[str, int] = {}
    for trial in happened.stored:
        owner = owners.setdefault(_configuration(trial), trial.number)
        if owner != trial.number:
            yield f"trials {owner} and {trial.number} have the same parameters"
    for claim in happened.claims:
        stored = happened.by_number.get(claim.trial.number)
        if stored is None or _configuration(stored) != _configuration(claim.trial):
            yield f"not what is stored: {claim}"


RULES: Sequence[Rule] = (
    stuck,
    unforeseen_errors,
    unequal_replies,
    lost_tells,
    claimed_twice,
    overlapping_claims,
    regressing_attempts,
    stale_tells,
    changed_ends,
    unended_trials,
    duplicates,
)


def violations(happened: Happened) -> dict[str, list[str]]:
    """What broke each rule; a rule that nothing broke is not there."""
    found = {rule.__name__: list(rule(happened)) for rule in RULES}
    return {rule: broken for rule, broken in found.items() if broken}


def _successive(happened: Happened, *, key: Callable[[Claim], int]) -> Iterator[tuple[Claim, Claim]]:
    """The claims of each trial that follow one another."""
    of_trial: dict[int, list[Claim]] = defaultdict(list)
    for claim in happened.claims:
        of_trial[claim.trial.number].append(claim)
    for claims in of_trial.values():
        yield from pairwise(sorted(claims, key=key))


def _configuration(trial: trials.Trial) -> str:
    return repr(sorted((name, value.SerializeToString()) for name, value in trial.parameters.items()))


def _time(stamp: Timestamp) -> datetime:
    return stamp.ToDatetime(tzinfo=UTC)
