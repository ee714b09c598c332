"""Sections of the report on the data, the narratives, the model and its scores; a missing output has no blocks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .. import outputs
from ..cards.facts import ranks_only
from ..intervals import format_interval, format_number
from ..metrics import counts
from ..metrics.citation_tables import tables_of_tests
from ..metrics.tables import LABELS, PAPER_METRICS, UNITS, score_grid
from ..run import describe
from ..run.stages import STAGES, Stage
from ..schema import LOWER_IS_BETTER, RATED, SPLITS
from .blocks import Block, Section, Table, Text, figures, grouped, words

Blocks = Iterator[Block]

DATA_FIGURES = {
    "item_counts": "Purchases per item",
    "history_lengths": "Lengths of histories",
    "ratings_over_time": "Ratings over time",
    "split_sizes": "Sizes of the splits",
}
RATING_FIGURES = {
    "rated_purchase_reason": "Scores of the purchase reason and its explanation",
    "rated_user_summaries": "Scores of profile and summaries",
    "rated_endorsement": "Scores of the endorsement",
    "rated_critique": "Scores of the critique",
    "richness": "Richness of the histories, with its confidence",
    "agreement": "Agreement of the votes",
    "votes_needed": "Scores by number of votes",
}
ATTRIBUTION_FIGURES = {
    "soft_tokens": "Soft tokens, their parts and the word tokens (figure 5 of the paper)",
    "norm_shares": "Norm shares of CF and content (figure 6 of the paper)",
    "soft_token_parts": "Soft tokens and each part (figure 8 of the paper)",
    "left_out_*": "Effect of each purchase on the likelihood of the model's narratives",
}
AGREEMENT = {"alpha": "Krippendorff's alpha", "majority": "majority", "flip_rate": "pairs of votes that differ"}
MODES = {"both": "CF and content", "cf": "CF only", "content": "content only"}


def facts(run: Path) -> list[tuple[str, str]]:
    """The key figures at the top of the report: name and value."""
    values = []
    if dataset := outputs.manifest(run, "dataset"):
        users = sum(dataset["counts"].get(split, 0) for split in SPLITS)
        values += [("shoppers", format_number(users)), ("items", format_number(dataset["counts"]["items"]))]
    if model := outputs.manifest(run, "train"):
        values.append(("parameters", format_number(model["counts"]["parameters"])))
    if (results := outputs.results(run)) and not ranks_only(run):
        values.append((f"{results['split']} users evaluated", format_number(results["n_users"])))
        name, tasks = next(iter(results["models"].items()))
        means = [task["rougeLsum"]["mean"] for task in tasks.values() if task["rougeLsum"]["mean"] is not None]
        if means:
            label = f"ROUGE-Lsum of {words(name)}, mean of {len(means)} tasks"
            values.append((label, format_number(sum(means) / len(means), 1)))
    return values


def sections(run: Path) -> list[Section]:
    """The sections on the outputs of the stages, in order."""
    parts: list[tuple[str, str, Callable[[Path], Blocks]]] = [
        ("data", "Data", data),
        ("narratives", "Narratives", narratives),
        ("ratings", "Ratings", ratings),
        ("training", "Training", training),
        ("scores", "Scores", evaluation),
        ("comparison", "Comparison of runs", comparison),
    ]
    return [
        *(Section(name, title, list(blocks(run))) for name, title, blocks in parts),
        *(
            Section(stage.command, stage.command.replace("-", " ").capitalize(), list(optional_stage(run, stage)))
            for stage in STAGES.values()
            if stage.optional
        ),
        Section("attribution", "Attribution", list(attribution(run))),
    ]


def data(run: Path) -> Blocks:
    """Lines read and dropped, and the sizes of the splits."""
    accounting = outputs.accounting(run)
    if not accounting:
        return
    rows = []
    for part in ("reviews", "items"):
        if lines := accounting.get(part):
            rows += [[part, name, format_number(lines[name])] for name in ("read", "kept")]
            rows += [
                [part, f"dropped: {words(reason)}", format_number(n)] for reason, n in lines["dropped"].items() if n
            ]
    if rows:
        yield Table("Lines of the raw files", ["files", "lines", "number"], grouped(rows))
    folders = [outputs.folder(run, stage) for stage in ("dataset", outputs.source(run))]
    source = next(folder for folder in folders if folder.exists())
    splits = {split: counts.purchases(outputs.split_files(source, split)) for split in SPLITS}
    yield Table(
        "Splits, which hold distinct users",
        ["split", "users", "purchases", "items bought", "median purchases of a user"],
        [
            [
                split,
                format_number(of_split.lengths.total()),
                format_number(of_split.total),
                format_number(len(of_split.items)),
                format_number(counts.quantile(of_split.lengths, 0.5) if of_split.lengths else None),
            ]
            for split, of_split in splits.items()
        ],
    )
    yield from figures(run, DATA_FIGURES)


def narratives(run: Path) -> Blocks:
    """Narrator, lengths and failed checks of the narratives."""
    files = _dataset_files(run)
    if not files:
        path = outputs.path(run, "narratives", outputs.NARRATIVES)
        if not path.exists():
            return
        files = [path]
    manifest = outputs.manifest(run, "narratives")
    if manifest:
        yield Text(f"Written by {writer(manifest['config'])}. {describe(manifest['counts']).capitalize()}.")
    rows = []
    for task, counter in counts.narrative_lengths(files).items():
        lengths = {length: users for length, users in counter.items() if length is not None}
        quantiles = [counts.quantile(lengths, share) if lengths else None for share in (0.05, 0.5, 0.95)]
        rows.append([words(task), format_number(sum(lengths.values())), *map(format_number, quantiles)])
    yield Table("Words per text", ["narrative", "users", "5th percentile", "median", "95th percentile"], rows)
    if failed := manifest.get("counts", {}).get("failed_checks"):
        rows = [[words(check), format_number(users)] for check, users in failed.items()]
        yield Table("Failed checks", ["check", "texts"], rows, folded=True)


def ratings(run: Path) -> Blocks:
    """Scores of the autorater and the agreement of its votes."""
    if results := outputs.agreement(run):
        votes = results["votes"]
        yield Text(
            f"{format_number(votes)} {'vote' if votes == 1 else 'votes'} on each of {format_number(results['users'])} "
            f"users by {writer(outputs.manifest(run, 'ratings').get('config', {}))}; scores of 1 (very low) to 7 (very "
            f"high). Lower is better for {' and '.join(sorted(LOWER_IS_BETTER))}."
        )
        for warning in results.get("warnings", ()):
            yield Text(f"Warning: {warning['message']}")
        agreement = {} if votes == 1 else AGREEMENT
        rows = []
        for part, attributes in RATED.items():
            for attribute in attributes:
                values = results["stages"].get(part, {}).get(attribute)
                if values is None:  # ratings of an earlier version
                    continue
                scores = dict(enumerate(values["scores"], 1))
                agreed = [format_number(values.get(key)) for key in agreement]
                rows.append([words(part), attribute, *_total_and_mean(scores), *agreed])
        yield Table("Scores", ["part", "attribute", "users", "mean", *agreement.values()], grouped(rows))
        yield from figures(run, RATING_FIGURES)
    elif files := _dataset_files(run):  # the official release has scores without votes
        rows = []
        for (part, attribute), counter in counts.rating_counts(files).items():
            scores = {score: users for score, users in counter.items() if score is not None}
            if scores:
                rows.append([words(part), attribute, *_total_and_mean(scores)])
        if rows:
            title = "Scores of 1 (very low) to 7 (very high)"
            yield Table(title, ["part", "attribute", "users", "mean"], grouped(rows))


def _dataset_files(run: Path) -> list[Path]:
    return [file for split in SPLITS for file in outputs.dataset_files(run, split)]


def _total_and_mean(scores: Mapping[int, int]) -> list[str]:
    total = sum(scores.values())
    mean = sum(score * users for score, users in scores.items()) / total if total else None
    return [format_number(total), format_number(mean, 2)]


def training(run: Path) -> Blocks:
    """Settings, counts and loss of the training."""
    manifest = outputs.manifest(run, "train")
    if not manifest:
        return
    config = manifest["config"]
    backbone = outputs.public_name(config["backbone"]) or "a small language model with random initial weights"
    mode = MODES[config["embedding_mode"]]
    yield Text(f"Backbone: {backbone}. Adapter: {config['adapter']}. Parts of a soft token: {mode}.")
    if ranks_only(run):
        yield Text("It was trained to rank items only (no tasks), so it writes no narratives.")
    numbers = {**manifest["counts"], "seed": config["seed"]}
    numbers = {name: value for name, value in numbers.items() if isinstance(value, int | float)}
    cells = [format_number(value) if isinstance(value, int) else f"{value:.4g}" for value in numbers.values()]
    yield Table("Training", [words(name) for name in numbers], [cells])
    if gap := manifest["counts"].get("history_gap"):
        unused = ", an interval that is not above 0: the model does not use the history" if gap["low"] <= 0 else ""
        yield Text(f"Loss with another user's history minus that with the own one: {format_interval(gap)}{unused}.")
    yield from figures(run, {"loss": "Loss"})


def evaluation(run: Path) -> Blocks:
    """Scores of the model and of the controls."""
    results = outputs.results(run)
    if not results or ranks_only(run):  # such results are of an earlier model
        return
    models = results["models"]
    first, tasks = next(iter(models.items()))
    yield Text(
        f"{format_number(results['n_users'])} {results['split']} users. {UNITS}; {words(first)} with its 95 % interval "
        "over the users. The full table has all intervals."
    )
    metrics = [metric for metric in LABELS if metric in next(iter(tasks.values()))]
    yield _score_table("The paper's metrics", score_grid(models, PAPER_METRICS, [first]))
    yield _score_table("The full table", score_grid(models, metrics), folded=True)
    about = [[words(model), text] for model, text in results["about"].items() if model in models]
    yield Table("The models", ["model", "description"], about)
    yield from figures(run, {"scores": "Scores with 95 % intervals"})
    methods = {
        "similarity by": results["encoder"],
        "decoding": ", ".join(f"{words(name)} {value}" for name, value in results["decoding"].items()),
        "references by": ", ".join(results["narrators"]),
        **{name: value for name, value in results.items() if "signature" in name},
    }
    rows = [[words(name), str(value)] for name, value in methods.items()]
    yield Table("Method of measurement", ["step", "method"], rows, folded=True)


def _score_table(title: str, grid: list[list[str]], folded: bool = False) -> Table:
    head, *rows = grid
    return Table(title, list(map(words, head)), grouped([words(task), *cells] for task, *cells in rows), folded)


def comparison(run: Path) -> Blocks:
    """The tables and notes of `regen compare RUN RUN…`, from their Markdown."""
    path = run / outputs.COMPARISON / outputs.COMPARISON_MARKDOWN
    title = "Side by side, as in the paper"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for is_table, group in itertools.groupby((line for line in lines if line), lambda line: line.startswith("|")):
        if is_table:
            head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in group)
            yield Table(title, head, grouped(rows))
        else:
            for line in group:
                if line.startswith("#"):
                    title = line.strip("# ")
                else:
                    yield Text(line.removeprefix("- "))


def attribution(run: Path) -> Blocks:
    """Parts and neighbours of the soft tokens, and the effect of single purchases."""
    results = outputs.results(run, "attribution")
    if not results:
        return
    separation = results["separation"]
    yield Text(
        f"Parts of a soft token: {results['parts']}. The nearest word token of a soft token has a cosine of "
        f"{format_number(separation['cosine_to_the_nearest_word'])} on average, the nearest other item "
        f"{format_number(separation['cosine_to_the_nearest_item'])} ({format_number(separation['items'])} items)."
    )
    for text, head, cells in tables_of_tests(results):
        yield Text(text)
        yield Table(text.split(":")[0], head, cells)
    yield from figures(run, ATTRIBUTION_FIGURES)
    rows = [
        [
            item["title"] or item["asin"],
            "   ".join(f"“{word['token']}” {word['cosine']:.2f}" for word in item["words"]),
        ]
        for item in results["nearest_words"]
    ]
    title = "Nearest word tokens of the most frequent items"
    yield Table(title, ["item", "word tokens and their cosines"], rows, folded=True)


def writer(config: Mapping[str, Any]) -> str:
    """The narrator or rater, from the settings of a stage that may call a language model."""
    if not config or config.get("backend") == "reference":
        return "fixed rules (reference), no language model"
    return f"{outputs.public_name(config['model'])} ({config['backend']})"


def optional_stage(run: Path, stage: Stage) -> Blocks:
    """The scores of an optional stage by model and group, or by task."""
    results = outputs.results(run, stage.command)
    if not results:
        return
    text = f"{stage.about.capitalize()}."
    if "n_users" in results:
        text += f" {format_number(results['n_users'])} {results.get('split', '')} users."
    sides = [f"{results[side]['name']} ({results[side]['model']})" for side in ("run", "other") if side in results]
    if sides:
        text += f" {' against '.join(sides)}, judged by {', '.join(results['judges'])}."
    yield Text(f"{text} Means with 95 % intervals.")
    head = ["model", "group"] if results.get("models") else ["task"]
    rows = list(_score_rows(results.get("models") or results.get("tasks") or {}))
    if rows:
        depth = max(len(path) for path, _ in rows)
        head = [*head, *[""] * depth][:depth]
        columns = list(dict.fromkeys(column for _, scores in rows for column in scores))
        cells = [
            [*map(words, path), *[""] * (depth - len(path)), *(format_interval(scores.get(name)) for name in columns)]
            for path, scores in rows
        ]
        yield Table("Scores", [*head, *map(words, columns)], grouped(cells))
    if endorsed := results.get("endorsements"):
        users = endorsed["users"]
        yield _score_table(
            f"Endorsements of the model's own first choice ({users['all']} users), which is the true last purchase for "
            f"{users['hits']} (hits)",
            score_grid(endorsed["scores"], PAPER_METRICS),
        )
    if about := results.get("about"):
        rows_about = [[words(model), str(text)] for model, text in about.items()]
        yield Table("The models", ["model", "description"], rows_about, folded=True)


def _score_rows(scores: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """The innermost mappings of nested scores, with the keys that lead to each; their submappings are more columns."""
    nested = {name: value for name, value in scores.items() if isinstance(value, Mapping) and "mean" not in value}
    row = {name: value for name, value in scores.items() if name not in nested and not isinstance(value, str | list)}
    if not row:
        for name, value in nested.items():
            yield from _score_rows(value, (*path, name))
        return
    for name, parts in nested.items():
        for part, value in parts.items():
            if not isinstance(value, str | list) and (not isinstance(value, Mapping) or "mean" in value):
                row[f"{name}: {part}"] = value
    yield path, row
