"""An integration whose library is not installed says which extra brings it."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "library", "extra"),
    [
        ("pytorch", "torch", "pytorch"),
        ("lightning", "lightning", "lightning"),
        ("keras", "keras", "keras"),
        ("transformers", "transformers", "transformers"),
        ("range_picture", "matplotlib", "plot"),
    ],
)
def test_a_library_that_is_not_there_is_named_with_its_extra(module: str, library: str, extra: str) -> None:
    program = (
        f"import sys; sys.modules[{library!r}] = None\n"
        "from asktell.client import MissingExtra\n"
        f"try:\n    import asktell.integrations.{module}\n"
        "except MissingExtra as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert f"pip install 'asktell[{extra}]'" in done.stdout
