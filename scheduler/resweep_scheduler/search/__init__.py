"""What proposes parameters for new runs: grid, random, bayes, behind one contract."""

from __future__ import annotations

from resweep_scheduler.config.sweep import SweepConfig
from resweep_scheduler.search.base import PastRun, Search, SearchError
from resweep_scheduler.search.grid import GridSearch
from resweep_scheduler.search.identity import run_id_for
from resweep_scheduler.search.random import RandomSearch

__all__ = ["GridSearch", "PastRun", "RandomSearch", "Search", "SearchError", "create_search", "run_id_for"]


def create_search(config: SweepConfig) -> Search:
    """The search of a sweep.

    Optuna and NumPy are loaded for bayes only; agents of the other methods stay light.

    Raises:
        SearchError: The config asks for what the search cannot do; configs from `load_sweep` never do.
    """
    match config.method:
        case "grid":
            return GridSearch(config.parameters)
        case "random":
            return RandomSearch(config.parameters, config.seed)
        case "bayes":
            from resweep_scheduler.search.bayes import BayesSearch

            return BayesSearch(config)
