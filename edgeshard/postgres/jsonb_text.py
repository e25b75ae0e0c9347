"""Write JSON as PostgreSQL shows a jsonb value, so that both have the same checksum. Pure.

jsonb orders the names of an object by their length in bytes, then by their bytes, and writes numbers without exponents
(https://www.postgresql.org/docs/current/datatype-json.html; the order is that of its comparison of keys).
"""

from __future__ import annotations

import decimal
import json
from typing import Any, Final

#: Numbers keep all of their digits.
_decode: Final = json.JSONDecoder(parse_int=decimal.Decimal, parse_float=decimal.Decimal).decode

_encode_text: Final = json.JSONEncoder(ensure_ascii=False).encode


def jsonb_text(value: str) -> str:
    """Return a JSON text as jsonb shows it.

    Raises:
        ValueError, RecursionError, ArithmeticError: it is no JSON, or more than Python can read.
    """
    return _text(_decode(value))


def _text(value: Any) -> str:
    if isinstance(value, dict):
        members = [(name.encode(), item) for name, item in value.items()]
        members.sort(key=lambda member: (len(member[0]), member[0]))
        return "{" + ", ".join(f"{_encode_text(name.decode())}: {_text(item)}" for name, item in members) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_text, value)) + "]"
    if isinstance(value, decimal.Decimal):
        return format(abs(value) if value.is_zero() else value, "f")
    return _encode_text(value)
