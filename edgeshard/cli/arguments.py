"""What the verbs' arguments have in common, and the store that they name."""

from __future__ import annotations

import argparse
import sys

from edgeshard import sqlite
from edgeshard.errors import ConfigurationError
from edgeshard.exchange import inventory
from edgeshard.exchange.inventory import Inventory
from edgeshard.files import scan
from edgeshard.merge.watcher import MAX_INTERVAL_S
from edgeshard.store import Store


def describe(parser: argparse.ArgumentParser, summary: str, epilog: str) -> None:
    """Give a verb's parser what each has: its help, the store's folder, and defaults of what `main` looks at."""
    parser.description, parser.epilog = summary, epilog
    parser.add_argument("root", metavar="ROOT", type=name, help="the store's folder")
    parser.set_defaults(quiet=False, verbose=False, watch=False, log_format="text", interrupted="interrupted")


def store_of(options: argparse.Namespace) -> Store:
    """The store in a folder that exists: a typing error must not make a store of its own.

    Raises:
        ConfigurationError: there is no such folder.
        AccessError: nobody may tell us.
    """
    store = Store(options.root)
    with sqlite.translate_errors(options.verb, str(store.root)):
        if not store.root.is_dir():
            cause = (
                "there is no such folder; agents make it when they first write. For a hub without agents make it first"
            )
            raise ConfigurationError(options.verb, store.root, cause)
    return store


def store_with_master(options: argparse.Namespace) -> Store:
    """The store in a folder that exists and has a master.

    Raises:
        ConfigurationError: there is no folder, or no master in it.
        AccessError: nobody may tell us.
    """
    store = store_of(options)
    if scan.find_database(str(store.master_path)) is None:
        cause = f"there is no master yet; `edgeshard merge {options.root}` makes it"
        raise ConfigurationError(options.verb, store.master_path, cause)
    return store


def ranges_of(file: str) -> Inventory:
    """What `edgeshard ranges` wrote to a file, or to our standard input, where the file is "-".

    Raises:
        EdgeshardError: it cannot be read, or is no such document.
    """
    if file != "-":
        return inventory.load(file)
    with sqlite.translate_errors("read ranges", "standard input"):
        return inventory.parse(sys.stdin.buffer.read(inventory.BYTES_MAX + 1), "standard input")


def seconds(text: str) -> float:
    """A time in seconds, which may be 0."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= MAX_INTERVAL_S:  # nor NaN
        raise argparse.ArgumentTypeError(f"a number of seconds from 0 to {MAX_INTERVAL_S:.0f} is wanted, not {text!r}")
    return value


def some_seconds(text: str) -> float:
    """A time in seconds, which is not 0."""
    value = seconds(text)
    if value == 0:
        raise argparse.ArgumentTypeError("a number of seconds above 0 is wanted")
    return value


def name(text: str) -> str:
    """A path, which is not empty."""
    if not text:  # a shell's variable that is not set: the store would be the current folder
        raise argparse.ArgumentTypeError("it is empty")
    return text
