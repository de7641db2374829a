"""What a script meets under an agent, and what the options of `sweep-agent` and the keys of the config do."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.desk import Desk, desk_in
from support.servers import Server
from support.waiting import wait_until

QUIET = {"WANDB_AGENT_DISABLE_FLAPPING": "true"}


@pytest.fixture
def desk(tmp_path: Path, shared_server: Server) -> Iterator[Desk]:
    with desk_in(tmp_path / "desk", shared_server.url) as desk:
        yield desk


DUMP = """\
    import json, os, sys
    from pathlib import Path
    env = {k: v for k, v in os.environ.items() if k.startswith(("WANDB_", "RESWEEP_", "CUDA_"))}
    facts = {"argv": sys.argv[1:], "env": env, "cwd": os.getcwd(), "stdin": sys.stdin.read(), "pgid": os.getpgid(0) ==
        os.getpid(), "file": Path(env["WANDB_SWEEP_PARAM_PATH"]).read_text()}
    with open("facts", "a") as file:
        print(json.dumps(facts), file=file)
"""


def facts(desk: Desk) -> list[dict[str, Any]]:
    return [json.loads(line) for line in desk.lines("facts")]


NESTED = {
    "lr": {"value": 0.1},
    "opt": {"parameters": {"name": {"value": "adam"}, "deep": {"parameters": {"x": {"value": 1}}}}},
}


def test_what_a_child_finds(desk: Desk) -> None:
    desk.write("dump.py", DUMP)
    config = {"program": "dump.py", "method": "grid", "parameters": NESTED, "project": "vision", "entity": "lab"}
    sweep = desk.create(config)
    desk.agent(f"lab/vision/{sweep}", "--name", "n1", env={"WANDB_SERVICE": "x", "MY_OWN": "kept"})
    (found,) = facts(desk)
    env = found["env"]
    run = desk.only_run(sweep)
    assert env["WANDB_RUN_ID"] == run["id"]
    assert env["WANDB_RESUME"] == "allow"
    assert (env["WANDB_PROJECT"], env["WANDB_ENTITY"]) == ("vision", "lab")
    assert Path(env["WANDB_DIR"]) == desk.folder == Path(found["cwd"])
    assert Path(env["WANDB_SWEEP_PARAM_PATH"]) == desk.folder / f"wandb/sweep-{sweep}/config-{run['id']}.yaml"
    assert (env["RESWEEP_URL"], env["RESWEEP_SWEEP_ID"], env["RESWEEP_AGENT_ID"]) == (desk.url, sweep, "n1")
    assert env["RESWEEP_ATTEMPT"] == "1"
    assert env["RESWEEP_CLAIM"]
    assert Path(env["RESWEEP_CHECKPOINT_DIR"]).is_absolute()
    assert "WANDB_SWEEP_ID" not in env
    assert "WANDB_SERVICE" not in env
    assert (found["stdin"], found["pgid"]) == ("", True)
    assert yaml.safe_load(found["file"]) == {
        "wandb_version": 1,
        "lr": {"value": 0.1},
        "opt": {"value": {"name": "adam", "deep": {"x": 1}}},
    }
    assert run["params"] == {"lr": 0.1, "opt": {"name": "adam", "deep": {"x": 1}}}


COMMANDS: list[tuple[list[str], list[str]]] = [
    (["${args}"], ["--lr=0.1", "--flag=True", '--opt={"name": "adam"}']),
    (["${args_no_equals}"], ["--lr", "0.1", "--flag", "True", "--opt", '{"name": "adam"}']),
    (["${args_no_hyphens}"], ["lr=0.1", "flag=True", 'opt={"name": "adam"}']),
    (["${args_no_boolean_flags}"], ["--lr=0.1", "--flag", '--opt={"name": "adam"}']),
    (["${args_append_hydra}"], ["+lr=0.1", "+flag=True", '+opt={"name": "adam"}']),
    (["${args_override_hydra}"], ["++lr=0.1", "++flag=True", '++opt={"name": "adam"}']),
    (["--lr=${lr}", "${opt.name}-${envvar:MY_DATA}", "$${lr}"], ["--lr=0.1", "adam-/data", "${lr}"]),
]


def test_every_macro_of_command(desk: Desk) -> None:
    """All of them in one command line, with a mark between each two."""
    desk.write("dump.py", DUMP)
    parameters = {
        "lr": {"value": 0.1}, "flag": {"value": True}, "opt": {"parameters": {"name": {"value": "adam"}}}
    }  # fmt: skip
    words = [word for macros, _ in COMMANDS for word in [*macros, "|"]]
    command = ["${env}", "${interpreter}", "${program}", *words, "${args_json}", "${args_json_file}"]
    sweep = desk.create({"program": "dump.py", "method": "grid", "parameters": parameters, "command": command})
    desk.agent(sweep, env={"MY_DATA": "/data"})
    (found,) = facts(desk)
    *rest, json_text, json_file = found["argv"]
    assert rest == [word for _, expected in COMMANDS for word in [*expected, "|"]]
    assert json.loads(json_text) == json.loads(Path(json_file).read_text())
    assert json.loads(json_text) == {"lr": 0.1, "flag": True, "opt": {"name": "adam"}}


def test_macros_that_cannot_be_filled(desk: Desk) -> None:
    base = {"program": "p.py", "method": "grid", "parameters": {"lr": {"value": 1}}}
    done = desk.resweep("create", "-", text=json.dumps({**base, "command": ["python", "${program}", "${arg}"]}), code=2)
    assert "'${args}'" in done.err or "${args}" in done.err
    desk.write("p.py", "")
    sweep = desk.create({**base, "command": ["python", "${program}", "${envvar:NO_SUCH_THING}"]})
    done = desk.agent(sweep, code=7)
    assert "NO_SUCH_THING" in done.err.splitlines()[-1]


def test_parameters_of_the_sweep_are_locked_and_merged_over_the_defaults(desk: Desk) -> None:
    desk.write(
        "train.py",
        """\
        import json, sys
        import resweep
        run = resweep.init(
            config={"lr": 9, "mine": 1}, id="other", project="elsewhere", tags=["t"], notes="n", name="nice"
        )
        run.config.lr = 7
        run.config.update({"lr": 8, "more": 2})
        print(json.dumps([run.id, run.project, dict(run.config), run.config["opt"]["name"], run.config.opt["name"]]))
        run.log({"loss": 3.0}); run.log({"loss": 2.0}); run.log({"loss": float("nan"), "text": "x"})
        run.summary["best"] = 1
        """,
    )
    sweep = desk.create(
        {"program": "train.py", "method": "grid", "metric": {"name": "loss"},
         "command": ["${interpreter}", "${program}"],
         "parameters": {"lr": {"value": 0.1}, "opt": {"parameters": {"name": {"value": "adam"}}}}}
    )  # fmt: skip
    desk.agent(sweep)
    run = desk.only_run(sweep)
    printed = desk.resweep("logs", run["id"]).out.splitlines()
    merged = {"lr": 0.1, "mine": 1, "opt": {"name": "adam"}, "more": 2}
    (said,) = [json.loads(line) for line in printed if line.startswith("[")]
    assert said == [run["id"], "uncategorized", merged, "adam", "adam"]
    assert "Config item 'lr' was locked by 'sweep' (ignored update)." in "\n".join(printed)
    assert run["config"] == merged
    assert (run["tags"], run["notes"], run["name"]) == (["t"], "n", "nice")
    assert run["metric"] == 2.0
    assert run["summary"] == {"loss": "NaN", "text": "x", "best": 1}


def test_count_is_exactly_the_number_of_claims(desk: Desk) -> None:
    desk.write("t.py", "import sys; sys.exit(1 if sys.argv[1] == '--a=2' else 0)\n")
    sweep = desk.create({"program": "t.py", "method": "grid", "parameters": {"a": {"values": [1, 2, 3, 4, 5, 6]}}})
    desk.agent(sweep, "--count", "3", "--slots", "2")
    assert len([event for event in desk.events(sweep) if event["kind"] == "claimed"]) == 3
    assert sorted(run["state"] for run in desk.runs(sweep)) == ["failed", "finished", "finished"]
    assert desk.show(sweep)["state"] == "running"


def test_many_agents_do_every_grid_point_once(desk: Desk) -> None:
    desk.write(
        "t.py",
        """\
        import os, sys, time
        from pathlib import Path
        with open("seen", "a") as file:
            file.write(" ".join(sys.argv[1:]) + "\\n")
        Path(f"agent-{os.environ['RESWEEP_AGENT_ID'].partition('.')[0]}.here").touch()
        deadline = time.monotonic() + 30
        while len(list(Path().glob("agent-*.here"))) < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        """,
    )
    parameters = {"a": {"min": 1, "max": 8}, "b": {"values": ["x", "y", "z"]}}
    sweep = desk.create({"program": "t.py", "method": "grid", "parameters": parameters})
    agents = [desk.start_agent(sweep, "--slots", str(slots)) for slots in (1, 2, 3)]
    assert [agent.wait() for agent in agents] == [0, 0, 0]
    assert Counter(desk.lines("seen")) == Counter(f"--a={a} --b={b}" for a in range(1, 9) for b in "xyz")
    shown = desk.show(sweep)
    assert (shown["state"], shown["counts"]["finished"], shown["missing"]) == ("finished", 24, 0)
    assert len({run["agent"].partition(".")[0] for run in desk.runs(sweep)}) == 3


def test_run_cap_and_the_same_points_for_the_same_seed(desk: Desk) -> None:
    desk.write("t.py", "")
    config = {
        "program": "t.py",
        "method": "random",
        "run_cap": 4,
        "seed": 3,
        "parameters": {"a": {"min": 0.0, "max": 1.0}},
    }
    first, second = desk.create(config), desk.create(config)
    agents = [desk.start_agent(sweep) for sweep in (first, first, second)]
    assert [agent.wait() for agent in agents] == [0, 0, 0]
    points = [[run["params"]["a"] for run in desk.runs(sweep)] for sweep in (first, second)]
    assert points[0] == points[1]
    assert len(set(points[0])) == 4
    assert desk.show(first)["reason"] == "run_cap"


def test_target_ends_the_sweep(desk: Desk) -> None:
    desk.write(
        "t.py", "import resweep\nwith resweep.init() as run:\n    run.log({'loss': 1 / (1 + run.config['a'])})\n"
    )
    sweep = desk.create(
        {"program": "t.py", "method": "grid", "metric": {"name": "loss", "goal": "minimize", "target": 0.3},
         "parameters": {"a": {"values": [1, 2, 3, 4, 5]}}}
    )  # fmt: skip
    desk.agent(sweep)
    shown = desk.show(sweep)
    assert (shown["state"], shown["reason"], shown["counts"]["finished"]) == ("finished", "target", 3)
    assert (shown["best"]["params"], shown["best"]["metric"]) == ({"a": 3}, 0.25)


def test_flapping_guards(desk: Desk) -> None:
    desk.write("bad.py", "raise SystemExit(1)\n")
    config = {"program": "bad.py", "method": "grid", "parameters": {"a": {"min": 1, "max": 9}}}

    def failed(*words: str, env: dict[str, str], code: int) -> int:
        sweep = desk.create(config)
        done = desk.agent(sweep, *words, env=env, code=code)
        if code:
            assert "failed" in done.err.splitlines()[-1]
        return int(desk.show(sweep)["counts"]["failed"])

    assert failed(env={}, code=8) == 3
    assert failed(env={"WANDB_AGENT_DISABLE_FLAPPING": "true"}, code=0) == 9
    assert failed("--max-consecutive-failed-runs", "2", env={"WANDB_AGENT_DISABLE_FLAPPING": "true"}, code=8) == 2
    assert failed(env={"WANDB_AGENT_MAX_INITIAL_FAILURES": "2"}, code=8) == 2


def test_output_goes_to_the_terminal_a_file_and_redis(desk: Desk) -> None:
    desk.write(
        "t.py", "import sys\nprint('out', sys.argv[1])\nprint('err', file=sys.stderr)\nprint('no newline', end='')\n"
    )
    sweep = desk.create({"program": "t.py", "method": "grid", "parameters": {"a": {"values": [1, 2]}}})
    done = desk.agent(sweep, "--slots", "2", "--dir", "here")
    for number, run in enumerate(desk.runs(sweep), 1):
        assert f"[{run['id']}] out --a={number}" in done.out + done.err
        text = desk.read(f"here/{sweep}/{run['id']}/attempt-1/output.log")
        assert sorted(text.splitlines()) == ["err", "no newline", f"out --a={number}"]
        assert sorted(desk.resweep("logs", run["id"]).out.splitlines()) == sorted(text.splitlines())


def test_slots_share_the_gpus(desk: Desk) -> None:
    desk.write("dump.py", DUMP)
    sweep = desk.create({"program": "dump.py", "method": "grid", "parameters": {"a": {"values": [1, 2]}}})
    desk.agent(sweep, "--slots", "2", env={"CUDA_VISIBLE_DEVICES": "0,1,2,3"})
    assert sorted(found["env"]["CUDA_VISIBLE_DEVICES"] for found in facts(desk)) == ["0,1", "2,3"]


def test_log_format_json_and_quiet(desk: Desk) -> None:
    desk.write("t.py", "")
    config = {"program": "t.py", "method": "grid", "parameters": {"a": {"values": [1]}}}
    sweep = desk.create(config)
    lines = [json.loads(line) for line in desk.agent(sweep, "--log-format", "json").err.splitlines()]
    assert {"run-started", "run-ended"} <= {line["event"] for line in lines}
    done = desk.agent(desk.create(config), "-q")
    assert (done.out, done.err) == ("", "")


def test_lease_and_heartbeat_options(desk: Desk) -> None:
    desk.write("t.py", "import time\nfrom pathlib import Path\nwhile not Path('go').exists(): time.sleep(0.02)\n")
    sweep = desk.create({"program": "t.py", "method": "grid", "parameters": {"a": {"value": 1}}})
    assert desk.show(sweep)["lease_seconds"] == 60
    agent = desk.start_agent(sweep, "--lease", "6", "--heartbeat", "0.2")
    wait_until(lambda: desk.show(sweep)["leases"], description="a lease")
    remaining = desk.show(sweep)["leases"][0]["remaining_seconds"]
    assert 4 < remaining <= 6, remaining
    (desk.folder / "go").touch()
    assert agent.wait() == 0
    done = desk.agent(sweep, "--lease", "6", "--heartbeat", "5", code=2)
    assert "--heartbeat 2 or less" in done.line()


def test_max_wait_bounds_an_idle_agent_and_paused_sweeps_wait(desk: Desk) -> None:
    desk.write("t.py", "")
    sweep = desk.create({"program": "t.py", "method": "grid", "parameters": {"a": {"values": [1]}}})
    desk.resweep("pause", sweep)
    done = desk.agent(sweep, "--max-wait", "0.3")
    assert "paused" in done.err or "wait" in done.err
    assert desk.runs(sweep) == []
    desk.resweep("resume", sweep)
    desk.agent(sweep)
    assert desk.show(sweep)["state"] == "finished"


def test_the_same_name_again_replaces_the_old_agent(desk: Desk) -> None:
    """Its run is given back at once: no lease has to run out."""
    desk.write(
        "t.py",
        "import os, time\nopen('claims', 'a').write('x')\nif os.environ['RESWEEP_ATTEMPT'] == '1': time.sleep(60)\n",
    )
    sweep = desk.create(
        {"program": "t.py", "method": "grid", "parameters": {"a": {"value": 1}}, "preemption": {"auto": True}}
    )
    old = desk.start_agent(sweep, "--name", "same")
    wait_until(lambda: desk.lines("claims"), description="the first child")
    desk.agent(sweep, "--name", "same")
    assert old.wait(20) == 6
    run = desk.only_run(sweep)
    assert (run["state"], run["attempt"]) == ("finished", 2)


def test_slurm_gives_the_name_and_preemptible(desk: Desk) -> None:
    desk.write("dump.py", DUMP)
    sweep = desk.create({"program": "dump.py", "method": "grid", "parameters": {"a": {"value": 1}}})
    desk.agent(sweep, env={"SLURM_JOB_ID": "1234"})
    assert "1234" in facts(desk)[0]["env"]["RESWEEP_AGENT_ID"]


FUNCTION = """\
    import os, sys
    import resweep

    sweep_id = resweep.sweep({"method": "grid", "metric": {"name": "loss", "goal": "minimize"},
        "parameters": {"a": {"values": [1, 2, 3]}, "opt": {"parameters": {"b": {"value": 5}}}}})
    offset = {"value": 10}

    def train():
        with resweep.init(config={"mine": 1}) as run:
            offset["value"] += 1
            run.log({"loss": run.config["a"] + offset["value"], "parent": os.getppid(), "b": run.config.opt["b"]})
            if run.config.a == 2:
                raise RuntimeError("planned")

    resweep.agent(sweep_id, function=train, count=2)
    print(sweep_id, offset["value"])
    resweep.agent(sweep_id, lambda: train())
