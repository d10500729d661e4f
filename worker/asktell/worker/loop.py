"""Ask, evaluate, tell, until the study hands out no more trials."""

from __future__ import annotations

import logging
import time
import traceback
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from asktell.client import (
    Answer,
    AskTellError,
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    ResourceExhausted,
    Study,
    Trial,
    TrialState,
    Unavailable,
    outcomes,
    progress,
)
from asktell.client.spec import ParameterValue
from asktell.worker.course import Course, Notices, Summary
from asktell.worker.evaluation import Evaluator, Unusable
from asktell.worker.interruption import Interruption
from asktell.worker.outcome import Failed, Infeasible, Lost, Outcome, Released, Stopped, Succeeded
from asktell.worker.trust import Trust, Verdict

MAX_MESSAGE = 65_536
"""Characters of a message that the service keeps."""
MAX_EXCERPT = 1_000
"""Characters of refused metrics in a message: the reason follows them."""
WAIT_SECONDS = 5.0
"""How long to wait before asking again where the service does not say."""
AWAY_SECONDS = 2.0
"""How long to wait before trying again while the service is away."""
TRUST_SECONDS = 0.1
"""How often a slot that waits for others to show that the objective works looks whether they have."""

T = TypeVar("T")
Retry = Literal["never", "killed", "failed"]

