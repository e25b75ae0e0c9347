"""Names of a module that are loaded from others when they are first used, by PEP 562.

A module that uses this imports the same names under ``if TYPE_CHECKING``, so that type checkers and editors know them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def loader(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a module; what it loads is then an ordinary attribute of the module.

    Threads may use a name for the first time together: Python's import lock lets one of them load it.

    Args:
        module: the module's name.
        names: the module that each name is loaded from.
    """

    def load(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}", name=name, obj=sys.modules.get(module))
        value = getattr(import_module(names[name]), name)
        setattr(sys.modules[module], name, value)
        return value

    return load
