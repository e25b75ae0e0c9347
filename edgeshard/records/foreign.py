"""Scalars of numpy and pandas as Python's own values, where these are exactly the same.

Neither library is imported: a value can only be one of theirs if it is there already.
"""

from __future__ import annotations

import datetime
import sys
from typing import Any, Final

_PLAIN: Final = (bool, int, float, str, bytes)

#: What numpy makes of a date or a duration, if it does not lose digits; a datetime of numpy's has no time zone.
_TIMES: Final = (datetime.date, datetime.timedelta)


def to_python(value: Any) -> Any:
    """Return the Python value that a scalar of numpy or pandas is exactly, or else the value itself."""
    library = type(value).__module__.partition(".")[0]
    module = sys.modules.get(library)
    if module is not None and library == "numpy" and isinstance(value, module.generic):
        return _of_numpy(value)
    if module is not None and library == "pandas":
        return _of_pandas(value)
    return value


def _of_numpy(value: Any) -> Any:
    item = value.item()
    if value.dtype.kind in "mM":
        return item if type(item) in _TIMES else value
    # a longdouble has more digits than a float
    return item if type(item) in _PLAIN and (item == value or item != item) else value


def _of_pandas(value: Any) -> Any:
    if isinstance(value, datetime.datetime) and getattr(value, "nanosecond", None) == 0:
        return value.to_pydatetime()  # type: ignore[attr-defined]  # a pandas.Timestamp; NaT has NaN nanoseconds
    if isinstance(value, datetime.timedelta) and getattr(value, "nanoseconds", None) == 0:
        return value.to_pytimedelta()  # type: ignore[attr-defined]  # a pandas.Timedelta
    return value
