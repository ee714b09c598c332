"""The users of a preview: which they are, and that only their rows are read."""

import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regen_hf.errors import RunError
from regen_hf.user_rows import UserRows

USERS = [f"user-{number}" for number in range(3000)]


def write(folder, *files, row_group=7):
    """Parquet files with the given ids, and a text for each."""
    paths = []
    for number, ids in enumerate(files):
        paths.append(folder / f"{number}.parquet")
        table = pa.table({"reviewer_id": pa.array(ids, pa.string()), "text": pa.array([f"of {user}" for user in ids])})
        pq.write_table(table, paths[-1], row_group_size=row_group)
    return paths


def test_a_preview_is_nested_and_does_not_depend_on_files_or_order(tmp_path):
    shuffled = random.Random(0).sample(USERS, len(USERS))
    for name in ("one", "many"):
        (tmp_path / name).mkdir()
    one, many = write(tmp_path / "one", USERS), write(tmp_path / "many", shuffled[:10], [], shuffled[10:])
    chosen = {most: list(UserRows.first(one, most).ids()) for most in (1, 20, 100)}
    assert set(chosen[1]) < set(chosen[20]) < set(chosen[100])
    assert [len(ids) for ids in chosen.values()] == [1, 20, 100]
    assert sorted(UserRows.first(many, 100).ids()) == sorted(chosen[100])
    assert list(UserRows.first(many, 100).ids()) == [user for user in shuffled if user in chosen[100]]
    for most in (0, 3000, 5000):
        assert list(UserRows.first(many, most).ids()) == shuffled


def test_a_preview_has_about_the_share_of_each_split(tmp_path):
    import hashlib

    ids = sorted(USERS, key=lambda user: hashlib.md5(user.encode()).hexdigest())  # splits are ranges of this hash
    files = write(tmp_path, ids[600:], ids[300:600], ids[:300])
    positions = list(UserRows.first(files, 1000).positions)
    counts = [sum(low <= position < high for position in positions) for low, high in ((0, 2400), (2400, 2700))]
    assert 770 < counts[0] < 830
    assert 70 < counts[1] < 130


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=3),
    row_group=st.integers(1, 5),
    batch_size=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_the_rows_of_given_users_are_read_whatever_the_batches(tmp_path_factory, sizes, row_group, batch_size, seed):
    ids = iter(USERS)
    groups = [[next(ids) for _ in range(size)] for size in sizes]
    paths = write(tmp_path_factory.mktemp("rows"), *groups, row_group=row_group)
    every = [user for group in groups for user in group]
    wanted = [user for user in every if random.Random(f"{seed} {user}").random() < 0.4]
    users = UserRows.of(paths, wanted)
    assert len(users) == len(wanted)
    assert list(users.rows(batch_size=batch_size)) == [{"reviewer_id": user, "text": f"of {user}"} for user in wanted]


@pytest.mark.parametrize("ids", [["user-1", "user-9"], ["user-2", "user-1"], ["user-1", "user-1"]])
def test_users_that_are_missing_or_in_another_order_raise_an_error(tmp_path, ids):
    with pytest.raises(RunError, match=rf"'{ids[1]}' is not among the 3 users of the sequences, or in another order"):
        UserRows.of(write(tmp_path, USERS[:3]), ids)


def test_row_groups_without_a_user_are_not_read(tmp_path, monkeypatch):
    (path,) = write(tmp_path, USERS, row_group=100)
    groups = []
    read = pq.ParquetFile.iter_batches

    def counted(self, batch_size=65536, row_groups=None, columns=None, **kwargs):
        groups.append(row_groups)
        return read(self, batch_size, row_groups, columns, **kwargs)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counted)
    assert [row["text"] for row in UserRows.of([path], ["user-150", "user-2999"]).rows()] == [
        "of user-150",
        "of user-2999",
    ]
    assert groups == [None, [1], [29]]
