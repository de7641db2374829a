"""What the agent's log looks like."""

from __future__ import annotations

import json
import logging
import select
import subprocess
import sys

import pytest
from click.testing import CliRunner

from resweep_agent.cli import main
from resweep_agent.exitcodes import ExitCode
from resweep_agent.logs import LAST_LINES, JsonFormatter, TextFormatter, event


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


UNREAD = """
import logging, os, sys
from resweep_agent.logs import configure, event
log = configure(level=logging.INFO, log_format="text")
for number in range(20_000):
    event(logging.getLogger("resweep_agent.test"), logging.INFO, "run-ended", number=number)
log.say("error: the end")
print("went on", flush=True)
sys.stdin.read()
log.close()
"""


@pytest.mark.parametrize("read", [False, True], ids=["never read again", "read at the end"])
def test_a_reader_who_stops_reading_holds_up_the_log_alone(read: bool) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", UNREAD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            assert select.select([process.stdout], [], [], 30)[0], "the log holds up the process"
            process.stdin.close()
            lines = process.stderr.read().splitlines() if read else []
            assert process.wait(LAST_LINES + 10) == 0
        finally:
            process.kill()
    if read:
        assert lines[-1] == "error: the end"
        lost = [int(line.rpartition("=")[2]) for line in lines if " warning: log-lines-lost number=" in line]
        assert lost
        assert sum(lost) + len(lines) - len(lost) == 20_001, "a line is shown, or counted"


@pytest.mark.parametrize("closed", ["import os; os.close(2)", "import sys; sys.stderr = None"])
def test_an_agent_without_standard_error_has_no_log(closed: str) -> None:
    code = f"{closed}; import logging; from resweep_agent.logs import configure\n"
    code += "log = configure(level=0, log_format='json'); log.say('a'); log.say('b'); log.close(); print('went on')"
    assert subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE).stdout == b"went on\n"
