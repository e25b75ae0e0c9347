"""What the type of a field means: its column's type, and how its values are stored and read back."""

from __future__ import annotations

import collections.abc
import enum
import pathlib
import types
import typing
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import attrs

from edgeshard.errors import TableError
from edgeshard.records import forms, json_types, scalars
from edgeshard.records.codecs import CONVERSIONS
from edgeshard.records.forms import Form
from edgeshard.records.json_types import Anything, Converted, Items, JsonType, Members, Native, Nested, Nullable, Tuple

#: What a column can be, for errors.
_POSSIBLE: Final = (
    "columns are bool, int, float, str, bytes, datetime, date, time, timedelta, Decimal, UUID, Path, an Enum, a "
    "Literal, dict, list, tuple or set of these and other record classes inside (stored as JSON), or Optional of one "
    "of these. Declare the field as what is to be stored, such as str, list[float] or dict, and convert the values, or "
    "let the encode= function of the store do that"
)

_UNIONS: Final = (typing.Union, types.UnionType)

_PATHS: Final = (pathlib.PurePath, pathlib.PurePosixPath, pathlib.PureWindowsPath, pathlib.Path, pathlib.PosixPath)

#: Dicts and lists of whatever JSON has.
_OPEN: Final = (Members(Anything()), Items(list, Anything()))

_CONTAINERS: Final = (list, tuple, set, frozenset)

_ABSTRACT: Final = (
    (collections.abc.Mapping, "dict[...]"),
    (collections.abc.Set, "set[...]"),
    (collections.abc.Iterable, "list[...]"),
)


@attrs.frozen
class FieldType:
    """What the type of a field means.

    Attributes:
        column: the type of its column.
        encode: returns what is stored of a value, or raises a TypeError or ValueError that says why it cannot be.
        decode: converts a stored value back; None if it stays as it is.
        optional: whether None is a value.
        json: how its values are stored in JSON, if the column has JSON.
    """

    column: str
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any] | None
    optional: bool = False
    json: JsonType | None = None


def field_type(where: str, hint: Any) -> FieldType:
    """Return what the type of a field means.

    Args:
        where: the field, for errors.
        hint: its annotation.

    Raises:
        TableError: no column can hold values of this type.
    """
    if hint is None:
        raise _error(f"{where} has no type annotation")
    inner, optional = _without_none(_unwrapped(hint))
    return attrs.evolve(_required_type(where, inner), optional=optional)


def _error(cause: str) -> TableError:
    return TableError("declare table", "", cause)


def _refused(where: str, hint: Any) -> TableError:
    origin = typing.get_origin(hint) or hint
    if isinstance(hint, typing.TypeVar):
        cause = (
            f"the type variable {hint}; declare a subclass that says what it stands for, as class Concrete(Base[int])"
        )
        return _error(f"{where} has {cause}")
    if isinstance(origin, type) and origin not in _CONTAINERS and origin is not dict and not issubclass(origin, str):
        concrete = next((name for base, name in _ABSTRACT if issubclass(origin, base)), "")
        if concrete and origin.__module__ in ("collections.abc", "collections", "typing"):
            return _error(f"{where} has type {hint!r}, of which a value could be several types; declare {concrete}")
    return _error(f"{where} has type {hint!r}; {_POSSIBLE}")


def _unwrapped(hint: Any) -> Any:
    """Return a type without what says nothing about its values: Annotated, NewType, Final, the name of an alias."""
    while True:
        if hasattr(hint, "__metadata__") or typing.get_origin(hint) is typing.Final:
            hint = typing.get_args(hint)[0]
        elif hasattr(hint, "__supertype__"):
            hint = hint.__supertype__
        elif type(hint).__name__ == "TypeAliasType":
            hint = hint.__value__
        else:
            return hint


def _without_none(hint: Any) -> tuple[Any, bool]:
    """Return a type without None, and whether None was part of it."""
    if typing.get_origin(hint) is typing.Literal and None in (values := typing.get_args(hint)):
        rest = tuple(value for value in values if value is not None)
        return (typing.Literal[rest], True) if rest else (hint, False)
    if typing.get_origin(hint) not in _UNIONS:
        return hint, False
    members = [_unwrapped(item) for item in typing.get_args(hint)]
    inner = [item for item in members if item is not types.NoneType]
    return (_unwrapped(typing.Union[tuple(inner)]), len(inner) < len(members)) if inner else (hint, False)  # noqa: UP007


# -- columns ----------------------------------------------------------------------------------------------------------


def _required_type(where: str, hint: Any) -> FieldType:
    if (found := _scalar_type(where, hint)) is not None:
        return found
    if typing.get_origin(hint) in _UNIONS or hint is Any or hint is object:
        raise _refused(where, hint)  # JSON could have it, but a column has one type
    found_json = _json_type(where, hint, {})
    if found_json in _OPEN:  # what most programs have, and faster
        return FieldType(*CONVERSIONS[typing.get_origin(hint) or hint], json=found_json)
    encode, decode = partial(json_types.to_text, found_json), partial(json_types.from_text, found_json)
    return FieldType("json", encode, decode, json=found_json)


