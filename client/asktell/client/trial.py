"""A trial, driven by threads."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from asktell.client import calls, outcomes
from asktell.client.calls import Call
from asktell.client.connection import Connection
from asktell.client.current import uploading
from asktell.client.errors import AskTellError, FailedPrecondition
from asktell.client.leases import LeaseKeeper
from asktell.client.outcomes import Told
from asktell.client.trial_protocol import OnReport, TrialProtocol
from asktell.client.values import MetricLike, OnError, Report, TrialRecord


class Trial(TrialProtocol):
    """One configuration and what became of it; made by `Study`.

    As a context manager it keeps its lease, and tells an exception of the body as a failure with the exception's message; then the
    exception goes on, or, in a study's `trials(on_error="continue")`, ends there. An exception that is none of the objective's (Ctrl-C, an
    unreachable service) gives the trial back instead. So does a body that tells nothing, which is an error: see `settle`. The methods are
    for one thread at a time.
    """

    def __init__(
        self,
        record: TrialRecord,
        *,
        objectives: Sequence[str],
        on_report: OnReport,
        connection: Connection,
        keeper: LeaseKeeper,
        on_error: OnError = "raise",
    ) -> None:
        super().__init__(record, objectives=objectives, on_report=on_report, keeper=keeper, on_error=on_error)
        self._connection = connection

    def __enter__(self) -> Self:
        self._hold()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        try:
            if error is None:
                self.settle()
            else:
                self._attempt(self._remedy(error))
        finally:
            self._drop()
        return self._swallows(error)

    def tell(
        self,
        metrics: Told | None = None,
        /,
        *,
        metadata: Mapping[str, str] | None = None,
        checkpoint_uri: str = "",
        **named: MetricLike,
    ) -> None:
        """Tell the metrics of the finished trial: every objective, and others if wanted.

        They come as a mapping, by name, or as one value where there is one objective; a value is a number, a pair of mean and standard
        error, or a MetricValue. A trial that the service asked to stop is told as stopped, with these as its last metrics.
        InvalidArgument for a missing objective; FailedPrecondition for a trial that ended, here or elsewhere.
        """
        call = self._telling(metrics, named, metadata=metadata, checkpoint_uri=checkpoint_uri)
        self._tell(call)

    def fail(self, message: str, *, retry: bool = False, checkpoint_uri: str = "") -> None:
        """Tell that the attempt broke; with `retry`, another worker should try while attempts are left, and resume from the checkpoint."""
        self._tell(self._ending(outcomes.failed(message, retry=retry), checkpoint_uri=checkpoint_uri))

    def infeasible(self, message: str) -> None:
        """Tell that these parameters cannot work: the model learns it, nobody tries them again."""
        self._tell(self._ending(outcomes.infeasible(message)))

    def stop(self, metrics: Told | None = None, /, *, message: str = "", checkpoint_uri: str = "") -> None:
        """Tell that the trial was ended early, with its last metrics; by default those last reported."""
        self._tell(self._stopping(metrics, message, checkpoint_uri=checkpoint_uri))

    def report(
        self, metrics: Told | None = None, /, *, step: int, checkpoint_uri: str = "", **named: MetricLike
    ) -> Report:
        """Report metrics on the way, renew the lease, and hear whether to go on. A step reported again replaces the earlier one.

        `checkpoint_uri` is where the trial's state lies, from which another worker could resume. Once the lease is lost, nothing is sent.
        """
        call = self._reporting(metrics, named, step=step, checkpoint_uri=checkpoint_uri)
        return self._heard() if call is None else self._heard(self._connection.run(call))

    def checkpoint(self, uri: str) -> Report:
        """Say where the trial's state lies, complete, so that another worker could resume from it; renew the lease, and hear whether to go on.

        A URI of scheme file, s3, gs, az, abfs, hdfs, http or https; it counts until the next one. Once the lease is lost, nothing is sent.
        """
        call = self._checkpointing(uri)
        return self._heard() if call is None else self._heard(self._connection.run(call))

    def renew(self) -> Report:
        """Renew the lease now, and hear whether to go on."""
        claim = self._held()
        return self._heard(*self._connection.run(calls.renew(claim.study, [claim])))

    def release(self, *, checkpoint_uri: str = "") -> None:
        """Give the trial back unfinished: it is queued for the next worker, and no attempt is spent."""
        self.hand_over()
        self._end(self._connection.run(self._releasing(checkpoint_uri)))

    def cancel(self) -> None:
        """Withdraw the trial, queued or active; whoever works on it is told to stop. It needs no lease."""
        self._end(self._connection.run(calls.cancel(self.name)))

    @contextmanager
    def keep_alive(self) -> Iterator[Self]:
        """Renew the lease in the background while the body runs. `should_stop` and `lost` then tell what the service said."""
        self._hold()
        try:
            yield self
        finally:
            self._drop()

    def wait_for_stop(self, timeout: float | None = None) -> bool:
        """Block until the trial should stop, at most `timeout` seconds; whether it should. Something must renew the lease meanwhile."""
        return self._held().wait(timeout)

    def settle(self) -> None:
        """End a trial whose work is done but of which nothing was told, as `trials()` does after each turn.

        Told to stop, it is told as stopped; lost, it is left. Else it is given back, and FailedPrecondition says that a tell is missing.
        """
        if (call := self._settlement()) is not None:
            self._deliver(call)
            self._require_result()

    def give_back(self) -> None:
        """Release the trial if this process still has it; if that does not work, the lease runs out by itself."""
        if not self.ended and not self.lost:
            self._attempt(self._releasing())

    def conclude(self, result: Told | None) -> None:
        """Tell what an objective returned; None means that it ended the trial itself, or was told to stop.

        A result that comes too late, since the trial is somebody else's or ended, is dropped.
        """
        if (call := self._conclusion(result)) is not None:
            self._deliver(call)

    def hand_over(self) -> None:
        """Have the worker upload the state before the trial ends, where that is needed."""
        for pause in () if self.lost else uploading(self._upload):
            time.sleep(pause)

    def _tell(self, call: Call[TrialRecord]) -> None:
        self.hand_over()
        try:
            self._end(self._connection.run(call))
        except FailedPrecondition as refusal:
            self._refused(refusal)
            raise

    def _deliver(self, call: Call[TrialRecord]) -> None:
        self.hand_over()
        try:
            self._end(self._connection.run(call))
        except FailedPrecondition as refusal:
            self._yield_to_others(refusal)

    def _attempt(self, call: Call[TrialRecord] | None) -> None:
        try:
            if call is not None:
                self._end(self._carry_out(call))
        except AskTellError as error:
            self._left(error)

    def _carry_out(self, call: Call[TrialRecord]) -> TrialRecord:
        """With all patience for a result; without, for a trial given back: whoever pressed Ctrl-C wants to leave."""
        if call.method == "ReleaseTrial":
            return self._connection.run_once(call, timeout=calls.LAST_TIMEOUT)
        return self._connection.run(call)
