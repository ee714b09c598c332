"""Rows and tasks."""

import pyarrow as pa
import pytest

from regen_hf.schema import (
    CRITIQUE,
    DEFAULT_TASKS,
    ITEMS,
    NARRATIVES,
    PURCHASE_HISTORY,
    RATED,
    ROW,
    TASKS,
    Task,
    check_tasks,
    in_row,
    metadata_only_tasks,
    narrative_prompts,
    narratives,
    offered_narratives,
    offered_tasks,
    rated_narratives,
    text_columns,
    written_narratives,
)


def title(index):
    """A task whose text is the title of the purchase at `index`."""
    return Task(
        "title", ("purchase_history", index, "item", "title"), title="Title", prompt="p", question="q", description="d"
    )


def bought(*titles):
    return {"purchase_history": [{"item": {"title": text}, "review": None} for text in titles]}


def test_the_catalogue_schema_is_that_of_the_row():
    assert ITEMS.names == [field.name for field in ROW.field("purchase_history").type.value_type.field("item").type]


def test_the_text_of_a_task_is_read_along_its_path():
    row = {"user": {"profile": "Buyer of pens"}, "last_purchase": None}
    assert TASKS["user_profile"].text(row) == "Buyer of pens"
    assert TASKS["long_user_summary"].text(row) is None
    assert TASKS["purchase_reason"].text(row) is None
    assert TASKS["user_profile"].text({}) is None


@pytest.mark.parametrize(
    ("index", "expected"), [(0, "Pen"), (1, "Ink"), (-1, "Ink"), (-2, "Pen"), (2, None), (-3, None), (9, None)]
)
def test_an_index_outside_of_the_list_gives_no_text(index, expected):
    assert title(index).text(bought("Pen", "Ink")) == expected
    assert title(index).text(bought()) is None
    assert title(index).text({"purchase_history": None}) is None


def test_the_column_of_a_task_contains_the_text_of_each_row():
    rows = [bought("Pen", "Ink"), bought("Glue"), bought()]
    table = pa.Table.from_pylist(rows, schema=pa.schema([("purchase_history", PURCHASE_HISTORY)]))
    for index in (-1, 1):
        assert title(index).column(table).to_pylist() == [title(index).text(row) for row in rows]
    users = [{"user": {"profile": "Buyer of pens"}}, {"user": None}]
    table = pa.Table.from_pylist(users, schema=pa.schema([ROW.field("user")]))
    assert TASKS["user_profile"].column(table).to_pylist() == ["Buyer of pens", None]
    assert TASKS["user_profile"].column(table.to_batches()[0]).to_pylist() == ["Buyer of pens", None]
    assert TASKS["user_profile"].sql == "user.profile"


def test_names_of_tasks_are_checked():
    check_tasks(DEFAULT_TASKS)
    for names, wrong in (
        (("user_profile", "poem"), r"\['poem'\]"),
        (("user_profile", "user_profile"), r"\['user_profile'\]"),
        ((), "nothing"),
    ):
        with pytest.raises(ValueError, match=f"tasks contains {wrong}, expected some of purchase_reason, .*each once"):
            check_tasks(names)


def test_every_written_text_has_one_field_prompt_and_rated_part():
    texts = {task.name: task.name.upper() for task in written_narratives()}
    columns = in_row(texts)
    assert list(columns) == ["last_purchase", "user"]
    assert {name: narratives()[name].text(columns) for name in texts} == texts
    assert in_row({})["user"] == {"profile": None, "brief_summary": None, "long_summary": None}
    for name, values in columns.items():
        assert list(values) == [field.name for field in NARRATIVES.field(name).type]
    by_prompt = [task.name for tasks in narrative_prompts().values() for task in tasks]
    assert sorted(by_prompt) == sorted(texts)
    assert sorted(task.name for stage in RATED for task in rated_narratives(stage)) == sorted(texts)
    assert text_columns(texts, "reviewer_id") == ["reviewer_id", *columns]
    assert text_columns(["last_review"], "purchase_history") == ["purchase_history"]


def test_the_critique_is_a_text_of_the_row_and_no_task():
    assert CRITIQUE.name not in TASKS
    assert list(narratives()) == [*TASKS, CRITIQUE.name]
    assert list(offered_narratives()) == [*DEFAULT_TASKS, CRITIQUE.name]
    assert CRITIQUE in written_narratives()
    assert narrative_prompts()["critique"] == rated_narratives("critique") == [CRITIQUE]
    with pytest.raises(ValueError, match="expected some of purchase_reason"):
        check_tasks((CRITIQUE.name,))


def test_the_default_tasks_are_offered_and_further_ones_by_name():
    assert tuple(offered_tasks()) == DEFAULT_TASKS
    assert list(offered_tasks(["last_review", "user_profile"])) == list(TASKS)
    assert "last_review" not in DEFAULT_TASKS


def test_leak_safe_withholds_the_last_review_from_all_tasks():
    assert metadata_only_tasks(TASKS, leak_safe=False) == ["product_endorsement", "last_review"]
    assert metadata_only_tasks(TASKS, leak_safe=True) == list(TASKS)
