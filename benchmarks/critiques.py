"""Measure whether the recommendation obeys a critique, on the sample world.

    python benchmarks/critiques.py runs/critiques --seeds 0 1 2
    python benchmarks/critiques.py runs/critiques --only "pretrained heldout" --backbone .models/smollm2-135m

Each cell trains the item head and the endorsement on the sample world and measures, on its test users with a critique:

- `ranking`: Recall, NDCG and MRR of the last purchase with the own critique, another user's, and none (paired);
- `obey`: of the first ten items, the share that has the attribute asked for, by kind of critique: with the critique,
  without it, and in the catalogue;
- `turns`: the same in a dialogue of three turns. In each the first item is shown and rejected, for another colour, then
  for another use, then for another kind;
- `named`: the share of endorsements that contain the word asked for, with and without the critique.

The cell `without repeats` trains with one example per critique. The cells `heldout` train the item head only,
without the critiques that name a colour or a use of HELD_OUT, so that training shows no text with these words. They
measure `obey` for them, and for wordings that training never showed. Writes benchmarks/results/critiques.json after
each cell, skips the cells that it holds, and prints one JSON line.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from ablation import build_world, cells_parser, link_stages, training_settings

from regen_hf import outputs
from regen_hf.metrics.bootstrap import mean_interval
from regen_hf.metrics.tables import markdown
from regen_hf.run import Run
from regen_hf.run.stages import STAGES
from regen_hf.stages.sample.critique_text import PHRASES
from regen_hf.stages.sample.world import COLOURS, KINDS, USES
from regen_hf.stages.training import examples

TRAINING: dict[str, Any] = {"tasks": ["product_endorsement"], "next_item_weight": 1.0}
CELLS: dict[str, dict[str, Any]] = {
    "small": {},
    "without repeats": {},
    "heldout": {"tasks": []},
    "pretrained heldout": {"tasks": [], "lora": {"r": 16}},
}
HELD_OUT = {"colour": ("olive", "teal"), "use": ("garden",)}
"""Values that no critique of training names in a cell `heldout`; items have them all the same."""
PARAPHRASES = {
    "colour": ("What about a {value} one?", "Could I get that in {value} instead?"),
    "use": ("Something I can take along for {value}?", "My {value} is where I would use it."),
    "kind": ("Make it {value}.", "Do you sell {value} as well?"),
}
"""Wordings that no critique of the sample has."""
VALUES = {"colour": COLOURS, "use": USES, "kind": tuple(kind.rpartition(" ")[2] for kind in KINDS)}
WORDED = tuple(VALUES)
"""Attributes that an endorsement can name, and of which few items have the same."""
TOP = 10
BATCH = 64


class World:
    """The sample world of a run: attributes of its items, and its test users with the critique of each."""

    def __init__(self, run: Path) -> None:
        rows = pq.read_table(outputs.path(run, "sample", outputs.ITEM_TRUTH)).to_pylist()
        self.items = {row["asin"]: row | {"kind": row["kind"].rpartition(" ")[2]} for row in rows}
        self.prices = {row["asin"]: row["price"] for row in outputs.rows(outputs.catalogue_files(run))}
        truths = pq.read_table(outputs.path(run, "sample", outputs.TRUTH), columns=["reviewer_id", "critiques"])
        said = {row["reviewer_id"]: {one["text"]: one for one in row["critiques"]} for row in truths.to_pylist()}
        self.users = []
        for row in outputs.rows(
            outputs.dataset_files(run, "test"), ["reviewer_id", "purchase_history", "last_purchase"]
        ):
            if text := row["last_purchase"]["critique"]:
                self.users.append({"history": row["purchase_history"][:-1], **said[row["reviewer_id"]][text]})

    def obeys(self, asin: str, attribute: str, value: str, before: str) -> bool:
        """Whether an item has what a critique about the item `before` asks for."""
        if attribute == "price":
            price, old = self.prices[asin], self.prices[before]
            return bool(price and old) and (price < old if value == "lower" else price > old)
        return (self.items[asin][attribute] == value) != (attribute == "brand")

    def share(self, asins: Sequence[str], attribute: str, value: str, before: str) -> float:
        """The share of `asins` that obeys."""
        return float(np.mean([self.obeys(asin, attribute, value, before) for asin in asins]))


def phrase(templates: Sequence[str], attribute: str, value: str, number: int) -> str:
    """A critique that asks for `value`, without the value of the item before."""
    usable = [template for template in templates if "{old}" not in template]
    noun = value
    if attribute == "use" and value not in ("travel", "camping"):
        noun = f"the {value}"
    if attribute == "kind":
        noun = f"an {value}" if value[0] in "aeiou" else f"a {value}"
    return usable[number % len(usable)].format(value=noun)


def first_ten(
    regen: Any, histories: Sequence[Any], critiques: Sequence[Any] | None, shown: Any = None
) -> list[list[str]]:
    """The asins of the first ten items for each history."""
    ranked = regen.recommend(list(histories), n=TOP, batch_size=BATCH, critique=critiques, shown=shown)
    return [[entry["asin"] for entry in entries] for entries in ranked]


def obedience(
    world: World, users: list[dict[str, Any]], asked: list[list[str]], plain: list[list[str]]
) -> dict[str, Any]:
    """`critique`, `none` and `catalogue` (shares of items that obey) and `gain` (critique minus none), by kind."""
    result = {}
    for attribute in sorted({user["attribute"] for user in users}):
        chosen = [number for number, user in enumerate(users) if user["attribute"] == attribute]
        shares: dict[str, list[float]] = {"critique": [], "none": [], "catalogue": []}
        for number in chosen:
            user = users[number]
            of = (attribute, user["value"], user["history"][-1]["item"]["asin"])
            lists = {"critique": asked[number], "none": plain[number], "catalogue": list(world.items)}
            for name, asins in lists.items():
                shares[name].append(world.share(asins, *of))
        cells = {name: mean_interval(np.array(values)) for name, values in shares.items()}
        gain = np.array(shares["critique"]) - np.array(shares["none"])
        result[attribute] = {"users": len(chosen), **cells, "gain": mean_interval(gain)}
    return result


def dialogue(world: World, regen: Any, users: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """After each of three turns, the share of the first ten with the attribute of each turn, and of the catalogue."""
    histories = [user["history"] for user in users]
    critiques: list[list[str]] = [[] for _ in users]
    shown: list[list[str]] = [[] for _ in users]
    wishes: list[list[tuple[str, str]]] = [[] for _ in users]
    ranked = first_ten(regen, histories, None)
    report = []
    for turn, attribute in enumerate(WORDED):
        for number, asins in enumerate(ranked):
            shown[number].append(asins[0])
            others = [value for value in sorted(set(VALUES[attribute])) if value != world.items[asins[0]][attribute]]
            value = others[number % len(others)]
            wishes[number].append((attribute, value))
            critiques[number].append(phrase(PHRASES[attribute], attribute, value, number))
        ranked = first_ten(regen, histories, critiques, shown)
        shares = {}
        for wish in range(turn + 1):
            pairs = [(asins, *wishes[number][wish], shown[number][wish]) for number, asins in enumerate(ranked)]
            catalogue = [world.share(list(world.items), *pair[1:]) for pair in pairs]
            shares[WORDED[wish]] = {
                "obey": mean_interval(np.array([world.share(*pair) for pair in pairs])),
                "catalogue": float(np.mean(catalogue)),
            }
        report.append(shares)
    return report


def named(regen: Any, users: list[dict[str, Any]]) -> dict[str, Any]:
    """The share of endorsements of the first item that contain the word asked for, with the critique and without."""
    users = [user for user in users if user["attribute"] in WORDED]
    shares = {}
    for name in ("critique", "none"):
        said = [user["text"] for user in users] if name == "critique" else None
        ranked = regen.recommend([user["history"] for user in users], n=1, explain=True, batch_size=32, critique=said)
        texts = [entries[0]["endorsement"].lower() for entries in ranked]
        shares[name] = mean_interval(
            np.array([has_word(text, user["value"]) for user, text in zip(users, texts, strict=True)], float)
        )
    return {"users": len(users), **shares}


def has_word(text: str, word: str) -> bool:
    """Whether `text` contains `word`, and not only in a longer word."""
    return re.search(rf"\b{re.escape(word)}\b", text) is not None


def held_out(world: World, regen: Any) -> dict[str, Any]:
    """`obey` for values that no critique of training named, and for wordings that none had."""
    users = [
        {"history": user["history"], "attribute": attribute, "value": value}
        for number, user in enumerate(world.users)
        for attribute, values in HELD_OUT.items()
        for value in [values[number % len(values)]]
        if world.items[user["history"][-1]["item"]["asin"]][attribute] != value
    ]
    asked = [user for user in world.users if user["attribute"] in PARAPHRASES and not is_held_out(user)]
    plain = first_ten(regen, [user["history"] for user in users], None)
    of_asked = first_ten(regen, [user["history"] for user in asked], None)

    def obeyed(users: list[dict[str, Any]], templates: dict[str, Any], without: list[list[str]]) -> dict[str, Any]:
        said = [
            phrase(templates[user["attribute"]], user["attribute"], user["value"], number)
            for number, user in enumerate(users)
        ]
        return obedience(world, users, first_ten(regen, [user["history"] for user in users], said), without)

    return {
        "new words": obeyed(users, PHRASES, plain),
        "new wordings": obeyed(asked, PARAPHRASES, of_asked),
        "trained words": obeyed(asked, PHRASES, of_asked),
    }


def is_held_out(user: dict[str, Any]) -> bool:
    """Whether the critique of `user` names a value of HELD_OUT."""
    return user["value"] in HELD_OUT.get(user["attribute"], ())


def without_held_out(dataset: Path) -> None:
    """Remove the critiques that contain a word of HELD_OUT from the train and validation files of `dataset`."""
    words = {value for values in HELD_OUT.values() for value in values}
    for split in ("train", "validation"):
        for file in outputs.dataset_files(dataset.parent, split):
            table = pq.read_table(file)
            column = table.column("last_purchase").combine_chunks()
            texts = [
                None
                if text and words & set(text.lower().strip(".?!").replace(",", " ").replace(":", " ").split())
                else text
                for text in column.field("critique").to_pylist()
            ]
            fields = [
                pa.array(texts, pa.string()) if one.name == "critique" else column.field(one.name)
                for one in column.type
            ]
            changed = pa.StructArray.from_arrays(fields, fields=list(column.type))
            pq.write_table(
                table.set_column(table.schema.get_field_index("last_purchase"), "last_purchase", changed), file
            )


def cell(world: Path, folder: Path, name: str, training: dict[str, Any]) -> dict[str, Any]:
    """Train one cell on links to the stages of `world`, and measure it."""
    from regen_hf import load

    shared = yaml.safe_load((world / outputs.CONFIG).read_text(encoding="utf-8"))
    run = Run(folder, shared | {"training": training, "next_item": {"critiques": True, "endorsed_users": 0}})
    with run.locked():
        run.save()
        link_stages(world, folder)
        if name.endswith("heldout"):
            if (folder / "dataset").is_symlink():
                (folder / "dataset").unlink()
            shutil.copytree(world / "dataset", folder / "dataset", dirs_exist_ok=True)
            without_held_out(folder / "dataset")
        repeats = 0 if name == "without repeats" else examples.CRITIQUE_REPEATS
        with patch.object(examples, "CRITIQUE_REPEATS", repeats):
            run.build_all(until="train")
        run.build(STAGES["next-item"])
    regen = load(str(outputs.folder(folder, "train")))
    known = World(folder)
    histories = [user["history"] for user in known.users]
    plain = first_ten(regen, histories, None)
    report = {
        "ranking": outputs.read_json(outputs.path(folder, "next-item", outputs.RESULTS))["critiques"],
        "obey": obedience(
            known, known.users, first_ten(regen, histories, [user["text"] for user in known.users]), plain
        ),
        "turns": dialogue(known, regen, known.users),
        "named": named(regen, known.users) if training["tasks"] else None,
        "seconds": outputs.manifest(folder, "train")["seconds"],
    }
    return report | ({"held_out": held_out(known, regen)} if name.endswith("heldout") else {})


def table(cells: dict[str, dict[str, Any]]) -> str:
    """The means over the seeds as Markdown: the ranking and the obedience of each cell."""
    ranking = [["cell", "seeds", "critique", "Recall@10", "MRR"]]
    obedience = [["cell", "wish", "with the critique", "without", "in the catalogue"]]
    for name, seeds in cells.items():
        runs = list(seeds.values())
        for critique in runs[0]["ranking"]["by"] if runs else ():
            values = [
                f"{np.mean([run['ranking']['by'][critique][metric]['mean'] for run in runs]):.3f}"
                for metric in ("recall@10", "mrr")
            ]
            ranking.append([name, str(len(runs)), critique, *values])
        obeyed = {"": [run["obey"] for run in runs]}
        for group in runs[0].get("held_out", ()) if runs else ():
            obeyed[f", {group}"] = [run["held_out"][group] for run in runs]
        for group, parts in obeyed.items():
            for wish in parts[0] if parts else ():
                shares = [
                    np.mean([part[wish][which]["mean"] for part in parts])
                    for which in ("critique", "none", "catalogue")
                ]
                obedience.append([name, wish + group, *(f"{share:.2f}" for share in shares)])
    users = next(run for seeds in cells.values() for run in seeds.values())["ranking"]["n_users"]
    return (
        f"Simulated sample world, {users} test users with a critique, means over seeds; see critiques.json for the "
        f"intervals.\n\n{markdown(ranking)}\n\nShare of the first ten items that have what the critique asks for:\n\n"
        f"{markdown(obedience)}\n"
    )


def main() -> None:
    """Run the missing cells."""
    parser = cells_parser(__doc__, list(CELLS), seeds=[0])
    parser.add_argument(
        "--backbone", help="pretrained model of the cell `pretrained heldout`, which is left out without"
    )
    options = parser.parse_args()
    common = TRAINING | training_settings(options.set)
    world = build_world(options.folder / "world", {"sequences": {"sample": True}}).folder
    target = options.results / "critiques.json"
    report = outputs.read_json(target) if target.exists() else {}
    cells = report.setdefault("cells", {})
    for seed in options.seeds:
        for name in options.only:
            if name.startswith("pretrained") and not options.backbone:
                continue
            if str(seed) not in cells.setdefault(name, {}):
                backbone = {"backbone": options.backbone} if name.startswith("pretrained") else {}
                settings = common | CELLS[name] | backbone | {"seed": seed}
                folder = options.folder / f"{name.replace(' ', '-')}-{seed}"
                measured = cell(world, folder, name, settings)
                if backbone:
                    settings["backbone"] = Path(options.backbone).name
                cells[name][str(seed)] = {"training": settings, **measured}
                target.parent.mkdir(parents=True, exist_ok=True)
                outputs.write_json(target, report, indent=1)
                outputs.write_text(options.results / "critiques.md", table(cells))
    print(json.dumps(report))


if __name__ == "__main__":
    main()
