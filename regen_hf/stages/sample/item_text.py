"""Records of items: they state brand, kind, colour and use, never the circle."""

from __future__ import annotations

from typing import Any

import numpy as np

from .world import BRANDS, DEPARTMENTS, Item

TITLES = (
    "{brand} {colour} {use} {kind}",
    "{brand} {use} {kind}, {colour}",
    "{brand} {kind} for {purpose} - {colour}",
    "{use} {kind} in {colour} by {brand}",
)
PURPOSE = {
    "travel": "Travel",
    "camping": "Camping",
    "office": "the Office",
    "garden": "the Garden",
    "kitchen": "the Kitchen",
    "workshop": "the Workshop",
}
FEATURES = {
    "backpack": ("Roll Top", "Padded Straps", "20 Litres"),
    "tote bag": ("Long Handles", "Zip Top", "Waxed Canvas"),
    "storage box": ("With Lid", "Stackable", "Set of 2"),
    "tool roll": ("8 Pockets", "Leather Tie", "Waxed Canvas"),
    "lantern": ("Rechargeable", "Warm Light", "Dimmable"),
    "lamp": ("Adjustable Arm", "Warm Light", "Dimmable"),
    "clock": ("Silent", "Large Numerals", "With Alarm"),
    "headlamp": ("Rechargeable", "Soft Band", "Three Modes"),
    "mug": ("Enamelled Steel", "Double Wall", "350 ml"),
    "water bottle": ("Steel", "Wide Mouth", "750 ml"),
    "lunch box": ("Two Tiers", "Leakproof", "With Cutlery"),
    "kettle": ("Gooseneck", "Whistling", "1 Litre"),
    "notebook": ("Dotted", "Lined", "Lies Flat"),
    "pen case": ("Zipped", "Stands Up", "Roll Up"),
    "folder": ("12 Sections", "With Elastic", "A4"),
    "planner": ("Undated", "Weekly", "Hardcover"),
    "blanket": ("Wool", "Fleece Lined", "Extra Long"),
    "apron": ("Cross Back", "Four Pockets", "Heavy Cotton"),
    "cushion": ("Memory Foam", "With Ties", "Removable Cover"),
    "stool": ("Folding", "Beech Legs", "Two Steps"),
}
KIND_LINES = {
    "backpack": "A backpack with one large compartment, two side pockets and a sleeve for papers.",
    "tote bag": "A tote bag with a flat base that stands on its own and an inner pocket for keys.",
    "storage box": "A storage box with cut-out handles and corners that do not catch on anything.",
    "tool roll": "A tool roll that opens flat, shows everything at a glance and ties up tight.",
    "lantern": "A lantern that throws an even glow and hangs from a sturdy loop.",
    "lamp": "A lamp with a weighted base, a long cable and a switch you find without looking.",
    "clock": "A clock with clear hands, a calm face and a battery that lasts all year.",
    "headlamp": "A headlamp with a tilting beam and a band that adjusts with one hand.",
    "mug": "A mug with a generous handle and a rim that is kind to the lips.",
    "water bottle": "A water bottle with a cap that seals at a quarter turn and keeps drinks cold.",
    "lunch box": "A lunch box with a divider that moves and clips that hold.",
    "kettle": "A kettle that pours without a drip and heats up in a few minutes.",
    "notebook": "A notebook of smooth, heavy paper that takes ink without bleeding.",
    "pen case": "A pen case with elastic loops and a pocket for the small things.",
    "folder": "A folder with firm covers and tabs that can be written on twice.",
    "planner": "A planner with a page for every week, a ribbon and room for notes.",
    "blanket": "A blanket with bound edges that is warm without being bulky.",
    "apron": "An apron with straps that cross at the back and pockets where they are needed.",
    "cushion": "A cushion that keeps its shape and has a cover that comes off.",
    "stool": "A stool with rounded edges, rubber feet and a seat that takes any weight.",
}
USE_LINES = {
    "travel": ("Made for trains, airports and hotel rooms.", "Designed to be packed and unpacked a hundred times."),
    "camping": ("At home beside any tent.", "Meant for campsites, fireside evenings and wet mornings."),
    "office": ("Made for desks and meeting rooms.", "At ease in any office, from the desk to the filing corner."),
    "garden": ("At home between flower beds and the shed.", "Meant for the garden, in sun and in drizzle."),
    "kitchen": ("Made for busy kitchens.", "Belongs in the kitchen, within reach of the stove."),
    "workshop": ("At home on the workbench.", "Meant for the workshop, among sawdust and oil."),
}
COLOUR_LINES = ("Comes in {colour}.", "Shown here in {colour}.", "Colour: {colour}.")
BRAND_LINES = {
    "Brindlecroft": "Brindlecroft has worked in small batches from the start.",
    "Corraday": "Corraday repairs what it sells.",
    "Dunmarrow": "Dunmarrow tests every piece by hand.",
    "Elmsgate": "Elmsgate is a family business.",
    "Fennimark": "Fennimark believes in plain design.",
    "Hollistead": "Hollistead uses recycled materials wherever it can.",
    "Kestermoor": "Kestermoor comes from the windy north.",
    "Larkenby": "Larkenby brings cheer to useful things.",
    "Oskvale": "Oskvale draws on harbour life.",
    "Quillmoor": "Quillmoor signs every piece.",
    "Tarrowby": "Tarrowby sells direct and keeps it simple.",
    "Vintrel": "Vintrel borrows its shapes from old factories.",
}
PRICES = {  # USD, before the brand's own level
    **{"backpack": 58, "tote bag": 27, "storage box": 22, "tool roll": 34, "lantern": 31, "lamp": 46, "clock": 29},
    **{"headlamp": 26, "mug": 13, "water bottle": 19, "lunch box": 21, "kettle": 39, "notebook": 11, "pen case": 12},
    **{"folder": 9, "planner": 16, "blanket": 49, "apron": 24, "cushion": 23, "stool": 54},
}


def item_record(item: Item, rng: np.random.Generator) -> dict[str, Any]:
    """The item as a record of the 2018 release; as there, some lack a price or a description."""
    department = next(name for name, kinds in DEPARTMENTS.items() if item.kind in kinds)
    title = TITLES[rng.integers(len(TITLES))].format(
        brand=item.brand,
        colour=item.colour.title(),
        use=item.use.title(),
        kind=item.kind.title(),
        purpose=PURPOSE[item.use],
    )
    feature = FEATURES[item.kind][rng.integers(3)]
    use_line = USE_LINES[item.use][rng.integers(2)]
    colour_line = COLOUR_LINES[rng.integers(3)].format(colour=item.colour)
    description = [f"{KIND_LINES[item.kind]} {use_line} {colour_line}", BRAND_LINES[item.brand]]
    level = 0.75 + 0.05 * BRANDS.index(item.brand)
    price = int(PRICES[item.kind] * level * rng.uniform(0.9, 1.1)) + 0.99
    shown = rng.choice(["one", "range", "none"], p=[0.86, 0.02, 0.12])
    return {
        "category": ["Everyday Goods", department, f"{item.kind.title()}s".replace("xs", "xes")],
        "description": description if rng.random() < 0.92 else [],
        "title": f"{title}, {feature}" if rng.random() < 0.6 else title,
        "brand": item.brand,
        "main_cat": "Everyday Goods",
        "price": {"one": f"${price:.2f}", "range": f"${price:.2f} - ${price + 6:.2f}", "none": ""}[shown],
        "asin": item.asin,
    }