def _scalar_type(where: str, hint: Any) -> FieldType | None:
    """Return what a type means of which a column holds the values themselves, or None if it is another."""
    if hint in (dict, list):
        return None
    if isinstance(hint, collections.abc.Hashable) and hint in CONVERSIONS:
        return FieldType(*CONVERSIONS[hint])
    if typing.get_origin(hint) is typing.Literal:
        return _literal_type(where, typing.get_args(hint))
    if not isinstance(hint, type):
        return None
    if issubclass(hint, enum.Enum):
        return _enum_type(where, hint)
    if hint in _PATHS:
        return FieldType("text", partial(scalars.path_text, hint), hint)
    return None


def _enum_type(where: str, cls: type[enum.Enum]) -> FieldType:
    value_types = {type(member.value) for member in cls}
    if len(value_types) != 1 or not value_types <= {str, int, float}:
        raise _error(f"{where}: the values of Enum {cls.__name__} must all be str, all int or all float")
    column_type, check, _ = CONVERSIONS[value_types.pop()]

    def encode(value: Any) -> Any:
        return check(scalars.member(cls, value))

    return FieldType(column_type, encode, cls)


def _literal_type(where: str, values: tuple[Any, ...]) -> FieldType:
    kinds = {type(value) for value in values}
    if len(kinds) != 1:
        raise _error(f"{where}: the values of its Literal must be of one type, such as all str or all int")
    inner = _scalar_type(where, *kinds)
    if inner is None:
        raise _error(f"{where}: the values of its Literal must be str, int, bool, bytes or members of one Enum")
    shown = ", ".join(map(repr, values))

    def check(value: Any) -> Any:
        if value not in values:
            raise ValueError(f"expected one of {shown}")
        return value

    def encode(value: Any) -> Any:
        stored = inner.encode(value)
        check(value)
        return stored

    decode = inner.decode
    return attrs.evolve(inner, encode=encode, decode=check if decode is None else lambda stored: check(decode(stored)))


# -- JSON -------------------------------------------------------------------------------------------------------------


def _json_type(where: str, hint: Any, known: dict[Any, Nested]) -> JsonType:
    """Return how values of a type are stored in JSON.

    Args:
        where: the field, for errors.
        hint: the type.
        known: the classes that contain this one, which may contain themselves.

    Raises:
        TableError: JSON cannot hold values of this type, so that they come back as they were.
    """
    inner, optional = _without_none(_unwrapped(hint))
    found = _required_json_type(where, inner, known)
    return Nullable(found) if optional else found


def _required_json_type(where: str, hint: Any, known: dict[Any, Nested]) -> JsonType:
    if hint is Any or hint is object:
        return Anything()
    if hint in json_types.NATIVE:
        return Native(frozenset([hint]))
    if (container := _container(where, hint, known)) is not None:
        return container
    if typing.get_origin(hint) in _UNIONS:
        return _union(where, hint, [_unwrapped(item) for item in typing.get_args(hint)])
    if hint is bytes:
        raise _error(f"{where} has bytes inside a container, which JSON lacks; declare str, or a field of bytes")
    if (scalar := _scalar_type(where, hint)) is not None:
        return Converted(scalar.encode, scalar.decode)
    if hint in known:
        return known[hint]
    if forms.is_record_class(hint):
        return _nested(where, forms.form_of(hint), known)
    raise _refused(where, hint)


def _container(where: str, hint: Any, known: dict[Any, Nested]) -> JsonType | None:
    origin, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin is dict:
        return Members(_members_type(where, hint, arguments, known))
    if origin is tuple and arguments and arguments[-1] is not ...:
        return Tuple(tuple(_json_type(where, item, known) for item in arguments))
    if origin in _CONTAINERS:
        return Items(origin, _json_type(where, arguments[0], known) if arguments else Anything())
    return None


def _members_type(where: str, hint: Any, arguments: tuple[Any, ...], known: dict[Any, Nested]) -> JsonType:
    if not arguments:
        return Anything()
    if _unwrapped(arguments[0]) not in (str, Any):
        raise _error(f"{where} has type {hint!r}, but the keys of a JSON object are texts; declare dict[str, ...]")
    return _json_type(where, arguments[1], known)


def _union(where: str, hint: Any, members: list[Any]) -> JsonType:
    """Return how values of one of several types are stored: only what JSON itself tells apart."""
    if not all(member in json_types.NATIVE for member in members):
        cause = "of which JSON cannot tell which one a value was; declare one type, or Any for what JSON has itself"
        raise _error(f"{where} has type {hint!r}, {cause}")
    return Native(frozenset(members))


def _nested(where: str, form: Form, known: dict[Any, Nested]) -> Nested:
    made = Nested(form)
    inside = {**known, form.cls: made}
    for field in form.fields:
        place = f"{where} ({form.cls.__name__}.{field.name})"
        if field.hint is None:
            raise _error(f"{place} has no type annotation")
        made.members[field.name] = _json_type(place, field.hint, inside)
    return made
