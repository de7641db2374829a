"""Agents that execute real children: what they are told, how their ends are recorded, when an agent ends."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from support.children import small_sweep
from support.servers import Server
from support.waiting import wait_until

from resweep_agent.exitcodes import ExitCode
from resweep_scheduler.store import RunState, SweepCommand, SweepState

ENDS = {
    "sys.exit(0)": ("finished", "finished"),
    "sys.exit(3)": ("failed", "preempted"),
    "raise ValueError": ("failed", "preempted"),
    "os.kill(os.getpid(), signal.SIGKILL)": ("crashed", "preempted"),
    "os.kill(os.getpid(), signal.SIGTERM)": ("crashed", "preempted"),
}
"""How a script ends: what becomes of its run if it was never marked, and if it was."""


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("marked", [False, True], ids=["unmarked", "marked"])
def test_exit_status_and_mark_decide_what_becomes_of_a_run(
    shared_server: Server, tmp_path: Path, end: str, marked: bool
) -> None:
    with small_sweep(shared_server, tmp_path / "w", ("mark()\n" if marked else "") + end) as sweep:
        assert sweep.agents.start("a", "--count", "1").wait() == ExitCode.OK
        assert sweep.states() == [ENDS[end][marked]]


def test_a_sweep_is_worked_through_and_children_know_their_run(shared_server: Server, tmp_path: Path) -> None:
    script = "trace(run_id, params=params, env=dict(os.environ), cwd=os.getcwd(), stdin=sys.stdin.read())"
    with small_sweep(shared_server, tmp_path / "w", script, values=[1e-5, "x", True]) as sweep:
        agent = sweep.agents.start("gpu", environment={"WANDB_SERVICE": "a leftover"})
        assert agent.wait() == ExitCode.OK
        assert sweep.store.sweep(sweep.sweep_id).state is SweepState.FINISHED
        for run in sweep.runs():
            child = sweep.trace(run.run_id)
            assert child is not None
            assert child["params"] == run.params
            assert (child["cwd"], child["stdin"]) == (str(sweep.folder), "")
            told = child["env"]
            assert told["RESWEEP_AGENT_ID"] == run.agent == "gpu"
            assert (told["WANDB_RESUME"], told["RESWEEP_ATTEMPT"]) == ("allow", "1")
            assert "WANDB_SERVICE" not in told
            assert "value" in Path(told["WANDB_SWEEP_PARAM_PATH"]).read_text()
        assert len(sweep.runs()) == 3


def test_the_run_queue_comes_before_new_runs(shared_server: Server, tmp_path: Path) -> None:
    script = "if attempt == 1:\n    mark()\n    sys.exit(1)"
    with small_sweep(shared_server, tmp_path / "w", script, values=[1, 2]) as sweep:
        assert sweep.agents.start("a").wait() == ExitCode.OK
        claimed = [(e.run_id, e.attempt) for e in sweep.store.events(sweep.sweep_id) if e.kind == "claimed"]
        first, second = (run.run_id for run in sweep.runs())
        assert claimed == [(first, 1), (first, 2), (second, 1), (second, 2)]
        assert sweep.states() == ["finished", "finished"]


def test_slots_run_side_by_side_with_a_share_of_the_devices_each(shared_server: Server, tmp_path: Path) -> None:
    script = """
print("hello from", params["a"], os.environ["CUDA_VISIBLE_DEVICES"])
trace(f"here-{params['a']}")
wait_for(f"here-{1 - params['a']}.json")
"""
    with small_sweep(shared_server, tmp_path / "w", script, values=[0, 1]) as sweep:
        agent = sweep.agents.start("a", "--slots", "2", environment={"CUDA_VISIBLE_DEVICES": "4,5,6,7"})
        assert agent.wait() == ExitCode.OK
        assert sweep.states() == ["finished", "finished"]
        assert sorted(run.agent or "" for run in sweep.runs()) == ["a", "a.1"]
        said = set(re.findall(r"^\[(\w+)\] hello from (\d) (.*)$", agent.printed(), re.MULTILINE))
        assert {share for _, _, share in said} == {"4,5", "6,7"}
        assert {run_id for run_id, _, _ in said} == {run.run_id for run in sweep.runs()}


def test_output_goes_to_the_terminal_a_file_and_redis(shared_server: Server, tmp_path: Path) -> None:
    script = """
