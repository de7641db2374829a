"""`resweep.init`: the decision table of resuming, by arguments, by the environment and inside an attempt."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.sdk import begin_attempt, enter_attempt, fake_sdk
from support.stores import Agent, make_offer, make_sweep

import resweep
from resweep.errors import CommError, Error, UsageError
from resweep.settings import RANK_VARIABLES, resolve
from resweep_scheduler.store import RunState, Scope, Store, StoreUnavailableError


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    with fake_sdk(monkeypatch, tmp_path) as store:
        yield store


def leave_a_run(rows: int = 3, run_id: str = "r1") -> None:
    """A run of that id exists, and has logged."""
    with resweep.init(id=run_id, config={"lr": 1, "old": True}, tags=["a"], notes="n", name="first", group="g") as run:
        for value in range(rows):
            run.log({"loss": value})


RESUMES = {
    "must": "resumed",
    "allow": "resumed",
    "auto": "resumed",
    True: "resumed",
    None: "overwritten",
    False: "overwritten",
}
BEGINS = ("allow", "auto", True, "never", None, False)


@pytest.mark.parametrize("resume", RESUMES)
def test_a_run_that_exists(store: Store, resume: str | bool | None) -> None:
    leave_a_run()
    run = resweep.init(id="r1", resume=resume)
    resumed = RESUMES[resume] == "resumed"
    assert (run.id, run.resumed, run.attempt) == ("r1", resumed, 2)
    assert run.starting_step == run.step == (3 if resumed else 0)
    assert dict(run.summary) == ({"loss": 2} if resumed else {})
    assert dict(run.config) == ({"lr": 1, "old": True} if resumed else {})


@pytest.mark.parametrize("resume", BEGINS)
def test_a_run_that_does_not_exist(store: Store, resume: str | bool | None) -> None:
    run = resweep.init(id="r1", resume=resume)
    assert (run.id, run.resumed, run.attempt, run.starting_step) == ("r1", False, 1, 0)
    assert store.run("r1").state is RunState.RUNNING


@pytest.mark.parametrize(
    ("value", "expected"), [("must", True), ("allow", True), ("auto", True), ("true", True), ("1", True), ("", False)]
)
def test_a_run_that_exists_by_the_environment(
    store: Store, monkeypatch: pytest.MonkeyPatch, value: str, expected: bool
) -> None:
    leave_a_run()
    monkeypatch.setenv("WANDB_RUN_ID", "r1")
    monkeypatch.setenv("WANDB_RESUME", value)
    run = resweep.init()
    assert (run.id, run.resumed, run.starting_step) == ("r1", expected, 3 if expected else 0)


@pytest.mark.parametrize("value", ["allow", "auto", "never", "true", "1", ""])
def test_a_run_that_does_not_exist_by_the_environment(
    store: Store, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "r1")
    monkeypatch.setenv("WANDB_RESUME", value)
    run = resweep.init()
    assert (run.id, run.resumed, run.attempt) == ("r1", False, 1)


@pytest.mark.parametrize("by_environment", [False, True])
def test_must_needs_a_run_that_was_initialised(
    store: Store, monkeypatch: pytest.MonkeyPatch, by_environment: bool
) -> None:
    if by_environment:
        monkeypatch.setenv("WANDB_RUN_ID", "r1")
        monkeypatch.setenv("WANDB_RESUME", "must")
    arguments: dict[str, Any] = {} if by_environment else {"id": "r1", "resume": "must"}
    with pytest.raises(UsageError) as caught:
        resweep.init(**arguments)
    assert str(caught.value) == (
        "You provided an invalid value for the `resume` argument. The value 'must' is not a valid option for resuming "
        "the run (r1) that has not been initialized. Please check your inputs and try again with a valid run ID. If "
        "you are trying to start a new run, please omit the `resume` argument or use `resume='allow'`."
    )
    assert resweep.run is None


@pytest.mark.parametrize("by_environment", [False, True])
def test_never_refuses_a_run_that_exists(store: Store, monkeypatch: pytest.MonkeyPatch, by_environment: bool) -> None:
    leave_a_run()
    if by_environment:
        monkeypatch.setenv("WANDB_RUN_ID", "r1")
        monkeypatch.setenv("WANDB_RESUME", "never")
    arguments: dict[str, Any] = {} if by_environment else {"id": "r1", "resume": "never"}
    with pytest.raises(
        UsageError, match=r"'never' is not a valid option for resuming a run \(r1\) that already exists"
    ):
        resweep.init(**arguments)
    assert store.run("r1").attempt == 1


def test_arguments_win_over_the_environment(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_a_run()
    monkeypatch.setenv("WANDB_RUN_ID", "other")
    monkeypatch.setenv("WANDB_RESUME", "never")
    monkeypatch.setenv("WANDB_PROJECT", "elsewhere")
    run = resweep.init(id="r1", resume="must", project="uncategorized")
    assert (run.id, run.project, run.resumed) == ("r1", "uncategorized", True)


def test_resume_false_wins_over_the_environment(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_a_run()
    monkeypatch.setenv("WANDB_RESUME", "allow")
    assert not resweep.init(id="r1", resume=False).resumed


def test_a_run_that_a_sweep_suggested_and_no_script_initialised_does_not_exist(store: Store) -> None:
    make_sweep(store)
    store.add_runs("sweep1", make_offer(1))
    with pytest.raises(UsageError, match="has not been initialized"):
        resweep.init(id="run0", resume="must")


def test_the_merge_rules(store: Store) -> None:
    leave_a_run()
    run = resweep.init(id="r1", resume="allow", config={"lr": 2, "new": {"a": 1}})
    assert run.config.as_dict() == {"lr": 2, "old": True, "new": {"a": 1}}
    assert (run.tags, run.notes, run.name, run.group) == (("a",), "n", "first", "g")
    run.finish()
    run = resweep.init(id="r1", resume="allow", config={"new": {"b": 2}}, tags=["b"], notes="", name="second")
    assert run.config.new == {"b": 2}, "nested dictionaries are not merged"
    assert (run.tags, run.notes, run.name, run.group) == (("b",), "", "second", "g")
    record = store.run("r1")
    assert (record.tags, record.name, dict(record.config)) == (
        ("b",),
        "second",
        {"lr": 2, "old": True, "new": {"b": 2}},
    )


def test_inside_an_attempt_the_environment_says_which_run_it_is(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    begin_attempt(store, monkeypatch, metric_name="loss", metric_goal="minimize")
    with resweep.init(id="mine", project="mine", entity="me", resume="never", config={"x": 9, "own": 1}) as run:
        assert (run.id, run.project, run.sweep_id, run.attempt) == ("run0", "uncategorized", "sweep1", 1)
        assert dict(run.config) == {"x": 0, "own": 1}
        run.config.x = 5
        run.config.own = 2
        for value in (3.0, 1.0, float("nan"), 2.0):
            run.log({"loss": value})
    record = store.run("run0")
    assert record.state is RunState.RUNNING, "the agent reports the end"
    assert (record.metric, record.step, dict(record.config)) == (1.0, 3, {"x": 0, "own": 2})


def test_the_next_attempt_goes_on(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = begin_attempt(store, monkeypatch)
    with resweep.init() as run:
        run.log({"loss": 0})
        assert run.mark_preempting() is True
        assert run.preempting
    assert agent.end(1).state is RunState.PREEMPTED
    agent.take()
    enter_attempt(store, monkeypatch, agent)
    run = resweep.init()
    assert (run.resumed, run.attempt, run.starting_step, bool(run.preempting)) == (True, 2, 1, False)


def test_a_second_process_of_one_attempt_goes_on_after_the_first(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    begin_attempt(store, monkeypatch)
    with resweep.init() as run:
        run.log({"loss": 0})
        run.log({"loss": 1})
    with resweep.init(config={"phase": "test"}) as run:
        assert run.starting_step == 2
        run.log({"score": 5})
    assert [dict(row.values) for row in store.history("run0")] == [{"loss": 0}, {"loss": 1}, {"score": 5}]
    assert store.run("run0").config["phase"] == "test"


def test_a_stale_attempt_cannot_begin(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESWEEP_INIT_TIMEOUT", "0")
    agent = begin_attempt(store, monkeypatch)
    agent.end(None, preempted=True)
    Agent(store, "b").take()
    with pytest.raises(Error, match="run run0 was taken over by another attempt"):
        resweep.init()


def test_a_run_that_an_agent_holds_cannot_be_begun_outside(store: Store) -> None:
    make_sweep(store)
    Agent(store).take(make_offer(1))
    with pytest.raises(UsageError, match="run run0 belongs to a sweep, and an agent runs it now"):
        resweep.init(id="run0", resume="allow")


def test_a_store_that_does_not_answer(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESWEEP_INIT_TIMEOUT", "0.1")

    def nobody(self: Store, **_: object) -> None:
        raise StoreUnavailableError("redis://x does not answer")

    monkeypatch.setattr(Store, "init_run", nobody)
    with pytest.raises(
        CommError, match=r"Failed to get resume status for run ID: r1: redis://x does not answer\. .*RESWEEP_URL"
    ):
        resweep.init(id="r1")
    assert resweep.run is None


def test_init_returns_the_active_run(store: Store) -> None:
    run = resweep.init(id="r1")
    assert resweep.init(id="r2") is run
    assert resweep.init(id="r1", resume="must") is run
    assert resweep.run is run


def test_must_while_another_run_is_active(store: Store) -> None:
    leave_a_run(run_id="r2")
    resweep.init(id="r1")
    with pytest.raises(Error, match="Cannot resume a run while another run is active: r1 is, and r2 was asked for"):
        resweep.init(id="r2", resume="must")


def test_another_project_is_another_namespace(store: Store) -> None:
    leave_a_run()
    run = resweep.init(id="r1", entity="me", project="p", resume="never")
    assert (run.entity, run.project) == ("me", "p")
    assert Store(store.client, Scope("me", "p")).run("r1").attempt == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"resume": "maybe"}, "resume must be one of 'must', 'allow', 'never', 'auto'.* got 'maybe'"),
        ({"resume": "must"}, "resume='must' .*none was given; pass id="),
        ({"id": ""}, "Run ID cannot be empty"),
        ({"id": " x"}, "Run ID cannot start or end with whitespace"),
        ({"id": "  "}, "Run ID cannot contain only whitespace"),
        ({"id": "a/b"}, "Run ID cannot contain the characters"),
        ({"project": "a b"}, "project has 1 to 128"),
        ({"mode": "dry"}, "mode must be one of 'online', 'offline', 'disabled', got 'dry'"),
        ({"tags": "one"}, "tags must be a list of texts"),
        ({"config": 5}, "config must be a mapping, got int"),
        ({"config": "file.yaml"}, "config must be a mapping, got str"),
    ],
)
def test_arguments_that_cannot_be(store: Store, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resweep.init(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("WANDB_RESUME", "maybe", "WANDB_RESUME must be 'allow', 'must', 'never' or 'auto', got 'maybe'"),
        ("RESWEEP_CLAIM", "x", "RESWEEP_CLAIM needs WANDB_RUN_ID"),
        ("RESWEEP_MODE", "dry", "RESWEEP_MODE must be one of"),
        ("WANDB_MODE", "dry", "WANDB_MODE must be one of"),
        ("RESWEEP_FINISH_TIMEOUT", "soon", "RESWEEP_FINISH_TIMEOUT must be a number of seconds, 0 or more, got 'soon'"),
        ("RESWEEP_FINISH_TIMEOUT", "inf", "RESWEEP_FINISH_TIMEOUT must be a number of seconds"),
    ],
)
def test_variables_that_cannot_be(
    store: Store, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=message):
        resweep.init()


def test_a_claim_that_is_none(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "r1")
    monkeypatch.setenv("RESWEEP_CLAIM", "x")
    with pytest.raises(UsageError, match="a claim is ATTEMPT:NONCE, got 'x'"):
        resweep.init()


@pytest.mark.parametrize(
    ("error", "state", "exit_code"),
    [
        (None, RunState.FINISHED, 0),
        (ValueError(), RunState.FAILED, 1),
        (KeyboardInterrupt(), RunState.FAILED, 255),
        (SystemExit(3), RunState.FAILED, 3),
        (SystemExit(), RunState.FINISHED, 0),
        (SystemExit("text"), RunState.FAILED, 1),
    ],
)
def test_the_context_manager_ends_the_run(
    store: Store, error: BaseException | None, state: RunState, exit_code: int
) -> None:
    def body() -> None:
        with resweep.init(id="r1"):
            if error is not None:
                raise error

    if error is None:
        body()
    else:
        with pytest.raises(type(error)):
            body()
    assert (store.run("r1").state, store.run("r1").exit_code) == (state, exit_code)
    assert resweep.run is None


def test_wandb_mode_counts_outside_a_sweep_only(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    begin_attempt(store, monkeypatch)
    with resweep.init() as run:
        run.log({"loss": 1})
    assert store.run("run0").step == 0
    monkeypatch.delenv("RESWEEP_CLAIM")
    with resweep.init(id="r2", resume=False) as run:
        run.log({"loss": 1})
    assert [path.name.startswith("r2-offline") for path in (tmp_path / "resweep" / "spill").iterdir()] == [True]


@pytest.mark.parametrize("variable", RANK_VARIABLES)
def test_other_ranks_read_and_log_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, variable: str, tmp_path: Path
) -> None:
    begin_attempt(store, monkeypatch)
    monkeypatch.setenv(variable, "0")
    with resweep.init(config={"own": 1}) as run:
        run.log({"loss": 1})
    monkeypatch.setenv(variable, "1")
    (tmp_path / "model.pt").write_text("weights")
    with resweep.init() as run:
        assert (run.id, run.attempt, dict(run.config), run.starting_step) == ("run0", 1, {"x": 0, "own": 1}, 1)
        assert dict(run.summary) == {"loss": 1}
        run.log({"loss": 2})
        assert run.save_checkpoint("model.pt") == Path("model.pt")
        assert run.mark_preempting() is True
    assert len(store.history("run0")) == 1
    assert store.run("run0").state is RunState.PREEMPTING


@pytest.mark.parametrize(
    ("environ", "rank"),
    [
        ({"RANK": "0", "LOCAL_RANK": "0", "SLURM_PROCID": "1"}, ""),
        ({"RANK": "3", "LOCAL_RANK": "0"}, "RANK=3"),
        pytest.param({"SLURM_PROCID": "0", "PMIX_RANK": "2"}, "PMIX_RANK=2", id="mpirun in a job"),
        pytest.param({"SLURM_PROCID": "2", "SLURM_STEP_ID": "0", "agent": "SLURM_PROCID=2,SLURM_STEP_ID=0"}, "",
                     id="the agent is a task"),
        pytest.param({"SLURM_PROCID": "2", "SLURM_STEP_ID": "1", "agent": "SLURM_PROCID=2,SLURM_STEP_ID=0"},
                     "SLURM_PROCID=2", id="a step of its own"),
        pytest.param({"SLURM_PROCID": "0", "SLURM_STEP_ID": "1", "agent": "SLURM_PROCID=0"}, "",
                     id="rank 0 of a step that an agent in a batch script started"),
        pytest.param({"SLURM_PROCID": "1", "SLURM_STEP_ID": "1", "agent": "SLURM_PROCID=1"}, "SLURM_PROCID=1",
                     id="rank 1 of such a step"),
    ],
)  # fmt: skip
def test_which_process_of_a_run_this_is(environ: dict[str, str], rank: str) -> None:
    of_agent = environ.pop("agent", None)
    told = {} if of_agent is None else {"RESWEEP_AGENT_RANK": of_agent}
    assert resolve({**environ, **told}).rank == rank


def test_the_agent_tells_all_ranks_that_the_sdk_knows() -> None:
    from resweep_agent.environment import RANKS

    assert [*RANK_VARIABLES, "SLURM_STEP_ID"] == list(RANKS)


def test_the_rank_of_the_agent_is_not_the_rank_of_its_child(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with `srun -n 4 sweep-agent SWEEP`: each task is an agent, and each child a run of its own."""
    from resweep_agent.environment import Surroundings

    monkeypatch.setenv("SLURM_PROCID", "2")
    agent = begin_attempt(store, monkeypatch)
    surroundings = Surroundings(
        environ=dict(os.environ),
        url="",
        scope=store.scope,
        sweep_id="sweep1",
        directory=Path(),
        checkpoints=Path("checkpoints"),
    )
    for name, value in surroundings.child_environment(agent.run, agent.name, 0).items():
        monkeypatch.setenv(name, value)
    with resweep.init() as run:
        run.log({"loss": 1})
    assert len(store.history("run0")) == 1


def test_disabled_keeps_nothing(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with resweep.init(mode="disabled", config={"lr": 1}) as run:
        run.log({"loss": 1})
        run.config.update({"lr": 2})
        assert run.config.lr == 2
        assert run.mark_preempting() is False
        assert run.restore_checkpoint() is None
    assert store.project_runs() == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", ["disabled", "offline"])
def test_without_the_store_the_parameters_come_from_the_agents_file(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: str
) -> None:
    from resweep_agent.environment import write_parameter_file

    begin_attempt(store, monkeypatch)
    params = {"lr": 1e-5, "inf": float("-inf"), 'a "b"': ["x: .nan", {"c": None}]}
    write_parameter_file(str(tmp_path / "config.yaml"), params)
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", str(tmp_path / "config.yaml"))
    run = resweep.init(mode=mode, config={"lr": 7, "own": 1})
    assert run.config.as_dict() == {**params, "own": 1}
    run.config.lr = 3
    assert run.config.lr == 1e-5
