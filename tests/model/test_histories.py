"""The values of a history, at every function that takes one: what is read, and what raises an error."""

import copy
import datetime
import functools
from decimal import Decimal

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from regen_hf.model.pipeline import RegenPipeline
from tests.tiny_model import CF_DIM, fused, processor, purchase

TASK = "long_user_summary"
NAN = float("nan")


@functools.cache
def pipeline(features=()):
    return RegenPipeline(fused(interaction_features=list(features)), processor(interaction_features=features))


def processed(history):
    inputs = pipeline(("rating", "age")).processor(history, TASK)
    return {name: np.nan_to_num(inputs[name].numpy(), nan=-1).tolist() for name in inputs}


def folded_in(history):
    parts = processor(cf_user_gram=np.eye(CF_DIM))
    added = parts.fold_in(history)
    return added, parts.cf_asins, parts.cf_factors.tolist()


def attributed(history):
    regen = pipeline(("rating", "age"))
    inputs = regen.processor(history, TASK)
    return regen.model.leave_one_out(torch.full((len(inputs["input_ids"]), 2), 20), **inputs).tolist()


DOORS = {
    "processor": processed,
    "narrate": lambda history: pipeline().narrate(history, task=TASK, max_new_tokens=3),
    "stream": lambda history: list(pipeline().stream(history, task=TASK, max_new_tokens=3)),
    "recommend": lambda history: pipeline().processor.recommend(history),
    "fold_in": folded_in,
    "unknown_items": lambda history: pipeline().processor.unknown_items(history),
    "leave_one_out": attributed,
}
at_every_door = pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)


def bought(asin="A", time=None, **review):
    return {"item": purchase(asin)["item"], "review": {"rating": 4, "text": "good pens", "unix_time": time} | review}


def changed(part, field, value):
    history = [bought("A"), bought("new", time=86_400)]
    history[1][part][field] = value
    return history


@at_every_door
@pytest.mark.parametrize(
    ("history", "same"),
    [
        (changed("review", "rating", NAN), changed("review", "rating", None)),
        (changed("review", "rating", pd.NA), changed("review", "rating", None)),
        (changed("review", "rating", Decimal("NaN")), changed("review", "rating", None)),
        (changed("review", "unix_time", pd.NaT), changed("review", "unix_time", None)),
        (changed("review", "text", NAN), changed("review", "text", None)),
        (changed("item", "asin", np.float64("nan")), changed("item", "asin", None)),
        (changed("item", "asin", ""), changed("item", "asin", None)),
        ([bought("A") | {"review": NAN}], [bought("A") | {"review": None}]),
        (changed("item", "asin", 17), changed("item", "asin", "17")),
        (changed("item", "asin", np.int64(17)), changed("item", "asin", "17")),
        (changed("item", "asin", 17.0), changed("item", "asin", "17")),
        (changed("item", "asin", np.str_(" B ")), changed("item", "asin", "B")),
        (changed("review", "rating", 4.5), changed("review", "rating", 5)),
        (changed("review", "rating", 0.5), changed("review", "rating", 1)),
        (changed("review", "rating", np.float32(3.4)), changed("review", "rating", 3)),
        (changed("review", "rating", torch.tensor(2)), changed("review", "rating", 2)),
        (changed("review", "rating", Decimal("2")), changed("review", "rating", 2)),
        (changed("review", "unix_time", 1_388_534_400_123), changed("review", "unix_time", 1_388_534_400)),
        (changed("review", "unix_time", 1_388_534_400e9), changed("review", "unix_time", 1_388_534_400)),
        (changed("review", "text", "\ud83d\ude00 pens\ud800"), changed("review", "text", "😀 pens\ufffd")),
        (changed("item", "color", {"any": "thing"}), changed("item", "color", None)),
    ],
)
def test_values_are_read_as_the_reader_of_logs_reads_them(door, history, same):
    given = copy.deepcopy(history)
    result = door(history)
    assert result == door(same)
    assert str(history) == str(given)  # the caller's history is not changed
    assert "nan" not in str(result)


