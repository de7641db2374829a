"""What a real sweep with a killed agent cost, as the commands tell and draw it."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from support.costs import costs_of
from support.scene import play
from support.servers import Server
from support.training import Training

from resweep_scheduler.cli.main import run

LEASE = 3.0


def test_the_time_that_a_killed_agent_lost_is_told_and_drawn(
    tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three steps and their checkpoint are kept; what follows until the lease ran out is lost."""
    training = Training(tmp_path / "trace", steps=6, gate_step=3)
    start = [["one", "--preemptible"]]
    with play(tmp_path, server.url, training, start=start, lease=LEASE) as scene:
        (first,) = scene.wait_at_gate()
        scene.agents.all[0].kill()
        scene.agents.all.clear()
        scene.agents.start("two", "--preemptible")
        scene.wait_at_gate(attempt=2)
        training.open_gate()
        scene.wait_for_end()
        scene.check()

        (cost,) = costs_of(scene.store, scene.sweep_id)
        lost, finished = cost.attempts
        assert (lost.attempt.ended, lost.attempt.reason) == ("preempted", "the lease ran out")
        assert (finished.attempt.ended, finished.lost, cost.unknown, cost.open) == ("finished", 0, 0, 0)
        assert lost.kept_until is not None
        assert lost.kept_until >= max(mark.at for mark in lost.attempt.checkpoints)
        assert LEASE * 1000 / 2 < lost.lost == (lost.attempt.end or 0) - lost.kept_until
        assert (lost.lost_steps, len(cost.waits)) == (0, 1)
        assert cost.goodput == pytest.approx(cost.useful / (cost.useful + lost.lost))

        capsys.readouterr()
        assert run(["--url", server.url, "show", str(scene.store.scope) + "/" + scene.sweep_id, "--json"]) == 0
        shown = json.loads(capsys.readouterr().out)["cost"]
        assert shown["lost_seconds_by_end"] == {"preempted": lost.lost / 1000}
        assert shown["goodput"] == pytest.approx(cost.goodput)

        picture = tmp_path / "sweep.svg"
        assert run(["--url", server.url, "gantt", scene.sweep_id, "-o", str(picture)]) == 0
        drawn = [element.get("class") for element in ElementTree.parse(picture).iter() if element.get("class")]
        assert drawn.count("attempt") == drawn.count("lane") == 2
        assert "preempted lost" in drawn
        assert f'data-run="{first.run_id}"' in picture.read_text()
