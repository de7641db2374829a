"""`resweep key` and `resweep serve` as a person types them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.desk import Desk, desk_in
from support.gateways import gateway_to, workplace
from support.servers import Server
from support.wandb_sdks import NEWEST, wandb_sdk
from support.wire import HttpSender, Wire, WireError


@pytest.fixture
def desk(tmp_path: Path, shared_server: Server) -> Iterator[Desk]:
    with desk_in(tmp_path / "desk", shared_server.url) as desk:
        yield desk


def test_keys_are_made_listed_and_removed(desk: Desk) -> None:
    """A key is printed once, alone on stdout; what is listed does not give it away."""
    made = desk.resweep("key", "create", "--name", "laptop")
    key = made.out.strip()
    assert len(key.split("-", 1)[1]) == 40
    assert "write in local" in made.err
    desk.resweep("key", "create", "--entity", "vision", "--read")
    listed = desk.resweep("key", "ls", "--json")
    assert key not in listed.out
    records = json.loads(listed.out)
    assert [(each["entity"], each["rights"], each["name"]) for each in records] == [
        ("local", "write", "laptop"),
        ("vision", "read", ""),
    ]
    assert "laptop" in desk.resweep("key", "ls").out
    desk.resweep("key", "rm", records[0]["key_id"])
    assert desk.resweep("key", "rm", records[0]["key_id"], code=2).line().startswith("error: no key has the id")
    assert len(json.loads(desk.resweep("key", "ls", "--json").out)) == 1


def test_without_keys_on_the_loopback_interface_only(desk: Desk) -> None:
    """--no-auth must not open a cluster's runs to everybody."""
    line = desk.resweep("serve", "--no-auth", "--host", "0.0.0.0", code=2).line()
    assert "--no-auth is for the loopback interface only" in line
    assert "resweep key create" in line


def test_the_real_client_with_a_key(desk: Desk, tmp_path: Path) -> None:
    """With the key it logs; with another one it is told what to do."""
    key = desk.resweep("key", "create").out.strip()
    script = 'import wandb\nwith wandb.init(project="p", id="a") as run:\n    run.log({"v": 1})\n'
    with gateway_to(desk.url, tmp_path) as gateway:
        for folder, used, code in (("right", key, 0), ("wrong", "b" * 40, 1)):
            with workplace(tmp_path / folder, wandb_sdk(NEWEST), gateway.url, key=used) as place:
                place.write("train.py", script)
                done = place.python("train.py", code=code)
                assert (code == 0) or "WANDB_API_KEY is unknown here" in done.err + done.out
        with closing(HttpSender(gateway.url)) as sender, pytest.raises(WireError, match="a key is needed"):
            Wire(sender).begin("b")
    assert [row["v"] for row in desk.history("p/a")] == [1]


def test_start_runs_scripts_that_log_to_wandb(desk: Desk) -> None:
    """One command for a script that knows nothing but `import wandb`: nothing else is set, no key is made."""
    desk.write(
        "train.py", 'import wandb\nwith wandb.init() as run:\n    run.log({"loss": run.config["x"], "id": run.id})\n'
    )
    config = {
        "program": "train.py",
        "command": [wandb_sdk(NEWEST).python, "${program}"],
        "method": "grid",
        "metric": {"name": "loss"},
        "parameters": {"x": {"values": [2, 1]}},
    }
    desk.write("sweep.yaml", json.dumps(config))
    printed = desk.resweep("start", "sweep.yaml", "--agents", "2", "--wandb").out
    (sweep,) = json.loads(desk.resweep("ls", "--json").out)
    assert sweep["state"] == "finished", printed
    runs = json.loads(desk.resweep("runs", sweep["id"], "--json").out)
    assert [(run["state"], run["attempt"], run["summary"]["loss"]) for run in runs] == [
        ("finished", 1, 2),
        ("finished", 1, 1),
    ], printed
    for run in runs:
        assert [(row["loss"], row["id"]) for row in desk.history(run["id"])] == [(run["params"]["x"], run["id"])]
