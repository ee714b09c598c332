"""Write regen_hf/prompts/examples: the few-shot examples of the prompt `narratives`, shoppers of the sample world.

    python scripts/examples.py

The histories come from a small sample world. The narratives are written by hand from each history: the narratives of
the sample world also mention a trait that no review states, and would teach a language model to invent facts. If the
sample world has changed, check the narratives before you commit the new files.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from regen_hf import outputs, prompts
from regen_hf.run import Run

WORLD = {"sequences": {"sample": True}, "sample": {"shoppers": 200, "items": 100, "seed": 7}}

NARRATIVES: dict[str, dict[str, Any]] = {
    # One earlier purchase failed in what matters to the customer.
    "simulated-000032": {
        "last_purchase": {
            "reason": "They wanted a grey pen case tough enough to last in the garden.",
            "explanation": "Every earlier verdict turns on how well a thing withstands rough use, and the one failure, "
            "a Hollistead clock, was marked down for exactly that. The sturdy Kestermoor notebook bought just before "
            "speaks for choosing the brand again.",
        },
        "user": {
            "profile": "Durability-minded buyer for desk and garden",
            "brief_summary": "This customer furnishes desk, workshop and garden with practical things in grey, navy "
            "and mustard and expects them to last for years. Kestermoor is the brand they came back to, and poor "
            "customer service is what they complain of.",
            "long_summary": "This customer buys everyday equipment for the office above all, with single pieces for "
            "workshop and garden: two clocks, a kettle, a notebook and a pen case, at prices from about 12 to 40 "
            "dollars. Durability decides nearly every rating. The Tarrowby clock earned full marks for its solid build "
            "and the Larkenby kettle was praised for surviving falls, while the Hollistead alarm clock did not last "
            "and was rated 2. Kestermoor is the only brand bought twice. Slow or silent customer support annoys them "
            "repeatedly, though it seldom costs a product its good rating.",
        },
    },
    # The last review names the recipient, and much from after the purchase.
    "simulated-000084": {
        "last_purchase": {
            "reason": "They were looking for a birthday present for their mother and picked a mustard tool roll for "
            "her travels.",
            "explanation": "Their mother was given a planner and an office tool roll before, so a second roll, this "
            "time for the road, continues what pleased her. Mustard is a colour they had chosen before, and handsome "
            "materials count for much in all their purchases.",
        },
        "user": {
            "profile": "Style-loving giver of tools and stationery",
            "brief_summary": "This customer buys tools and stationery of handsome make, often as presents for their "
            "mother. Hollistead is the brand they return to, and mustard the colour.",
            "long_summary": "More than half of these purchases are presents for the customer's mother: a workshop "
            "planner, a tool roll for the office and another for travel. For themselves they bought an olive headlamp "
            "and a large garden clock that replaced a broken one. What a thing looks like matters most to them; "
            "elegant shapes, fine finishes and rich colours are praised throughout, and everything was rated 5. Three "
            "of five items are from Hollistead, with Oskvale and Kestermoor chosen once each. Their one recurring "
            "complaint is about labels that are hard to take off.",
        },
    },
    # The last product was returned, which the reason does not mention.
    "simulated-000131": {
        "last_purchase": {
            "reason": "They wanted a teal kettle for the office that would be easy to keep clean.",
            "explanation": "Three of the four earlier purchases were meant for the office, and the latest of them was "
            "teal as well. How easily dirt comes off decides their ratings again and again, so it will have counted in "
            "this choice too.",
        },
        "user": {
            "profile": "Hard-to-please office buyer minding cleanliness",
            "brief_summary": "This customer equips an office and buys presents for a daughter, looking for things that "
            "are easy to clean and free of smells. They are hard to please, and Kestermoor and the colour teal are "
            "what they come back to.",
            "long_summary": "This customer shops mainly for the office: a notebook, a blanket, a tool roll and a "
            "kettle, with one folder for travel. The notebook and the tool roll were presents for a daughter. "
            "Cleanliness is their measure; the notebook earned 4 of 5 because dirt came off at once, while folder, "
            "blanket and tool roll were marked down for being hard to clean. Chemical smells on unpacking bother them "
            "as much. Kestermoor was bought twice and Vintrel, Brindlecroft and Dunmarrow once each, and two of five "
            "purchases were returned.",
        },
    },
    # The history gives no reason, and none is invented from the description.
    "simulated-000047": {
        "last_purchase": {"reason": None, "explanation": None},
        "user": {
            "profile": "Contented lover of simple everyday things",
            "brief_summary": "This customer picks simple things that need no instructions for workshop, office and "
            "garden. Tarrowby is a clear favourite, and unanswered questions to a shop are their only complaint.",
            "long_summary": "Three of five purchases are from Tarrowby: a red lantern for the workshop, a navy clock "
            "for the office and a mustard garden mug. Beside them stand a cream Hollistead alarm clock and a red "
            "Brindlecroft planner for camping. Ease of use is what they look for and praise; anything obvious that "
            "works without fuss earns 4 or 5 of 5. Red appears twice. Shops that do not reply to them are mentioned "
            "several times, without lowering a rating.",
        },
    },
    # The last review states what happened before the purchase.
    "simulated-000010": {
        "last_purchase": {
            "reason": "Their old blanket was worn out, and they wanted a good-looking replacement for the office.",
            "explanation": "The customer tells of a blanket that had to be replaced. Every earlier purchase was chosen "
            "and praised for its looks, which makes appearance a likely motive here as well, and the grey repeats the "
            "colour of their lunch box.",
        },
        "user": {
            "profile": "Style-conscious kitchen and home shopper",
            "brief_summary": "This customer chooses kitchen, garden and office goods by their looks and is pleased "
            "with all of them. Larkenby was bought twice, as was grey, and colours that differ from the picture are "
            "the one reproach.",
            "long_summary": "Most of this customer's shopping is for the kitchen: a grey Fennimark lunch box, a teal "
            "Brindlecroft tote bag and a cream Larkenby kettle, joined by a garden planner and an office blanket. "
            "Beauty is the common thread; shape, finish and depth of colour are what they write about, and they enjoy "
            "being asked about what they own. All five items were rated 5, at prices from about 19 to 52 dollars. "
            "Their only recurring criticism concerns photos that do not show the true colour.",
        },
    },
}


def write(folder: Path) -> None:
    """Write a JSON file per example into `folder`, with the fields of a row that an example needs."""
    with tempfile.TemporaryDirectory() as world:
        run = Run(Path(world) / "run", WORLD)
        with run.locked():
            run.save()
            run.build_all(until="sequences")
        rows = outputs.rows(outputs.sequence_files(run.folder))
        histories = {row["reviewer_id"]: row["purchase_history"] for row in rows}
    folder.mkdir(exist_ok=True)
    for number, (reviewer_id, narratives) in enumerate(NARRATIVES.items(), 1):
        row = {"reviewer_id": reviewer_id, "purchase_history": histories[reviewer_id], **narratives}
        text = json.dumps(row, indent=2, ensure_ascii=False) + "\n"
        (folder / f"{number}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(prompts.EXAMPLES)
