"""Check the claims of narratives against the record."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ... import llm, outputs
from ...errors import InputError
from ...intervals import Interval, format_interval
from ...llm.spending import Estimate
from ...metrics.bootstrap import share_interval
from ...metrics.tables import markdown
from ...progress import Bar
from .entailment import CrossEncoderNLI, Question, StoredVerdicts, request
from .facts import ENTITIES, KINDS, Fact, Record, beyond, claims, facts
from .settings import PACKAGES, GroundingConfig
from .vocabulary import Vocabulary

REFERENCE = "reference"
MAX_TEXTS = 50_000
"""Maximum number of reviews of train users in which capitals of names are counted."""
CLAIMS = pa.schema(
    [
        *((name, pa.string()) for name in ("reviewer_id", "task", "model", "claim")),
        ("verdict", pa.string()),  # supported, unsupported, unchecked
        ("checked_by", pa.string()),  # rules, nli, llm; null where unchecked
        ("facts", pa.list_(pa.struct([("kind", pa.string()), ("text", pa.string()), ("supported", pa.bool_())]))),
        ("hallucinated", pa.list_(pa.string())),  # items, brands, categories, colours that are not in the record
    ]
)
Judge = Callable[[Question], Sequence[bool | None]]


@dataclass(frozen=True)
class Claim:
    """A claim and its facts."""

    text: str
    facts: list[Fact]

    @property
    def supported(self) -> bool | None:
        """The verdict of the rules; None for a claim without facts, or with more than the rules can check."""
        if not all(fact.supported for fact in self.facts):
            return False
        return True if self.facts and not beyond(self.text, self.facts) else None


@dataclass(frozen=True)
class Narrative:
    """One text about one user, with its claims and those of its reference."""

    reviewer_id: str
    task: str
    model: str
    text: str
    history: list[dict[str, Any]]
    claims: list[Claim]
    reference: list[Claim]


def build(run: Path, out: Path, work: Path, config: GroundingConfig, optional: Collection[str] = ()) -> dict[str, Any]:
    """Check the narratives of `run`; write `results.json` and `claims.parquet` into `out`.

    The endorsements of the model's own first choice are checked too if `optional`, the stages whose optional output can
    be used, contains `next-item`.

    Raises:
        InputError: there are no predictions.
        ConfigError: the NLI model or the settings of the language model cannot be used.
        RunError: the server of the language model cannot be used; stored answers are kept.
    """
    total = outputs.count([outputs.path(run, "evaluate", outputs.PREDICTIONS)])
    if not total:
        raise InputError(f"{run} has no predictions to check. Evaluate users with references: regen evaluate {run}")
    choices = own_choices(run, optional)
    total += choices.num_rows
    vocabulary = catalogue_vocabulary(run)
    nli = CrossEncoderNLI(config.nli, config.nli_threshold) if config.nli else None
    counts: dict[tuple[str, str], dict[str, Counter[str]]] = {}
    with contextlib.ExitStack() as stack:
        stored = None
        if config.backend != "reference":
            store = stack.enter_context(llm.Store(outputs.requests_path(run, "grounding")))
            for window in llm.passes(config, store):
                requests = _requests(run, choices, vocabulary, config, window)
                llm.ask(requests, config, store, total=sum(1 for _ in requests()), desc="grounding")
            stored = StoredVerdicts(store, out, config, window)
        append = stack.enter_context(outputs.row_writer(out / outputs.CLAIMS, CLAIMS))
        bar = stack.enter_context(Bar(about="checking", total=total, unit="narratives"))
        for narrative in narratives(run, choices, vocabulary):
            rows, counted = check(narrative, nli or stored, "nli" if nli else "llm")
            counts.setdefault((narrative.model, narrative.task), {})[narrative.reviewer_id] = counted
            for row in rows:
                append(row)
            bar.update(narrative.model != REFERENCE)
        answers: dict[str, int] = {}
        if stored:
            stored.failures.check()
            tokens = stored.window.tokens
            answers = {"failed": stored.failures.count, "window": tokens, **stored.store.counts()}
    users = len({user for by_user in counts.values() for user in by_user})
    results = {
        "split": outputs.results(run)["split"],
        "n_users": users,
        "models": scores(counts, config.seed),
        "checker": {
            "rules": list(KINDS),
            "nli": outputs.public_name(config.nli),
            "llm": outputs.public_name(config.model) if stored else None,
        },
        "vocabulary": {
            name: len(getattr(vocabulary, name)) for name in ("brands", "categories", "modifiers", "titles")
        },
        "seed": config.seed,
        "versions": outputs.versions(PACKAGES),
    }
    outputs.write_results(out, results)
    n_claims = sum(counted["claims"] for by_user in counts.values() for counted in by_user.values())
    return {"users": users, "claims": n_claims, **answers}


def estimate(run: Path, config: GroundingConfig, optional: Collection[str] = ()) -> Estimate:
    """The requests that `build` would send to a language model, and their cost; sends none."""
    if config.backend == "reference":
        return Estimate()
    path = outputs.requests_path(run, "grounding")
    window = llm.stored_window(config, path)
    requests = _requests(run, own_choices(run, optional), catalogue_vocabulary(run), config, window)
    return llm.estimate(requests, config, path)


def _requests(
    run: Path, choices: pa.Table, vocabulary: Vocabulary, config: GroundingConfig, window: llm.Window
) -> Callable[[], Iterator[llm.Request]]:
    return lambda: (
        request(question, config, window)
        for narrative in narratives(run, choices, vocabulary)
        for question in questions(narrative)
        if question
    )


def catalogue_vocabulary(run: Path) -> Vocabulary:
    """The vocabulary of the catalogue of `run`, with the train users' reviews as prose."""
    texts = (
        purchase["review"]["text"] or ""
        for row in outputs.rows(outputs.dataset_files(run, "train"), ["purchase_history"])
        for purchase in row["purchase_history"]
        if purchase["review"]
    )
    return Vocabulary.of(list(outputs.rows(outputs.catalogue_files(run))), islice(texts, MAX_TEXTS))


