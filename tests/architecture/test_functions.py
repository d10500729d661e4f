"""Nobody has to scroll to read a function."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
LONGEST = 60


def functions() -> Iterator[tuple[int, str]]:
    for folder in ("client", "worker", "server", "examples", "proto", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "asktell/v1" in path.as_posix() or "node_modules" in path.parts:
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    where = f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
                    yield (node.end_lineno or node.lineno) - node.lineno + 1, where


def test_the_longest_function_fits_on_a_screen() -> None:
    found = list(functions())
    assert len(found) > 100
    assert [f"{lines} lines: {where}" for lines, where in sorted(found, reverse=True) if lines > LONGEST] == []
