"""``edgeshard query``: one SELECT on the master, as a table, as JSON or as CSV."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgeshard import sqlite
from edgeshard.cli import arguments, exits, terminal
from edgeshard.errors import QueryError
from edgeshard.merge import once
from edgeshard.sqlite import Bindings, Connection, Statement
from edgeshard.store import querying

SUMMARY = "Run one SQL statement on a store's master, which it only reads."

_EPILOG = """\
Without --json or --csv the rows are drawn as a table, as wide as the terminal; a pipe gets lines as long as they are,
and no colours. A table is drawn from all rows at once, and cells are cut after 4096 characters: use --csv or --json,
which write row by row, for millions of rows. Blobs are written in hexadecimal. In JSON an infinite number is the text
"Infinity"; in CSV (RFC 4180) NULL is an empty field.

A parameter is a number where it is written as one (7, -0.5; not 007 or 1e3), otherwise text.

examples:
  %(prog)s data "select agent_id, count(*) as rows from agent_data group by agent_id"
  %(prog)s data "select * from agent_data where agent_id = ? limit ?" -p agent-7 -p 10
  %(prog)s data "select * from agent_data where agent_id = :agent" -p agent=agent-7
  %(prog)s data --fresh --csv "select * from agent_data" > rows.csv

exit codes:
  0 done               1 the SQL was refused, or the master is damaged      2 wrong usage
  74 input/output error     75 somebody holds the master locked     77 not permitted
  78 there is no such folder, or no master in it
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    arguments.describe(parser, SUMMARY, _EPILOG)
    parser.add_argument("sql", metavar="SQL", help="one statement, in quotes")
    written = parser.add_mutually_exclusive_group()
    written.add_argument("--json", action="store_true", help="print an array of objects")
    written.add_argument("--csv", action="store_true", help="print CSV, with the names of the columns first")
    parser.add_argument("--fresh", action="store_true", help="merge first, so that all rows written so far are seen")
    parser.add_argument(
        "-p",
        "--param",
        dest="params",
        metavar="VALUE",
        action="append",
        default=[],
        help="the value of the next ?, or NAME=VALUE for :NAME; may be given again",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the statement and write its rows."""
    path = _master(options)
    if options.json:
        _write_json(path, _rows(path, options.sql, options.params))
    elif options.csv:
        _write_csv(_rows(path, options.sql, options.params))
    else:
        print(_table(path, options.sql, options.params), end="")
    return exits.DONE


def _master(options: argparse.Namespace) -> Path:
    """The master's file, after a merge where that is asked for."""
    if not options.fresh or not (arguments.store_of(options).root / "shards").exists():
        return arguments.store_with_master(options).master_path
    store = arguments.store_of(options)
    once.merge(store.root, beside_watcher=True, lock_wait_s=-1)
    return store.master_path


# -- running it -------------------------------------------------------------------------------------------------------


def _rows(path: Path, sql: str, params: list[str]) -> Iterator[tuple[Any, ...]]:
    """The names of the columns, and then the rows, as SQLite finds them."""
    with querying(path) as connection, sqlite.read_snapshot(connection):
        statement = _describe(connection, path, sql)
        yield statement.columns
        yield from connection.execute(sql, _bindings(statement, path, params))


def _table(path: Path, sql: str, params: list[str]) -> str:
    out = sys.stdout
    with querying(path) as connection, sqlite.read_snapshot(connection):
        statement = _describe(connection, path, sql)
        return sqlite.draw_table(
            connection,
            sql,
            _bindings(statement, path, params),
            colour=terminal.is_coloured(out),
            width=terminal.width(out),
            unicode=terminal.has_lines(out),
        )


def _describe(connection: Connection, path: Path, sql: str) -> Statement:
    statement = sqlite.describe(connection, sql)
    if not statement.is_one:
        raise QueryError("query", path, "give one SQL statement, not none and not several")
    return statement


def _bindings(statement: Statement, path: Path, params: list[str]) -> Bindings:
    """The values of the statement's parameters.

    Raises:
        QueryError: one is missing, or one too many.
    """
    if not statement.has_names:
        if len(params) != len(statement.parameters):
            cause = f"the statement has {len(statement.parameters)} parameters, and {len(params)} values were given"
            raise QueryError("query", path, cause)
        return [_value(text) for text in params]
    given = {name: _value(text) for name, _, text in (param.partition("=") for param in params)}
    if set(given) != set(statement.parameters):
        wanted = ", ".join(f"-p {name}=VALUE" for name in statement.parameters)
        raise QueryError("query", path, f"the statement needs {wanted}; given were: {', '.join(given) or 'none'}")
    return given


def _value(text: str) -> int | float | str:
    """A number where the text is how one is written; so a column of texts finds it as well."""
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        if math.isfinite(value) and str(value) == text:
            return value
    return text


# -- writing it -------------------------------------------------------------------------------------------------------


def _write_json(path: Path, rows: Iterator[tuple[Any, ...]]) -> None:
    names = next(rows)
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        cause = f"several columns have the name {', '.join(doubled)}, of which JSON keeps one; name them with AS"
        raise QueryError("query", path, cause)
    before = "["
    for row in rows:
        record = dict(zip(names, map(_json_value, row), strict=True))
        sys.stdout.write(before + json.dumps(record))
        before = ",\n"
    sys.stdout.write("[]\n" if before == "[" else "]\n")


def _json_value(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"  # JSON has no such number
    return value


def _write_csv(rows: Iterator[tuple[Any, ...]]) -> None:
    import csv

    writer = csv.writer(sys.stdout)
    for row in rows:
        if row:
            writer.writerow([value.hex() if isinstance(value, bytes) else value for value in row])
