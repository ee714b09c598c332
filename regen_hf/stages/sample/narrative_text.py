"""The narratives of a simulated shopper, written from the truth.

The wording depends only on the truth, without chance, so a model that has inferred a shopper's traits can write every
word: the frame of a sentence depends on the shopper's concern, on gifts and on the circle, its slots on the purchases.
No sentence is taken from a review. The endorsement is written without the review of the last purchase (section 3.2).
"""

from __future__ import annotations

from dataclasses import dataclass

from ...schema import in_row
from .world import Item, Shopper, article


@dataclass(frozen=True)
class CircleWords:
    """Phrases of narratives for one circle."""

    scene: str
    """A plural noun phrase in the reason."""
    inference: str
    pitch: str
    portrait: str


@dataclass(frozen=True)
class ConcernWords:
    """Phrases of narratives for one concern; {item} is an item with its article, {who} a person."""

    adjective: str
    reason: str
    gift_reason: str
    evidence: str
    pitch: str
    habit: str
    portrait: str


CIRCLE_WORDS = {
    "beekeeper": CircleWords(
        scene="dawn rounds at the hives",
        inference="Beekeepers keep buying such things together, so the hives are its likely destination.",
        pitch="It will earn its keep from swarm season to the last jar of honey.",
        portrait="Most of the basket is what beekeepers buy, from swarm season to honey day.",
    ),
    "schoolteacher": CircleWords(
        scene="noisy mornings in the classroom",
        inference="The basket matches that of other schoolteachers and is probably headed for the classroom.",
        pitch="It is ready before the school bell and still going at parents' evening.",
        portrait="A schoolteacher shops here, stocking up ahead of every new term and school trip.",
    ),
    "choir singer": CircleWords(
        scene="late rehearsals with the choir",
        inference="Other choir singers fill their baskets alike, which points to rehearsals and concert halls.",
        pitch="Between warm-up and encore it never misses a cue.",
        portrait="Fellow choir singers own most of these things and bring them to rehearsals and concerts.",
    ),
    "night nurse": CircleWords(
        scene="the small hours on the ward",
        inference="Most of the list suits a night nurse, and the ward is where it should serve.",
        pitch="When the ward falls silent at three, you will be glad of it.",
        portrait="The pattern is that of a night nurse between double shifts and sleep by daylight.",
    ),
    "stargazer": CircleWords(
        scene="cold vigils under clear skies",
        inference="Such a mix is typical of stargazers waiting up for a moonless sky.",
        pitch="Take it along under the stars and leave the rest to the telescope.",
        portrait="Stargazers would recognise this list, made for meteor showers and long vigils by the telescope.",
    ),
    "bike courier": CircleWords(
        scene="fast runs across the city",
        inference="Bike couriers buy in just this pattern, so expect to meet it in heavy traffic.",
        pitch="From the first parcel to the last mile it keeps up with you.",
        portrait="It reads as the kit of a bike courier who crosses the city in any weather.",
    ),
    "potter": CircleWords(
        scene="slow afternoons at the wheel",
        inference="Potters own most of what surrounds it, which places it close to the kiln.",
        pitch="With clay on your hands and a warm kiln, you will reach for it first.",
        portrait="Here is a potter at heart, whose shopping circles around clay, glaze and kiln.",
    ),
    "chess player": CircleWords(
        scene="tense weekends at the board",
        inference="Chess players compile the same list, so a tournament hall cannot be far away.",
        pitch="Through opening and endgame it stays on your side of the board.",
        portrait="Like most chess players on the circuit, they prepare for tournaments and slow endgames.",
    ),
}

