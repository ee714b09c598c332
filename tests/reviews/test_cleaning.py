"""Texts of a release -> plain text, titles, prices and categories."""

import time
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from regen_hf.reviews import cleaning
from regen_hf.reviews.ingest import IngestOptions, read_items
from regen_hf.reviews.lines import from_python_literal, json_keys


@pytest.mark.parametrize(
    "title",
    [
        "Multi-Function (Print, Scan)",
        "Printer, Scan Function(Wireless)",
        "Grapher: function (x) plots",
        "I <3 pens",
        "Pens <Black>",
        "Size <S",
        "Size < 5 in",
        "Function generator",
        "AT&T&copy=2",
        "getTime watch",
    ],
)
def test_a_title_that_is_text_stays(title):
    counts = Counter()
    assert (cleaning.title(title, counts), counts) == (title, {})


@pytest.mark.parametrize(
    ("raw", "title"),
    [
        ("Medium <S> Shirt", "Medium Shirt"),
        ("The <i>Best</i> Pen", "The Best Pen"),
        ("Pen</span>", "Pen"),
        ('<span id="productTitle" class="a-size-large">\n  Pen &amp; Ink </span>', "Pen & Ink"),
        ("Pen<br/>Blue", "Pen Blue"),
        ("<script>var a = 1;</script>Pen", "Pen"),
        ("Pen <!-- new -->", "Pen"),
    ],
)
def test_a_title_loses_its_tags(raw, title):
    counts = Counter()
    assert cleaning.title(raw, counts) == title
    assert counts["markup"] == 1
    assert "markup_title" not in counts


@pytest.mark.parametrize(
    "title",
    [
        '<span id="productTitle" class="a-size-large">',
        '<span id="productTitle" class="a-size',
        "Pen <span",
        "Pen </spa</span",
        "<img src=x",
        "<!-- x -->",
        "<!doctype html",
        "var aPageStart = (new Date()).getTime();",
        "(function(){var a=1;})",
        "function show(a, b) { return a",
        "P.when('A').execute(function(A",
        "window.ue = function (a",
    ],
)
def test_a_title_that_is_part_of_a_web_page_is_missing(title):
    counts = Counter()
    assert (cleaning.title(title, counts), counts) == (None, {"markup_title": 1})


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("Good. <style> I love it", "Good.  I love it"),
        ("Good. <script> I love it", "Good.  I love it"),
        ("Good. <!-- I love it", "Good.  I love it"),
        ("Good.<style>p {}</style> I love it <style>here", "Good.  I love it here"),
        ("<!-- a --> Good. --> b", "Good. --> b"),
        ("see http://x.com/?a=1&copy=2&lt=3", "see http://x.com/?a=1&copy=2&lt=3"),
        ("&copying; &nosuch; &copy; &#169; &#xA9;", "&copying; &nosuch; © © ©"),
        ("Tom &amp Jerry &amp; I", "Tom &amp Jerry & I"),
        ("&#55357; &#0; &#1114112;", "\ufffd \ufffd \ufffd"),
    ],
)
def test_only_markup_and_complete_entities_are_replaced(raw, text):
    assert cleaning.plain(raw, Counter()) == text
    assert cleaning.plain_column(pa.chunked_array([[raw]]), Counter()).to_pylist() == [text]


@pytest.mark.parametrize("start", ["<style>", "<script ", "<!--", "<script>-->", "<span ", "&#", "</style>"])
def test_long_texts_take_linear_time(start):
    began = time.process_time()
    cleaning.plain("<style></style>" + start * 20_000, Counter())
    assert time.process_time() - began < 2


@pytest.mark.parametrize("text", ["", " ", r"\N", "NULL", "null", "NA", "NaN", "nan", "None", " NA "])
def test_a_null_word_is_no_unreadable_price(text):
    counts = Counter()
    assert (cleaning.price(text, counts), counts) == (None, {})


def test_halves_of_surrogates_become_a_character_or_its_replacement():
    pair, half = r"\ud83d\ude00", r"\ud83d"
    line = f"{{'a': '{pair}{half}', '{half}': ['{pair}']}}"
    assert from_python_literal(line) == '{"a": "😀\ufffd", "\ufffd": ["😀"]}'
    for path in (f'["Office", "{half}", "Pens {pair}"]', f"['Office', '{half}', 'Pens {pair}']"):
        assert cleaning.category(path, Counter()) == "Office - \ufffd - Pens 😀"
        assert cleaning.description(path, Counter()) == "Office \ufffd Pens 😀"


def test_keys_with_halves_of_surrogates_can_be_printed():
    keys, _ = json_keys([r'{"\ud83d": 1, "\ud83d\ude00": 2}', r"{u'\udc00': 1}"])
    assert keys == {"\ufffd", "😀"}


def test_a_file_of_literals_with_surrogates_and_backslashes_is_read(engine, tmp_path, recwarn):
    lines = [
        r"{'asin': 'B1', 'title': 'Pen \ud83d\ude00 \ud83d', 'categories': [['Office \ude00']]}",
        r"{'asin': 'B2', 'title': 'C:\d', 'categories': [['Office']], 'price': 9.99}",
        r"{'asin': 'B3', 'title': {1, 2}, 'categories': []}",
    ]
    (tmp_path / "i.json").write_text("\n".join(lines))
    result = read_items(engine, [str(tmp_path / "i.json")], tmp_path / "work", IngestOptions())
    rows = pa.concat_tables([pq.read_table(table) for table in result.tables]).to_pylist()
    read = [(row["title"], row["category"]) for row in rows]
    assert read == [("Pen 😀 \ufffd", "Office \ufffd"), (r"C:\d", "Office")]
    assert result.dropped == {"not_json": 1}
    assert not recwarn.list
