"""What proposes parameters for new runs: grid, random, bayes, behind one contract."""

from __future__ import annotations

from resweep_scheduler.config.sweep import SweepConfig
from resweep_scheduler.search.base import PastRun, Search, SearchError
from resweep_scheduler.search.grid import GridSearch
from resweep_scheduler.search.identity import run_id_for
from resweep_scheduler.search.random import RandomSearch
from resweep_scheduler.search.source import NO_SOURCES, Sources

__all__ = ["GridSearch", "PastRun", "RandomSearch", "Search", "SearchError", "Sources", "create_search", "run_id_for"]


def create_search(config: SweepConfig, sources: Sources = NO_SOURCES, sweep_id: str = "") -> Search:
    """The search of a sweep.

    Optuna and NumPy are loaded only where they are needed; agents of the other methods stay light.

    Args:
        config: Of the sweep.
        sources: The files of users that may be executed here.
        sweep_id: For functions of users.

    Raises:
        SearchError: The config asks for what the search cannot do, or for a file that is not among `sources`.
            Configs from `load_sweep` do no other.
    """
    search = _search_of(config, sources, sweep_id)
    if config.priors and search.needs_runs:
        from resweep_scheduler.search.priors import PriorSearch

        return PriorSearch(search, config.priors)
    return search


def _search_of(config: SweepConfig, sources: Sources, sweep_id: str) -> Search:
    match config.method:
        case "grid":
            return GridSearch(config.parameters)
        case "random":
            return RandomSearch(config.parameters, config.seed)
    if config.scheduler is not None:
        from resweep_scheduler.search.by_source import SourceSearch

        return SourceSearch(config, sources, sweep_id)
    if config.search is None and not config.metrics:
        from resweep_scheduler.search.bayes import BayesSearch

        return BayesSearch(config)
    if config.search is not None and config.search.sampler == "brute_force":
        from resweep_scheduler.search.brute_force import BruteForceSearch

        return BruteForceSearch(config)
    from resweep_scheduler.search.optuna import OptunaSearch

    return OptunaSearch(config)
