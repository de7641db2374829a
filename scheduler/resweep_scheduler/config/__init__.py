"""The sweep YAML: models, validation with positions, the command template."""

from resweep_scheduler.config.command import CommandError, build_command, needs_args_json_file
from resweep_scheduler.config.faults import ConfigError, Fault
from resweep_scheduler.config.loader import load_sweep, parse_sweep
from resweep_scheduler.config.metric import Metric
from resweep_scheduler.config.parameters import Parameter, flatten
from resweep_scheduler.config.schema import json_schema
from resweep_scheduler.config.sections import Checkpoint, Lease, Preemption, Retry, SearchOptions
from resweep_scheduler.config.stopping import Hyperband, Median, OptunaPruner, Percentile, StoppingRule
from resweep_scheduler.config.sweep import SweepConfig

__all__ = [
    "Checkpoint",
    "CommandError",
    "ConfigError",
    "Fault",
    "Hyperband",
    "Lease",
    "Median",
    "Metric",
    "OptunaPruner",
    "Parameter",
    "Percentile",
    "Preemption",
    "Retry",
    "SearchOptions",
    "StoppingRule",
    "SweepConfig",
    "build_command",
    "flatten",
    "json_schema",
    "load_sweep",
    "needs_args_json_file",
    "parse_sweep",
]
