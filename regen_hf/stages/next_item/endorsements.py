"""The joint pass: the model's own first choice for a user, and its endorsement from the same pass.

    history of a test user  ─►  first choice among the items not bought  ─►  its endorsement, from the same cache

The reference is the endorsement of the true last purchase. So the scores are reported for all users, and for the hits:
the users whose first choice is the true one. Whether the texts are true is checked by the grounding stage.
"""

from __future__ import annotations

import functools
import heapq
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ... import outputs
from ...metrics.scoring import PREDICTION_SCHEMA, intervals, similarity_encoder
from ...metrics.tables import PAPER_METRICS, UNITS, markdown, score_grid
from ...metrics.text_metrics import signatures, statistics
from ...progress import Bar
from ...schema import TASKS, text_columns
from .fused import FusedModel, by_length
from .recommender import Cases, Recommender

TASK = "product_endorsement"
MODEL = "own_choice"
"""The column `model` of the texts."""
BATCH = 32
"""Users per batch; an interrupted stage loses at most one."""
MAX_NEW_TOKENS = 256
LONGEST = 16
"""Endorsements of train users, the longest ones, which limit the length of the written ones."""
SCHEMA = pa.schema([*PREDICTION_SCHEMA, ("chosen", pa.string())])


def write(run: Path, model: FusedModel, recommender: Recommender, cases: Cases, limit: int, work: Path) -> pa.Table:
    """A table of SCHEMA: the endorsements for the first `limit` cases with a reference.

    Finished batches in `work` are reused.
    """
    references = _references(run, model.split, cases, limit)
    order = by_length(cases, references)
    new_tokens = _new_tokens(run, model)
    parts: list[pa.Table] = [SCHEMA.empty_table()]
    with Bar(about="endorsing", total=len(order), unit="users") as bar:
        for start in range(0, len(order), BATCH):
            batch, part = order[start : start + BATCH], work / f"{start}.parquet"
            if not part.exists():
                histories = [cases.histories[case] for case in batch]
                chosen, texts = model.endorse(
                    [cases.rows[case] for case in batch],
                    TASK,
                    new_tokens,
                    functools.partial(recommender.first_choices, histories=histories),
                )
                users = [cases.reviewer_ids[case] for case in batch]
                asins = [recommender.asins[item] for item in chosen]
                columns = [users, [TASK] * len(users), [MODEL] * len(users), texts]
                columns += [[references[case] for case in batch], asins]
                outputs.write_parquet(part, pa.table(columns, schema=SCHEMA))
            parts.append(pq.read_table(part))
            bar.update(len(batch))
    table: pa.Table = pa.concat_tables(parts).take(np.argsort(order))
    return table


def scores(run: Path, table: pa.Table, ranks: pa.Table, seed: int) -> dict[str, Any]:
    """The paper's metrics of the endorsements of `table`, for all users and for the hits, with their intervals.

    `ranks` has the columns `reviewer_id` and `target`, the true last purchase.
    """
    targets = dict(zip(ranks["reviewer_id"].to_pylist(), ranks["target"].to_pylist(), strict=True))
    rows = table.to_pylist()
    hits = np.array([targets[row["reviewer_id"]] == row["chosen"] for row in rows])
    encoder_name, encoder = similarity_encoder(run, None)
    found = statistics([row["prediction"] for row in rows], [row["reference"] for row in rows], encoder)
    metrics = {group: intervals(part, seed) for group, part in (("all", found), ("hits", found[hits]))}
    return {
        "users": {"all": len(rows), "hits": int(hits.sum())},
        "scores": {group: {TASK: {name: values[name] for name in PAPER_METRICS}} for group, values in metrics.items()},
        "encoder": encoder_name,
        **signatures(),
    }


def summary(results: dict[str, Any]) -> str:
    """The scores as a Markdown table."""
    users = results["users"]
    head = (
        f"Endorsements of the model's own first choice, for {users['all']} users, against those of the true last "
        f"purchase; for {users['hits']} users (hits) both are the same item. {UNITS}."
    )
    return f"{head}\n\n{markdown(score_grid(results['scores'], PAPER_METRICS))}"


def _references(run: Path, split: str, cases: Cases, limit: int) -> dict[int, str]:
    """The reference endorsements of the first `limit` cases that have one, by the number of the case."""
    number_of = {row: case for case, row in enumerate(cases.rows)}
    references: dict[int, str] = {}
    for row, user in enumerate(outputs.rows(outputs.dataset_files(run, split), text_columns([TASK]))):
        if len(references) == limit:
            break
        if row in number_of and (text := TASKS[TASK].text(user)):
            references[number_of[row]] = text
    return references


def _new_tokens(run: Path, model: FusedModel) -> int:
    """The maximum number of new tokens, with the end token: the longest endorsement of the train users."""

    def texts() -> Iterator[str]:
        for user in outputs.rows(outputs.dataset_files(run, "train"), text_columns([TASK])):
            if text := TASKS[TASK].text(user):
                yield text

    longest = heapq.nlargest(LONGEST, texts(), key=len)
    lengths = map(len, model.processor.tokenizer(longest, add_special_tokens=False)["input_ids"]) if longest else ()
    limits = [MAX_NEW_TOKENS, 1 + max(lengths, default=MAX_NEW_TOKENS)]
    if model.model.config.window is not None:
        limits.append(model.model.config.window // 2)  # the prompt needs room too
    return min(limits)
