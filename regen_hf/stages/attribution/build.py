"""Analyse the soft tokens and the influence of purchases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from ... import outputs
from ...metrics.citation_tables import tables_of_tests
from ...metrics.tables import markdown
from .settings import AttributionConfig

CITED = pa.schema(
    [
        *((name, pa.string()) for name in ("reviewer_id", "task", "text")),
        ("citations", pa.list_(pa.struct([("purchase", pa.int64()), ("strength", pa.float64())]))),  # 0: the oldest
        ("strength", pa.float64()),  # decrease of the sentence's log-likelihood without any purchase, in nats
    ]
)


def build(run: Path, out: Path, work: Path, config: AttributionConfig) -> dict[str, Any]:
    """Analyse the trained model of `run`; the files of the stage go into `out`."""
    import torch

    from ...model import RegenForCausalLM, RegenProcessor  # registers them for `from_pretrained`
    from ...model.pipeline import RegenPipeline
    from . import left_out, soft_tokens

    model = RegenForCausalLM.from_pretrained(outputs.folder(run, "train")).eval()
    model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    processor = RegenProcessor.from_pretrained(outputs.folder(run, "train"))
    history = outputs.manifest(run, "train")["config"]["history"]
    results = soft_tokens.build(run, out, model, processor, config) | {"history": history}
    # A control that reads its history as text has no soft tokens to leave out.
    effects = left_out.build(run, out, model, processor, 0 if history == "text" else config.users)
    tested = 0 if history == "text" else config.tested_users
    results |= tests(run, out, RegenPipeline(model, processor), tested, config.seed)
    outputs.write_results(out, results)
    return {
        "items": results["items"],
        "points": results["map"]["points"],
        "left_out": effects,
        "tested_sentences": results["citations"]["tested"] if tested else 0,
    }


def tests(run: Path, out: Path, regen: Any, number: int, seed: int) -> dict[str, Any]:
    """The tests of the citations and of the profile on the first `number` evaluated users; none for 0.

    Each user has one narrative, of the tasks in turn; their sentences are written into `out`.
    """
    from . import deletion, robustness

    if not number:
        return {}
    window = regen.model.config.window
    max_new_tokens = outputs.manifest(run, "evaluate")["config"]["max_new_tokens"]
    if window is not None:
        max_new_tokens = min(max_new_tokens, window // 2)
    files = outputs.dataset_files(run, outputs.results(run)["split"])
    users = list(outputs.rows(files, ["reviewer_id", "purchase_history"], limit=number))
    users = [user for user in users if user["purchase_history"]]
    tasks = list(regen.processor.task_prompts)
    cases = [(user["purchase_history"], tasks[index % len(tasks)]) for index, user in enumerate(users)]
    prompted = [regen.purchases_in_prompt(history, task, max_new_tokens) for history, task in cases]
    firsts = [len(history) - number for (history, _), number in zip(cases, prompted, strict=True)]
    tested, sentences = deletion.deletion(regen, cases, firsts, max_new_tokens, seed)
    rows = [
        {**sentence, "reviewer_id": users[sentence["user"]]["reviewer_id"], "task": cases[sentence["user"]][1]}
        for sentence in sentences
    ]
    outputs.write_parquet(out / outputs.CITED, pa.Table.from_pylist(rows, schema=CITED))
    results = {"citations": {"threshold": regen.model.config.citation_threshold, **tested}}
    if robustness.TASK in tasks:
        items = list(outputs.rows(outputs.catalogue_files(run), limit=1000))
        histories = [history for history, _ in cases]
        results["robustness"] = robustness.robustness(regen, histories, items, max_new_tokens, seed)
    return results


def summary(folder: Path) -> str:
    """The tests in the output `folder` as Markdown; empty without any."""
    results = outputs.read_json(folder / outputs.RESULTS)
    return "\n\n".join(f"{text}\n\n{markdown([head, *rows])}" for text, head, rows in tables_of_tests(results))
