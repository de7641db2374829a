"""The command line of a run, made from the template and the run's parameters. An argv list; no shell is involved."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from resweep_scheduler.config.sweep import SweepConfig
from resweep_scheduler.config.template import ENVIRONMENT_PREFIX, LIST_MACROS, MACROS, TOKEN, is_whole, names_of, tokens

_WINDOWS = os.name == "nt"


class CommandError(Exception):
    """The command of a run cannot be built on this machine; the message says why and what to do."""


def needs_args_json_file(config: SweepConfig) -> bool:
    """Whether the command contains ``${args_json_file}``, so that `build_command` needs a path for it."""
    return any("args_json_file" in tokens(element) for element in config.command)


def build_command(
    config: SweepConfig,
    params: Mapping[str, object],
    *,
    environ: Mapping[str, str],
    args_json_file: Path | None,
    interpreter: str | None = None,
) -> list[str]:
    """Expand the command template for one run.

    Values are written as W&B writes them (``--k=True``, ``--k=None``), but lists and mappings as JSON. A group of
    nested parameters is one argument under the name of the group, as W&B passes it: ``--model={"depth": 2}``.
    ``${name}`` of a parameter expands anywhere in an element, ``${group.name}`` to one value inside a group, and
    ``$${name}`` to the text ``${name}``. An element with a parameter of a choice that the run did not take is left out.

    Args:
        config: The sweep.
        params: The run's parameters, nested as in the config.
        environ: The environment that the run will have; for ``${envvar:X}`` and to find the interpreter.
        args_json_file: Where ``${args_json_file}`` is written; may be None if the command does not use it.
        interpreter: What ``${interpreter}`` becomes. Default: ``python`` if it is on the PATH, else the one that
            runs now.

    Raises:
        CommandError: An environment variable is not set, a parameter is missing, or there is no program.
        OSError: The JSON file cannot be written.
    """
    expansion = _Expansion(config, params, environ, args_json_file, interpreter)
    argv = [argument for element in config.command for argument in expansion.element(element)]
    if needs_args_json_file(config):
        expansion.json_path().write_text(_json(dict(params)) + "\n", encoding="utf-8")
    return argv


class _Expansion:
    """The values of all macros for one run."""

    def __init__(
        self,
        config: SweepConfig,
        params: Mapping[str, object],
        environ: Mapping[str, str],
        json_file: Path | None,
        interpreter: str | None,
    ) -> None:
        self._config = config
        self._params = params
        self._environ = environ
        self._json_file = json_file
        self._interpreter = interpreter
        self._names = names_of(config.parameters)

    def element(self, element: str) -> list[str]:
        """One element of the template: no, one or several arguments."""
        if any(self._is_absent(name) for name in tokens(element)):
            return []
        if is_whole(element):
            name = next(tokens(element))
            if name in LIST_MACROS:
                return self._arguments(name)
            if name == "env" and _WINDOWS:
                return []
        return [TOKEN.sub(self._replace, element)]

    def _is_absent(self, name: str) -> bool:
        """Whether a name is that of a parameter which runs may lack, and this one lacks it."""
        if name in MACROS or name.startswith(ENVIRONMENT_PREFIX):
            return False
        return not self._names.get(name, not self._config.open_names) and look_up(self._params, name) is None

    def json_path(self) -> Path:
        if self._json_file is None:
            raise CommandError("${args_json_file} needs a path (got nothing). Pass args_json_file.")
        return self._json_file

    def _replace(self, match: re.Match[str]) -> str:
        return match.group(0).removeprefix("$") if match["escaped"] else self._text(match["name"])

    def _arguments(self, macro: str) -> list[str]:
        pairs = [(name, value, _text_of(value)) for name, value in self._params.items()]
        match macro:
            case "args_no_equals":
                return [word for name, _, text in pairs for word in (f"--{name}", text)]
            case "args_no_boolean_flags":
                shown = [pair for pair in pairs if pair[1] is not False]
                return [f"--{name}" if value is True else f"--{name}={text}" for name, value, text in shown]
        prefix = {"args": "--", "args_no_hyphens": "", "args_append_hydra": "+", "args_override_hydra": "++"}[macro]
        return [f"{prefix}{name}={text}" for name, _, text in pairs]

    def _text(self, name: str) -> str:
        if name.startswith(ENVIRONMENT_PREFIX):
            return self._environment_variable(name.removeprefix(ENVIRONMENT_PREFIX))
        macros: dict[str, Callable[[], str]] = {
            "env": lambda: "" if _WINDOWS else "/usr/bin/env",
            "interpreter": lambda: self._interpreter or self._find_interpreter(),
            "program": self._program,
            "args_json": lambda: _json(dict(self._params)),
            "args_json_file": lambda: str(self.json_path()),
        }
        return macros[name]() if name in macros else _text_of(self._parameter(name))

    def _program(self) -> str:
        if self._config.program is None:
            raise CommandError("${program} needs the key program (got nothing). Add program: to the sweep's config.")
        return self._config.program

    def _find_interpreter(self) -> str:
        found = shutil.which("python", path=self._environ.get("PATH", os.defpath))
        return "python" if found else sys.executable

    def _environment_variable(self, name: str) -> str:
        try:
            return self._environ[name]
        except KeyError:
            rule = f"${{{ENVIRONMENT_PREFIX}{name}}} in command needs the environment variable {name} (got nothing)"
            raise CommandError(f"{rule}. Set {name} where the agent runs.") from None

    def _parameter(self, name: str) -> object:
        found = look_up(self._params, name)
        if found is None:
            known = ", ".join(self._params) or "no parameters"
            raise CommandError(f"${{{name}}} in command must be a parameter of the run (got {known}). Rename it.")
        return found[0]


def look_up(params: Mapping[str, object], name: str) -> tuple[object] | None:
    """Find a possibly dotted name in the parameters of a run; names of parameters may contain dots themselves.

    Returns:
        The value alone in a tuple, because None is one; None if there is none.
    """
    if name in params:
        return (params[name],)
    for group, inner in params.items():
        if name.startswith(f"{group}.") and isinstance(inner, Mapping):
            found = look_up(inner, name.removeprefix(f"{group}."))
            if found is not None:
                return found
    return None


def _text_of(value: object) -> str:
    return _json(value) if isinstance(value, Mapping | list | tuple) else str(value)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
