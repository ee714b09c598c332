"""Check the claims of narratives against the record."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from ... import llm, outputs
from ...errors import InputError
from ...intervals import Interval, format_interval
from ...llm.spending import Estimate
from ...metrics.bootstrap import share_interval
from ...outputs import item_files, rows, split_files
from .entailment import Asked, CrossEncoderNLI, Question, request
from .facts import KINDS, Fact, Record, claims, facts
from .patterns import BEYOND
from .settings import PACKAGES, GroundingConfig
from .vocabulary import Vocabulary

ENTITIES = ("item", "brand", "category", "colour")


REFERENCE = "reference"


MOST_TEXTS = 50_000
"""Reviews that show how the catalogue's names are written; the first of the train users."""


CLAIMS = pa.schema(
    [
        *((name, pa.string()) for name in ("reviewer_id", "task", "model", "claim")),
        ("verdict", pa.string()),  # supported, unsupported, unchecked
        ("checked_by", pa.string()),  # rules, nli, llm; null where unchecked
        ("facts", pa.list_(pa.struct([("kind", pa.string()), ("text", pa.string()), ("supported", pa.bool_())]))),
        ("hallucinated", pa.list_(pa.string())),  # items, brands, categories, colours that the record does not hold
    ]
)


@dataclass(frozen=True)
class Narrative:
    """One text about one user."""

    reviewer_id: str
    task: str
    model: str
    text: str
    reference: str
    history: list[dict[str, Any]]


@dataclass(frozen=True)
class Claim:
    """A claim and what came of it."""

    text: str
    facts: list[Fact]

    @property
    def supported(self) -> bool | None:
        """By the rules; None where they find nothing to check, or nothing false in a claim that says more."""
        if not all(fact.supported for fact in self.facts):
            return False
        return True if self.facts and not BEYOND.search(self.text) else None


def build(run: Path, out: Path, work: Path, config: GroundingConfig) -> dict[str, Any]:
    """Check the narratives of `run`; `results.json` and `claims.parquet` go into `out`.

    Raises:
        InputError: there are no predictions.
        ConfigError: the NLI model cannot be used, or the language model's settings cannot.
        RunError: the server of the language model cannot be used; what was paid for is kept.
    """
    split = json.loads((run / "evaluation" / "results.json").read_text(encoding="utf-8"))["split"]
    vocabulary = vocabulary_of(run)
    total = pq.read_metadata(run / "evaluation" / "predictions.parquet").num_rows
    if not total:
        raise InputError(f"{run} has no predictions to check. Evaluate users with references: regen evaluate {run}")
    tallies = Tallies()
    nli = CrossEncoderNLI(config.nli) if config.nli else None
    with contextlib.ExitStack() as stack:
        asked = None
        if config.backend != "reference":
            number = sum(1 for _ in questions(run, split, vocabulary))
            store = stack.enter_context(llm.Store(run / "requests" / "grounding.sqlite"))
            llm.ask(
                lambda: (request(question, config) for question in questions(run, split, vocabulary)),
                config,
                store,
                total=number,
                desc="grounding",
            )
            asked = Asked(store, out / "failed.jsonl", config)
        writer = stack.enter_context(pq.ParquetWriter(out / "claims.parquet", CLAIMS, compression="zstd"))
        bar = stack.enter_context(tqdm(total=total, desc="      checking", unit="narrative", leave=False))
        found = checked(run, split, vocabulary, nli, asked, config, tallies, bar)
        writer.write_table(pa.Table.from_pylist([], CLAIMS))
        while part := list(islice(found, 4096)):
            writer.write_table(pa.Table.from_pylist(part, CLAIMS))
        counts = {"failed": asked.failed, **asked.store.totals()} if asked else {}
    results = {
        "split": split,
        "n_users": len(tallies.users),
        "models": tallies.report(config.seed),
        "checker": {
            "rules": list(KINDS),
            "nli": _public(config.nli),
            "llm": _public(config.model) if asked else None,
        },
        "vocabulary": {
            name: len(getattr(vocabulary, name)) for name in ("brands", "categories", "modifiers", "titles")
        },
        "seed": config.seed,
        "versions": outputs.versions(PACKAGES),
    }
    (out / "results.json").write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return {"users": len(tallies.users), "claims": tallies.claims, **counts}


def estimate(run: Path, config: GroundingConfig) -> Estimate:
    """What `build` would still ask a language model for, and its cost; sends nothing."""
    if config.backend == "reference":
        return Estimate()
    split = json.loads((run / "evaluation" / "results.json").read_text(encoding="utf-8"))["split"]
    vocabulary = vocabulary_of(run)
    return llm.estimate(
        lambda: (request(question, config) for question in questions(run, split, vocabulary)),
        config,
        run / "requests" / "grounding.sqlite",
    )


