"""Each table of the format has one owner module with all the SQL on it; nothing else names the table."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import edgeshard
from edgeshard import format
from edgeshard.format import tables

PACKAGE = Path(edgeshard.__file__).parent

#: The owner of each table. In a shard, _edgeshard_truncations has another owner than in a master.
OWNERS = {
    "_edgeshard_database": {"master/identity.py"},
    "_edgeshard_streams": {"master/streams.py"},
    "_edgeshard_missing": {"master/streams.py"},
    "_edgeshard_ranges": {"master/extents.py"},
    "_edgeshard_blocks": {"master/extents.py"},
    "_edgeshard_transactions": {"master/extents.py"},
    "_edgeshard_truncations": {"master/truncations.py", "shard/truncations.py"},
    "_edgeshard_columns": {"master/catalog.py"},
    "_edgeshard_indexes": {"master/catalog.py"},
    "_edgeshard_keys": {"master/catalog.py"},
    "_edgeshard_renames": {"master/catalog.py"},
    "_edgeshard_priorities": {"master/catalog.py"},
    "_edgeshard_pruned_ranges": {"master/pruned_ranges.py"},
    "_edgeshard_deleted_by_hand": {"master/by_hand.py"},
    "_edgeshard_erasures": {"master/erasures.py"},
    "_edgeshard_warnings": {"master/user_objects.py"},
    "_edgeshard_written_off": {"master/written_off.py"},
    "_edgeshard_superseded": {"master/superseded.py"},
    "_edgeshard_retired": {"master/retired.py"},
    "_edgeshard_retirements": {"master/retired.py"},
    "_edgeshard_tombstone_gc": {"master/tombstone_gc.py"},
    "_edgeshard_arrivals": {"master/arrivals.py"},
    "_edgeshard_clock": {"master/store_clock.py"},
    "_edgeshard_receipts": {"master/receipts.py"},
    "_edgeshard_peers": {"master/receipts.py"},
    "_edgeshard_rejections": {"master/rejected.py"},
    "_edgeshard_rejected": {"master/rejected.py"},
    "_edgeshard_write_stats": {"master/write_stats.py"},
    "_edgeshard_shards": {"master/shard_states.py"},
    "_edgeshard_proven": {"master/proven.py"},
    "_edgeshard_conflicts": {"master/blocked_rows.py"},
    "_edgeshard_blocked": {"master/blocked_rows.py"},
    "_edgeshard_removed": {"master/removed_shards.py"},
    "_edgeshard_checksum": set[str](),
}

#: The packages that may name any table: the format itself, and those for tables of other databases.
EXEMPT = ("format/", "sources/", "postgres/")

#: The names in edgeshard.format that stand for a table.
CONSTANTS = {name: value for name, value in vars(tables).items() if isinstance(value, str) and value in format.DDL}

_NAME = re.compile(r"\b_edgeshard_[a-z_]+\b")


def named_tables(code: str) -> Iterator[tuple[int, str]]:
    """Yield the line and name of each table that code names, in strings or by a constant. Docstrings may name any."""
    tree = ast.parse(code)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str(text)) if id(node) not in docstrings:
                yield from ((node.lineno, name) for name in _NAME.findall(text) if name in format.DDL)
            case ast.Attribute(value=ast.Name(id="format" | "tables"), attr=attribute) if attribute in CONSTANTS:
                yield node.lineno, CONSTANTS[attribute]
            case ast.ImportFrom(module="edgeshard.format" | "edgeshard.format.tables", names=names):
                yield from ((node.lineno, CONSTANTS[each.name]) for each in names if each.name in CONSTANTS)


def modules() -> Iterator[tuple[str, str]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if not name.startswith(EXEMPT):
            yield name, path.read_text()


def test_every_table_has_an_owner_that_names_it() -> None:
    assert format.DDL.keys() == OWNERS.keys()
    for table, owners in OWNERS.items():
        for owner in owners:
            assert table in {name for _, name in named_tables((PACKAGE / owner).read_text())}, (table, owner)


def test_no_table_is_named_outside_its_owner() -> None:
    violations = [
        f"edgeshard/{module}:{line}: {table} belongs to {' and '.join(sorted(OWNERS[table])) or 'sources/'}"
        for module, code in modules()
        for line, table in sorted(named_tables(code))
        if module not in OWNERS[table]
    ]
    assert not violations, "\n" + "\n".join(violations)


def test_tables_are_found_in_strings_and_constants_but_not_in_docstrings() -> None:
    code = '''
"""_edgeshard_streams"""
from edgeshard.format import KEYS
def f(schema):
    "_edgeshard_ranges"
    # _edgeshard_blocks
    yield f"SELECT 1 FROM {schema}._edgeshard_columns JOIN _edgeshard_streams", "edgeshard_shards_removed_total"
    yield format.RENAMES
'''
    found = ["_edgeshard_columns", "_edgeshard_keys", "_edgeshard_renames", "_edgeshard_streams"]
    assert found == sorted(name for _, name in named_tables(code))
