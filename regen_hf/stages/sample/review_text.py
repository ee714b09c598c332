"""Records of reviews: they state the visible attributes, concern, recipient and complaint, never the circle."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np

from .world import Purchase, Shopper, article

OPENINGS = (
    "I ordered this {kind} in {colour} last month.",
    "Bought the {colour} {brand} {kind} to use {place}.",
    "The {brand} {kind} arrived in {colour}, just as ordered.",
    "I have had this {use} {kind} for a few weeks now.",
    "My old {kind} gave up, so I tried this one from {brand}.",
    "I had been looking for {a_colour} {kind} for a while and settled on {brand}.",
    "{A_colour} {kind} from {brand}, meant to be used {place}.",
    "After a lot of reading I went for the {use} {kind} by {brand}.",
    "Finally {a_brand} {kind} in {colour}.",
    "This {kind} has been with me {place} ever since it came.",
)
GIFT_OPENINGS = (
    "Bought this {colour} {kind} for my {who}.",
    "This {brand} {kind} was a present for my {who}.",
    "My {who} needed {a_use} {kind}, so I ordered the {colour} one from {brand}.",
    "Got the {colour} {kind} as a gift for my {who}.",
    "My {who} had asked for {a_kind} to use {place}, and I picked {brand}.",
    "A birthday surprise for my {who}: the {brand} {kind} in {colour}.",
    "My {who} has had this {use} {kind} for a few weeks now.",
)
GIFT_REACTIONS = {  # by whether the rating is good
    True: (
        "My {who} is delighted.",
        "My {who} loves it.",
        "It made my {who} smile.",
        "My {who} keeps telling everyone about it.",
        "My {who} could not have wished for more.",
    ),
    False: (
        "My {who} was not impressed.",
        "My {who} deserves better.",
        "My {who} has put it away already.",
        "I felt sorry for my {who}.",
    ),
}
PLACE = {
    "travel": "on trips",
    "camping": "at camp",
    "office": "at the office",
    "garden": "in the garden",
    "kitchen": "in the kitchen",
    "workshop": "in the workshop",
}
USE_SENTENCES = {
    "travel": (
        "It went straight into the suitcase.",
        "It has been on two trips so far.",
        "Airports and hotels have not bothered it.",
        "It comes along whenever there is a train to catch.",
    ),
    "camping": (
        "It came along to the campsite last Sunday.",
        "It has its place right beside the tent.",
        "It sat through a wet evening by the campfire.",
        "No camping trip without it from now on.",
    ),
    "office": (
        "It lives on the desk now.",
        "Colleagues at the office have started to borrow it.",
        "It looks right in a meeting.",
        "It gets used at work every day.",
    ),
    "garden": (
        "It stays in the shed between rounds in the garden.",
        "It is out among the flower beds most afternoons.",
        "A season in the garden lies behind it.",
        "It suits the garden well.",
    ),
    "kitchen": (
        "It has its own hook in the kitchen.",
        "It is in the kitchen every single day.",
        "It stands next to the stove now.",
        "Our kitchen is small, but it found a spot.",
    ),
    "workshop": (
        "It lives on the workbench.",
        "Sawdust and oil are all in a day's work for it.",
        "It has joined the tools in the workshop.",
        "The workshop is where it belongs.",
    ),
}
PRAISE = {
    "durability": (
        "It has been dropped more than once and shows no mark.",
        "Nothing about it is flimsy, it is built to last.",
        "Weeks of rough handling and it is still as solid as new.",
        "I judge things by how long they survive, and this one will.",
        "Very sturdy, the sort of thing that outlives its owner.",
    ),
    "comfort": (
        "It is so comfortable that you forget it is there.",
        "Very pleasant to handle, soft where it should be soft.",
        "No stiff edges anywhere, comfort was clearly thought about.",
        "Comfortable from the first day, no breaking in needed.",
        "It simply feels good, and that is what I look for.",
    ),
    "value": (
        "Great value, I would have paid more for it.",
        "The price is fair and the quality matches.",
        "Cheaper than the others and just as good.",
        "I compared prices for a week and this was the best deal.",
        "Worth every cent.",
    ),
    "looks": (
        "It looks wonderful, the {colour} is deep and even.",
        "Everyone who sees it asks where it is from.",
        "A beautiful shape, elegant without being fussy.",
        "The finish is gorgeous.",
        "I chose it for its looks and was not disappointed.",
    ),
    "simplicity": (
        "So easy to use that no instructions are needed.",
        "It worked straight away, nothing to set up.",
        "Simple and obvious, just how I like it.",
        "A child could work it out in a minute.",
        "No fiddling, no tricks, it just does its job.",
    ),
    "lightness": (
        "It weighs next to nothing.",
        "Wonderfully light, you hardly notice carrying it.",
        "I put it on the scale, and it is lighter than promised.",
        "Light enough to be carried around all day.",
        "I count grams, and this one saves plenty.",
    ),
    "cleaning": (
        "Dirt wipes off in seconds.",
        "It comes clean with a damp cloth.",
        "Stains do not stand a chance on it.",
        "So easy to keep clean, a quick wipe and done.",
        "Coffee was spilled on it and there is no trace left.",
    ),
    "compactness": (
        "It takes up hardly any room.",
        "Small enough for the tightest corner.",
        "I have little space and this one tucks away neatly.",
        "Very compact, it fits where nothing else would.",
        "It stows away neatly when not in use.",
    ),
}
BLAME = {
    "durability": (
        "It started to come apart after a few weeks.",
        "Far too flimsy, I doubt it will see another year.",
        "I care about durability and this did not hold up.",
        "The first knock already left it damaged.",
    ),
    "comfort": (
        "Not comfortable at all, it is stiff and awkward.",
        "The edges dig in after a while.",
        "I wanted something comfortable and this is not it.",
        "It is rough to the touch and no joy to handle.",
    ),
    "value": (
        "Overpriced for what it is.",
        "I expected more at this price.",
        "Others cost half as much and do the same.",
        "Poor value, I watch my budget and regret this one.",
    ),
    "looks": (
        "It looks cheap in real life.",
        "The finish is dull and uneven.",
        "I buy with my eyes and this one is plain ugly.",
        "The {colour} does nothing for it, not a pretty thing.",
    ),
    "simplicity": (
        "Far too fiddly, I had to look up how it works.",
        "Nothing about it is obvious.",
        "I like simple things and this is needlessly complicated.",
        "It took three tries before it made sense.",
    ),
    "lightness": (
        "Much heavier than expected.",
        "It is a brick, arms ache after an hour.",
        "Too heavy to carry around.",
        "I count grams and this weighs far too much.",
    ),
    "cleaning": (
        "It attracts every bit of dust and is hard to clean.",
        "Stains do not come out.",
        "Impossible to keep clean, there are seams everywhere.",
        "I scrubbed for ten minutes and it still looks dirty.",
    ),
    "compactness": (
        "Much bulkier than the pictures suggest.",
        "It takes up too much room.",
        "I have little space and this one is always in the way.",
        "Hard to store, it fits nowhere.",
    ),
}
GRUMBLE_SENTENCES = {
    "packaging": (
        "It came in far too much packaging.",
        "So much plastic and cardboard around such a thing.",
        "The packaging alone filled the bin.",
    ),
    "delivery": (
        "Delivery took more than two weeks.",
        "It arrived days later than promised.",
        "The shipping was slow again.",
    ),
    "smell": (
        "It had a chemical smell when I opened it.",
        "Needs airing first, the smell is strong.",
        "There was an odd smell of glue.",
    ),
    "photo": (
        "The colour is not quite the one in the photo.",
        "The photo makes it look brighter than it is.",
        "In daylight the colour differs from the picture.",
    ),
    "labels": (
        "The label left a sticky mark.",
        "It took ages to peel off the stickers.",
        "Why glue a label on the front?",
    ),
    "service": (
        "Customer service never answered my question.",
        "I wrote to the shop twice and heard nothing.",
        "The support people were no help.",
    ),
}
CLOSINGS = {
    5: ("I would buy it again.", "Could not be happier.", "Highly recommended.", "A little gem.", "Top marks."),
    4: ("Happy with it overall.", "Nearly perfect.", "A good buy.", "I would recommend it.", "Does what it should."),
    3: ("It is all right, no more.", "Mixed feelings.", "An average {kind}.", "Could be better."),
    2: ("I had hoped for more.", "Would not buy it again.", "Rather disappointing."),
    1: ("A waste of money.", "It is going back.", "Stay away from this {kind}."),
}
HEADLINES = {
    5: ("Lovely {kind}", "Exactly right", "Love it", "Best {kind} so far", "Very happy", "Five out of five"),
    4: ("Good {kind}", "Nice, with one small flaw", "A good choice", "Pleased with it", "Solid {kind}"),
    3: ("It is okay", "Average {kind}", "So-so", "Not bad, not great"),
    2: ("Expected better", "Disappointing {kind}", "Not for me"),
    1: ("Do not bother", "Terrible {kind}", "Sent it back"),
}
GIFT_HEADLINES = ("A gift for my {who}", "For my {who}", "Bought for my {who}")


def review_records(shopper: Shopper, rng: np.random.Generator) -> list[dict[str, Any]]:
    """The reviews of a shopper as records of the 2018 release, in the order of the purchases."""
    # Each shopper cycles through the phrases from a random start, so that consecutive reviews differ.
    starts = rng.integers(2**16, size=6).tolist()
    optional = rng.random((len(shopper.purchases), 2)) < (0.6, 0.75)  # a sentence about the use, a closing sentence
    return [
        _record(shopper, purchase, [start + index for start in starts], *optional[index].tolist())
        for index, purchase in enumerate(shopper.purchases)
    ]


def _record(shopper: Shopper, purchase: Purchase, picks: list[int], use: bool, closing: bool) -> dict[str, Any]:
    item = purchase.item
    words = {
        "brand": item.brand,
        "kind": item.kind,
        "colour": item.colour,
        "use": item.use,
        "place": PLACE[item.use],
        "who": shopper.recipient or "",
        "a_brand": article(item.brand),
        "a_colour": article(item.colour),
        "A_colour": article(item.colour, capital=True),
        "a_use": article(item.use),
        "a_kind": article(item.kind),
    }
    banks: list[tuple[str, ...]] = [GIFT_OPENINGS if purchase.is_gift else OPENINGS]
    if purchase.says_concern:
        banks.append((PRAISE if purchase.rating >= 4 else BLAME)[shopper.concern])
    if use:
        banks.append(USE_SENTENCES[item.use])
    if purchase.grumbles:
        banks.append(GRUMBLE_SENTENCES[shopper.grumble])
    if purchase.is_gift:
        banks.append(GIFT_REACTIONS[purchase.rating >= 4])
    elif closing:
        banks.append(CLOSINGS[purchase.rating])
    sentences = [bank[pick % len(bank)] for bank, pick in zip(banks, picks, strict=False)]
    headlines = GIFT_HEADLINES if purchase.is_gift else HEADLINES[purchase.rating]
    day = datetime.datetime.fromtimestamp(purchase.unix_time, datetime.UTC)
    return {
        "overall": float(purchase.rating),
        "verified": True,
        "reviewTime": f"{day:%m} {day.day}, {day.year}",
        "reviewerID": shopper.reviewer_id,
        "asin": item.asin,
        "reviewText": " ".join(sentences).format(**words),
        "summary": headlines[picks[-1] % len(headlines)].format(**words),
        "unixReviewTime": purchase.unix_time,
    }