logger = logging.getLogger("asktell.worker")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a worker works.

    Attributes:
        worker_id: Who asks; one id for each worker.
        lease_duration: Seconds that a claim lasts without renewal; the study's if None.
        max_trials: Trials after which this worker ends, with all its slots; None for no end.
        on_error: Whether a failed trial ends the worker: no slot takes another trial.
        max_failures_in_a_row: How many trials may fail here before any of the study has succeeded; 0 for no end. See `Trust`.
        retry: Which failed trials another worker may try again, while they have attempts left: none, those whose training was killed from
            outside (SIGKILL for want of memory, SIGTERM of a preemption), or all.
        patience: Seconds to go on trying while the service is away.
        farewell: Seconds to go on trying once the worker was told to end.
        fixed: Parameters that its trials have exactly so.
    """

    worker_id: str
    lease_duration: float | None = None
    max_trials: int | None = None
    on_error: Literal["continue", "stop"] = "continue"
    max_failures_in_a_row: int = 0
    retry: Retry = "killed"
    patience: float = 86_400.0
    farewell: float = 10.0
    fixed: Mapping[str, ParameterValue] = field(default_factory=dict)

    def of_slot(self, index: int) -> Options:
        """The options of one slot of several."""
        return replace(self, worker_id=f"{self.worker_id}-{index}")

    def course(self) -> Course:
        """A course that ends as these options say."""
        return Course(max_trials=self.max_trials, ends_at_failure=self.on_error == "stop")

    def trust(self, study: Study) -> Trust:
        """What the slots of a worker on a study go by."""
        limit = 0 if _has_succeeded(study) else self.max_failures_in_a_row
        return Trust(limit, is_proven=lambda: _is_proven(study))

    def tries_again(self, *, killed: bool) -> bool:
        """Whether a trial that failed shall be tried again."""
        return self.retry == "failed" or (killed and self.retry == "killed")


class Undelivered(Exception):
    """A result that the service did not take, as the message says it; the worker ends."""


@dataclass(frozen=True, slots=True)
class _Told:
    """What became of a trial here, what the service heard of it from this worker, None if its training told it itself, and why."""

    name: str
    outcome: Outcome | None
    message: str = ""

    @classmethod
    def by_training(cls, ended: Trial) -> _Told:
        """Of a trial that its training ended, as it stands."""
        return cls(
            ended.state.value, None, f"its training told so itself{': ' + ended.message if ended.message else ''}"
        )

    @property
    def words(self) -> str:
        """Why it ended so; empty where there is nothing to say."""
        said = self.outcome.message if isinstance(self.outcome, Failed | Infeasible | Stopped | Lost) else self.message
        return said.strip()


class Worker:
    """Works on a study, one trial at a time. Several that are slots of one worker share its course and notices."""

    def __init__(
        self,
        study: Study,
        evaluator: Evaluator,
        *,
        options: Options,
        interruption: Interruption,
        course: Course | None = None,
        notices: Notices | None = None,
        trust: Trust | None = None,
    ) -> None:
        self._study = study
        self._evaluator = evaluator
        self._options = options
        self._interruption = interruption
        self._course = course or options.course()
        self._notices = notices or Notices()
        self._trust = trust or options.trust(study)
        self._has_place = False
        self._closed = False

    def run(self) -> Summary:
        """Work until the study is closed, `max_trials` are done, trials fail where that is the end, or a signal comes.

        Raises:
            AskTellError: The study is gone, or the service is away for longer than the client retries.
            Unusable: The objective cannot be imported, or the program is not there.
            Undelivered: The service was away for too long to take a result; it is in the message.
        """
        try:
            while not self._ended():
                if self._has_place:
                    self._go_on()
        finally:
            self._evaluator.close()
            self._trust.left(self)
            self._notices.over("waiting", self)
        return self._course.summary

    def _ended(self) -> bool:
        if self._interruption.wished:
            self._course.close("interrupted")
            return True
        if self._closed or self._course.ends():
            return True
        # A place among the trials that are wanted stays this slot's until it has a trial.
        return not self._has_place and self._finds_no_place()

    def _finds_no_place(self) -> bool:
        """Look for a place; False too where there may be one in a while, which is waited for."""
        verdict = self._verdict()
        if verdict == "wait":
            self._wait_for_trust()
            return False
        if verdict == "end":
            self._course.give_up(self._trust.limit, last=self._trust.last_failure)
            return True
        self._has_place = self._course.may_take()
        return not self._has_place

    def _verdict(self) -> Verdict:
        try:
            return self._patiently("looking at the study", lambda: self._trust.may_take(self))
        except AskTellError as error:
            if self._interruption.wished and _away(error):
                return "wait"
            raise

    def _wait_for_trust(self) -> None:
        if self._notices.is_news("trust", self, "unproven"):
            logger.info(
                "%d trials failed in a row and none of the study has succeeded: no more until one under way does, or comes far beyond them",
                self._trust.limit,
            )
        self._interruption.wait(TRUST_SECONDS)

    def _go_on(self) -> None:
        self._evaluator.prepare()
        trial = None if self._interruption.wished else self._ask()
        if trial is not None:
            self._work(trial)

    def _ask(self) -> Trial | None:
        """Ask for a trial; wait a while if there is none now, and end if there will be none."""
        # One id however often it is repeated: an answer that was lost on its way holds a trial, which is this worker's.
        request_id = uuid.uuid4().hex
        try:
            answer = self._patiently("asking", lambda: self._ask_once(request_id))
        except AskTellError as error:
            if self._interruption.wished and _away(error):
                # Nothing is lost by leaving.
                return None
            raise
        if answer.trials:
            self._notices.over("waiting", self)
            self._has_place = False
            return answer.trials[0]
        reason = answer.reason.value.replace("_", " ") or "no trial to hand out"
        if answer.closed:
            self._closed = True
            self._course.close(f"the study hands out no more trials: {reason}")
            return None
        self._wait(reason, WAIT_SECONDS if answer.retry_after is None else answer.retry_after.total_seconds())
        return None

    def _ask_once(self, request_id: str) -> Answer[Trial]:
        return self._study.ask_once(
            worker_id=self._options.worker_id,
            lease_duration=self._options.lease_duration,
            fixed=self._options.fixed,
            request_id=request_id,
        )

    def _patiently(self, what: str, call: Callable[[], T]) -> T:
        """Carry out a call again and again while the service is away; a signal leaves it a short time to come back."""
        start = time.monotonic()
        while True:
            try:
                result = call()
            except AskTellError as error:
                if not _away(error) or self._out_of_patience(time.monotonic() - start):
                    raise
                if self._notices.is_news("away", self, "the service is away"):
                    logger.warning("%s: the service is away, trying on: %s", what, error)
                self._pause()
            else:
                self._notices.over("away", self)
                return result

    def _out_of_patience(self, waited: float) -> bool:
        return waited > (self._options.farewell if self._interruption.wished else self._options.patience)

    def _pause(self) -> None:
        if self._interruption.wait(AWAY_SECONDS):
            time.sleep(AWAY_SECONDS / 10)

    def _wait(self, reason: str, seconds: float) -> None:
        if self._notices.is_news("waiting", self, reason):
            logger.info("no trial for now (%s): asking again every %.3g s", reason, seconds)
        self._interruption.wait(seconds)

    def _work(self, trial: Trial) -> None:
        start = time.monotonic()
        self._trust.began(self)
        try:
            with trial.keep_alive():
                told = self._tell(trial, self._spared(trial, self._numeric(self._evaluate(trial))))
        except Undelivered:
            # The lease runs out; whoever has read the metrics may still tell them.
            raise
        except BaseException:
            trial.give_back()
            raise
        self._course.count(told.name)
        # One that another worker shall try again has cost nothing of the budget.
        queued_again = isinstance(told.outcome, Failed) and not trial.state.terminal
        self._trust.ended(
            self, outcome="released" if queued_again else told.name, message=f"trial {trial.number}: {told.words}"
        )
        _log(trial, told, seconds=time.monotonic() - start)

    def _evaluate(self, trial: Trial) -> Outcome:
        """Evaluate; whatever breaks on the way is the trial's failure, lest the trial go from worker to worker and break each."""
        try:
            return self._evaluator.evaluate(trial)
        except (Unusable, Unavailable, DeadlineExceeded, Cancelled):
            # They say nothing about the trial: it goes back.
            raise
        except Exception as error:
            logger.exception("trial %d could not be evaluated", trial.number)
            return Failed("".join(traceback.format_exception_only(error)).strip())

    def _numeric(self, outcome: Outcome) -> Outcome:
        """The outcome, but a failure where an objective is NaN: the training was over, and had nothing to say."""
        if not isinstance(outcome, Succeeded):
            return outcome
        lack = outcomes.lack(outcomes.metric_values(outcome.metrics), self._study.metrics)
        return Failed(lack, checkpoint_uri=outcome.checkpoint_uri) if lack else outcome

    def _spared(self, trial: Trial, outcome: Outcome) -> Outcome:
        """The outcome; but a trial that broke at once, where so many others have, goes back to the queue."""
        if not isinstance(outcome, Failed) or self._options.tries_again(killed=outcome.killed):
            return outcome
        if self._trust.may_fail(self):
            return outcome
        logger.warning("trial %d failed as well, and goes back to the queue: %s", trial.number, outcome.message.strip())
        return Released(outcome.checkpoint_uri)

    def _tell(self, trial: Trial, outcome: Outcome) -> _Told:
        """Tell the outcome, unless the training told another itself; return what was told."""
        if isinstance(outcome, Lost) and trial.lost and (ended := self._ended_by_training(trial)):
            return _Told.by_training(ended)
        try:
            told = self._patiently(f"telling trial {trial.number}", lambda: self._deliver(trial, outcome))
        except FailedPrecondition as error:
            if error.reason == "TRIAL_ENDED" and (ended := self._ended_by_training(trial)):
                return _Told.by_training(ended)
            logger.warning("trial %d: the service did not take the result: %s", trial.number, error)
            told = _Told("refused", outcome)
        except AskTellError as error:
            said = progress.numbers(outcome.metrics) if isinstance(outcome, Succeeded | Stopped) else ""
            raise Undelivered(
                f"trial {trial.number} {_name(outcome)} but could not be told: {error}{'; its metrics: ' + said if said else ''}"
            ) from error
        if trial.state.terminal:
            self._course.told(trial.number)
        return told

    def _ended_by_training(self, trial: Trial) -> Trial | None:
        """The trial as it stands if its training ended it, with the lease that it found in its environment; None if it did not.

        After an outage longer than the lease, two slots may have had the trial: the word of the one then ends the attempt of the other.
        """
        if self._course.has_told(trial.number):
            return None
        try:
            now = self._study.get_trial(trial.number)
        except AskTellError as error:
            logger.warning("trial %d: what became of it is not known: %s", trial.number, error)
            return None
        ours = now.attempt == trial.attempt and now.worker_id == self._options.worker_id
        told = now.state.terminal and now.state is not TrialState.CANCELLED
        return now if ours and told else None

    def _deliver(self, trial: Trial, outcome: Outcome) -> _Told:
        """Say the outcome; return what the service heard."""
        try:
            return _Told(self._say(trial, outcome), outcome)
        except (InvalidArgument, ResourceExhausted) as error:
            if _away(error):
                raise
            # Told as a failure at once, lest the trial stay active until its lease ends and be tried again to no avail.
            failed = Failed(_refused(outcome, error))
            return _Told(self._say(trial, failed), failed)

    def _say(self, trial: Trial, outcome: Outcome) -> str:
        match outcome:
            case Succeeded(metrics, checkpoint_uri):
                trial.tell(metrics, checkpoint_uri=checkpoint_uri)
                return trial.state.value
            case Stopped(message, metrics, checkpoint_uri):
                trial.stop(metrics, message=_clean(message), checkpoint_uri=checkpoint_uri)
            case Failed(message, killed, checkpoint_uri):
                retry = self._options.tries_again(killed=killed)
                trial.fail(_clean(message), retry=retry, checkpoint_uri=checkpoint_uri)
            case Infeasible(message):
                trial.infeasible(_clean(message))
            case Released(checkpoint_uri):
                trial.release(checkpoint_uri=checkpoint_uri)
            case Lost():
                # It is another's, or nobody's: there is nobody to tell.
                pass
        return _name(outcome)


