"""Samplers of Optuna by name: pure, spread, complete on finite spaces, and not confused by preemption."""

from __future__ import annotations

import inspect
import json
import random
import statistics
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec

import optuna
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from support.search_contract import SearchContract

from resweep_scheduler.config import SweepConfig, parse_sweep
from resweep_scheduler.config.samplers import SAMPLERS
from resweep_scheduler.config.sections import SearchOptions
from resweep_scheduler.search import PastRun, SearchError, create_search
from resweep_scheduler.search.brute_force import shuffled
from resweep_scheduler.search.encoding import Codec
from resweep_scheduler.search.space import dimensions_of

MIXED: dict[str, object] = {
    "lr": {"distribution": "log_uniform_values", "min": 1e-5, "max": 1.0},
    "x": {"min": -1.0, "max": 1.0},
    "width": {"min": 1, "max": 64},
    "act": {"values": [0, False, None, [1]]},
    "p": {"values": ["a", "never", "b"], "probabilities": [0.5, 0, 0.5]},
    "noise": {"distribution": "q_normal", "q": 0.1},
}
CONDITIONAL: dict[str, object] = {
    "optimizer": {
        "choices": {
            "sgd": {"parameters": {"momentum": {"min": 0.0, "max": 0.99}}},
            "adam": {"parameters": {"beta": {"min": 0.8, "max": 0.999}, "momentum": {"min": 1, "max": 3}}},
            "lbfgs": {},
        }
    },
    "x": {"min": -1.0, "max": 1.0},
    "y": {"distribution": "normal"},
}
SMALL: dict[str, object] = {"a": {"min": 1, "max": 5}, "b": {"values": ["x", "y", "z"]}, "c": {"min": 1, "max": 2}}
FEW = {"population_size": 6}
LEARNING: dict[str, dict[str, object]] = {
    "tpe": {"n_startup_trials": 5},
    "cmaes": {"n_startup_trials": 2},
    "nsga2": dict(FEW),
    "nsga3": dict(FEW),
}
ALL: dict[str, dict[str, object]] = {**LEARNING, "qmc": {}, "random": {}}


def sweep(
    sampler: str, parameters: Mapping[str, object] = MIXED, *, options: dict[str, object] | None = None, **keys: object
) -> SweepConfig:
    chosen = ALL.get(sampler, {}) if options is None else options
    raw: dict[str, object] = {
        "method": "bayes",
        "seed": 1,
        "metric": {"name": "loss"},
        "parameters": dict(parameters),
        "search": {"sampler": sampler, "options": chosen},
        **keys,
    }
    return parse_sweep(raw)


def loss(point: Mapping[str, object]) -> float:
    """Smooth in x, with one good category."""
    x = point.get("x", 0.0)
    assert isinstance(x, float)
    return (x - 0.3) ** 2 + (0 if point.get("act") is False else 1)


def history(config: SweepConfig, count: int) -> list[PastRun]:
    """Runs that were asked for one by one, in many states."""
    search = create_search(config)
    runs: list[PastRun] = []
    for index in range(count):
        (point,) = search.suggest(first_index=index, count=1, runs=runs)
        state = {7: "failed", 11: "preempted", 13: "killed", 17: "running"}.get(index % 20, "finished")
        value = None if state == "failed" else float(index * 37 % 23)
        runs.append(PastRun(index, point, state, value, last=value, stopped=state == "killed"))
    return runs


class TestTpe(SearchContract):
    config = sweep("tpe")
    last_index = 20


class TestTpeOfBranches(SearchContract):
    config = sweep("tpe", CONDITIONAL)
    last_index = 20


class TestCmaes(SearchContract):
    config = sweep("cmaes")
    last_index = 25


class TestCmaesOfBranches(SearchContract):
    config = sweep("cmaes", CONDITIONAL)
    last_index = 25


class TestQmc(SearchContract):
    config = sweep("qmc")
    last_index = 9


