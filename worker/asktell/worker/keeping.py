"""Tells the service where a trial's state lies."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from asktell.client import AskTellError, InvalidArgument, Trial
from asktell.worker.checkpoints import Checkpoint

FIRST_LOOK_SECONDS = 0.1
LOOK_SECONDS = 1.0
"""How often the worker looks whether there is a state, or a newer one: more and more seldom at first."""
AWAY_SECONDS = 5.0
"""How long it waits before saying again what did not arrive."""

logger = logging.getLogger("asktell.worker")


class Keeping:
    """What the service knows of the checkpoint of one attempt. A URI that the training names itself is preferred to the worker's."""

    def __init__(self, trial: Trial, checkpoint: Checkpoint) -> None:
        self._trial = trial
        self._checkpoint = checkpoint
        self._named = ""
        self._known = ""
        self._next_look = self._next_word = 0.0
        self._handed_over = False
        self._pause = FIRST_LOOK_SECONDS

    def name(self, uri: str) -> None:
        """Take in a URI from the training, and say it on."""
        self._named = uri
        self._say(uri)

    def tend(self) -> None:
        """See to it that the service knows the newest state. To be called often; it looks now and then."""
        request = self._checkpoint.upload_request
        if request is not None and request.exists():
            self._hand_over(request)
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + self._pause
        self._pause = min(self._pause * 1.1, LOOK_SECONDS)
        uri = self._named or self._checkpoint.uri()
        if uri and uri != self._known:
            self._say(uri)

    def _hand_over(self, request: Path) -> None:
        """Answer the training's request, by removing its file, when the service knows where the present state lies."""
        self._handed_over = self._handed_over or self._checkpoint.hand_over()
        if not self._handed_over or time.monotonic() < self._next_word:
            return
        uri = self._named or self._checkpoint.uri()
        if uri and uri != self._known:
            self._say(uri)
        if not uri or uri == self._known:
            request.unlink(missing_ok=True)
            self._handed_over = False

    def last(self, *, broken_off: Callable[[], bool]) -> str:
        """The URI to end the trial with; empty if there is none."""
        return self._named or self._checkpoint.last(broken_off=broken_off)

    def _say(self, uri: str) -> None:
        try:
            self._trial.checkpoint(uri)
        except InvalidArgument as error:
            logger.warning("trial %d: the service refused the checkpoint: %s", self._trial.number, error)
            self._named, self._known = "", uri
        except AskTellError as error:
            logger.warning("trial %d: the checkpoint %s was not reported: %s", self._trial.number, uri, error)
            self._next_look = self._next_word = time.monotonic() + AWAY_SECONDS
        else:
            self._known = uri
            if not self._trial.lost:
                self._checkpoint.acknowledge(uri)
