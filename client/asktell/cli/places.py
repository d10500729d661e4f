"""Where on this machine things lie that belong to no study's database."""

from __future__ import annotations

from pathlib import Path

import platformdirs

NO_LOGS = "none"
"""In the place of a directory: write none."""


def logs(given: str | None) -> Path:
    """The directory of the logs of trials: the one given, else this user's, such as `~/.local/state/asktell/log`."""
    return Path(given).absolute() if given else platformdirs.user_log_path("asktell")


def log_of_trial(root: Path, *, study: str, number: int) -> Path:
    """Where the output of a trial lies: `ROOT/PROJECT/STUDY/trial-N.log`; `study` is `projects/{project}/studies/{study}`."""
    _, project, _, study_id = study.split("/")
    return root / project / study_id / f"trial-{number}.log"
