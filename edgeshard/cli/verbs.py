"""All verbs of ``edgeshard``, by group, and the parser of each.

A verb is a module with ``SUMMARY``, ``configure(parser)``, which describes its arguments, and ``run(options)``, which
does the work and returns the exit code.
"""

from __future__ import annotations

import keyword
from importlib import import_module
from types import ModuleType
from typing import Final

from edgeshard.cli import arguments, output

#: In the order of the help. To add a verb, add a module next to these, and its name here.
GROUPS: Final = {
    "write": ("init", "write", "import"),
    "merge": ("merge",),
    "look": ("status", "tables", "verify", "query", "shell"),
    "keep": ("snapshot", "prune", "clock", "erase"),
    "carry": ("export", "ranges", "receipt", "forget-peer", "push", "rejected"),
    "rescue": ("restore", "salvage", "accept-loss"),
    "more": ("help", "completion"),
}

VERBS: Final = tuple(verb for group in GROUPS.values() for verb in group)


def module_of(name: str) -> ModuleType:
    """Return the module of a verb, which is loaded now: a merge from cron needs no other."""
    module = name.replace("-", "_")
    return import_module(f"{__package__}.{f'{module}_' if keyword.iskeyword(module) else module}")


def parser_of(name: str, prog: str = "") -> arguments.Parser:
    """Return the parser of a verb; `prog` is how its help and its errors call it."""
    made = arguments.Parser(prog=prog or f"edgeshard {name}")
    module_of(name).configure(made)
    made.set_defaults(verb=name)
    return made


def overview() -> str:
    """Return the verbs, by group, each with what it does, in lines that fit the terminal."""
    width = max(map(len, VERBS))
    lines = []
    for group, verbs in GROUPS.items():
        lines += [f"{group}:", *output.definitions({name: module_of(name).SUMMARY for name in verbs}, width)]
    return "\n".join(lines)
