"""Every distribution against SciPy, its bounds and its way back; the beta distribution by itself."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resweep_scheduler.config import Parameter, parse_sweep
from resweep_scheduler.search.beta import beta_cdf, beta_quantile
from resweep_scheduler.search.space import dimensions_of, nest, pick, position_of, value_at

stats = pytest.importorskip("scipy.stats", reason="SciPy is the oracle of the distributions; scikit-learn brings it")

U = st.integers(0, 2**52 - 1).map(lambda n: (n + 0.5) / 2**52)


def parameter(**written: object) -> Parameter:
    return parse_sweep({"method": "random", "parameters": {"a": written}}).parameters["a"]


def number(one: Parameter, u: float) -> float:
    value = value_at(one, u)
    assert isinstance(value, int | float)
    return value


CONTINUOUS: dict[str, tuple[dict[str, object], Callable[[float], float]]] = {
    "uniform": ({"min": -1, "max": 3}, stats.uniform(-1, 4).ppf),
    "log_uniform": ({"min": -3, "max": 2}, stats.loguniform(math.exp(-3), math.exp(2)).ppf),
    "log_uniform_values": ({"min": 1e-5, "max": 10}, stats.loguniform(1e-5, 10).ppf),
    "inv_log_uniform": ({"min": -3, "max": 2}, lambda u: stats.loguniform(math.exp(-2), math.exp(3)).isf(u)),
    "inv_log_uniform_values": ({"min": 0.1, "max": 10}, stats.loguniform(0.1, 10).isf),
    "normal": ({"mu": 2, "sigma": 3}, stats.norm(2, 3).ppf),
    "log_normal": ({"mu": 1, "sigma": 0.5}, stats.lognorm(0.5, scale=math.e).ppf),
    "beta": ({"a": 2, "b": 0.5}, stats.beta(2, 0.5).ppf),
}
QUANTISED: dict[str, dict[str, float]] = {
    "q_uniform": {"min": -1.1, "max": 7.9, "q": 0.3},
    "q_log_uniform": {"min": 0, "max": 5, "q": 3},
    "q_log_uniform_values": {"min": 1, "max": 100, "q": 7},
    "q_normal": {"mu": 1, "sigma": 20, "q": 0.1},
    "q_log_normal": {"mu": 1, "sigma": 1, "q": 2},
    "q_beta": {"a": 0.5, "b": 2, "q": 0.15},
}
BOUNDED = [kind for kind in (*CONTINUOUS, *QUANTISED) if "normal" not in kind]


def of_kind(kind: str) -> Parameter:
    written: dict[str, object] = CONTINUOUS[kind][0] if kind in CONTINUOUS else {**QUANTISED[kind]}
    return parameter(distribution=kind, **written)


@pytest.mark.parametrize("kind", CONTINUOUS)
def test_the_inverse_distribution_is_that_of_scipy(kind: str) -> None:
    for u in (1e-9, 0.001, 0.1, 0.3, 0.5, 0.77, 0.999, 1 - 1e-6):
        assert math.isclose(number(of_kind(kind), u), CONTINUOUS[kind][1](u), rel_tol=1e-9, abs_tol=1e-12), u


@pytest.mark.parametrize("kind", [*CONTINUOUS, *QUANTISED])
@given(u=U, v=U)
def test_values_are_plain_numbers_that_rise_with_u(kind: str, u: float, v: float) -> None:
    low, high = (number(of_kind(kind), x) for x in sorted((u, v)))
    assert type(low) in (int, float)
    assert math.isfinite(low)
    assert low >= high if kind.startswith("inv") else low <= high


@pytest.mark.parametrize("kind", BOUNDED)
@given(u=U)
def test_values_stay_inside_the_bounds(kind: str, u: float) -> None:
    one = of_kind(kind)
    low, high = getattr(one, "limits", (0.0, 1.0))
    assert low <= number(one, u) <= high


@pytest.mark.parametrize("kind", QUANTISED)
@given(u=U)
def test_quantised_values_are_multiples_in_the_type_of_q(kind: str, u: float) -> None:
    q = QUANTISED[kind]["q"]
    value = number(of_kind(kind), u)
    assert type(value) is type(q)
    assert value == round(round(value / q) * q, 6)


@pytest.mark.parametrize("kind", [*CONTINUOUS, *QUANTISED])
@given(u=st.floats(1e-9, 1 - 1e-9))
def test_a_value_leads_to_a_position_that_leads_back_to_it(kind: str, u: float) -> None:
    one = of_kind(kind)
    value = number(one, u)
    position = position_of(one, value)
    assert position is not None
    assert 0 <= position <= 1
    back = number(one, min(max(position, 1e-12), 1 - 1e-12))
    assert math.isclose(back, value, rel_tol=1e-6, abs_tol=1e-9)


def test_all_integers_are_equally_likely_and_both_ends_occur() -> None:
    one = parameter(min=-2, max=2)
    counts = np.unique([number(one, (n + 0.5) / 1000) for n in range(1000)], return_counts=True)
    assert [list(part) for part in counts] == [[-2, -1, 0, 1, 2], [200] * 5]


@given(st.integers(-(10**30), 10**30), st.integers(1, 10**30), U)
def test_integers_of_any_size_stay_exact_and_inside(low: int, width: int, u: float) -> None:
    value = value_at(parameter(min=low, max=low + width), u)
    assert type(value) is int
    assert low <= value <= low + width


@given(st.integers(-100, 100), st.integers(1, 1000), U)
def test_an_integer_leads_back_to_itself(low: int, width: int, u: float) -> None:
    one = parameter(min=low, max=low + width)
    position = position_of(one, value_at(one, u))
    assert position is not None
    assert value_at(one, position) == value_at(one, u)


def test_probabilities_are_kept_and_zero_never_occurs() -> None:
    one = parameter(values=["a", "never", "b", "never"], probabilities=[0.25, 0, 0.75, 0])
    drawn = [value_at(one, (n + 0.5) / 1000) for n in range(1000)]
    assert (drawn.count("a"), drawn.count("b"), drawn.count("never")) == (250, 750, 0)
    assert value_at(one, 1 - 2**-53) == "b"


def test_probabilities_may_sum_to_a_little_less_than_one() -> None:
    one = parameter(values=["a", "b", "c"], probabilities=[0.33333, 0.33333, 0.33333])
    drawn = [value_at(one, (n + 0.5) / 999) for n in range(999)]
    assert [drawn.count(value) for value in "abc"] == [333, 333, 333]


def test_rounding_never_gives_weight_to_what_cannot_occur() -> None:
    one = parameter(values=[*range(10), "never"], probabilities=[0.1] * 10 + [0])
    assert value_at(one, 1 - 2**-53) == 9


def test_a_q_uniform_range_gives_its_ends_half_the_weight_as_in_wandb() -> None:
    one = parameter(distribution="q_uniform", min=0, max=10, q=5)
    drawn = [value_at(one, (n + 0.5) / 1000) for n in range(1000)]
    assert [drawn.count(value) for value in (0, 5, 10)] == [250, 500, 250]


def test_sigma_zero_is_mu() -> None:
    one = parameter(distribution="normal", mu=3, sigma=0)
    assert value_at(one, 0.9) == 3.0
    assert position_of(one, 3.0) == 0.5


def test_ranges_near_the_largest_float_do_not_overflow() -> None:
    one = parameter(min=-1.7e308, max=1.7e308)
    assert math.isfinite(number(one, 0.9))
    assert position_of(one, 0.0) == 0.5


@pytest.mark.parametrize("value", [True, None, "1", [1], math.nan, math.inf, 10**400, -1, 11, 0.5])
def test_what_a_parameter_cannot_be_has_no_position(value: object) -> None:
    assert position_of(parameter(min=0, max=10), value) is None


@pytest.mark.parametrize(("kind", "value"), [("beta", 1.5), ("log_normal", -1.0), ("uniform", 4.0), ("q_beta", -0.15)])
def test_what_a_distribution_cannot_give_has_no_position(kind: str, value: float) -> None:
    assert position_of(of_kind(kind), value) is None


def test_nested_values_are_put_and_found_by_their_path() -> None:
    raw = {"b": {"value": 1}, "a": {"parameters": {"x": {"value": [1]}, "c.d": {"value": 2}}}}
    parameters = parse_sweep({"method": "random", "parameters": raw}).parameters
    assert [one.name for one in dimensions_of(parameters)] == ["a.c.d", "a.x", "b"]
    shared = [1]
    point = nest(parameters, {("b",): 1, ("a", "x"): shared, ("a", "c.d"): 2})
    assert list(point) == ["b", "a"]
    assert point == {"b": 1, "a": {"x": [1], "c.d": 2}}
    assert pick(point, ("a", "x")) is not shared
    for path in [("a", "y"), ("b", "x"), ("c",)]:
        with pytest.raises(KeyError):
            pick(point, path)


SHAPES = st.floats(-1, 4).map(lambda exponent: 10.0**exponent)


@given(SHAPES, SHAPES, st.floats(1e-6, 1 - 1e-6))
def test_beta_is_that_of_scipy(a: float, b: float, u: float) -> None:
    x = beta_quantile(u, a, b)
    assert 0 <= x <= 1
    # Compared in u, because x may be 1e-300 or 1 to the last bit; the survival function keeps precision near 1.
    assert math.isclose(beta_cdf(x, a, b), stats.beta.cdf(x, a, b), abs_tol=1e-9)
    assert math.isclose(x, stats.beta.ppf(u, a, b), rel_tol=1e-5, abs_tol=1e-9)


@pytest.mark.parametrize(("a", "b"), [(1e6, 1e6), (2e5, 3e8), (1e12, 1e11), (1e5, 0.5), (0.5, 1e6)])
def test_beta_of_large_shapes_is_close_enough(a: float, b: float) -> None:
    deviation = math.sqrt(a / (a + b) / (a + b) * b / (a + b + 1))
    for u in (0.001, 0.3, 0.999):
        x = beta_quantile(u, a, b)
        assert abs(x - stats.beta.ppf(u, a, b)) < 0.05 * deviation
        assert math.isclose(beta_cdf(x, a, b), u, abs_tol=1e-4)


def test_beta_ends() -> None:
    assert beta_quantile(0.3, 1e300, 1e300) == 0.5
    assert 0 <= beta_quantile(1e-12, 1e-3, 1e-3) < 1e-300
    assert beta_quantile(1 - 1e-12, 1e-3, 1e-3) == 1
    assert (beta_cdf(-1, 2, 3), beta_cdf(0, 2, 3), beta_cdf(1, 2, 3), beta_cdf(2, 2, 3)) == (0, 0, 1, 1)
