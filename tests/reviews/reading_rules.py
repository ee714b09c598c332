"""The rules of docs/own_data.md in plain Python: how a record of a file becomes a row, a reject or an error.

Written from the rules, not from the reader; `test_fuzz` compares the two. A log is given as `File`s of cells, before
they are written to disk, so that this module parses no file.
"""

import ast
import datetime
import json
import math
import re
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction

NULL_WORDS = ("\\N", "NULL", "null", "NA", "NaN", "nan", "None")
NS = 10**9
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
LATEST = (datetime.date(2262, 1, 1) - EPOCH.date()).days * 86400 * NS
FIRST = 365 * 86400 * NS
"""The end of the year 1970."""
REQUIRED = {"reviews": ("user", "item", "time"), "items": ("item", "title")}
OPTIONAL = {"reviews": ("rating", "summary", "text"), "items": ("category", "description", "price")}
MARKUP = {"<br />": "\n", "<BR>": "\n", "<b>": "", "</b>": "", "</p>": "\n", "<p>": "", "<a href='x'>": "", "</A>": ""}
MARKUP |= {"<!-- c -->": " ", "<style>x{}</style>": " ", "<script>f()</script>": " "}
ENTITIES = {"&amp;": "&", "&#34;": '"', "&lt;": "<", "&eacute;": "é", "&nbsp;": " ", "&#x1F600;": "😀"}
SCRIPT = '<span id="productTitle" class="a-size'
"""Part of a web page, as in many titles of the 2018 release."""


class Refused(Exception):
    """The files are an error, and nothing is written."""


@dataclass(frozen=True)
class Cell:
    """A value of a text file: a cell of CSV, or a token of JSON or Python."""

    text: str
    quoted: bool = True


@dataclass(frozen=True)
class Bad:
    """A line that is no record."""

    raw: bytes
    reason: str


@dataclass(frozen=True)
class File:
    """A file before it is written.

    `columns` are the names that it has (user, item, …). A record maps them to a `Cell`, in parquet to a Python value,
    and to None where the value is null (in JSON lines, where the key is missing).
    """

    form: str  # json, literal, csv or parquet
    columns: tuple[str, ...]
    records: tuple[dict | Bad, ...]
    unquoted: bool = False


@dataclass(frozen=True)
class Settings:
    rating_scale: tuple[float, float] | None = None
    rating_missing: tuple[float, ...] = ()
    min_history: int = 1
    max_history: int = 50
    k_core: int = 0
    since: str = ""
    until: str = ""


@dataclass
class Account:
    read: int = 0
    dropped: Counter = field(default_factory=Counter)
    cleaned: Counter = field(default_factory=Counter)

    def entry(self):
        dropped = {reason: count for reason, count in sorted(self.dropped.items()) if count}
        return {"read": self.read, "kept": self.read - sum(dropped.values()), "dropped": dropped}


# Fields of a record as text


def fields(file: File, record: dict, kind: str):
    """The values of a record as text or null; the reason to reject it; and how many ids were floats."""
    texts, reject, floats = {}, None, 0
    for name in (*REQUIRED[kind], *OPTIONAL[kind]):
        value = record.get(name)
        is_id = name in ("user", "item")
        if file.form == "parquet":
            if isinstance(value, bytes):
                try:
                    value = value.decode()
                except UnicodeDecodeError:
                    value, reject = None, reject or "not_utf8"
            texts[name] = as_text(value)
            continue
        if value is None:
            texts[name] = None
            continue
        text = value.text
        if not value.quoted:
            if is_id and re.fullmatch(r"(0|[1-9][0-9]*)\.0+", text.strip()):
                text, floats = text.strip().split(".")[0], floats + 1
            elif file.form == "csv":
                text = None if is_id and is_null(text) else text
            elif text in ("NaN", "null", "None"):
                text = None
            elif text[0] in "[{" and name not in ("category", "description"):
                reject = reject or "wrong_type"
        texts[name] = text
    return texts, reject, floats


def as_text(value):
    """A value of parquet as text; a moment stays one."""
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return str(int(value)) if value == math.floor(value) else repr(value)
    if value is None or isinstance(value, datetime.date | str):
        return value
    return json.dumps(value) if isinstance(value, list) else str(value)


def is_null(text):
    return text is None or not text.strip() or text.strip() in NULL_WORDS


# Times and ratings


