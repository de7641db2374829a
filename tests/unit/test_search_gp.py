"""The Gaussian process: gradients are right, the kernel knows categories and conditions, and proposals are good."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Literal

import numpy as np
import optuna
import pytest

from resweep_scheduler.config import parse_sweep
from resweep_scheduler.config.parameters import Categorical, IntUniform, Uniform
from resweep_scheduler.search.encoding import Codec
from resweep_scheduler.search.gp.acquisition import Acquisition, log_improvement
from resweep_scheduler.search.gp.axes import Axes, Axis, Floats
from resweep_scheduler.search.gp.engine import TRAINING_LIMIT, GaussianProcess
from resweep_scheduler.search.gp.kernel import Evidence, Hyper, fit, priors_for, squared_distances
from resweep_scheduler.search.gp.minimise import minimise
from resweep_scheduler.search.gp.rows import Rows
from resweep_scheduler.search.gp.sampler import GaussianProcessSampler
from resweep_scheduler.search.gp.values import standardised, training_places
from resweep_scheduler.search.space import Condition, Dimension, dimensions_of

MIXED = Axes(
    [
        Axis(),
        Axis(categories=3),
        Axis(conditions=((1, 2),)),
        Axis(steps=(0.1, 0.5, 0.9)),
        Axis(categories=2, conditions=((1, 0),)),
        Axis(steps=(0.25, 0.75), conditions=((1, 0), (4, 1))),
    ]
)


def draws(seed: int, axes: Axes, count: int) -> Floats:
    return axes.from_cube(np.random.default_rng(seed).random((count, axes.count)))


def numeric_gradient(function: object, at: Floats, axis: int) -> Floats:
    assert callable(function)
    step = np.zeros(at.shape[1])
    step[axis] = 1e-6
    return np.asarray((function(at + step)[0] - function(at - step)[0]) / 2e-6)


class TestAxes:
    def test_an_axis_that_does_not_exist_makes_no_difference(self) -> None:
        one = np.array([[0.3, 1, 0.2, 0.5, 0, 0.25], [0.3, 1, 0.9, 0.5, 1, 0.75]])
        assert np.all(MIXED.embed(one)[0] == MIXED.embed(one)[1])

    def test_between_having_and_lacking_an_axis_the_distance_is_constant(self) -> None:
        axes = Axes([Axis(categories=2), Axis(conditions=((0, 1),))])
        points = np.array([[0, 0.5], [1, 0.0], [1, 0.4], [1, 1.0]])
        distances = squared_distances(axes, axes.embed(points))
        assert np.allclose(distances[1][0, 1:], 1.0)
        assert distances[1][1, 2] == pytest.approx(0.16, rel=0.02)
        assert np.all(distances[0][0, 1:] == pytest.approx(1.0))

    def test_inner_conditions_need_the_outer_ones(self) -> None:
        exist = MIXED.exist(np.array([[0.0, 1, 0, 0.1, 1, 0.25], [0.0, 0, 0, 0.1, 1, 0.25], [0.0, 0, 0, 0.1, 0, 0.25]]))
        assert exist[:, 5].tolist() == [False, True, False]
        assert exist[:, 4].tolist() == [False, True, True]

    def test_candidates_are_points_of_the_space(self) -> None:
        rng = np.random.default_rng(1)
        points = draws(1, MIXED, 200)
        for some in (points, MIXED.mutate(points, rng, np.full(200, 0.1), 0.5), MIXED.neighbours(points[0], rng)):
            assert np.all((some[:, 0] >= 0) & (some[:, 0] <= 1))
            assert set(some[:, 1]) <= {0, 1, 2}
            assert set(some[:, 3]) <= {0.1, 0.5, 0.9}
            assert set(some[:, 4]) <= {0, 1}

    def test_a_mutated_point_is_another(self) -> None:
        points = draws(2, MIXED, 100)
        mutated = MIXED.mutate(points, np.random.default_rng(1), np.full(100, 1e-3), 0.3)
        # A redrawn category may be the old one.
        assert np.mean(np.any(mutated != points, axis=1)) > 0.6


class TestModel:
    def test_the_gradient_of_the_evidence(self) -> None:
        points = draws(3, MIXED, 25)
        values = np.random.default_rng(3).standard_normal(25)
        priors = priors_for(MIXED.count)
        evidence = Evidence(squared_distances(MIXED, MIXED.embed(points)), values, priors)
        logs = priors.mean + np.random.default_rng(4).standard_normal((3, MIXED.count + 2)) * 0.5
        logs[:, -1] = -3.0  # with less noise, rounding errors show in the numeric gradient
        gradient = evidence(logs)[1]
        for axis in range(MIXED.count + 2):
            assert np.allclose(numeric_gradient(evidence, logs, axis), gradient[:, axis], rtol=1e-3, atol=1e-3)

    @pytest.mark.parametrize("open_points", [0, 5])
    def test_the_gradient_of_the_acquisition(self, open_points: int) -> None:
        points = draws(5, MIXED, 20)
        values = standardised((points[:, 0] - 0.3) ** 2 + points[:, 1])
        acquisition = Acquisition(
            MIXED,
            Hyper(np.full(MIXED.count, 4.0), 1.0, 1e-2),
            known=points,
            values=values,
            pending=draws(6, MIXED, open_points),
        )
        at = draws(7, MIXED, 12)
        gradient = acquisition.descend(at)[1]
        for axis in (0, 2):
            assert np.allclose(numeric_gradient(acquisition.descend, at, axis), gradient[:, axis], rtol=1e-3, atol=1e-4)
        assert np.all(gradient[:, [1, 3, 4, 5]] == 0)

    def test_the_improvement_is_exact_and_continuous_far_out(self) -> None:
        z = np.array([-40.0, -10.0, -5.0 - 1e-9, -5.0, 0.0, 3.0])
        value, slope = log_improvement(z)
        assert value[4] == pytest.approx(-0.5 * math.log(2 * math.pi))
        assert value[2] == pytest.approx(value[3], abs=1e-7)
        assert slope[2] == pytest.approx(slope[3], abs=1e-6)
        # φ(z) / z² at first order; the next one is -3 / z².
        assert value[0] == pytest.approx(-800 - 0.5 * math.log(2 * math.pi) - 2 * math.log(40), abs=3 / 1600)
        assert np.all(np.diff(value) > 0)

    def test_it_finds_the_axis_that_matters(self) -> None:
        axes = Axes([Axis(), Axis(), Axis(categories=3)])
        points = draws(8, axes, 40)
        hyper = fit(axes, axes.embed(points), standardised(np.sin(6 * points[:, 0]) + (points[:, 2] == 1)))
        assert hyper.weights[0] > 20 * hyper.weights[1]
        assert hyper.weights[2] > 20 * hyper.weights[1]

    def test_it_tells_noise_from_shape(self) -> None:
        axes = Axes([Axis()])
        points = draws(9, axes, 60)
        shape = standardised(np.sin(3 * points[:, 0]))
        noise = np.random.default_rng(2).standard_normal(60) * 0.5
        assert fit(axes, points, shape).noise < 1e-3
        assert 0.05 < fit(axes, points, standardised(shape + noise)).noise < 0.6

    def test_outcomes_keep_their_order_and_lose_their_tails(self) -> None:
        values = np.array([1e308, -1e308, 0.0, 1.0, 2.0, 1e6])
        assert np.all(np.isfinite(standardised(values)))
        wild = np.exp(np.random.default_rng(3).standard_normal(100) * 4)
        tamed = standardised(wild)
        assert np.array_equal(np.argsort(wild), np.argsort(tamed))
        assert np.abs(tamed).max() < 5
        assert np.all(standardised(np.full(5, 3.0)) == 0)

    def test_it_learns_from_the_best_and_from_some_of_all_others(self) -> None:
        values = np.random.default_rng(4).permutation(1000).astype(np.float64)
        chosen = values[training_places(values, 100)]
        assert len(chosen) == 100
        assert set(range(50)) <= set(chosen)
        assert chosen.max() == 999

    def test_minimise_finds_the_bottom_of_a_narrow_valley(self) -> None:
        def valley(at: Floats) -> tuple[Floats, Floats]:
            x, y = at[:, 0], at[:, 1]
            slope = np.stack([2 * (x - 0.7) - 400 * x * (y - x * x), 200 * (y - x * x)], axis=1)
            return (x - 0.7) ** 2 + 100 * (y - x * x) ** 2, slope

        starts = np.array([[0.1, 0.9], [0.9, 0.1]])
        found, values = minimise(valley, starts, low=np.zeros(2), high=np.ones(2), steps=200, reach=0.2, tolerance=0)
        assert np.allclose(found, [0.7, 0.49], atol=1e-3)
        assert np.all(values < 1e-6)


class TestProposals:
    def test_the_answer_follows_from_the_arguments_alone(self) -> None:
        points = draws(10, MIXED, 30)
        values = (points[:, 0] - 0.3) ** 2 + points[:, 1]
        pending = draws(11, MIXED, 4)
        used = GaussianProcess(MIXED)
        used.propose(points[:20], values[:20], pending, 1)
        expected = used.propose(points, values, pending, 2)
        assert np.array_equal(expected, GaussianProcess(MIXED).propose(points, values, pending, 2))
        assert not np.array_equal(expected, used.propose(points, values, pending, 3))

    def test_a_bowl_is_found_to_the_third_digit(self) -> None:
        axes = Axes([Axis(), Axis()])
        process = GaussianProcess(axes)
        points = draws(12, axes, 5)
        for seed in range(15):
            values = ((points - 0.37) ** 2).sum(axis=1)
            points = np.concatenate([points, process.propose(points, values, points[:0], seed)[:1]])
        assert ((points - 0.37) ** 2).sum(axis=1).min() < 1e-6

    def test_open_points_are_kept_away_from(self) -> None:
        axes = Axes([Axis(), Axis()])
        points = draws(13, axes, 12)
        values = ((points - 0.5) ** 2).sum(axis=1)
        pending = points[:0]
        for seed in range(6):
            found = GaussianProcess(axes).propose(points, values, pending, seed)[:1]
            pending = np.concatenate([pending, found])
        distances = np.abs(pending[:, None] - pending[None]).max(axis=2) + np.eye(6)
        assert distances.min() > 0.01

    def test_points_that_failed_do_not_attract(self) -> None:
        """Where half of the space counts as the worst value, proposals stay in the other half."""
        axes = Axes([Axis(), Axis()])
        points = draws(14, axes, 40)
        values = np.where(points[:, 0] > 0.5, 10.0, (points[:, 0] - 0.4) ** 2 + points[:, 1])
        found = [GaussianProcess(axes).propose(points, values, points[:0], seed)[0, 0] for seed in range(5)]
        assert max(found) < 0.55

    def test_any_number_of_points_takes_bounded_time(self) -> None:
        axes = Axes([Axis()] * 5)
        points = draws(15, axes, 20 * TRAINING_LIMIT)
        process = GaussianProcess(axes)
        assert process.propose(points, points.sum(axis=1), points[:100], 1).shape[1] == 5

    @pytest.mark.parametrize("count", [1, 2, 3])
    def test_few_or_equal_values_are_enough(self, count: int) -> None:
        points = draws(16, MIXED, count)
        assert len(GaussianProcess(MIXED).propose(points, np.zeros(count), points[:0], 1)) > 0

    def test_equal_points_with_different_values_do_no_harm(self) -> None:
        points = np.repeat(draws(17, MIXED, 3), 10, axis=0)
        values = np.random.default_rng(1).standard_normal(30)
        assert np.all(np.isfinite(GaussianProcess(MIXED).propose(points, values, points[:20], 1)))


class TestRows:
    def test_latent_points_and_rows_are_the_same(self) -> None:
        condition = Condition("kind", 1)
        codec = Codec(
            [
                Dimension("kind", ("kind",), Categorical(values=("a", "b", "c"))),
                Dimension("kind=b.x", ("x",), Uniform(min=0, max=1), (condition,)),
                Dimension("size", ("size",), Categorical(values=(64, 16, 32))),
                Dimension("width", ("width",), IntUniform(min=1, max=4)),
            ]
        )
        rows = Rows(codec)
        assert [axis.categories for axis in rows.axes.all] == [3, 0, 0, 0]
        for latent in (
            {"kind": 1, "size": 0, "width": 0.375, "kind=b.x": 0.25},
            {"kind": 2, "size": 1, "width": 0.875},
        ):
            assert rows.latent(np.array(rows.row(latent))) == latent
        # 16, 32, 64 in the order of their values
        assert [rows.row({"kind": 0, "size": index, "width": 0.125})[1] for index in (1, 2, 0)] == [
            pytest.approx((rank + 0.5) / 3) for rank in range(3)
        ]

    def test_categories_that_are_no_numbers_have_no_order(self) -> None:
        raw = {"method": "random", "parameters": {"a": {"values": [1, 2, True]}, "b": {"values": [1, 2]}}}
        rows = Rows(Codec(dimensions_of(parse_sweep(raw).parameters)))
        assert [axis.categories for axis in rows.axes.all] == [3, 2]


class TestSampler:
    @pytest.mark.parametrize("direction", ["minimize", "maximize"])
    def test_a_study_is_optimised(self, direction: Literal["minimize", "maximize"]) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sign = 1 if direction == "minimize" else -1

        def objective(trial: optuna.Trial) -> float:
            x = trial.suggest_float("x", -2, 2)
            y = trial.suggest_float("y", 1e-6, 1, log=True)
            n = trial.suggest_int("n", 1, 9)
            kind = trial.suggest_categorical("kind", ["a", "b", None])
            step = trial.suggest_float("step", 0, 1, step=0.25)
            loss = (x - 0.3) ** 2 + (math.log10(y) + 3) ** 2 + abs(n - 4) + (kind != "b") + (step - 0.75) ** 2
            return sign * loss

        study = optuna.create_study(sampler=GaussianProcessSampler(seed=1), direction=direction)
        study.optimize(objective, n_trials=40)
        assert sign * study.best_value < 0.1
        assert study.best_params["n"] == 4
        assert set(optuna.importance.get_param_importances(study)) == {"x", "y", "n", "kind", "step"}

    def test_pruned_failed_and_running_trials_are_understood(self) -> None:
        study = optuna.create_study(sampler=GaussianProcessSampler(seed=1, n_startup_trials=3))
        space = {"x": optuna.distributions.FloatDistribution(0, 1), "n": optuna.distributions.IntDistribution(1, 10**6)}
        for number in range(12):
            trial = study.ask(space)
            trial.report(trial.params["x"], 1)
            if number % 4:
                state = [None, optuna.trial.TrialState.PRUNED, optuna.trial.TrialState.FAIL][number % 3]
                study.tell(trial, trial.params["x"] if state is None else None, state=state)
        assert 0 <= study.ask(space).params["x"] <= 1

    def test_several_goals_are_refused(self) -> None:
        study = optuna.create_study(sampler=GaussianProcessSampler(), directions=["minimize", "minimize"])
        study.add_trial(optuna.trial.create_trial(params={"x": 0.5}, distributions={"x": X}, values=[1.0, 2.0]))
        with pytest.raises(ValueError, match="one goal"):
            study.ask().suggest_float("x", 0, 1)


X = optuna.distributions.FloatDistribution(0, 1)


def test_who_asks_the_model_loads_no_optuna() -> None:
    script = (
        "import sys; from resweep_scheduler.config import parse_sweep; from resweep_scheduler.search import *; "
        "p = {'a': {'min': 0.0, 'max': 1.0}}; "
        "s = create_search(parse_sweep({'method': 'bayes', 'metric': {'name': 'l'}, 'parameters': p})); "
        "s.suggest(first_index=9, count=1, runs=[PastRun(i, {'a': i / 9}, 'finished', i) for i in range(9)]); "
        "print([m for m in ('optuna', 'scipy', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