class TestHalton(SearchContract):
    config = sweep("qmc", CONDITIONAL, options={"qmc_type": "halton", "scramble": False})
    last_index = 9


class TestNsga2(SearchContract):
    config = sweep("nsga2")
    last_index = 25


class TestNsga3OfBranches(SearchContract):
    config = sweep("nsga3", CONDITIONAL)
    last_index = 25


class TestRandom(SearchContract):
    config = sweep("random", SMALL)
    last_index = 9


class TestBruteForce(SearchContract):
    config = sweep("brute_force", SMALL)
    last_index = 25


@pytest.mark.parametrize("parameters", [MIXED, CONDITIONAL, SMALL], ids=["mixed", "conditional", "small"])
@pytest.mark.parametrize("sampler", ALL)
def test_points_of_a_batch_equal_points_asked_one_by_one(sampler: str, parameters: dict[str, object]) -> None:
    if sampler == "cmaes" and parameters is SMALL:
        parameters = {**SMALL, "d": {"min": 0, "max": 3}}
    config = sweep(sampler, parameters)
    runs = history(config, 24)
    batch = create_search(config).suggest(first_index=24, count=4, runs=runs)
    for index, expected in enumerate(batch, 24):
        (point,) = create_search(config).suggest(first_index=index, count=1, runs=random.sample(runs, len(runs)))
        assert point == expected
        runs.append(PastRun(index, point, "pending", None))


@pytest.mark.parametrize("rule", ["worst", "latest", "best"])
@pytest.mark.parametrize("sampler", LEARNING)
def test_a_batch_is_as_one_by_one_where_running_runs_count(sampler: str, rule: str) -> None:
    config = sweep(sampler, metric={"name": "loss", "impute_while_running": rule})
    runs = history(config, 16)
    batch = create_search(config).suggest(first_index=16, count=3, runs=runs)
    for index, expected in enumerate(batch, 16):
        (point,) = create_search(config).suggest(first_index=index, count=1, runs=runs)
        assert point == expected
        runs.append(PastRun(index, point, "pending", None))


def test_a_new_process_gives_the_same_answer() -> None:
    """After any restart in the middle, the sweep goes on as if there had been none."""
    configs = [sweep(sampler) for sampler in LEARNING]
    histories = [history(config, 30) for config in configs]
    expected = [
        create_search(config).suggest(first_index=30, count=2, runs=runs)
        for config, runs in zip(configs, histories, strict=True)
    ]
    program = """
import json, sys
from resweep_scheduler.config import SweepConfig
from resweep_scheduler.search import PastRun, create_search
answers = []
for config, runs in json.load(sys.stdin):
    past = [PastRun(*fields, stopped=stopped) for *fields, stopped in reversed(runs)]
    answers.append(create_search(SweepConfig.from_json(config)).suggest(first_index=30, count=2, runs=past))
print(json.dumps(answers))
"""
    records = [
        (config.to_json(), [(run.index, run.params, run.state, run.value, run.last, run.stopped) for run in runs])
        for config, runs in zip(configs, histories, strict=True)
    ]
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(records),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert json.loads(done.stdout) == json.loads(json.dumps(expected))


@pytest.mark.parametrize("sampler", LEARNING)
def test_a_preempted_run_is_as_pending_as_a_running_one(sampler: str) -> None:
    """Whatever happens to a run before its real end, and whatever it logged: the search stands as it stood."""
    config = sweep(sampler)
    runs = history(config, 24)
    answers = []
    for state, value in [("pending", None), ("running", -5.0), ("preempting", -5.0), ("preempted", 99.0)]:
        changed = [PastRun(run.index, run.params, state, value) if run.index in (3, 12, 20) else run for run in runs]
        answers.append(create_search(config).suggest(first_index=24, count=2, runs=changed))
    assert all(answer == answers[0] for answer in answers)


