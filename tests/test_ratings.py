"""Ratings: what the reference rater measures, and how votes become scores."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from regen_hf.errors import RunError
from regen_hf.ratings import VOTES, RatingsConfig, aggregation, build, reference, user_ratings
from regen_hf.schema import NARRATIVES, RATED, RATINGS, SEQUENCES

from .llm_server import Server, answer_to, completion


def purchase(title, text, rating=5):
    return {
        "item": {"asin": title, "title": title, "category": "Pens", "description": None, "price": 2.0},
        "review": {"summary": None, "rating": rating, "text": text, "unix_time": 1},
    }


HISTORY = [
    purchase("Blue Gel Pen", "smooth flow for my diary"),
    purchase("Red Gel Pen", "smooth colour"),
    purchase("Green Gel Pen", "leaks in the suitcase, ruined a shirt"),
]


def narratives(
    reason="The customer wanted a gel pen with smooth flow.", endorsement="A green gel pen for your diary.", **user
):
    return {
        "last_purchase": {"reason": reason, "explanation": None, "endorsement": endorsement},
        "user": {"profile": "Buyer of gel pens", "brief_summary": None, "long_summary": None, **user},
    }


def scores(written, history=HISTORY, **kwargs):
    return {
        stage: {attribute: pair[0] for attribute, pair in attributes.items()}
        for stage, attributes in reference.rate("u", history, written, **kwargs).items()
    }


def make_run(run, users):
    """A run folder of sequences and narratives; `users` are (id, history, narratives)."""
    (run / "sequences").mkdir(parents=True)
    (run / "narratives").mkdir()
    sequences = [{"reviewer_id": name, "purchase_history": history} for name, history, _ in users]
    pq.write_table(pa.Table.from_pylist(sequences, schema=SEQUENCES), run / "sequences" / "train.parquet")
    rows = [{"reviewer_id": name, **written, "narrator": "reference"} for name, _, written in users]
    pq.write_table(pa.Table.from_pylist(rows, schema=NARRATIVES), run / "narratives" / "narratives.parquet")


def run_build(run, config=None):
    out, work = run / "out", run / "work"
    out.mkdir()
    work.mkdir(exist_ok=True)
    counts = build(run, out, work, config or RatingsConfig())
    return counts, pq.read_table(out / "ratings.parquet"), pq.read_table(out / "votes.parquet")


def test_a_majority_beats_the_mean():
    assert aggregation.score([1, 1, 1, 7, 7]) == 1


def test_exactly_half_is_no_majority():
    assert aggregation.score([2, 2, 5, 6]) == 3


def test_a_failed_vote_is_missing_and_never_a_default():
    assert aggregation.score([6, 6, None, None, 1]) == 6
    assert aggregation.score([None]) is None
    assert aggregation.confidence({"veracity": [None], "clarity": []}) is None


def test_confidence_takes_the_plurality_before_the_mean():
    # A mean of all votes would be 3.
    assert aggregation.confidence({"veracity": [6, 6, 1, 1, 1, 6, 6], "clarity": [2, 2, 2, 1, 1]}) == 4


def test_invented_claims_lower_veracity_and_grounding():
    honest = scores(narratives())["last_purchase"]
    invented = scores(narratives(reason="An astronaut craves titanium telescopes. Galaxies fascinate Jupiter."))
    assert honest["veracity"] > invented["last_purchase"]["veracity"] == 1
    assert honest["grounding"] > invented["last_purchase"]["grounding"] == 1


def test_words_of_the_last_review_alone_raise_foresight():
    before = scores(narratives())["last_purchase"]["foresight"]
    after = scores(narratives(reason="The green pen leaks in the suitcase and ruined a shirt."))["last_purchase"]
    assert before == 1
    assert after["foresight"] == 7


def test_foresight_is_not_rated_for_the_user_summaries():
    assert set(scores(narratives())["user"]) == set(RATED["user"]) - {"confidence"}


def test_the_users_own_words_are_more_personal_than_the_products():
    own = scores(narratives(endorsement="A smooth flow, for your diary, in colour."))["endorsement"]
    product = scores(narratives(endorsement="Green pens: buy one today and write."))["endorsement"]
    assert own["personalization"] > product["personalization"]


def test_longer_histories_with_longer_reviews_are_richer():
    poor = scores(narratives(), [purchase("Blue Gel Pen", None)])["example"]["richness"]
    rich = scores(narratives(), [purchase("Blue Gel Pen", "word " * 80)] * 20)["example"]["richness"]
    assert (poor, rich) == (1, 7)


def test_rambling_is_less_clear_than_short_sentences():
    clear = "The customer wanted a gel pen with smooth flow. " * 6
    rambling = clear.replace(". ", " and then ")
    assert scores(narratives(reason=clear))["last_purchase"]["clarity"] == 7
    assert scores(narratives(reason=rambling))["last_purchase"]["clarity"] < 5


def test_what_was_not_written_is_not_rated():
    rated = reference.rate("u", HISTORY, narratives(reason=None, profile=None))
    assert set(rated) == {"example", "endorsement"}
    metadata, rows = user_ratings([rated])
    assert set(metadata["last_purchase"].values()) == {None}
    assert {row["stage"] for row in rows} == {"example", "endorsement"}
    assert reference.rate("u", [], narratives()) == {}


def test_votes_differ_from_each_other_and_repeat_with_their_seed():
    votes = [scores(narratives(), vote=vote, seed=1) for vote in range(12)]
    assert votes == [scores(narratives(), vote=vote, seed=1) for vote in range(12)]
    assert any(vote != votes[0] for vote in votes)
    assert votes[1:] != [scores(narratives(), vote=vote, seed=2) for vote in range(1, 12)]
    assert all(
        abs(vote[stage][attribute] - votes[0][stage][attribute]) <= 1
        for vote in votes
        for stage in vote
        for attribute in vote[stage]
    )


def test_a_failed_vote_leaves_a_row_without_a_score():
    vote = reference.rate("u", HISTORY, narratives())
    metadata, rows = user_ratings([vote, {stage: vote[stage] for stage in vote if stage != "user"}])
    failed = [row for row in rows if row["score"] is None]
    assert {(row["stage"], row["vote"]) for row in failed} == {("user", 1)}
    assert metadata["user"]["veracity"] == vote["user"]["veracity"][0]


def test_build_writes_all_votes_and_a_rating_per_user(tmp_path):
    make_run(
        tmp_path, [("b", HISTORY, narratives()), ("a", HISTORY[:1], narratives(reason=None)), ("c", [], narratives())]
    )
    counts, ratings, votes = run_build(tmp_path, RatingsConfig(votes=3))
    assert ratings.schema.equals(RATINGS)
    assert votes.schema.equals(VOTES)
    assert ratings["reviewer_id"].to_pylist() == ["b", "a", "c"]
    assert set(ratings["rater"].to_pylist()) == {"reference"}
    full, partly, empty = ratings["metadata"].to_pylist()
    assert all(1 <= score <= 7 for stage in full.values() for score in stage.values())
    assert partly["last_purchase"]["veracity"] is None
    assert partly["user"]["veracity"] is not None
    assert all(score is None for stage in empty.values() for score in stage.values())
    attributes = sum(len(names) - 1 for names in RATED.values())
    assert counts == {"users": 3, "votes": 3 * attributes + 3 * (attributes - 5), "failed_votes": 0}
    rows = [row for row in votes.to_pylist() if row["reviewer_id"] == "b"]
    for stage, names in RATED.items():
        for name in names[:-1]:
            cast = [row["score"] for row in rows if (row["stage"], row["attribute"]) == (stage, name)]
            assert len(cast) == 3
            assert full[stage][name] == aggregation.score(cast)


def test_narratives_of_other_users_are_refused(tmp_path):
    make_run(tmp_path, [("a", HISTORY, narratives()), ("b", HISTORY, narratives())])
    path = tmp_path / "narratives" / "narratives.parquet"
    table = pq.read_table(path)
    pq.write_table(table.take([1, 0]), path)
    with pytest.raises(RunError, match="does not follow the sequences"):
        run_build(tmp_path)


def test_missing_narratives_are_told_with_the_command_to_run(tmp_path):
    make_run(tmp_path, [("a", HISTORY, narratives())])
    (tmp_path / "narratives" / "narratives.parquet").unlink()
    with pytest.raises(RunError, match="Run first: regen narratives"):
        run_build(tmp_path)


def test_fewer_narratives_than_users_are_refused(tmp_path):
    make_run(tmp_path, [("a", HISTORY, narratives()), ("b", HISTORY, narratives())])
    path = tmp_path / "narratives" / "narratives.parquet"
    pq.write_table(pq.read_table(path).slice(0, 1), path)
    with pytest.raises(RunError, match="holds 1 users, the sequences hold 2"):
        run_build(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backend": "gpt"}, "choose one of"),
        ({"votes": 0}, "1 or more"),
        ({"backend": "openai"}, "name of a model"),
        ({"temperature": -1.0}, "from 0 to 2"),
        ({"concurrency": 0}, "1 or more"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        RatingsConfig(**settings)


def openai(server, **settings):
    return RatingsConfig(backend="openai", model="some-model", base_url=server.url, **settings)


def stage_of(body):
    return body["response_format"]["json_schema"]["name"].removesuffix("_rating")


def test_a_model_rates_each_stage_apart_in_each_vote(tmp_path):
    make_run(
        tmp_path, [("b", HISTORY, narratives()), ("a", HISTORY[:1], narratives(reason=None)), ("c", [], narratives())]
    )
    with Server() as server:
        counts, ratings, votes = run_build(tmp_path, openai(server, votes=3, seed=10))
    asked = [(stage_of(body), body["seed"]) for body in server.bodies]
    assert sorted(asked) == sorted(
        [(stage, 10 + vote) for stage in RATED for vote in range(3)]
        + [(stage, 10 + vote) for stage in RATED if stage != "last_purchase" for vote in range(3)]
    )
    full, partly, nobody = ratings["metadata"].to_pylist()
    assert all(score == 6 for stage in full.values() for score in stage.values())
    assert set(partly["last_purchase"].values()) == {None}
    assert all(score is None for stage in nobody.values() for score in stage.values())
    assert set(ratings["rater"].to_pylist()) == {"some-model"}
    assert set(votes["vote"].to_pylist()) == {0, 1, 2}
    assert (counts["users"], counts["failed"], counts["failed_votes"], counts["replies"]) == (3, 0, 0, 21)
    assert set(counts["prompts"]) == {"history", "ratings"}


def test_each_stage_shows_the_rater_its_own_texts_alone(tmp_path):
    written = {
        "last_purchase": {"reason": "REASON", "explanation": "EXPLANATION", "endorsement": "ENDORSEMENT"},
        "user": {"profile": "PROFILE", "brief_summary": "BRIEF", "long_summary": "LONG"},
    }
    make_run(tmp_path, [("u", HISTORY, written)])
    with Server() as server:
        run_build(tmp_path, openai(server))
    own = {
        "example": set(),
        "last_purchase": {"REASON", "EXPLANATION"},
        "user": {"PROFILE", "BRIEF", "LONG"},
        "endorsement": {"ENDORSEMENT"},
    }
    shown = {}
    for body in server.bodies:
        data = body["messages"][-1]["content"]
        assert "leaks in the suitcase" in data
        shown[stage_of(body)] = {text for texts in own.values() for text in texts if text in data}
    assert shown == own


def test_reasoning_comes_before_the_verdicts_and_labels_are_the_scale(tmp_path):
    given = {"veracity": "Likely Very False", "grounding": "Very High", "clarity": "Medium", "personalization": "Low"}

    def fault(number, body):
        answer = answer_to(body["response_format"]["json_schema"]["schema"])
        assert next(iter(answer)) == "reasoning"
        return 200, {}, completion(json.dumps({**answer, **{k: v for k, v in given.items() if k in answer}}))

    make_run(tmp_path, [("u", HISTORY, narratives())])
    with Server(fault) as server:
        _, ratings, votes = run_build(tmp_path, openai(server))
    (metadata,) = ratings["metadata"].to_pylist()
    assert metadata["user"] == {"veracity": 1, "grounding": 7, "clarity": 4, "personalization": 2, "confidence": 6}
    assert set(votes["confidence"].to_pylist()) == {6}


def test_a_label_off_the_scale_is_asked_again_and_then_a_failed_vote(tmp_path):
    def fault(number, body):
        answer = answer_to(body["response_format"]["json_schema"]["schema"])
        off = stage_of(body) == "user" and body["seed"] == 1
        return (200, {}, completion(json.dumps(answer | {"clarity": "Superb"}))) if off else None

    make_run(tmp_path, [("u", HISTORY, narratives())])
    with Server(fault) as server:
        counts, ratings, votes = run_build(tmp_path, openai(server, votes=2))
    assert len(server.bodies) == 9
    assert (counts["failed"], counts["failed_votes"]) == (1, 4)
    missing = [row for row in votes.to_pylist() if row["score"] is None]
    assert {(row["stage"], row["vote"]) for row in missing} == {("user", 1)}
    assert ratings["metadata"].to_pylist()[0]["user"]["clarity"] == 6
    (failed,) = map(json.loads, (tmp_path / "out" / "failed.jsonl").read_text().splitlines())
    assert failed["request"] == "user, vote 1"
    assert "Superb" in failed["raw"]


def test_a_stage_whose_only_vote_failed_has_no_scores_but_its_votes_are_kept(tmp_path):
    make_run(tmp_path, [("u", HISTORY, narratives())])
    with Server(lambda number, body: (200, {}, completion("Fine.")) if stage_of(body) == "user" else None) as server:
        _, ratings, votes = run_build(tmp_path, openai(server))
    assert set(ratings["metadata"].to_pylist()[0]["user"].values()) == {None}
    assert [row["score"] for row in votes.to_pylist() if row["stage"] == "user"] == [None] * 4
