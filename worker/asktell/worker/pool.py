"""The slots of a worker at work side by side."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from asktell.worker.interruption import Interruption
from asktell.worker.loop import Worker

logger = logging.getLogger("asktell.worker")


class Pool:
    """Loops of one process, each in a thread. What ends one of them by an error ends all; one that finds no more to do leaves the others.

    They share an interruption, which ends all of them: they give their trials back.
    """

    def __init__(self, workers: Sequence[Worker], *, interruption: Interruption) -> None:
        self._workers = workers
        self._interruption = interruption
        self._errors: list[BaseException] = []

    def run(self) -> None:
        """Work until every loop has ended. Raises what ended the first one that was ended by an error, as `Worker.run` does."""
        if len(self._workers) == 1:
            self._workers[0].run()
            return
        threads = [
            threading.Thread(target=self._run, args=(worker,), name=f"asktell-slot-{place}")
            for place, worker in enumerate(self._workers, 1)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self._raise()

    def _run(self, worker: Worker) -> None:
        try:
            worker.run()
        except BaseException as error:  # noqa: BLE001 - it is raised again in the main thread.
            self._errors.append(error)
            self._interruption.interrupt()

    def _raise(self) -> None:
        """Raise the first error; say the others, such as results that could not be told, unless they say the same."""
        if not self._errors:
            return
        first, *others = self._errors
        for text in dict.fromkeys(str(error) for error in others if str(error) != str(first)):
            logger.error("%s", text)
        raise first