def own_choices(run: Path, optional: Collection[str]) -> pa.Table:
    """The endorsements of the model's own first choice; an empty table unless the next item stage wrote some."""
    path = outputs.path(run, "next-item", outputs.ENDORSEMENTS)
    return pq.read_table(path) if "next-item" in optional and path.exists() else pa.table({})


def narratives(run: Path, choices: pa.Table, vocabulary: Vocabulary) -> Iterator[Narrative]:
    """The references (once per user and task), the predictions of every model, and `choices`, each user by user."""
    by_user: dict[str, list[dict[str, Any]]] = {}
    for row in outputs.predictions(run).to_pylist():
        by_user.setdefault(row["reviewer_id"], []).append(row)
    files = outputs.dataset_files(run, outputs.results(run)["split"])
    for user in outputs.rows(files, ["reviewer_id", "purchase_history"]):
        user_id, history = user["reviewer_id"], user["purchase_history"] or []
        records = [Record.read(purchase) for purchase in history]
        references: dict[str, list[Claim]] = {}
        for row in by_user.get(user_id, ()):
            task, reference = row["task"], row["reference"] or ""
            if task not in references:
                claimed = references[task] = claims_of(reference, records, vocabulary)
                yield Narrative(user_id, task, REFERENCE, reference, history, claimed, claimed)
            text = row["prediction"] or ""
            claimed = claims_of(text, records, vocabulary)
            yield Narrative(user_id, task, row["model"], text, history, claimed, references[task])
    yield from _endorsements(run, choices, vocabulary)


def _endorsements(run: Path, choices: pa.Table, vocabulary: Vocabulary) -> Iterator[Narrative]:
    """The endorsements of `choices`; the record has the chosen item in place of the last purchase.

    Their reference is about another item, so no claim of it is compared.
    """
    if not choices.num_rows:
        return
    rows = {row["reviewer_id"]: row for row in choices.to_pylist()}
    asins = {row["chosen"] for row in rows.values()}
    items = {item["asin"]: item for item in outputs.rows(outputs.catalogue_files(run)) if item["asin"] in asins}
    files = outputs.dataset_files(run, outputs.results(run, "next-item")["split"])
    for user in outputs.rows(files, ["reviewer_id", "purchase_history"]):
        if row := rows.get(user["reviewer_id"]):
            history = [*user["purchase_history"][:-1], {"item": items[row["chosen"]], "review": None}]
            claimed = claims_of(row["prediction"], [Record.read(purchase) for purchase in history], vocabulary)
            yield Narrative(row["reviewer_id"], row["task"], row["model"], row["prediction"], history, claimed, [])


def claims_of(text: str, history: Sequence[Record], vocabulary: Vocabulary) -> list[Claim]:
    """The claims of a narrative, with their facts; `history` is oldest first."""
    texts = claims(text)
    return [
        Claim(claim, facts(claim, before, history, vocabulary))
        for claim, before in zip(texts, ["", *texts], strict=False)
    ]


