"""Engines behind the one ibis expression of the sequences: readers and writers only, no rule about the data.

ibis writes the SQL and the engine runs it. DuckDB is opened under a memory limit and spills to a folder beyond it. It
also takes JSON lines apart: exactly one row out for each line in, whatever the line holds, so that every line can be
accounted for. Spark is for a cluster: what it reads and writes lies in folders that all of its machines see.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shutil
import sys
import warnings
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, cast

import pyarrow as pa

from .errors import ConfigError, RegenError, missing_extra

if TYPE_CHECKING:
    import ibis.expr.types as ir
    from pyspark.sql import DataFrame, SparkSession

Writer = Callable[[Iterator[pa.RecordBatch], Path], None]
"""Writes the rows that it is given into the folder that it is given."""
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


class DuckDB:
    """DuckDB in this process, used as a context: its tables are ibis tables, what it runs are ibis expressions.

    Args:
        memory: size to stay under, such as "2GB".
        spill: folder for what does not fit.
    """

    chunk_suffix = ".arrow"
    """Of files from which `read_range` reads."""

    def __init__(self, memory: str, spill: Path) -> None:
        import duckdb

        # Half of the limit: what leaves the database as Arrow, and the file being read, take up the other half.
        limit = f"{max(memory_bytes(memory) // 2, 10**8) // 10**6}MB"
        self.connection = duckdb.connect(config={"memory_limit": limit, "temp_directory": str(spill)})
        self.connection.execute("SET enable_progress_bar = false")
        self.views: dict[object, str] = {}
        """Names of views by their SQL, or by the rule and table that it was written for: parsed once, not per chunk."""
        self.repeated: dict[int, frozenset[str]] = {}
        """Keys that JSON objects met so far hold twice, by the `layout` that `read_json` gives; its caller fills it."""

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

    def read_range(self, paths: Sequence[Path], schema: pa.Schema, name: str, low: str, high: str) -> ir.Table:
        """The rows of Arrow files in which `low` <= the first column < `high`, as the table `name`.

        The files are sorted by that column. Each is mapped into memory, and only the range is read, and copied: while
        a file is mapped, much that lies beside the range counts as memory of this process, too.
        """
        self.connection.unregister(name)  # the range before
        batches = []
        for path in paths:
            file = pa.ipc.open_file(pa.memory_map(str(path)))
            kept = file.schema.remove_metadata()
            for batch in map(file.get_batch, range(file.num_record_batches)):
                hashes = batch[schema.names[0]]
                start, end = (bisect_left(hashes, bound, key=lambda value: value.as_py()) for bound in (low, high))
                batches.append(pa.ipc.read_record_batch(batch.slice(start, end - start).serialize(), kept))
        return self.read_arrow(pa.Table.from_batches(batches, schema), name)

    def read_arrow(self, table: pa.Table, name: str) -> ir.Table:
        """The rows of an Arrow table, as the table `name`; nothing is copied."""
        self.connection.register(name, table)
        return _table(table.schema, name)

    def read_json(self, lines: pa.Table, fields: Mapping[str, str], flat: Sequence[str]) -> ir.Table:
        """One row for each row of `lines`, with the wanted fields of its JSON object as text.

        Args:
            lines: columns `number` (int64) and `line` (text; null where it was not UTF-8).
            fields: name of the column in the result -> name of the key in the JSON object.
            flat: columns of the result that may hold no list or object.

        Returns:
            Columns `number`, `reject` (null, or the reason why the line gives no fields: not_utf8, blank_line,
            not_json, not_an_object), `nested` (true where a flat column holds a list or an object), `layout` (a hash of
            all keys of the object in their order) and the columns of `fields`. Strings come unquoted, numbers and
            booleans as text, lists and objects as JSON. Of a key that occurs twice the first value counts.
        """
        self.connection.register("raw_lines", lines)
        paths = ", ".join(map(_path, fields.values()))
        # One look takes a line apart. Few lines are asked more: what kind of bad line they are, and if a flat field
        # that begins with a bracket is nested.
        places = [place for place, name in enumerate(fields, start=1) if name in flat]
        # As comparisons, which look at the first bytes alone: after "[" comes the backslash, and after "{" comes "|".
        bracket = " OR ".join(f"(f[{n}] >= '[' AND (f[{n}] < '\\' OR f[{n}] >= '{{') AND f[{n}] < '|')" for n in places)
        flat_paths = ", ".join(_path(key) for name, key in fields.items() if name in flat)
        columns = ", ".join(f'f[{place}] AS "{name}"' for place, name in enumerate(fields, start=1))
        name = self._view(
            f"""
            SELECT number, reject,
                   CASE WHEN reject IS NULL THEN hash(json_keys(line)) END AS layout,
                   coalesce(CASE WHEN {bracket or "false"}
                                 THEN list_has_any(json_type(line, [{flat_paths}]), ['ARRAY', 'OBJECT']) END,
                            false) AS nested,
                   {columns}
            FROM (SELECT number, line, f,
                         CASE WHEN line IS NULL THEN 'not_utf8'
                              WHEN f IS NULL THEN CASE WHEN regexp_full_match(line, '\\s*') THEN 'blank_line'
                                                       ELSE 'not_json' END
                              WHEN f[1] IS NULL AND json_type(line) <> 'OBJECT' THEN 'not_an_object' END AS reject
                  FROM (SELECT number, line, TRY(json_extract_string(line, [{paths}])) AS f FROM raw_lines))
            """  # noqa: S608 (keys are quoted)
        )
        texts = [pa.field(name, pa.string()) for name in ("reject", *fields)]
        others = [("number", pa.int64()), ("layout", pa.uint64()), ("nested", pa.bool_())]
        return _table(pa.schema([*others, *texts]), name)

    def json_keys(self, lines: pa.Array) -> list[list[str]]:
        """The keys of the JSON object on each line, in their order; none where the line is no JSON."""
        self.connection.register("some_lines", pa.table({"line": lines, "place": range(len(lines))}))
        found = self.connection.sql("SELECT TRY(json_keys(line)) FROM some_lines ORDER BY place")
        return [keys or [] for (keys,) in found.fetchall()]

    def apply(self, rule: Callable[[ir.Table], ir.Table], table: ir.Table) -> pa.Table:
        """All rows of `rule(table)`; the SQL of a rule is written once for all tables of one name and schema."""
        key = (rule, table.op())
        if key not in self.views:
            self.views[key] = self._view(_sql(rule(table)))
        return self.connection.sql(f"SELECT * FROM {self.views[key]}").to_arrow_table()  # noqa: S608 (a name made here)

    def _view(self, query: str) -> str:
        """The name of a view of `query`, which is made the first time."""
        if query not in self.views:
            name = f"view_{len(self.views)}"
            self.connection.execute(f"CREATE TEMP VIEW {name} AS {query}")
            self.views[query] = name
        return self.views[query]

    def to_arrow(self, table: ir.Table) -> pa.Table:
        """All rows of an ibis expression."""
        return self.connection.sql(_sql(table)).to_arrow_table()

    def write(self, table: ir.Table, order: Sequence[str], rows: int, folder: Path, writer: Writer) -> None:
        """Hand an ibis expression, sorted by `order`, to `writer`, `rows` of it at a time, with `folder/00000`."""
        part = folder / "00000"
        part.mkdir()
        writer(iter(self.connection.sql(_sql(table.order_by(list(order)))).to_arrow_reader(rows)), part)


class Spark:
    """Spark, used as a context: its tables are ibis tables, what it runs are ibis expressions.

    A session that runs already in this process is used and left running.

    Args:
        master: where Spark runs, such as "local[4]", "spark://host:7077" or "yarn".
        memory: size of the driver's heap, and so of all of Spark on a local master, such as "2GB".
        spill: folder for what does not fit, on a local master.

    Raises:
        RegenError: pyspark or Java is missing, or Spark does not start.
    """

    chunk_suffix = ".parquet"
    """Of files from which `read_range` reads."""

    def __init__(self, master: str, memory: str, spill: Path) -> None:
        try:
            from pyspark.sql import SparkSession
        except ImportError:
            raise missing_extra("pyspark", "spark") from None
        running = SparkSession.getActiveSession()
        self.stops = running is None
        self.session = running or _session(master, memory, spill)

    def __enter__(self) -> Spark:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.stops:
            self.session.stop()

    def read_parquet(self, paths: Sequence[Path], schema: pa.Schema, name: str) -> ir.Table:
        """The rows of parquet files of one schema, as the table `name`."""
        # Spark reads a path as a pattern.
        files = [re.sub(r"([\\*?\[\]{}])", r"\\\1", f"file:{path.resolve()}") for path in paths]
        self.session.read.parquet(*files).createOrReplaceTempView(name)
        return _table(schema, name)

    def read_arrow(self, table: pa.Table, name: str) -> ir.Table:
        """The rows of an Arrow table, as the table `name`."""
        with _quiet():
            self.session.createDataFrame(table).createOrReplaceTempView(name)
        return _table(table.schema, name)

    def read_range(self, paths: Sequence[Path], schema: pa.Schema, name: str, low: str, high: str) -> ir.Table:
        """The rows of parquet files in which `low` <= the first column < `high`, by which the files are sorted."""
        table = self.read_parquet(paths, schema, name)
        key = table[schema.names[0]]
        return table.filter(key >= low, key < high)

    def to_arrow(self, table: ir.Table) -> pa.Table:
        """All rows of an ibis expression."""
        with _quiet():
            return self._run(table).toArrow()

    def write(self, table: ir.Table, order: Sequence[str], rows: int, folder: Path, writer: Writer) -> None:
        """Hand the rows of an ibis expression, sorted by `order`, to `writer`, `rows` at a time, on Spark's machines.

        Each part of the rows goes to one call, with a folder of its own: `folder/00000`, `folder/00001`, …. Rows that
        have the first column of `order` in common go to the same call.
        """
        folder = folder.resolve()  # the other machines work elsewhere

        def write_part(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            from pyspark import TaskContext

            task = cast(TaskContext, TaskContext.get())
            part = folder / f"{task.partitionId():05d}"
            attempt = part.with_suffix(f".{task.taskAttemptId()}")
            attempt.mkdir()
            writer(iter(batches), attempt)
            if not part.exists():  # Spark may run a part twice, with the same rows
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
    # pyspark 4.3 asks for pandas even where only Arrow passes, and warns of the version that it finds.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas", FutureWarning)
        yield


def _session(master: str, memory: str, spill: Path) -> SparkSession:
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    if not shutil.which("java") and not os.environ.get("JAVA_HOME"):
        raise RegenError(
            "Spark needs Java 17 or newer, and there is no `java` on the PATH and no JAVA_HOME. "
            "Install it (Debian: apt-get install openjdk-17-jre-headless), or leave out --engine spark."
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
        raise RegenError(f"Spark does not start with the master {master!r}: {str(error).splitlines()[0]}") from None


def _sql(table: ir.Table, dialect: str = "duckdb") -> str:
    # ibis only writes the SQL: version 12 runs it through calls that DuckDB 2 has renamed or lost.
    import ibis

    return str(ibis.to_sql(table, dialect=dialect))


def _table(schema: pa.Schema, name: str) -> ir.Table:
    import ibis

    return ibis.table(ibis.Schema.from_pyarrow(schema), name=name)


def _path(key: str) -> str:
    """A key at the top of a JSON object, whatever characters are in it, as SQL."""
    return _quoted("/" + key.replace("~", "~0").replace("/", "~1"))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
