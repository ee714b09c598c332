"""Users whose name, as the raw files state it, is in their own reviews or narratives."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from ..outputs import manifest
from ..schema import narratives

NAMED = (".json", ".jsonl", ".json.gz", ".jsonl.gz")
"""Raw files that can have a field `reviewerName`: those of the releases of 2014 and 2018."""
NO_NAMES = ("Amazon Customer", "Kindle Customer")
QUERY = """
    WITH names AS (
        SELECT reviewerID AS reviewer_id, any_value(trim(reviewerName)) AS name
        FROM read_json($raw, format = 'newline_delimited', ignore_errors = true,
                       columns = {{reviewerID: 'VARCHAR', reviewerName: 'VARCHAR'}})
        -- first and last name; a single word may be any word
        WHERE regexp_matches(trim(reviewerName), '^\\p{{Lu}}\\p{{L}}+.* \\p{{Lu}}\\p{{L}}+$')
          AND NOT list_contains($no_names, trim(reviewerName))
        GROUP BY reviewerID
    )
    SELECT count(*) FROM read_parquet($shards) JOIN names USING (reviewer_id)
    WHERE len(list_filter(
              purchase_history, lambda p: contains(concat_ws(chr(10), p.review.summary, p.review.text), name))) > 0
       OR contains(concat_ws(chr(10), {narratives}), name)
"""


def count_named_users(run: Path, shards: Sequence[Path]) -> int:
    """The number of users whose name is in their own reviews or narratives.

    Args:
        run: the run folder, whose manifest lists the raw files; files that no longer exist are skipped.
        shards: parquet files of users.
    """
    import duckdb
    import pyarrow.parquet as pq

    files = manifest(run, "sequences").get("inputs", {}).get("files", {})
    reviews = [str(run / path) for path, file in files.items() if file["kind"] == "reviews"]
    raw = [path for path in reviews if path.endswith(NAMED) and Path(path).exists()]
    if not raw or not shards:
        return 0
    # A text with an index in its path is part of the purchase history, which the query searches anyway.
    columns = pq.read_schema(shards[0])
    texts = [
        text.sql
        for text in narratives().values()
        if not any(isinstance(key, int) for key in text.field) and text.is_in(columns)
    ]
    with duckdb.connect(config={"memory_limit": "2GB"}) as connection:
        connection.execute("SET enable_progress_bar = false")
        ((users,),) = connection.sql(
            QUERY.format(narratives=", ".join(texts)),
            params={
                "raw": [glob.escape(path) for path in raw],
                "shards": [glob.escape(str(path)) for path in shards],
                "no_names": list(NO_NAMES),
            },
        ).fetchall()
    return int(users)
