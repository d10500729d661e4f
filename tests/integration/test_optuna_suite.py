"""Optuna's own test suite for samplers, as Optuna ships it, over a sampler that talks to a real server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase, MultiObjectiveSamplerTestCase, RelativeSamplerTestCase

from asktell.integrations.optuna import AskTellSampler
from tests.processes import Processes


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory: Path = tmp_path_factory.mktemp("optuna")
    with Processes(directory) as processes:
        yield processes.serve(str(directory / "asktell.db")).target


class TestAskTellSampler(BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase):
    @pytest.fixture
    def sampler(self, target: str) -> Callable[[], BaseSampler]:
        return lambda: AskTellSampler(target)