def vocabulary_of(run: Path) -> Vocabulary:
    """The vocabulary of the catalogue of `run`, with the train users' reviews as prose."""
    texts = (
        purchase["review"]["text"] or ""
        for row in rows(split_files(run / "dataset", "train"), ["purchase_history"])
        for purchase in row["purchase_history"]
        if purchase["review"]
    )
    return Vocabulary.of(list(rows(item_files(run / "dataset"))), islice(texts, MOST_TEXTS))


def narratives(run: Path, split: str) -> Iterator[Narrative]:
    """The references (once for each user and task) and the predictions of every model, user by user."""
    by_user: dict[str, list[dict[str, Any]]] = {}
    for row in pq.read_table(run / "evaluation" / "predictions.parquet").to_pylist():
        by_user.setdefault(row["reviewer_id"], []).append(row)
    for user in rows(split_files(run / "dataset", split), ["reviewer_id", "purchase_history"]):
        told: set[str] = set()
        for row in by_user.get(user["reviewer_id"], ()):
            given = (row["reviewer_id"], row["task"])
            reference, history = row["reference"] or "", user["purchase_history"] or []
            if row["task"] not in told:
                told.add(row["task"])
                yield Narrative(*given, REFERENCE, reference, reference, history)
            yield Narrative(*given, row["model"], row["prediction"] or "", reference, history)


def claims_of(text: str, history: Sequence[Record], vocabulary: Vocabulary) -> list[Claim]:
    """The claims of a narrative with what the rules make of them.

    Args:
        text: The narrative.
        history: The user's purchases, oldest first.
        vocabulary: Of the catalogue.
    """
    found, before = [], ""
    for claim in claims(text):
        found.append(Claim(claim, facts(claim, before, history, vocabulary)))
        before = claim
    return found


def questions(run: Path, split: str, vocabulary: Vocabulary) -> Iterator[Question]:
    """What entailment is asked about each narrative; see `questions_about`."""
    for narrative in narratives(run, split):
        records = [Record.read(purchase) for purchase in narrative.history]
        found, reference = (claims_of(text, records, vocabulary) for text in (narrative.text, narrative.reference))
        yield from (question for question in questions_about(narrative, found, reference) if question)


def questions_about(
    narrative: Narrative, found: Sequence[Claim], reference: Sequence[Claim]
) -> tuple[Question | None, Question | None]:
    """What the rules leave open; None where there is nothing to ask.

    Returns:
        Does the record entail the unchecked claims of the narrative? Does the narrative entail those of its reference
        that have no facts to compare?
    """
    about = (narrative.reviewer_id, f"{narrative.task}, {narrative.model}")
    unchecked = tuple(claim.text for claim in found if claim.supported is None)
    open_ = tuple(claim.text for claim in reference if not claim.facts)
    told = narrative.model != REFERENCE and bool(narrative.text.strip())
    return (
        Question(*about, unchecked, narrative.history) if unchecked else None,
        Question(*about, open_, None, narrative.text) if open_ and told else None,
    )


def checked(
    run: Path,
    split: str,
    vocabulary: Vocabulary,
    nli: CrossEncoderNLI | None,
    asked: Asked | None,
    config: GroundingConfig,
    tallies: Tallies,
    bar: tqdm,
) -> Iterator[dict[str, Any]]:
    """Rows of CLAIMS for every narrative; the counts of each go into `tallies`."""

    def answer(question: Question) -> Sequence[bool | None]:
        return nli(question, config.nli_threshold) if nli else asked(question) if asked else []

    for narrative in narratives(run, split):
        records = [Record.read(purchase) for purchase in narrative.history]
        found, reference = (claims_of(text, records, vocabulary) for text in (narrative.text, narrative.reference))
        by_record, by_narrative = (
            answer(question) if question else [] for question in questions_about(narrative, found, reference)
        )
        entailed = iter(by_record)
        verdicts: list[bool | None] = []
        for claim in found:
            by = "rules"
            verdict = claim.supported
            if verdict is None:
                verdict, by = next(entailed, None), "nli" if nli else "llm"
            verdicts.append(verdict)
            yield {
                "reviewer_id": narrative.reviewer_id,
                "task": narrative.task,
                "model": narrative.model,
                "claim": claim.text,
                "verdict": "unchecked" if verdict is None else "supported" if verdict else "unsupported",
                "checked_by": None if verdict is None else by,
                "facts": [{"kind": fact.kind, "text": fact.text, "supported": fact.supported} for fact in claim.facts],
                "hallucinated": [fact.text for fact in claim.facts if fact.kind in ENTITIES and not fact.supported],
            }
        said, compared = covered(found, reference)
        said += by_narrative.count(True)
        compared += len(by_narrative) - by_narrative.count(None)
        if (nli or asked) and not narrative.text.strip():  # nobody need be asked what no words say
            compared += sum(not claim.facts for claim in reference)
        tallies.add(narrative, found, verdicts, said, compared)
        bar.update(narrative.model != REFERENCE)


