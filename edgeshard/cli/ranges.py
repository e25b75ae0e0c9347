"""``edgeshard ranges``: what a store holds, as a small document to be carried to whoever has rows for it."""

from __future__ import annotations

import argparse

from edgeshard.cli import arguments, exits
from edgeshard.exchange.inventory import Inventory

SUMMARY = "Print which rows a store's master holds, and has held, as one JSON object that can be carried elsewhere."

_EPILOG = """\
Where it is brought to, `edgeshard export --ranges FILE` writes only what this store lacks, and `edgeshard receipt`
notes that its rows are safe here. It is small: a stream takes about 50 bytes. It holds what has been merged, durably;
rows that are still in the shards are not in it: merge first.

examples:
  %(prog)s data > /media/usb/hub.json
  ssh hub edgeshard ranges /srv/hub | edgeshard receipt data -      over a network, where there is one
  %(prog)s postgresql://edge@db.example.com/fleet | edgeshard receipt data -       what PostgreSQL has of pushes

exit codes:
  0 done                            1 failed; also where the master is damaged              2 wrong usage
  74 input/output error             75 somebody holds the master locked
  69 PostgreSQL is unavailable      77 not permitted
  78 there is no such folder, or no master in it
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    arguments.describe(parser, SUMMARY, _EPILOG)
    parser.add_argument("--json", action="store_true", help="as it is printed in any case")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the document."""
    print(_holdings(options).to_json())
    return exits.DONE


def _holdings(options: argparse.Namespace) -> Inventory:
    if not options.root.startswith(("postgresql://", "postgres://")):
        return arguments.store_with_master(options).ranges()
    from edgeshard.postgres import once

    return once.ranges(options.root)
