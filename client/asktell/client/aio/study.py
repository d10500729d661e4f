"""A study, driven by asyncio."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeVar

from asktell.client import calls, channel, closure, table
from asktell.client.aio.connection import Connection
from asktell.client.aio.drawn import DrawnStudy
from asktell.client.aio.leases import LeaseKeeper
from asktell.client.aio.trial import Trial
from asktell.client.archive import OnProgress, Replacement, Writer, rewind
from asktell.client.calls import Call, Page, StudyUpdate
from asktell.client.current import Current
from asktell.client.errors import NotFound
from asktell.client.lineage import lineage
from asktell.client.outcomes import Told
from asktell.client.progress import Ticker, is_heard, is_wanted
from asktell.client.spec import ParameterSpec, ParameterValue
from asktell.client.stopping import StoppingRule
from asktell.client.together import Together
from asktell.client.trust import FAILURES_IN_A_ROW, Evaluation, Trust, require_objective
from asktell.client.turns import Turns, loops
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
Objective = Callable[[Trial], Awaitable[Told | None]]


class Study(DrawnStudy):
    """One optimisation problem with its history; made by `Client`. As `asktell.client.Study`, for `await` and `async for`."""

    def __init__(self, record: StudyRecord, *, connection: Connection, keeper: LeaseKeeper) -> None:
        super().__init__(record)
        self._connection = connection
        self._keeper = keeper

    async def refresh(self) -> None:
        """Read the study again."""
        self._record = await self._connection.run(calls.get_study(self.name))

    async def ask(
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
        answer = await self.ask_once(
            count, worker_id=worker_id, lease_duration=lease_duration, fixed=fixed, timeout=timeout
        )
        return list(answer.trials)

    async def ask_once(
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
        answer = await self._connection.run(call, timeout=timeout)
        trials = [self._trial(record, on_error=on_error) for record in answer.trials]
        return Answer(trials, answer.closed, answer.reason, answer.retry_after)

    async def trials(
        self,
        *,
        worker_id: str | None = None,
        on_error: OnError = "raise",
        lease_duration: Seconds | None = None,
        fixed: Mapping[str, ParameterValue] | None = None,
    ) -> AsyncGenerator[Trial, None]:
        """Trials to evaluate, one at a time, until the study is closed; waits while there is none for now.

        The lease of the current trial is renewed in the background. Leaving the loop gives an untold trial back. A turn that tells
        nothing raises FailedPrecondition at the next, unless the service asked the trial to stop (it is told so) or took it away.
        A loop cannot see an exception of its body: write `async with trial:` around the body to have it told as a failure; with
        on_error="continue" the loop then goes on with the next trial. To leave the loop early, put it into `contextlib.aclosing`: else
        the trial is given back only when the event loop finds the time.
        """
        turns = Turns()
        async with aclosing(
            self._turns(turns, worker_id=worker_id, on_error=on_error, lease_duration=lease_duration, fixed=fixed)
        ) as trials:
            async for trial in trials:
                yield trial

    async def _turns(
        self,
        turns: Turns,
        *,
        worker_id: str | None,
        on_error: OnError,
        lease_duration: Seconds | None = None,
        fixed: Mapping[str, ParameterValue] | None = None,
    ) -> AsyncGenerator[Trial, None]:
        while turns.take():
            trial = await self._next(
                turns, worker_id=worker_id, lease_duration=lease_duration, fixed=fixed, on_error=on_error
            )
            if trial is None:
                return
            turns.handed()
            async with trial.keep_alive():
                try:
                    yield trial
                except GeneratorExit:
                    await trial.give_back()
                    raise
                await trial.settle()

    async def _next(
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
            answer = await self.ask_once(
                worker_id=worker_id, lease_duration=lease_duration, fixed=fixed, on_error=on_error
            )
            if answer.trials:
                return answer.trials[0]
            if answer.closed:
                if turns.close():
                    await self.refresh()
                    closure.say(self._record, answer.reason, now=datetime.now(UTC), fixed=bool(fixed))
                return None
            if turns.wait(answer.reason):
                closure.say_waiting(self._record, answer.reason)
            await self._connection.pause(min(pause_before_next_ask(answer.retry_after), turns.left))
            if not turns.left:
                return None

    async def optimize(  # noqa: PLR0913 - one keyword for each choice about the loop.
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

        With `n_jobs` as many (-1: one a processor) are evaluated at once; an error lets the others finish their trials before it is raised,
        Ctrl-C or being cancelled breaks all off and gives them back.

        While none of the loop's trials has succeeded, the last exception is raised after `give_up_after` that failed in a row (None: never),
        and what the objective returned at once if it is no result: InvalidArgument, or FailedPrecondition for None. A trial that is
        infeasible begins the count anew. FailedPrecondition where there was no exception, as for NaN. An objective that does not take a trial
        is InvalidArgument before any is asked for.

        How each trial ended, the best so far and how many are done, as far as this loop knows, is logged by `asktell.client` at INFO. With
        `progress` it is printed to standard error; by default where that is a terminal or this a notebook, unless logging is set up.
        """
        require_objective(objective, awaited=True)
        trust, turns, ticker = Trust(give_up_after), Turns(count=count, timeout=timeout), await self._ticker(progress)

        async def evaluate(trial: Trial) -> None:
            evaluation = Evaluation()
            async with trial:
                with evaluation:
                    result = self._heard(evaluation.returned(await evaluation.awaitable(objective(trial))))
                    await trial.conclude(result)
            ticker.ended(trial, seconds=evaluation.seconds, why_is_said=trial.why_is_said)
            trust.weigh(trial, evaluation)
            for callback in callbacks:
                callback(self, trial)

        async def loop() -> None:
            async with aclosing(self._turns(turns, worker_id=worker_id, on_error=on_error)) as trials:
                try:
                    async for trial in trials:
                        if not turns.left:
                            return  # It came too late: leaving the loop gives it back.
                        await evaluate(trial)
                except Exception:
                    turns.end()
                    raise

        outcomes = await asyncio.gather(*(loop() for _ in range(loops(n_jobs))), return_exceptions=True)
        for error in outcomes:
            if error is not None:
                raise error
        await self.refresh()

    async def _ticker(self, progress: bool | None) -> Ticker:  # noqa: FBT001 - as `optimize` was told.
        shown = is_wanted(progress)
        if is_heard(shown=shown):
            await self.refresh()
        ticker = Ticker(self._record, shown=shown)
        if ticker.wants_best:
            ticker.begin_with(trial.record for trial in await self.optimal_trials())
        return ticker

    async def tell_all(self, results: Iterable[tuple[Trial, Told | Exception]]) -> None:
        """Tell what became of several trials in one call, as who evaluates many configurations at once: pairs of a trial and its metrics as
        `Trial.tell` takes them, or an exception, which is told as a failure. 1 to 1,000, each trial once.

        Each result counts by itself: if some are refused, as of a trial whose lease was lost, all others are told, and ResultsRefused says
        which and why. What cannot be told at all, as a missing objective, is an error before anything is sent. After Unavailable the same
        results can be told again: each counts once.
        """
        together = Together.of(self.name, results)
        for trial in together.trials:
            await trial.hand_over()
        together.take(await self._connection.run(together.call))

    async def enqueue(
        self, parameters: Mapping[str, ParameterValue], *, metadata: Mapping[str, str] | None = None
    ) -> Trial:
        """Add a configuration for a worker to evaluate before any other: every active parameter. NaN of one under a condition is none, as a
        row of `to_dataframe` has it where it was not active.
        """
        return self._trial(
            await self._connection.run(calls.enqueue(self.name, self._without_gaps(parameters), metadata=metadata))
        )

    async def enqueue_all(
        self, configurations: Iterable[Mapping[str, ParameterValue]], *, metadata: Mapping[str, str] | None = None
    ) -> list[Trial]:
        """Add configurations for workers to evaluate, in this order; 1,000 a call, each call all or none."""
        batches = calls.enqueue_all(self.name, configurations, metadata=metadata, tidied=self._without_gaps)
        return [self._trial(record) for call in batches for record in await self._connection.run(call)]

    async def import_trials(self, trials: Iterable[FinishedTrial], *, request_id: str | None = None) -> list[Trial]:
        """Add trials that ended elsewhere; 1,000 a call, each call all or none.

        The same trials with the same `request_id` again are added once (within 24 hours), whoever sends them.
        """
        batches = calls.import_trials(self.name, trials, request_id=request_id, tidied=self._without_gaps)
        return [self._trial(record) for call in batches for record in await self._connection.run(call)]

    async def list_trials(self, states: Iterable[TrialState] = (), *, worker_id: str = "") -> list[Trial]:
        """The trials in any of the states (all by default), of that worker (any by default), by number, without measurements."""
        first = calls.list_trials(self.name, states=list(states), worker_id=worker_id)
        return [self._trial(record) async for record in every(self._connection, first)]

    async def get_trial(self, number: int) -> Trial:
        """A trial with its measurements. NotFound if there is none."""
        return self._trial(await self._connection.run(calls.get_trial(self.name, number)))

    async def held_trial(self, which: Current) -> Trial:
        """A trial with a lease that another process of this worker asked for. FailedPrecondition if nobody holds it."""
        return self._trial(which.held(await self._connection.run(calls.get_trial(self.name, which.number)))).of_worker(
            which
        )

    async def best_trial(self) -> Trial | None:
        """The best feasible trial, as the service ranks them; None while there is none. FailedPrecondition with several objectives."""
        self._require_one_objective()
        return next(iter(await self.optimal_trials()), None)

    async def optimal_trials(self) -> list[Trial]:
        """The best feasible trial, or, with several objectives, the Pareto front, by number."""
        return [self._trial(record) for record in await self._connection.run(calls.list_optimal_trials(self.name))]

    async def lineage(self, number: int | None = None) -> list[Trial]:
        """Through which trials a training came: the best trial, or that of this number, and all whose checkpoints it went on from, the oldest
        first. Their parameters are the schedule. Empty while there is no best; NotFound for a number that there is not.
        """
        best = await self.best_trial() if number is None else None
        last = number if best is None else best.number
        return [] if last is None else lineage(await self.list_trials(), last)

    async def hypervolume(self) -> Hypervolume | None:
        """How much the Pareto front dominates, and how that came about; None but with two to four objectives and a front."""
        return await self._connection.run(calls.read_hypervolume(self.name))

    async def to_dataframe(self) -> pd.DataFrame:
        """All trials as a pandas table, one row each, without measurements. MissingExtra without `asktell[dataframe]`.

        Columns are `number`, `state`, `parameters.NAME` (NaN where not active), `metrics.NAME`, `metrics.NAME.standard_error`, `feasible`
        (None where that is not known), `duration` (end less start) and more about the trial, `metadata.KEY`.
        """
        return table.to_dataframe(self._record, [self._in_order(trial.record) for trial in await self.list_trials()])

    async def measurements(self) -> list[dict[str, Any]]:
        """All that trials reported on the way, for `pandas.DataFrame`: a row a step with `number`, `step`, `metrics.NAME` and `create_time`,
        by number and step. It is read in one call, which carries the whole history of the study.
        """
        return await self._connection.insist(self._measurements)

    async def _measurements(self) -> list[dict[str, Any]]:
        history = table.History()
        async with aclosing(self._connection.stream(calls.export_study(self.name))) as replies:
            async for reply in replies:
                history.take(reply)
        return history.whole()

    async def pause(self) -> None:
        """Hand out no trials for now; active ones go on."""
        self._record = await self._connection.run(calls.set_state(self.name, StudyState.PAUSED))

    async def resume(self) -> None:
        """Hand out trials again, also of a finished study."""
        self._record = await self._connection.run(calls.set_state(self.name, StudyState.ACTIVE))

    async def finish(self) -> None:
        """Hand out no trials any more; active ones may still be told."""
        self._record = await self._connection.run(calls.set_state(self.name, StudyState.FINISHED))

    async def update(
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
        self._record = await self._connection.run(calls.update_study(self.name, update))

    async def delete(self) -> None:
        """Remove the study with all its trials, for good. One that is gone is no error: it may be an attempt of ours whose reply was lost."""
        with suppress(NotFound):
            await self._connection.run(calls.delete_study(self.name))

    async def export(self, path: str | os.PathLike[str], *, progress: OnProgress | None = None) -> int:
        """Write the study with its whole history to a file, as it stands at one moment, for `Client.import_study`; how many trials.

        A file that is there is replaced once all is written. `asktell.client.archive` says what it looks like.
        """
        with Replacement(Path(path)) as file:
            return await self._connection.insist(partial(self._export, file, progress))

    async def export_lines(self, *, progress: OnProgress | None = None) -> AsyncGenerator[bytes, None]:
        """The lines of the file that `export` writes. Unavailable if the connection breaks in between."""
        writer = Writer(progress)
        async with aclosing(self._connection.stream(calls.export_study(self.name))) as replies:
            async for reply in replies:
                for line in writer.lines(reply):
                    yield line
        writer.require_end()

    async def _export(self, file: BinaryIO, progress: OnProgress | None) -> int:
        rewind(file)
        writer = Writer(progress)
        async with aclosing(self._connection.stream(calls.export_study(self.name))) as replies:
            async for reply in replies:
                await asyncio.to_thread(file.writelines, writer.lines(reply))
        writer.require_end()
        return writer.trials

    async def predict(self, points: Sequence[Mapping[str, ParameterValue]]) -> list[dict[str, Prediction]]:
        """What the surrogate expects at 1 to 1,000 points, every active parameter of each: for each point, metric -> prediction.

        Metrics are the objectives, then those with outcome constraints that two trials told.

        FailedPrecondition while fewer than two trials have finite results.
        """
        found = await self._connection.run(calls.predict(self.name, points))
        return self._predictions_in_order(found)

    async def importance(self, *, method: Literal["sobol", "ped-anova"] = "sobol") -> dict[str, dict[str, float]]:
        """Objective -> parameter -> share of the objective's variance, 0 to 1, the most important first.

        `sobol` has the total Sobol indices of the surrogate's mean over the whole space, whose sum is above 1 where parameters interact.
        `ped-anova` needs no surrogate but ten finite results: what distinguishes the best tenth of the trials, of sum 1.
        """
        return await self._connection.run(calls.importance(self.name, method=method))

    async def cross_validate(self) -> list[LeaveOneOut]:
        """How well the surrogate predicts each result from the others, by trial number; the standard deviations include the noise.

        FailedPrecondition while fewer than three trials have finite results. Of more than 1,000 trials, those that the model learns from.
        """
        return await self._connection.run(calls.cross_validate(self.name))

    async def watch(self, after: int = 0, *, until: int | None = None) -> AsyncGenerator[Change, None]:
        """The changes of the study and its trials after a sequence number, in order, each once; then waits for more, without end.

        A trial that changed several times before it could be sent comes once, as it stands. `after` is 0 for everything, `study.sequence`
        for what follows the last refresh, or the `sequence` of the last change seen, to go on in another process. With `until` the watch
        ends once everything up to that sequence number has come: `until=study.sequence` for what there is now.

        A stream that is cut goes on by itself, at whatever server answers, without gap or repeat; Unavailable if none does for as long as
        the client retries. NotFound once the study is deleted. FailedPrecondition (SEQUENCE_NOT_REACHED) if `after` lies beyond what the
        study has come to, as when it was restored from a backup: watch from 0. To leave early, put
        it into `contextlib.aclosing`.
        """
        while True:
            async with aclosing(self._connection.stream(calls.watch_study(self.name, after=after))) as stream:
                async for progress in stream:
                    for change in progress.changes:
                        yield self._change_in_order(change)
                    after = progress.sequence
                    if until is not None and after >= until:
                        return
            await self._connection.pause(channel.pause_before_next_stream())

    def _trial(self, record: TrialRecord, *, on_error: OnError = "raise") -> Trial:
        return Trial(
            self._in_order(record),
            objectives=self.metrics,
            on_report=self._hear_of_report,
            connection=self._connection,
            keeper=self._keeper,
            on_error=on_error,
        )


async def every(connection: Connection, first: Call[Page[ItemT]]) -> AsyncGenerator[ItemT, None]:
    """The items of all pages."""
    call: Call[Page[ItemT]] | None = first
    while call is not None:
        page = await connection.run(call)
        for item in page.items:
            yield item
        call = page.following