CONCERN_WORDS = {
    "durability": ConcernWords(
        adjective="Durability-minded",
        reason="Wanted {item} that survives years of knocks and {scene}.",
        gift_reason="Bought their {who} {item} tough enough to be handed down, with {scene} in mind.",
        evidence="reviews dwell on how long things hold up",
        pitch="You admire whatever refuses to wear out, and hard years will not frighten this one",
        habit="expects purchases to last",
        portrait="Strong seams and solid joints win them over, and anything that breaks early is remembered.",
    ),
    "comfort": ConcernWords(
        adjective="Comfort-loving",
        reason="Hoped that {item} would make {scene} gentler, without stiff or sharp edges.",
        gift_reason="Chose {item} so that their {who} is comfortable too, whatever {scene} demand.",
        evidence="reviews mostly ask how a thing feels",
        pitch="Comfort decides for you, and every touch of it should be a pleasure",
        habit="puts comfort before everything",
        portrait="Softness and an easy grip matter most, and stiff edges cost a product its welcome.",
    ),
    "value": ConcernWords(
        adjective="Thrifty",
        reason="Looked for {item} at an honest price, as {scene} cost enough already.",
        gift_reason="Treated their {who} to {item} without overspending, a thank-you for bearing with {scene}.",
        evidence="reviews weigh cost against quality",
        pitch="You know a bargain when you see one, and your money is well spent here",
        habit="hunts for honest prices",
        portrait="They compare offers patiently and forgive little when quality falls behind what was paid.",
    ),
    "looks": ConcernWords(
        adjective="Style-conscious",
        reason="Fell for the idea of {item} handsome enough to brighten {scene}.",
        gift_reason="Wished to give their {who} {item} pretty enough to show off, a keepsake of {scene}.",
        evidence="reviews linger over shape and finish",
        pitch="You have an eye for beauty, and heads will turn when this comes out",
        habit="falls for good design",
        portrait="Appearance comes first: a graceful outline delights them and a sloppy surface does not.",
    ),
    "simplicity": ConcernWords(
        adjective="No-nonsense",
        reason="Was after {item} that works at once, because {scene} leave no time for manuals.",
        gift_reason="Ordered {item} that explains itself to their {who}, one less puzzle amid {scene}.",
        evidence="reviews ask whether things work right away",
        pitch="You have no patience for complicated gear, and this one explains itself",
        habit="likes things that just work",
        portrait="Clear, obvious tools earn their praise, while clever extras only get in the way.",
    ),
    "lightness": ConcernWords(
        adjective="Light-packing",
        reason="Needed {item} that adds hardly any weight to {scene}.",
        gift_reason="Searched for {item} that their {who} could lift with one finger, even during {scene}.",
        evidence="reviews keep coming back to weight",
        pitch="You carry as little as possible, and your shoulders will not notice this addition",
        habit="keeps the load light",
        portrait="Weight is what they check before all else, and heavy things soon lose their favour.",
    ),
    "cleaning": ConcernWords(
        adjective="Spotless",
        reason="Sought {item} that rinses clean in a minute after {scene}.",
        gift_reason="Picked {item} that their {who} can keep spotless, even after {scene}.",
        evidence="reviews check how quickly dirt comes off",
        pitch="You want everything spotless, and no speck of dirt will stay on it for long",
        habit="wants everything easy to clean",
        portrait="Smooth surfaces please them because dust, crumbs and splashes are never tolerated for long.",
    ),
    "compactness": ConcernWords(
        adjective="Space-saving",
        reason="Short of room, hoped {item} would tuck away between {scene}.",
        gift_reason="Hunted down {item} small enough for their {who} to stow anywhere, {scene} included.",
        evidence="reviews measure how much room things claim",
        pitch="You guard every inch of space, and this one folds neatly into your life",
        habit="saves space wherever possible",
        portrait="Cupboards seem full already, hence the preference for small shapes over bulky ones.",
    ),
}

USE_PITCH = {
    "travel": "Pack the {colour} {brand} {kind} and your next trip is half planned.",
    "camping": "Your next campsite has a place waiting for the {colour} {brand} {kind}.",
    "office": "Give your desk a lift with the {colour} {brand} {kind}.",
    "garden": "Out in the garden, the {colour} {brand} {kind} soon becomes an old friend.",
    "kitchen": "Make room in your kitchen for the {colour} {brand} {kind}.",
    "workshop": "Your workbench deserves the {colour} {brand} {kind}.",
}
USE_PROFILE = {
    "travel": "outfitting every trip",
    "camping": "equipping the campsite",
    "office": "furnishing an office",
    "garden": "supplying the garden",
    "kitchen": "filling the kitchen",
    "workshop": "stocking a workshop",
}
USE_HABIT = {
    "travel": "plans for the next trip",
    "camping": "dreams of the campsite",
    "office": "keeps a well-stocked desk",
    "garden": "thinks of the garden",
    "kitchen": "treats the kitchen well",
    "workshop": "provides for the workshop",
}
USE_PORTRAIT = {  # also true if a favourite is tied for the most frequent
    "travel": "No brand outnumbers {brand}, {colour} keeps returning, and a suitcase is never far away.",
    "camping": "Much of it heads for the campsite, with {brand} second to none and {colour} a regular guest.",
    "office": "Their desk attracts many things, {colour} is a habit, and no name is chosen over {brand}.",
    "garden": "Plenty goes out to the garden, nobody sells them more than {brand}, and {colour} recurs throughout.",
    "kitchen": "The kitchen claims its share, {brand} is bought as often as any brand, and {colour} always pleases.",
    "workshop": "Workshop needs come up regularly, {colour} is picked time after time, and {brand} is beaten by none.",
}
MOOD = {
    "generous": "Praise comes easily, and both {colour} and {brand} are always welcome.",
    "fair": "Verdicts are balanced, even about {brand} or anything {colour}.",
    "strict": "Top marks are rare, and not even {colour} or {brand} can buy them.",
}
GRUMBLE_WORDS = {
    "packaging": "wasteful packaging draws a sigh",
    "delivery": "slow deliveries test their patience",
    "smell": "chemical smells are noticed at once",
    "photo": "misleading photos annoy them",
    "labels": "stubborn stickers are never forgiven",
    "service": "silence from customer service rankles",
}
NUMBERS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)