"""


def test_functions_with_closures(desk: Desk) -> None:
    desk.write("functions.py", FUNCTION)
    done = desk.python("functions.py")
    sweep, offset = done.out.split()[-2:]
    assert offset == "10", "the function ran in this process, or the child's memory leaked into it"
    runs = desk.runs(sweep)
    assert [run["state"] for run in runs] == ["finished", "failed", "finished"]
    assert [run["summary"]["loss"] for run in runs] == [12, 13, 14]
    assert [run["summary"]["b"] for run in runs] == [5, 5, 5]
    assert "RuntimeError: planned" in desk.resweep("logs", runs[1]["id"]).out
    assert runs[1]["exit_code"] == 1
    assert desk.show(sweep)["best"]["params"]["a"] == 1


def test_the_real_command_line_of_torchrun_style_ranks(desk: Desk) -> None:
    """Rank 0 logs; other ranks may init and read, and log nothing."""
    desk.write(
        "ranks.py",
        f"""\
        import os, subprocess, sys
        if "RANK" not in os.environ:
            for rank in ("0", "1"):
                subprocess.run([{sys.executable!r}, __file__], env={{**os.environ, "RANK": rank}}, check=True)
            sys.exit()
        import resweep
        with resweep.init() as run:
            assert run.config["a"] == 1
            run.log({{"rank": int(os.environ["RANK"])}})
        """,
    )
    sweep = desk.create({"program": "ranks.py", "method": "grid", "parameters": {"a": {"value": 1}}})
    desk.agent(sweep)
    run = desk.only_run(sweep)
    assert run["state"] == "finished"
    assert [row["rank"] for row in desk.history(run["id"])] == [0]
