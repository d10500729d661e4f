"""What `asktell work` takes to work on a cluster, and the command line that it gives each worker there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from asktell.worker.cluster.fleet import Arguments, Engine, Misplaced

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def _help(text: str) -> Parameter:
    return Parameter(help=text)


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Where workers are placed, if not here alone."""

    on: Annotated[
        Literal["ray", "slurm"] | None, _help("Have the workers run by this engine, instead of being one here.")
    ] = None
    workers: Annotated[int, Parameter(validator=Number(gte=1)), _help("On a cluster: how many workers.")] = 1
    gpus_per_trial: Annotated[
        float, Parameter(validator=Number(gte=0)), _help("On a cluster: GPUs of each trial; on Ray a part is possible.")
    ] = 0.0
    address: Annotated[
        str,
        Parameter(env_var="RAY_ADDRESS"),
        _help("On Ray: `auto`, HOST:PORT or `ray://HOST:PORT` of the cluster; `local` starts one on this machine."),
    ] = "auto"
    working_dir: Annotated[
        str | None,
        _help("On Ray: a directory that is sent to the machines; without it they need this one under the same path."),
    ] = None
    partition: Annotated[str | None, _help("On Slurm: the partition.")] = None
    time: Annotated[
        str | None, _help("On Slurm: the time limit, such as `4:00:00`; a worker that comes to it queues again.")
    ] = None
    sbatch: Annotated[
        tuple[str, ...],
        Parameter(negative=(), show_default=False),
        _help("On Slurm: one more option of sbatch, as `NAME=VALUE` or `NAME`. May be repeated."),
    ] = ()
    dry_run: Annotated[
        bool, Parameter(negative=(), show_default=False), _help("On Slurm: print the batch script, submit nothing.")
    ] = False

    @property
    def misplaced(self) -> str:
        """An option that was given and counts for nothing where the workers run; empty if there is none.

        Of `address` nobody can tell whether it was given: RAY_ADDRESS may stand in the environment for other programs.
        """
        known = _OF_ENGINE[self.on]
        given = (field.name for field in fields(self) if getattr(self, field.name) != field.default)
        return next((name for name in given if name not in known | {"on", "address"}), "")

    @property
    def may_be_elsewhere(self) -> bool:
        """Whether workers may come to other machines than this one."""
        return self.on is not None and not (self.on == "ray" and self.address == "local")

    @property
    def slurm_options(self) -> dict[str, str]:
        """Options of sbatch, by their long names."""
        named = {"partition": self.partition, "time": self.time}
        more = (option.removeprefix("--").partition("=") for option in self.sbatch)
        return {name: value for name, value in named.items() if value} | {name: value for name, _, value in more}

    def engine(self) -> Engine:
        """The engine, whose library is imported now; Misplaced if it is not installed."""
        if self.on == "slurm":
            from asktell.worker.cluster.on_slurm import SlurmEngine  # noqa: PLC0415

            return SlurmEngine(self.slurm_options)
        try:
            from asktell.worker.cluster.on_ray import RayEngine  # noqa: PLC0415
        except ModuleNotFoundError as error:
            if error.name != "ray":
                raise
            raise Misplaced(f"--on ray needs the ray extra: pip install 'asktell[ray]' ({error})") from error
        return RayEngine(self.address, self.working_dir)


_EVERYWHERE = frozenset({"workers", "gpus_per_trial"})
_OF_ENGINE: dict[str | None, frozenset[str]] = {
    None: frozenset(),
    "ray": _EVERYWHERE | {"working_dir"},
    "slurm": _EVERYWHERE | {"partition", "time", "sbatch", "dry_run"},
}

HERE = Cluster()

_LOOPBACK = re.compile(
    r"(unix(-abstract)?:|((dns|ipv[46]):(//[^/]*/)?)?(127\.|(localhost|0\.0\.0\.0|\[?::1?\]?)(:|$)))"
)
"""Targets as gRPC takes them, with or without a scheme."""


def is_of_this_machine(target: str) -> bool:
    """Whether a target means another service on each machine: localhost, an address of the loopback, a Unix socket."""
    return _LOOPBACK.match(target) is not None


def command_line(objective: Sequence[str], *options: DataclassInstance) -> Arguments:
    """The arguments that say the same as these objects, whose fields are options: what is not as usual is said."""
    return ("work", *(word for each in options for word in _words(each)), "--", *objective)


def option_name(field: str) -> str:
    """The option that a field is, as people write it."""
    return f"--{field.replace('_', '-')}"


def _words(options: DataclassInstance) -> Iterator[str]:
    for field in fields(options):
        value = getattr(options, field.name)
        if value != _usual(field):
            yield from _option(option_name(field.name), value)


def _usual(field: Field[Any]) -> object:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _option(name: str, value: object) -> Iterator[str]:
    if value is True:
        yield name
    elif isinstance(value, tuple):
        yield from (f"{name}={part}" for part in value)
    else:
        yield f"{name}={value}"
