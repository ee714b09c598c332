"""Citations of a model of the sample world against the planted truth, and their cost; prints one JSON line.

    regen quickstart runs/sample
    python benchmarks/citations.py runs/sample --out benchmarks/results/citations.json

- facts: sentences whose facts are true, by the purchases that make them true. `one`: the first purchase of the long
  summary, the last item of the endorsement and of the reason. `several`: the three purchases in "It follows …" of the
  explanation, the purchases of the brand that it counts, and the purchases with the favourites of the long summary.
  Precision: cited purchases that make the fact true, of those cited; recall: of those that make it true, those cited.
- nothing: the share of sentences of another user's text that cite something.
- verdicts: `record_check` on the same sentences and on those of another user: precision and share of the false ones
  that are not supported.
- cost: CPU seconds of the texts of a history of 50 purchases, and of their citations, over all tasks.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np
import pyarrow.parquet as pq
import torch

import regen_hf
from regen_hf import outputs
from regen_hf.metrics.bootstrap import share_interval
from regen_hf.model.citations import Citer

TASKS = ("long_user_summary", "purchase_reason_explanation", "product_endorsement", "purchase_reason")
Items = list[dict[str, Any]]


def short(item: dict[str, Any]) -> str:
    """The words for an item in most narratives."""
    return f"{item['colour']} {item['kind']}"


def having(items: Items, **values: str) -> set[int]:
    """The purchases that have one of the values."""
    return {place for place, item in enumerate(items) if any(item[name] == value for name, value in values.items())}


def first_purchase(text: str, items: Items, shopper: dict[str, Any]) -> set[int] | None:
    """The purchases behind "It all began with …"."""
    stated = re.search(r"It all began with an? (.*)\.", text)
    return ({0} if stated[1] == short(items[0]) else set()) if stated else None


def last_item(text: str, items: Items, shopper: dict[str, Any]) -> set[int] | None:
    """The purchases behind the item of an endorsement, which names it with its brand."""
    last = items[-1]
    if not re.match(r"Pack the|Your next campsite|Give your desk|Out in the garden|Make room|Your workbench", text):
        return None
    return {len(items) - 1} if f"{last['colour']} {last['brand']} {last['kind']}" in text else set()


def reason(text: str, items: Items, shopper: dict[str, Any]) -> set[int] | None:
    """The purchases behind the item of a reason, which names it with its use."""
    last = items[-1]
    return {len(items) - 1} if f"{last['colour']} {last['use']} {last['kind']}" in text else set()


def follows(text: str, items: Items, shopper: dict[str, Any]) -> set[int] | None:
    """The last purchase, and the two that it follows."""
    if " follows " not in text:
        return None
    true = short(items[-2]) in text and short(items[-3]) in text
    return set(range(len(items) - 3, len(items))) if true else set()


def brand(text: str, items: Items, shopper: dict[str, Any]) -> set[int] | None:
    """The last purchase, and those of the brand that is counted."""
    if " purchases." not in text:
        return None
    true = items[-1]["brand"] in text and shopper["favourite_brand"] in text
    return {len(items) - 1} | having(items, brand=shopper["favourite_brand"]) if true else set()


def favourites(text: str, items: Items, shopper: dict[str, Any]) -> set[int] | None:
    """The purchases with the favourite brand, colour or use."""
    if not re.search(r"No brand outnumbers|second to none|no name is|nobody sells|as often as|beaten by none", text):
        return None
    values = {name: shopper[f"favourite_{name}"] for name in ("brand", "colour", "use")}
    return having(items, **values) if values["brand"] in text and values["colour"] in text else set()


FACTS = {
    "one": {
        "first purchase": ("long_user_summary", first_purchase),
        "last item": ("product_endorsement", last_item),
        "reason": ("purchase_reason", reason),
    },
    "several": {
        "three purchases": ("purchase_reason_explanation", follows),
        "brand": ("purchase_reason_explanation", brand),
        "favourites": ("long_user_summary", favourites),
    },
}


def sides(sentence: dict[str, Any], true: set[int]) -> np.ndarray:
    """Right citations, citations, and purchases that make the sentence true."""
    cited = {citation["purchase"] for citation in sentence["citations"]}
    return np.array([len(cited & true), len(cited), len(true)], float)


def facts(run: Path, users: list[dict[str, Any]], texts: dict[str, list[Any]]) -> dict[str, Any]:
    """Precision and recall of the citations by kind of fact, with intervals over the users."""
    truth = {row["reviewer_id"]: row for row in pq.read_table(outputs.path(run, "sample", outputs.TRUTH)).to_pylist()}
    table = pq.read_table(outputs.path(run, "sample", outputs.ITEM_TRUTH)).to_pylist()
    attributes = {row["asin"]: row for row in table}
    results: dict[str, Any] = {}
    for group, kinds in FACTS.items():
        total = np.zeros((len(users), 3))
        for kind, (task, purchases) in kinds.items():
            sums, stated, true_facts = np.zeros((len(users), 3)), 0, 0
            for number, user in enumerate(users):
                items = [attributes[purchase["item"]["asin"]] for purchase in user["purchase_history"]]
                for sentence in texts[task][number]:
                    true = purchases(sentence["text"].strip(), items, truth[user["reviewer_id"]])
                    stated += true is not None
                    if true:
                        true_facts += 1
                        sums[number] += sides(sentence, true)
            results[kind] = {"stated": stated, "true": true_facts, **scores(sums)}
            total += sums
        results[group] = scores(total)
    return results


def scores(sums: np.ndarray) -> dict[str, Any]:
    """Precision and recall with intervals."""
    return {"precision": share_interval(sums[:, [0, 1]]), "recall": share_interval(sums[:, [0, 2]])}


def of_nothing(regen: Any, users: list[dict[str, Any]], texts: dict[str, list[Any]]) -> dict[str, Any]:
    """The share of the sentences of another user's text that cite a purchase of this user."""
    sums = np.zeros((len(users), 2))
    for number, user in enumerate(users):
        task = TASKS[number % len(TASKS)]
        text = "".join(sentence["text"] for sentence in texts[task][(number + 1) % len(users)])
        for sentence in cited(regen, user["purchase_history"], task, text):
            sums[number] += (bool(sentence["citations"]), 1)
    return {"sentences": int(sums[:, 1].sum()), "cite": share_interval(sums)}


