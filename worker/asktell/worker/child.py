"""What runs in the process of a Python objective: it takes parameters from the worker and gives back what the objective says.

Messages are JSON objects, one a line, over a socket that the worker opened. The objective is called as `objective(parameters, trial)`. It
returns a number (with one objective), a mapping of metrics to numbers or to pairs of value and standard error, or None if it has told its
result by `trial.tell`, `trial.fail` or `trial.infeasible`.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from asktell.signatures import misfit

Metric = float | tuple[float, float]
Objective = Callable[[dict[str, Any], "ObjectiveTrial"], Any]

MAX_MESSAGE = 65_536
"""Characters of a message that the service keeps."""
MAX_STEP = 2**63 - 1


class Unloadable(Exception):
    """The objective cannot be imported or is not callable."""


class Uncallable(Exception):
    """The objective takes other arguments than the worker has."""


@dataclass(frozen=True, slots=True)
class Directive:
    """Whether to go on."""

    should_stop: bool
    message: str = ""


class Channel:
    """The line to the worker."""

    def __init__(self, connection: socket.socket) -> None:
        self._file = connection.makefile("rw", encoding="utf-8", newline="\n")

    def send(self, kind: str, **members: object) -> None:
        """Send one message."""
        self._file.write(json.dumps({"kind": kind, **members}) + "\n")
        self._file.flush()

    def receive(self) -> dict[str, Any] | None:
        """Return the next message; None once the worker hung up."""
        line = self._file.readline()
        return json.loads(line) if line else None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.receive, None)


class Preemption:
    """SIGTERM, which ends the objective by SystemExit, or, if it asks whether there was one, is an answer."""

    def __init__(self) -> None:
        self.asked_for = False
        self.wished = False
        self.noticed = False

    def handle(self, _number: int, _frame: FrameType | None) -> None:
        """Take the signal."""
        self.wished = True
        if not self.asked_for:
            # `finally` clauses run, so that an objective may save its state and end processes of its own.
            raise SystemExit(128 + signal.SIGTERM)

    def notice(self) -> bool:
        """Whether there was a signal; from now on the objective is expected to ask again."""
        self.asked_for = True
        self.noticed = self.wished
        return self.wished


class ObjectiveTrial:
    """The trial in the hands of an objective.

    Attributes:
        number: 1, 2, 3 and so on in the study.
        parameters: Values of the active parameters by name.
        attempt: How many times the trial was handed out, this time included.
        checkpoint_uri: Where the last attempt left its state; empty if nowhere.
        checkpoint_dir: A directory for the trial's state, which holds what the last attempt left; None if the worker has no --checkpoints.
        should_stop: Whether the service wants the trial to end, as of the last report.
    """

    def __init__(self, request: Mapping[str, Any], channel: Channel, preemption: Preemption) -> None:
        self.number: int = request["number"]
        self.parameters: dict[str, Any] = dict(request["parameters"])
        self.attempt: int = request["attempt"]
        self.checkpoint_uri: str = request["checkpoint_uri"]
        self.checkpoint_dir: Path | None = Path(request["checkpoint_dir"]) if request["checkpoint_dir"] else None
        self.should_stop = False
        self._channel = channel
        self._preemption = preemption
        self.outcome: tuple[str, dict[str, Any]] | None = None

    @property
    def preempted(self) -> bool:
        """Whether the worker has to leave and the trial goes back: save the state, then return or raise, whatever; no result counts.

        Without this, SIGTERM raises SystemExit in the midst of the objective. An objective that reads it is not interrupted so, and is
        expected to read it every few seconds: after the worker's `--grace` it is killed.
        """
        return self._preemption.notice()

    def report(
        self, metrics: Mapping[str, Any] | None = None, *, step: int, checkpoint_uri: str = "", **named: Any
    ) -> Directive:
        """Send metrics at a step (0 or more) and learn whether to go on; leave the objective soon if not, the worker ends it otherwise.

        `checkpoint_uri` is where the state lies, for an objective that has a store of its own; what lies in `checkpoint_dir` needs no word.

        Raises:
            TypeError: A metric is not a number, or the step not a whole one.
            ValueError: There is no metric, or the step is below 0 or above 2**63 - 1.
        """
        values = numbers({**(metrics or {}), **named})
        if isinstance(step, bool) or not hasattr(step, "__index__"):
            raise TypeError(f"step is {step!r}, not a whole number")
        if not 0 <= int(step) <= MAX_STEP or not values:
            raise ValueError(
                f"a report has a step from 0 to 2**63 - 1 and a metric, not step {step} and metrics {values}"
            )
        return self._send("report", step=int(step), metrics=values, checkpoint_uri=str(checkpoint_uri))

    def checkpoint(self, uri: str) -> Directive:
        """Say where the state lies, complete, for an objective that has a store of its own, and learn whether to go on."""
        return self._send("checkpoint", checkpoint_uri=str(uri))

    def _send(self, kind: str, **members: object) -> Directive:
        self._channel.send(kind, **members)
        reply = self._channel.receive() or {"should_stop": True, "message": "the worker is gone"}
        self.should_stop = reply["should_stop"]
        return Directive(reply["should_stop"], reply["message"])

    @property
    def left_early(self) -> bool:
        """Whether the objective ended after it noticed that it was preempted."""
        return self._preemption.noticed

    def tell(self, metrics: Mapping[str, Any] | None = None, **named: Any) -> None:
        """Give the result, instead of returning it."""
        self.outcome = ("result", {"metrics": numbers({**(metrics or {}), **named})})

    def fail(self, message: str) -> None:
        """Say that the attempt broke, instead of raising."""
        self.outcome = ("failed", {"message": message[-MAX_MESSAGE:]})

    def infeasible(self, message: str = "") -> None:
        """Say that these parameters cannot work."""
        self.outcome = ("infeasible", {"message": message[-MAX_MESSAGE:]})


def load(target: str) -> Objective:
    """Return the function that `module:function` names, or raise Unloadable."""
    module_name, _, attribute = target.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise Unloadable(f"no module {error.name!r} in {Path.cwd()} or on the Python path") from error
        raise Unloadable(f"importing {module_name} failed:\n{_trace(error)}") from error
    except (Exception, SystemExit) as error:
        raise Unloadable(f"importing {module_name} failed:\n{_trace(error)}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise Unloadable(f"module {module_name} ({getattr(found, '__file__', '')}) has no {attribute!r}")
        found = getattr(found, part)
    if not callable(found):
        raise Unloadable(f"{target} is {type(found).__name__}, not a function")
    return found  # type: ignore[no-any-return]


def require_fit(target: str, objective: Objective) -> None:
    """Raise Uncallable if the objective takes no parameters and trial. Of a callable that does not say what it takes nothing is known."""
    if takes := misfit(objective, {}, None):
        raise Uncallable(f"{target} takes {takes}; asktell work calls it with (parameters, trial)")


def numbers(metrics: Mapping[str, Any]) -> dict[str, Metric]:
    """Return metrics as plain floats or pairs of them, or raise TypeError that names the one which is none."""
    return {str(name): _metric(str(name), value) for name, value in metrics.items()}


def _metric(name: str, value: Any) -> Metric:
    if isinstance(value, tuple | list) and len(value) == 2:
        return _number(name, value[0]), _number(name, value[1])
    return _number(name, value)


def _number(name: str, value: Any) -> float:
    if isinstance(value, str | bytes | bool) or value is None:
        raise TypeError(f"{name} is {value!r}, not a number")
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"{name} is {value!r}, not a number") from error


def evaluate(objective: Objective, trial: ObjectiveTrial, *, names: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Call the objective; return the kind and members of the message that says what became of it."""
    try:
        returned = objective(trial.parameters, trial)
    except Exception as error:  # noqa: BLE001 - whatever the objective raises is the trial's failure.
        if trial.left_early:
            return "preempted", {}
        return "failed", {"message": _trace(error)}
    if trial.left_early:
        return "preempted", {}
    try:
        return trial.outcome or ("result", {"metrics": _result(returned, names)})
    except (TypeError, ValueError) as error:
        return "failed", {"message": f"{type(error).__name__}: {error}"}