@at_every_door
@pytest.mark.parametrize(
    ("history", "message"),
    [
        (
            changed("review", "rating", 0),
            r'"review"."rating" of purchase 1 of the history is 0, expected a number',
        ),
        (changed("review", "rating", -3.0), "is -3.0, expected a number from 1 to 5 or None"),
        (changed("review", "rating", 5.1), "is 5.1, expected a number from 1 to 5"),
        (changed("review", "rating", float("inf")), "is inf, expected a number from 1 to 5"),
        (changed("review", "rating", 10**400), "expected a number from 1 to 5"),
        (changed("review", "rating", True), "is True, expected a number from 1 to 5"),
        (changed("review", "rating", "5"), "is '5', expected a number from 1 to 5"),
        (
            changed("review", "unix_time", -1),
            '"unix_time" of purchase 1 .* is -1, expected a number of seconds',
        ),
        (changed("review", "unix_time", float("inf")), "is inf, expected a number of seconds"),
        (changed("review", "unix_time", pd.Timestamp("2014-01-01")), "expected a number of seconds since 1970 or None"),
        (changed("review", "text", b"pens"), r'"text" of purchase 1 .* is b\'pens\', expected text or None'),
        (changed("item", "price", float("inf")), "is inf, expected a number of at least 0 or None"),
        (changed("item", "asin", 1.5), r'"item"."asin" of purchase 1 .* is 1.5, expected text, an integer or None'),
        (changed("item", "asin", 2.0**53), "expected text, an integer or None"),  # a float may have lost its digits
        (changed("item", "asin", True), "is True, expected text, an integer"),
        (changed("item", "asin", ["A"]), r"is \['A'\], expected text, an integer"),
        (changed("item", "asin", datetime.date(2014, 1, 1)), "expected text, an integer"),
        ([bought("A"), {"asin": "A"}], 'Purchase 1 of the history has no "item" mapping, expected a list of purchases'),
        ([bought("A"), NAN], 'Purchase 1 of the history has no "item" mapping'),
        ([bought("A") | {"review": 5}], '"review" of purchase 0 of the history is a int'),
        (
            [bought("A", time=9), bought("B"), bought("C", time=5)],
            '"unix_time" of purchase 2 .* is 5, before 9 of an',
        ),
        ([[], changed("review", "rating", 9)], '"rating" of purchase 1 of history 1 is 9'),
        ([[], [bought("A"), None]], 'Purchase 1 of history 1 has no "item" mapping'),
        ([{"purchase_history": []}, {"purchase_history": None}], "History 1 is a NoneType, expected a list"),
        ({"item": [{}, {}], "review": [{}]}, 'has a list of 2 for "item", expected one as long for "review" or None'),
        ([{"item": {"asin": ["A"]}}], r'"asin" of purchase 0 of the history is \[\'A\'\], expected text'),
        (7, "The history is a int, expected a list of purchases"),
    ],
)
def test_other_values_raise_an_error_with_purchase_and_field(door, history, message):
    with pytest.raises(ValueError, match=message):
        door(history)


def containers():
    """One history, and a row of it, in the containers of other libraries."""
    history = [bought("A", time=1), bought("new", time=86_400), bought("B", time=86_400, rating=None)]
    row = {"reviewer_id": "R", "purchase_history": history}
    frame, table = pd.DataFrame([row]), pa.Table.from_pylist([row])
    lists = {part: [p[part] for p in history] for part in history[0]}
    old = datasets.Dataset.from_list([{"purchase_history": lists}])  # as `Sequence` of older versions of datasets
    parquet = table.to_pandas()  # lists become arrays
    assert isinstance(parquet["purchase_history"][0], np.ndarray)
    arrow = table.to_pandas(types_mapper=pd.ArrowDtype)
    return (
        history,
        {
            "tuple": tuple(history),
            "numpy": np.array(history, dtype=object),
            "cell of a data frame": parquet["purchase_history"][0],
            "row of a data frame": parquet.iloc[0],
            "row of an arrow frame": arrow.iloc[0],
            "data frame of purchases": pd.DataFrame(history),
            "items as series": [p | {"item": pd.Series(p["item"])} for p in history],
            "arrow list": table["purchase_history"][0],
            "arrow purchases": list(table["purchase_history"][0].values),
            "arrow row": table.to_struct_array()[0],
            "row of datasets": datasets.Dataset.from_list([row])[0],
            "row in torch": datasets.Dataset.from_list([row]).with_format("torch")[0],
            "row in numpy": datasets.Dataset.from_list([row]).with_format("numpy")[0],
            "dict of lists": lists,
            "row of datasets with a dict of lists": old[0],
        },
        {
            "data frame": frame,
            "parquet": parquet,
            "column": parquet["purchase_history"],
            "column by user": parquet.set_index("reviewer_id")["purchase_history"],
            "array of arrays": parquet["purchase_history"].to_numpy(),
            "arrow frame": arrow,
            "arrow column": table["purchase_history"],
            "arrow table": table,
            "arrow batch": table.to_batches()[0],
            "datasets": datasets.Dataset.from_list([row]),
            "datasets in pandas": datasets.Dataset.from_list([row]).with_format("pandas")[:],
            "slice of datasets": datasets.Dataset.from_list([row])[:1],
            "column of datasets": datasets.Dataset.from_list([row])["purchase_history"],
            "streamed": datasets.Dataset.from_list([row]).to_iterable_dataset(),
            "slice of datasets with a dict of lists": old[:1],
            "list of dicts of lists": [lists],
        },
    )


