"""Points that were not proposed before, while the space has some left."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from resweep_scheduler.search.encoding import Codec, Latent
from resweep_scheduler.search.random import uniform_draw

PointKey = tuple[tuple[str, float | int], ...]
"""Equal for latent points that are the same point; see `key_of`."""

RANDOM_DRAWS = 16


def key_of(codec: Codec, latent: Latent) -> PointKey | None:
    """What makes a point the same as another; None where a parameter is continuous, so that no point comes twice."""
    if any(not codec.by_name[name].stepped for name in latent):
        return None
    return tuple(latent.items())


def random_latent(codec: Codec, seed: int, index: int, redraw: int = 0) -> Latent:
    """The point of random search with this seed and index; each `redraw` gives another one."""
    suffix = f"#{redraw}" if redraw else ""
    drawn = {one.name: one.draw(uniform_draw(seed, index, one.name + suffix)) for one in codec.coordinates}
    return codec.only_active(drawn)


def new_point(codec: Codec, candidates: Iterable[Latent], known: set[PointKey], *, seed: int, index: int) -> Latent:
    """The first candidate that is not known, else a point at random that is not; a known one if none is left.

    Args:
        codec: The space.
        candidates: What the search proposes, best first; at least one. Read no further than needed.
        known: The keys of all points that were proposed before.
        seed: Seed of the sweep.
        index: Of the point.
    """
    first: Latent | None = None
    for candidate in _with_random(codec, candidates, seed, index):
        key = key_of(codec, candidate)
        if key is None or key not in known:
            return candidate
        first = candidate if first is None else first
    if codec.size is not None and codec.size > 0:
        start = int(uniform_draw(seed, index, "#start") * codec.size)
        # Among one point more than are known, one is new.
        for step in range(min(codec.size, len(known) + 1)):
            point = codec.at((start + step) % codec.size)
            if tuple(point.items()) not in known:
                return point
    assert first is not None
    return first


def _with_random(codec: Codec, candidates: Iterable[Latent], seed: int, index: int) -> Iterator[Latent]:
    for candidate in candidates:
        yield codec.only_active(candidate)
    for redraw in range(1, RANDOM_DRAWS):
        yield random_latent(codec, seed, index, redraw)
