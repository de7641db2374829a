"""How each sampler is asked: from what is known of the runs to candidates for the next one.

A sampler must answer from its arguments alone, in a new process too. Those of Optuna that keep nothing (TPE, GP) are
made anew for each candidate, with a seed that belongs to the index. The others keep their state in a study, which is
not kept; they get it back in a form that follows from the records:

* Genetic samplers keep the generation of each trial, which depends on what had ended when it was proposed. Here the
  runs that count, in the order of their indices, are dealt into generations of `population_size`, and parents are
  selected again from generation to generation.
* CMA-ES keeps its distribution. Here it is replayed: the runs that count are told to it in the order of their indices,
  one population at a time. With many runs in flight a run may be told to a later population than the one that it was
  drawn for, which CMA-ES bears; Optuna drops such runs.
* QMC counts the points it gave away. Here the number of the point is the index of the run.
"""

from __future__ import annotations

import copy
import itertools
import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Final, Literal

import optuna
from optuna.samplers import BaseSampler, NSGAIIISampler, NSGAIISampler, TPESampler, nsgaii

from resweep_scheduler.config.samplers import SAMPLERS
from resweep_scheduler.search.base import SearchError
from resweep_scheduler.search.distinct import random_latent
from resweep_scheduler.search.encoding import MARGIN, Codec, Latent
from resweep_scheduler.search.impute import Verdict
from resweep_scheduler.search.random import uniform_draw
from resweep_scheduler.search.study import Known, LatentStudy, without_experimental_warnings

_DRAWS: Final = 4
_STARTUP: Final = {"tpe": 10, "gp": 10, "cmaes": 1}
_POPULATION: Final = 50
_SNAPSHOT_EVERY: Final = 32
_GENETIC: Final[Mapping[str, type[NSGAIISampler] | type[NSGAIIISampler]]] = {
    "nsga2": NSGAIISampler,
    "nsga3": NSGAIIISampler,
}


@dataclass(frozen=True, slots=True)
class Setting:
    """What is the same at each question.

    Attributes:
        codec: The space.
        directions: Which way is better, for each goal.
        options: Of the sampler, as the config gives them.
        seed: Seed of the sweep.
        memo: What earlier questions found out; no answer depends on it.
    """

    codec: Codec
    directions: Sequence[Literal["minimize", "maximize"]]
    options: Mapping[str, Any]
    seed: int
    memo: dict[int, Any] = field(default_factory=dict)


class Question(ABC):
    """One question to a sampler: some known runs, and then one index after the other.

    Args:
        setting: What is the same at each question.
        known: The runs, in the order of their indices.
    """

    def __init__(self, setting: Setting, known: Sequence[Known]) -> None:
        self.codec = setting.codec
        self.directions = setting.directions
        self.options = dict(setting.options)
        self.seed = setting.seed
        self.memo = setting.memo
        self.known = list(known)

    @abstractmethod
    def candidates(self, index: int) -> Iterator[Latent]:
        """Candidates for the point with this index, best first; at least one.

        Coordinates of dimensions that are not active are of no interest.
        """

    def add(self, known: Known) -> None:
        """One more run is known: a point that was just proposed."""
        self.known.append(known)

    def draw_seed(self, index: int, draw: int) -> int:
        """The seed of a candidate. One fixed seed would propose the first point for ever."""
        return zlib.crc32(f"{self.seed}:{index}:{draw}".encode())


class RandomQuestion(Question):
    """The points of random search with the same seed."""

    def candidates(self, index: int) -> Iterator[Latent]:
        yield random_latent(self.codec, self.seed, index)


class StudyQuestion(Question):
    """A sampler of Optuna that looks at a study. The first points are those of random search."""

    def __init__(self, setting: Setting, known: Sequence[Known]) -> None:
        super().__init__(setting, known)
        counting = sum(one.outcome.verdict is Verdict.COUNTS for one in self.known)
        self._study = self.study() if counting >= self.startup() else None

    @abstractmethod
    def startup(self) -> int:
        """How many runs must count before the sampler is asked; at least 1."""

    def study(self) -> LatentStudy:
        """The study that the sampler sees."""
        return LatentStudy(self.codec, self.directions, self.known)

    @abstractmethod
    def sampler(self, seed: int) -> BaseSampler:
        """A new sampler."""

    def candidates(self, index: int) -> Iterator[Latent]:
        if self._study is None:
            yield random_latent(self.codec, self.seed, index)
            return
        for draw in range(_DRAWS):
            yield self._study.ask(self._quiet_sampler(self.draw_seed(index, draw)))

    def _quiet_sampler(self, seed: int) -> BaseSampler:
        with without_experimental_warnings():
            return self.sampler(seed)

    def add(self, known: Known) -> None:
        super().add(known)
        if self._study is not None:
            self._study.add(known)