def _result(returned: Any, names: Sequence[str]) -> dict[str, Metric]:
    if returned is None:
        raise TypeError(f"the objective returned None and told nothing: return {_wanted(names)}")
    if isinstance(returned, Mapping):
        metrics = numbers(returned)
    elif len(names) == 1:
        metrics = numbers({names[0]: returned})
    else:
        raise TypeError(f"the objective returned {returned!r}: return {_wanted(names)}")
    if missing := [name for name in names if name not in metrics]:
        raise ValueError(
            f"the objective returned no {', '.join(missing)}, only {', '.join(metrics) or 'an empty mapping'}"
        )
    return metrics


def _wanted(names: Sequence[str]) -> str:
    mapping = "{" + ", ".join(f'"{name}": ...' for name in names) + "}"
    return f"a number, or {mapping}" if len(names) == 1 else mapping


def _trace(error: BaseException) -> str:
    # The outermost frames are this module's and the import system's: they say nothing about the objective.
    place = error.__traceback__
    while place is not None and place.tb_next is not None and _is_plumbing(place.tb_frame):
        place = place.tb_next
    return "".join(traceback.format_exception(type(error), error, place))[-MAX_MESSAGE:].rstrip()


def _is_plumbing(frame: FrameType) -> bool:
    name = frame.f_code.co_filename
    return name == __file__ or name.startswith("<frozen importlib") or name == importlib.__file__


def main(target: str, descriptor: int) -> None:
    """Serve the worker until it hangs up."""
    faulthandler.enable()
    preemption = Preemption()
    signal.signal(signal.SIGTERM, preemption.handle)
    sys.path.insert(0, str(Path.cwd()))
    channel = Channel(socket.socket(fileno=descriptor))
    try:
        objective = load(target)
        require_fit(target, objective)
    except Unloadable as error:
        channel.send("broken", message=str(error))
        return
    except Uncallable as error:
        channel.send("uncallable", message=str(error))
        return
    channel.send("ready")
    for request in channel:
        trial = ObjectiveTrial(request, channel, preemption)
        kind, members = evaluate(objective, trial, names=request["objectives"])
        # Between trials nobody asks whether there was a signal.
        preemption.asked_for = False
        channel.send(kind, **members)
        if preemption.wished:
            # The signal was put off, not ignored.
            return


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
