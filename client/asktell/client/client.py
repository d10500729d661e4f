"""The way in: a client of the service, driven by threads."""

from __future__ import annotations

import atexit
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import grpc

from asktell.client import calls, channel, current, embedded
from asktell.client.archive import File, OnProgress
from asktell.client.calls import NewStudy
from asktell.client.connection import Connection
from asktell.client.current import Current
from asktell.client.errors import InvalidArgument
from asktell.client.leases import LeaseKeeper
from asktell.client.spec import Fidelity, Objective, OutcomeConstraint, ParameterSpec, Population
from asktell.client.stopping import StoppingRule
from asktell.client.study import Study, every
from asktell.client.trial import Trial
from asktell.client.values import LateTells, Seconds, StudyRecord, budget


class Client:
    """A connection to the service. Safe to share between threads, not over a fork. Close it, or use it as a context manager.

    Pickled, as a study is, it connects anew where it arrives, unless it has credentials.

    `target` is by default that of the environment variable ASKTELL_TARGET, else localhost:50051. `timeout` is the deadline of each
    attempt of a call and `retry_for` how long a call is repeated while the service is unavailable, such as while it restarts; both in
    seconds. `credentials` make the connection encrypted; by default the environment says whether it is, by ASKTELL_TLS, ASKTELL_TLS_CA,
    ASKTELL_TLS_CERT, ASKTELL_TLS_KEY and ASKTELL_TOKEN_FILE (see `deploy/README.md`).
    """

    _is_local = False

    def __init__(
        self,
        target: str | None = None,
        *,
        project: str = "default",
        timeout: float = 30.0,
        retry_for: float = 60.0,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self._project = project
        self._target = channel.target_or_default(target)
        self._connection = Connection(
            self._target, timeout=timeout, retry_for=retry_for, credentials=credentials, local=self._is_local
        )
        self._keeper = LeaseKeeper(self._connection)

    @staticmethod
    def from_environment() -> Client:
        """A client of the service and project that ASKTELL_TARGET and ASKTELL_PROJECT name, as `asktell work` sets them for its trials."""
        return Client(project=current.project())

    @staticmethod
    def local(
        path: str | os.PathLike[str] = "asktell.db",
        *,
        project: str = "default",
        timeout: float = 30.0,
        retry_for: float = 60.0,
        speculate: bool = True,
    ) -> LocalClient:
        """A client of a server embedded in this process, on a database file. MissingExtra without `asktell[server]`.

        The server listens on a port of 127.0.0.1, which every user of this machine can reach: where that matters, run `asktell serve` with
        certificates instead.

        `speculate`: the server prepares candidates while trials run, so that an ask need not wait. Without, what trials side by side get does
        not depend on how long they take; of two clients of one file the first one says.
        """
        return LocalClient(
            embedded.start(path, speculate=speculate), project=project, timeout=timeout, retry_for=retry_for
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._target}, project {self._project!r}>"

    @property
    def target(self) -> str:
        """Where the service is."""
        return self._target

    @property
    def project(self) -> str:
        """The namespace of the studies."""
        return self._project

    def close(self) -> None:
        """End the connection and the renewal of leases. A second time does nothing."""
        self._keeper.close()
        self._connection.close()

    def create_study(  # noqa: PLR0913 - one keyword for each field of a study.
        self,
        study_id: str,
        *,
        parameters: Sequence[ParameterSpec],
        objectives: Sequence[Objective],
        constraints: Sequence[str] = (),
        outcome_constraints: Sequence[OutcomeConstraint] = (),
        noisy: bool = False,
        warm_start: Sequence[str] = (),
        stopping_rule: StoppingRule | None = None,
        fidelity: Fidelity | None = None,
        population: Population | None = None,
        policy: str = "auto",
        seed: int | None = None,
        max_trials: int | None = None,
        max_duration: Seconds | None = None,
        max_failures: int | None = None,
        max_parallel: int | None = None,
        lease_duration: Seconds | None = None,
        max_attempts: int | None = None,
        late_tells: LateTells | Literal["accept", "refuse"] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Study:
        """Create a study, or get the one that is there with the same spec and budget; AlreadyExists if it has another.

        All trials meet the `constraints` between parameters, such as `"a + 2*b <= 1"` or `"width * depth <= 512"`; names that are not
        identifiers stand in backquotes. A trial is feasible if its metrics meet the `outcome_constraints`; only such a one is the best.
        `noisy`: the same parameters give another result each time, so that configurations may be tried again.
        `warm_start`: ids of earlier studies of the project to start from, the most alike first; what they found is tried early, and counts
        as far as it explains this study's own results.

        The `stopping_rule` says which trials may end early, by what they report: `trial.report(...).should_stop`.
        With a `fidelity`, such as `Fidelity("epochs")`, configurations start with few epochs, and the best of them go on to more.

        `policy` chooses candidates, repeatably for a `seed`: `auto` (`gp`, or `evolution` for a study too large for it), `gp`, `gp-botorch`,
        `evolution`, `cma-es`, `grid`, `sobol` or `random`; `pbt` trains a `population`, whose parameters change while it trains. The `max_*`
        limits are the budget: trials in all, time since creation, failed trials, trials active at one time. A worker's claim lasts
        `lease_duration` without renewal (60 s by default); a trial has `max_attempts` (3 by default); `late_tells` says what becomes of
        results whose lease was lost.
        """
        new = NewStudy(
            parameters=parameters,
            objectives=objectives,
            constraints=constraints,
            outcome_constraints=outcome_constraints,
            noisy=noisy,
            warm_start=warm_start,
            stopping_rule=stopping_rule,
            fidelity=fidelity,
            population=population,
            policy=policy,
            seed=seed,
            budget=budget(max_trials, max_duration, max_failures, max_parallel),
            lease_duration=lease_duration,
            max_attempts=max_attempts,
            late_tells=late_tells,
            labels=labels,
        )
        return self._study(self._connection.run(calls.create_study(self._project, study_id, new)))

    def get_study(self, study_id: str) -> Study:
        """A study. NotFound if there is none."""
        return self._study(self._connection.run(calls.get_study(calls.study_name(self._project, study_id))))

    def current_trial(self) -> Trial:
        """The trial that `asktell work` started this process for, to report to and to tell; the worker then tells nothing more.

        The worker keeps the lease. End soon after telling: the worker ends the process once it hears that the trial has ended.
        FailedPrecondition (NO_TRIAL) in any other process.
        """
        which = Current.of(os.environ)
        return self.get_study(which.study).held_trial(which)

    def list_studies(self) -> list[Study]:
        """The studies of the project, by name."""
        return [self._study(record) for record in every(self._connection, calls.list_studies(self._project))]

    def delete_study(self, study_id: str) -> None:
        """Remove a study with all its trials, for good. NotFound if there is none."""
        self._connection.run(calls.delete_study(calls.study_name(self._project, study_id)))

    def import_study(
        self, path: str | os.PathLike[str], study_id: str = "", *, progress: OnProgress | None = None
    ) -> Study:
        """Make a study from a file of `Study.export`: all of it, or nothing if anything is wrong; by default with its old id.

        If there is a study of that id already, it is returned if it equals the file, else AlreadyExists. What was active in the exported
        study is queued in the new one. InvalidArgument names the line and the field of what no export writes.
        """
        file = File(Path(path), progress)
        try:
            return self._study(self._connection.upload(calls.import_study(self._project, study_id, file)))
        except InvalidArgument as error:
            raise file.located(error) from error

    def _study(self, record: StudyRecord) -> Study:
        return Study(record, connection=self._connection, keeper=self._keeper)


class LocalClient(Client):
    """A client that has its server in this process, and stops it when it is closed, at the latest when the process ends."""

    _is_local = True

    def __init__(self, server: embedded.EmbeddedServer, *, project: str, timeout: float, retry_for: float) -> None:
        super().__init__(server.target, project=project, timeout=timeout, retry_for=retry_for)
        self._connection.bound = (
            "a client with its server in this process cannot be pickled, nor can its studies: run `asktell serve`,"
            " and open Client('host:port') in each process"
        )
        self._server = server
        atexit.register(self.close)

    def close(self) -> None:
        """End the connection, then the server. A second time does nothing."""
        if self._connection.closed:
            return
        atexit.unregister(self.close)
        super().close()
        self._server.close()
