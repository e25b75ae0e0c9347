"""What a `Store` opens or returns, besides reports: each class is loaded when its name is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgeshard import lazy

if TYPE_CHECKING:
    from edgeshard.exchange.inventory import Inventory as Inventory
    from edgeshard.exchange.line_writer import LineWriter as LineWriter
    from edgeshard.merge.watcher import Watcher as Watcher
    from edgeshard.postgres.watcher import PushWatcher as PushWatcher
    from edgeshard.shard.shard import Shard as Shard
    from edgeshard.sqlite import Statement as Statement

_MODULES: Final = {
    "Inventory": "edgeshard.exchange.inventory",
    "LineWriter": "edgeshard.exchange.line_writer",
    "PushWatcher": "edgeshard.postgres.watcher",
    "Shard": "edgeshard.shard.shard",
    "Statement": "edgeshard.sqlite",
    "Watcher": "edgeshard.merge.watcher",
}

if not TYPE_CHECKING:  # which would believe that there is every name
    __getattr__ = lazy.loader(__name__, _MODULES)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
