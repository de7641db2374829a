"""`import resweep` itself: light, harmless, and what it says before `init`."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.sdk import fake_sdk

import resweep
from resweep import errors
from resweep.errors import UsageError
from resweep_scheduler.store import Store


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    with fake_sdk(monkeypatch, tmp_path) as store:
        yield store


def test_all_names_the_exports() -> None:
    assert sorted(resweep.__all__) == resweep.__all__
    assert {name for name in dir(resweep) if not name.startswith("_")} >= set(resweep.__all__)
    for name in resweep.__all__:
        getattr(resweep, name)
    namespace: dict[str, object] = {}
    exec("from resweep import *", namespace)
    assert namespace.keys() >= set(resweep.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'; it has: CommError, "):
        resweep.nothing  # noqa: B018


def test_the_tree_of_errors_stands_in_their_module() -> None:
    classes = {name for name, _ in inspect.getmembers(errors, inspect.isclass)}
    assert set(re.findall(r"\b\w*Error\b", str(errors.__doc__).partition("A run")[0])) == classes
    assert all(issubclass(getattr(errors, name), errors.Error) for name in classes)


def test_the_import_is_light_and_changes_nothing() -> None:
    script = """
import sys, os, signal, logging, atexit, threading
handlers, environment, hook = logging.root.handlers[:], dict(os.environ), sys.excepthook
signals = [signal.getsignal(number) for number in signal.valid_signals()]
before = atexit._ncallbacks()
import resweep
loaded = {name.partition(".")[0] for name in sys.modules}
heavy = {"optuna", "rq", "pydantic", "click", "rich", "yaml", "redis", "numpy", "resweep_scheduler", "resweep_agent"}
assert not heavy & loaded, heavy & loaded
assert "dataclasses" not in loaded and "typing" not in loaded, "the standard library's slow modules, too"
resweep.init
assert not heavy & {name.partition(".")[0] for name in sys.modules}
assert logging.root.handlers == handlers and dict(os.environ) == environment and sys.excepthook is hook
assert [signal.getsignal(number) for number in signal.valid_signals()] == signals
assert atexit._ncallbacks() == before
assert threading.active_count() == 1
"""
    subprocess.run([sys.executable, "-S", "-c", _with_path(script)], check=True)


def test_init_changes_nothing_global_but_one_function_at_exit(tmp_path: Path) -> None:
    script = f"""
import sys, os, signal, logging, atexit
import resweep
os.chdir({str(tmp_path)!r})
handlers, environment, hook = logging.root.handlers[:], dict(os.environ), sys.excepthook
signals = [signal.getsignal(number) for number in signal.valid_signals()]
before = atexit._ncallbacks()
for _ in range(2):
    with resweep.init(mode="offline"):
        resweep.log({{"loss": 1}})
assert logging.root.handlers == handlers and dict(os.environ) == environment and sys.excepthook is hook
assert not logging.getLogger("resweep").handlers and logging.getLogger("resweep").level == logging.NOTSET
assert [signal.getsignal(number) for number in signal.valid_signals()] == signals
assert atexit._ncallbacks() - before <= 3, "ours, and those of the standard library's modules"
heavy = {{"optuna", "rq", "pydantic", "click", "rich", "yaml"}}
assert not heavy & {{name.partition(".")[0] for name in sys.modules}}
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def _with_path(script: str) -> str:
    """For an interpreter without site-packages: what `site` itself would import is not counted."""
    folders = {str(Path(str(module.__file__)).parent.parent) for module in (resweep,)}
    return f"import sys\nsys.path += {sorted(folders)!r}\n{script}"


@pytest.mark.parametrize(
    "use",
    [
        "resweep.log({'loss': 1})",
        "resweep.mark_preempting()",
        "resweep.define_metric('loss')",
        "resweep.config.lr",
        "resweep.config['lr']",
        "resweep.config.update({'lr': 1})",
        "resweep.config.lr = 1",
        "resweep.config['lr'] = 1",
        "'lr' in resweep.config",
        "dict(resweep.config)",
        "resweep.summary['loss']",
        "resweep.summary['loss'] = 1",
        "list(resweep.summary)",
    ],
)
def test_before_init_every_use_says_what_to_do(store: Store, use: str) -> None:
    with pytest.raises(
        UsageError, match=r"You must call resweep.init\(\) before resweep\.\w+(\(\))?; no run is active"
    ):
        exec(use, {"resweep": resweep})


def test_before_init_there_is_no_run(store: Store) -> None:
    assert resweep.run is None
    assert not resweep.config
    resweep.finish()


def test_the_functions_of_the_module_work_on_the_active_run(store: Store) -> None:
    run = resweep.init(id="r1", config={"lr": 1})
    assert resweep.run is run
    assert resweep.config is run.config
    assert resweep.summary is run.summary
    resweep.define_metric("loss", summary="min")
    resweep.log({"loss": 1})
    resweep.log({"loss": 2}, step=7, commit=True)
    assert resweep.mark_preempting() is True
    resweep.finish(3)
    assert resweep.run is None
    record = store.run("r1")
    assert (record.summary, record.step, record.exit_code) == ({"loss": 1}, 7, 3)


def test_what_a_run_tells_of_itself(store: Store, tmp_path: Path) -> None:
    run = resweep.init(id="r1", entity="me", project="p", name="n", tags=("a", "b"), notes="x", group="g")
    assert (run.id, run.entity, run.project, run.name) == ("r1", "me", "p", "n")
    assert (run.tags, run.notes, run.group, run.sweep_id, run.dir) == (("a", "b"), "x", "g", None, str(tmp_path))
    assert repr(run) == "<resweep run me/p/r1, attempt 1>"
    run.finish()
    assert resweep.init(id="r2").name == "r2"
