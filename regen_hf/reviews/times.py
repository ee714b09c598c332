"""Times as text -> nanoseconds since 1970, or the reason why a text is no time of a purchase."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .nulls import is_null_word

if TYPE_CHECKING:
    import ibis.expr.types as ir

SECOND = 10**9
"""In nanoseconds."""
UNITS = {"milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
"""Units of numbers that are no seconds, per second. A number is in the unit in which it is at least 1e8 seconds (March
1973): as seconds, the least milliseconds, 1e11, are the year 5138."""
FIRST, END = 31_536_000, 9_214_646_400
"""Seconds: 1971-01-01, and 2262-01-01, before nanoseconds overflow 64 bits."""
DAYS = (34_700, 73_050)
"""First and last number read as a day of a spreadsheet: 1995-01-01 and 2099-12-31. As seconds they are in 1970."""
EPOCH = 25_569
"""1970-01-01 as a day of a spreadsheet (the 1900 date system)."""
FLAGS = (*UNITS, "iso_date", "compact_date", "spreadsheet_date")
DATE = (
    r"^\s*([0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.([0-9]{1,9}))?)?)?)"
    r"(?: ?(?:Z|UTC|([+-])([0-9]{2}):?([0-9]{2})?))?\s*$"
)
"""ISO 8601: a day, or a moment with or without an offset; without one it is UTC."""
COMPACT_DATE = r"^\s*((?:19|20)[0-9]{6}(?:[0-9]{4}|[0-9]{6})?)(?:\.0+)?\s*$"
"""YYYYMMDD, YYYYMMDDHHMM or YYYYMMDDHHMMSS, in UTC."""


def typed_times(table: ir.Table) -> ir.Table:
    """`table` with the times of its column `unix_time`.

    Returns:
        The columns of `table`; `time`, nanoseconds or null; `time_reject`, null or the reason why it is invalid; and
        the columns of `FLAGS`, true for the times in that unit or form.
    """
    import ibis

    null, text = ibis.null("int64"), table.unix_time
    # In steps with a column each: ibis repeats an expression wherever it is used, and every chunk plans the query.
    table = table.mutate(value=text.try_cast("float64"))
    table = table.mutate(small=ibis.ifelse(table.value.between(0, 2**53), table.value, ibis.null("float64")))
    is_whole = (table.small == table.small.floor()) & (~text.contains(".") | text.endswith(".0"))
    table = table.mutate(is_exact=table.value.isnull() | is_whole.fill_null(False))
    # Only other numbers pay for decimals, which are exact where a float is not.
    decimal = ibis.ifelse(table.is_exact, ibis.null("decimal(38, 9)"), text.try_cast("decimal(38, 9)"))
    table = table.mutate(decimal=ibis.ifelse(decimal.between(0, END * SECOND), decimal, ibis.null("decimal(38, 9)")))
    table = table.mutate(
        whole=ibis.ifelse(table.is_exact, table.small.cast("int64"), table.decimal.floor().cast("int64")),
        part=ibis.ifelse(table.is_exact, 0, ((table.decimal % 1) * SECOND).cast("int64")),
    )
    # Only in these ranges a number has the digits of a compact date.
    candidate = ibis.or_(*(table.whole.between(19 * 10**digits, 21 * 10**digits) for digits in (6, 10, 12)))
    table = table.mutate(
        digits=ibis.ifelse(candidate, text.re_extract(COMPACT_DATE, 1).nullif(""), ibis.null("string")),
        iso=ibis.ifelse(table.value.isnull(), text.re_extract(DATE, 0).nullif(""), ibis.null("string")),
    )
    table = table.mutate(compact=_compact_date(table.digits), date=_iso_date(table.iso))
    starts = [SECOND * per_second // 10 for per_second in UNITS.values()]
    ends = [*starts[1:], END * SECOND + 1]
    in_unit = {
        name: (table.compact.isnull() & (table.whole >= start) & (table.whole < end)).fill_null(False)
        for name, start, end in zip(UNITS, starts, ends, strict=True)
    }
    table = table.mutate(**in_unit)

    def nanoseconds(per_second: int) -> ir.IntegerValue:
        exact = table.whole * (SECOND // per_second) + (table.part / per_second).floor().cast("int64")
        return ibis.ifelse(table.whole < END * per_second, exact, null)  # a product beyond 64 bits raises an error

    table = table.mutate(spreadsheet_date=table.whole.between(*DAYS).fill_null(False))
    number = ibis.cases(
        *((table[name], nanoseconds(UNITS[name])) for name in UNITS),
        (table.spreadsheet_date, _spreadsheet_date(table.whole, table.part)),
        else_=nanoseconds(1),
    )
    table = table.mutate(time=ibis.coalesce(table.compact, table.date, number))
    is_good = table.time.between(FIRST * SECOND, END * SECOND - 1).fill_null(False)
    reason = ibis.cases(
        (is_null_word(text), "missing_time"),
        (table.whole.between(1900, 2100) & (table.part == 0), "year_only"),
        (table.time.between(0, FIRST * SECOND), "time_in_1970"),
        else_="invalid_time",
    )
    return table.mutate(
        time_reject=ibis.ifelse(is_good, ibis.null("string"), reason),
        iso_date=table.date.notnull(),
        compact_date=table.compact.notnull(),
    )


def _compact_date(digits: ir.StringValue) -> ir.IntegerValue:
    """Nanoseconds of a date of 8, 12 or 14 digits, null where there is no such date."""
    parts = (digits + "000000")[:14].re_replace("^(....)(..)(..)(..)(..)(..)$", r"\1-\2-\3 \4:\5:\6")
    return _epoch(parts) * SECOND


def _spreadsheet_date(days: ir.IntegerValue, part: ir.IntegerValue) -> ir.IntegerValue:
    """Nanoseconds of a number of days and billionths of a day, to the millisecond, as a spreadsheet shows it."""
    milliseconds = (days - EPOCH) * 86_400_000 + (part * 86_400 / 10**6).round().cast("int64")
    return milliseconds * 10**6


def _iso_date(text: ir.StringValue) -> ir.IntegerValue:
    """Nanoseconds of a text that matches `DATE`, null where there is no such date since 1970."""
    import ibis

    moment, part, sign, hours, minutes = (text.re_extract(DATE, group) for group in range(1, 6))
    offset = hours.nullif("").cast("int64").fill_null(0) * 3600 + minutes.nullif("").cast("int64").fill_null(0) * 60
    # Without the fraction: a timestamp has microseconds.
    seconds = _epoch(moment[:19]) - ibis.ifelse(sign == "-", -1, 1) * offset
    seconds = ibis.cases((seconds.between(0, END), seconds), else_=ibis.null("int64"))
    return seconds * SECOND + (part + "000000000")[:9].cast("int64")


def _epoch(text: ir.StringValue) -> ir.IntegerValue:
    """Seconds of a timestamp, null where there is no such moment."""
    # ibis believes that `epoch` of DuckDB is an integer, and omits a cast to one.
    return text.try_cast("timestamp").epoch_seconds().cast("float64").cast("int64")
