"""What the README and the guides say is true: commands run, configs are valid, links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from resweep_scheduler.cli.exitcodes import ExitCode
from resweep_scheduler.cli.main import SECTIONS
from resweep_scheduler.config import load_sweep
from resweep_scheduler.service.server import stop_server

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RESWEEP = [sys.executable, "-c", "from resweep_scheduler.cli.main import main; main()"]


def marked_command(name: str) -> str:
    """The command in the fence after `<!-- name -->`."""
    found = re.search(rf"<!-- {name} -->\n```bash\n(.+)\n```", README)
    assert found is not None, f"README.md has no fence after <!-- {name} -->"
    return found[1]


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """Every fence of a language in all pages, with the name of its page."""
    for page in PAGES:
        for found in FENCE.finditer(page.read_text(encoding="utf-8")):
            if found[1] == language:
                yield page.name, found[2]


@pytest.fixture
def embedded_server() -> Iterator[None]:
    """The embedded server may be started by the test, and is gone after it."""
    yield
    stop_server()


def test_the_yaml_on_the_first_screen_is_the_quickstart() -> None:
    shown = next(FENCE.finditer(README))
    assert shown[1] == "yaml"
    assert shown[2] == (ROOT / "configs" / "quickstart.yaml").read_text(encoding="utf-8")
    assert shown[2].count("\n") == 12


@pytest.mark.usefixtures("embedded_server")
def test_the_quickstart_command_runs_to_the_best_run(tmp_path: Path) -> None:
    """Its last part, with the resweep that is tested in place of the one that it installs."""
    *setup, start = marked_command("quickstart-command").split(" && ")
    assert setup == ["python3 -m venv .venv", '.venv/bin/pip install -q ".[quickstart]"']
    program, *words = start.split()
    assert program == ".venv/bin/resweep"
    done = subprocess.run(
        [*RESWEEP, *words, "--dir", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 finished" in done.stdout
    best = re.search(r"^best run +\w{8}  accuracy (0\.\d+)$", done.stdout, re.MULTILINE)
    assert best is not None
    assert float(best[1]) > 0.9


def test_the_test_command_installs_and_tests() -> None:
    command = marked_command("test-command")
    assert command == 'python3 -m venv .venv && .venv/bin/pip install -q ".[test]" && .venv/bin/pytest'


def test_every_config_in_the_guides_is_valid() -> None:
    checked = 0
    for page, text in blocks("yaml"):
        if "method:" in text:
            load_sweep(page, text=text)
            checked += 1
    assert checked >= 3


def test_every_python_example_compiles() -> None:
    examples = list(blocks("python"))
    assert len(examples) >= 2
    for page, text in examples:
        compile(text, page, "exec")


def test_the_preemption_example_has_at_most_20_lines() -> None:
    section = README.partition("## Preemption in 20 lines")[2]
    example = FENCE.search(section)
    assert example is not None
    assert example[2].count("\n") <= 20


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        linked = (page.parent / file) if file else page
        assert linked.is_file(), target
        if anchor:
            assert anchor in headings(linked), target


def headings(page: Path) -> set[str]:
    """The anchors that a page's headings have on the usual code hosts."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_command_is_documented() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    for commands in SECTIONS.values():
        for name in commands:
            assert f"`{name}`" in text or f"resweep {name}" in text, name


def test_the_exit_codes_of_the_guide_are_those_of_the_command() -> None:
    guide = (ROOT / "docs" / "agents.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (\w+) \| (.+) \|$", guide, re.MULTILINE)
    assert rows == [(str(int(code)), code.name, code.meaning) for code in ExitCode]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"`((?:tests|configs|docs|benchmarks)/[\w./*-]+)`", text):
        assert list(ROOT.glob(name)), name


def test_variables_that_are_named_are_read_somewhere() -> None:
    sources = [path for folder in ("agent", "scheduler") for path in (ROOT / folder).rglob("*.py")]
    code = "".join(path.read_text(encoding="utf-8") for path in sources)
    for page in PAGES:
        for name in re.findall(r"\b(?:RESWEEP|WANDB)_[A-Z_]+\b", page.read_text(encoding="utf-8")):
            assert name in code, f"{name} in {page.name}"
