"""Values and rules of hyper-parameter studies: frozen dataclasses over the standard library; no clock, no randomness, no I/O."""
