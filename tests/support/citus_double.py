"""A recorded double of Citus in a schema of a plain PostgreSQL database: its functions, its tables, and its failures.

It shows which statements a push runs, in which order and transaction. It distributes nothing.
"""

from __future__ import annotations

import pytest

from tests.support.postgres_server import cluster_nodes, do, fetch

_SCHEMA = """
CREATE SCHEMA citus_double;
CREATE TABLE citus_double.pg_dist_local_group (groupid integer);
INSERT INTO citus_double.pg_dist_local_group VALUES (0);
CREATE TABLE citus_double.pg_dist_partition (logicalrelid regclass, partmethod "char", repmodel "char");
CREATE TABLE citus_double.calls (number serial, call text, relation text, is_new boolean);
CREATE TABLE citus_double.statements (number serial, transaction bigint, is_copy boolean, mode text);

CREATE FUNCTION citus_double.record() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO citus_double.statements (transaction, is_copy, mode) VALUES (
        txid_current(), current_query() LIKE 'COPY%', coalesce(current_setting('citus.multi_shard_modify_mode', true), '')
    );
    RETURN NULL;
END $$;

CREATE FUNCTION citus_double.citus_version() RETURNS text LANGUAGE sql AS $$ SELECT 'a double of Citus' $$;

CREATE FUNCTION citus_double.note(name text, relation regclass, method "char", model "char") RETURNS void
LANGUAGE plpgsql AS $$ BEGIN
    IF EXISTS (SELECT 1 FROM citus_double.pg_dist_partition WHERE logicalrelid = relation) THEN
        RAISE 'table "%" is already distributed', relation USING ERRCODE = '42P16';
    END IF;
    INSERT INTO citus_double.pg_dist_partition VALUES (relation, method, model);
    INSERT INTO citus_double.calls (call, relation, is_new)
    SELECT name, relation::text, xmin::text::bigint = txid_current() % 4294967296 FROM pg_class WHERE oid = relation;
END $$;

CREATE FUNCTION citus_double.create_distributed_table(relation regclass, distribution_column text) RETURNS void
LANGUAGE sql AS $$ SELECT citus_double.note('distributed by ' || distribution_column, relation, 'h', 's') $$;

CREATE FUNCTION citus_double.create_reference_table(relation regclass) RETURNS void
LANGUAGE sql AS $$ SELECT citus_double.note('reference', relation, 'n', 't') $$;

CREATE FUNCTION citus_double.truncate_local_data_after_distributing_table(relation regclass) RETURNS void
LANGUAGE sql AS $$ INSERT INTO citus_double.calls (call, relation, is_new) VALUES ('truncated', relation::text, false) $$;

-- as Citus 13.2.2 answers: an error of a worker in a COPY has no SQLSTATE of its own
CREATE FUNCTION citus_double.fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW._stream = ANY(TG_ARGV[1]::uuid[]) THEN
        IF current_query() LIKE 'COPY%' THEN
            RAISE 'failure on connection marked as essential: w2:5432' USING ERRCODE = 'XX000';
        END IF;
        RAISE 'connection to the remote node w2:5432 failed' USING ERRCODE = TG_ARGV[0];
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION citus_double.check_row() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE passes boolean;
BEGIN
    EXECUTE format('SELECT %s FROM (SELECT ($1).*) AS new', TG_ARGV[0]) INTO passes USING NEW;
    IF NOT passes THEN
        RAISE 'new row for relation "%_102010" violates check constraint', TG_TABLE_NAME USING ERRCODE =
            CASE WHEN current_query() LIKE 'COPY%' THEN 'XX000' ELSE '23514' END;
    END IF;
    RETURN NEW;
END $$;
"""


def install(dsn: str, *, group: int = 0) -> None:
    """Make a database look like the node of a Citus cluster: 0 is the coordinator, others are workers."""
    if cluster_nodes(dsn):
        pytest.skip("a double of Citus next to Citus itself would show nothing")
    ((name,),) = fetch(dsn, "SELECT current_database()")
    do(dsn, _SCHEMA, f"UPDATE citus_double.pg_dist_local_group SET groupid = {group}")
    do(dsn, f"ALTER DATABASE {name} SET search_path = public, citus_double")


def calls(dsn: str) -> list[tuple[str, str, bool]]:
    """Return what was called, of which table, and whether the same transaction had created or altered it."""
    return [
        (call, relation, bool(is_new))
        for call, relation, is_new in fetch(
            dsn, "SELECT call, relation, is_new FROM citus_double.calls ORDER BY number"
        )
    ]


def record_statements(dsn: str, table: str) -> None:
    """Record the statements that bring rows of a table, from now on."""
    do(
        dsn,
        f"CREATE TRIGGER recorded BEFORE INSERT ON {table} FOR EACH STATEMENT EXECUTE FUNCTION citus_double.record()",
    )


def statements(dsn: str) -> list[list[tuple[str, str]]]:
    """Return the recorded statements of each transaction: COPY or INSERT, and Citus's mode of using connections."""
    found: dict[int, list[tuple[str, str]]] = {}
    sql = "SELECT transaction, is_copy, mode FROM citus_double.statements ORDER BY number"
    for transaction, is_copy, mode in fetch(dsn, sql):
        found.setdefault(transaction, []).append(("COPY" if is_copy else "INSERT", mode))
    return list(found.values())


def kill_worker(dsn: str, table: str, *streams: str, sqlstate: str = "08006") -> None:
    """Let rows of these streams fail as if their worker were dead, from now on."""
    revive_worker(dsn, table)
    do(
        dsn,
        f"CREATE TRIGGER dead BEFORE INSERT ON {table} FOR EACH ROW "
        f"EXECUTE FUNCTION citus_double.fail('{sqlstate}', '{{{','.join(streams)}}}')",
    )


def revive_worker(dsn: str, table: str) -> None:
    """Let all rows of a table be accepted again."""
    do(dsn, f"DROP TRIGGER IF EXISTS dead ON {table}")


def add_check(dsn: str, table: str, condition: str) -> None:
    """Let rows fail that do not meet a condition, as if a worker refused them, until the trigger `checked` is dropped."""
    do(
        dsn,
        f"CREATE TRIGGER checked BEFORE INSERT ON {table} FOR EACH ROW "
        f"EXECUTE FUNCTION citus_double.check_row('{condition}')",
    )
