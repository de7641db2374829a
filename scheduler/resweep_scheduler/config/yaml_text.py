"""YAML text to plain data, with the position of every key and value.

PyYAML's nodes know where they stand, so the text is composed first and constructed afterwards. Differences from
`yaml.safe_load`: numbers such as ``1e-4`` are floats (YAML 1.2), dates stay text (they have no JSON form), a key that
stands twice is a fault.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import yaml

from resweep_scheduler.config.faults import MISSING, FaultLog, Marks, Path, Position, key_text

_MAX_NODES: Final = 200_000
_FLOAT: Final = re.compile(
    r"""^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?
         |[-+]?\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?
         |[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+
         |[-+]?\.(?:inf|Inf|INF)
         |\.(?:nan|NaN|NAN))$""",
    re.VERBOSE,
)
_FLOAT_TAG: Final = "tag:yaml.org,2002:float"
_DATE_TAG: Final = "tag:yaml.org,2002:timestamp"
_MERGE_TAG: Final = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """A SafeLoader whose plain scalars follow YAML 1.2 where it matters for numbers."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own protocol
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in (_FLOAT_TAG, _DATE_TAG)]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(_FLOAT_TAG, _FLOAT, list("-+0123456789."))


@dataclass(frozen=True)
class _Doubled:
    """A key that stands in its mapping already: where it stands again, how it was written first and in which line."""

    path: Path
    position: Position
    first: str
    first_line: int

    def report(self, log: FaultLog) -> None:
        name = str(self.path[-1])
        if name == self.first:
            where, cure = f"it already stands in line {self.first_line}", "Remove one of the two."
        else:
            where = f"it is the same as {self.first} in line {self.first_line}"
            cure = "Remove one of the two; choices can be a list: [{value: 1}, {value: true}]."
        log.marks = {**log.marks, self.path: Marks(self.position, self.position)}
        log.spoil(self.path, f"a key may stand only once; {where}", name, cure)


@dataclass
class _Walk:
    """One pass over the nodes: notes positions, finds doubled keys, bounds the work (anchors can blow up)."""

    construct: Callable[[yaml.Node], object]
    """What becomes of a node; keys are the same if Python takes them for the same (1, 1.0 and true)."""
    marks: dict[Path, Marks] = field(default_factory=dict)
    doubled: list[_Doubled] = field(default_factory=list)
    nodes: int = 0

    def visit(self, node: yaml.Node, path: Path, key: Position, above: frozenset[int] = frozenset()) -> None:
        self.nodes += 1
        if self.nodes > _MAX_NODES or id(node) in above:
            raise _TooLargeError(_position(node.start_mark))
        self.marks[path] = Marks(key, _position(node.start_mark))
        above = above | {id(node)}
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self.visit(item, (*path, index), _position(item.start_mark), above)
        elif isinstance(node, yaml.MappingNode):
            self._visit_mapping(node, path, above)

    def _visit_mapping(self, node: yaml.MappingNode, path: Path, above: frozenset[int]) -> None:
        first: dict[object, tuple[str, int]] = {}
        for key_node, value_node in node.value:
            key_position = _position(key_node.start_mark)
            if key_node.tag == _MERGE_TAG:
                self._visit_merged(value_node, path, above)
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                continue
            key = self.construct(key_node)
            name = key_text(key)
            self.visit(value_node, (*path, name), key_position, above)
            if key in first:
                self.doubled.append(_Doubled((*path, name), key_position, *first[key]))
            first.setdefault(key, (name, key_position[0]))

    def _visit_merged(self, node: yaml.Node, path: Path, above: frozenset[int]) -> None:
        for merged in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if isinstance(merged, yaml.MappingNode):
                for key_node, value_node in merged.value:
                    if isinstance(key_node, yaml.ScalarNode) and key_node.tag != _MERGE_TAG:
                        name = key_text(self.construct(key_node))
                        self.visit(value_node, (*path, name), _position(key_node.start_mark), above)


class _TooLargeError(Exception):
    def __init__(self, position: Position) -> None:
        super().__init__(position)
        self.position = position


def _position(mark: yaml.Mark) -> Position:
    return mark.line + 1, mark.column + 1


def read_yaml(text: str, log: FaultLog) -> object:
    """Turn YAML text into plain data, and give `log` the positions.

    Returns:
        The data, or `MISSING` if the text is not one YAML document (then `log` says why).
    """
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            log.spoil((), "a sweep config must not be empty", MISSING, "Write at least method, parameters and program.")
            return MISSING
        walk = _Walk(loader.construct_object)
        walk.visit(node, (), (1, 1))
        log.marks = walk.marks
        for doubled in walk.doubled:
            doubled.report(log)
        return loader.construct_document(node)
    except (yaml.YAMLError, _TooLargeError, RecursionError, ValueError) as error:
        _report(error, log)
        return MISSING
    finally:
        if loader is not None:
            loader.dispose()


def _report(error: Exception, log: FaultLog) -> None:
    rule, value, position = "the text must be YAML", str(error).splitlines()[0], (1, 1)
    cure = "Check the indentation, the colons and the quotes there."
    if isinstance(error, yaml.MarkedYAMLError):
        value = " ".join(str(error.problem or error.context).split())
        if (mark := error.problem_mark or error.context_mark) is not None:
            position = _position(mark)
        if isinstance(error, yaml.constructor.ConstructorError) and "tag" in value:
            rule, cure = "only plain YAML values are allowed", "Remove the tag (the word that starts with '!')."
        elif "single document" in value or "another document" in value:
            rule, cure = "a sweep config must be one YAML document", "Remove the line '---' and what follows."
    elif isinstance(error, _TooLargeError | RecursionError):
        rule, value = "anchors must not repeat themselves or unfold to more than 200,000 values", "too many values"
        cure = "Write the values out, or take a distribution instead of a list."
        position = error.position if isinstance(error, _TooLargeError) else position
    elif isinstance(error, yaml.reader.ReaderError):
        rule, value = "the text must be printable Unicode", f"character #x{error.character:04x}"
        cure = "Save the file as UTF-8 text."
    log.marks = {(): Marks(position, position)}
    log.spoil((), rule, value, cure)
