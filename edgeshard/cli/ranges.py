"""``edgeshard ranges``: print a store's inventory: which rows it holds, as JSON to carry to other stores."""

from __future__ import annotations

import argparse

from edgeshard.cli import arguments, exits
from edgeshard.store import Inventory, Store

SUMMARY = "Print which rows a store's master holds, and has ever held, as one JSON object to carry elsewhere."

_EPILOG = """\
At another store, `edgeshard export --ranges FILE` writes only what this store lacks, and `edgeshard receipt` records
that its rows are safe here. The document is compact: 23 bytes per stream, and 3 per
gap. It has a checksum, and lists what has been merged, durably. Rows that are still in the shards are not listed: merge
first.

examples:
  %(prog)s data > /media/usb/hub.json
  ssh hub edgeshard ranges /srv/hub | edgeshard receipt data -      over a network, if there is one
  %(prog)s postgresql://edge@db.example.com/fleet | edgeshard receipt data -       the rows that PostgreSQL has

exit codes:
  0 done                            1 failed            2 wrong usage            65 the master is damaged
  74 input/output error             75 the master is locked
  69 PostgreSQL is unavailable      77 not permitted
  78 there is no such store, or no master in it
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    arguments.describe(parser, SUMMARY, _EPILOG)
    arguments.add_root(parser)
    parser.add_argument("--json", action="store_true", help="has no effect: the document is always JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the document."""
    for piece in _inventory(options).pieces():
        print(piece, end="")
    print()
    return exits.DONE


def _inventory(options: argparse.Namespace) -> Inventory:
    if options.root.startswith(("postgresql://", "postgres://")):
        return Store.pushed_ranges(options.root)
    return arguments.store_with_master(options).ranges()
