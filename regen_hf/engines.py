"""DuckDB and Spark: reading, running ibis expressions and writing, without any rule about the data.

ibis generates the SQL and the engine runs it. DuckDB has a memory limit and spills to a folder beyond it. It also
parses JSON lines: every line gives exactly one row, so that every line can be accounted for. Spark is for a cluster,
whose machines must all see the folders that it reads and writes.
"""

from __future__ import annotations

import contextlib
import glob
import itertools
import os
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, cast

import pyarrow as pa

from .errors import ConfigError, MissingPackageError, RegenError

if TYPE_CHECKING:
    import ibis.expr.types as ir
    from pyspark.sql import DataFrame, SparkSession

Writer = Callable[[Iterator[pa.RecordBatch], Path], None]
"""Writes rows into a folder."""
COPIES = 8
"""Copies of a range of rows that must fit into the memory limit: the rows are joined, sorted and grouped."""
NANS = ("NaN", "nan", "NAN", "-NaN")
"""How a JSON number that is not a number is written."""
UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def memory_bytes(memory: str) -> int:
    """Bytes in a size such as "2GB".

    >>> memory_bytes("2GB"), memory_bytes("512 mb"), memory_bytes("0.5GB")
    (2000000000, 512000000, 500000000)

    Raises:
        ConfigError: the text is not a number with one of the units KB, MB, GB, TB.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]B)", memory.strip().upper())
    if not match or float(match[1]) == 0:
        raise ConfigError(f"memory is {memory!r}, expected a number with a unit (KB, MB, GB or TB), such as 2GB.")
    return int(float(match[1]) * UNITS[match[2]])


def chunk_size(memory: str) -> int:
    """Bytes of text to parse at a time under a memory limit such as "2GB"."""
    return max(memory_bytes(memory) // 32, 2**20)


def hash_ranges(size: int, memory: str) -> list[tuple[str, str]]:
    """Ranges of user hashes, low <= hash < high, whose rows fit into `memory`; all rows have `size` bytes in memory.

    >>> hash_ranges(10**9, "4GB")
    [('00000000', '80000000'), ('80000000', 'g')]
    """
    count = max(1, -(-COPIES * size // memory_bytes(memory)))
    bounds = [f"{number * 2**32 // count:08x}" for number in range(count)] + ["g"]  # "g" follows every hex digit
    return list(itertools.pairwise(bounds))


class DuckDB:
    """DuckDB in this process, as a context manager; its tables are ibis tables.

    `memory` is the limit, such as "2GB"; data beyond it is written to the folder `spill`.
    """

    def __init__(self, memory: str, spill: Path) -> None:
        import duckdb

        # Half of the limit: Arrow tables and the file that is being read need the other half.
        self.memory = memory_bytes(memory)
        limit = f"{max(self.memory // 2, 10**8) // 10**6}MB"
        self.connection = duckdb.connect(config={"memory_limit": limit, "temp_directory": str(spill)})
        self.connection.execute("SET enable_progress_bar = false")
        self.queries: dict[object, str] = {}
        """The SQL of `apply`, by rule, table and settings."""
        self.json_query = ""
        """The SQL of the current view of `read_json`."""

    def __enter__(self) -> DuckDB:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.connection.close()

    def read_parquet(self, paths: Sequence[Path], schema: pa.Schema, name: str) -> ir.Table:
        """The rows of parquet files of one schema, as the table `name`."""
        files = ", ".join(_quoted(glob.escape(str(path))) for path in paths)
        self.connection.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS SELECT * FROM read_parquet([{files}])")  # noqa: S608
        return _table(schema, name)

    def read_arrow(self, table: pa.Table, name: str) -> ir.Table:
        """The rows of an Arrow table, as the table `name`; nothing is copied."""
        self.connection.register(name, table)
        return _table(table.schema, name)

    def read_json(
        self,
        lines: pa.Table,
        fields: Mapping[str, str | tuple[str, ...]],
        flat: Collection[str],
        ids: Collection[str] = (),
    ) -> ir.Table:
        """One row for each row of `lines`, with the wanted fields of its JSON object as text.

        Args:
            lines: columns `number` (int64) and `line` (text; null where it was not UTF-8).
            fields: name of the column in the result -> key in the JSON object, or path of keys.
            flat: columns of the result that may not contain a list or object.
            ids: columns of the result in which the number 17.0 is written as 17.

        Returns:
            Columns `number`, `reject` (null, or the reason why the line has no fields: not_utf8, blank_line, not_json,
            not_an_object, repeated_key), `nested` (true where a flat column contains a list or an object), `float_ids`
            (the number of ids that were rewritten) and the columns of `fields`. Strings come unquoted, numbers and
            booleans as text, lists and objects as JSON, the number NaN as null. Only a repeated key at the top of the
            object is rejected, and only one of `fields`.
        """
        self.connection.register("raw_lines", lines)
        paths = {name: (key,) if isinstance(key, str) else key for name, key in fields.items()}
        extracted = ", ".join(map(_path, paths.values()))
        # Columns of their own, because DuckDB evaluates f[i] again wherever it is used.
        values = {name: f"value_{index}" for index, name in enumerate(fields, start=1)}
        read = ", ".join(f"f[{index}] AS {value}" for index, value in enumerate(values.values(), start=1))
        types = {name: f"types[{index}]" for index, name in enumerate(fields, start=1)}
        # A second parse of every line, not only of those with such a value, costs 5 % of the CPU of a run.
        unclear = [f"starts_with({values[name]}, '{sign}')" for name in fields if name in flat for sign in "[{"]
        unclear += [f"suffix({values[name]}, '.0')" for name in fields if name in ids]
        unclear += [f"{value} IN {NANS}" for value in values.values()]
        nested = [f"{types[name]} IN ('ARRAY', 'OBJECT')" for name in fields if name in flat]
        float_ids = {
            name: f"{types[name]} = 'DOUBLE' AND regexp_full_match({values[name]}, '[0-9]+\\.0')"
            for name in fields
            if name in ids
        }
        counted = [f"CAST(coalesce({is_float}, false) AS BIGINT)" for is_float in float_ids.values()]
        columns = []
        for name in fields:
            rewritten = f" WHEN {float_ids[name]} THEN replace({values[name]}, '.0', '')" if name in ids else ""
            is_nan = f"{types[name]} = 'DOUBLE' AND {values[name]} IN {NANS}"
            columns.append(
                f"CASE WHEN types IS NULL THEN {values[name]} WHEN {is_nan} THEN NULL{rewritten} "
                f'ELSE {values[name]} END AS "{name}"'
            )
        repeated = self._repeated_keys({keys[0] for keys in paths.values()})
        query = f"""
            CREATE OR REPLACE TEMP VIEW json_fields AS
            SELECT number,
                   coalesce(reject, CASE WHEN {repeated} THEN 'repeated_key' END) AS reject,
                   types IS NOT NULL AND coalesce({" OR ".join(nested) or "false"}, false) AS nested,
                   CASE WHEN types IS NULL THEN 0 ELSE {" + ".join(counted) or "0"} END AS float_ids,
                   {", ".join(columns)}
            FROM (SELECT *, CASE WHEN reject IS NULL AND ({" OR ".join(unclear)})
                                 THEN json_type(line, [{extracted}]) END AS types
                  FROM (SELECT *,
                               CASE WHEN line IS NULL THEN 'not_utf8'
                                    WHEN no_json AND regexp_full_match(line, '\\s*') THEN 'blank_line'
                                    WHEN no_json THEN 'not_json'
                                    WHEN value_1 IS NULL AND json_type(line) <> 'OBJECT' THEN 'not_an_object'
                               END AS reject
                        FROM (SELECT number, line, f IS NULL AS no_json, {read}
                              FROM (SELECT number, line, TRY(json_extract_string(line, [{extracted}])) AS f
                                    FROM raw_lines))))
            """  # noqa: S608 (keys are quoted)
        if query != self.json_query:  # creating a view takes as long as planning it
            self.connection.execute(query)
            self.json_query = query
        schema = [("number", pa.int64()), ("nested", pa.bool_()), ("float_ids", pa.int64()), ("reject", pa.string())]
        return _table(pa.schema([*schema, *((name, pa.string()) for name in fields)]), "json_fields")

    def _repeated_keys(self, keys: Collection[str]) -> str:
        """A condition of the rows of `raw_lines`: whether one of `keys` occurs more than once in the JSON object.

        Most files have few orders of keys. To look at one line of each order costs half as much as to look at the keys
        of every line, which is only done where one of these lines repeats a key.
        """
        orders = self.connection.execute(
            "SELECT any_value(keys) FROM (SELECT TRY(json_keys(line)) AS keys FROM raw_lines) GROUP BY hash(keys)"
        ).fetchall()
        if not any(order.count(key) > 1 for (order,) in orders if order for key in keys):
            return "false"
        # The positions of a key from both ends add up to the length + 1 if it occurs once.
        positions = "list_position(json_keys(line), {0}) + list_position(list_reverse(json_keys(line)), {0})"
        repeated = (f"{positions.format(_quoted(key))} <= len(json_keys(line))" for key in sorted(keys))
        return f"reject IS NULL AND ({' OR '.join(repeated)})"

    def apply(self, rule: Callable[..., ir.Table], table: ir.Table, *settings: Hashable) -> pa.Table:
        """All rows of `rule(table, *settings)`; its SQL is generated once for all tables of one name and schema."""
        key = (rule, table.op(), settings)
        if key not in self.queries:
            self.queries[key] = _sql(rule(table, *settings))
        return self.connection.sql(self.queries[key]).to_arrow_table()

    def to_arrow(self, table: ir.Table) -> pa.Table:
        """All rows of an ibis expression."""
        return self.connection.sql(_sql(table)).to_arrow_table()

    def write(self, table: ir.Table, order: Sequence[str], rows: int, folder: Path, writer: Writer) -> None:
        """Pass the rows of an expression, sorted by `order`, to `writer`, `rows` at a time, with `folder/00000`."""
        part = folder / "00000"
        part.mkdir()
        writer(iter(self.connection.sql(_sql(table.order_by(list(order)))).to_arrow_reader(rows)), part)


class Spark:
    """Spark, as a context manager; its tables are ibis tables.

    An active session of this process is used and not stopped.

    Args:
        master: master URL, such as "local[4]", "spark://host:7077" or "yarn".
        memory: heap of the driver, such as "2GB"; on a local master the heap of all of Spark.
        spill: folder for data beyond it, on a local master.

    Raises:
        RegenError: pyspark or Java is missing, or Spark does not start.
    """

    def __init__(self, master: str, memory: str, spill: Path) -> None:
        try:
            from pyspark.sql import SparkSession
        except ImportError:
            raise MissingPackageError("pyspark") from None
        running = SparkSession.getActiveSession()
        self.owns_session = running is None
        self.session = running or _session(master, memory, spill)

    def __enter__(self) -> Spark:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.owns_session:
            self.session.stop()

    def read_parquet(self, paths: Sequence[Path], schema: pa.Schema, name: str) -> ir.Table:
        """The rows of parquet files of one schema, as the table `name`."""
        # Spark interprets a path as a glob.
        files = [re.sub(r"([\\*?\[\]{}])", r"\\\1", f"file:{path.resolve()}") for path in paths]
        self.session.read.parquet(*files).createOrReplaceTempView(name)
        return _table(schema, name)

    def read_arrow(self, table: pa.Table, name: str) -> ir.Table:
        """The rows of an Arrow table, as the table `name`."""
        with _quiet():
            self.session.createDataFrame(table).createOrReplaceTempView(name)
        return _table(table.schema, name)

    def to_arrow(self, table: ir.Table) -> pa.Table:
        """All rows of an ibis expression."""
        with _quiet():
            return self._run(table).toArrow()

    def write(self, table: ir.Table, order: Sequence[str], rows: int, folder: Path, writer: Writer) -> None:
        """Pass the rows of an ibis expression, sorted by `order`, to `writer`, `rows` at a time, on Spark's machines.

        Each partition is one call of `writer` with its own folder: `folder/00000`, `folder/00001`, …. Rows with the
        same first column of `order` are in the same partition.
        """
        folder = folder.resolve()  # the other machines have other working directories

        def write_part(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            from pyspark import TaskContext

            task = cast(TaskContext, TaskContext.get())
            part = folder / f"{task.partitionId():05d}"
            attempt = part.with_suffix(f".{task.taskAttemptId()}")
            attempt.mkdir()
            writer(iter(batches), attempt)
            if not part.exists():  # Spark may run a partition twice, with the same rows
                os.replace(attempt, part)
            yield pa.RecordBatch.from_pydict({"part": [task.partitionId()]})

        self.session.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", str(rows))
        with _quiet():
            rows_in_order = self._run(table).repartitionByRange(order[0]).sortWithinPartitions(*order)
            rows_in_order.mapInArrow(write_part, "part long").collect()
        for attempt in folder.glob("*.*"):
            shutil.rmtree(attempt)

    def _run(self, table: ir.Table) -> DataFrame:
        return self.session.sql(_sql(table, "pyspark"))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # pyspark 4.3 checks the version of pandas even where it uses only Arrow.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas", FutureWarning)
        yield


def _session(master: str, memory: str, spill: Path) -> SparkSession:
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    if not shutil.which("java") and not os.environ.get("JAVA_HOME"):
        raise RegenError(
            "Java is missing: there is no `java` on the PATH and no JAVA_HOME. Spark needs Java 17 or newer. "
            "Install it (Debian: apt-get install openjdk-17-jre-headless), or omit --engine spark."
        )
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName("regen").master(master)
    if master.startswith("local"):
        spill.mkdir(parents=True, exist_ok=True)
        builder = (
            builder.config("spark.driver.memory", f"{memory_bytes(memory) // 2**20}m")
            .config("spark.local.dir", str(spill))
            .config("spark.driver.host", "localhost")
            .config("spark.ui.enabled", "false")
        )
    try:
        return builder.getOrCreate()
    except (PySparkException, OSError, Py4JError) as error:
        raise RegenError(f"Spark does not start with master {master!r}: {str(error).splitlines()[0]}") from None


def _sql(table: ir.Table, dialect: str = "duckdb") -> str:
    # ibis only generates the SQL: to run it, version 12 uses calls that DuckDB 2 has renamed or removed.
    import ibis

    return str(ibis.to_sql(table, dialect=dialect))


def _table(schema: pa.Schema, name: str) -> ir.Table:
    import ibis

    return ibis.table(ibis.Schema.from_pyarrow(schema), name=name)


def _path(keys: Sequence[str]) -> str:
    """The SQL of a JSON pointer to a path of keys, which may contain any characters."""
    return _quoted("".join("/" + key.replace("~", "~0").replace("/", "~1") for key in keys))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
