"""The sample world: the same by seed, true to its histories, with a trait that only co-purchases tell."""

import dataclasses
import gzip
import json
import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from regen_hf import schema
from regen_hf.stages.sample.build import write
from regen_hf.stages.sample.narrative_text import narratives
from regen_hf.stages.sample.settings import SampleConfig
from regen_hf.stages.sample.world import CIRCLES, make_items, make_shoppers

FILES = ("reviews.jsonl.gz", "items.jsonl.gz", "truth.parquet", "item_truth.parquet")
CONFIG = SampleConfig(shoppers=1500, items=240)
NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
NUMBERS += ["thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"]
CIRCLE_WORDS = {
    *("beekeeper", "beekeepers", "hive", "hives", "swarm", "honey", "bees"),
    *("schoolteacher", "schoolteachers", "teacher", "classroom", "school", "term", "pupils"),
    *("choir", "singer", "singers", "rehearsals", "concert", "concerts", "encore", "cue"),
    *("nurse", "nurses", "night", "ward", "shifts"),
    *("stargazer", "stargazers", "telescope", "stars", "sky", "skies", "meteor", "moonless", "vigils"),
    *("courier", "couriers", "bike", "parcel", "traffic", "city"),
    *("potter", "potters", "clay", "kiln", "glaze", "wheel"),
    *("chess", "player", "players", "tournament", "tournaments", "endgame", "endgames", "opening", "board"),
}
WRONG_ARTICLE = re.compile(r"\b[Aa] [aeioAEIO]|\b[Aa]n (?!honest|hour)[^aeioAEIO]")


class World:
    def __init__(self, folder: Path, config: SampleConfig):
        self.folder = folder
        folder.mkdir()
        self.counts = write(folder, config)
        self.truth = pq.read_table(folder / "truth.parquet").to_pylist()
        self.items = {row["asin"]: row for row in pq.read_table(folder / "item_truth.parquet").to_pylist()}
        self.raw_reviews, self.bad_reviews = read_lines(folder / "reviews.jsonl.gz")
        self.raw_items, self.bad_items = read_lines(folder / "items.jsonl.gz")


def read_lines(path: Path) -> tuple[list[dict], int]:
    records, bad = [], 0
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:
                bad += 1
    return records, bad


def named_texts(row: dict) -> dict[str, str]:
    """The narratives; the critique is one of `critiques`, which the narratives stage takes."""
    return {name: text for name, text in (row["last_purchase"] | row["user"]).items() if name != "critique"}


def texts_of(row: dict) -> list[str]:
    return list(named_texts(row).values())


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z'-]+", text.lower())


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return World(tmp_path_factory.mktemp("sample") / "world", dataclasses.replace(CONFIG, seed=3))


@pytest.fixture(scope="module")
def histories(world) -> dict[str, list[dict]]:
    """What is left of the raw files when all damage is taken out, read without the truth: reviews by user, by time."""
    titled = {r["asin"] for r in world.raw_items if r.get("title") and "<" not in r["title"]}
    unique = {(r["reviewerID"], r["asin"], r["unixReviewTime"]): r for r in world.raw_reviews}
    by_user = defaultdict(list)
    for review in unique.values():
        if review["asin"] in titled:
            by_user[review["reviewerID"]].append(review)
    return {user: sorted(reviews, key=lambda r: r["unixReviewTime"]) for user, reviews in by_user.items()}


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_bytes(tmp_path):
    config = SampleConfig(shoppers=40, items=60)
    for name, seed in (("one", 7), ("two", 7), ("other", 8)):
        (tmp_path / name).mkdir()
        write(tmp_path / name, dataclasses.replace(config, seed=seed))
    for file in FILES:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
        assert (tmp_path / "one" / file).read_bytes() != (tmp_path / "other" / file).read_bytes()


def test_the_counts_are_those_of_the_files(world):
    counts = world.counts
    assert counts["shoppers"] == len(world.truth) == 1500
    assert counts["items"] == len(world.items) == 240
    assert counts["purchases"] == sum(len(row["purchases"]) for row in world.truth)
    assert counts["review_lines"] == len(world.raw_reviews) + world.bad_reviews
    assert counts["item_lines"] == len(world.raw_items) + world.bad_items
    damage = ("duplicated_reviews", "reviews_of_unknown_items", "reviews_of_untitled_items", "unreadable_reviews")
    assert counts["review_lines"] == counts["purchases"] + sum(counts[name] for name in damage)
    assert counts["item_lines"] == counts["items"] + counts["untitled_items"] + counts["unreadable_items"]


