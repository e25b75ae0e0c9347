"""All verbs of ``edgeshard``, by group, and the parser of each.

A verb is a module with ``SUMMARY``, ``configure(parser)``, which describes its arguments, and ``run(options)``, which
does the work and returns the exit code.
"""

from __future__ import annotations

from types import ModuleType
from typing import Final

from edgeshard.cli import (
    accept_loss,
    arguments,
    clock,
    completion,
    erase,
    export,
    forget_peer,
    help,
    import_,
    init,
    merge,
    output,
    prune,
    push,
    query,
    ranges,
    receipt,
    restore,
    salvage,
    shell,
    snapshot,
    status,
    tables,
    verify,
    write,
)

#: In the order of the help. To add a verb, add a module next to these, and a line here.
GROUPS: Final[dict[str, dict[str, ModuleType]]] = {
    "write": {
        "init": init,
        "write": write,
        "import": import_,
    },
    "merge": {
        "merge": merge,
    },
    "look": {
        "status": status,
        "tables": tables,
        "verify": verify,
        "query": query,
        "shell": shell,
    },
    "keep": {
        "snapshot": snapshot,
        "prune": prune,
        "clock": clock,
        "erase": erase,
    },
    "carry": {
        "export": export,
        "ranges": ranges,
        "receipt": receipt,
        "forget-peer": forget_peer,
        "push": push,
    },
    "rescue": {
        "restore": restore,
        "salvage": salvage,
        "accept-loss": accept_loss,
    },
    "more": {
        "help": help,
        "completion": completion,
    },
}

VERBS: Final = {name: verb for group in GROUPS.values() for name, verb in group.items()}


def parser_of(name: str, prog: str = "") -> arguments.Parser:
    """Return the parser of a verb; `prog` is how its help and its errors call it."""
    made = arguments.Parser(prog=prog or f"edgeshard {name}")
    VERBS[name].configure(made)
    made.set_defaults(verb=name)
    return made


def overview() -> str:
    """Return the verbs, by group, each with what it does, in lines that fit the terminal."""
    width = max(map(len, VERBS))
    lines = []
    for group, verbs in GROUPS.items():
        lines += [f"{group}:", *output.definitions({name: verb.SUMMARY for name, verb in verbs.items()}, width)]
    return "\n".join(lines)
