"""What the agent's log looks like."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest
from click.testing import CliRunner

from resweep_agent.cli import main
from resweep_agent.exitcodes import ExitCode
from resweep_agent.logs import JsonFormatter, TextFormatter, event


def record(level: int, name: str, caplog: pytest.LogCaptureFixture, **data: object) -> logging.LogRecord:
    logger = logging.getLogger("resweep_agent.test")
    with caplog.at_level(logging.DEBUG, logger=logger.name):
        event(logger, level, name, **data)
    return caplog.records[-1]


def test_a_line_of_text_has_the_event_and_its_data(caplog: pytest.LogCaptureFixture) -> None:
    made = record(logging.INFO, "run-ended", caplog, run="r1", reason="exit code 3", signal=None, empty="")
    text = TextFormatter().format(made)
    assert text.split(" ", 1)[1] == 'run-ended run=r1 reason="exit code 3" empty=""'


def test_a_warning_says_so(caplog: pytest.LogCaptureFixture) -> None:
    assert " warning: redis-away" in TextFormatter().format(record(logging.WARNING, "redis-away", caplog))


def test_json_has_one_object_a_line(caplog: pytest.LogCaptureFixture) -> None:
    made = record(logging.INFO, "run-ended", caplog, run="r1", attempt=2)
    values = json.loads(JsonFormatter().format(made))
    assert values.pop("time") == pytest.approx(made.created, abs=0.001)
    assert values == {"level": "info", "event": "run-ended", "run": "r1", "attempt": 2}


def test_handlers_that_know_nothing_of_us_show_the_same_words(caplog: pytest.LogCaptureFixture) -> None:
    assert record(logging.INFO, "notice", caplog, source="SIGTERM").getMessage() == "notice source=SIGTERM"


def test_importing_the_agent_configures_nothing() -> None:
    code = (
        "import logging, signal; before = signal.getsignal(signal.SIGTERM); import resweep_agent.assembly;"
        " assert not logging.getLogger().handlers and not logging.getLogger('resweep_agent').handlers;"
        " assert signal.getsignal(signal.SIGTERM) is before"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_help_names_every_exit_code_every_variable_and_examples() -> None:
    text = CliRunner().invoke(main, ["--help"]).output
    for code in ExitCode:
        assert f"{code.value:>2}  {code.meaning}" in text
    for variable in ("RESWEEP_URL", "REDIS_URL", "RESWEEP_AGENT_NAME", "RESWEEP_DIR"):
        assert variable in text
    assert "sweep-agent --gpus-per-run 1" in text


@pytest.mark.parametrize("arguments", [[], ["--count", "0", "s"], ["--slots", "0", "s"], ["--lease", "0.1", "s"]])
def test_wrong_options_are_usage_errors_of_one_line(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == ExitCode.USAGE
    assert result.output.startswith("error: ")
    assert result.output.count("\n") == 1
