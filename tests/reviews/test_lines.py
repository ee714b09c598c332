"""Text files as chunks of lines, in UTF-8 and other encodings."""

import gzip

import pytest

from regen_hf.errors import ConfigError, InputError
from regen_hf.reviews.lines import chunks

TEXT = "user;item;Käufer\r\n" + "a;1;größer, 😀\n" * 100 + "b;2;end"


def lines_of(path, size=2**20, encoding="utf-8"):
    return [line for chunk in chunks(path, size, encoding) for line in chunk.lines["line"].to_pylist()]


# Encodings


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "UTF8", "utf-8-sig", "latin-1", "cp1252", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "gb18030"],
)
def test_text_in_another_encoding(put, encoding, pack):
    text = TEXT.replace("😀", "ÿ") if encoding in ("latin-1", "cp1252") else TEXT
    path = put(pack(text.encode(encoding)))
    for size in (7, 100, 2**20):
        assert lines_of(path, size, encoding) == text.splitlines(keepends=True)


def test_undefined_bytes_make_a_line_not_utf8(put):
    path = put(b"user;item\na;\x81\xe9\nb;\xe9\n")
    assert lines_of(path, encoding="cp1252") == ["user;item\n", None, "b;é\n"]
    (chunk,) = chunks(path, 99, "cp1252")
    assert chunk.content[1].as_py() == b"a;\x81\xc3\xa9\n"


@pytest.mark.parametrize("data", ["a;b\n".encode("utf-16") + b"\x41", b"\xff\xfea\x00\n\x00\x00\xdca\x00"])
def test_bytes_that_an_encoding_cannot_have(put, data):
    with pytest.raises(InputError, match=r"r\.csv is not text in utf-16: after line 0.*--encoding"):
        lines_of(put(data), encoding="utf-16")


@pytest.mark.parametrize("encoding", ["latin1-1", "", "rot13", "hex", "undefined", "a\0b"])
def test_an_unknown_encoding(put, encoding):
    with pytest.raises(ConfigError, match=r"encoding is .*expected the name of a Python codec such as"):
        lines_of(put(b"a;b\n"), encoding=encoding)


def test_damage_in_a_compressed_file_in_another_encoding(put):
    with pytest.raises(InputError, match="data is incomplete"):
        lines_of(put(gzip.compress(TEXT.encode("utf-16"))[:-20]), encoding="utf-16")


def test_utf16_without_an_option(put):
    with pytest.raises(InputError, match=r"r\.csv is UTF-16, expected UTF-8.*--encoding utf-16"):
        lines_of(put(TEXT.encode("utf-16")))
