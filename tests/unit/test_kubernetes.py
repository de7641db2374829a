"""The manifests for Kubernetes: valid by its schemas, and in agreement with what the agent does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from resweep_agent.cli import main
from resweep_agent.exitcodes import ExitCode

ROOT = Path(__file__).parents[2]
MANIFESTS = sorted((ROOT / "configs" / "kubernetes").glob("*.yaml"))
GUIDE = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")


@pytest.fixture(params=MANIFESTS, ids=lambda path: path.name)
def job(request: pytest.FixtureRequest) -> dict[str, Any]:
    (document,) = yaml.safe_load_all(request.param.read_text(encoding="utf-8"))
    assert isinstance(document, dict)
    return document


def agent_of(job: dict[str, Any]) -> dict[str, Any]:
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert isinstance(container, dict)
    return container


def options_of(job: dict[str, Any]) -> dict[str, Any]:
    """What `sweep-agent` understands of the container's arguments."""
    return main.make_context("sweep-agent", [str(word) for word in agent_of(job)["args"]]).params


def test_there_are_manifests_and_the_guide_names_each() -> None:
    assert len(MANIFESTS) == 2
    for path in MANIFESTS:
        assert f"configs/kubernetes/{path.name}" in GUIDE


def test_it_is_valid(job: dict[str, Any]) -> None:
    assert kubernetes_validate.validate(job, "1.34", strict=True).startswith("1.34")


def test_the_agent_itself_gets_the_signal_and_has_time_for_the_grace_and_its_reports(job: dict[str, Any]) -> None:
    assert agent_of(job)["command"] == ["sweep-agent"]
    assert job["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= options_of(job)["grace"] + 10
    assert options_of(job)["preemptible"] is True


def test_a_pod_that_was_preempted_is_replaced_and_hopeless_ones_end_the_job(job: dict[str, Any]) -> None:
    disrupted, preempted, hopeless = job["spec"]["podFailurePolicy"]["rules"]
    assert disrupted == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    assert (preempted["action"], preempted["onExitCodes"]["values"]) == ("Ignore", [ExitCode.PREEMPTED])
    assert (hopeless["action"], hopeless["onExitCodes"]["values"]) == (
        "FailJob", [ExitCode.USAGE, ExitCode.UNKNOWN_SWEEP, ExitCode.COMMAND_NOT_FOUND],
    )  # fmt: skip
    for rule in (preempted, hopeless):
        assert rule["onExitCodes"]["containerName"] == agent_of(job)["name"]
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"


def test_the_pod_gives_the_agent_its_name_and_a_secret_the_address(job: dict[str, Any]) -> None:
    variables = {variable["name"]: variable["valueFrom"] for variable in agent_of(job)["env"]}
    assert variables["RESWEEP_URL"] == {"secretKeyRef": {"name": "resweep", "key": "url"}}
    assert "kubectl create secret generic resweep --from-literal=url=" in GUIDE
    (name, source) = next(item for item in variables.items() if item[0] != "RESWEEP_URL")
    assert f"$({name})" in options_of(job)["name"]
    indexed = job["spec"].get("completionMode") == "Indexed"
    index = "metadata.labels['batch.kubernetes.io/job-completion-index']"
    assert source == {"fieldRef": {"fieldPath": index if indexed else "metadata.name"}}
