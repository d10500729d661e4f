"""The worker: ask, train, tell."""