def questions(narrative: Narrative) -> tuple[Question | None, Question | None]:
    """The questions about one narrative that the rules cannot answer, None for a question without claims.

    The first is whether the record entails the unchecked claims of the narrative, the second whether the narrative
    entails those claims of its reference that have no facts.
    """
    about = (narrative.reviewer_id, f"{narrative.task}, {narrative.model}")
    unchecked = tuple(claim.text for claim in narrative.claims if claim.supported is None)
    without_facts = tuple(claim.text for claim in narrative.reference if not claim.facts)
    if narrative.model == REFERENCE or not narrative.text.strip():
        without_facts = ()
    return (
        Question(*about, unchecked, narrative.history) if unchecked else None,
        Question(*about, without_facts, None, narrative.text) if without_facts else None,
    )


def check(narrative: Narrative, judge: Judge | None, judge_name: str) -> tuple[list[dict[str, Any]], Counter[str]]:
    """The rows of CLAIMS of one narrative, and the counts for its scores."""
    by_record, by_narrative = (judge(question) if judge and question else [] for question in questions(narrative))
    answers = iter(by_record)
    rows, counts = [], Counter[str]()
    for claim in narrative.claims:
        verdict, checked_by = claim.supported, "rules"
        if verdict is None:
            verdict, checked_by = next(answers, None), judge_name
        rows.append(
            {
                "reviewer_id": narrative.reviewer_id,
                "task": narrative.task,
                "model": narrative.model,
                "claim": claim.text,
                "verdict": "unchecked" if verdict is None else "supported" if verdict else "unsupported",
                "checked_by": None if verdict is None else checked_by,
                "facts": [{"kind": fact.kind, "text": fact.text, "supported": fact.supported} for fact in claim.facts],
                "hallucinated": [fact.text for fact in claim.facts if fact.kind in ENTITIES and not fact.supported],
            }
        )
        counts.update(claims=1, checked=verdict is not None, supported=verdict is True)
        for fact in claim.facts:
            counts.update({f"{fact.kind} facts": 1, f"{fact.kind} supported": fact.supported})
    n_covered, n_compared = covered(narrative.claims, narrative.reference)
    n_covered += by_narrative.count(True)
    n_compared += len(by_narrative) - by_narrative.count(None)
    if judge and not narrative.text.strip():  # an empty text entails no claim and needs no question
        n_compared += sum(not claim.facts for claim in narrative.reference)
    counts.update(covered=n_covered, compared=n_compared)
    return rows, counts


def covered(narrative: Sequence[Claim], reference: Sequence[Claim]) -> tuple[int, int]:
    """The number of claims of a reference that a narrative covers, and of those that can be compared."""
    stated = [fact for claim in narrative for fact in claim.facts]
    compared = [claim for claim in reference if claim.facts]
    n_covered = sum(all(any(_states(other, fact) for other in stated) for fact in claim.facts) for claim in compared)
    return n_covered, len(compared)


def _states(fact: Fact, other: Fact) -> bool:
    """Whether `fact` implies `other`; a longer name of a thing implies the shorter one."""
    if other.kind in ENTITIES:
        same = fact.kind in ENTITIES and fact.value[0] == other.value[0]
        return same and set(other.value[1:]) <= set(fact.value[1:])
    return fact.kind == other.kind and fact.value == other.value


def scores(counts: Mapping[tuple[str, str], Mapping[str, Counter[str]]], seed: int) -> dict[str, dict[str, Any]]:
    """The scores by model and task, from the counts by model and task, then user; a share with the total 0 is null."""
    by_model: dict[str, dict[str, Any]] = {}
    for (model, task), by_user in counts.items():
        users = list(by_user.values())
        total = sum(users, Counter[str]())

        def share(part: str, total: str, users: list[Counter[str]] = users) -> Interval:
            return share_interval(np.array([[user[part], user[total]] for user in users], dtype=np.float64), seed)

        by_model.setdefault(model, {})[task] = {
            "n": len(users),
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
    return by_model


def summary(folder: Path) -> str:
    """The results in the output `folder`, as a Markdown table."""
    results = outputs.read_json(folder / outputs.RESULTS)
    head = (
        f"Claims of narratives about {results['n_users']} {results['split']} users. Precision: claims that the record "
        "supports, of those checked; recall: claims of the reference that the text covers."
    )
    grid = [["task", "model", "claims", "checked", "precision", "recall", "entities not in the record"]]
    for task in dict.fromkeys(task for by_task in results["models"].values() for task in by_task):
        for model, by_task in results["models"].items():
            if score := by_task.get(task):
                intervals = [format_interval(score[name]) for name in ("precision", "recall")]
                counts = [str(score[name]) for name in ("claims", "checked", "hallucinated_entities")]
                grid.append([task, model, *counts[:2], *intervals, counts[2]])
    return f"{head}\n\n{markdown(grid)}"