def time(value):
    """Nanoseconds since 1970, the reason to reject the time, and the rule of `cleaned` that read it."""
    if isinstance(value, datetime.date):
        moment = value if isinstance(value, datetime.datetime) else datetime.datetime(*value.timetuple()[:3])
        return checked(since_1970(moment), None)
    if is_null(value):
        return None, "missing_time", None
    text = value.strip()
    compact = compact_date(text)
    if compact is not None:
        return checked(compact, "compact_date")
    iso = iso_date(text)
    if iso is not None:
        return checked(iso, "iso_date")
    number = number_of(text)
    if number is None:
        return None, "invalid_time", None
    if 34_700 <= number < 73_051:
        milliseconds = (number - 25_569) * 86_400_000  # days since 1899-12-30
        return checked(math.floor(milliseconds + Fraction(1, 2)) * 10**6, "spreadsheet_date")
    if number == int(number) and 1900 <= number <= 2100:
        return None, "year_only", None
    units = {10**11: (NS, None), 10**14: (10**6, "milliseconds"), 10**17: (1000, "microseconds")}
    scale, rule = next((unit for bound, unit in units.items() if number < bound), (1, "nanoseconds"))
    return checked(math.floor(number * scale), rule)


def checked(ns, rule):
    if not 0 <= ns < LATEST:
        return None, "invalid_time", None
    return (None, "time_in_1970", None) if ns < FIRST else (ns, None, rule)


def since_1970(moment, fraction=""):
    """Nanoseconds since 1970, without an offset in UTC."""
    whole = moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
    micro = (whole - EPOCH) // datetime.timedelta(microseconds=1)
    return micro * 1000 + (int(fraction.ljust(9, "0")) if fraction else 0)


def compact_date(text):
    match = re.fullmatch(r"((?:19|20)[0-9]{6})([0-9]{4}(?:[0-9]{2})?)?(?:\.0+)?", text)
    if not match:
        return None
    try:
        return since_1970(datetime.datetime.strptime((match[1] + (match[2] or "")).ljust(14, "0"), "%Y%m%d%H%M%S"))
    except ValueError:
        return None


def iso_date(text):
    match = re.fullmatch(
        r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[T ]([0-9]{2}:[0-9]{2})(:[0-9]{2})?(?:\.([0-9]{1,9}))?)?"
        r"(?: ?(Z|UTC|[+-][0-9]{2}(?::?[0-9]{2})?))?",
        text,
    )
    if not match:
        return None
    offset = "+00:00" if match[5] in (None, "Z", "UTC") else match[5].replace(":", "").ljust(5, "0")
    try:
        moment = datetime.datetime.fromisoformat(f"{match[1]}T{match[2] or '00:00'}{match[3] or ':00'}{offset}")
    except ValueError:
        return None
    return since_1970(moment, match[4] or "")


def number_of(text):
    """A text as a number, None where it is missing or not a number."""
    form = r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?"
    return Fraction(Decimal(text.strip())) if text and re.fullmatch(form, text.strip()) else None


def rating(text, settings):
    """Stars or null; the reason to reject the rating; whether it was rounded."""
    value = number_of(text)
    if value is None:
        return None, None if is_null(text) else "invalid_rating", False
    if value in settings.rating_missing:
        return None, None, False
    low, high = settings.rating_scale or (Fraction(1, 2), 5)
    if not low <= value <= high:
        return None, "rating_out_of_scale", False
    if settings.rating_scale:
        value = 1 + 4 * Fraction(value - Fraction(low)) / (Fraction(high) - Fraction(low))
    return math.floor(value + Fraction(1, 2)), None, value != math.floor(value)


def check_scale(file, settings):
    """Refuse a file whose ratings need a scale."""
    if settings.rating_scale:
        return
    texts = (fields(file, record, "reviews")[0]["rating"] for record in file.records if isinstance(record, dict))
    values = [value for value in map(number_of, texts) if value is not None and value not in settings.rating_missing]
    if len(values) >= 5 and (
        set(values) == {0, 1} or 100 * sum(not Fraction(1, 2) <= value <= 5 for value in values) > len(values)
    ):
        raise Refused("--rating-scale")


# Texts


def plain(text, counts):
    """A text without markup and entities, null where nothing is left."""
    if text is None:
        return None
    for rule, signs in (("markup", MARKUP), ("entities", ENTITIES), ("nul_characters", {"\0": ""})):
        after = re.sub("|".join(map(re.escape, signs)), lambda match, signs=signs: signs[match[0]], text)
        counts[rule] += after != text
        text = after
    return text.replace("\xa0", " ").strip() or None


