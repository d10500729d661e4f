"""Stopping rules: pure functions of measurements."""