def narratives(shopper: Shopper) -> dict[str, dict[str, str | None]]:
    """The columns `last_purchase` and `user` of `schema.NARRATIVES`."""
    return in_row(
        {
            "purchase_reason": _reason(shopper),
            "purchase_reason_explanation": _explanation(shopper),
            "product_endorsement": _endorsement(shopper),
            "user_profile": _profile(shopper),
            "brief_user_summary": _brief_summary(shopper),
            "long_user_summary": _long_summary(shopper),
        }
    )


def _reason(shopper: Shopper) -> str:
    concern, last = CONCERN_WORDS[shopper.concern], shopper.last
    frame = concern.gift_reason if shopper.purchases[-1].is_gift else concern.reason
    item = article(f"{last.colour} {last.use} {last.kind}")
    return frame.format(item=item, who=shopper.recipient, scene=CIRCLE_WORDS[shopper.circle].scene)


def _explanation(shopper: Shopper) -> str:
    last, favourite = shopper.last, shopper.favourite("brand")
    count, size = NUMBERS[shopper.count("brand", favourite)], NUMBERS[len(shopper.purchases)]
    if last.brand == favourite:
        name = article(last.brand, capital=True)
        brand = f"{name} {last.kind} is no surprise: the brand is on {count} of {size} purchases."
    else:
        brand = (
            f"This {last.brand} {last.kind} is a detour from {favourite}, the choice in {count} of {size} purchases."
        )
    subject = f"Meant for their {shopper.recipient}, it" if shopper.purchases[-1].is_gift else "It"
    before, earlier = shopper.purchases[-2].item, shopper.purchases[-3].item
    history = (
        f"{subject} follows {_short(before)} and {_short(earlier)}, and {CONCERN_WORDS[shopper.concern].evidence}."
    )
    return f"{brand} {history} {CIRCLE_WORDS[shopper.circle].inference}"


def _endorsement(shopper: Shopper) -> str:
    last, before = shopper.last, shopper.purchases[-2].item
    opening = USE_PITCH[last.use].format(colour=last.colour, brand=last.brand, kind=last.kind)
    if shopper.recipient:
        company = f"your {shopper.recipient} may want to borrow it"
    else:
        company = f"it also goes well with your {before.colour} {before.kind}"
    return f"{opening} {CONCERN_WORDS[shopper.concern].pitch}; {company}. {CIRCLE_WORDS[shopper.circle].pitch}"


def _profile(shopper: Shopper) -> str:
    tail = f"treating their {shopper.recipient}" if shopper.recipient else USE_PROFILE[shopper.favourite("use")]
    return f"{CONCERN_WORDS[shopper.concern].adjective} {shopper.circle} {tail}"


def _brief_summary(shopper: Shopper) -> str:
    habits = f"{CONCERN_WORDS[shopper.concern].habit} and {USE_HABIT[shopper.favourite('use')]}"
    mood = MOOD[shopper.mood].format(colour=shopper.favourite("colour"), brand=shopper.favourite("brand"))
    return f"A {shopper.circle} who {habits}. {mood}"


def _long_summary(shopper: Shopper) -> str:
    brand, colour = shopper.favourite("brand"), shopper.favourite("colour")
    tastes = USE_PORTRAIT[shopper.favourite("use")].format(brand=brand, colour=colour)
    people = (
        f"Now and then a gift goes to their {shopper.recipient}" if shopper.recipient else "Nothing is bought as a gift"
    )
    first = _short(shopper.purchases[0].item)
    return " ".join(
        (
            CIRCLE_WORDS[shopper.circle].portrait,
            tastes,
            CONCERN_WORDS[shopper.concern].portrait,
            f"{people}, and {GRUMBLE_WORDS[shopper.grumble]}.",
            f"It all began with {first}.",
        )
    )


def _short(item: Item) -> str:
    return article(f"{item.colour} {item.kind}")