HISTORY, ONE, SEVERAL = containers()


@at_every_door
@pytest.mark.parametrize("history", ONE.values(), ids=ONE)
def test_one_history_is_read_from_every_container(door, history):
    assert door(history) == door(HISTORY)


@at_every_door
@pytest.mark.parametrize("histories", SEVERAL.values(), ids=SEVERAL)
def test_rows_are_read_from_every_table(door, histories):
    assert door(histories) == door([HISTORY])


@pytest.mark.parametrize("name", ["parquet", "arrow table", "datasets"])
def test_an_empty_table_holds_no_history(name):
    table = SEVERAL[name]
    empty = table.select([]) if name == "datasets" else table[:0]
    assert pipeline().narrate(empty, task=TASK) == processor().recommend(empty) == []
    with pytest.raises(ValueError, match="There are no histories, expected at least one"):
        processor()(empty, TASK)


@pytest.mark.parametrize("asin", [7, 7.0, np.int64(7), "7"])
def test_bought_items_with_integer_ids_are_not_recommended_again(asin):
    parts = processor(cf_asins=[7, np.int64(8), "C", "D"])
    history = [bought(asin), bought("C")]
    assert {found for found, _ in parts.recommend(history)} == {"8", "D"}
    assert parts.unknown_items(history) == []


def test_a_missing_rating_gives_the_scores_and_vectors_of_an_unrated_purchase():
    rated, missing = ([bought("A", rating=rating), bought("new", rating=rating)] for rating in (3, NAN))
    assert processor().recommend(missing) == processor().recommend(rated)
    assert all(score != 0 for _, score in processor().recommend(missing))
    *_, factors = folded_in(missing)
    assert np.abs(factors[-1]).sum() > 0
    assert folded_in(missing) == folded_in(rated)


def test_ids_of_text_and_integers_can_be_mixed_in_new_items():
    added, *_ = folded_in([[bought("A"), bought(12), bought("x"), bought(12.0)]])
    assert added == ["12", "x"]


@pytest.mark.parametrize("asin", [None, NAN, "", 1.5, True, pd.NA])
def test_the_ids_of_the_items_with_vectors_are_checked_too(asin):
    with pytest.raises(ValueError, match=r"cf_asins\[2\] is .*, expected text or an integer"):
        processor(cf_asins=["A", 2, asin, "D"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cf_user_gram": np.full((CF_DIM, CF_DIM), np.nan)}, "cf_user_gram contains NaN or infinity"),
        ({"cf_alpha": NAN}, "cf_alpha is nan, expected a finite number"),
        ({"cf_regularization": -1.0}, "cf_regularization is -1.0, expected a finite number of at least 0"),
    ],
)
def test_settings_that_would_store_vectors_without_a_number_raise_an_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        processor(**arguments)


def test_equal_and_missing_times_are_in_order():
    history = [bought("A", time=5), bought("B"), bought("C", time=5), bought("D", time=6) | {"review": None}]
    assert len(processor().unknown_items(history)) == 0


def test_a_prompt_of_ones_own_may_hold_surrogates():
    assert processor().prompt_text(1, prompt="gift \ud83d\ude00\udc00") == "<|item|>gift 😀\ufffd\n"