@pytest.mark.parametrize("sampler", ["cmaes", "nsga2", "nsga3"])
def test_what_a_search_remembers_makes_no_difference(sampler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that was asked all along answers as one that sees the runs for the first time; runs end in any order."""
    monkeypatch.setattr("resweep_scheduler.search.samplers._SNAPSHOT_EVERY", 2)
    config = sweep(sampler)
    used = create_search(config)
    source = random.Random(5)
    runs: list[PastRun] = []
    for index in range(60):
        (point,) = used.suggest(first_index=index, count=1, runs=runs)
        if index % 3 == 2:
            assert create_search(config).suggest(first_index=index, count=1, runs=runs) == [point]
        runs.append(PastRun(index, point, "running", None))
        for place in source.sample(range(len(runs)), min(3, len(runs))):
            if runs[place].state == "running":
                runs[place] = PastRun(place, runs[place].params, "finished", source.random())


@pytest.mark.parametrize("sampler", LEARNING)
def test_results_make_a_difference(sampler: str) -> None:
    config = sweep(sampler)
    runs = history(config, 30)
    other = [PastRun(run.index, run.params, run.state, None if run.value is None else -run.value) for run in runs]
    search = create_search(config)
    ask = {"first_index": 30, "count": 2}
    assert search.suggest(**ask, runs=runs) != search.suggest(**ask, runs=other)


def best_of(sampler: str, seed: int, options: dict[str, object] | None = None, *, count: int = 60) -> float:
    """The best loss after some runs with eight in flight, a third of which are preempted once."""
    parameters: dict[str, object] = {
        "x": {"min": -4.0, "max": 4.0},
        "y": {"min": -4.0, "max": 4.0},
        "z": {"min": 0.0, "max": 1.0},
    }
    config = sweep(sampler, parameters, options=options, seed=seed)
    search = create_search(config)
    runs: list[PastRun] = []
    values: dict[int, float] = {}
    for index in range(count):
        done = {other: value for other, value in values.items() if other < index - 8 - 8 * (other % 3 == 0)}
        runs = [
            PastRun(run.index, run.params, "finished" if run.index in done else "preempted", done.get(run.index))
            for run in runs
        ]
        (point,) = search.suggest(first_index=index, count=1, runs=runs)
        x, y, z = (float(str(point[name])) for name in "xyz")
        values[index] = (x - 1) ** 2 + (y + 2) ** 2 + (z - 0.5) ** 2
        runs.append(PastRun(index, point, "pending", None))
    return min(values.values())


@pytest.mark.parametrize(("sampler", "options"), [("tpe", {}), ("cmaes", {}), ("nsga2", {"population_size": 10})])
def test_samplers_learn_with_preempted_runs_and_many_in_flight(sampler: str, options: dict[str, object]) -> None:
    learned = statistics.median(best_of(sampler, seed, options) for seed in range(5))
    guessed = statistics.median(best_of("random", seed) for seed in range(5))
    assert learned < guessed


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "qmc", "random"])
def test_a_finite_space_is_walked_once_before_anything_is_repeated(sampler: str) -> None:
    search = create_search(sweep(sampler, SMALL))
    runs: list[PastRun] = []
    for index in range(30):
        (point,) = search.suggest(first_index=index, count=1, runs=runs)
        state = "preempted" if index % 3 == 0 else "finished"
        runs.append(PastRun(index, point, state, float(index % 5) if state == "finished" else None))
    assert len({json.dumps(run.params) for run in runs}) == 30
    (beyond,) = search.suggest(first_index=30, count=1, runs=runs)
    assert beyond in [run.params for run in runs]


def test_a_finite_space_with_branches_is_walked_once() -> None:
    choices = {
        "a": {"parameters": {"n": {"min": 1, "max": 4}}},
        "b": {"parameters": {"m": {"values": [1, 2]}}},
        "c": {},
    }
    parameters = {"kind": {"choices": choices}, "k": {"min": 0, "max": 1}}
    search = create_search(sweep("tpe", parameters, options={"n_startup_trials": 2}))
    runs: list[PastRun] = []
    for index in range(14):
        (point,) = search.suggest(first_index=index, count=1, runs=runs)
        runs.append(PastRun(index, point, "finished", 0.0 if point["kind"] == "c" else 1.0))
    assert len({json.dumps(run.params) for run in runs}) == 14


def test_brute_force_ends_when_each_point_was_there() -> None:
    search = create_search(sweep("brute_force", SMALL))
    assert search.size == 30
    points = [json.dumps(search.suggest(first_index=index, count=1)[0]) for index in range(30)]
    assert len(set(points)) == 30
    assert points != sorted(points)
    assert search.suggest(first_index=29, count=5) == [json.loads(points[29])]
    other = create_search(sweep("brute_force", SMALL, seed=2)).suggest(first_index=0, count=30)
    assert points != [json.dumps(point) for point in other]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 17, 64, 65, 1000])
def test_shuffling_is_a_permutation(size: int) -> None:
    assert sorted(shuffled(index, size, 5) for index in range(size)) == list(range(size))


def test_branches_have_their_own_parameters_only() -> None:
    for sampler in ALL:
        for run in history(sweep(sampler, CONDITIONAL), 30):
            match run.params["optimizer"]:
                case "sgd":
                    assert set(run.params) == {"optimizer", "momentum", "x", "y"}
                    assert isinstance(run.params["momentum"], float)
                case "adam":
                    assert set(run.params) == {"optimizer", "beta", "momentum", "x", "y"}
                    assert run.params["momentum"] in (1, 2, 3)
                case _:
                    assert set(run.params) == {"optimizer", "x", "y"}


def test_tpe_learns_inside_a_branch() -> None:
    search = create_search(sweep("tpe", CONDITIONAL, options={}))
    runs: list[PastRun] = []
    for index in range(70):
        (point,) = search.suggest(first_index=index, count=1, runs=runs)
        momentum = point.get("momentum")
        good = abs(momentum - 0.9) if point["optimizer"] == "sgd" and isinstance(momentum, float) else 1.0
        runs.append(PastRun(index, point, "finished", good))
    late = [run for run in runs[40:] if run.params["optimizer"] == "sgd"]
    assert len(late) > 20
    assert statistics.median(run.value or 0.0 for run in late) < 0.1


@pytest.mark.parametrize("scramble", [True, False])
def test_points_of_qmc_fill_the_space_evenly(scramble: bool) -> None:
    parameters = {"x": {"min": 0.0, "max": 1.0}, "y": {"min": 0.0, "max": 1.0}}
    config = sweep("qmc", parameters, options={"scramble": scramble})
    points = create_search(config).suggest(first_index=0, count=16)
    cells = {(int(float(str(point["x"])) * 4), int(float(str(point["y"])) * 4)) for point in points}
    assert len(cells) == 16


@pytest.mark.parametrize("crossover", ["uniform", "blxalpha", "sbx", "spx", "undx", "vsbx"])
def test_every_crossover_works(crossover: str) -> None:
    config = sweep("nsga2", options={"population_size": 4, "crossover": crossover, "mutation_prob": 0.1})
    runs = history(config, 14)
    assert len(create_search(config).suggest(first_index=14, count=3, runs=runs)) == 3


@pytest.mark.parametrize(
    "options", [{"use_separable_cma": True}, {"lr_adapt": True}, {"popsize": 4, "consider_pruned_trials": True}]
)
def test_every_kind_of_cmaes_works(options: dict[str, object]) -> None:
    config = sweep("cmaes", options=options)
    runs = history(config, 40)
    assert len(create_search(config).suggest(first_index=40, count=2, runs=runs)) == 2


def test_cmaes_starts_at_the_best_prior_run() -> None:
    parameters = {"x": {"min": 0.0, "max": 1.0}, "y": {"min": 0.0, "max": 1.0}}
    priors = [
        PastRun(-2, {"x": 0.9, "y": 0.1}, "finished", 0.0),
        PastRun(-1, {"x": 0.1, "y": 0.9}, "finished", 5.0),
    ]
    points = create_search(sweep("cmaes", parameters)).suggest(first_index=0, count=40, runs=priors)
    assert statistics.fmean(float(str(point["x"])) for point in points) > 0.7
    assert statistics.fmean(float(str(point["y"])) for point in points) < 0.3


def test_cmaes_starts_again_where_it_has_converged() -> None:
    parameters: dict[str, object] = {"x": {"min": 0.0, "max": 1.0}, "y": {"min": 0.0, "max": 1.0}}
    search = create_search(sweep("cmaes", parameters))
    runs: list[PastRun] = []
    while len(runs) < 720:
        for point in search.suggest(first_index=len(runs), count=6, runs=runs):
            value = (float(str(point["x"])) - 0.3) ** 2 + (float(str(point["y"])) - 0.6) ** 2
            runs.append(PastRun(len(runs), point, "finished", value))
    converged = next(run.index for run in runs if run.value is not None and run.value < 1e-12)
    assert max(run.value or 0.0 for run in runs[converged:]) > 1e-3


@pytest.mark.parametrize("sampler", LEARNING)
def test_failures_do_not_attract_the_sampler(sampler: str) -> None:
    """Where everything crashes, the search must leave: half of the space has no value at all."""
    parameters: dict[str, object] = {"x": {"min": -1.0, "max": 1.0}, "y": {"min": 0.0, "max": 1.0}}
    search = create_search(sweep(sampler, parameters))
    runs: list[PastRun] = []
    for index in range(60):
        (point,) = search.suggest(first_index=index, count=1, runs=runs)
        x = float(str(point["x"]))
        runs.append(PastRun(index, point, "failed" if x > 0 else "finished", None if x > 0 else (x + 0.1) ** 2))
    assert sum(run.state == "failed" for run in runs[30:]) < 15


def test_runs_without_any_value_are_kept_away_from() -> None:
    """Before the first value there is nothing to impute; TPE then has only points to avoid and never fails."""
    search = create_search(sweep("tpe"))
    points = search.suggest(first_index=0, count=12)
    runs = [PastRun(index, point, "failed", None) for index, point in enumerate(points)]
    assert len(search.suggest(first_index=12, count=2, runs=runs)) == 2
    runs.append(PastRun(12, points[0], "finished", 1.0))
    config = sweep("tpe", options={"n_startup_trials": 1})
    assert len(create_search(config).suggest(first_index=13, count=2, runs=runs)) == 2


def test_several_goals_find_the_front() -> None:
    """x trades one goal for the other between 0 and 1; beyond, both get worse."""
    parameters: dict[str, object] = {"x": {"min": -4.0, "max": 4.0}, "y": {"min": -4.0, "max": 4.0}}
    metrics = [{"name": "a"}, {"name": "b", "goal": "maximize"}]
    searches: list[dict[str, object]] = [{"sampler": "nsga2", "options": {"population_size": 12}}, {"sampler": "tpe"}]
    for search_keys in searches:
        raw = {"method": "bayes", "seed": 4, "metrics": metrics, "parameters": parameters, "search": search_keys}
        search = create_search(parse_sweep(raw))
        runs: list[PastRun] = []
        for index in range(100):
            (point,) = search.suggest(first_index=index, count=1, runs=runs)
            x, y = float(str(point["x"])), float(str(point["y"]))
            values = (x**2 + abs(y), -((x - 1) ** 2) - abs(y))
            state = "failed" if index % 10 == 9 else "finished"
            runs.append(PastRun(index, point, state, None, values=values if state == "finished" else (None, values[1])))
        near = [
            run
            for run in runs[60:]
            if -0.5 < float(str(run.params["x"])) < 1.5 and abs(float(str(run.params["y"]))) < 1
        ]
        assert len(near) > 8, search_keys  # at random about 2.5


def test_metrics_without_a_sampler_are_searched_by_tpe() -> None:
    raw: dict[str, object] = {"method": "bayes", "metrics": [{"name": "a"}, {"name": "b"}], "parameters": MIXED}
    assert type(create_search(parse_sweep(raw))).__name__ == "OptunaSearch"


@pytest.mark.skipif(find_spec("torch") is not None, reason="torch is installed")
def test_a_sampler_whose_packages_are_missing_says_what_to_install() -> None:
    config = sweep("gp", options={})
    assert [warning for warning in config.warnings if "pip install torch" in warning]
    with pytest.raises(
        SearchError, match=r"sampler gp needs torch, which this machine does not have.*pip install torch"
    ):
        create_search(config).suggest(first_index=0, count=1)


def test_the_gaussian_process_of_optuna_is_asked_with_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch is too large to be installed for a test: a stand-in tells what the sampler was made with."""
    made: list[dict[str, object]] = []

    def stand_in(**options: object) -> optuna.samplers.BaseSampler:
        made.append(options)
        return optuna.samplers.RandomSampler(seed=1)

    monkeypatch.setattr("resweep_scheduler.search.samplers.find_spec", lambda name: object())
    monkeypatch.setattr(optuna.samplers, "GPSampler", stand_in)
    config = sweep("gp", options={"n_startup_trials": 3, "deterministic_objective": True})
    runs = history(config, 3)
    assert made == []
    assert len(create_search(config).suggest(first_index=4, count=2, runs=runs)) == 2
    keys = {"n_startup_trials", "deterministic_objective", "warn_independent_sampling", "seed"}
    assert [set(options) for options in made] == [keys, keys]
    assert made[0]["seed"] != made[1]["seed"]


def test_configs_that_were_not_checked_are_refused() -> None:
    config = sweep("tpe")
    with pytest.raises(SearchError, match="needs a metric"):
        create_search(config.model_copy(update={"metric": None}))
    with pytest.raises(SearchError, match="brute_force needs parameters that can be counted"):
        create_search(config.model_copy(update={"search": SearchOptions(sampler="brute_force")}))


def test_the_options_are_those_of_the_installed_optuna() -> None:
    classes = {
        "tpe": "TPESampler", "gp": "GPSampler", "cmaes": "CmaEsSampler", "qmc": "QMCSampler", "nsga2": "NSGAIISampler",
        "nsga3": "NSGAIIISampler", "random": "RandomSampler", "brute_force": "BruteForceSampler",
    }  # fmt: skip
    assert set(classes) == set(SAMPLERS)
    for name, sampler in SAMPLERS.items():
        assert set(sampler.options) <= set(inspect.signature(getattr(optuna.samplers, classes[name])).parameters)


@pytest.mark.parametrize("sampler", LEARNING)
@settings(max_examples=25, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(data=st.data())
def test_no_history_breaks_a_sampler_or_makes_it_waver(sampler: str, data: st.DataObject) -> None:
    """Any mixture of states and values, huge ones and no numbers too: points of the space, the same in any order."""
    config = sweep(sampler, CONDITIONAL if data.draw(st.booleans()) else MIXED)
    points = create_search(config).suggest(first_index=0, count=14)
    states = st.sampled_from(["finished", "finished", "running", "preempted", "failed", "crashed", "killed", "pending"])
    values = st.none() | st.floats() | st.sampled_from([0.0, 1e308, -1e308, 1.0])
    runs = [
        PastRun(
            index - 2, point, data.draw(states), data.draw(values), data.draw(values), stopped=data.draw(st.booleans())
        )
        for index, point in enumerate(points)
    ]
    answer = create_search(config).suggest(first_index=12, count=2, runs=runs)
    assert answer == create_search(config).suggest(first_index=12, count=2, runs=runs[::-1])
    codec = Codec(dimensions_of(config.parameters))
    assert all(codec.encode(point) is not None for point in answer)
