"""Write the sample world: raw review and item files, and their truth."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ... import outputs, schema
from ...progress import Bar
from .critique_text import critiques
from .item_text import item_record
from .narrative_text import narratives
from .review_text import review_records
from .settings import SampleConfig
from .world import Item, Shopper, make_items, make_shoppers

TRUTH = pa.schema(
    [
        *(schema.NARRATIVES.field(name) for name in ("reviewer_id", "last_purchase", "user")),
        ("circle", pa.string()),  # the hidden trait
        ("favourite_brand", pa.string()),
        ("favourite_colour", pa.string()),
        ("favourite_use", pa.string()),
        ("favoured_kinds", pa.list_(pa.string())),
        ("concern", pa.string()),
        ("recipient", pa.string()),  # null for a shopper who buys nothing as a gift
        ("grumble", pa.string()),
        ("mood", pa.string()),
        ("purchases", pa.list_(pa.string())),  # asin, oldest first
        ("critiques", pa.list_(pa.struct([(name, pa.string()) for name in ("text", "attribute", "value")]))),
        ("simulated", pa.bool_()),  # always true
    ]
)
ITEM_TRUTH = pa.schema(
    [(name, pa.string()) for name in ("asin", "circle", "brand", "kind", "colour", "use")] + [("simulated", pa.bool_())]
)
DUPLICATED, UNKNOWN_ITEM, UNTITLED = 0.004, 0.002, 0.005
"""Shares of damaged records: duplicate reviews, reviews of an unknown item, items without a usable title."""


def write(folder: Path, config: SampleConfig) -> dict[str, int]:
    """Write the sample world into `folder`, the same bytes for the same `config`.

    Files: `reviews.jsonl.gz`, `items.jsonl.gz` (raw format of 2018), `truth.parquet` (`TRUTH`, a row per shopper) and
    `item_truth.parquet` (`ITEM_TRUTH`). Damaged records affect no last purchase and no fact of the narratives.

    Returns:
        The numbers of shoppers, items, purchases and lines of the raw files, and of damaged records by kind.
    """
    world, text, damage = (np.random.default_rng([config.seed, stream]) for stream in range(3))
    items = make_items(config.items, world)
    shoppers = make_shoppers(config.shoppers, items, world)
    item_records = [item_record(item, text) for item in items]
    item_lines = list(map(_line, item_records))
    prices = {record["asin"]: record["price"] for record in item_records}
    review_lines, earlier = [], []
    for shopper in Bar(shoppers, "simulating", unit="shoppers"):
        lines = [_line(record) for record in review_records(shopper, text)]
        review_lines += lines
        earlier += lines[:-1]
    counts = {"shoppers": len(shoppers), "items": len(items), "purchases": len(review_lines)}
    counts |= _damage(review_lines, item_lines, shoppers, earlier, damage)
    _write_lines(folder / outputs.SAMPLE_REVIEWS, review_lines, damage)
    _write_lines(folder / outputs.SAMPLE_ITEMS, item_lines, damage)
    truth = [_truth(shopper, prices) for shopper in shoppers]
    outputs.write_parquet(folder / outputs.TRUTH, pa.Table.from_pylist(truth, TRUTH))
    outputs.write_parquet(folder / outputs.ITEM_TRUTH, pa.Table.from_pylist(list(map(_item_truth, items)), ITEM_TRUTH))
    return counts | {"review_lines": len(review_lines), "item_lines": len(item_lines)}


def build(run: Path, out: Path, work: Path, config: SampleConfig) -> dict[str, int]:
    """Write the sample world into `out`; see `write`."""
    return write(out, config)


def _damage(
    review_lines: list[str],
    item_lines: list[str],
    shoppers: list[Shopper],
    earlier: list[str],
    rng: np.random.Generator,
) -> dict[str, int]:
    """Add damaged records to both lists; returns their number by kind."""
    size = len(review_lines)
    duplicated = rng.choice(len(earlier), max(1, round(DUPLICATED * size)), replace=False)
    review_lines += [earlier[index] for index in duplicated]

    untitled = [f"SIMX{index:06d}" for index in range(max(2, round(UNTITLED * len(item_lines))))]
    markup = '<span id="productTitle" class="a-size-large">'
    for index, asin in enumerate(untitled):
        record = {"category": ["Everyday Goods"], "description": [], "brand": "", "price": "", "asin": asin}
        item_lines.append(_line(record | {"title": markup} if index % 2 else record))

    unknown = [f"SIMY{index:06d}" for index in range(max(1, round(UNKNOWN_ITEM * size)))]
    for asin in unknown + untitled:
        review_lines.append(_line(_stray_review(shoppers[rng.integers(len(shoppers))], asin)))

    review_lines += ['{"overall": 5.0, "reviewerID": "simulated-', "<html><body>Service unavailable</body></html>"]
    item_lines.append("not a record")
    return {
        "duplicated_reviews": len(duplicated),
        "reviews_of_unknown_items": len(unknown),
        "reviews_of_untitled_items": len(untitled),
        "untitled_items": len(untitled),
        "unreadable_reviews": 2,
        "unreadable_items": 1,
    }


def _stray_review(shopper: Shopper, asin: str) -> dict[str, Any]:
    """A review of an unknown item, on the day of the first purchase and so never the last."""
    first = shopper.purchases[0].unix_time
    return {
        "overall": 4.0,
        "verified": False,
        "reviewerID": shopper.reviewer_id,
        "asin": asin,
        "reviewText": "Fine so far.",
        "summary": "Fine",
        "unixReviewTime": first,
    }


def _truth(shopper: Shopper, prices: Mapping[str, str]) -> dict[str, Any]:
    """The row of a shopper; the narratives stage takes one of `critiques` if the last two items are similar."""
    return {
        "reviewer_id": shopper.reviewer_id,
        **narratives(shopper),
        "circle": shopper.circle,
        "favourite_brand": shopper.favourite("brand"),
        "favourite_colour": shopper.favourite("colour"),
        "favourite_use": shopper.favourite("use"),
        "favoured_kinds": list(shopper.favoured_kinds),
        "concern": shopper.concern,
        "recipient": shopper.recipient,
        "grumble": shopper.grumble,
        "mood": shopper.mood,
        "purchases": [purchase.item.asin for purchase in shopper.purchases],
        "critiques": critiques(shopper, prices),
        "simulated": True,
    }


def _item_truth(item: Item) -> dict[str, Any]:
    return {name: getattr(item, name) for name in ITEM_TRUTH.names if name != "simulated"} | {"simulated": True}


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False)


def _write_lines(path: Path, lines: list[str], rng: np.random.Generator) -> None:
    """Gzip the lines in random order, without a time in the header."""
    text = "".join(f"{lines[index]}\n" for index in rng.permutation(len(lines)))
    path.write_bytes(gzip.compress(text.encode(), compresslevel=6, mtime=0))
