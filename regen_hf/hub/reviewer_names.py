"""Reviews that their writers signed: the raw files tell the name of who wrote, which the sequences leave out."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from ..outputs import manifest

NAMED = (".json", ".jsonl", ".json.gz", ".jsonl.gz")
"""Raw files that may hold `reviewerName`: those of the releases of 2014 and 2018."""
NO_NAMES = ("Amazon Customer", "Kindle Customer")
QUERY = """
    WITH names AS (
        SELECT reviewerID AS reviewer_id, any_value(trim(reviewerName)) AS name
        FROM read_json($raw, format = 'newline_delimited', ignore_errors = true,
                       columns = {reviewerID: 'VARCHAR', reviewerName: 'VARCHAR'})
        -- first and last name; a single word may be any word
        WHERE regexp_matches(trim(reviewerName), '^\\p{Lu}\\p{L}+.* \\p{Lu}\\p{L}+$')
          AND NOT list_contains($no_names, trim(reviewerName))
        GROUP BY reviewerID
    )
    SELECT count(*) FROM read_parquet($shards) JOIN names USING (reviewer_id)
    WHERE len(list_filter(
              purchase_history, lambda p: contains(concat_ws(chr(10), p.review.summary, p.review.text), name))) > 0
       OR contains(concat_ws(chr(10), last_purchase.reason, last_purchase.explanation, last_purchase.endorsement,
                             "user".profile, "user".brief_summary, "user".long_summary), name)
"""


def signed(run: Path, shards: Sequence[Path]) -> int:
    """How many users have their own name, as the raw files give it, in their reviews or narratives.

    Args:
        run: the run folder, which knows its raw files; those that are gone tell nothing.
        shards: parquet files of users.
    """
    import duckdb

    read = manifest(run, "sequences").get("inputs", {}).get("files", {})
    raw = [path for path, file in read.items() if file["kind"] == "reviews" and path.endswith(NAMED)]
    raw = [path for path in raw if Path(path).exists()]
    if not raw or not shards:
        return 0
    with duckdb.connect(config={"memory_limit": "2GB"}) as connection:
        connection.execute("SET enable_progress_bar = false")
        ((users,),) = connection.sql(
            QUERY,
            params={
                "raw": [glob.escape(path) for path in raw],
                "shards": [glob.escape(str(path)) for path in shards],
                "no_names": list(NO_NAMES),
            },
        ).fetchall()
    return int(users)
