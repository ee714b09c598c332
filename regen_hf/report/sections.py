"""What the report says of the data, the narratives, the model and its scores; a part that is not there says nothing."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..intervals import format_interval, format_number
from ..metrics import counts as statistics
from ..metrics.tables import LABELS, PAPER, UNITS, scores
from ..outputs import read_manifest, split_files
from ..run import describe
from ..schema import RATED, SPLITS
from .blocks import Code, Figure, Section, Shopper, Table, Text, figures, grouped, words

Blocks = Iterator[Text | Table | Figure | Code | Shopper]

DATA = {
    "item_counts": "How often an item is bought",
    "history_lengths": "How long histories are",
    "ratings_over_time": "Ratings over time",
    "split_sizes": "Sizes of the splits",
}
RATINGS = {
    "rated_purchase_reason": "Scores of the purchase reason and its explanation",
    "rated_user_summaries": "Scores of profile and summaries",
    "rated_endorsement": "Scores of the endorsement",
    "richness": "Richness of the histories, and confidence in it",
    "agreement": "Agreement of the votes",
    "votes_needed": "How the scores settle with the number of votes",
}
AGREEMENT = {"alpha": "Krippendorff's alpha", "majority": "held by a majority", "flip_rate": "two votes differ"}
READING = {
    "soft_tokens": "Soft tokens, their parts and the word tokens (figure 5 of the paper)",
    "norm_shares": "Norm shares of CF and content (figure 6 of the paper)",
    "soft_token_parts": "The parts one by one (figure 8 of the paper)",
    "left_out_*": "What each purchase does to the likelihood of the model's narratives",
}
EXTRAS = {
    "next_item": ("The next item", "The last purchase hidden and the whole catalogue ranked"),
    "grounding": ("Grounding", "Claims of the narratives, checked against the shopper's own records"),
    "judge": ("Side by side, by a judge", "Two models' narratives for the same shopper, asked in both orders"),
}
"""Folder of a further evaluation -> title, and what it is."""


def facts(run: Path) -> list[tuple[str, str]]:
    """The few numbers that stand at the top: name and value."""
    found = []
    if data := _manifest(run, "dataset"):
        counts = data["counts"]
        found += [
            ("shoppers", format_number(sum(counts.get(split, 0) for split in SPLITS))),
            ("items", format_number(counts["items"])),
        ]
    if model := _manifest(run, "model"):
        found.append(("parameters", format_number(model["counts"]["parameters"])))
    if results := _results(run, "evaluation"):
        found.append((f"{results['split']} users written about", format_number(results["n_users"])))
        name, tasks = next(iter(results["models"].items()))
        means = [task["rougeLsum"]["mean"] for task in tasks.values() if task["rougeLsum"]["mean"] is not None]
        if means:
            found.append(
                (f"ROUGE-Lsum of {words(name)}, mean of {len(means)} tasks", format_number(sum(means) / len(means), 1))
            )
    return found


def sections(run: Path) -> list[Section]:
    """The sections on what the stages made, in their order."""
    return [
        Section(name, title, list(blocks(run)))
        for name, title, blocks in (
            ("data", "Data", data),
            ("narratives", "Narratives", narratives),
            ("ratings", "Ratings", ratings),
            ("training", "Training", training),
            ("scores", "Scores", evaluation),
            ("comparison", "Against other runs", comparison),
            *((name, title, _extra(name, about)) for name, (title, about) in EXTRAS.items()),
            ("attribution", "Attribution", attribution),
        )
    ]


def data(run: Path) -> Blocks:
    """Where the rows come from, what was dropped, how large the splits are."""
    source = "release" if (run / "release").exists() else "sequences"
    path = run / source / "accounting.json"
    if not path.exists():
        return
    told = json.loads(path.read_text(encoding="utf-8"))
    rows = []
    for part in ("reviews", "items"):
        if counts := told.get(part):
            rows += [[part, "read", format_number(counts["read"])], ["", "kept", format_number(counts["kept"])]]
            rows += [
                ["", f"dropped: {words(reason)}", format_number(n)] for reason, n in counts["dropped"].items() if n
            ]
    if rows:
        yield Table("Lines of the raw files", ["of", "lines", "number"], rows)
    folder = next(run / name for name in ("dataset", source) if (run / name).exists())
    splits = {split: statistics.purchases(split_files(folder, split)) for split in SPLITS}
    yield Table(
        "Splits, which hold distinct users",
        ["split", "users", "purchases", "items bought", "median purchases of a user"],
        [
            [
                split,
                format_number(counts.lengths.total()),
                format_number(counts.total),
                format_number(len(counts.items)),
                format_number(statistics.quantile(counts.lengths, 0.5) if counts.lengths else None),
            ]
            for split, counts in splits.items()
        ],
    )
    yield from figures(run, DATA)


def narratives(run: Path) -> Blocks:
    """Who wrote how much, and what checks found."""
    source = next((run / name for name in ("dataset", "narratives") if (run / name).exists()), None)
    if source is None:
        return
    if manifest := _manifest(run, "narratives"):
        yield Text(f"Written by {writer(manifest['config'])}. {describe(manifest['counts']).capitalize()}.")
    files = [path for split in SPLITS for path in split_files(source, split)] or sorted(source.glob("*.parquet"))
    rows = []
    for task, counter in statistics.narratives(files).items():
        lengths = {length: users for length, users in counter.items() if length is not None}
        quantiles = [statistics.quantile(lengths, share) if lengths else None for share in (0.05, 0.5, 0.95)]
        rows.append([words(task), format_number(sum(lengths.values())), *map(format_number, quantiles)])
    yield Table("Words of a text", ["narrative", "users", "5th of 100", "median", "95th of 100"], rows)
    failed = (manifest or {}).get("counts", {}).get("failed_checks")
    if failed:
        rows = [[words(check), format_number(users)] for check, users in failed.items()]
        yield Table("Failed checks", ["check", "texts"], rows, folded=True)


def ratings(run: Path) -> Blocks:
    """What the autorater gave and how far its votes agree."""
    path = run / "ratings" / "agreement.json"
    if path.exists():
        told = json.loads(path.read_text(encoding="utf-8"))
        manifest = _manifest(run, "ratings") or {"config": {}}
        yield Text(
            f"{format_number(told['votes'])} {'vote' if told['votes'] == 1 else 'votes'} on each of {format_number(told['users'])} "
            f"users by {writer(manifest['config'])}; scores of 1 (very low) to 7 (very high). Less foresight is better."
        )
        agreement = {} if told["votes"] == 1 else AGREEMENT
        rows = []
        for part, attributes in RATED.items():
            for attribute in attributes:
                found = told["stages"][part][attribute]
                total = sum(found["scores"])
                mean = sum(score * n for score, n in enumerate(found["scores"], 1)) / total if total else None
                agreed = [format_number(found.get(key)) for key in agreement]
                rows.append([words(part), attribute, format_number(total), format_number(mean, 2), *agreed])
        yield Table("Scores", ["part", "attribute", "users", "mean", *agreement.values()], grouped(rows))
        yield from figures(run, RATINGS)
    elif source := next((path for path in [run / "dataset"] if path.exists()), None):
        # The official release comes with scores, but without votes.
        rows = []
        files = [path for split in SPLITS for path in split_files(source, split)]
        for (part, attribute), counter in statistics.scores(files).items():
            scored = {score: users for score, users in counter.items() if score is not None}
            if total := sum(scored.values()):
                mean = sum(score * users for score, users in scored.items()) / total
                rows.append([words(part), attribute, format_number(total), format_number(mean, 2)])
        if rows:
            yield Table(
                "Scores of 1 (very low) to 7 (very high)", ["part", "attribute", "users", "mean"], grouped(rows)
            )


def training(run: Path) -> Blocks:
    """What was trained, and the curves of it."""
    manifest = _manifest(run, "model")
    if manifest is None:
        return
    config = manifest["config"]
    backbone = Path(config["backbone"]).name if config["backbone"] else "a small language model, trained from nothing"
    yield Text(
        f"Backbone: {backbone}. Adapter: {config['adapter']}. A soft token is made of "
        f"{ {'both': 'CF and content', 'cf': 'CF alone', 'content': 'content alone'}[config['embedding_mode']] }."
    )
    counts = {**manifest["counts"], "seed": config["seed"]}
    plain = {name: value for name, value in counts.items() if isinstance(value, int | float)}
    yield Table("Training", [words(name) for name in plain], [[_short(value) for value in plain.values()]])
    yield from figures(run, {"loss": "Training curves"})


def evaluation(run: Path) -> Blocks:
    """The scores of the models and their controls."""
    results = _results(run, "evaluation")
    if results is None:
        return
    known = results["models"]
    first = next(iter(known))
    yield Text(
        f"{format_number(results['n_users'])} {results['split']} users. {UNITS}; {words(first)} with its 95 % interval over "
        "the users. The full table has all intervals."
    )
    grid = scores(known, PAPER, spans=[first])
    yield Table(
        "The paper's metrics", [words(cell) for cell in grid[0]], grouped([words(row[0]), *row[1:]] for row in grid[1:])
    )
    of_one = next(iter(known[first].values()))
    grid = scores(known, [metric for metric in LABELS if metric in of_one])
    rows = grouped([words(row[0]), *row[1:]] for row in grid[1:])
    yield Table("The full table", [words(cell) for cell in grid[0]], rows, folded=True)
    about = [[words(model), text] for model, text in results["about"].items() if model in known]
    yield Table("The models", ["model", "what it is"], about)
    yield from figures(run, {"scores": "Scores with 95 % intervals"})
    measured = {
        "similarity by": results["encoder"],
        "decoding": ", ".join(f"{words(name)} {value}" for name, value in results["decoding"].items()),
        "references by": ", ".join(results["narrators"]),
        **{name: str(value) for name, value in results.items() if "signature" in name},
    }
    yield Table(
        "How it was measured", ["what", "how"], [[words(name), str(how)] for name, how in measured.items()], True
    )


def comparison(run: Path) -> Blocks:
    """The tables and notes that `regen evaluate RUN1 RUN2 …` left, from their Markdown."""
    path = run / "comparison" / "comparison.md"
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
    """What soft tokens are made of, where they lie, and which purchases made the model say so."""
    told = _results(run, "attribution")
    if told is None:
        return
    near = told["separation"]
    yield Text(
        f"Parts of a soft token: {told['parts']}. The nearest word token of a soft token has a cosine of "
        f"{format_number(near['cosine_to_the_nearest_word'])} on average, the nearest other item "
        f"{format_number(near['cosine_to_the_nearest_item'])} ({format_number(near['items'])} items)."
    )
    yield from figures(run, READING)
    yield Table(
        "Nearest word tokens of the items bought most",
        ["item", "word tokens and their cosines"],
        [
            [
                item["title"] or item["asin"],
                "   ".join(f"“{word['token']}” {word['cosine']:.2f}" for word in item["words"]),
            ]
            for item in told["nearest_words"]
        ],
        folded=True,
    )


def writer(config: Mapping[str, Any]) -> str:
    """Who answers by the settings of a stage that may ask a language model."""
    if not config or config.get("backend") == "reference":
        return "fixed rules (reference), no language model"
    model = Path(config["model"])
    return f"{model.name if model.is_absolute() else model} ({config['backend']})"


def _extra(name: str, about: str) -> Any:
    def blocks(run: Path) -> Blocks:
        """A further evaluation: its scores by model and group."""
        results = _results(run, name)
        if results is None:
            return
        users = (
            f" {format_number(results['n_users'])} {results.get('split', '')} users." if "n_users" in results else ""
        )
        sides = [f"{results[side]['name']} ({results[side]['model']})" for side in ("run", "other") if side in results]
        by = f" {' against '.join(sides)}, judged by {', '.join(results['judges'])}." if sides else ""
        yield Text(f"{about}.{users}{by} Means with 95 % intervals.")
        rows = list(_leaves(results.get("models") or results.get("tasks") or {}))
        if rows:
            heads = ("model", "group") if results.get("models") else ("task",)
            depth = max(len(path) for path, _ in rows)
            columns = list(dict.fromkeys(column for _, leaf in rows for column in leaf))
            yield Table(
                "Scores",
                [*[*heads, *[""] * depth][:depth], *map(words, columns)],
                grouped(
                    [
                        *map(words, path),
                        *[""] * (depth - len(path)),
                        *(format_interval(leaf.get(column)) for column in columns),
                    ]
                    for path, leaf in rows
                ),
            )
        if known := results.get("about"):
            rows_about = [[words(model), str(text)] for model, text in known.items()]
            yield Table("The models", ["model", "what it is"], rows_about, folded=True)
        yield from figures(run, {f"{name}*": about})

    return blocks


def _leaves(scores: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """The innermost mappings of metrics (numbers and intervals), with the names that lead to each."""
    inner = {name: value for name, value in scores.items() if isinstance(value, Mapping) and "mean" not in value}
    leaf = {name: value for name, value in scores.items() if name not in inner and not isinstance(value, str | list)}
    if leaf:  # what is told of its parts are further columns
        parts = [(f"{name}: {part}", value) for name, of in inner.items() for part, value in of.items()]
        yield path, leaf | {name: value for name, value in parts if not isinstance(value, str | list) and _plain(value)}
    else:
        for name, of in inner.items():
            yield from _leaves(of, (*path, name))


def _plain(value: Any) -> bool:
    return not isinstance(value, Mapping) or "mean" in value


def _short(value: float) -> str:
    return format_number(value) if isinstance(value, int) else f"{value:.4g}"


def _manifest(run: Path, folder: str) -> dict[str, Any] | None:
    return read_manifest(run / folder)


def _results(run: Path, folder: str) -> dict[str, Any] | None:
    path = run / folder / "results.json"
    if not path.exists():
        return None
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return results
