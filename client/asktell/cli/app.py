"""The command `asktell` and what it is made of. Each part is imported when it is called, so that help and completion are fast."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import NoReturn

from cyclopts import App, CycloptsError, UnknownOptionError

REFUSED = 1
"""Exit status when the service said no, or could not be reached."""
MISUSED = 2
"""Exit status when the command line or a file cannot be understood."""


HELP = """Hyper-parameter optimisation as a service: ask for a configuration, train, tell the result.

For example:

`asktell serve`

`asktell study create digits --float learning_rate=1e-5:1e-1:log --minimize loss`

`asktell work --study digits train:objective`
"""


@dataclass(frozen=True, slots=True)
class Part:
    """A command in another module, its line in the list of commands, and the extra that brings what it needs."""

    path: str
    help: str
    extra: str = ""


PARTS: Mapping[str, Part] = {
    "serve": Part("asktell.server.cli:serve", "Run the service.", "server"),
    "migrate": Part("asktell.server.cli:migrate", "Bring the database to this version's schema.", "server"),
    "backup": Part("asktell.server.cli:backup", "Copy a SQLite database while it is served.", "server"),
    "health": Part("asktell.cli.health:health", "Ask a running service whether it is well."),
    "work": Part("asktell.worker.cli:work", "Work on a study: ask, train, tell."),
    "study": Part("asktell.cli.study:app", "Create, look at and change studies."),
    "completion": Part("asktell.cli.completion:completion", "Print or install the shell's completion."),
}

CONFIGURED = frozenset({"serve", "migrate", "backup", "work"})
"""Parts that run for long, or on data, as the environment says."""


def build(called: str = "") -> App:
    """Return the command. The part that is `called` shows its own help, the others one line without being imported."""
    app = App(
        name="asktell",
        help=HELP,
        help_format="markdown",
        version=version,
    )
    for name, part in PARTS.items():
        app.command(part.path, name=name, help=None if name == called else part.help)
    return app


def version() -> str:
    """The version of the installed distribution."""
    try:
        return metadata.version("asktell")
    except metadata.PackageNotFoundError:
        return "0 (not installed)"


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 when all went well, 1 when the service said no, 2 when the command line made no sense."""
    # gRPC's C core writes raw lines to the terminal, such as "E1122 ... add_port.cc": what they mean is said in our own words.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    called = tokens[0] if tokens else ""
    if called in CONFIGURED:
        _warn_of_unknown_variables()
    try:
        build(called)(tokens, print_error=False, exit_on_error=False)
    except BrokenPipeError:
        # Whoever read the output, such as `head`, has seen enough; nothing may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(REFUSED)
    except CycloptsError as error:
        command = " ".join(["asktell", *(error.command_chain or ()), "--help"])
        hint = "A command line goes after --. " if isinstance(error, UnknownOptionError) and called == "work" else ""
        _fail(f"{' '.join(str(error).split())} {hint}See: {command}", MISUSED)
    except ImportError as error:
        _fail_without(called, error)
    except Exception as error:  # noqa: BLE001 - what is not the user's to mend is raised again.
        _fail(*_explain(error))
    sys.exit(0)


def _warn_of_unknown_variables() -> None:
    from asktell.cli import environment

    for warning in environment.warnings(os.environ):
        print(f"asktell: {warning}", file=sys.stderr)


def _fail(message: str, status: int) -> NoReturn:
    print(f"asktell: {message}", file=sys.stderr)
    sys.exit(status)


def _fail_without(called: str, error: ImportError) -> NoReturn:
    """Name the extra, if the part has one and what is missing is not our own module's name."""
    missing = error.__cause__ if isinstance(error.__cause__, ImportError) else error
    extra = PARTS[called].extra if called in PARTS else ""
    if not extra or not isinstance(missing, ModuleNotFoundError):
        raise error
    _fail(f"{called} needs the {extra} extra: pip install 'asktell[{extra}]' ({missing})", MISUSED)


def _explain(error: Exception) -> tuple[str, int]:
    """The line and the exit status for an error that a user can mend; any other is raised again."""
    from asktell.cli.failure import explain

    explained = explain(error)
    if explained is None:
        raise error
    message, refused = explained
    return message, REFUSED if refused else MISUSED