def test_every_kind_of_damage_is_in_the_files(world):
    assert world.bad_reviews == world.counts["unreadable_reviews"] > 0
    assert world.bad_items == world.counts["unreadable_items"] > 0
    lines = Counter(json.dumps(r, sort_keys=True) for r in world.raw_reviews)
    assert sum(lines.values()) - len(lines) == world.counts["duplicated_reviews"] > 0
    known = {r["asin"] for r in world.raw_items}
    assert sum(r["asin"] not in known for r in world.raw_reviews) == world.counts["reviews_of_unknown_items"] > 0
    titles = [r.get("title") for r in world.raw_items if r["asin"] not in world.items]
    assert None in titles
    assert any(title and title.startswith("<span") for title in titles)


def test_without_the_damage_the_raw_files_hold_exactly_the_purchases_of_the_truth(world, histories):
    assert {user: [r["asin"] for r in reviews] for user, reviews in histories.items()} == {
        row["reviewer_id"]: row["purchases"] for row in world.truth
    }


def test_damage_does_not_come_last_in_any_history(world, histories):
    for review in world.raw_reviews:
        if review["asin"] not in world.items:
            assert review["unixReviewTime"] < histories[review["reviewerID"]][-1]["unixReviewTime"]
    repeated = Counter((r["reviewerID"], r["asin"]) for r in world.raw_reviews)
    for user, reviews in histories.items():
        assert repeated[user, reviews[-1]["asin"]] == 1


def test_histories_have_5_to_20_purchases_in_strictly_increasing_time(world, histories):
    sizes = np.array([len(reviews) for reviews in histories.values()])
    assert (sizes.min(), sizes.max()) == (5, 20)
    assert 7 < sizes.mean() < 9
    assert np.mean(sizes <= 12) > 0.85
    for reviews in histories.values():
        assert (np.diff([r["unixReviewTime"] for r in reviews]) > 0).all()
        assert len({r["asin"] for r in reviews}) == len(reviews)


def test_the_raw_records_have_the_fields_and_types_of_the_2018_release(world):
    for review in world.raw_reviews:
        assert isinstance(review["overall"], float)
        assert review["unixReviewTime"] % 86_400 == 0
        assert "reviewerName" not in review
    for review in world.raw_reviews:
        if "reviewTime" in review:
            assert re.fullmatch(r"\d\d \d{1,2}, 20\d\d", review["reviewTime"])
    for item in world.raw_items:
        assert isinstance(item["description"], list)
        assert isinstance(item["category"], list)
        assert re.fullmatch(r"|\$\d+\.\d\d( - \$\d+\.\d\d)?", item["price"])


def test_the_truth_has_the_narratives_of_the_schema_and_says_that_people_are_simulated(world):
    table = pq.read_schema(world.folder / "truth.parquet")
    for name in ("reviewer_id", "last_purchase", "user"):
        assert table.field(name).type == schema.NARRATIVES.field(name).type
    for row in world.truth:
        assert row["simulated"]
        assert row["reviewer_id"].startswith("simulated-")
        assert all(texts_of(row))
    assert all(row["simulated"] for row in world.items.values())


def test_titles_tell_brand_kind_colour_and_use(world):
    titles = {r["asin"]: r.get("title", "").lower() for r in world.raw_items}
    for asin, item in world.items.items():
        assert all(item[attribute].lower() in titles[asin] for attribute in ("brand", "kind", "colour", "use"))


def test_every_claim_of_a_narrative_is_true_of_the_history(world, histories):
    for row in world.truth[:500]:
        reviews = histories[row["reviewer_id"]]
        bought = [world.items[r["asin"]] for r in reviews]
        last, size = bought[-1], len(bought)
        counts = {name: Counter(item[name] for item in bought) for name in ("brand", "colour", "use", "circle")}
        purchase, user = row["last_purchase"], row["user"]
        for name in ("brand", "colour", "use"):
            assert counts[name][row[f"favourite_{name}"]] == max(counts[name].values()) >= 2

        assert f"{last['colour']} {last['use']} {last['kind']}" in purchase["reason"]

        favourite = row["favourite_brand"]
        assert last["brand"] in purchase["explanation"]
        assert last["kind"] in purchase["explanation"]
        assert f"{NUMBERS[counts['brand'][favourite]]} of {NUMBERS[size]} purchases" in purchase["explanation"]
        assert ("no surprise" in purchase["explanation"]) == (last["brand"] == favourite)
        assert (f"detour from {favourite}" in purchase["explanation"]) == (last["brand"] != favourite)
        earlier = [rf"an? {item['colour']} {item['kind']}" for item in (bought[-2], bought[-3])]
        assert re.search(" and ".join(["t follows " + earlier[0], earlier[1]]), purchase["explanation"])

        assert f"{last['colour']} {last['brand']} {last['kind']}" in purchase["endorsement"]
        match = re.search(r"goes well with your ([^.]+)\.", purchase["endorsement"])
        assert match is None or match[1] == f"{bought[-2]['colour']} {bought[-2]['kind']}"

        assert row["circle"] in user["profile"]
        assert counts["circle"][row["circle"]] > size / 2
        for name in ("brand", "colour"):
            assert row[f"favourite_{name}"] in user["brief_summary"]
            assert row[f"favourite_{name}"] in user["long_summary"]
        assert user["long_summary"].endswith(f" {bought[0]['colour']} {bought[0]['kind']}.")
        mean = np.mean([r["overall"] for r in reviews])
        assert ("Praise comes easily" in user["brief_summary"]) == (mean >= 4.4)
        assert ("Top marks are rare" in user["brief_summary"]) == (mean < 3.5)


