"""What a child is told."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from resweep_agent.devices import ONE_PLACE, Places
from resweep_agent.environment import Surroundings, WandbGateway, write_parameter_file
from resweep_scheduler.store import ClaimedRun, ClaimToken, Scope
from resweep_scheduler.store.credentials import attempt_key, run_of_attempt_key


def claimed(params: dict[str, object] | None = None) -> ClaimedRun:
    token = ClaimToken("run1", 2, "abcd.7")
    return ClaimedRun(token, 3, params or {"lr": 0.1}, resumed=True, step=4, checkpoint=None, claimed_at=5)


def surroundings(tmp_path: Path, environ: dict[str, str], scope: Scope, places: Places = ONE_PLACE) -> Surroundings:
    return Surroundings(
        environ=environ,
        url="redis://:pw@h/0",
        scope=scope,
        sweep_id="s1",
        directory=tmp_path,
        checkpoints=tmp_path / "checkpoints",
        places=places,
    )


def test_the_child_learns_its_run_by_the_names_of_wandb_and_ours(tmp_path: Path) -> None:
    environ = {"PATH": "/bin", "WANDB_DIR": str(tmp_path), "WANDB_SWEEP_ID": "old", "RESWEEP_CLAIM": "old"}
    environment = surroundings(tmp_path, environ, Scope("team", "vision")).child_environment(claimed(), "gpu.1", 1)
    assert environment == {
        "PATH": "/bin",
        "WANDB_RUN_ID": "run1",
        "WANDB_RESUME": "allow",
        "WANDB_PROJECT": "vision",
        "WANDB_ENTITY": "team",
        "WANDB_DIR": str(tmp_path),
        "WANDB_SWEEP_PARAM_PATH": str(tmp_path / "wandb" / "sweep-s1" / "config-run1.yaml"),
        "RESWEEP_URL": "redis://:pw@h/0",
        "RESWEEP_SWEEP_ID": "s1",
        "RESWEEP_AGENT_ID": "gpu.1",
        "RESWEEP_ATTEMPT": "2",
        "RESWEEP_CLAIM": "2:abcd.7",
        "RESWEEP_CHECKPOINT_DIR": str(tmp_path / "checkpoints"),
        "RESWEEP_NOTICE_FILE": str(tmp_path / "s1" / "run1" / "attempt-2" / "notice-abcd.7"),
        "RESWEEP_NOTICE_SIGNAL": "SIGTERM",
        "RESWEEP_CHECKPOINT_KEEP": "2",
    }


def test_the_child_learns_the_url_for_checkpoints_and_no_folder_besides(tmp_path: Path) -> None:
    environ = {"RESWEEP_CHECKPOINT_DIR": "/of/another/run", "RESWEEP_CHECKPOINT_URL": "s3://of/another/run"}
    there = replace(surroundings(tmp_path, environ, Scope()), checkpoints="s3://bucket/x", keep=3)
    environment = there.child_environment(claimed(), "a", 0)
    assert environment["RESWEEP_CHECKPOINT_URL"] == "s3://bucket/x"
    assert environment["RESWEEP_CHECKPOINT_KEEP"] == "3"
    assert "RESWEEP_CHECKPOINT_DIR" not in environment
    assert "RESWEEP_CHECKPOINT_URL" not in surroundings(tmp_path, environ, Scope()).child_environment(claimed(), "a", 0)


def test_our_default_entity_is_not_told_to_wandb(tmp_path: Path) -> None:
    environment = surroundings(tmp_path, {"WANDB_ENTITY": "team"}, Scope()).child_environment(claimed(), "a", 0)
    assert "WANDB_ENTITY" not in environment
    assert environment["WANDB_DIR"] == os.getcwd()


def test_each_slot_is_told_its_gpus(tmp_path: Path) -> None:
    told = surroundings(
        tmp_path, {"ROCR_VISIBLE_DEVICES": "0,1"}, Scope(), Places(2, "ROCR_VISIBLE_DEVICES", ("0", "1"))
    )
    assert told.child_environment(claimed(), "a", 1)["ROCR_VISIBLE_DEVICES"] == "1"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(params=st.dictionaries(st.text(min_size=1, max_size=6), VALUES, max_size=4))
def test_the_parameter_file_is_read_back_by_a_yaml_reader_of_version_1_1(
    tmp_path_factory: pytest.TempPathFactory, params: dict[str, object]
) -> None:
    path = tmp_path_factory.mktemp("p") / "wandb" / "sweep-s1" / "config-r.yaml"
    write_parameter_file(str(path), params)
    read = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert read == {"wandb_version": 1, **{name: {"value": value} for name, value in params.items()}}


def test_children_find_the_gateway_with_a_key_of_their_attempt(tmp_path: Path) -> None:
    """What the user set stays; the key is that of this attempt and no other."""
    environ = {"WANDB_API_KEY": "mine", "WANDB_ERROR_REPORTING": "true", "WANDB_DIR": str(tmp_path)}
    plain = surroundings(tmp_path, environ, Scope())
    with_gateway = replace(plain, gateway=WandbGateway("http://127.0.0.1:1", b"secret"))
    run = claimed()
    environment = with_gateway.child_environment(run, "gpu", 0)
    assert environment["WANDB_BASE_URL"] == "http://127.0.0.1:1"
    assert environment["WANDB_SWEEP_ID"] == "s1"
    assert environment["WANDB_ENTITY"] == "local"
    assert environment["WANDB_ERROR_REPORTING"] == "true"
    assert environment["WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL"] == "2"
    assert environment["WANDB_API_KEY"] == attempt_key(b"secret", Scope(), run.token)
    later = replace(run, token=ClaimToken("run1", 3, "abcd.8"))
    assert with_gateway.child_environment(later, "gpu", 0)["WANDB_API_KEY"] != environment["WANDB_API_KEY"]
    assert run_of_attempt_key(environment["WANDB_API_KEY"]) == "run1"
    assert "WANDB_BASE_URL" not in plain.child_environment(run, "gpu", 0)
