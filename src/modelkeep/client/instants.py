"""Points in time as texts of ISO 8601, with their zone's offset and all their digits, out of columns of any library.

Python's own dates end at the microsecond; what libraries keep in nanoseconds is written from their whole numbers.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = 1_000_000_000
_MINUTE = 60
_NANO_DIGITS = 9


def instants_in(column: Any) -> list[str | None] | None:  # noqa: ANN401 - a Series of polars, or an array of Arrow
    """Return the texts of a column in nanoseconds of polars or Arrow; None for every other column."""
    library = type(column).__module__.partition(".")[0]
    if library == "pyarrow" and str(column.type).startswith(("timestamp[ns", "time64[ns")):
        numbers, zone = column.cast("int64").to_pylist(), getattr(column.type, "tz", None)
        of_day = str(column.type).startswith("time64")
    elif library == "polars" and (str(column.dtype) == "Time" or _in_nanoseconds(column.dtype)):
        numbers, zone = column.to_physical().to_list(), getattr(column.dtype, "time_zone", None)
        of_day = str(column.dtype) == "Time"
    else:
        return None
    write = time_of_day if of_day else (lambda number: instant(number, zone))
    return [None if number is None else write(number) for number in numbers]


def _in_nanoseconds(kind: object) -> bool:
    return getattr(kind, "time_unit", None) == "ns" and hasattr(kind, "time_zone")


def numpy_instants(value: Any) -> Any:  # noqa: ANN401 - an array or a scalar of datetime64; texts as nested as it is
    """Return the texts of datetime64, NaT as None."""
    import numpy as np

    return _tidy(np.datetime_as_string(value).tolist())


def instant(nanoseconds: int, zone: str | None) -> str:
    """Return the text of so many nanoseconds since 1970 (of UTC, shown in `zone`, where there is one)."""
    seconds, rest = divmod(nanoseconds, _SECOND)
    when = _EPOCH + timedelta(seconds=seconds)
    if zone is None:
        return _joined(when.strftime("%Y-%m-%dT%H:%M:%S"), rest)
    text = when.astimezone(_zone(zone)).isoformat()
    return _joined(text[:19], rest) + text[19:]


def time_of_day(nanoseconds: int) -> str:
    """Return the text of so many nanoseconds since midnight."""
    seconds, rest = divmod(nanoseconds, _SECOND)
    minutes, second = divmod(seconds, _MINUTE)
    return _joined(f"{minutes // _MINUTE:02}:{minutes % _MINUTE:02}:{second:02}", rest)


def _zone(name: str) -> Any:  # noqa: ANN401 - a tzinfo
    if name[:1] in {"+", "-"}:  # Arrow may say an offset
        return datetime.fromisoformat(f"2000-01-01T00:00:00{name}").tzinfo
    from zoneinfo import ZoneInfo

    return ZoneInfo(name)


def _joined(text: str, nanoseconds: int) -> str:
    """Return a time with its fraction: none, six digits, or nine, as Python and pandas write it."""
    if not nanoseconds:
        return text
    micro, nano = divmod(nanoseconds, 1000)
    return f"{text}.{micro:06}{nano:03}" if nano else f"{text}.{micro:06}"


def _tidy(value: Any) -> Any:  # noqa: ANN401 - a text, or lists of texts
    if isinstance(value, list):
        return [_tidy(one) for one in value]
    if value == "NaT":
        return None
    whole, _dot, fraction = value.partition(".")
    digits = fraction.rstrip("0")
    if len(digits) > _NANO_DIGITS:
        return f"{whole}.{digits}"
    return _joined(whole, int(f"{digits:0<9}")) if digits else whole
