"""A search whose functions are in a user's file, asked by a service alone, which dies at every step of a suggestion.

Nothing is lost, repeated or reordered, and what is suggested is what would have been.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from support.scene import let_pass
from support.searching import STUDY, Search, search_on
from support.servers import Server, private_server

RUNS = 8
STEPS = ("asked", "read", "computed", "added")
SCHEDULER = {"engine": "optuna", "source": "study.py", "optimizer": "tpe", "search_space": "draw_plane"}


def serve(search: Search, dies: tuple[str, int] | None = None) -> None:
    search.start_service("--source", str(STUDY), dies=dies)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    """What one agent is given by a service when nothing happens."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with (
        private_server(folder, appendfsync="") as server,
        search_on(folder / "s", server.url, runs=RUNS, scheduler=SCHEDULER) as search,
    ):
        serve(search)
        search.start_agent("one").wait(120)
        search.check()
        assert "search-left-to-others" in search.agents.all[0].printed()
        return search.points()


@pytest.mark.parametrize("step", STEPS)
def test_a_service_killed_in_the_middle_of_a_suggestion_and_started_again_changes_nothing(
    tmp_path: Path, shared_server: Server, undisturbed: list[dict[str, object]], step: str
) -> None:
    with search_on(tmp_path / "s", shared_server.url, runs=RUNS, scheduler=SCHEDULER) as search:
        search.start_agent("one")
        for occurrence in (2, 2):
            serve(search, dies=(step, occurrence))
            assert search.services[-1].wait(90) == -signal.SIGKILL
        serve(search)
        search.wait_for_end()
        search.check()
        assert search.points() == undisturbed


def test_many_agents_without_the_file_and_a_service_killed_twice(tmp_path: Path, shared_server: Server) -> None:
    with search_on(tmp_path / "s", shared_server.url, runs=16, seconds=0.1, scheduler=SCHEDULER) as search:
        serve(search)
        for name in ("a", "b", "c"):
            search.start_agent(name)
        for finished in (3, 8):
            search.wait_for(lambda enough=finished: search.finished() >= enough, f"{finished} runs")
            search.services[-1].kill()
            let_pass(0.5)
            serve(search)
        search.wait_for_end()
        search.check()
        assert len({str(point) for point in search.points()}) == 16


def test_agents_with_the_file_killed_in_the_middle_change_nothing(
    tmp_path: Path, shared_server: Server, undisturbed: list[dict[str, object]]
) -> None:
    with search_on(tmp_path / "s", shared_server.url, runs=RUNS, scheduler=SCHEDULER) as search:
        search.start_agent("waits")
        for number, step in enumerate(STEPS):
            search.start_agent(f"dying-{number}", "--source", str(STUDY), dies=(step, 2)).wait(90)
        search.start_agent("last", "--source", str(STUDY))
        search.wait_for_end()
        search.check()
        assert len(search.points()) == len(undisturbed)
