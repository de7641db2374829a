"""The helpers for frameworks with the real ones, each where it is installed: torch, Lightning, Hugging Face, Keras."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.sdk import fake_sdk

import resweep
from resweep_scheduler.store import Checkpoint, Store

pytestmark = pytest.mark.filterwarnings("default")  # what frameworks warn of is theirs


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("RESWEEP_CHECKPOINT_URL", f"file://{tmp_path}/objects")
    with fake_sdk(monkeypatch, tmp_path) as store:
        yield store


def saved(store: Store) -> Checkpoint:
    checkpoint = store.run("r1").checkpoint
    assert checkpoint is not None
    return checkpoint


def test_real_torch_goes_on_where_it_stood(store: Store) -> None:
    torch = pytest.importorskip("torch")
    from resweep.integrations.torch import restore_state, save_state

    def parts() -> dict[str, Any]:
        model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Dropout(), torch.nn.Linear(4, 1))
        optimizer = torch.optim.AdamW(model.parameters())
        return {
            "model": model,
            "optimizer": optimizer,
            "scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5),
        }

    def train(model: Any, optimizer: Any, scheduler: Any, steps: int) -> list[float]:
        losses = []
        for _ in range(steps):
            loss = model(torch.rand(8, 3)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            losses.append(loss.item())
        return losses

    with resweep.init(id="r1") as run:
        first = parts()
        train(**first, steps=3)
        save_state(run, step=2, **first, best=0.1)
        expected = train(**first, steps=3)
    with resweep.init(id="r1", resume="allow") as run:
        second = parts()
        assert restore_state(run, **second) == {"best": 0.1}
        assert train(**second, steps=3) == expected


def test_real_keras_goes_on_with_its_whole_model(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    np = pytest.importorskip("numpy")
    keras = pytest.importorskip("keras")
    if keras.backend.backend() == "numpy":
        pytest.skip("Keras cannot train with its backend numpy")
    from resweep.integrations.keras import ResweepCheckpoint

    x, y = np.random.rand(16, 3), np.random.rand(16, 1)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(optimizer="adam", loss="mse")
    with resweep.init(id="r1") as run:
        model.fit(x, y, epochs=2, verbose=0, callbacks=[ResweepCheckpoint(run)])
    with resweep.init(id="r1", resume="allow") as run:
        again = keras.saving.load_model(run.restore_checkpoint())
        assert np.allclose(again.predict(x, verbose=0), model.predict(x, verbose=0))
        assert int(again.optimizer.iterations) == int(model.optimizer.iterations)
        again.fit(x, y, epochs=4, initial_epoch=run.step, verbose=0, callbacks=[ResweepCheckpoint(run)])
    assert [row.step for row in store.history("r1")] == [0, 1, 2, 3]


def test_real_lightning_goes_on_at_its_epoch(store: Store) -> None:
    torch = pytest.importorskip("torch")
    pl = pytest.importorskip("lightning.pytorch")
    from resweep.integrations.lightning import ResweepCheckpoint

    class Module(pl.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(3, 1)
            self.begun: list[int] = []
            self.first_weights: list[float] = []

        def on_train_start(self) -> None:
            self.first_weights = self.layer.weight.flatten().tolist()

        def on_train_epoch_start(self) -> None:
            self.begun.append(self.current_epoch)

        def training_step(self, batch: Any, _: int) -> Any:
            return self.layer(batch).square().mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters())

    def fit(run: resweep.Run, epochs: int) -> tuple[Any, int]:
        trainer = pl.Trainer(
            max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, callbacks=[ResweepCheckpoint(run, wait=True)],
        )  # fmt: skip
        data = torch.utils.data.DataLoader(torch.rand(16, 3), batch_size=8)
        trainer.fit(module := Module(), data, ckpt_path=run.restore_checkpoint())
        return module, trainer.global_step

    with resweep.init(id="r1") as run:
        first, _ = fit(run, epochs=2)
    with resweep.init(id="r1", resume="allow") as run:
        second, steps = fit(run, epochs=4)
    assert (first.begun, second.begun, steps) == ([0, 1], [2, 3], 8)
    assert second.first_weights == first.layer.weight.flatten().tolist()
    assert saved(store).metadata == {"epoch": 3}


def test_the_real_trainer_of_hugging_face_goes_on_at_its_step(store: Store, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    from resweep.integrations.huggingface import ResweepCallback

    class Model(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(3, 1)

        def forward(self, x: Any) -> dict[str, Any]:
            return {"loss": self.layer(x).square().mean()}

    def train(run: resweep.Run, machine: str, steps: int) -> Any:
        arguments = transformers.TrainingArguments(
            output_dir=str(tmp_path / machine), max_steps=steps, save_steps=2, logging_steps=1, report_to=[],
            use_cpu=True, disable_tqdm=True, remove_unused_columns=False, per_device_train_batch_size=4,
        )  # fmt: skip
        data = [{"x": torch.rand(3)} for _ in range(32)]
        trainer = transformers.Trainer(Model(), arguments, train_dataset=data, callbacks=[ResweepCallback(run)])
        checkpoint = run.restore_checkpoint()
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        return trainer.state

    with resweep.init(id="r1") as run:
        train(run, "first", steps=5)
    assert saved(store).step in (4, 5)
    goes_on_at = (saved(store).step or 0) + 1
    with resweep.init(id="r1", resume="allow") as run:
        assert train(run, "second", steps=8).global_step == 8
    attempts = {row.step: row.attempt for row in store.history("r1")}
    assert sorted(attempts) == list(range(1, 9))
    assert min(step for step, attempt in attempts.items() if attempt == 2) == goes_on_at
