"""The helpers for frameworks against their documented protocol; test_sdk_frameworks.py has those that are installed.

A fake stands for a framework only as far as its documentation goes: what the helper calls, and when it is called.
"""

from __future__ import annotations

import importlib
import importlib.util
import pickle
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from support.sdk import fake_sdk

import resweep
from resweep_scheduler.store import Checkpoint, Store

HELPERS = ("torch", "lightning", "huggingface", "keras")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("RESWEEP_CHECKPOINT_URL", f"file://{tmp_path}/objects")
    with fake_sdk(monkeypatch, tmp_path) as store:
        yield store


@pytest.fixture(autouse=True)
def fresh_helpers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A helper that was loaded with a fake is not met by the next test."""
    for name in HELPERS:
        monkeypatch.delitem(sys.modules, f"resweep.integrations.{name}", raising=False)


def install(monkeypatch: pytest.MonkeyPatch, name: str, **members: Any) -> ModuleType:
    """A module of this name that has these members; the packages above it, too."""
    module = ModuleType(name)
    module.__dict__.update(members)
    parent, _, last = name.rpartition(".")
    if parent:
        setattr(install(monkeypatch, parent), last, module)
    monkeypatch.setitem(sys.modules, name, module)
    return module


def checkpoint_of(store: Store) -> Checkpoint:
    checkpoint = store.run("r1").checkpoint
    assert checkpoint is not None
    return checkpoint


class Stateful:
    """What models, optimizers and schedulers have in common."""

    def __init__(self, **state: Any) -> None:
        self.state = state

    def state_dict(self) -> dict[str, Any]:
        return dict(self.state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state = dict(state)


class Tensor(tuple[int, ...]):
    def cpu(self) -> Tensor:
        return self


def fake_torch(monkeypatch: pytest.MonkeyPatch, devices: int) -> list[Any]:
    """torch as far as its documentation of serialization and random states goes; returns the states of its devices."""
    own = random.Random(1)
    cuda = [Tensor((number,)) for number in range(devices)]

    def set_all(states: list[Any]) -> None:
        cuda[:] = states

    def load(path: Path, map_location: Any, weights_only: bool) -> Any:
        assert (map_location, weights_only) == ("cpu", True)
        return pickle.loads(Path(path).read_bytes())

    install(
        monkeypatch,
        "torch",
        save=lambda states, path: Path(path).write_bytes(pickle.dumps(states)),
        load=load,
        get_rng_state=lambda: Tensor(own.getstate()[1]),
        set_rng_state=lambda state: own.setstate((3, tuple(state), None)),
        draw=own.random,
        cuda=SimpleNamespace(
            is_available=lambda: devices > 0,
            device_count=lambda: devices,
            get_rng_state_all=lambda: list(cuda),
            set_rng_state_all=set_all,
        ),
    )
    return cuda


@pytest.mark.parametrize("devices", [0, 2])
def test_torch_goes_on_with_all_states_and_the_same_random_numbers(
    store: Store, monkeypatch: pytest.MonkeyPatch, devices: int
) -> None:
    np = pytest.importorskip("numpy")
    cuda = fake_torch(monkeypatch, devices)
    from resweep.integrations.torch import restore_state, save_state

    torch = sys.modules["torch"]
    with resweep.init(id="r1") as run:
        assert restore_state(run, model=Stateful()) is None
        run.log({"loss": 1.0})
        run.log({"loss": 0.5})
        save_state(run, model=Stateful(w=2), optimizer=Stateful(m=3), best=0.5, metadata={"epoch": 1})
        drawn = [random.random(), np.random.random(), torch.draw()]
        cuda[:] = [Tensor((9,))] * devices
    assert (checkpoint_of(store).step, checkpoint_of(store).metadata) == (1, {"epoch": 1})
    with resweep.init(id="r1", resume="allow") as run:
        model, optimizer = Stateful(w=0), Stateful(m=0)
        assert restore_state(run, model=model, optimizer=optimizer) == {"best": 0.5}
        assert (model.state, optimizer.state, run.step) == ({"w": 2}, {"m": 3}, 2)
        assert [random.random(), np.random.random(), torch.draw()] == drawn
        assert cuda == [(number,) for number in range(devices)]


def test_what_earlier_attempts_left_of_their_states_is_removed(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Killed while the framework wrote: the next attempt clears that away, and nothing of other runs or its own."""
    fake_torch(monkeypatch, 0)
    from resweep.integrations.torch import save_state

    resweep.init(id="r1").finish()
    others = ("state-r1-2-abcdefgh", "state-r1-1-1-abcdefgh", "state-r2-1-abcdefgh")
    for name in ("state-r1-1-abc_efg0", *others):
        (tmp_path / "resweep" / name).mkdir(parents=True)
    with resweep.init(id="r1", resume="allow") as run:
        assert run.attempt == 2
        save_state(run, step=1, model=Stateful(w=2))
    assert sorted(path.name for path in (tmp_path / "resweep").glob("state-*")) == sorted(others)


