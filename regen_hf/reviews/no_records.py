"""Error messages for text files in which no records are recognised."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .delimited import TIME
from .lines import Chunk

NUMBER = re.compile(r"-?[0-9]+(\.[0-9]*)?")
OTHER_DELIMITERS = ("::", "|")
"""Delimiters that are not recognised without a setting; `|` occurs within the fields of other files too."""


def no_records(path: Path, option: str, chunk: Chunk | None, delimiter: str = "") -> str:
    """The error message for a file, given as `option`, whose first `chunk` has no JSON object and no header.

    `delimiter` is that of the settings.
    """
    file = f"{path}, given as {option},"
    name = "--item-encoding" if option == "--items" else "--encoding"
    lines = chunk.lines["line"].to_pylist() if chunk else []
    start = next((index for index, line in enumerate(lines) if line is None or line.strip()), None)
    if chunk is None or start is None:
        return f"{file} contains no line of text, expected JSON lines, CSV, TSV or parquet. Check the file."
    if encoding := _utf16(chunk):
        return f"{file} looks like UTF-16, expected UTF-8. Read it with {name} {encoding}."
    content = chunk.content[start].as_py()
    if b"\x00" in content:
        return (
            f"{file} is not text: line {start + 1} contains zero bytes and begins with {content[:20]!r}. "
            "Expected JSON lines, CSV, TSV or parquet. Export the data as CSV."
        )
    line = lines[start]
    if line is None:
        problem = "contains no line of text in UTF-8" if not any(lines) else f"is not UTF-8 in line {start + 1}"
        return (
            f"{file} {problem}: it begins with {content[:60]!r}. Expected JSON lines, CSV or TSV in UTF-8. "
            f"Read another encoding with {name}, such as latin-1, or cp1252 for text from Windows."
        )
    if line.lstrip().startswith("["):
        return json_array(path, option, line)
    if line.lstrip().startswith("{"):
        hint = "Convert JSON objects of several lines, or without line ends, to JSON lines with: jq -c '.'."
    elif line.lstrip().startswith("<"):
        hint = "Is it a saved error page?"
    elif delimiter and delimiter not in line:
        return (
            f"{file} has no delimiter {delimiter!r} in its first line ({line.strip()[:60]!r}), expected names of "
            f"columns with it. Correct {'--item-delimiter' if option == '--items' else '--delimiter'}, or omit it "
            "to recognise a comma, tab or semicolon."
        )
    elif message := missing_header(path, option, line, [line]):
        return message
    else:
        hint = "Expected one JSON object per line, or names of columns with a comma, tab, semicolon or --delimiter."
    return (
        f"{file} is neither JSON lines nor CSV or TSV: its first lines contain no JSON object and "
        f"no names of columns. It begins with {line.strip()[:60]!r}. {hint}"
    )


def json_array(path: Path, option: str, line: str) -> str:
    """The error message for a file, given as `option`, that is a JSON array with the first `line`."""
    return (
        f"{path}, given as {option}, is a JSON array, expected JSON lines. It begins with {line.strip()[:60]!r}. "
        "Convert it with: jq -c '.[]'."
    )


def missing_header(path: Path, option: str, line: str, names: Sequence[str]) -> str | None:
    """The error message for a file whose first `line` is not a header; None if it may be one.

    `names` are the fields of the line, or the line where none were recognised. It is not a header if one is a number or
    a time, or if the delimiter is one of `OTHER_DELIMITERS`.
    """
    others = OTHER_DELIMITERS if len(names) == 1 else OTHER_DELIMITERS[:1]
    delimiter = next((delimiter for delimiter in others if delimiter in line), None)
    names = line.split(delimiter) if delimiter else names
    is_record = any(NUMBER.fullmatch(name.strip()) or TIME.match(name.strip()) for name in names)
    if not delimiter and not is_record:
        return None
    prefix, columns = ("--item-", "item,title,category") if option == "--items" else ("--", "user,item,rating,time")
    options = [f"{prefix}delimiter '{delimiter}'"] if delimiter else []
    options += [f'{prefix}header "{columns}"'] if is_record else []
    problem = "has no header: its first line is a record" if is_record else f"has the delimiter {delimiter!r}"
    expected = "names of columns" if is_record else "comma, tab or semicolon"
    return (
        f"{path}, given as {option}, {problem} ({line.strip()[:60]!r}), expected {expected}. "
        f"Read it with {' '.join(options)}{' (name its columns in their order)' if is_record else ''}."
    )


def _utf16(chunk: Chunk) -> str | None:
    """The name of the encoding if every other byte of most of the text is zero."""
    data = np.frombuffer(b"".join(chunk.content.slice(0, 100).to_pylist())[:10_000], np.uint8)
    for first, encoding in enumerate(("utf-16-be", "utf-16-le")):
        if len(data) > 1 and np.mean(data[first::2] == 0) > 0.5 > np.mean(data[1 - first :: 2] == 0):
            return encoding
    return None
