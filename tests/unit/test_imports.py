"""What processes keep in memory from their start on."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from asktell.server.persistence.migration import migrate


def imported(program: str) -> set[str]:
    """The modules that a new interpreter has imported after a program."""
    code = textwrap.dedent(program) + "\nimport sys\nprint(*sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    return set(output.splitlines()[-1].split())


@pytest.fixture
def migrated(tmp_path):
    address = f"sqlite:///{tmp_path / 'a.db'}"
    migrate(address)
    return address


def test_a_server_with_a_migrated_database_has_imported_neither_scipy_nor_alembic_nor_torch(migrated):
    modules = imported(f"""
        import asktell.server.bootstrap
        from asktell.server.persistence.migration import check_migrated, migrate
        migrate({migrated!r})
        check_migrated({migrated!r})
    """)
    assert "numpy" in modules
    assert modules.isdisjoint({"scipy", "alembic", "mako", "torch"})


def test_an_engine_process_that_has_chosen_has_imported_neither_asyncio_nor_grpc_nor_torch():
    modules = imported("""
        from asktell.server.policies import child, inside, registry
        inside.rehearse(registry.suggest)
    """)
    assert "scipy" in modules
    assert modules.isdisjoint({"asyncio", "ssl", "grpc", "sqlalchemy", "torch"})


@pytest.mark.parametrize("module", ["asktell.client", "asktell.client.aio", "asktell.cli.app", "asktell.worker.child"])
def test_what_a_user_imports_warns_of_nothing_and_brings_no_picture_no_table_and_no_array(module):
    program = f"import warnings\nwarnings.simplefilter('error')\nimport {module}"
    assert imported(program).isdisjoint({"matplotlib", "pandas", "numpy", "torch", "IPython"})


def test_the_process_of_a_training_has_imported_no_client():
    assert imported("import asktell.worker.child").isdisjoint({"asktell.client", "grpc", "google.protobuf"})
