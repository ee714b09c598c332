"""Narratives by fixed rules over the history, without a language model: for tests and a first look at own data.

A sentence states only facts of the log: titles, categories, prices, ratings, counts, and single words that recur in the
reviews; it never quotes a review. Texts about the time before the last purchase (reason, endorsement) are written from
a history without the last review.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

from ...model.interactions import without_last_review
from ...schema import in_row
from .wording import COMMON, COUNTS, WORD, Phrasing, counted, first_sentence, leaf, listed, shorten, times, usd


@dataclass(frozen=True)
class Purchase:
    """One purchase with cleaned texts; None for a missing field."""

    asin: str | None
    title: str
    title_words: frozenset[str]
    category: str | None
    sentence: str | None
    """First sentence of the description, if it is prose."""
    price: float | None
    rating: int | None
    words: frozenset[str]
    """Content words of the review."""
    length: int
    """Number of words of the review."""
    unix_time: int | None

    @classmethod
    def read(cls, purchase: dict[str, Any]) -> Purchase:
        """Clean one entry of a `purchase_history`."""
        item, review = purchase["item"] or {}, purchase["review"] or {}
        asin = " ".join((item.get("asin") or "").split())
        category = leaf(item.get("category"))
        title = " ".join(html.unescape(item.get("title") or "").split())
        text = f"{review.get('summary') or ''} {review.get('text') or ''}"
        price = item.get("price")
        return cls(
            asin=asin or None,
            title=shorten(title) or (f"product {asin}" if asin else "unnamed product"),
            title_words=_stems(title) - _stems(category or ""),
            category=category,
            sentence=first_sentence(item.get("description")),
            price=price if price and price > 0 else None,
            rating=review.get("rating"),
            words=frozenset(word for word in WORD.findall(text.lower()) if len(word) > 3 and word not in COMMON),
            length=len(text.split()),
            unix_time=review.get("unix_time"),
        )

    @property
    def named(self) -> str:
        """The title with its article."""
        return self.title if self.title.lower().startswith(("the ", "a ", "an ")) else f"the {self.title}"

    @property
    def rated(self) -> str:
        """The title with its article and, where known, its rating."""
        return self.named if self.rating is None else f"{self.named} (rated {self.rating} of 5)"


def write(reviewer_id: str, history: Sequence[dict[str, Any]], seed: int = 0) -> dict[str, Any]:
    """The narratives of one user: `{"last_purchase": {…}, "user": {…}}`, nulls for an empty history.

    The phrasing depends on a checksum of `seed` and `reviewer_id`: the same call returns the same text on any machine.
    """
    purchases = [Purchase.read(purchase) for purchase in history]
    if not purchases:
        return in_row({})
    choose = Phrasing(f"{seed}:{reviewer_id}")
    earlier, last = purchases[:-1], purchases[-1]
    unreviewed = Purchase.read(without_last_review(history)[-1])
    return in_row(
        {
            "purchase_reason": reason(unreviewed, earlier, choose),
            "purchase_reason_explanation": explanation(last, earlier, choose),
            "product_endorsement": endorsement(unreviewed, earlier, choose),
            "user_profile": profile(purchases),
            "brief_user_summary": brief_summary(purchases, choose),
            "long_user_summary": long_summary(purchases, choose),
        }
    )


def reason(last: Purchase, earlier: Sequence[Purchase], choose: Phrasing) -> str:
    """The reason for the last purchase, as far as it was known at the time."""
    if not earlier:
        return f"The customer wanted {last.named}" + (f" from {last.category}." if last.category else ".")
    again = sum(purchase.asin == last.asin for purchase in earlier if last.asin)
    if again:
        return choose(
            f"The customer wanted {last.named} again, having bought it {times(again)} before.",
            f"The customer came back for {last.named}, bought {times(again)} before.",
        )
    similar = related(last, earlier)
    if not similar:
        if not last.category:
            return f"After {earlier[-1].rated}, the customer turned to {last.named}."
        return choose(
            f"The customer wanted to try something new from {last.category} and chose {last.named}.",
            f"The customer turned to {last.category} for the first time and chose {last.named}.",
        )
    closest = similar[0]
    if closest.rating is not None and closest.rating <= 2:
        return choose(
            f"The customer was looking for something better than {closest.rated} and chose {last.named}.",
            f"After {closest.rated}, the customer wanted a better choice and turned to {last.named}.",
        )
    return choose(
        f"The customer wanted something along the lines of {closest.rated} and chose {last.named}.",
        f"After {closest.rated}, the customer wanted more of the kind and picked {last.named}.",
        f"The customer was looking for a companion to {closest.rated} and settled on {last.named}.",
    )


def explanation(last: Purchase, earlier: Sequence[Purchase], choose: Phrasing) -> str:
    """Evidence in the history for that reason; of the last review, only words that earlier reviews share."""
    if not earlier:
        return f"This is the only purchase on record, so only the product itself, {last.named}, speaks for the reason."
    sentences = [choose("It follows", "The customer had made") + f" {counted(len(earlier), 'earlier purchase')}"]
    if last.category:
        same = sum(purchase.category == last.category for purchase in earlier)
        of_them = "all" if same == len(earlier) else "none" if not same else COUNTS[same] if same < 13 else str(same)
        sentences[0] += (
            f", {of_them} of them from {last.category}"
            if len(earlier) > 1
            else (f", also from {last.category}" if same else f", not from {last.category}")
        )
    sentences[0] += "."
    similar = related(last, earlier)
    if similar:
        sentences.append(choose("The closest to it is", "Most like it is") + f" {similar[0].rated}.")
    else:
        sentences.append(f"The purchase just before was {earlier[-1].rated}.")
    prices = [purchase.price for purchase in earlier if purchase.price]
    if last.price and len(prices) > 1:
        usual = median(prices)
        level = "below" if last.price < 0.8 * usual else "above" if last.price > 1.25 * usual else "close to"
        sentences.append(f"Its price of {usd(last.price)} is {level} the {usd(usual)} they usually pay.")
    known = frozenset().union(*(purchase.words for purchase in earlier))
    if shared := sorted(last.words & known)[:2]:
        sentences.append(f"What they wrote about it shares words such as {listed(shared)} with earlier reviews.")
    elif returning := themes(earlier)[:2]:
        sentences.append(f"Their earlier reviews return to words such as {listed(returning)}.")
    return " ".join(sentences)


def endorsement(last: Purchase, earlier: Sequence[Purchase], choose: Phrasing) -> str:
    """A recommendation of the last product to this customer, as if it had not been bought yet."""
    sentences = [
        choose(f"Take a look at {last.named}.", f"Consider {last.named}.", f"Here is one for you: {last.named}.")
    ]
    if last.sentence:
        sentences.append(last.sentence)
    liked = [purchase for purchase in related(last, earlier) if purchase.rating is None or purchase.rating >= 4]
    same = sum(purchase.category == last.category for purchase in earlier if last.category)
    if liked and liked[0].asin == last.asin and last.asin:
        sentences.append(f"You know it already: you have bought it {times(sum(p.asin == last.asin for p in earlier))}.")
    elif liked:
        score = f"gave {liked[0].rating} of 5 to" if liked[0].rating else "chose"
        verdict = f"rated {liked[0].rating} of 5" if liked[0].rating else "chose before"
        sentences.append(
            choose(
                f"You {score} {liked[0].named}, and this one is close to it in kind.",
                f"It belongs beside {liked[0].named}, which you {verdict}.",
            )
        )
    elif same:
        sentences.append(f"You have bought {counted(same, 'item')} from {last.category} before; here is one more.")
    elif last.category and earlier:
        sentences.append(f"It would be your first from {last.category}, something new next to what you have.")
    prices = [purchase.price for purchase in earlier if purchase.price]
    if last.price and prices:
        level = "below" if last.price < min(prices) else "above" if last.price > max(prices) else "within"
        sentences.append(f"At {usd(last.price)} it is {level} what you usually pay.")
    elif last.price:
        sentences.append(f"It costs {usd(last.price)}.")
    if returning := themes(earlier)[:2]:
        sentences.append(f"It should suit somebody whose reviews return to words such as {listed(returning)}.")
    return " ".join(sentences)


def profile(purchases: Sequence[Purchase]) -> str:
    """The customer in 4 to 6 words: frequency, satisfaction, category."""
    often = "Frequent" if len(purchases) >= 10 else "Regular" if len(purchases) >= 5 else "Occasional"
    ratings = [purchase.rating for purchase in purchases if purchase.rating is not None]
    level = mean(ratings) if ratings else None
    pleased = (
        "quiet" if level is None
        else "enthusiastic" if level >= 4.75
        else "satisfied" if level >= 4
        else "discerning" if level >= 3
        else "critical"
    )  # fmt: skip
    kinds = top_categories(purchases)
    if not kinds:
        return f"{often}, {pleased} all-round shopper"
    words = kinds[0][0].split()
    if len(words) > 3:
        words = re.split(r"\s*[&,/]\s*", kinds[0][0])[-1].split()[-3:]
    manner = f"{often}, {pleased}" if len(words) < 3 else pleased.capitalize()
    return f"{manner} buyer of {' '.join(words)}"


def brief_summary(purchases: Sequence[Purchase], choose: Phrasing) -> str:
    """The customer in two sentences."""
    opening = choose("This customer has bought", "The customer's history holds")
    first = f"{opening} {counted(len(purchases), 'item')}{_kinds(purchases)}."
    return f"{first} {_mood(purchases, choose)}"


def long_summary(purchases: Sequence[Purchase], choose: Phrasing) -> str:
    """The customer in detail: categories, favourites, disappointments, prices and style of the reviews."""
    stamps = [purchase.unix_time for purchase in purchases if purchase.unix_time is not None]
    days = (max(stamps) - min(stamps)) // 86400 if stamps else 0
    span = (
        f"Over about {counted(round(days / 365.25), 'year')}, this" if days > 540
        else f"Over about {counted(round(days / 30.44), 'month')}, this" if days > 45
        else "This"
    )  # fmt: skip
    sentences = [f"{span} customer bought {counted(len(purchases), 'item')}{_kinds(purchases)}."]
    best = max((purchase.rating for purchase in purchases if purchase.rating is not None), default=0)
    if favourites := _titles([purchase for purchase in purchases if purchase.rating == best and best >= 4])[:3]:
        verb = choose("Among their favourites", "Rated highest", "At the top of their list")
        sentences.append(f"{verb}, at {best} of 5, {'is' if len(favourites) == 1 else 'are'} {listed(favourites)}.")
    worst = [purchase for purchase in purchases if purchase.rating is not None and purchase.rating <= 2]
    if worst:
        sentences.append(f"{_capital(worst[-1].named)} disappointed them, at {worst[-1].rating} of 5.")
    if prices := [purchase.price for purchase in purchases if purchase.price]:
        low, high = min(prices), max(prices)
        many = f"Prices run from {usd(low)} to {usd(high)}, with {usd(median(prices))} in the middle."
        sentences.append(many if high > low else f"The known price is {usd(low)}.")
    sentences.append(_mood(purchases, choose))
    if lengths := [purchase.length for purchase in purchases if purchase.length]:
        words = round(mean(lengths))
        style = "a few words long" if words < 15 else "brief" if words < 60 else "detailed"
        sentences.append(f"Their reviews are {style}, about {counted(words, 'word')} on average.")
    sentences.append(f"The latest purchase is {purchases[-1].named}.")
    return " ".join(sentences)


def related(last: Purchase, earlier: Sequence[Purchase]) -> list[Purchase]:
    """The earlier purchases with the item, title words or category of `last`, most similar first, then latest."""

    def similarity(purchase: Purchase) -> int:
        same_item = last.asin is not None and purchase.asin == last.asin
        same_kind = last.category is not None and purchase.category == last.category
        shared = len(purchase.title_words & last.title_words)
        return 100 * same_item + 2 * shared + same_kind if same_item or same_kind or shared > 1 else 0

    similar = [purchase for purchase in reversed(earlier) if similarity(purchase)]
    return sorted(similar, key=similarity, reverse=True)


def themes(purchases: Sequence[Purchase]) -> list[str]:
    """Content words that at least two reviews share, the most shared first."""
    shared = Counter(word for purchase in purchases for word in purchase.words)
    return [word for word, count in sorted(shared.items(), key=lambda pair: (-pair[1], pair[0])) if count > 1]


def top_categories(purchases: Sequence[Purchase]) -> list[tuple[str, int]]:
    """The last levels of the categories with their counts, the most frequent first."""
    kinds = Counter(purchase.category for purchase in purchases if purchase.category)
    return sorted(kinds.items(), key=lambda pair: (-pair[1], pair[0]))


def _kinds(purchases: Sequence[Purchase]) -> str:
    kinds = top_categories(purchases)
    if not kinds:
        return ""
    if len(kinds) == 1:
        name, count = kinds[0]
        of = "all" if count == len(purchases) else counted(count, "of them", plural="of them")
        return f" from {name}" if len(purchases) == 1 else f", {of} from {name}"
    of = f"{counted(len(kinds), 'category', plural='categories')}, first of all " if len(kinds) > 3 else ""
    return f" from {of}{listed([f'{name} ({count})' for name, count in kinds[:3]])}"


def _mood(purchases: Sequence[Purchase], choose: Phrasing) -> str:
    ratings = [purchase.rating for purchase in purchases if purchase.rating is not None]
    returning = listed(themes(purchases)[:3])
    words = choose("often use", "keep coming back to") + f" words such as {returning}" if returning else ""
    if not ratings:
        return f"They left no ratings{', and ' + words if words else ''}."
    level = mean(ratings)
    pleased = (
        choose("They are nearly always pleased", "They are easy to please") if level >= 4.75
        else "They are mostly pleased" if level >= 4
        else "They judge with care" if level >= 3
        else "They are hard to please"
    )  # fmt: skip
    return f"{pleased}, with an average rating of {level:.1f} of 5{', and they ' + words if words else ''}."


def _titles(purchases: Sequence[Purchase]) -> list[str]:
    return list(dict.fromkeys(purchase.named for purchase in reversed(purchases)))


def _stems(text: str) -> frozenset[str]:
    words = WORD.findall(text.lower())
    return frozenset(word.rstrip("s") for word in words if len(word) > 2 and word not in ("the", "and", "for", "with"))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
