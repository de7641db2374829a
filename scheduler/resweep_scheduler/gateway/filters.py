"""The filters and orders of `wandb.Api().runs(…)`, which have the form of MongoDB's queries."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from resweep_scheduler.gateway.graphql import GatewayError
from resweep_scheduler.store import Run

_NOTHING = object()
LONGEST_PATTERN = 200
LONGEST_TEXT = 256
"""Characters of a text that a pattern sees."""
MOST_WAYS = 8 * LONGEST_TEXT**2
"""Ways in which a pattern may be tried from one place of a text: with two ``.*`` and a few alternatives."""


def _has(found: Any, wanted: Any) -> bool:
    return bool(wanted in found) if isinstance(found, tuple) else bool(found == wanted)


def _compared(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def holds(found: Any, wanted: Any) -> bool:
        try:
            return found is not _NOTHING and compare(found, wanted)
        except TypeError:
            return False

    return holds


def _matches(found: Any, wanted: Any) -> bool:
    return isinstance(found, str) and _pattern(wanted).search(found[:LONGEST_TEXT]) is not None


_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "$eq": _has,
    "$ne": lambda found, wanted: not _has(found, wanted),
    "$in": lambda found, wanted: any(_has(found, each) for each in wanted),
    "$nin": lambda found, wanted: not any(_has(found, each) for each in wanted),
    "$gt": _compared(lambda found, wanted: found > wanted),
    "$gte": _compared(lambda found, wanted: found >= wanted),
    "$lt": _compared(lambda found, wanted: found < wanted),
    "$lte": _compared(lambda found, wanted: found <= wanted),
    "$exists": lambda found, wanted: (found is not _NOTHING) == bool(wanted),
    "$regex": _matches,
}

_FIELDS: dict[str, Callable[[Run], Any]] = {
    "name": lambda run: run.run_id,
    "display_name": lambda run: run.name or run.run_id,
    "displayName": lambda run: run.name or run.run_id,
    "sweep": lambda run: run.sweep_id,
    "state": lambda run: run.state.value,
    "group": lambda run: run.group,
    "tags": lambda run: run.tags,
    "notes": lambda run: run.notes,
    "created_at": lambda run: run.created_at,
    "createdAt": lambda run: run.created_at,
    "heartbeat_at": lambda run: run.ended_at or run.started_at or run.created_at,
}


def choose(runs: Iterable[Run], query: Mapping[str, Any]) -> list[Run]:
    """The runs that fit a query.

    Raises:
        GatewayError: The query has something that is not known here, or not the form of one.
    """
    try:
        return [run for run in runs if _fits(run, query)]
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        raise GatewayError(f"the filters are not what MongoDB's queries look like: {error}") from None


def sort(runs: Sequence[Run], order: str) -> list[Run]:
    """Runs in an order such as ``-created_at`` or ``+summary_metrics.loss``; those without the value come last."""
    name = order.lstrip("+-")
    values = {run.run_id: _value(run, name) for run in runs}
    known = [run for run in runs if isinstance(values[run.run_id], int | float | str)]
    texts = any(isinstance(values[run.run_id], str) for run in known)
    known.sort(key=lambda run: str(values[run.run_id]) if texts else values[run.run_id], reverse=order.startswith("-"))
    there = {run.run_id for run in known}
    return known + [run for run in runs if run.run_id not in there]


def _fits(run: Run, query: Mapping[str, Any]) -> bool:
    return all(_holds(run, name, wanted) for name, wanted in query.items())


def _holds(run: Run, name: str, wanted: Any) -> bool:
    if name == "$and":
        return all(_fits(run, part) for part in wanted)
    if name == "$or":
        return any(_fits(run, part) for part in wanted)
    if name == "$not":
        return not _fits(run, wanted)
    if name.startswith("$"):
        raise _unknown(name)
    found = _value(run, name)
    if not (isinstance(wanted, Mapping) and any(key.startswith("$") for key in wanted)):
        return _has(found, wanted)
    for operator in wanted:
        if operator not in _OPERATORS:
            raise _unknown(operator)
    return all(_OPERATORS[operator](found, operand) for operator, operand in wanted.items())


def _value(run: Run, name: str) -> Any:
    if name in _FIELDS:
        return _FIELDS[name](run)
    place, _, path = name.partition(".")
    sources: dict[str, Mapping[str, Any]] = {
        "config": run.config, "summary_metrics": run.summary, "summaryMetrics": run.summary, "summary": run.summary,
    }  # fmt: skip
    if place not in sources:
        raise _unknown(name)
    if place == "config":
        path = re.sub(r"\.value\b", "", path, count=1)
    if path in sources[place]:
        return sources[place][path]
    value: Any = sources[place]
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return _NOTHING
        value = value[part]
    return value


@lru_cache(maxsize=64)
def _pattern(text: str) -> re.Pattern[str]:
    """A pattern that is matched quickly whatever the text: a slow match would hold up the whole process.

    Raises:
        GatewayError: It is none, or might be slow.
        TypeError: It is not a text.
    """
    parser: Any = importlib.import_module("re._parser")  # Python's own, of which the types say nothing
    try:
        if len(text) > LONGEST_PATTERN or _ways(parser.parse(text)) > MOST_WAYS:
            raise GatewayError(
                f"a regular expression has at most {LONGEST_PATTERN} characters and two repeats without bound, none in"
                f" another, and no back-references, got {text[:LONGEST_PATTERN]!r}; simplify it"
            )
        return re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise GatewayError(f"{text!r} is not a regular expression: {error}") from None


def _ways(parsed: Any) -> int:
    """In how many ways a pattern may be tried from one place, at most; more than are allowed where nobody can tell."""
    ways = 1
    for operator, argument in parsed:
        match str(operator):
            case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
                least, most, part = argument
                if least > LONGEST_TEXT or (most > 1 and _repeats(part)):
                    return MOST_WAYS + 1
                most = min(most, LONGEST_TEXT)
                ways *= (most - least + 1) * _ways(part) ** most
            case "BRANCH":
                ways *= sum(_ways(part) for part in argument[1])
            case "SUBPATTERN":
                ways *= _ways(argument[-1])
            case "ATOMIC_GROUP":
                ways *= _ways(argument)
            case "ASSERT" | "ASSERT_NOT":
                ways *= _ways(argument[1])
            case "LITERAL" | "NOT_LITERAL" | "IN" | "ANY" | "AT":
                pass
            case _:  # back-references, and what later versions of Python know
                return MOST_WAYS + 1
    return ways


def _repeats(parsed: Any) -> bool:
    """Whether something in a pattern is repeated."""
    return "REPEAT" in str(list(parsed))


def _unknown(name: str) -> GatewayError:
    return GatewayError(
        f"runs cannot be chosen or ordered by {name!r} here; known are {', '.join(sorted(_FIELDS))}, config.…,"
        f" summary_metrics.…, $and, $or, $not, {', '.join(sorted(_OPERATORS))}"
    )
