"""Parquet files: every type of Arrow as text, in batches of limited size."""

import datetime
import uuid
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from regen_hf.reviews.formats import chosen
from regen_hf.reviews.ingest import IngestOptions, read_items, read_reviews
from regen_hf.reviews.parquet import parquet

NOT_UTF8 = pa.Array.from_buffers(pa.string(), 2, pa.array([b"\xff", b"A"]).buffers())
MOMENT = 1_500_000_000_123_456_789
SENTINELS = [datetime.datetime(1, 1, 1), datetime.datetime(9999, 12, 31)]


@pytest.fixture
def texts(tmp_path):
    """The texts of a column, and the reasons to reject its rows; every row can be written as a reject."""

    def run(values, **how):
        path = tmp_path / "p.parquet"
        pq.write_table(pa.table({"x": values}), path, **how)
        (records,) = parquet(path, 10**6, {"x": "x"}, ())
        assert len(records.raw(pa.array(range(len(values))))) == len(values)
        return records.fields["x"].to_pylist(), records.fields["reject"].to_pylist()

    return run


def moment(unit: str, zone: str | None = None) -> pa.Array:
    digits = {"s": 9, "ms": 6, "us": 3, "ns": 0}[unit]
    return pa.array([MOMENT // 10**digits, None], pa.timestamp(unit, zone))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.nulls(2), [None, None]),
        (pa.array([True, None]), ["true", None]),
        (pa.array([17, None], pa.uint64()), ["17", None]),
        (pa.array([17, 2.5], pa.float16()), ["17", "2.5"]),
        (pa.array([9.99, 5], pa.float32()), ["9.99", "5"]),
        (pa.array([17, float("nan")]), ["17", None]),
        (pa.array([1.5e18, -1e18]), ["1500000000000000000", "-1000000000000000000"]),
        (pa.array([float("inf"), 1e19]), ["inf", "1e+19"]),
        (pa.array([Decimal("17.00"), Decimal("2.50")], pa.decimal128(9, 2)), ["17", "2.50"]),
        (pa.array([Decimal("17.00"), None], pa.decimal256(50, 2)), ["17", None]),
        (pa.array(["A", None], pa.string_view()), ["A", None]),
        (pa.array(["A", None], pa.large_string()), ["A", None]),
        (pa.array([b"A", None], pa.binary_view()), ["A", None]),
        (pa.array(["A", None], pa.dictionary(pa.int8(), pa.large_string())), ["A", None]),
        (pa.array([2.0, None]).dictionary_encode(), ["2", None]),
        (pa.array([uuid.UUID(int=5).bytes, None], pa.uuid()), ["00000000-0000-0000-0000-000000000005", None]),
        (pa.array(['{"a": 1}', None], pa.json_()), ['{"a": 1}', None]),
        (pa.array([["A", None], None], pa.list_(pa.string_view())), ['["A", null]', None]),
        (pa.array([[b"A"], None], pa.large_list(pa.binary())), ['["A"]', None]),
        (pa.array([{"a": "A"}, None], pa.struct([("a", pa.string_view())])), ['{"a": "A"}', None]),
        (pa.array([["A"], None], pa.list_(pa.dictionary(pa.int8(), pa.string()))), ['["A"]', None]),
        (
            pa.array([[2**48], None], pa.list_(pa.timestamp("s"))),
            ['["<value out of range: 281474976710656000>"]', None],
        ),
        (pa.array([5, None], pa.time32("s")), ["00:00:05.000", None]),
        (pa.array([1_500_000_000, None], pa.duration("s")), ["1500000000 s", None]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_a_value_of_each_type_is_text(texts, values, expected):
    assert texts(values) == (expected, [None, None])


@pytest.mark.parametrize(
    "values",
    [pa.array([b"\xff", b"A"], kind) for kind in (pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(1))]
    + [pa.array([b"\xff", b"A"]).dictionary_encode(), NOT_UTF8],
    ids=lambda values: str(values.type),
)
def test_bytes_that_are_not_utf_8_are_a_reject(texts, values):
    assert texts(values) == ([None, "A"], ["not_utf8", None])


def test_a_list_of_text_that_is_not_utf_8_is_a_reject(texts):
    assert texts(pa.ListArray.from_arrays([0, 1, 2], NOT_UTF8)) == ([None, '["A"]'], ["not_utf8", None])


@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin", "+02:00", "Nowhere/Town"])
def test_moments_are_unix_seconds_with_all_digits(texts, zone):
    expected = {"s": "", "ms": ".123", "us": ".123456", "ns": ".123456789"}
    assert {unit: texts(moment(unit, zone))[0] for unit in expected} == {
        unit: ["1500000000" + fraction, None] for unit, fraction in expected.items()
    }


def test_dates_and_moments_without_a_fraction_are_whole_seconds(texts):
    assert texts(pa.array([datetime.date(2020, 1, 1), datetime.date(1971, 1, 1)]))[0] == ["1577836800", "31536000"]
    assert texts(pa.array([1_500_000_000_000_000_000], pa.timestamp("ns")))[0] == ["1500000000"]
    assert texts(pa.array([1_500_000_000_000_000_007], pa.timestamp("ns")))[0] == ["1500000000.000000007"]


@pytest.mark.parametrize("how", [{}, {"use_deprecated_int96_timestamps": True}], ids=["int64", "int96"])
def test_moments_outside_of_1971_to_2261_are_iso_dates(texts, how):
    moments = [*SENTINELS, datetime.datetime(1970, 6, 1), datetime.datetime(1969, 12, 31, 23, 59, 59, 5)]
    expected = ["0001-01-01 00:00:00.000000", "9999-12-31 00:00:00.000000", "1970-06-01 00:00:00.000000"]
    assert texts(pa.array(moments, pa.timestamp("us")), **how)[0] == [*expected, "1969-12-31 23:59:59.000005"]


def reviews(values, column):
    count = len(values)
    good = {"user": ["U"] * count, "item": ["B"] * count, "time": list(range(1_500_000_000, 1_500_000_000 + count))}
    good |= {"rating": [4] * count, "summary": ["s"] * count, "text": ["t"] * count}
    return pa.table(good | {column: values})


def test_sentinel_dates_are_a_reject_per_row(engine, tmp_path):
    path = tmp_path / "r.parquet"
    pq.write_table(reviews(pa.array([*SENTINELS, datetime.datetime(2020, 1, 1)]), "time"), path)
    form = chosen("reviews", "auto", {name: name for name in ("user", "item", "time")}, {})
    result = read_reviews(engine, [str(path)], tmp_path / "work", IngestOptions(form=form))
    assert (result.read, result.dropped) == (3, {"invalid_time": 2})


KINDS = {
    "bool": pa.array([True, None, False]),
    "float": pa.array([4.5, float("nan"), float("inf")]),
    "decimal": pa.array([Decimal("4.50"), None, Decimal("17.00")]),
    "bytes": pa.array([b"\xff", None, b"4"]),
    "uuid": pa.array([uuid.UUID(int=5).bytes, None, uuid.UUID(int=6).bytes], pa.uuid()),
    "dates": pa.array([datetime.date(1, 1, 1), None, datetime.date(2020, 1, 1)]),
    "moments": pa.array([2**62, None, -5], pa.timestamp("us", "Europe/Berlin")),
    "duration": pa.array([5, None, 6], pa.duration("ns")),
    "time": pa.array([5, None, 6], pa.time64("ns")),
    "dictionary": pa.array(["4", None, "A"]).dictionary_encode(),
    "list": pa.array([["A"], None, []], pa.list_(pa.string_view())),
    "struct": pa.array([{"a": b"\xff"}, None, {"a": None}], pa.struct([("a", pa.binary_view())])),
    "null": pa.nulls(3),
}
COLUMNS = ("user", "item", "time", "rating", "summary", "text", "title", "category", "description", "price")
GOOD = dict.fromkeys(COLUMNS, "x") | {"time": 1_500_000_000, "rating": 4, "price": 5}


@pytest.mark.parametrize("kind", KINDS)
def test_any_type_in_any_column_is_a_value_a_null_or_a_counted_reject(engine, tmp_path, kind):
    good = pa.Table.from_pylist([GOOD] * 3)
    pq.write_table(good, tmp_path / "good.parquet")  # a log without a valid record is an error
    for column in COLUMNS:
        pq.write_table(good.set_column(COLUMNS.index(column), column, KINDS[kind]), tmp_path / f"{column}.parquet")
    mapping = {name: name for name in COLUMNS}
    for reader, part, columns in (
        (read_reviews, "reviews", COLUMNS[:6]),
        (read_items, "items of reviews", ("item", *COLUMNS[6:])),
    ):
        options = IngestOptions(form=chosen(part, "auto", mapping, {}))
        paths = [str(tmp_path / f"{name}.parquet") for name in ("good", *columns)]
        result = reader(engine, paths, tmp_path / part, options)
        kept = sum(pq.read_metadata(table).num_rows for table in result.tables)
        assert result.read == 3 * len(paths) == kept + sum(result.dropped.values())
        assert kept >= 3


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_batches_are_bounded_by_decoded_size(tmp_path, kind):
    texts = [f"{number} " + "long " * 2000 for number in range(3)]
    rows = [texts[number % 3] for number in range(3000)]  # 30 MB in a file of kilobytes
    pq.write_table(pa.table({"x": pa.array(rows).cast(kind)}), tmp_path / "p.parquet")
    size = 2**20
    batches = list(parquet(tmp_path / "p.parquet", size, {"x": "x"}, ()))
    assert max(batch.fields.nbytes for batch in batches) < 11 * size
    assert [number for batch in batches for number in batch.numbers.to_pylist()] == list(range(1, 3001))
    assert [text for batch in batches for text in batch.fields["x"].to_pylist()] == rows
