"""A study, driven by threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeVar

from asktell.client import calls, channel, closure, table
from asktell.client.archive import OnProgress, Replacement, Writer, rewind
from asktell.client.calls import Call, Page, StudyUpdate
from asktell.client.connection import Connection
from asktell.client.current import Current
from asktell.client.drawn import DrawnStudy
from asktell.client.errors import NotFound
from asktell.client.leases import LeaseKeeper
from asktell.client.lineage import lineage
from asktell.client.outcomes import Told
from asktell.client.progress import Ticker, is_heard, is_wanted
from asktell.client.spec import ParameterSpec, ParameterValue
from asktell.client.stopping import StoppingRule
from asktell.client.together import Together
from asktell.client.trial import Trial
from asktell.client.trust import FAILURES_IN_A_ROW, Evaluation, Trust, require_objective
from asktell.client.turns import Turns, loops, side_by_side
from asktell.client.values import (
    KEEP,
    Answer,
    Change,
    FinishedTrial,
    Hypervolume,
    Keep,
    LeaveOneOut,
    OnError,
    Prediction,
    Seconds,
    StudyRecord,
    StudyState,
    TrialRecord,
    TrialState,
)
from asktell.client.views import pause_before_next_ask

if TYPE_CHECKING:
    import pandas as pd

ItemT = TypeVar("ItemT")
Objective = Callable[[Trial], Told | None]


class Study(DrawnStudy):
    """One optimisation problem with its history; made by `Client`. Safe to share between threads."""

    def __init__(self, record: StudyRecord, *, connection: Connection, keeper: LeaseKeeper) -> None:
        super().__init__(record)
        self._connection = connection
        self._keeper = keeper

    def refresh(self) -> None:
        """Read the study again."""
        self._record = self._connection.run(calls.get_study(self.name))

    def ask(
        self,
        count: int = 1,
        *,
        worker_id: str | None = None,
        lease_duration: Seconds | None = None,
        fixed: Mapping[str, ParameterValue] | None = None,
        timeout: float | None = None,
    ) -> list[Trial]:
        """Ask for trials: 1 to 1,000. There may be fewer, or none; `ask_once` says why.

        `worker_id` is by default this host and process. `fixed` are parameters that the trials must have exactly so. `timeout` is that of
        one attempt, in seconds. Nothing renews the leases: see `Trial.keep_alive`, `report`, or use `trials`.
        """
        answer = self.ask_once(count, worker_id=worker_id, lease_duration=lease_duration, fixed=fixed, timeout=timeout)
        return list(answer.trials)

    def ask_once(
        self,
        count: int = 1,
        *,
        worker_id: str | None = None,
        lease_duration: Seconds | None = None,
        fixed: Mapping[str, ParameterValue] | None = None,
        timeout: float | None = None,
        on_error: OnError = "raise",
        request_id: str | None = None,
    ) -> Answer[Trial]:
        """As `ask`, with why there are fewer trials than asked for, whether more will come, and when to ask again.

        `request_id` is for asking again after an ask whose fate is unknown (Unavailable, DeadlineExceeded): the same id gets the same
        trials, which would else be nobody's until their leases end. By default each ask has an id of its own.
        """
        call = calls.ask(
            self.name,
            count=count,
            worker_id=worker_id or channel.default_worker_id(),
            lease_duration=lease_duration,
            fixed=fixed,
            request_id=request_id,
        )
        answer = self._connection.run(call, timeout=timeout)
        trials = [self._trial(record, on_error=on_error) for record in answer.trials]
        return Answer(trials, answer.closed, answer.reason, answer.retry_after)

    def trials(
        self,
        *,
        worker_id: str | None = None,
        on_error: OnError = "raise",
        lease_duration: Seconds | None = None,
        fixed: Mapping[str, ParameterValue] | None = None,
    ) -> Generator[Trial, None, None]:
        """Trials to evaluate, one at a time, until the study is closed; waits while there is none for now.

        The lease of the current trial is renewed in the background. Leaving the loop gives an untold trial back. A turn that tells
        nothing raises FailedPrecondition at the next, unless the service asked the trial to stop (it is told so) or took it away.
        A loop cannot see an exception of its body: write `with trial:` around the body to have it told as a failure; with
        on_error="continue" the loop then goes on with the next trial.
        """
        return self._turns(Turns(), worker_id=worker_id, on_error=on_error, lease_duration=lease_duration, fixed=fixed)

    def _turns(
        self,
        turns: Turns,
        *,
        worker_id: str | None,
        on_error: OnError,
        lease_duration: Seconds | None = None,
        fixed: Mapping[str, ParameterValue] | None = None,
    ) -> Generator[Trial, None, None]:
        while turns.take():
            trial = self._next(
                turns, worker_id=worker_id, lease_duration=lease_duration, fixed=fixed, on_error=on_error
            )
            if trial is None:
                return
            turns.handed()
            yield from self._lend(trial)

    def _next(
        self,
        turns: Turns,
        *,
        worker_id: str | None,
        on_error: OnError,
        lease_duration: Seconds | None,
        fixed: Mapping[str, ParameterValue] | None,
    ) -> Trial | None:
        """The next trial, waited for; None if there will be none in time."""
        while True:
            answer = self.ask_once(worker_id=worker_id, lease_duration=lease_duration, fixed=fixed, on_error=on_error)
            if answer.trials:
                return answer.trials[0]
            if answer.closed:
                if turns.close():
                    self.refresh()
                    closure.say(self._record, answer.reason, now=datetime.now(UTC), fixed=bool(fixed))
                return None
            if turns.wait(answer.reason):
                closure.say_waiting(self._record, answer.reason)
            self._connection.pause(min(pause_before_next_ask(answer.retry_after), turns.left))
            if not turns.left:
                return None

    def _lend(self, trial: Trial) -> Iterator[Trial]:
        with trial.keep_alive():
            try:
                yield trial
            except GeneratorExit:
                trial.give_back()
                raise
            trial.settle()

    def optimize(  # noqa: PLR0913 - one keyword for each choice about the loop.
        self,
        objective: Objective,
        *,
        worker_id: str | None = None,
        count: int | None = None,
        timeout: Seconds | None = None,
        n_jobs: int = 1,
        on_error: OnError = "continue",
        give_up_after: int | None = FAILURES_IN_A_ROW,
        progress: bool | None = None,
        callbacks: Sequence[Callable[[Study, Trial], None]] = (),
    ) -> None:
        """Evaluate trials with `objective` until the study is closed, at most `count` of them; after `timeout` seconds none begins.

        The objective gets the trial and returns its metrics as `Trial.tell` takes them, or None if it ended the trial itself or was told
        to stop. NaN is told as a failure. Its exceptions are told as failures with their message, and the loop goes on or they are
        raised. Ctrl-C gives the trial back. Each callback gets the study and the trial after it ended.

        With `n_jobs` as many threads (-1: one a processor) evaluate at once; callbacks are called one at a time, and an error lets the
        others finish their trials before it is raised. Ctrl-C gives all trials back; an objective under way in a thread is not broken off,
        its result is dropped. What holds Python's interpreter lock gains nothing by threads: see `asktell work --slots`.

        While none of the loop's trials has succeeded, the last exception is raised after `give_up_after` that failed in a row (None: never),
        and what the objective returned at once if it is no result: InvalidArgument, or FailedPrecondition for None. A trial that is
        infeasible begins the count anew. FailedPrecondition where there was no exception, as for NaN. An objective that does not take a trial
        is InvalidArgument before any is asked for.

        How each trial ended, the best so far and how many are done, as far as this loop knows, is logged by `asktell.client` at INFO. With
        `progress` it is printed to standard error; by default where that is a terminal or this a notebook, unless logging is set up.
        """
        require_objective(objective)
        trust, turns, ticker = Trust(give_up_after), Turns(count=count, timeout=timeout), self._ticker(progress)
        one_at_a_time = threading.Lock()

        def evaluate(trial: Trial) -> None:
            evaluation = Evaluation()
            with trial, evaluation:
                trial.conclude(self._heard(evaluation.returned(objective(trial))))
            ticker.ended(trial, seconds=evaluation.seconds, why_is_said=trial.why_is_said)
            trust.weigh(trial, evaluation)
            with one_at_a_time:
                for callback in callbacks:
                    callback(self, trial)

        running: set[Trial] = set()

        def loop() -> None:
            with closing(self._turns(turns, worker_id=worker_id, on_error=on_error)) as trials:
                for trial in trials:
                    running.add(trial)
                    try:
                        if not turns.left:
                            return  # It came too late: leaving the loop gives it back.
                        evaluate(trial)
                    finally:
                        running.discard(trial)

        _run(loop, loops(n_jobs), turns, running)
        self.refresh()

    def _ticker(self, progress: bool | None) -> Ticker:  # noqa: FBT001 - as `optimize` was told.
        shown = is_wanted(progress)
        if is_heard(shown=shown):
            self.refresh()
        ticker = Ticker(self._record, shown=shown)
        if ticker.wants_best:
            ticker.begin_with(trial.record for trial in self.optimal_trials())
        return ticker

    def tell_all(self, results: Iterable[tuple[Trial, Told | Exception]]) -> None:
        """Tell what became of several trials in one call, as who evaluates many configurations at once: pairs of a trial and its metrics as
        `Trial.tell` takes them, or an exception, which is told as a failure. 1 to 1,000, each trial once.

        Each result counts by itself: if some are refused, as of a trial whose lease was lost, all others are told, and ResultsRefused says
        which and why. What cannot be told at all, as a missing objective, is an error before anything is sent. After Unavailable the same
        results can be told again: each counts once.
        """
        together = Together.of(self.name, results)
        for trial in together.trials:
            trial.hand_over()
        together.take(self._connection.run(together.call))

    def enqueue(self, parameters: Mapping[str, ParameterValue], *, metadata: Mapping[str, str] | None = None) -> Trial:
        """Add a configuration for a worker to evaluate before any other: every active parameter. NaN of one under a condition is none, as a
        row of `to_dataframe` has it where it was not active.
        """
        return self._trial(
            self._connection.run(calls.enqueue(self.name, self._without_gaps(parameters), metadata=metadata))
        )

    def enqueue_all(
        self, configurations: Iterable[Mapping[str, ParameterValue]], *, metadata: Mapping[str, str] | None = None
    ) -> list[Trial]:
        """Add configurations for workers to evaluate, in this order; 1,000 a call, each call all or none."""
        batches = calls.enqueue_all(self.name, configurations, metadata=metadata, tidied=self._without_gaps)
        return [self._trial(record) for call in batches for record in self._connection.run(call)]

    def import_trials(self, trials: Iterable[FinishedTrial], *, request_id: str | None = None) -> list[Trial]:
        """Add trials that ended elsewhere; 1,000 a call, each call all or none.

        The same trials with the same `request_id` again are added once (within 24 hours), whoever sends them.
        """
        batches = calls.import_trials(self.name, trials, request_id=request_id, tidied=self._without_gaps)
        return [self._trial(record) for call in batches for record in self._connection.run(call)]

    def list_trials(self, states: Iterable[TrialState] = (), *, worker_id: str = "") -> list[Trial]:
        """The trials in any of the states (all by default), of that worker (any by default), by number, without measurements."""
        first = calls.list_trials(self.name, states=list(states), worker_id=worker_id)
        return [self._trial(record) for record in every(self._connection, first)]

    def get_trial(self, number: int) -> Trial:
        """A trial with its measurements. NotFound if there is none."""
        return self._trial(self._connection.run(calls.get_trial(self.name, number)))

    def held_trial(self, which: Current) -> Trial:
        """A trial with a lease that another process of this worker asked for. FailedPrecondition if nobody holds it."""
        return self._trial(which.held(self._connection.run(calls.get_trial(self.name, which.number)))).of_worker(which)

    @property
    def best_trial(self) -> Trial | None:
        """The best feasible trial, as the service ranks them; None while there is none. FailedPrecondition with several objectives."""
        self._require_one_objective()
        return next(iter(self.optimal_trials()), None)

    def optimal_trials(self) -> list[Trial]:
        """The best feasible trial, or, with several objectives, the Pareto front, by number."""
        return [self._trial(record) for record in self._connection.run(calls.list_optimal_trials(self.name))]

    def lineage(self, number: int | None = None) -> list[Trial]:
        """Through which trials a training came: the best trial, or that of this number, and all whose checkpoints it went on from, the oldest
        first. Their parameters are the schedule. Empty while there is no best; NotFound for a number that there is not.
        """
        best = self.best_trial if number is None else None
        last = number if best is None else best.number
        return [] if last is None else lineage(self.list_trials(), last)

    def hypervolume(self) -> Hypervolume | None:
        """How much the Pareto front dominates, and how that came about; None but with two to four objectives and a front."""
        return self._connection.run(calls.read_hypervolume(self.name))

    def to_dataframe(self) -> pd.DataFrame:
        """All trials as a pandas table, one row each, without measurements. MissingExtra without `asktell[dataframe]`.

        Columns are `number`, `state`, `parameters.NAME` (NaN where not active), `metrics.NAME`, `metrics.NAME.standard_error`, `feasible`
        (None where that is not known), `duration` (end less start) and more about the trial, `metadata.KEY`.
        """
        return table.to_dataframe(self._record, [self._in_order(trial.record) for trial in self.list_trials()])

    def measurements(self) -> list[dict[str, Any]]:
        """All that trials reported on the way, for `pandas.DataFrame`: a row a step with `number`, `step`, `metrics.NAME` and `create_time`,
        by number and step. It is read in one call, which carries the whole history of the study.
        """
        return self._connection.insist(self._measurements)

    def _measurements(self) -> list[dict[str, Any]]:
        history = table.History()
        for reply in self._connection.stream(calls.export_study(self.name)):
            history.take(reply)
        return history.whole()

    def pause(self) -> None:
        """Hand out no trials for now; active ones go on."""
        self._record = self._connection.run(calls.set_state(self.name, StudyState.PAUSED))

    def resume(self) -> None:
        """Hand out trials again, also of a finished study."""
        self._record = self._connection.run(calls.set_state(self.name, StudyState.ACTIVE))

    def finish(self) -> None:
        """Hand out no trials any more; active ones may still be told."""
        self._record = self._connection.run(calls.set_state(self.name, StudyState.FINISHED))

    def update(
        self,
        *,
        max_trials: int | Keep | None = KEEP,
        max_duration: Seconds | Keep | None = KEEP,
        max_failures: int | Keep | None = KEEP,
        max_parallel: int | Keep | None = KEEP,
        labels: Mapping[str, str] | Keep = KEEP,
        label_changes: Mapping[str, str | None] | Keep = KEEP,
        parameters: Sequence[ParameterSpec] | Keep = KEEP,
        stopping_rule: StoppingRule | Keep | None = KEEP,
    ) -> None:
        """Change limits (None is unlimited), labels, the search space or the stopping rule (None: no trial is stopped any more); what is
        not given stays as the service has it, whoever else changes it at the same time.

        `labels` replaces all labels. `label_changes` sets those that it names and leaves all others; None removes one.
        """
        update = StudyUpdate(
            max_trials=max_trials,
            max_duration=max_duration,
            max_failures=max_failures,
            max_parallel=max_parallel,
            labels=labels,
            label_changes=label_changes,
            parameters=parameters,
            stopping_rule=stopping_rule,
        )
        self._record = self._connection.run(calls.update_study(self.name, update))

    def delete(self) -> None:
        """Remove the study with all its trials, for good. One that is gone is no error: it may be an attempt of ours whose reply was lost."""
        with suppress(NotFound):
            self._connection.run(calls.delete_study(self.name))

    def export(self, path: str | os.PathLike[str], *, progress: OnProgress | None = None) -> int:
        """Write the study with its whole history to a file, as it stands at one moment, for `Client.import_study`; how many trials.

        A file that is there is replaced once all is written. `asktell.client.archive` says what it looks like.
        """
        with Replacement(Path(path)) as file:
            return self._connection.insist(lambda: self._export(file, progress))

    def export_lines(self, *, progress: OnProgress | None = None) -> Iterator[bytes]:
        """The lines of the file that `export` writes. Unavailable if the connection breaks in between."""
        return self._export_lines(Writer(progress))

    def _export_lines(self, writer: Writer) -> Iterator[bytes]:
        for reply in self._connection.stream(calls.export_study(self.name)):
            yield from writer.lines(reply)
        writer.require_end()

    def _export(self, file: BinaryIO, progress: OnProgress | None) -> int:
        rewind(file)
        writer = Writer(progress)
        file.writelines(self._export_lines(writer))
        return writer.trials

    def predict(self, points: Sequence[Mapping[str, ParameterValue]]) -> list[dict[str, Prediction]]:
        """What the surrogate expects at 1 to 1,000 points, every active parameter of each: for each point, metric -> prediction.

        Metrics are the objectives, then those with outcome constraints that two trials told.

        FailedPrecondition while fewer than two trials have finite results.
        """
        found = self._connection.run(calls.predict(self.name, points))
        return self._predictions_in_order(found)

    def importance(self, *, method: Literal["sobol", "ped-anova"] = "sobol") -> dict[str, dict[str, float]]:
        """Objective -> parameter -> share of the objective's variance, 0 to 1, the most important first.

        `sobol` has the total Sobol indices of the surrogate's mean over the whole space, whose sum is above 1 where parameters interact.
        `ped-anova` needs no surrogate but ten finite results: what distinguishes the best tenth of the trials, of sum 1.
        """
        return self._connection.run(calls.importance(self.name, method=method))

    def cross_validate(self) -> list[LeaveOneOut]:
        """How well the surrogate predicts each result from the others, by trial number; the standard deviations include the noise.

        FailedPrecondition while fewer than three trials have finite results. Of more than 1,000 trials, those that the model learns from.
        """
        return self._connection.run(calls.cross_validate(self.name))

    def watch(self, after: int = 0, *, until: int | None = None) -> Generator[Change, None, None]:
        """The changes of the study and its trials after a sequence number, in order, each once; then waits for more, without end.

        A trial that changed several times before it could be sent comes once, as it stands. `after` is 0 for everything, `study.sequence`
        for what follows the last refresh, or the `sequence` of the last change seen, to go on in another process. With `until` the watch
        ends once everything up to that sequence number has come: `until=study.sequence` for what there is now.

        A stream that is cut goes on by itself, at whatever server answers, without gap or repeat; Unavailable if none does for as long as
        the client retries. NotFound once the study is deleted. FailedPrecondition (SEQUENCE_NOT_REACHED) if `after` lies beyond what the
        study has come to, as when it was restored from a backup: watch from 0. `close()` ends the
        watch.
        """
        while True:
            with closing(self._connection.stream(calls.watch_study(self.name, after=after))) as stream:
                for progress in stream:
                    yield from map(self._change_in_order, progress.changes)
                    after = progress.sequence
                    if until is not None and after >= until:
                        return
            self._connection.pause(channel.pause_before_next_stream())

    def _trial(self, record: TrialRecord, *, on_error: OnError = "raise") -> Trial:
        return Trial(
            self._in_order(record),
            objectives=self.metrics,
            on_report=self._hear_of_report,
            connection=self._connection,
            keeper=self._keeper,
            on_error=on_error,
        )


def _run(loop: Callable[[], None], size: int, turns: Turns, running: set[Trial]) -> None:
    """Run a loop in as many threads, in this one if it is one; what breaks them all off gives back the trials that are `running`."""
    if size == 1:
        loop()
        return
    try:
        side_by_side(loop, size, turns)
    except BaseException:
        turns.end()
        for trial in list(running):
            trial.give_back()
        raise


def every(connection: Connection, first: Call[Page[ItemT]]) -> Iterator[ItemT]:
    """The items of all pages."""
    call: Call[Page[ItemT]] | None = first
    while call is not None:
        page = connection.run(call)
        yield from page.items
        call = page.following
