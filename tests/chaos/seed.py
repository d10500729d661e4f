"""The seed of all chance in these tests, which a failing run can be repeated with as far as processes allow."""

from __future__ import annotations

import os
import random

VARIABLE = "ASKTELL_CHAOS_SEED"
SEED = int(os.environ.get(VARIABLE) or random.SystemRandom().randrange(1_000_000))


def say(text: str) -> None:
    """A line for who watches, with the seed."""
    print(f"  [{VARIABLE}={SEED}] {text}", flush=True)
