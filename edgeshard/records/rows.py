"""What a query returns: rows whose values have names, in a list that knows its columns."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, SupportsIndex, TypeVar, overload

from edgeshard import display, units

_Self = TypeVar("_Self", bound="Row")

_new: Final = tuple.__new__

_item: Final = tuple.__getitem__


class Row(tuple[Any, ...]):
    """A row of a query: a tuple whose values also have names, like a named tuple.

    ``row.name``, ``row["name"]`` and ``row[0]`` are the same value, and ``dict(row)`` is a dict of all. A row equals
    any tuple with its values.

    A name that occurs again gets a number: of ``select 1 as a, 2 as a`` the columns are ``a`` and ``a_2``. Any name can
    be used as ``row["name"]``. Those that Python does not allow after a dot (``class``, ``count(*)``), those of this
    class (``keys`` and names such as ``_asdict`` and ``_fields``), and those that begin with two underscores can
    only be used like that.
    """

    __slots__ = ()

    #: The names of the columns. (Libraries know a named tuple by this attribute.)
    _fields: ClassVar[tuple[str, ...]] = ()

    _field_defaults: ClassVar[Mapping[str, Any]] = {}

    __positions: ClassVar[Mapping[str, int]] = {}

    if TYPE_CHECKING:
        # columns often have these names, and then have their values
        count: Any
        index: Any

    def __new__(cls: type[_Self], *values: Any) -> _Self:  # noqa: D102
        return _new(cls, values)

    @overload
    def __getitem__(self, key: SupportsIndex | str, /) -> Any: ...

    @overload
    def __getitem__(self, key: slice, /) -> tuple[Any, ...]: ...

    def __getitem__(self, key: Any, /) -> Any:
        # the order costs row[0] the least: 0.3 µs more than in a plain tuple (measured)
        try:
            if key.__class__ is str:
                key = self.__positions[key]
            return _item(self, key)
        except KeyError:
            raise KeyError(self.__explain_missing(key)) from None
        except TypeError:
            if isinstance(key, str):  # of a subclass, such as a StrEnum
                return self[str.__str__(key)]
            raise

    def __getattr__(self, name: str) -> Any:
        # called only for what is no column
        raise AttributeError(self.__explain_missing(name), name=name, obj=self)

    def __explain_missing(self, name: str) -> str:
        return f"no column {name!r:.100}; the row has {display.join_short(self._fields, len(self._fields))}"

    def keys(self) -> list[str]:
        """Return the names of the columns; `dict` calls this."""
        return list(self._fields)

    def _asdict(self) -> dict[str, Any]:
        """Return the values by name."""
        return dict(zip(self._fields, self, strict=True))

    @classmethod
    def _make(cls: type[_Self], values: Iterable[Any]) -> _Self:
        """Return a row with the same columns and these values."""
        row = _new(cls, values)
        if len(row) != len(cls._fields):
            raise TypeError(
                f"the row has {units.count(len(cls._fields), 'column')}, but got {units.count(len(row), 'value')}"
            )
        return row

    def _replace(self: _Self, **values: Any) -> _Self:
        """Return the row with other values in some columns."""
        changed = list(self)
        for name, value in values.items():
            if name not in self.__positions:
                raise ValueError(self.__explain_missing(name))
            changed[self.__positions[name]] = value
        return self._make(changed)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self._fields, tuple(self))

    def __repr__(self) -> str:
        return f"Row({display.named_values(self._fields, self)})"

    def _repr_html_(self) -> str:
        return display.table(("column", "value"), zip(self._fields, self, strict=True), len(self))


#: Attributes of a row that no column replaces.
_RESERVED: Final = frozenset(dir(Row)) - {"count", "index"}


def _restored(names: tuple[str, ...], values: tuple[Any, ...]) -> Row:
    return row_maker(names)(values)


@lru_cache(maxsize=256)
def row_maker(names: tuple[str, ...]) -> Callable[[Iterable[Any]], Row]:
    """Return a function that makes a row of the values of these columns."""
    return partial(_new, _row_class(names))


def _row_class(names: tuple[str, ...]) -> type[Row]:
    columns = distinct(names)
    # the attributes of a named tuple are descriptors written in C, which find a value by its position
    made: Any = namedtuple("made", [f"column{n}" for n in range(len(columns))])  # type: ignore[misc]
    namespace: dict[str, Any] = {
        "__slots__": (),
        "__module__": __name__,
        "_fields": columns,
        "_Row__positions": {name: position for position, name in enumerate(columns)},
    }
    for position, name in enumerate(columns):
        if name not in _RESERVED and not name.startswith("__"):
            namespace[name] = vars(made)[f"column{position}"]
    return type("Row", (Row,), namespace)


@lru_cache(maxsize=256)
def distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of columns, with a number after each that occurred before: a, a_2, a_3."""
    taken, seen, found = set(names), set(), []
    for name in names:
        unique, number = name, 1
        while unique in seen or (number > 1 and unique in taken):
            number += 1
            unique = f"{name}_{number}"
        seen.add(unique)
        found.append(unique)
    return tuple(found)


class Rows(list[Row]):
    """The rows of a query, in a list that knows its columns, even if it is empty.

    For a DataFrame: ``pandas.DataFrame(rows)``, or ``pandas.DataFrame(rows, columns=rows.columns)`` if there may be no
    rows.

    Attributes:
        columns: the names of the columns, each once; see `Row`.
    """

    __slots__ = ("columns",)

    columns: tuple[str, ...]

    def __init__(self, rows: Iterable[Row] = (), columns: Sequence[str] = ()) -> None:
        super().__init__(rows)
        self.columns = tuple(columns)

    @overload
    def __getitem__(self, key: SupportsIndex, /) -> Row: ...

    @overload
    def __getitem__(self, key: slice, /) -> Rows: ...

    def __getitem__(self, key: Any, /) -> Any:
        found = super().__getitem__(key)
        return Rows(found, self.columns) if isinstance(key, slice) else found

    def __reduce__(self) -> tuple[Any, ...]:
        return Rows, (list(self), self.columns)

    def __repr__(self) -> str:
        return f"[{display.join_short(map(repr, self), len(self))}]"

    def _repr_html_(self) -> str:
        return display.table(self.columns, self, len(self))
