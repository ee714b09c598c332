"""Counts of a dataset."""

import pyarrow as pa
import pyarrow.parquet as pq

from regen_hf.metrics import counts
from regen_hf.schema import ROW


def test_files_of_an_earlier_version_without_critiques_are_counted(tmp_path):
    def without_critique(kind):
        fields = [(field.name, field.type) for field in kind if field.name != "critique"]
        return pa.struct(fields)

    columns = {name: without_critique(ROW.field(name).type) for name in ("last_purchase", "metadata")}
    row = {"last_purchase": {"reason": "They need pens."}, "metadata": {"example": {"richness": 4}}}
    pq.write_table(
        pa.Table.from_pylist([row, row], pa.schema(columns | {"user": ROW.field("user").type})), tmp_path / "a"
    )
    lengths, scores = counts.narrative_lengths([tmp_path / "a"]), counts.rating_counts([tmp_path / "a"])
    assert (lengths["purchase_reason"], lengths["critique"]) == ({3: 2}, {None: 2})
    assert (scores["example", "richness"], scores["critique", "leak"]) == ({4: 2}, {None: 2})
