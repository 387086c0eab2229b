"""A program of its own that reads whole tables by way of ADBC; started by bulk.py, it imports nothing of agentnb.

It is a process of its own because ADBC brings its own SQLite: of two SQLites in one process, the one that closes a database first
takes away the locks of the other. Reads its order from stdin as JSON, writes Arrow streams to inherited files, and says what it did on
stdout as JSON; anything that is not as expected ends it with a traceback, and its caller reads the history in the ordinary way.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

#: Rows of one statement. ADBC takes the types of columns from the first batch, so that each statement is one batch.
ROWS = 65_536
#: The first row of each statement says what type each column has, whatever the others hold; it is the only one with this number.
SENTINEL = {"int64": "-9223372036854775807", "string": "''", "double": "0.5"}


def run(order: dict[str, Any]) -> dict[str, Any]:
    """Read what is ordered, all of one moment of the database: `uri`, `tables` and `facts` (named statements of one number)."""
    import adbc_driver_manager
    import adbc_driver_sqlite

    with adbc_driver_sqlite.connect(order["uri"]) as database, adbc_driver_manager.AdbcConnection(database) as db:
        number(db, f"PRAGMA busy_timeout = {int(order['busy_ms'])}")
        number(db, f"PRAGMA mmap_size = {1 << 40}")
        db.set_autocommit(False)
        facts = {name: number(db, sql) for name, sql in order["facts"].items()}
        for table in order["tables"]:
            export(db, table)
    return facts


def export(db: Any, table: dict[str, Any]) -> None:
    """Write a table's cells, each batch with the sentinel before it: texts to one file, numbers to another.

    So the memory of either can be given up alone.
    """
    import pyarrow as pa

    schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in table["columns"]])
    groups = [[f.name for f in schema if (f.type == pa.string()) == textual] for textual in (True, False)]
    files = [pa.OSFile(f"/proc/self/fd/{fd}", "wb") for fd in table["files"]]
    streams = [pa.ipc.new_stream(file, pa.schema([schema.field(n) for n in names])) for file, names in zip(files, groups, strict=True)]
    for batch in batches(db, table, schema):
        for stream, names in zip(streams, groups, strict=True):
            stream.write_batch(batch.select(names))
    for closing in (*streams, *files):
        closing.close()


def batches(db: Any, table: dict[str, Any], schema: Any) -> Iterator[Any]:
    """The rows, a range of row numbers at a time."""
    sentinel = f"SELECT {', '.join(SENTINEL[kind] for _, kind in table['columns'])}"
    source, row = table["source"], table["row"]
    after = -1 << 62
    while (first := number(db, f"SELECT min({row}) FROM {source} WHERE {row} > {after}")) is not None:  # noqa: S608
        after = first + ROWS - 1
        sql = f"{sentinel} UNION ALL SELECT {table['cells']} FROM {source} WHERE {row} BETWEEN {first} AND {after}"  # noqa: S608
        yield rows_of(db, sql, schema)


def rows_of(db: Any, sql: str, schema: Any) -> Any:
    """The sentinel and the rows of a statement. Raises ValueError when they are not what was expected."""
    import pyarrow as pa

    [batch] = read(db, sql)
    if batch.schema.types != schema.types:
        raise ValueError(f"columns of other types: {batch.schema.types}")
    numbers = [place for place, kind in enumerate(schema.types) if str(kind) == "int64"]
    if batch.column(numbers[-1])[0].as_py() != int(SENTINEL["int64"]):
        raise ValueError("the rows came in another order")
    return pa.RecordBatch.from_arrays(batch.columns, schema=schema)


def number(db: Any, sql: str) -> int | None:
    """The only cell of a statement's only row."""
    [batch] = read(db, sql)
    value: int | None = batch.column(0)[0].as_py()
    return value


def read(db: Any, sql: str) -> list[Any]:
    """The batches of a statement."""
    import adbc_driver_manager
    import pyarrow as pa

    with adbc_driver_manager.AdbcStatement(db) as statement:
        statement.set_options(**{"adbc.sqlite.query.batch_rows": str(2 * ROWS)})
        statement.set_sql_query(sql)
        handle, _ = statement.execute_query()
        with pa.RecordBatchReader._import_from_c(handle.address) as reader:  # noqa: SLF001 - what Arrow's own documentation says to call
            return list(reader)


def main() -> None:
    """Take an order, carry it out."""
    order = json.load(sys.stdin)
    sys.modules["numpy"] = None  # type: ignore[assignment]  # Arrow would import it, which takes as long as all the rest
    sys.path += [entry for entry in order["path"] if entry not in sys.path]
    json.dump(run(order), sys.stdout)


if __name__ == "__main__":
    main()
