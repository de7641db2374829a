"""Read a sweep config from a file, a text or a dict, and find everything that is wrong with it in one go."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path as FilePath

from resweep_scheduler.config.faults import MISSING, ConfigError, Fault, FaultLog
from resweep_scheduler.config.plain import plain_mapping
from resweep_scheduler.config.rules import check_together
from resweep_scheduler.config.sweep import SweepConfig
from resweep_scheduler.config.toplevel import Draft, read_top_level
from resweep_scheduler.config.yaml_text import read_yaml

_SEEDS = 2**32


def load_sweep(source: str | FilePath, *, text: str | None = None, require_program: bool = True) -> SweepConfig:
    """Read a sweep YAML.

    Args:
        source: The file, which is also what messages name.
        text: The YAML itself if it has been read already; then `source` is a name only.
        require_program: Refuse a config that names nothing to run. Sweeps whose runs are Python functions need none.

    Raises:
        ConfigError: The file cannot be read, or the config cannot work; with all faults and their positions.
    """
    name = str(source)
    if text is None:
        text = _read_file(FilePath(source), name)
    log = FaultLog()
    raw = read_yaml(text.removeprefix("\ufeff"), log)
    return _finish(raw, name, log, require_program=require_program)


def parse_sweep(config: Mapping[str, object], *, require_program: bool = False) -> SweepConfig:
    """Read a sweep config that is a Python dict, as `wandb.sweep` takes it.

    Args:
        config: The dict; it is not changed.
        require_program: Refuse a config that names nothing to run. Off by default, because a dict mostly comes from
            a script whose runs are Python functions.

    Raises:
        ConfigError: The config cannot work; with all faults, without positions.
    """
    return _finish(config, "sweep config", FaultLog(), require_program=require_program)


def _read_file(path: FilePath, name: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        rule, value = "the sweep file must be readable", error.strerror or type(error).__name__
        cure = "Check the name and the directory from which you call." if not path.exists() else "Check its rights."
    except UnicodeDecodeError as error:
        rule, value, cure = "the sweep file must be UTF-8 text", f"byte {error.start}", "Save it as UTF-8."
    raise ConfigError([Fault("", None, None, rule, value, cure)], name)


def _finish(raw: object, source: str, log: FaultLog, *, require_program: bool) -> SweepConfig:
    if raw is MISSING:
        raise ConfigError(log.sorted(), source)
    if not isinstance(raw, Mapping):
        log.spoil((), "a sweep config must be a mapping", raw, "Write keys and values, for instance method: random.")
        raise ConfigError(log.sorted(), source)
    draft = read_top_level(plain_mapping(raw, (), log), log)
    check_together(draft, log, require_program=require_program)
    if faults := log.sorted():
        raise ConfigError(faults, source)
    return _build(draft)


def _build(draft: Draft) -> SweepConfig:
    values: dict[str, object] = {
        name: value for name, value in vars(draft).items() if value is not None and name in SweepConfig.model_fields
    }
    values.setdefault("seed", secrets.randbelow(_SEEDS))
    values["warnings"] = tuple(draft.warnings)
    return SweepConfig.model_validate(values)
