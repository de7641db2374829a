"""What a Gaussian process proposes next."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from resweep_scheduler.search.gp.acquisition import Acquisition
from resweep_scheduler.search.gp.axes import Axes, Floats
from resweep_scheduler.search.gp.kernel import Hyper, fit
from resweep_scheduler.search.gp.minimise import minimise


@dataclass
class Tuning:
    draws: int = 16
    random: int = 512
    local: int = 400
    starts: int = 6
    refine: int = 25
    warp: str = "tame"
    fit_starts: int = 3
    fit_steps: int = 25
    limit: int = 300


class Engine:
    def __init__(self, axes: Axes, tuning: Tuning | None = None) -> None:
        self.axes = axes
        self.tuning = tuning or Tuning()
        self._fits: dict[bytes, Hyper] = {}

    def propose(self, points: Floats, values: Floats, pending: Floats, seed: int) -> Floats:
        t = self.tuning
        rng = np.random.default_rng(seed)
        if len(values) > t.limit:
            keep = chosen_for_training(values, t.limit)
            points, values = points[keep], values[keep]
        y = warped(values, t.warp)
        hyper = self.hyper(points, y)
        normals = rng.standard_normal((t.draws, len(pending))) if t.draws and len(pending) else np.zeros((0, len(pending)))
        acq = Acquisition(self.axes, hyper, points, y, pending, normals)
        order = np.argsort(values, kind="stable")
        top = points[order[:5]]
        cand = [self.axes.from_cube(rng.random((t.random, self.axes.count)))]
        base = np.repeat(top, t.local // len(top), axis=0)
        scale = 0.2 * 10 ** (-2.0 * rng.random(len(base)))
        cand.append(self.axes.mutate(base, rng, scale, max(0.3, min(1.0, 2 / self.axes.count))))
        c = np.concatenate(cand)
        s = acq.score(c)
        best = c[_diverse(c, s, t.starts)]
        if self.axes.smooth.any():
            best, neg = minimise(acq.descend, best, low=np.zeros(self.axes.count), high=np.ones(self.axes.count), steps=t.refine, reach=0.2)
            s = -neg
        else:
            s = acq.score(best)
        if not self.axes.smooth.all():
            best, s = self._discrete(acq, best, s, rng)
        return best[np.argsort(-s, kind="stable")]

    def _discrete(self, acq, best, s, rng):
        keep = np.argsort(-s, kind="stable")[:3]
        best, s = best[keep].copy(), s[keep].copy()
        for i in range(len(best)):
            for _ in range(4):
                near = self.axes.neighbours(best[i], rng)
                score = acq.score(near)
                j = int(np.argmax(score))
                if score[j] <= s[i] + 1e-9:
                    break
                best[i], s[i] = near[j], score[j]
                if self.axes.smooth.any():
                    p, neg = minimise(acq.descend, best[i][None], low=np.zeros(self.axes.count), high=np.ones(self.axes.count), steps=8, reach=0.2)
                    best[i], s[i] = p[0], -neg[0]
        return best, s

    def hyper(self, points: Floats, y: Floats) -> Hyper:
        key = points.tobytes() + y.tobytes()
        if key not in self._fits:
            self._fits = {key: fit(self.axes, self.axes.embed(points), y, starts=self.tuning.fit_starts, steps=self.tuning.fit_steps)}
        return self._fits[key]


def _diverse(c, s, n):
    order = np.argsort(-s, kind="stable")
    chosen = [int(order[0])]
    for i in order[1:200]:
        if len(chosen) >= n:
            break
        if min(np.abs(c[i] - c[j]).max() for j in chosen) > 0.05:
            chosen.append(int(i))
    return np.array(chosen)


def chosen_for_training(values, limit):
    order = np.argsort(values, kind="stable")
    half = limit // 2
    rest = np.sort(order[half:])
    spread = rest[np.linspace(0, len(rest) - 1, limit - half).astype(int)]
    return np.sort(np.concatenate([order[:half], spread]))


def warped(values, kind):
    v = values
    if kind == "tame":
        med = np.median(v)
        low = v.min()
        s = max(med - low, 1e-300)
        # beyond the median, twice as far as the best is: logarithmic
        z = (v - med) / s
        z = np.where(z > 1, 1 + np.log(np.maximum(z, 1)), z)
    elif kind == "none":
        z = v
    elif kind == "yj":
        z = _yeo_johnson((v - v.mean()) / max(v.std(), 1e-300))
    elif kind == "log":
        med = np.median(v); low = v.min()
        s = max(med - low, 1e-300)
        z = np.log1p((v - low) / s * 3)
    m, sd = z.mean(), z.std()
    return (z - m) / (sd if sd > 1e-12 else 1.0)


def _yeo_johnson(x):
    best = None
    for lam in np.linspace(-4, 3, 57):
        pos = x >= 0
        out = np.empty_like(x)
        out[pos] = np.log1p(x[pos]) if abs(lam) < 1e-9 else ((x[pos] + 1) ** lam - 1) / lam
        q = 2 - lam
        out[~pos] = -np.log1p(-x[~pos]) if abs(q) < 1e-9 else -(((1 - x[~pos]) ** q) - 1) / q
        ll = -0.5 * len(x) * np.log(max(out.var(), 1e-300)) + (lam - 1) * (np.sign(x) * np.log1p(np.abs(x))).sum()
        if best is None or ll > best[0]:
            best = (ll, out)
    return best[1]