def test_gifts_in_the_narratives_are_gifts_in_the_reviews(world, histories):
    for row in world.truth[:500]:
        reviews = [r["reviewText"] for r in histories[row["reviewer_id"]]]
        who = row["recipient"]
        gifts = [bool(re.search(rf"\b[Mm]y {who}\b", text)) for text in reviews]
        for name, last_only in (("reason", True), ("explanation", True), ("endorsement", False)):
            said = bool(re.search(rf"(their|your) {who}\b", row["last_purchase"][name]))
            assert said == (gifts[-1] if last_only else any(gifts[:-1]))
        assert (f"their {who}" in row["user"]["profile"]) == any(gifts)
        assert ("Nothing is bought as a gift" in row["user"]["long_summary"]) == (not any(gifts))


def test_a_narrative_has_the_length_of_its_task(world):
    bounds = {"reason": (10, 24), "explanation": (35, 60), "endorsement": (30, 60)}
    bounds |= {"profile": (4, 6), "brief_summary": (18, 32), "long_summary": (50, 75)}
    for row in world.truth:
        for name, text in named_texts(row).items():
            low, high = bounds[name]
            assert low <= len(text.split()) <= high, text


def test_narratives_read_as_sentences_of_a_modest_vocabulary(world):
    vocabulary = set()
    for row in world.truth:
        for text in texts_of(row):
            vocabulary.update(words_of(text))
            assert text[0].isupper()
            assert not re.search(r"[{}]|None|  ", text)
            assert not WRONG_ARTICLE.search(text), text
    assert 400 < len(vocabulary) < 1500


def test_critiques_state_what_differs_between_the_last_two_items(world):
    prices = {item["asin"]: item["price"] for item in world.raw_items}
    kinds = Counter()
    for row in world.truth:
        first, last = (world.items[asin] for asin in row["purchases"][-2:])
        before, price = (float(prices[item["asin"]][1:].partition(" ")[0] or 0) for item in (first, last))
        for critique in row["critiques"]:
            text, attribute, value = critique.values()
            kinds[attribute, text.replace(value, "")] += 1
            if attribute == "price":
                assert value == ("lower" if price < before else "higher")
                assert 0 < 1.1 * min(price, before) <= max(price, before)
            elif attribute == "brand":
                assert value == first["brand"] != last["brand"]
                assert value in text
                assert last["brand"] not in text
            else:
                assert value == last[attribute].split()[-1] != first[attribute].split()[-1]
                assert re.search(rf"\b{value}\b", text)
            assert len(re.findall(r"[.!?]", text)) == 1
            assert not re.search(r"[{}]|None|  ", text)
            assert not WRONG_ARTICLE.search(text), text
        differ = {name for name in ("colour", "use", "brand") if first[name] != last[name]}
        assert differ <= {critique["attribute"] for critique in row["critiques"]}
        assert len(row["critiques"]) <= 5
    assert len({attribute for attribute, _ in kinds}) == 5
    assert len({row["critiques"][0]["attribute"] for row in world.truth if row["critiques"]}) == 5


def test_reviews_use_the_right_article_and_leave_no_placeholder(world):
    for review in world.raw_reviews:
        text = review["reviewText"] + " " + review["summary"]
        assert not re.search(r"[{}]|None|  ", text)
        assert not WRONG_ARTICLE.search(text), text


def test_no_narrative_quotes_a_review(world):
    """No run of 6 words of any narrative stands in any review."""
    runs = set()
    for review in world.raw_reviews:
        words = words_of(review["reviewText"])
        runs.update(zip(*(words[start:] for start in range(6)), strict=False))
    for row in world.truth:
        for text in texts_of(row):
            words = words_of(text)
            assert not runs & set(zip(*(words[start:] for start in range(6)), strict=False)), text


