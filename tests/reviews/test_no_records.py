"""Error messages for text files in which no records are recognised."""

import json
import re

import pytest

from regen_hf.reviews.lines import chunks
from regen_hf.reviews.no_records import missing_header, no_records

TEXT = "user;item;Käufer\r\n" + "a;1;größer\n" * 100 + "b;2;end\n"


def message(path, option="--reviews"):
    return no_records(path, option, next(chunks(path, 2**20), None))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "contains no line of text"),
        (b"\n \n\r\n", "contains no line of text"),
        (TEXT.encode("latin-1"), r"is not UTF-8 in line 1.*'user;item;K\\xe4ufer.*--encoding, such as latin-1"),
        (b"\n\n" + TEXT.encode("latin-1"), r"is not UTF-8 in line 3"),
        (b"\xe4;b\n\xe4;c\n", "contains no line of text in UTF-8.*--encoding, such as latin-1"),
        (TEXT.encode("utf-16-le"), "looks like UTF-16.*--encoding utf-16-le"),
        (TEXT.encode("utf-16-be"), "looks like UTF-16.*--encoding utf-16-be"),
        (b"\x7fELF\x02\x01\x01\x00\x00,a,b\n\x00\n", "is not text: line 1 contains zero bytes.*as CSV"),
        (bytes(100), "is not text: line 1 contains zero bytes"),
        (json.dumps([{"user": 1}]).encode(), r"is a JSON array, expected JSON lines.*jq -c '\.\[\]'"),
        (json.dumps({"user": 1}, indent=1).encode(), r"neither JSON lines nor.*several lines.*jq -c '\.'"),
        (b"\n<!DOCTYPE html>\n<title>404, sorry</title>\n", "error page"),
        (b"1::1193::5::978300760\n", "no header.*--delimiter '::' --header \"user,item,rating,time\""),
        (b"user::item::rating::time\n", "has the delimiter '::' .*expected comma.*with --delimiter '::'\\."),
        (b"u,1|i|5|978300760\n", r"no header.*--delimiter '\|' --header"),
        (b"978300760\n", 'no header: .*--header "user,item,rating,time"'),
        (b"reviews\nA1\n", "names of columns with a comma, tab, semicolon or --delimiter"),
    ],
    ids=lambda value: None if isinstance(value, bytes) else value[:20],
)
def test_a_file_without_records(put, data, expected):
    assert re.search(rf"(?s)r\.csv, given as --reviews, .*{expected}", message(put(data)))


def test_messages_name_the_options_of_items(put):
    assert "--item-encoding utf-16-be" in message(put(TEXT.encode("utf-16-be")), "--items")
    path = put("1::Käse, The (1995)::Comedy\n".encode())
    assert "--item-delimiter '::' --item-header \"item,title,category\"" in message(path, "--items")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["A1", "B2", "5.0", "x"], True),
        (["A1", "B2", "2020-01-31T10:00:00"], True),
        (["1", "Toy Story", "Comedy"], True),
        (["user", "item", "rating"], False),
        (["user_id:token", "item_id:token", "timestamp:float"], False),
        (["time", "rating|5", "item 1"], False),
        (["", "user", "item"], False),
    ],
)
def test_a_header_that_is_a_record(put, names, expected):
    text = missing_header(put(b""), "--reviews", ",".join(names), names)
    assert (text is not None) == expected
    assert not text or ("has no header" in text and "--delimiter" not in text)


def test_a_delimiter_that_is_not_in_the_first_line(put):
    path = put(b"user,item,time\na,1,1500000000\n")
    text = no_records(path, "--items", next(chunks(path, 2**20), None), "::")
    assert re.search("has no delimiter '::' in its first line .'user,item,time'.*Correct --item-delimiter", text)
