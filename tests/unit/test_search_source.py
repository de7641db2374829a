"""Search by the study of a user: pure as far as its sampler is, rebuilt from runs, and told what Optuna knows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from support.search_contract import SearchContract

from resweep_scheduler.config import SweepConfig, load_sweep, parse_sweep
from resweep_scheduler.search import PastRun, Search, SearchError, Sources, create_search
from resweep_scheduler.search.by_source import SourceSearch
from resweep_scheduler.search.drawing import distributions_of

STUDY = Path(__file__).parent.parent / "support" / "study.py"
PLANE = {"x": {"min": 0.0, "max": 1.0}, "y": {"min": 0.0, "max": 1.0}}
FEW = {"a": {"min": 1, "max": 3}, "b": {"values": [1, 2]}}


def sweep(optimizer: str | None = None, search_space: str | None = None, **keys: object) -> SweepConfig:
    scheduler = {"engine": "optuna", "source": "study.py", "optimizer": optimizer, "search_space": search_space}
    raw = {"method": "custom", "metric": {"name": "loss"}, "scheduler": scheduler, **keys}
    return parse_sweep({key: value for key, value in raw.items() if value is not None})


def search_of(config: SweepConfig, file: Path = STUDY) -> SourceSearch:
    made = create_search(config, Sources([file]), "s1")
    assert isinstance(made, SourceSearch)
    return made


def study_of(search: SourceSearch) -> optuna.Study:
    assert search._live is not None
    return search._live._study


def finished(index: int, params: Mapping[str, object], value: float | None) -> PastRun:
    return PastRun(index, dict(params), "finished", value, last=value)


def played(config: SweepConfig, count: int, value: Callable[[dict[str, Any]], float]) -> list[PastRun]:
    """Runs that one search was asked for one by one, and that finished."""
    search = search_of(config)
    runs: list[PastRun] = []
    for index in range(count):
        (point,) = search.suggest(first_index=index, count=1, runs=runs)
        runs.append(finished(index, point, value(point)))
    return runs


def distance(point: Mapping[str, Any]) -> float:
    return float((point["x"] - 0.3) ** 2 + (point["y"] - 0.7) ** 2)


# -- the contract ------------------------------------------------------------------------------------------------------


class _ByStudy(SearchContract):
    last_index = 20

    def create(self) -> Search:
        return search_of(self.config)


class TestDrawn(_ByStudy):
    config = sweep("tpe", "draw")

    def test_points_are_nested_like_the_config_and_plain_json(self) -> None:
        for point in self.create().suggest(first_index=0, count=20):
            assert list(point) == ["x", "y", "depth", "optimizer", "epochs"]
            assert isinstance(point["optimizer"], dict)
            assert ("momentum" in point["optimizer"]) == (point["optimizer"]["name"] == "sgd")


class TestDeclared(_ByStudy):
    config = sweep("tpe", parameters={**PLANE, "g": {"parameters": {"act": {"values": ["a", None, True]}}}})


# -- what is drawn -----------------------------------------------------------------------------------------------------


def test_parameters_become_the_distributions_of_wandbs_scheduler() -> None:
    config = sweep(
        "tpe",
        parameters={
            "c": {"value": "k"},
            "v": {"values": ["a", 2, None]},
            "i": {"min": 1, "max": 9},
            "u": {"min": 0.0, "max": 1.0},
            "log": {"distribution": "log_uniform_values", "min": 1e-5, "max": 1},
            "qi": {"distribution": "q_uniform", "min": 1, "max": 10, "q": 4},
            "q1": {"distribution": "q_uniform", "min": 1, "max": 10},
            "qf": {"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.25},
            "ql": {"distribution": "q_log_uniform_values", "min": 1, "max": 64, "q": 1},
            "qd": {"distribution": "q_log_uniform_values", "min": 0.5, "max": 64, "q": 1},
            "q2": {"distribution": "q_log_uniform_values", "min": 2, "max": 64, "q": 2},
            "g": {"parameters": {"h": {"parameters": {"x": {"min": 0.0, "max": 1.0}}}}},
        },
    )
    assert distributions_of(config.parameters) == {
        "c": CategoricalDistribution(["k"]),
        "v": CategoricalDistribution(["a", 2, None]),
        "i": IntDistribution(1, 9),
        "u": FloatDistribution(0.0, 1.0),
        "log": FloatDistribution(1e-5, 1, log=True),
        "qi": IntDistribution(1, 9, step=4),
        "q1": IntDistribution(1, 10),
        "qf": FloatDistribution(0, 1, step=0.25),
        "ql": IntDistribution(1, 64, log=True),
        "qd": FloatDistribution(0.5, 64, log=True),
        "q2": FloatDistribution(2, 64, log=True),
        "g.h.x": FloatDistribution(0.0, 1.0),
    }
    assert [warning.split()[0] for warning in config.warnings] == ["qd", "q2"]
    (point,) = search_of(config).suggest(first_index=0, count=1)
    assert list(point) == list(config.parameters)
    assert point["c"] == "k"
    assert isinstance(point["g"], dict)
    assert set(point["g"]["h"]) == {"x"}


def test_values_may_be_lists_which_optuna_has_no_wish_to_store() -> None:
    config = sweep("tpe", parameters={"layers": {"values": [[64], [64, 64]]}, "d": {"value": {"k": None}}})
    search = search_of(config)
    points = search.suggest(first_index=0, count=4)
    assert all(point["layers"] in ([64], [64, 64]) and point["d"] == {"k": None} for point in points)
    again = search_of(config)
    again.suggest(first_index=4, count=1, runs=[finished(index, point, 1.0) for index, point in enumerate(points)])
    assert [trial.params["layers"] for trial in study_of(again).trials[:4]] == [point["layers"] for point in points]


def test_the_function_is_told_of_the_sweep(tmp_path: Path) -> None:
    file = tmp_path / "study.py"
    file.write_text(
        "import optuna, json\ndef tpe(sweep):\n    seen.append(sweep)\n    return optuna.create_study()\nseen = []\n"
    )
    config = sweep("tpe", parameters=PLANE, name="n", project="p", entity="e", run_cap=3)
    search = search_of(config, file)
    search.suggest(first_index=0, count=1)
    optimizer: Any = search._functions.optimizer
    (told,) = optimizer.__globals__["seen"]
    assert (told.id, told.name, told.entity, told.project) == ("s1", "n", "e", "p")
    assert told.config["method"] == "custom"
    assert told.config["metric"]["goal"] == "minimize"
    assert told.config["scheduler"]["source"] == "study.py"
    assert told.config["parameters"]["x"] == {"distribution": "uniform", "min": 0.0, "max": 1.0}
    assert told.config["run_cap"] == 3
    assert "metrics" not in told.config


# -- rebuilt from runs -------------------------------------------------------------------------------------------------


def test_a_study_with_a_seed_does_not_begin_again_with_its_first_point() -> None:
    config = sweep("tpe", "draw_plane")
    runs: list[PastRun] = []
    for index in range(8):  # each time another process asks
        (point,) = search_of(config).suggest(first_index=index, count=1, runs=runs)
        runs.append(finished(index, point, distance(point)))
    assert len({run.params["x"] for run in runs}) == 8
    assert [run.params for run in runs] == [run.params for run in played(config, 8, distance)]


def test_a_sampler_of_the_user_does_not_begin_again_with_its_first_point(tmp_path: Path) -> None:
    file = tmp_path / "study.py"
    file.write_text(
        "import optuna, random, numpy\n"
        "class Own(optuna.samplers.RandomSampler):\n"
        "    def __init__(self):\n"
        "        super().__init__(seed=1)\n"
        "        self.plain, self.numpy = random.Random(1), numpy.random.default_rng(1)\n"
        "    def sample_independent(self, study, trial, name, distribution):\n"
        "        return self.plain.random() if name == 'x' else float(self.numpy.random())\n"
        "def make(sweep):\n"
        "    return optuna.create_study(sampler=Own())\n"
    )
    config = sweep("make", parameters=PLANE)
    points: list[dict[str, object]] = []
    for index in range(4):
        runs = [finished(number, point, 1.0) for number, point in enumerate(points)]
        answers = [search_of(config, file).suggest(first_index=index, count=1, runs=runs) for _ in range(2)]
        assert answers[0] == answers[1]
        points += answers[0]
    assert len({point["x"] for point in points}) == len({point["y"] for point in points}) == 4


def test_the_example_of_the_documentation_works(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "search.md").read_text()
    code, config = (text.split(f"```{kind}\n", 1)[1].split("```")[0] for kind in ("python\n# study.py", "yaml"))
    file = tmp_path / "study.py"
    file.write_text(code)
    search = search_of(load_sweep("sweep.yaml", text=config), file)
    points = search.suggest(first_index=0, count=12)
    assert (points[0]["layers"], points[0]["lr"]) == (2, 1e-3)
    assert all(("dropout" in point) == (int(str(point["layers"])) > 2) for point in points)
    assert search.suggest(first_index=12, count=1, runs=[finished(n, p, 0.001) for n, p in enumerate(points)]) == []


@pytest.mark.parametrize("optimizer", ["cmaes", "qmc"])
def test_samplers_that_keep_a_state_get_it_back(optimizer: str) -> None:
    config = sweep(optimizer, "draw_plane")
    runs = played(config, 24, distance)
    assert len({run.params["x"] for run in runs}) == 24
    (kept,) = search_of(config).suggest(first_index=24, count=1, runs=runs)
    assert kept["x"] not in {run.params["x"] for run in runs}
    if optimizer == "qmc":
        assert kept == played(config, 25, distance)[-1].params
    else:
        late = [distance(run.params) for run in runs[14:]]
        assert distance(kept) < 0.2
        assert sum(late) < sum(distance(run.params) for run in runs[:10])


def test_generations_go_on_after_a_restart() -> None:
    config = sweep("nsga2", "draw_plane", metric=None, metrics=[{"name": "a"}, {"name": "b", "goal": "maximize"}])
    runs: list[PastRun] = []
    search = search_of(config)
    for index in range(14):
        (point,) = search.suggest(first_index=index, count=1, runs=runs)
        x, y = point["x"], point["y"]
        assert isinstance(x, float)
        assert isinstance(y, float)
        runs.append(PastRun(index, point, "finished", None, values=(x, y)))
    search.suggest(first_index=14, count=1, runs=runs)
    again = search_of(config)
    again.suggest(first_index=14, count=1, runs=runs)
    generations = [
        [trial.system_attrs.get("NSGAIISampler:generation") for trial in study_of(one).get_trials()]
        for one in (search, again)
    ]
    assert generations[0] == generations[1]
    assert max(filter(None, generations[0])) == 2


def test_what_is_enqueued_comes_first_and_once_whoever_asks() -> None:
    config = sweep("enqueued", "draw_plane")
    first = search_of(config).suggest(first_index=0, count=1)
    assert first == [{"x": 0.25, "y": 0.75}]
    runs = [finished(0, first[0], 1.0)]
    second, third = search_of(config).suggest(first_index=1, count=2, runs=runs)
    assert second["x"] == 0.5
    assert third["x"] not in (0.25, 0.5)
    assert third["y"] != 0.75


def test_finished_trials_and_attributes_of_the_users_study_are_taken_over() -> None:
    search = search_of(sweep("known", "draw_plane"))
    search.suggest(first_index=0, count=1)
    assert study_of(search).best_value == -5.0
    assert study_of(search).user_attrs == {"note": "known"}


def test_a_question_that_is_asked_again_does_not_know_its_first_answer() -> None:
    config = sweep("tpe", "draw_plane")
    search = search_of(config)
    first = search.suggest(first_index=0, count=3)
    assert search.suggest(first_index=1, count=2, runs=[PastRun(0, first[0], "running", None)]) == first[1:]


def test_another_ones_answer_takes_the_place_of_ours() -> None:
    search = search_of(sweep("tpe", "draw_plane"))
    search.suggest(first_index=0, count=1)
    search.suggest(first_index=1, count=1, runs=[finished(0, {"x": 0.5, "y": 0.5}, 2.0)])
    assert study_of(search).best_params == {"x": 0.5, "y": 0.5}


def test_runs_that_do_not_fit_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    search = search_of(sweep("tpe", "draw_plane"))
    strange: list[dict[str, object]] = [{"x": 0.5}, {"x": 7.0, "y": 0.1}, {"x": "left", "y": 0.1}]
    runs = [finished(index, params, 1.0) for index, params in enumerate(strange)]
    (point,) = search.suggest(first_index=3, count=1, runs=[*runs, finished(-1, {"x": 0.5, "y": 0.5, "z": 1}, 4.0)])
    assert [trial.value for trial in study_of(search).trials] == [4.0, None]
    assert set(point) == {"x", "y"}
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        f"run {number} is left out of the search" for number in range(3)
    ]


# -- what runs count as ------------------------------------------------------------------------------------------------


def states(runs: list[PastRun], **keys: object) -> list[tuple[TrialState, float | None]]:
    search = search_of(sweep("tpe", "draw_plane", **keys))
    search.suggest(first_index=len(runs), count=1, runs=runs)
    return [(trial.state, trial.value) for trial in study_of(search).trials[: len(runs)]]


def test_open_and_preempted_runs_stay_running_until_their_real_end() -> None:
    config = sweep("tpe", "draw_plane")
    search = search_of(config)
    point = search.suggest(first_index=0, count=1)[0]
    for state in ("pending", "running", "preempting", "preempted", "running"):
        search.suggest(first_index=1, count=1, runs=[PastRun(0, point, state, 0.5, last=0.5)])
        assert study_of(search).trials[0].state is TrialState.RUNNING
    search.suggest(first_index=1, count=1, runs=[finished(0, point, 0.25)])
    assert study_of(search).trials[0].value == 0.25


def test_runs_that_ended_are_told_as_impute_says() -> None:
    point: dict[str, object] = {"x": 0.5, "y": 0.5}
    failed = PastRun(0, point, "failed", None)
    valueless = finished(1, point, None)
    assert states([failed, valueless]) == [(TrialState.FAIL, None)] * 2
    stopped = PastRun(3, point, "killed", 0.75, last=0.8, stopped=True)
    runs = [failed, valueless, finished(2, point, 0.5), stopped, PastRun(4, point, "crashed", None)]
    assert states(runs) == [
        (TrialState.COMPLETE, 0.75),
        (TrialState.COMPLETE, 0.75),
        (TrialState.COMPLETE, 0.5),
        (TrialState.PRUNED, 0.75),
        (TrialState.COMPLETE, 0.75),
    ]


def test_a_failed_run_that_is_tried_again_runs_again_in_the_study() -> None:
    search = search_of(sweep("tpe", "draw_plane"))
    point = search.suggest(first_index=0, count=1)[0]
    expected = {"failed": TrialState.FAIL, "pending": TrialState.RUNNING, "finished": TrialState.COMPLETE}
    for state, wanted in expected.items():
        search.suggest(first_index=1, count=1, runs=[PastRun(0, point, state, 0.5 if state == "finished" else None)])
        assert study_of(search).trials[0].state is wanted


def test_a_value_that_comes_late_counts() -> None:
    search = search_of(sweep("tpe", "draw_plane"))
    point = search.suggest(first_index=0, count=1)[0]
    for value in (0.5, 0.25):
        search.suggest(first_index=1, count=1, runs=[finished(0, point, value)])
        assert study_of(search).trials[0].value == value


# -- the end -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["grid", "brute_force"])
@pytest.mark.parametrize("state", ["finished", "running", "failed"])
@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("space", ["drawn", "declared"])
def test_a_finite_search_has_each_point_once_and_ends(optimizer: str, state: str, restarts: bool, space: str) -> None:
    config = sweep(optimizer, "draw_few") if space == "drawn" else sweep(optimizer, parameters=FEW)
    search = search_of(config)
    runs: list[PastRun] = []
    while points := search.suggest(first_index=len(runs), count=2, runs=runs):
        for point in points:
            runs.append(PastRun(len(runs), point, state, 1.0 if state == "finished" else None))
        search = search_of(config) if restarts else search
    found = sorted((run.params["a"], run.params["b"]) for run in runs)
    assert found == sorted(itertools.product([1, 2, 3], [1, 2]))


def test_the_terminator_ends_the_search_when_a_run_has_a_value() -> None:
    config = sweep("until_good", "draw_plane")
    search = search_of(config)
    first = search.suggest(first_index=0, count=2)
    runs = [PastRun(0, first[0], "failed", None), PastRun(1, first[1], "running", None)]
    assert len(search.suggest(first_index=2, count=1, runs=runs)) == 1
    runs[1] = finished(1, first[1], 2.0)
    assert len(search.suggest(first_index=2, count=1, runs=runs)) == 1
    runs[1] = finished(1, first[1], 0.5)
    assert search.suggest(first_index=2, count=1, runs=runs) == []
    assert search_of(config).suggest(first_index=2, count=1, runs=runs) == []


def test_a_sampler_that_stops_the_study_ends_the_search() -> None:
    config = sweep("stopping", "draw_plane")
    search = search_of(config)
    first = search.suggest(first_index=0, count=3)
    runs = [finished(0, first[0], 1.0), finished(1, first[1], 1.0), PastRun(2, first[2], "running", None)]
    assert len(search.suggest(first_index=3, count=1, runs=runs)) == 1
    runs[2] = finished(2, first[2], 1.0)
    assert search.suggest(first_index=3, count=1, runs=runs) == []
    assert search_of(config).suggest(first_index=3, count=1, runs=runs) == []


# -- goals -------------------------------------------------------------------------------------------------------------


def test_a_default_study_has_the_goals_of_the_sweep() -> None:
    search = search_of(sweep(None, "draw_plane", metric={"name": "acc", "goal": "maximize"}))
    search.suggest(first_index=0, count=1)
    assert study_of(search).direction.name == "MAXIMIZE"
    assert isinstance(study_of(search).pruner, optuna.pruners.NopPruner)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"metric": {"name": "acc", "goal": "maximize"}},
            "'default' in study.py must return a study with the goals of the sweep "
            "(got minimize in place of maximize). Write optuna.create_study(directions=['maximize']).",
        ),
        (
            {"metric": None, "metrics": [{"name": "a"}, {"name": "b"}]},
            "'default' in study.py must return a study with the goals of the sweep (got minimize in place of minimize, "
            "minimize). Write optuna.create_study(directions=['minimize', 'minimize']).",
        ),
    ],
)
def test_a_study_with_other_goals_is_refused(keys: dict[str, object], message: str) -> None:
    with pytest.raises(SearchError) as refused:
        search_of(sweep("default", "draw_plane", **keys)).suggest(first_index=0, count=1)
    assert str(refused.value) == message


# -- files and functions that cannot be used ---------------------------------------------------------------------------

HEAD = "import optuna\nimport os\n"
REFUSED = {
    "returns no dict": (
        "def f(trial):\n    return 3\n",
        "'f' in study.py must return a dict of parameters (got a int). Return a dict.",
    ),
    "returns nothing": (
        "def f(trial):\n    return {}\n",
        "'f' in study.py must return at least one parameter (got an empty dict). Return what it draws.",
    ),
    "has a name that is none": (
        "def f(trial):\n    return {'--x': 1}\n",
        "'f' in study.py must return names of letters, digits, _, - and ., which begin with a letter or _ (got '--x'). "
        "Rename it.",
    ),
    "has a value that is not JSON": (
        "def f(trial):\n    return {'x': {1, 2}}\n",
        "'f' in study.py must return values that JSON has (got x = {1, 2}: a set is not in JSON). "
        "Convert it, for instance by float().",
    ),
    "has NaN": (
        "def f(trial):\n    return {'x': float('nan')}\n",
        "'f' in study.py must return values that JSON has "
        "(got x = nan: Out of range float values are not JSON compliant). Convert it, for instance by float().",
    ),
    "keeps what it draws": (
        "def f(trial):\n    return {'n': [trial.suggest_int('layers', 1, 1)]}\n",
        "'f' in study.py must return all that it draws, by its name (got layers was drawn, and returned were n). "
        "Add 'layers' to the dict.",
    ),
    "changes what it draws": (
        "def f(trial):\n    return {'x': 10 ** trial.suggest_int('x', 2, 2)}\n",
        "'f' in study.py must return the values that it draws (got x = 100, and drawn was 2). "
        "Return what was drawn; what follows from it has another name, or none.",
    ),
    "draws lists": (
        "import warnings\nwarnings.simplefilter('ignore')\n"
        "def f(trial):\n    return {'x': trial.suggest_categorical('x', [(1, 2)])}\n",
        "'f' in study.py must draw None, true, false, numbers and texts only (got x = (1, 2)). "
        "Draw the place in a list, or a name for it.",
    ),
    "fails": (
        "def f(trial):\n    return g()\ndef g():\n    return {}['x']\n",
        "'f' in study.py must not fail (got KeyError: 'x', {file}, line 6). Correct {file}, and start this again.",
    ),
    "fails elsewhere": (
        "def f(trial):\n    trial.suggest_float('x', 1.0, 0.0)\n",
        "'f' in study.py must not fail (got ValueError: `low <= high` must hold, but got (low=1.0, high=0.0)., "
        "{file}, line 4). Correct {file}, and start this again.",
    ),
    "leaves": (
        "def f(trial):\n    raise SystemExit(3)\n",
        "'f' in study.py must not fail (got SystemExit: 3, {file}, line 4). Correct {file}, and start this again.",
    ),
    "takes no argument": (
        "def f():\n    return {}\n",
        "'f' in study.py must take one argument, the trial (got too many positional arguments). Write def f(trial): …",
    ),
    "is no function": (
        "f = 3\ndef draw(trial): ...\n",
        'scheduler.search_space: must be a function that {file} defines at its top level (got "f"). '
        "Add for instance: def f(trial): …",
    ),
    "is imported": (
        "from os import system as f\n",
        'scheduler.search_space: must be a function that {file} defines at its top level (got "f"). '
        "Add for instance: def f(trial): …",
    ),
    "is not a file that runs": (
        "def f(trial): ...\nraise OSError('no data')\n",
        "the file itself in study.py must not fail (got OSError: no data, {file}, line 4). "
        "Correct {file}, and start this again.",
    ),
    "is not Python": (
        "def f(trial:\n",
        "scheduler.source: {file} must be a Python file (got \"line 3: '(' was never closed\"). Correct it.",
    ),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED)
def test_a_function_that_cannot_draw_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "study.py"
    file.write_text(HEAD + text)
    with pytest.raises(SearchError) as refused:
        search_of(sweep(None, "f"), file).suggest(first_index=0, count=1)
    assert str(refused.value) == message.replace("{file}", str(file))


REFUSED_STUDIES = {
    "no study": ("return 3", "must return an optuna.Study, or a tuple of one and a terminator (got a int). "),
    "three": (
        "return optuna.create_study(), None, 3",
        "must return an optuna.Study, or a tuple of one and a terminator (got a tuple of 3). ",
    ),
    "no terminator": (
        "return optuna.create_study(), 3",
        "must return a terminator that can be called (got a int). Return a function of the study.",
    ),
    "other names": (
        "study = optuna.create_study(); study.set_metric_names(['acc']); return study",
        "must return a study with the metric names of the sweep (got acc in place of loss). "
        "Write study.set_metric_names(['loss']), or leave it out.",
    ),
    "fails": ("return sweep.config['nothing']", "must not fail (got KeyError: 'nothing', "),
}


@pytest.mark.parametrize(("line", "message"), REFUSED_STUDIES.values(), ids=REFUSED_STUDIES)
def test_a_function_that_makes_no_study_is_refused(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "study.py"
    file.write_text(f"{HEAD}def make(sweep):\n    {line}\n")
    with pytest.raises(SearchError) as refused:
        search_of(sweep("make", parameters=PLANE), file).suggest(first_index=0, count=1)
    assert str(refused.value).startswith(f"'make' in study.py {message}")


def test_an_error_leaves_a_search_that_can_be_asked_again(tmp_path: Path) -> None:
    file = tmp_path / "study.py"
    file.write_text(
        "calls = []\ndef f(trial):\n    calls.append(1)\n    x = trial.suggest_float('x', 0, 1)\n"
        "    if len(calls) == 2: raise OSError('away')\n    return {'x': x}\n"
    )
    search = search_of(sweep(None, "f"), file)
    (first,) = search.suggest(first_index=0, count=1)
    runs = [finished(0, first, 1.0)]
    with pytest.raises(SearchError, match="OSError: away"):
        search.suggest(first_index=1, count=1, runs=runs)
    search.suggest(first_index=1, count=1, runs=runs)
    assert [trial.state.name for trial in study_of(search).trials] == ["COMPLETE", "RUNNING"]


# -- which file is executed --------------------------------------------------------------------------------------------


def test_a_file_is_executed_only_where_its_user_named_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.py").write_text("open('proof', 'w').close()\ndef f(trial): ...\n")
    other = tmp_path / "other.py"
    other.write_text("open('proof', 'w').close()\ndef f(trial): ...\n")
    for sources in (Sources(), Sources([other])):
        with pytest.raises(SearchError) as refused:
            create_search(sweep(None, "f"), sources)
        assert str(refused.value) == (
            "the search of this sweep is in study.py, which is executed only where its user names it "
            "(got no such file). Start `resweep scheduler --source study.py`."
        )
    assert not (tmp_path / "proof").exists()


def test_a_file_serves_sweeps_that_know_it_by_its_name_wherever_it_lies(tmp_path: Path) -> None:
    file = tmp_path / "study.py"
    file.write_text("def f(trial):\n    return {'x': trial.suggest_float('x', 0, 1)}\n")
    scheduler = {"engine": "optuna", "source": "elsewhere/study.py", "search_space": "f"}
    config = parse_sweep({"method": "custom", "metric": {"name": "loss"}, "scheduler": scheduler})
    assert len(search_of(config, file).suggest(first_index=0, count=2)) == 2


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    files = [tmp_path / "study.py", tmp_path / "a" / "study.py"]
    with pytest.raises(ValueError, match=r"two sources must not have the same name \(got .*study.py and .*Rename one"):
        Sources(files)
    with pytest.raises(ValueError, match=r"ends in .py \(got study.txt\)"):
        Sources([Path("study.txt")])
    assert Sources([files[0], files[0]]).find(sweep(None, "f").scheduler) == files[0]  # type: ignore[arg-type]
