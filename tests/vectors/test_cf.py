"""The CF matrix of users and items."""

import pyarrow as pa
import pyarrow.parquet as pq

from regen_hf.schema import ROW
from regen_hf.vectors.cf import user_item_matrix


def purchase(number, rating):
    return {"item": {"asin": f"item{number}"}, "review": {"rating": rating}}


def test_confidence_grows_with_the_rating_and_a_repeated_purchase_counts_once(tmp_path):
    histories = [{"purchase_history": [purchase(0, 5), purchase(0, 1), purchase(1, 1), purchase(2, None)]}]
    table = pa.Table.from_pylist(histories, schema=pa.schema([ROW.field("purchase_history")]))
    pq.write_table(table, tmp_path / "train.parquet")
    matrix = user_item_matrix([tmp_path / "train.parquet"], ["item0", "item1", "item2"], alpha=2.0)
    assert matrix.toarray().tolist() == [[11.0, 3.0, 7.0]]
