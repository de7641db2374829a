"""The Python files of users whose functions direct a search: which may be executed here, and how they are called.

A file is executed only because whoever started this process named it (``--source FILE``). A sweep in Redis names a
file, too, but that name is compared and nothing else: it cannot make anybody execute another file. Of the file's
functions only those that it defines itself can be called.
"""

from __future__ import annotations

import importlib.util
import inspect
import itertools
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Final, TypeVar

from resweep_scheduler.config.functions import source_faults
from resweep_scheduler.config.sections import Source
from resweep_scheduler.search.base import SearchError

Answer = TypeVar("Answer")

_numbers: Final = itertools.count()


class Sources:
    """The files that this process may execute.

    Args:
        files: As they were named on the command line; each serves the sweeps whose `source` has its name.

    Raises:
        ValueError: Two files have the same name, or one cannot be a module.
    """

    def __init__(self, files: Iterable[Path] = ()) -> None:
        self._files: dict[str, Path] = {}
        for file in files:
            path = file.absolute()
            if path.suffix != ".py":
                raise ValueError(f"a source must be a Python file, which ends in .py (got {file}). Rename it.")
            if self._files.setdefault(path.name, path) != path:
                other = self._files[path.name]
                raise ValueError(
                    f"two sources must not have the same name (got {other} and {path}): sweeps know them by it. "
                    "Rename one, here and in its sweep."
                )

    def find(self, source: Source) -> Path | None:
        """The file for a sweep; None if none was given."""
        return self._files.get(source.file)


NO_SOURCES: Final = Sources()


class SourceFunctions:
    """The functions of one sweep, loaded from its file.

    Attributes:
        optimizer, search_space: The functions; None where the sweep names none.

    Args:
        source: Of the sweep.
        sources: The files that may be executed.

    Raises:
        SearchError: The file was not given, cannot be executed, or lacks a function.
    """

    def __init__(self, source: Source, sources: Sources) -> None:
        path = sources.find(source)
        if path is None:
            raise SearchError(
                f"the search of this sweep is in {source.source}, which is executed only where its user names it "
                f"(got no such file). Start `resweep scheduler {source.option}`."
            )
        self.path = path
        if faults := source_faults(source, path):
            raise SearchError("; ".join(str(fault) for fault in faults))
        module = self._load()
        self.optimizer = self._function(module, source.optimizer, "sweep")
        self.search_space = self._function(module, source.search_space, "trial")

    def call(self, what: str, function: Callable[..., Answer], *arguments: object) -> Answer:
        """Call a function of the user.

        Raises:
            SearchError: It raised an exception, which the message names with its place.
        """
        with self._telling(what):
            return function(*arguments)

    def wrong(self, what: str, must: str, got: object, cure: str) -> SearchError:
        """The error for an answer that cannot be used."""
        return SearchError(f"{what} in {self.path.name} {must} (got {got}). {cure}")

    def _load(self) -> ModuleType:
        # The module has a name of its own, so that it takes the place of nobody's `study` or `train`.
        name = f"resweep_source_{next(_numbers)}_{self.path.stem}"
        spec = importlib.util.spec_from_file_location(name, self.path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses and pickle look it up
        with self._telling("the file itself"):
            spec.loader.exec_module(module)
        return module

    def _function(self, module: ModuleType, name: str | None, argument: str) -> Callable[..., Any] | None:
        if name is None:
            return None
        function: object = getattr(module, name, None)
        try:
            if not callable(function):
                raise TypeError("not a function")
            inspect.signature(function).bind(object())
        except (TypeError, ValueError) as error:
            must, cure = f"must take one argument, the {argument}", f"Write def {name}({argument}): …"
            raise self.wrong(repr(name), must, error, cure) from None
        return function

    @contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        try:
            yield
        except SearchError:
            raise
        except (Exception, SystemExit) as error:
            place = self._place(error)
            raise SearchError(
                f"{what} in {self.path.name} must not fail (got {type(error).__name__}: {error}, {place}). "
                f"Correct {self.path}, and start this again."
            ) from error

    def _place(self, error: BaseException) -> str:
        """File and line of an exception: the last place in the user's file, or where it was raised if it never was."""
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if frame.filename == str(self.path)]
        frame = (own or list(frames))[-1]
        return f"{frame.filename}, line {frame.lineno}"
