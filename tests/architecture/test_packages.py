"""The layout that lets one distribution grow from three import roots."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMPORT_ROOTS = ("client", "worker", "server")


def test_no_import_root_has_an_asktell_init_file() -> None:
    assert [root for root in IMPORT_ROOTS if (ROOT / root / "asktell" / "__init__.py").exists()] == []
    assert all((ROOT / root / "asktell").is_dir() for root in IMPORT_ROOTS)


@pytest.mark.parametrize(
    "module",
    ["asktell.client", "asktell.client.aio", "asktell.worker", "asktell.cli", "asktell.v1.trial_service_pb2_grpc"],
)
def test_the_base_install_loads_nothing_of_the_server(module: str) -> None:
    heavy = "torch numpy scipy pandas matplotlib sqlalchemy alembic botorch asktell.server"
    program = f"import sys, {module}; print(*[name for name in {heavy.split()!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_first_asks_need_neither_torch_nor_what_counts_for_prometheus() -> None:
    program = (
        "import sys, asktell.server.bootstrap, asktell.server.policies.engine;"
        "print(*[name for name in ('torch', 'botorch', 'gpytorch', 'prometheus_client') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