class TpeQuestion(StudyQuestion):
    """Optuna's TPE; in conditional spaces with `group`, so that each branch is modelled as a whole."""

    def startup(self) -> int:
        return max(1, int(self.options.get("n_startup_trials", _STARTUP["tpe"])))

    def sampler(self, seed: int) -> BaseSampler:
        options = dict(self.options)
        if self.codec.conditional and len(self.directions) == 1 and options.get("multivariate") is not False:
            options.setdefault("group", True)
        if options.get("group"):
            options["multivariate"] = True
        # The start is ours, so Optuna's own is never reached.
        return TPESampler(**{**options, "n_startup_trials": 0}, seed=seed)


class GpQuestion(StudyQuestion):
    """Optuna's Gaussian process."""

    def startup(self) -> int:
        return max(1, int(self.options.get("n_startup_trials", _STARTUP["gp"])))

    def sampler(self, seed: int) -> BaseSampler:
        options = {**self.options, "n_startup_trials": 0, "warn_independent_sampling": False}
        return optuna.samplers.GPSampler(**options, seed=seed)


class GeneticQuestion(StudyQuestion):
    """Optuna's NSGA-II and NSGA-III; generations are dealt by the order of the runs."""

    kind: type[NSGAIISampler] | type[NSGAIIISampler]

    def startup(self) -> int:
        return int(self.options.get("population_size", _POPULATION))

    def study(self) -> LatentStudy:
        places = [place for place, one in enumerate(self.known) if one.outcome.verdict is Verdict.COUNTS]
        generations = {place: number // self.startup() for number, place in enumerate(places)}
        key = self.kind._get_generation_key()
        study = LatentStudy(
            self.codec,
            self.directions,
            self.known,
            lambda place: {key: generations[place]} if place in generations else {},
        )
        self._select_parents(study, places)
        return study

    def _select_parents(self, study: LatentStudy, places: Sequence[int]) -> None:
        """Let Optuna select the parents of each generation, under a seed of the generation, and keep them in the study.

        Left to itself it selects when it is first asked, and a point would have other parents asked for alone than in
        a batch.
        """
        size = self.startup()
        state, states = 0, set()
        for generation in range(1, len(places) // size + 1):
            born = places[(generation - 1) * size : generation * size]
            facts = ((place, tuple(self.known[place].latent.items()), self.known[place].outcome) for place in born)
            state = hash((state, tuple(facts)))
            states.add(state)
            if state not in self.memo:
                sampler = self._quiet_sampler(self.draw_seed(-1, generation))
                assert isinstance(sampler, NSGAIISampler | NSGAIIISampler)
                parents = sampler.get_parent_population(study.study, generation)
                self.memo[state] = [trial._trial_id for trial in parents]
            study.keep(f"{self.kind._get_parent_cache_key_prefix()}{generation}", self.memo[state])
        for old in self.memo.keys() - states:
            del self.memo[old]

    def sampler(self, seed: int) -> BaseSampler:
        options = dict(self.options)
        if crossover := options.pop("crossover", None):
            options["crossover"] = _CROSSOVERS[crossover]()
        return self.kind(**options, seed=seed)


_CROSSOVERS: Final[Mapping[str, Callable[[], nsgaii.BaseCrossover]]] = {
    "uniform": nsgaii.UniformCrossover,
    "blxalpha": nsgaii.BLXAlphaCrossover,
    "sbx": nsgaii.SBXCrossover,
    "spx": nsgaii.SPXCrossover,
    "undx": nsgaii.UNDXCrossover,
    "vsbx": nsgaii.VSBXCrossover,
}


class Nsga2Question(GeneticQuestion):
    """NSGA-II."""

    kind = NSGAIISampler


class Nsga3Question(GeneticQuestion):
    """NSGA-III."""

    kind = NSGAIIISampler


class QmcQuestion(Question):
    """A quasi-random sequence over all dimensions; those that are not active in a point are not used.

    Scrambled by the seed of the sweep unless `scramble: false`: the first point of an unscrambled sequence is a corner.
    """

    def candidates(self, index: int) -> Iterator[Latent]:
        from scipy.stats import qmc

        make = qmc.Halton if self.options.get("qmc_type") == "halton" else qmc.Sobol
        engine = make(len(self.codec.coordinates), scramble=self.options.get("scramble", True), rng=self.seed)
        if index:
            engine.fast_forward(index)
        row = [float(u) for u in engine.random(1)[0]]
        yield {one.name: one.draw(u) for one, u in zip(self.codec.coordinates, row, strict=True)}


class CmaesQuestion(Question):
    """CMA-ES over the numbers that always exist; categories and conditional parameters are drawn at random.

    The start lies in the middle, or at the best of the prior runs.
    """

    def __init__(self, setting: Setting, known: Sequence[Known]) -> None:
        super().__init__(setting, known)
        self._numbers = [one for one in self.codec.coordinates if not one.choices and not one.conditions]
        counting = [one for one in self.known if self._counts(one)]
        startup = self.options.get("n_startup_trials", _STARTUP["cmaes"])
        self._optimizer = self._replay(counting, startup) if len(counting) >= startup else None

    def _counts(self, one: Known) -> bool:
        verdict = one.outcome.verdict
        takes_stopped = self.options.get("consider_pruned_trials", False)
        return verdict is Verdict.COUNTS or (takes_stopped and verdict is Verdict.STOPPED)

    def _replay(self, counting: Sequence[Known], startup: int) -> Any:
        priors = [self._solution(one) for one in counting if one.index < 0]
        mean = min(priors, key=lambda pair: pair[1])[0] if priors else (0.5,) * len(self._numbers)
        optimizer = self._new(mean, 0)
        own = [self._solution(one) for one in counting if one.index >= 0][max(0, startup - len(priors)) :]
        size = optimizer.population_size
        populations = [own[start : start + size] for start in range(0, len(own) - size + 1, size)]
        # What came before names a state, so that a search that is asked again need not start from the beginning.
        states = list(
            itertools.accumulate(map(tuple, populations), lambda state, told: hash((state, told)), initial=hash(mean))
        )
        done = next((place for place in range(len(populations), 0, -1) if states[place] in self.memo), 0)
        if done:
            optimizer = copy.deepcopy(self.memo[states[done]])
        for place, population in enumerate(populations[done:], done + 1):
            optimizer = self._tell(optimizer, population, place)
            if place % _SNAPSHOT_EVERY == 0:
                # A copy may round otherwise than its original, so whoever replays goes on with a copy, too.
                self.memo[states[place]] = copy.deepcopy(optimizer)
                optimizer = copy.deepcopy(self.memo[states[place]])
        for state in self.memo.keys() - set(states):
            del self.memo[state]
        return optimizer

    def _tell(self, optimizer: Any, population: Sequence[tuple[tuple[float, ...], float]], place: int) -> Any:
        import numpy as np

        optimizer.tell([(np.array(position), value) for position, value in population])
        if not optimizer.should_stop():
            return optimizer
        # It has converged; what follows is a new start from another place.
        mean = [uniform_draw(self.seed, place, f"#restart.{one.name}") for one in self._numbers]
        return self._new(mean, place)

    def _solution(self, one: Known) -> tuple[tuple[float, ...], float]:
        sign = 1 if self.directions[0] == "minimize" else -1
        return tuple(one.latent[number.name] for number in self._numbers), sign * one.outcome.values[0]

    def _new(self, mean: Sequence[float], place: int) -> Any:
        import cmaes
        import numpy as np

        options: dict[str, Any] = {
            "mean": np.array(mean),
            "sigma": 1 / 6,
            "bounds": np.array([[MARGIN, 1 - MARGIN]] * len(self._numbers)),
            "n_max_resampling": 10 * len(self._numbers),
            "population_size": self.options.get("popsize"),
            "seed": self.draw_seed(place, -1),
        }
        if self.options.get("use_separable_cma"):
            return cmaes.SepCMA(**options)
        return cmaes.CMA(**options, lr_adapt=self.options.get("lr_adapt", False))

    def candidates(self, index: int) -> Iterator[Latent]:
        if self._optimizer is None:
            yield random_latent(self.codec, self.seed, index)
            return
        for draw in range(_DRAWS):
            suffix = f"#{draw}" if draw else ""
            latent: Latent = {
                one.name: one.draw(uniform_draw(self.seed, index, one.name + suffix)) for one in self.codec.coordinates
            }
            self._optimizer.reseed_rng(self.draw_seed(index, draw))
            position = [float(u) for u in self._optimizer.ask()]
            if all(map(math.isfinite, position)):
                latent |= {one.name: u for one, u in zip(self._numbers, position, strict=True)}
            yield latent


_QUESTIONS: Final[Mapping[str, type[Question]]] = {
    "tpe": TpeQuestion,
    "gp": GpQuestion,
    "cmaes": CmaesQuestion,
    "qmc": QmcQuestion,
    "nsga2": Nsga2Question,
    "nsga3": Nsga3Question,
    "random": RandomQuestion,
}


def question_of(sampler: str) -> type[Question]:
    """The way to ask a sampler.

    Raises:
        SearchError: A package that it needs is not installed here.
    """
    missing = [name for name in SAMPLERS[sampler].packages if find_spec(name) is None]
    if missing:
        raise SearchError(
            f"sampler {sampler} needs {' and '.join(missing)}, which this machine does not have "
            f"(got none). `pip install {' '.join(missing)}`, or let a machine that has them ask: `resweep scheduler`."
        )
    return _QUESTIONS[sampler]
