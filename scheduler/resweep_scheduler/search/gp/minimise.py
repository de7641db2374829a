"""Several local minimisations side by side: BFGS in a box, one matrix of curvature for each start."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from resweep_scheduler.search.gp.axes import Floats

Flags = npt.NDArray[np.bool_]
Objective = Callable[[Floats], tuple[Floats, Floats]]
"""Takes one point a row; gives the value and the gradient of each."""


def minimise(
    objective: Objective,
    starts: Floats,
    *,
    low: Floats,
    high: Floats,
    steps: int,
    reach: float,
    tolerance: float = 1e-7,
) -> tuple[Floats, Floats]:
    """Walk downhill from every start.

    Args:
        objective: The function.
        starts: One start a row.
        low: Lower bound of each coordinate.
        high: Upper bound of each coordinate.
        steps: How often the objective is evaluated at most, for all starts at once.
        reach: The longest step in any coordinate.
        tolerance: Ends when no start gained more than this in its last step.

    Returns:
        The points and their values, in the order of the starts; never worse than the starts.
    """
    points = np.clip(starts, low, high)
    values, slopes = objective(points)
    count, width = points.shape
    curvature = np.tile(np.eye(width), (count, 1, 1))
    fresh = np.ones(count, dtype=np.bool_)
    stride = np.ones(count)
    going = np.ones(count, dtype=np.bool_)
    for _ in range(steps):
        free = ~(((points <= low) & (slopes > 0)) | ((points >= high) & (slopes < 0)))
        inner = slopes * free
        heading = -np.einsum("sij,sj->si", curvature, inner) * free
        uphill = np.einsum("si,si->s", heading, inner) >= 0
        heading = np.where(uphill[:, None], -inner, heading)
        length = np.abs(heading).max(axis=1)
        # A first step of a tenth of the reach, for the length of a gradient says nothing.
        limit = np.where(fresh | uphill, reach / 10, reach)
        scale = np.where(fresh | uphill, limit, np.minimum(length, limit)) / np.maximum(length, 1e-300) * stride
        trial = np.clip(points + scale[:, None] * heading, low, high)
        new_values, new_slopes = values.copy(), slopes.copy()
        new_values[going], new_slopes[going] = objective(trial[going])
        moved = trial - points
        enough = new_values <= values + 1e-4 * np.einsum("si,si->s", moved, slopes)
        better = enough & np.isfinite(new_values) & going
        turned = new_slopes - slopes
        curvature, fresh = _updated(curvature, fresh, moved, turned, better)
        gain = values - new_values
        points = np.where(better[:, None], trial, points)
        slopes = np.where(better[:, None], new_slopes, slopes)
        values = np.where(better, new_values, values)
        stride = np.where(better, 1.0, stride * 0.25)
        going &= ~(better & (gain < tolerance)) & (stride > 1e-6) & (length > 1e-12)
        if not going.any():
            break
    return points, values


def _updated(curvature: Floats, fresh: Flags, moved: Floats, turned: Floats, better: Flags) -> tuple[Floats, Flags]:
    """The inverse curvature after the accepted steps."""
    agreement = np.einsum("si,si->s", moved, turned)
    size = np.sqrt(np.einsum("si,si->s", moved, moved) * np.einsum("si,si->s", turned, turned))
    useful = better & (agreement > 1e-8 * size) & (size > 0)
    safe = np.where(useful, agreement, 1.0)
    first = np.where(useful & fresh, safe / np.maximum(np.einsum("si,si->s", turned, turned), 1e-300), 1.0)
    curvature = curvature * first[:, None, None]
    share = moved / safe[:, None]
    left = np.eye(moved.shape[1]) - np.einsum("si,sj->sij", share, turned)
    after = left @ curvature @ left.transpose(0, 2, 1) + np.einsum("si,sj->sij", share, moved)
    return np.where(useful[:, None, None], after, curvature), fresh & ~useful
