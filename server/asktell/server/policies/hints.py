"""Fits that were made before: the hint that a decision returns and a later request brings. Without it they are made again, to the same bits."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable

import numpy as np
import scipy

from asktell.server.domain.policy import MAX_HINT
from asktell.server.policies.columns import Vector
from asktell.server.policies.kernel import Layout, Matrix
from asktell.server.policies.labels import Noise

_MAGIC = f"asktell fits 4, NumPy {np.__version__}, SciPy {scipy.__version__}\n".encode()
"""Changes with whatever changes a fit but its data: priors, starts and steps of `likelihood.py` and `probit.py` are part of the number."""
_DIGEST = 16
_LENGTH = struct.Struct("<H")

Digest = bytes


class Fits:
    """Points of likelihoods by a digest of what they were fitted to. A hint of another version, or a broken one, is an empty one."""

    def __init__(self, hint: bytes = b"") -> None:
        self._stored = _parse(hint)
        self._used: dict[Digest, Vector] = {}

    def recall(self, digest: Digest, fit: Callable[[], Vector], *, keep: Callable[[], bool]) -> Vector:
        """The fit of this digest, made if need be. Only a fit after which `keep` holds is remembered: time may have cut it short."""
        point = self._used.get(digest, self._stored.get(digest))
        if point is None:
            point = fit()
            if not keep():
                return point
        self._used[digest] = point
        return point

    def hint(self) -> bytes:
        """The fits that were used, for the next request; those that do not fit into a hint are left out."""
        body = b""
        for digest, point in self._used.items():
            entry = digest + _LENGTH.pack(len(point)) + point.astype("<f8").tobytes()
            if len(_MAGIC) + _DIGEST + len(body) + len(entry) <= MAX_HINT:
                body += entry
        return _MAGIC + _checksum(body) + body if body else b""


def digest_of(
    inputs: Matrix,
    labels: Vector,
    layout: Layout,
    *,
    noise: Noise | None = None,
    trend: bool = False,
    chance: bool = False,
) -> Digest:
    """A digest of all that a fit depends on; without `noise` the labels are classes, which `chance` may have a part in."""
    content = hashlib.blake2b(digest_size=_DIGEST)
    known = () if noise is None else (noise.variances,)
    for array in (inputs, labels, *known, layout.owners, layout.numeric):
        content.update(repr(array.shape).encode() + np.ascontiguousarray(array).tobytes())
    content.update(struct.pack("<????", noise is None, noise is not None and noise.complete, trend, chance))
    return content.digest()


def _parse(hint: bytes) -> dict[Digest, Vector]:
    fits: dict[Digest, Vector] = {}
    start = len(_MAGIC) + _DIGEST
    rest = hint[start:]
    if hint[:start] != _MAGIC + _checksum(rest):
        return fits
    while rest:
        (count,) = _LENGTH.unpack_from(rest, _DIGEST)
        begin, end = _DIGEST + _LENGTH.size, _DIGEST + _LENGTH.size + 8 * count
        fits[rest[:_DIGEST]] = np.frombuffer(rest[begin:end], "<f8").astype(np.float64)
        rest = rest[end:]
    return fits


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_DIGEST).digest()