def covered(told: Sequence[Claim], reference: Sequence[Claim]) -> tuple[int, int]:
    """How many claims of a reference a narrative covers, and how many can be compared."""
    said = [fact for claim in told for fact in claim.facts]
    compared = [claim for claim in reference if claim.facts]
    return sum(all(any(_says(other, fact) for other in said) for fact in claim.facts) for claim in compared), len(
        compared
    )


def _says(told: Fact, fact: Fact) -> bool:
    """Whether `told` says what `fact` says; a fuller name of a thing says the shorter one too."""
    if fact.kind in ENTITIES:
        same = told.kind in ENTITIES and told.value[0] == fact.value[0]
        return same and set(fact.value[1:]) <= set(told.value[1:])
    return told.kind == fact.kind and told.value == fact.value


class Tallies:
    """Counts of claims and facts by model, task and user."""

    def __init__(self) -> None:
        self.users: dict[str, int] = {}
        self.claims = 0
        self.counts: dict[tuple[str, str], list[Counter[str]]] = {}

    def add(
        self, narrative: Narrative, found: Sequence[Claim], verdicts: Sequence[bool | None], covered: int, compared: int
    ) -> None:
        """Count one narrative."""
        self.users.setdefault(narrative.reviewer_id, len(self.users))
        self.claims += len(found)
        count: Counter[str] = Counter(claims=len(found), covered=covered, compared=compared)
        count["checked"] = sum(verdict is not None for verdict in verdicts)
        count["supported"] = sum(verdict is True for verdict in verdicts)
        for fact in (fact for claim in found for fact in claim.facts):
            count[f"{fact.kind} facts"] += 1
            count[f"{fact.kind} supported"] += fact.supported
        self.counts.setdefault((narrative.model, narrative.task), []).append(count)

    def report(self, seed: int) -> dict[str, dict[str, dict[str, Any]]]:
        """The figures of each model and task; a share of nothing is null."""
        report: dict[str, dict[str, dict[str, Any]]] = {}
        for (model, task), counts in self.counts.items():

            def share(part: str, whole: str, counts: list[Counter[str]] = counts) -> Interval:
                return share_interval(
                    np.array([[count[part], count[whole]] for count in counts], dtype=np.float64), seed
                )

            total = sum(counts, Counter[str]())
            report.setdefault(model, {})[task] = {
                "n": len(counts),
                "claims": total["claims"],
                "checked": total["checked"],
                "precision": share("supported", "checked"),
                "recall": share("covered", "compared"),
                "checked_share": share("checked", "claims"),
                "hallucinated_entities": sum(total[f"{kind} facts"] - total[f"{kind} supported"] for kind in ENTITIES),
                "kinds": {
                    kind: {"facts": total[f"{kind} facts"], "precision": share(f"{kind} supported", f"{kind} facts")}
                    for kind in KINDS
                },
            }
        return report


def _public(name: str | None) -> str | None:
    from ...outputs import public_name

    return public_name(name) if name else None


def summary(folder: Path) -> str:
    """The results in the output `folder`, as a Markdown table."""
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    lines = [
        f"Claims of narratives about {results['n_users']} {results['split']} users. Precision: claims that the record "
        "bears out, of those checked; recall: claims of the reference that the text covers.",
        "",
        "| task | model | claims | checked | precision | recall | entities not in the record |",
        "|---|---|---|---|---|---|---|",
    ]
    tasks = list(dict.fromkeys(task for by_task in results["models"].values() for task in by_task))
    for task in tasks:
        for model, by_task in results["models"].items():
            if found := by_task.get(task):
                cells = [
                    format_interval(found["precision"]),
                    format_interval(found["recall"]),
                    str(found["hallucinated_entities"]),
                ]
                lines.append(
                    f"| {task} | {model} | {found['claims']} | {found['checked']} | " + " | ".join(cells) + " |"
                )
    return "\n".join(lines)
