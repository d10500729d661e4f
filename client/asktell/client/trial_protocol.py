"""How a worker and the service deal with a trial, whether by threads or by asyncio: what to send next, and what a reply changes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn, Protocol, Self, TypeAlias

from asktell.client import calls, outcomes
from asktell.client.calls import Call
from asktell.client.claim import Claim
from asktell.client.current import Current
from asktell.client.errors import AskTellError, FailedPrecondition
from asktell.client.outcomes import Outcome, Told
from asktell.client.values import Directive, Metrics, MetricValue, OnError, Report, TrialRecord, Verdict
from asktell.client.views import TrialView
from asktell.v1 import trial_service_pb2

logger = logging.getLogger("asktell.client")

OnReport: TypeAlias = Callable[[Mapping[str, MetricValue]], None]
"""Takes in which metrics are about to be reported."""

TAKEN = frozenset({"LEASE_LOST", "TRIAL_ENDED"})
"""Reasons of the service for refusing a result: somebody else has the trial, or ended it."""


class Keeper(Protocol):
    """Renews leases in the background."""

    def hold(self, claim: Claim) -> None:
        """Keep a lease until it is dropped as often as it was held, or forgotten."""

    def drop(self, claim: Claim) -> None:
        """Let go of a lease once."""

    def forget(self, claim: Claim) -> None:
        """Keep a lease no longer."""


class TrialProtocol(TrialView):
    """A trial and this process's part in it. Makes up the calls; who carries them out hands the replies back."""

    def __init__(
        self,
        record: TrialRecord,
        *,
        objectives: Sequence[str],
        on_report: OnReport,
        keeper: Keeper,
        on_error: OnError = "raise",
    ) -> None:
        super().__init__(record)
        self._objectives = tuple(objectives)
        self._on_report = on_report
        self._claim = _claim(record)
        self._keeper = keeper
        self._on_error = on_error
        self._made_up: dict[str, Call[TrialRecord]] = {}
        self._upload: Path | None = None
        self._why_is_said = False

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a trial cannot be pickled, lest two processes hold its lease: send trial.number and trial.parameters,"
            " and tell the result where the trial was asked for"
        )

    def of_worker(self, which: Current) -> Self:
        """This trial, whose state the worker of this process keeps: it is uploaded before the trial ends."""
        self._upload = which.upload
        return self

    @property
    def why_is_said(self) -> bool:
        """Whether the log has already why the trial failed."""
        return self._why_is_said

    def pack_result(self, told: Told | Exception) -> trial_service_pb2.TrialResult:
        """What became of the trial, to be told along with others: metrics as `tell` takes them, or an exception, which is a failure."""
        claim = self._held()
        outcome = (
            outcomes.failed(outcomes.explain(told), retry=False)
            if isinstance(told, Exception)
            else self._judged(outcomes.gather(told, {}, self._objectives))
        )
        return calls.pack_result(claim, outcome, metadata=None, checkpoint_uri="")

    def hear_of_result(self, reply: TrialRecord | AskTellError) -> None:
        """Take in what the service made of a result that was told along with others."""
        if isinstance(reply, TrialRecord):
            self._end(reply)
        elif isinstance(reply, FailedPrecondition):
            self._refused(reply)

    def _telling(
        self, told: Told | None, named: Metrics, *, metadata: Mapping[str, str] | None, checkpoint_uri: str
    ) -> Call[TrialRecord]:
        values = outcomes.gather(told, named, self._objectives)
        return self._once(
            repr((values, metadata, checkpoint_uri)),
            lambda claim: calls.tell(claim, self._judged(values), metadata=metadata, checkpoint_uri=checkpoint_uri),
        )

    def _once(self, result: str, make_up: Callable[[Claim], Call[TrialRecord]]) -> Call[TrialRecord]:
        """The call that was made up for the same result before, with its request id: its fate may be unknown, and it shall count once."""
        claim = self._held()
        if result not in self._made_up:
            self._made_up[result] = make_up(claim)
        return self._made_up[result]

    def _judged(self, values: Mapping[str, MetricValue]) -> Outcome:
        if self.should_stop and not self.lost:
            return outcomes.stopped(values, self.message)
        return outcomes.succeeded(values, self._objectives)

    def _ending(self, outcome: Outcome, *, checkpoint_uri: str = "") -> Call[TrialRecord]:
        return self._once(
            repr((outcome, checkpoint_uri)),
            lambda claim: calls.tell(claim, outcome, metadata=None, checkpoint_uri=checkpoint_uri),
        )

    def _stopping(self, told: Told | None, message: str, *, checkpoint_uri: str = "") -> Call[TrialRecord]:
        values = outcomes.gather(told, {}, self._objectives)
        return self._once(
            repr(("stopped", values, message, checkpoint_uri)),
            lambda claim: calls.tell(
                claim, outcomes.stopped(values, message or self.message), metadata=None, checkpoint_uri=checkpoint_uri
            ),
        )

    def _releasing(self, checkpoint_uri: str = "") -> Call[TrialRecord]:
        return calls.release(self._held(), checkpoint_uri=checkpoint_uri)

    def _reporting(self, told: Told | None, named: Metrics, *, step: int, checkpoint_uri: str) -> Call[Verdict] | None:
        """The report to send; None once the lease is lost, when the service would refuse it."""
        values = outcomes.gather(told, named, self._objectives)
        claim = self._held()
        self._on_report(values)
        return None if claim.lost else calls.report(claim, step=step, metrics=values, checkpoint_uri=checkpoint_uri)

    def _checkpointing(self, uri: str) -> Call[Verdict] | None:
        """The report of a checkpoint alone; None once the lease is lost."""
        claim = self._held()
        return None if claim.lost else calls.checkpoint(claim, uri=uri)

    def _heard(self, *verdicts: Verdict) -> Report:
        claim = self._held()
        for verdict in verdicts:
            claim.hear(verdict)
        return Report(should_stop=claim.should_stop, lost=claim.lost, message=claim.message)

    def _settlement(self) -> Call[TrialRecord] | None:
        """What to send for a trial of which nothing was told: stopped if the service said so, else given back; None if it is through."""
        if self.ended or self.lost:
            return None
        return self._stopping(None, "") if self.should_stop else self._releasing()

    def _require_result(self) -> None:
        """Raise FailedPrecondition if the settlement had to give the trial back for want of a result."""
        if not self.should_stop:
            raise FailedPrecondition(
                f"trial {self.number} was left without a result, and given back: call tell, fail, infeasible, stop or release",
                reason="TRIAL_UNTOLD",
            )

    def _conclusion(self, result: Told | None) -> Call[TrialRecord] | None:
        """What to send for what an objective returned: of NaN a failure; None if there is nothing to send. FailedPrecondition for no result
        at all.
        """
        if result is not None:
            return self._concluding(outcomes.gather(result, {}, self._objectives))
        if not (self.ended or self.should_stop):
            raise FailedPrecondition(
                f"the objective returned None for trial {self.number} and did not end it:"
                " return the metrics, or call tell, fail, infeasible, stop or release",
                reason="TRIAL_UNTOLD",
            )
        return self._settlement()

    def _concluding(self, metrics: Mapping[str, MetricValue]) -> Call[TrialRecord]:
        if not self.should_stop and (lack := outcomes.lack(metrics, self._objectives)):
            self._say_why(lack)
            return self._ending(outcomes.failed(lack, retry=False))
        return self._telling(metrics, {}, metadata=None, checkpoint_uri="")

    def _yield_to_others(self, refusal: FailedPrecondition) -> None:
        """Let a result go that the service refused because the trial is somebody else's or ended; raise any other refusal again."""
        if refusal.reason not in TAKEN:
            raise refusal
        logger.warning("what became of trial %d here is dropped: %s", self.number, refusal)
        self._refused(refusal)
        self._finish()

    def _refused(self, refusal: FailedPrecondition) -> None:
        """Take in that the service refused a result: if the trial is somebody else's or ended, it is lost here."""
        if refusal.reason in TAKEN:
            self._held().hear(Verdict(self.number, Directive.ABANDON, str(refusal), None))

    def _remedy(self, error: BaseException) -> Call[TrialRecord] | None:
        """What to send when the work broke off: a failure if it is the objective's, else the trial goes back; None if it is through."""
        if self.ended or self.lost:
            return None
        if outcomes.is_objectives_fault(error):
            if self._swallows(error):
                self._say_why(outcomes.explain(error))
            return self._ending(outcomes.failed(outcomes.explain(error), retry=False))
        return self._releasing()

    def _say_why(self, reason: str) -> None:
        logger.warning("trial %d failed: %s", self.number, reason)
        self._why_is_said = True

    def _swallows(self, error: BaseException | None) -> bool:
        return isinstance(error, Exception) and self._on_error == "continue"

    def _left(self, error: AskTellError) -> None:
        logger.warning("trial %d could not be ended, its lease runs out: %s", self.number, error)

    def _end(self, record: TrialRecord) -> None:
        self._record = record
        self._finish()

    def _finish(self) -> None:
        self._ended = True
        if self._claim is not None:
            self._keeper.forget(self._claim)

    def _held(self) -> Claim:
        """The claim, or FailedPrecondition if this process has none or has ended the trial."""
        if self._ended:
            raise FailedPrecondition(
                f"trial {self.number} was ended here before: it is {self.state.value}", reason="TRIAL_ENDED"
            )
        if self._claim is None:
            raise FailedPrecondition(
                f"trial {self.number} was not asked for here: there is no lease on it", reason="NO_LEASE"
            )
        return self._claim

    def _hold(self) -> None:
        self._keeper.hold(self._held())

    def _drop(self) -> None:
        if self._claim is not None:
            self._keeper.drop(self._claim)


def _claim(record: TrialRecord) -> Claim | None:
    if record.lease is None or not record.lease.token:
        return None
    return Claim(study=record.name.rpartition("/trials/")[0], number=record.number, lease=record.lease)