def whole(text):
    """A text whose halves of surrogate pairs became characters, or U+FFFD."""
    return text and text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def title(text, counts):
    only_markup = text and text.strip() and not re.sub("|".join(map(re.escape, MARKUP)), "", text).strip()
    if text and (SCRIPT in text or only_markup):
        counts["markup_title"] += 1
        return None
    return " ".join((plain(text, counts) or "").split()) or None


def listed(text):
    """The list in a text, as JSON or as Python or numpy write it; None where there is none."""
    if text is None or not text.startswith("["):
        return None
    for read in (json.loads, numpy_list, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError):
            continue
    return None


def numpy_list(text):
    """The list of `['a' "b's"]`, which numpy writes without commas."""
    parts = re.findall(r"""'([^']*)'|"([^"]*)\"""", text)
    if not re.fullmatch(r"""\[('[^']*'|"[^"]*")( ('[^']*'|"[^"]*"))*\]""", text):
        raise ValueError(text)
    return [one or other for one, other in parts]


def category(text, counts):
    names = listed(text)
    if names and isinstance(names[0], list):
        counts["further_categories"] += len(names) > 1
        names = names[0]
    names = names and [name for name in names if isinstance(name, str)]
    counts["category_list"] += bool(names)
    path = []
    for name in [text or ""] if names is None else names:
        if "<" in name:
            counts["markup_category"] += 1
            continue
        clean = plain(whole(name), counts)
        if clean and clean not in path[-1:]:
            path.append(clean)
    return " - ".join(path) or None


def description(text, counts):
    parts = listed(text)
    parts = parts and [part for part in parts if isinstance(part, str)]
    counts["description_list"] += bool(parts)
    clean = [plain(whole(part), counts) for part in ([text or ""] if parts is None else parts)]
    return " ".join(part for part in clean if part) or None


def price(text, counts):
    if is_null(text):
        return None
    amount = r"\$?([0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?)"
    match = re.fullmatch(rf"{amount}(?: - {amount})?", text.strip())
    if not match:
        counts["unreadable_price"] += 1
        return None
    counts["price_range"] += bool(match[2])
    return min(float(value.replace(",", "")) for value in match.groups() if value)


# Files


def read_files(files, kind, settings, record_rule):
    """The rows of `record_rule` for each record, and the account of them and of the files."""
    account, rows = Account(), []
    names = [name for name in OPTIONAL[kind] if any(name in file.columns for file in files)]  # the mapped ones
    missing = Counter(name for file in files for name in names if name not in file.columns)
    for file in files:
        if kind == "reviews":
            check_scale(file, settings)
        for record in file.records:
            account.read += 1
            if isinstance(record, Bad):
                account.dropped[record.reason] += 1
                continue
            texts, reject, floats = fields(file, record, kind)
            counts = Counter(float_ids=floats)
            row, reason = record_rule({k: whole(v) if isinstance(v, str) else v for k, v in texts.items()}, counts)
            if reject or reason:
                account.dropped[reject or reason] += 1
            else:
                rows.append(row)
                account.cleaned += counts
    files_entry = {"read": len(files), "unquoted": sum(file.unquoted for file in files), "missing": dict(missing)}
    return rows, account, files_entry


def review_row(texts, settings, counts):
    user, item = ((texts[name] or "").strip() for name in ("user", "item"))
    ns, bad_time, time_rule = time(texts["time"])
    stars, bad_rating, rounded = rating(texts["rating"], settings)
    reason = (not user and "missing_user") or (not item and "missing_item") or bad_time or bad_rating
    if reason:
        return None, reason
    summary, text = plain(texts["summary"], counts), plain(texts["text"], counts)
    counts.update({time_rule: 1} if time_rule else {})
    counts.update(rounded_rating=int(rounded), empty_review=int(summary is None and text is None))
    counts.update(scaled_rating=int(stars is not None and settings.rating_scale is not None))
    return (user, item, ns, stars, summary, text), None


def item_row(texts, counts):
    asin = (texts["item"] or "").strip()
    if not asin:
        return None, "missing_asin"
    row = {"asin": asin, "title": title(texts["title"], counts), "category": category(texts["category"], counts)}
    row |= {"description": description(texts["description"], counts), "price": price(texts["price"], counts)}
    return row, None
