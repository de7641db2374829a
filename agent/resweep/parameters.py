"""The sweep's parameters as the agent wrote them to WANDB_SWEEP_PARAM_PATH, for modes that do not ask the store.

The agent writes one line for each parameter, ``"name": {value: …}``, in the part of YAML that is JSON but for NaN and
infinities; so no YAML parser is loaded into the training process.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from resweep.errors import UsageError

_LINE = re.compile(r'("(?:[^"\\]|\\.)*"): \{value: (.*)\}')
_NOT_FINITE = re.compile(r'"(?:[^"\\]|\\.)*"|-?\.(?:nan|inf)')
_JSON_NAMES = {".nan": "NaN", ".inf": "Infinity", "-.inf": "-Infinity"}


def read_parameters(path: str | None) -> dict[str, Any]:
    """The parameters in the file at `path`; none without a path.

    Raises:
        UsageError: The file cannot be read.
    """
    if not path:
        return {}
    parameters: dict[str, Any] = {}
    try:
        for line in Path(path).read_text(encoding="utf-8").splitlines():
            match = _LINE.fullmatch(line)
            if match is not None:
                value = _NOT_FINITE.sub(lambda found: _JSON_NAMES.get(found[0], found[0]), match[2])
                parameters[json.loads(match[1])] = json.loads(value)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"the sweep's parameters are in WANDB_SWEEP_PARAM_PATH, and {path} cannot be read: {error}; "
            "leave the variable and the file as the agent made them"
        ) from error
    return parameters