def cited(regen: Any, history: Any, task: str, text: str) -> Iterator[dict[str, Any]]:
    """The cited sentences of a given text."""
    inputs = regen.processor(history, task)
    citer = Citer(regen.model, regen.processor.tokenizer, inputs)
    return citer.add(regen.processor.tokenize_completion(text), last=True)


def verdicts(run: Path, users: list[dict[str, Any]], texts: dict[str, list[Any]]) -> dict[str, Any]:
    """The verdicts of the record on texts about the user, and about another one."""
    check = regen_hf.record_check(run)
    counts = {}
    for name, shift in (("own", 0), ("of_another_user", 1)):
        found = [
            verdict["verdict"]
            for task in TASKS
            for number in range(len(users))
            for verdict in check(
                users[(number + shift) % len(users)]["purchase_history"],
                [sentence["text"].strip() for sentence in texts[task][number]],
            )
        ]
        counts[name] = {str(verdict): round(found.count(verdict) / len(found), 4) for verdict in dict.fromkeys(found)}
    return counts


def cost(regen: Any, users: list[dict[str, Any]], runs: int) -> dict[str, Any]:
    """CPU seconds of the texts and of their citations for 50 purchases, the least of `runs`, over all tasks."""
    history = [purchase for user in users for purchase in user["purchase_history"]][:50]
    history = [{**purchase, "review": {**purchase["review"], "unix_time": None}} for purchase in history]

    def seconds(**options: Any) -> float:
        total = 0.0
        for task in regen.processor.task_prompts:
            tries = []
            for _ in range(runs):
                start = time.process_time()
                regen.narrate(history, task, **options)
                tries.append(time.process_time() - start)
            total += min(tries)
        return total

    seconds()
    plain, with_citations = seconds(), seconds(cite=True)
    return {
        "texts": round(plain, 3),
        "with_citations": round(with_citations, 3),
        "citations_over_texts": round((with_citations - plain) / plain, 2),
        "with_citations_over_texts": round(with_citations / plain, 2),
        "purchases": len(history),
    }


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run of the sample world with a trained model")
    parser.add_argument("--users", type=int, default=100, help="test users (%(default)s)")
    parser.add_argument("--skip", type=int, default=0, help="test users before these (%(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="runs behind each time (%(default)s)")
    parser.add_argument("--out", type=Path, help="also write the line into this file")
    options = parser.parse_args()
    torch.manual_seed(0)
    regen = regen_hf.load(str(outputs.folder(options.run, "train")))
    rows = outputs.rows(outputs.dataset_files(options.run, "test"), ["reviewer_id", "purchase_history"])
    users = list(islice(rows, options.skip, options.skip + options.users))
    texts = {task: regen.narrate(users, task, cite=True) for task in TASKS}
    line = json.dumps(
        {
            "facts": facts(options.run, users, texts),
            "nothing": of_nothing(regen, users, texts),
            "verdicts": verdicts(options.run, users, texts),
            "cost": cost(regen, users, options.runs),
            "threshold": regen.model.config.citation_threshold,
            "sizes": {
                "users": len(users),
                "steps": outputs.manifest(options.run, "train")["counts"]["steps"],
                "parameters": outputs.manifest(options.run, "train")["counts"]["parameters"],
            },
            "threads": torch.get_num_threads(),
            "cores": len(os.sched_getaffinity(0)),
            "runs": options.runs,
        }
    )
    if options.out:
        options.out.write_text(line + "\n", encoding="utf-8")
    print(line)


if __name__ == "__main__":
    main()
