"""Which functions a Python file defines, found without executing it."""

from __future__ import annotations

import ast
from pathlib import Path

from resweep_scheduler.config.faults import ConfigError, Fault, suggest
from resweep_scheduler.config.sections import Source


def functions_in(path: Path) -> tuple[str, ...]:
    """The names of the functions that a file defines at its top level, in their order.

    What it imports is not among them: a name that is stored with a sweep chooses among the user's own functions, and
    can call nothing else.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not Python of this version; the message says where.
    """
    try:
        tree = ast.parse(path.read_bytes(), filename=str(path))
    except SyntaxError as error:
        raise ValueError(f"line {error.lineno}: {error.msg}") from None
    return tuple(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


def source_faults(source: Source, path: Path) -> list[Fault]:
    """What of a sweep's functions is not in a file."""
    try:
        names = functions_in(path)
    except (OSError, ValueError) as error:
        what = (error.strerror or type(error).__name__) if isinstance(error, OSError) else str(error)
        return [Fault("scheduler.source", None, None, f"{path} must be a Python file", what, "Correct it.")]
    return [
        Fault(
            f"scheduler.{key}",
            None,
            None,
            f"must be a function that {path} defines at its top level",
            name,
            suggest(name, names, f"Add for instance: def {name}({_ARGUMENTS[key]}): …"),
        )
        for key, name in source.functions.items()
        if name not in names
    ]


_ARGUMENTS = {"optimizer": "sweep", "search_space": "trial"}


def check_source(source: Source, config_name: str) -> str | None:
    """Check that the file has the functions, if it lies here, from where the sweep is created.

    Args:
        source: Of the sweep.
        config_name: What messages call the config.

    Returns:
        A warning when the file is not here; else None.

    Raises:
        ConfigError: A function is missing, or the file is not Python.
    """
    path = Path(source.source)
    if not path.is_file():
        names = " and ".join(source.functions.values())
        return f"{source.source} is not in {Path.cwd()}: whether it has {names} is not known"
    if faults := source_faults(source, path):
        raise ConfigError(faults, config_name)
    return None
