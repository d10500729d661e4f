"""`asktell study lineage`: through which intervals a training came, and with which parameters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from asktell.cli import document, tables
from asktell.cli.failure import Refused
from asktell.cli.plots import require_format
from asktell.cli.service import ANYWHERE, Json, Service
from asktell.client.lineage import lineage as line_of


def lineage(
    name: str,
    trial: Annotated[int | None, Parameter(show_default=False)] = None,
    /,
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"], show_default=False)] = None,
    service: Service = ANYWHERE,
    as_json: Json = False,
) -> None:
    """Show through which trials a training came: the schedule of parameters that population based training found, or a fidelity's rungs.

    With `--json`, a list of trials, the oldest first.

    For example: `asktell study lineage digits --output schedule.png`

    Parameters
    ----------
    name
        The study.
    trial
        The trial that the training came to; the best one if not given.
    output
        Also draw all trainings, this one in colour: PNG, SVG or PDF by the ending of the name. Takes the `plot` extra.
    """
    if output is not None:
        require_format(output)
    with service.study(name) as study:
        best = None if trial is not None else study.best_trial
        number = trial if best is None else best.number
        if number is None:
            raise Refused(tables.no_best(study.record))
        records = [each.record for each in study.list_trials()]
        line = line_of(records, number)
        if output is not None:
            study.plot_lineage(number).savefig(output)
    if as_json:
        print(json.dumps([document.of_trial(record) for record in line], ensure_ascii=False, indent=2))
    else:
        tables.show(tables.trials(line, study.record))