def test_the_circle_is_in_every_narrative_and_in_no_review_and_no_item_text(world):
    hidden = CIRCLE_WORDS
    for row in world.truth:
        assert all(hidden & set(words_of(text)) for text in texts_of(row))
    for review in world.raw_reviews:
        assert not hidden & set(words_of(review["reviewText"] + " " + review["summary"]))
    for item in world.raw_items:
        assert not hidden & set(words_of(json.dumps(item)))


@pytest.mark.parametrize("attribute", ["brand", "kind", "colour", "use"])
def test_the_circle_of_an_item_is_independent_of_what_its_text_tells(tmp_path, attribute):
    from scipy.stats import chi2_contingency

    items = make_items(4000, np.random.default_rng(0))
    pairs = Counter((getattr(item, attribute), item.circle) for item in items)
    table = [[pairs[value, circle] for circle in CIRCLES] for value in {value for value, _ in pairs}]
    assert chi2_contingency(table).pvalue > 0.01


def test_a_classifier_on_item_texts_finds_no_circle_but_finds_the_use(world):
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score

    records = [r for r in world.raw_items if r["asin"] in world.items]
    texts = TfidfVectorizer().fit_transform([" ".join([r["title"], *r["description"]]) for r in records])

    def accuracy(attribute: str) -> float:
        labels = [world.items[r["asin"]][attribute] for r in records]
        return cross_val_score(LogisticRegression(C=10), texts, labels, cv=4).mean()

    assert accuracy("circle") < 0.22  # chance is 1/8
    assert accuracy("use") > 0.9


def test_co_purchases_tell_the_circle_of_an_item(world):
    asins = {asin: index for index, asin in enumerate(world.items)}
    user_items = np.zeros((len(world.truth), len(asins)))  # 1500 x 240
    for user, row in enumerate(world.truth):
        user_items[user, [asins[asin] for asin in row["purchases"]]] = 1
    item_items = user_items.T @ user_items
    norms = np.sqrt(np.diag(item_items))
    cosine = item_items / np.outer(norms, norms)
    np.fill_diagonal(cosine, -1)
    circles = np.array([item["circle"] for item in world.items.values()])
    nearest = np.argsort(-cosine, axis=1)[:, :5]
    assert np.mean(circles[nearest] == circles[:, None]) > 0.8  # chance is 1/8


def test_every_item_of_the_default_world_has_enough_buyers():
    config = SampleConfig()
    rng = np.random.default_rng(0)
    items = make_items(config.items, rng)
    buyers = Counter(p.item.asin for shopper in make_shoppers(config.shoppers, items, rng) for p in shopper.purchases)
    assert len(buyers) == config.items
    assert min(buyers.values()) >= 5
    assert 50 < np.median(list(buyers.values())) < 70


def test_the_endorsement_does_not_depend_on_the_last_review_and_other_narratives_do():
    rng = np.random.default_rng(5)
    shoppers = make_shoppers(200, make_items(100, rng), rng)
    moved = 0
    for shopper in shoppers:
        *earlier, last = shopper.purchases
        for rating in range(1, 6):
            review = {"rating": rating, "says_concern": not last.says_concern, "grumbles": not last.grumbles}
            gift = shopper.recipient is not None and not last.is_gift
            other = dataclasses.replace(last, is_gift=gift, **review)
            changed = narratives(dataclasses.replace(shopper, purchases=(*earlier, other)))
            told = narratives(shopper)
            assert changed["last_purchase"]["endorsement"] == told["last_purchase"]["endorsement"]
            moved += changed["last_purchase"]["reason"] != told["last_purchase"]["reason"]
            moved += changed["user"] != told["user"]
    assert moved > 500


def test_what_the_endorsement_takes_from_reviews_stands_in_the_earlier_ones():
    rng = np.random.default_rng(6)
    for shopper in make_shoppers(300, make_items(100, rng), rng):
        earlier = shopper.purchases[:-1]
        assert sum(purchase.says_concern for purchase in earlier) >= 2
        assert any(purchase.is_gift for purchase in earlier) == (shopper.recipient is not None)


def test_the_reason_knows_nothing_of_the_rating():
    rng = np.random.default_rng(7)
    for shopper in make_shoppers(100, make_items(80, rng), rng):
        *earlier, last = shopper.purchases
        changed = dataclasses.replace(shopper, purchases=(*earlier, dataclasses.replace(last, rating=6 - last.rating)))
        assert narratives(changed)["last_purchase"] == narratives(shopper)["last_purchase"]


def test_the_smallest_world_can_be_written(tmp_path):
    counts = write(tmp_path, SampleConfig(shoppers=1, items=40))
    assert counts["purchases"] == 5


@pytest.mark.parametrize(("sizes", "message"), [({"shoppers": 0}, "at least 1"), ({"items": 39}, "at least 40")])
def test_a_world_too_small_is_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        SampleConfig(**sizes)
