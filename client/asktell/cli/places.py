"""Where on this machine things lie that belong to no study's database."""

from __future__ import annotations

from datetime import UTC
from pathlib import Path

import platformdirs

from asktell.client.views import TrialView

NO_LOGS = "none"
"""In the place of a directory: write none."""


class Homeless(Exception):
    """This user has no directory for what was to be kept there; the message says what to do."""


def logs(given: str | None) -> Path:
    """The directory of the logs of trials: the one given, else this user's, such as `~/.local/state/asktell/log`; Homeless without one."""
    if given:
        return Path(given).absolute()
    try:
        return platformdirs.user_log_path("asktell")
    except RuntimeError as error:
        raise Homeless(
            "this user has no home directory for the logs of trials: say where they are by --logs or ASKTELL_LOGS"
            f" (`{NO_LOGS}` writes none)"
        ) from error


def log_of_trial(root: Path, trial: TrialView) -> Path:
    """Where the output of a trial lies: `ROOT/PROJECT/STUDY/trial-N-TIME.log`, with the time at which the service made the trial.

    Studies of one name, of several databases or one after another, share a directory but no file.
    """
    _, project, _, study_id, _, number = trial.name.split("/")
    made = f"-{trial.create_time.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}" if trial.create_time else ""
    return root / project / study_id / f"trial-{number}{made}.log"
