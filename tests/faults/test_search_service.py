"""A search that learns, whose asking agent or service dies at every step of a suggestion: nothing is lost, repeated or
reordered, and what is suggested is what would have been."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from support.scene import let_pass
from support.searching import Search, search_on
from support.servers import Server

RUNS = 8
STEPS = ("asked", "read", "computed", "added")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    """What one agent after the other is suggested when nothing happens."""
    from support.servers import private_server

    folder = tmp_path_factory.mktemp("undisturbed")
    with private_server(folder, appendfsync="") as server, search_on(folder / "s", server.url, runs=RUNS) as search:
        search.start_agent("one").wait(120)
        search.check()
        return search.points()


def take_turns(search: Search, step: str) -> None:
    """Agents of which each is killed at a step of its second suggestion, one after the other, until the last one."""
    for number in range(3):
        agent = search.start_agent(f"dying-{number}", dies=(step, 2))
        assert agent.wait(90) == -signal.SIGKILL, agent.printed()
        search.forget_who_waits()
    search.start_agent("last").wait(120)


@pytest.mark.parametrize("step", STEPS)
def test_agents_killed_in_the_middle_of_a_suggestion_change_nothing(
    tmp_path: Path, shared_server: Server, undisturbed: list[dict[str, object]], step: str
) -> None:
    with search_on(tmp_path / "s", shared_server.url, runs=RUNS) as search:
        take_turns(search, step)
        search.check()
        assert search.points() == undisturbed


@pytest.mark.parametrize("step", STEPS)
def test_a_service_killed_in_the_middle_of_a_suggestion_leaves_agents_that_go_on(
    tmp_path: Path, shared_server: Server, step: str
) -> None:
    with search_on(tmp_path / "s", shared_server.url, runs=12, seconds=0.1) as search:
        service = search.start_service(dies=(step, 3))
        search.wait_for_service()
        for name in ("a", "b", "c"):
            search.start_agent(name)
        assert service.wait(90) == -signal.SIGKILL
        search.wait_for_end()
        search.check()


def test_a_service_with_one_agent_suggests_what_the_agent_would_have(
    tmp_path: Path, shared_server: Server, undisturbed: list[dict[str, object]]
) -> None:
    with search_on(tmp_path / "s", shared_server.url, runs=RUNS) as search:
        service = search.start_service()
        search.wait_for_service()
        agent = search.start_agent("one")
        agent.wait(120)
        search.check()
        assert search.points() == undisturbed
        assert service.running


def test_two_services_at_once_and_one_of_them_frozen(tmp_path: Path, shared_server: Server) -> None:
    with search_on(tmp_path / "s", shared_server.url, runs=24, seconds=0.1) as search:
        first, _ = search.start_service(), search.start_service()
        search.wait_for_service()
        for name in ("a", "b", "c", "d"):
            search.start_agent(name)
        search.wait_for(lambda: search.finished() >= 6, "six runs")
        first.freeze()
        search.wait_for_end()
        search.check()


def test_a_service_ends_at_the_first_signal_also_while_redis_is_away(tmp_path: Path, server: Server) -> None:
    with search_on(tmp_path / "s", server.url, runs=RUNS) as search:
        service = search.start_service()
        search.wait_for_service()
        search.wait_for(lambda: search.store.client.exists("rq:workers"), "its worker")
        server.kill()
        search.wait_for(lambda: "redis-away" in service.printed(), "the loss of Redis")
        service.send(signal.SIGTERM)
        assert service.wait(20) == 0, service.printed()


def test_redis_restarted_under_service_and_agents(tmp_path: Path, server: Server) -> None:
    with search_on(tmp_path / "s", server.url, runs=16, seconds=0.2) as search:
        service = search.start_service()
        search.wait_for_service()
        for name in ("a", "b", "c"):
            search.start_agent(name)
        for finished in (3, 7):
            search.wait_for(lambda enough=finished: search.finished() >= enough, f"{finished} runs")
            server.kill()
            let_pass(1.0)
            server.start()
        search.wait_for_end()
        search.check()
        assert service.running
        service.send(signal.SIGTERM)
        assert service.wait(30) == 0
