"""The config of a run, as a dictionary whose names are attributes too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

from resweep.errors import UsageError
from resweep.values import Complain, plain


class Config(dict[str, Any]):
    """The run's config: ``config["lr"]``, ``config.lr``, ``config.optimizer.lr``, ``config.update({…})``.

    What the sweep chose is locked: an update of it is ignored, with one warning per name. Nothing can be removed.
    Copies (by ``copy``, ``pickle``, ``as_dict``) are plain dictionaries.
    """

    __slots__ = ("_complain", "_locked", "_on_change", "_path", "_warn")

    def __init__(
        self,
        items: Mapping[str, Any] | None = None,
        *,
        locked: Iterable[str] = (),
        warn: Callable[[str], None],
        complain: Complain,
    ) -> None:
        super().__init__()
        self._locked = frozenset(locked)
        self._warn = warn
        self._complain = complain
        self._on_change: Callable[[str], None] | None = None
        self._path = ""
        for name, value in (items or {}).items():
            self._put(name, value)

    def listen(self, on_change: Callable[[str], None]) -> None:
        """Have `on_change` called with the top-level name of each change."""
        self._on_change = on_change
        for name, value in self.items():
            if isinstance(value, Config):
                value._adopt(self, name)

    def _adopt(self, parent: Config, path: str) -> None:
        """Become the part of `parent` that is called `path`, with its lock."""
        self._path = path
        self._locked, self._warn, self._on_change = parent._locked, parent._warn, parent._on_change
        for value in self.values():
            if isinstance(value, Config):
                value._adopt(parent, path)

    def _put(self, name: str, value: Any) -> None:
        if not isinstance(name, str):
            name = str(name)
        clean = plain(value, name, self._complain)
        if isinstance(clean, dict):
            section = Config(clean, locked=self._locked, warn=self._warn, complain=self._complain)
            section._adopt(self, self._path or name)
            clean = section
        super().__setitem__(name, clean)

    def __setitem__(self, name: str, value: Any) -> None:
        top = self._path or str(name)
        if top in self._locked:
            self._warn(f"Config item {top!r} was locked by 'sweep' (ignored update).")
            return
        self._put(name, value)
        if self._on_change is not None:
            self._on_change(top)

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            known = ", ".join(self) or "none"
            raise AttributeError(f"the config has no item {name!r}; it has: {known}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        if name in Config.__slots__:
            object.__setattr__(self, name, value)
        else:
            self[name] = value

    def update(self, *items: Any, **named: Any) -> None:
        """Set several items, from a mapping, pairs or a namespace such as argparse's.

        W&B's `allow_val_change` is accepted and changes nothing.
        """
        named.pop("allow_val_change", None)
        for group in items:
            for name, value in config_items(group).items():
                self[name] = value
        for name, value in named.items():
            self[name] = value

    def setdefault(self, name: str, default: Any = None) -> Any:
        if name not in self:
            self[name] = default
        return self[name]

    def setdefaults(self, items: Any) -> None:
        """Set those items that the config lacks."""
        for name, value in config_items(items).items():
            self.setdefault(name, value)

    def as_dict(self) -> dict[str, Any]:
        """A plain copy, at every level."""
        return {name: value.as_dict() if isinstance(value, Config) else value for name, value in self.items()}

    def __ior__(self, other: Any) -> Config:  # type: ignore[override,misc]
        self.update(other)
        return self

    def __delitem__(self, name: str) -> NoReturn:
        raise UsageError(f"config items cannot be removed, and {name!r} is one; set it to None instead")

    def pop(self, name: str, *default: Any) -> NoReturn:
        self.__delitem__(name)

    def popitem(self) -> NoReturn:
        self.__delitem__(next(iter(self), ""))

    def clear(self) -> NoReturn:
        self.__delitem__(next(iter(self), ""))

    def copy(self) -> dict[str, Any]:
        return self.as_dict()

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[dict[str, Any]]]:
        return dict, (self.as_dict(),)

    __copy__ = copy

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        return self.as_dict()


def config_items(config: Any) -> dict[str, Any]:
    """The items of what a script passes as config: a mapping, pairs, or an object with attributes as argparse makes it.

    Raises:
        UsageError: It is none of them.
    """
    if config is None:
        return {}
    if isinstance(config, Mapping):
        return {str(name): value for name, value in config.items()}
    if not isinstance(config, str) and isinstance(config, Iterable):
        try:
            return {str(name): value for name, value in config}
        except (TypeError, ValueError):
            raise UsageError(f"config must be a mapping, got {type(config).__name__}; pass a dict") from None
    if hasattr(config, "__dict__") and not isinstance(config, str | type):
        return {name: value for name, value in vars(config).items() if not name.startswith("_")}
    raise UsageError(f"config must be a mapping, got {type(config).__name__}; pass a dict, or read the file first")