sys.stdout.buffer.write(b"caf\\xc3\\xa9 \\xff\\n")
sys.stdout.flush()
print("to stderr", file=sys.stderr)
sys.exit(params["a"])
"""
    with small_sweep(shared_server, tmp_path / "w", script, values=[0, 1]) as sweep:
        agent = sweep.agents.start("a", "--dir", "out")
        assert agent.wait() == ExitCode.OK
        for run in sweep.runs():
            path = sweep.folder / "out" / sweep.sweep_id / run.run_id / "attempt-1" / "output.log"
            assert path.read_bytes() == b"caf\xc3\xa9 \xff\nto stderr\n"
            pieces = sweep.store.output(run.run_id)
            assert "".join(piece.text for piece in pieces) == "café \ufffd\nto stderr\n"
        assert agent.printed().count("to stderr") == 2


def test_output_is_in_redis_while_the_run_goes_on(shared_server: Server, tmp_path: Path) -> None:
    with small_sweep(shared_server, tmp_path / "w", "print('begun', flush=True)\nwait_for('go')") as sweep:
        agent = sweep.agents.start("a")
        wait_until(sweep.runs, description="the run")
        run_id = sweep.runs()[0].run_id
        wait_until(lambda: sweep.store.output(run_id), description="its output")
        assert sweep.states() == ["running"]
        sweep.open("go")
        assert agent.wait() == ExitCode.OK


def test_a_log_folder_that_cannot_be_written_stops_nothing(shared_server: Server, tmp_path: Path) -> None:
    with small_sweep(shared_server, tmp_path / "w", "print('hello')") as sweep:
        (sweep.folder / "full").write_text("a file where the folder should be")
        agent = sweep.agents.start("a", "--dir", "full/below")
        assert agent.wait() == ExitCode.OK
        assert sweep.states() == ["finished"]
        assert agent.printed().count("output-file-failed") == 1


def test_failing_runs_end_the_agent_with_a_named_code(shared_server: Server, tmp_path: Path) -> None:
    with small_sweep(shared_server, tmp_path / "w", "sys.exit(2)", values=range(10)) as sweep:
        agent = sweep.agents.start("a")
        assert agent.wait() == ExitCode.FLAPPING
        assert sweep.states() == ["failed"] * 3
        assert "3 runs failed in the first 60 seconds" in agent.printed()
        calm = {"WANDB_AGENT_DISABLE_FLAPPING": "true"}
        assert sweep.agents.start("b", "--max-consecutive-failed-runs", "4", environment=calm).wait() == 8
        assert sweep.states() == ["failed"] * 7
        assert sweep.agents.start("c", environment=calm).wait() == ExitCode.OK
        assert sweep.states() == ["failed"] * 10


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["no-such-command", "${program}"], "'no-such-command' is not found"),
        (["${env}", "no-such-command", "${program}"], "'no-such-command' is not found"),
        (["python3", "${program}"], "program 'child.py' is not in"),
    ],
)
def test_what_cannot_be_run_here_costs_no_run(
    shared_server: Server, tmp_path: Path, command: list[str], says: str
) -> None:
    with small_sweep(shared_server, tmp_path / "w", "", command=command) as sweep:
        if command[0] == "python3":
            (sweep.folder / "child.py").unlink()
        agent = sweep.agents.start("a")
        assert agent.wait() == ExitCode.COMMAND_NOT_FOUND
        assert says in agent.printed()
        assert sweep.runs() == []


def test_a_variable_that_the_command_needs_is_named(shared_server: Server, tmp_path: Path) -> None:
    command = [sys.executable, "${program}", "${args_json}", "${envvar:NEEDED}"]
    with small_sweep(shared_server, tmp_path / "w", "", command=command) as sweep:
        agent = sweep.agents.start("a")
        assert agent.wait() == ExitCode.COMMAND_NOT_FOUND
        assert "NEEDED" in agent.printed()
        assert sweep.runs()[0].state is RunState.FAILED
        assert "NEEDED" in sweep.runs()[0].reason


def test_an_idle_agent_is_woken_by_a_resumed_sweep_and_bounded_by_max_wait(
    shared_server: Server, tmp_path: Path
) -> None:
    with small_sweep(shared_server, tmp_path / "w", "") as sweep:
        sweep.store.command_sweep(sweep.sweep_id, SweepCommand.PAUSE)
        bounded = sweep.agents.start("bounded", "--max-wait", "0.5")
        patient = sweep.agents.start("patient")
        assert bounded.wait() == ExitCode.OK
        assert sweep.runs() == []
        assert patient.running
        sweep.store.command_sweep(sweep.sweep_id, SweepCommand.RESUME)
        assert patient.wait() == ExitCode.OK
        assert sweep.states() == ["finished"]


def test_a_finished_sweep_sends_agents_home(shared_server: Server, tmp_path: Path) -> None:
    with small_sweep(shared_server, tmp_path / "w", "") as sweep:
        assert sweep.agents.start("a").wait() == ExitCode.OK
        again = sweep.agents.start("b")
        assert again.wait() == ExitCode.OK
        assert "the sweep is finished" in again.printed()
        assert len(sweep.runs()) == 1


def test_several_agents_share_a_grid_without_gap_or_double(shared_server: Server, tmp_path: Path) -> None:
    with small_sweep(shared_server, tmp_path / "w", "", values=range(24)) as sweep:
        agents = [sweep.agents.start(name, "--slots", "2") for name in ("a", "b", "c")]
        assert [agent.wait() for agent in agents] == [0, 0, 0]
        assert [run.params["a"] for run in sweep.runs()] == list(range(24))
        assert sweep.states() == ["finished"] * 24
        assert sweep.kinds().count("claimed") == 24


def test_bayes_is_asked_by_the_agent_itself(shared_server: Server, tmp_path: Path) -> None:
    config: dict[str, Any] = {"method": "bayes", "metric": {"name": "loss"}, "run_cap": 3}
    parameters = {"a": {"min": 0.0, "max": 1.0}}
    with small_sweep(shared_server, tmp_path / "w", "", parameters=parameters, **config) as sweep:
        agent = sweep.agents.start("a")
        assert agent.wait() == ExitCode.OK
        assert sweep.states() == ["finished"] * 3
        assert all(0.0 <= run.params["a"] <= 1.0 for run in sweep.runs())


def test_events_are_logged_as_json_on_request(shared_server: Server, tmp_path: Path) -> None:
    with small_sweep(shared_server, tmp_path / "w", "") as sweep:
        agent = sweep.agents.start("a", "--log-format", "json")
        assert agent.wait() == ExitCode.OK
        events = [json.loads(line) for line in agent.printed().splitlines()]
        assert [event["event"] for event in events] == ["agent-started", "run-started", "run-ended", "agent-ending"]
        assert events[1]["run"] == sweep.runs()[0].run_id


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--project", "other"], ExitCode.UNKNOWN_SWEEP, "is in local/uncategorized"),
        (["--name", "a b"], ExitCode.USAGE, "choose another --name"),
        (["--heartbeat", "50"], ExitCode.USAGE, "three heartbeats must fit into a lease"),
        (["--url", "http://h"], ExitCode.USAGE, "the scheme must be one of"),
    ],
)
def test_what_cannot_work_is_one_line_and_a_named_code(
    shared_server: Server, tmp_path: Path, arguments: list[str], code: ExitCode, says: str
) -> None:
    with small_sweep(shared_server, tmp_path / "w", "") as sweep:
        agent = sweep.agents.start("a", *arguments)
        assert agent.wait() == code
        errors = [line for line in agent.printed().splitlines() if line.startswith("error: ")]
        assert len(errors) == 1
        assert says in errors[0]
        assert "Traceback" not in agent.printed()
        assert sweep.runs() == []


def test_an_unknown_sweep_and_an_unreachable_redis_have_codes_of_their_own(
    shared_server: Server, tmp_path: Path
) -> None:
    with small_sweep(shared_server, tmp_path / "w", "") as sweep:
        sweep.store.remove_sweep(sweep.sweep_id)
        unknown = sweep.agents.start("a")
        unreachable = sweep.agents.start("b", url="redis://127.0.0.1:1/0")
        assert unknown.wait() == ExitCode.UNKNOWN_SWEEP
        assert unreachable.wait() == ExitCode.REDIS_LOST
        assert "resweep" in unknown.printed()