def _is_proven(study: Study) -> bool:
    study.refresh()
    return _has_succeeded(study)


def _has_succeeded(study: Study) -> bool:
    """Whether a trial has, as far as is known here."""
    return study.counts.succeeded + study.counts.stopped > 0


def _away(error: AskTellError) -> bool:
    """Whether the same call may work later: nobody answers, or the service is too busy and says when it is not."""
    busy = isinstance(error, ResourceExhausted) and error.retry_delay is not None
    return busy or isinstance(error, Unavailable | DeadlineExceeded)


def _refused(outcome: Outcome, error: AskTellError) -> str:
    if isinstance(outcome, Succeeded | Stopped) and outcome.metrics:
        return f"the service refused the metrics {progress.numbers(outcome.metrics)[:MAX_EXCERPT]}: {error}"
    return f"{_name(outcome)}, but the service refused to hear it so: {error}"


def _clean(message: str) -> str:
    """The message as the service keeps it: its end, where the reason is, and no character that a database refuses."""
    return message.replace("\0", "\\0").encode("utf-8", "replace").decode()[-MAX_MESSAGE:]


def _name(outcome: Outcome) -> str:
    return type(outcome).__name__.lower()


def _log(trial: Trial, told: _Told, *, seconds: float) -> None:
    metrics = progress.numbers(told.outcome.metrics) if isinstance(told.outcome, Succeeded | Stopped) else ""
    level = logging.WARNING if told.name in ("failed", "lost", "refused") else logging.INFO
    logger.log(level, "%s", progress.ended(trial.number, told.name, seconds=seconds, metrics=metrics, words=told.words))