def test_other_ranks_of_torch_draw_numbers_of_their_own(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_torch(monkeypatch, 0)
    from resweep.integrations.torch import restore_state, save_state

    with resweep.init(id="r1") as run:
        save_state(run, step=1, model=Stateful(w=2))
    monkeypatch.setenv("RANK", "1")
    random.seed(5)
    expected = random.Random(5).random()
    with resweep.init(id="r1", resume="allow") as run:
        model = Stateful()
        restore_state(run, model=model)
    assert model.state == {"w": 2}
    assert random.random() == expected


class FakeTrainer:
    """Lightning's: ``save_checkpoint`` makes the folders above the file that it writes."""

    def __init__(self, rank: int = 0) -> None:
        self.current_epoch = 0
        self.is_global_zero = rank == 0
        self.saved: list[Path] = []

    def save_checkpoint(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(self.current_epoch))
        self.saved.append(path)


@pytest.mark.parametrize("package", ["lightning.pytorch", "pytorch_lightning"])
def test_lightning_saves_every_nth_epoch_and_fit_is_given_the_path(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, package: str
) -> None:
    if package == "pytorch_lightning":
        monkeypatch.setitem(sys.modules, "lightning", None)
        monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    install(monkeypatch, package, Callback=object)
    from resweep.integrations.lightning import ResweepCheckpoint

    with resweep.init(id="r1") as run:
        callback = ResweepCheckpoint(run, every_n_epochs=2, wait=True)
        trainer = FakeTrainer()
        for trainer.current_epoch in range(5):
            run.log({"loss": 1.0})
            callback.on_train_epoch_end(trainer, None)
        assert len(trainer.saved) == 2
        assert not trainer.saved[0].exists()
        other = FakeTrainer(rank=1)
        other.current_epoch = 1
        callback.on_train_epoch_end(other, None)
        assert len(other.saved) == 1, "every rank takes part in saving"
    assert (checkpoint_of(store).step, checkpoint_of(store).metadata) == (3, {"epoch": 3})
    with resweep.init(id="r1", resume="allow") as run:
        path = run.restore_checkpoint()
        assert path is not None
        assert (path.name, path.read_text()) == ("checkpoint.ckpt", "3")


def test_hugging_faces_checkpoints_and_logs_are_sent_on(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, "transformers", TrainerCallback=object)
    from resweep.integrations.huggingface import ResweepCallback

    args = SimpleNamespace(output_dir=str(tmp_path / "out"))
    with resweep.init(id="r1") as run:
        callback = ResweepCallback(run)
        for step in (10, 20):
            state = SimpleNamespace(global_step=step, epoch=step / 10, is_world_process_zero=True)
            callback.on_log(args, state, None, logs={"loss": 1 / step}, model=None)
            (tmp_path / "out" / f"checkpoint-{step}").mkdir(parents=True)
            (tmp_path / "out" / f"checkpoint-{step}" / "trainer_state.json").write_text(str(step))
            callback.on_save(args, state, None, model=None)
        state.is_world_process_zero = False
        state.global_step = 30
        callback.on_log(args, state, None, logs={"loss": 0})
        callback.on_save(args, state, None)
    assert [(row.step, row.values) for row in store.history("r1")] == [(10, {"loss": 0.1}), (20, {"loss": 0.05})]
    assert (checkpoint_of(store).step, checkpoint_of(store).metadata) == (20, {"epoch": 2.0})
    with resweep.init(id="r1", resume="allow") as run:
        path = run.restore_checkpoint()
        assert path is not None
        assert (path / "trainer_state.json").read_text() == "20"


def test_keras_logs_and_saves_each_epoch(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, "keras", callbacks=SimpleNamespace(Callback=object))
    from resweep.integrations.keras import ResweepCheckpoint

    with resweep.init(id="r1") as run:
        callback = ResweepCheckpoint(run)
        callback.model = SimpleNamespace(save=lambda path: path.write_text(path.suffix))
        for epoch in range(3):
            callback.on_epoch_end(epoch, {"loss": 1.0})
    assert [row.step for row in store.history("r1")] == [0, 1, 2]
    assert checkpoint_of(store).step == 2
    with resweep.init(id="r1", resume="allow") as run:
        path = run.restore_checkpoint()
        assert path is not None
        assert (path.name, path.read_text(), run.step) == ("model.keras", ".keras", 3)


def test_no_helper_is_loaded_by_resweep_itself() -> None:
    assert not [name for name in sys.modules if name.startswith("resweep.integrations.")]
    assert importlib.util.find_spec("resweep.integrations.torch") is not None
