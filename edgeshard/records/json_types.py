"""Typed JSON: how values of types such as ``list[int]`` or of nested record classes are stored, and read back.

A field of such a type is a column of JSON. Its type says what becomes of each value in it: an instance of a class is
stored as an object of its fields and read back as an instance, a datetime as the text that a column has, a tuple as a
list. What the type leaves open (``dict``, ``list``, ``Any``) holds what JSON has, and comes back as that.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import Any, Final, Protocol

import attrs

from edgeshard.records import fallbacks, foreign, json_values, scalars
from edgeshard.records.fallbacks import Fallbacks
from edgeshard.records.forms import Form
from edgeshard.records.json_values import JsonError, Place

#: Types whose values JSON has itself.
NATIVE: Final = (bool, int, float, str, type(None))


class JsonType(Protocol):
    """How values of a type are stored in JSON."""

    def encode(self, value: Any, at: Place) -> Any:
        """Return what JSON has for a value.

        Raises:
            JsonError: it is not a value of the type, or cannot be stored exactly.
        """

    def decode(self, stored: Any) -> Any:
        """Return the value for which JSON has this.

        Raises:
            TypeError, ValueError, KeyError: there is none.
        """

    @property
    def quick(self) -> frozenset[type] | None:
        """The types of which a value must be exactly one to be stored as it is; None if that does not suffice."""


@attrs.frozen
class Anything:
    """What the type leaves open: what JSON has."""

    quick: None = None

    def encode(self, value: Any, at: Place) -> Any:
        """Return the value, exactly."""
        return json_values.plain(value, at)

    def decode(self, stored: Any) -> Any:
        """Return it as it is."""
        return stored


@attrs.frozen
class Native:
    """Values of one or several types that JSON has itself.

    Attributes:
        types: these types.
    """

    types: frozenset[type]

    @property
    def quick(self) -> frozenset[type] | None:
        """An int where only a float is meant is converted, and floats must be finite, which the encoder checks."""
        return self.types

    def encode(self, value: Any, at: Place) -> Any:
        """Return the value, exactly; an int where only a float is meant becomes the float."""
        if at.replacing.nan != "refuse" and float in self.types and fallbacks.is_not_finite(value):
            return at.replacing.replace(value, at.path)
        return json_values.try_to_store(lambda found: self._checked(found, at), value, at)

    def _checked(self, value: Any, at: Place) -> Any:
        found = foreign.to_python(value)
        if type(found) is int and float in self.types and int not in self.types:
            found = scalars.real(found)
        if type(found) not in self.types:
            raise _wrong_type(self.types, value)
        return json_values.plain(found, attrs.evolve(at, replacing=fallbacks.REFUSE))

    def decode(self, stored: Any) -> Any:
        """Return it as it is; a float from its text, if NaN and infinity are stored as texts."""
        if type(stored) in self.types:
            return stored
        if float in self.types:
            if stored is None:
                return None  # a NaN that was stored as null
            if isinstance(stored, str) and stored in fallbacks.NOT_FINITE:
                return fallbacks.NOT_FINITE[stored]
            if type(stored) is int:
                return scalars.real(stored)
        raise _wrong_type(self.types, stored)


def _wrong_type(types: Collection[type], value: Any) -> Exception:
    if len(types) == 1:
        return scalars.wrong_type(next(iter(types)), value)
    return TypeError(f"expected {' or '.join(sorted(each.__name__ for each in types))}, got {scalars.type_name(value)}")


@attrs.frozen
class Converted:
    """Values of a type of which a column stores a text or a number: JSON has the same.

    Attributes:
        to_stored: the conversion of a column of that type.
        to_value: the conversion back; None if the value stays as it is.
    """

    to_stored: Callable[[Any], Any]
    to_value: Callable[[Any], Any] | None
    quick: None = None

    def encode(self, value: Any, at: Place) -> Any:
        """Return what a column would have."""
        return json_values.try_to_store(self.to_stored, value, at)

    def decode(self, stored: Any) -> Any:
        """Return the value."""
        return stored if self.to_value is None else self.to_value(stored)


@attrs.frozen
class Nullable:
    """A type, or None."""

    inner: JsonType

    @property
    def quick(self) -> frozenset[type] | None:
        """Those of the type, and None."""
        return self.inner.quick and self.inner.quick | {type(None)}

    def encode(self, value: Any, at: Place) -> Any:
        """Return None, or what the type has."""
        return None if value is None else self.inner.encode(value, at)

    def decode(self, stored: Any) -> Any:
        """Return None, or the value."""
        return None if stored is None else self.inner.decode(stored)


@attrs.frozen
class Items:
    """A list, tuple, set or frozenset of any length: a list in JSON.

    Attributes:
        kind: which of them.
        inner: the type of its items.
    """

    kind: type
    inner: JsonType
    quick: None = None

    def encode(self, value: Any, at: Place) -> Any:
        """Return a list."""
        return json_values.try_to_store(lambda found: self._encoded(found, at), value, at)

    def _encoded(self, value: Any, at: Place) -> list[Any]:
        _check_container(self.kind, value, at)
        if value.__class__ is list and _is_open(self.inner) and json_values.is_plain(value, at.depth):
            return value
        inner = self.inner
        if value and self.kind is list and inner.quick and inner.quick.issuperset(map(type, value)):
            return value  # type: ignore[no-any-return]  # a list, whose items the encoder checks
        return [inner.encode(item, at.item(index)) for index, item in enumerate(value)]

    def decode(self, stored: Any) -> Any:
        """Return the values in the container."""
        if type(stored) is not list:
            raise scalars.wrong_type(list, stored)
        return self.kind(map(self.inner.decode, stored))


@attrs.frozen
class Tuple:
    """A tuple of a fixed length: a list in JSON.

    Attributes:
        inner: the type of each item.
    """

    inner: tuple[JsonType, ...]
    quick: None = None

    def encode(self, value: Any, at: Place) -> Any:
        """Return a list."""
        return json_values.try_to_store(lambda found: self._encoded(found, at), value, at)

    def _encoded(self, value: Any, at: Place) -> list[Any]:
        _check_container(tuple, value, at)
        self._check_length(value)
        pairs = zip(self.inner, value, strict=True)
        return [inner.encode(item, at.item(index)) for index, (inner, item) in enumerate(pairs)]

    def _check_length(self, values: Any) -> None:
        if len(values) != len(self.inner):
            raise ValueError(f"expected {len(self.inner)} items, got {len(values)}")

    def decode(self, stored: Any) -> Any:
        """Return the tuple."""
        if type(stored) is not list:
            raise scalars.wrong_type(list, stored)
        self._check_length(stored)
        return tuple(inner.decode(item) for inner, item in zip(self.inner, stored, strict=True))


@attrs.frozen
class Members:
    """A dict whose values have one type.

    Attributes:
        inner: the type of the values.
    """

    inner: JsonType
    quick: None = None

    def encode(self, value: Any, at: Place) -> Any:
        """Return a dict."""
        return json_values.try_to_store(lambda found: self._encoded(found, at), value, at)

    def _encoded(self, value: Any, at: Place) -> dict[str, Any]:
        _check_container(dict, value, at)
        if _is_open(self.inner) and json_values.is_plain(value, at.depth):
            return value  # type: ignore[no-any-return]  # a dict
        for key in value:
            json_values.check_key(key, at)
        inner = self.inner
        if value and inner.quick and inner.quick.issuperset(map(type, value.values())):
            return value  # type: ignore[no-any-return]  # a dict, whose values the encoder checks
        return {key: inner.encode(item, at.member(key)) for key, item in value.items()}

    def decode(self, stored: Any) -> Any:
        """Return the dict."""
        if type(stored) is not dict:
            raise scalars.wrong_type(dict, stored)
        return {key: self.inner.decode(item) for key, item in stored.items()}


@attrs.define
class Nested:
    """An instance of a record class inside another: an object of its fields in JSON.

    Attributes:
        form: the class.
        members: the type of each field, by its name; filled after it was made, because a class may contain itself.
    """

    form: Form
    members: dict[str, JsonType] = attrs.Factory(dict)
    quick: None = None

    def encode(self, value: Any, at: Place) -> Any:
        """Return a dict of the fields."""
        return json_values.try_to_store(lambda found: self._encoded(found, at), value, at)

    def _encoded(self, value: Any, at: Place) -> dict[str, Any]:
        _check_container(dict if self.form.is_mapping else self.form.cls, value, at)
        values = self.form.values_of(value)
        return {name: self.members[name].encode(item, at.member(name)) for name, item in values.items()}

    def decode(self, stored: Any) -> Any:
        """Return the instance. Fields that a newer class added are left out; what is missing takes its default."""
        if type(stored) is not dict:
            raise scalars.wrong_type(dict, stored)
        values = {}
        for field in self.form.fields:
            if field.name in stored:
                values[field.name] = self.members[field.name].decode(stored[field.name])
            elif not field.has_default and field.is_required:
                values[field.name] = self.members[field.name].decode(None)
        return self.form.make(values)


def _is_open(json_type: JsonType) -> bool:
    return isinstance(json_type, Anything)


def _check_container(kind: Any, value: Any, at: Place) -> None:
    if at.depth == 0:
        raise JsonError(at.path, value, json_values.TOO_DEEP)
    if type(value) is not kind:
        raise scalars.wrong_type(kind, value)


def to_text(json_type: JsonType, value: Any, replacing: Fallbacks = fallbacks.REFUSE) -> str:
    """Return the JSON text of a value.

    Raises:
        JsonError: it is not a value of the type, or cannot be stored exactly.
    """
    return json_values.to_json(json_type.encode(value, Place(replacing=replacing)), replacing)


def from_text(json_type: JsonType, text: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        TypeError, ValueError, KeyError: it is not one of the type.
    """
    return json_type.decode(json.loads(text))
