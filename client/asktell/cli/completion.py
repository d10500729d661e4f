"""Shell completion."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

from cyclopts import Parameter

Shell = Literal["bash", "zsh", "fish"]


def completion(
    shell: Shell,
    /,
    *,
    install: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Print the completion script of a shell, or install it.

    For example:

    `asktell completion bash > ~/.local/share/bash-completion/completions/asktell`

    Parameters
    ----------
    shell
        The shell that you use.
    install
        Write the script to where the shell looks for it, and name the place.
    """
    from asktell.cli.app import build

    app = build()
    if install:
        print(app.install_completion(shell=shell, add_to_startup=shell == "zsh"))
    else:
        sys.stdout.write(app.generate_completion(shell=shell))
