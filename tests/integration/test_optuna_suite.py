"""Optuna's own test suite for samplers, as Optuna ships it, over a sampler that talks to a real server."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase, MultiObjectiveSamplerTestCase, RelativeSamplerTestCase

from asktell.integrations.optuna import AskTellSampler
from tests.processes import Server


class TestAskTellSampler(BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase):
    @pytest.fixture
    def sampler(self, server: Server) -> Callable[[], BaseSampler]:
        return lambda: AskTellSampler(server.target)
