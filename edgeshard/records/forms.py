"""Recognise the kinds of classes that records are declared with, and read their fields.

A record class is an attrs class, a dataclass, a pydantic model, a NamedTuple or a TypedDict. A class can only be one of
these if its library is imported already, so none is imported here.
"""

from __future__ import annotations

import functools
import inspect
import operator
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import attrs

from edgeshard.errors import TableError

#: Which kinds of classes there are, for errors.
KINDS: Final = "an attrs class, a dataclass, a pydantic model, a NamedTuple or a TypedDict"


@attrs.frozen
class Field:
    """A field of a record class.

    Attributes:
        name: its name; for a TypedDict, the key.
        hint: its type.
        argument: what the class calls it when an instance is made.
        is_argument: whether the class takes it when an instance is made; if not, it is assigned afterwards.
        has_default: whether the class has a value of its own for it.
        is_required: False if a dict may lack the key.
    """

    name: str
    hint: Any
    argument: str
    is_argument: bool = True
    has_default: bool = False
    is_required: bool = True


@attrs.frozen
class Form:
    """A record class, whatever its kind.

    Attributes:
        cls: the class.
        fields: its fields, in the order of their declaration.
        is_mapping: whether instances are plain dicts: the class is a TypedDict.
    """

    cls: Any
    fields: tuple[Field, ...]
    is_mapping: bool = False

    def values_of(self, record: Any) -> dict[str, Any]:
        """Return the values of an instance, by the names of its fields.

        Raises:
            ValueError: a value is missing, or a dict has other keys than the class.
        """
        if self.is_mapping:
            self._check_keys(record)
            return {field.name: record[field.name] for field in self.fields if field.name in record}
        values = {}
        for field in self.fields:
            try:
                values[field.name] = getattr(record, field.name)
            except AttributeError as error:
                raise ValueError(f"{self.cls.__name__}.{field.name} has no value; assign one") from error
        return values

    def _check_keys(self, record: dict[str, Any]) -> None:
        missing = [field.name for field in self.fields if field.is_required and field.name not in record]
        unknown = [key for key in record if key not in {field.name for field in self.fields}]
        if missing:
            raise ValueError(f"{self.cls.__name__} has no value for the key {missing[0]!r}; give it one")
        if unknown:
            raise ValueError(f"{self.cls.__name__} declares no key {unknown[0]!r}; declare it, or leave it out")

    @functools.cached_property
    def make(self) -> Callable[[dict[str, Any]], Any]:
        """A function that makes an instance of values, by the names of fields. What is not given takes its default."""
        cls = self.cls
        if self.is_mapping:
            return lambda values: values
        later = {field.name for field in self.fields if not field.is_argument}
        arguments = {field.name: field.argument for field in self.fields if field.is_argument}
        if not later and all(name == argument for name, argument in arguments.items()):
            return lambda values: cls(**values)

        def make(values: dict[str, Any]) -> Any:
            made = cls(**{arguments[name]: value for name, value in values.items() if name in arguments})
            for name in later & values.keys():
                object.__setattr__(made, name, values[name])  # also of a frozen class
            return made

        return make


def is_record_class(cls: Any) -> bool:
    """Return whether a class is of one of the kinds that can be records."""
    return _fields_of(cls) is not None


def form_of(cls: Any, hints: Mapping[str, Any] | None = None) -> Form:
    """Return the form of a record class.

    Args:
        cls: the class.
        hints: the types of its fields, if they are known already.

    Raises:
        TableError: the class is of another kind, or what it declares cannot be stored; the error says why, and what
            to do.
    """
    fields = _fields_of(cls)
    if fields is None and isinstance(cls, type) and issubclass(cls, type):
        raise _error("a class was given instead of an instance; write Reading(...), not Reading")
    if fields is None:
        raise _error(f"{_name(cls)} {_advice(cls)}")
    _check_annotations(cls)
    if hints is None and not _is_pydantic(cls):
        hints = resolve_hints(cls)
    variables = _type_variables(cls)
    found = tuple(_typed(field, hints.get(field.name) if hints else field.hint, variables) for field in fields)
    if not found:
        raise _error(f"{_name(cls)} has no fields")
    return Form(cls, found, is_mapping=is_typed_dict(cls))


#: What the decorators and base classes of records leave in a class. It is replaced if a class is decorated again.
_DECLARED: Final = (
    "__attrs_attrs__", "__dataclass_fields__", "__pydantic_fields__", "model_config", "_fields", "_field_defaults",
)  # fmt: skip


def declaration(cls: Any) -> tuple[Any, ...]:
    """Return the objects that say which fields a class has, to be compared with `is_same_declaration`."""
    return cls, *(getattr(cls, name, None) for name in _DECLARED)


def is_same_declaration(left: tuple[Any, ...], right: tuple[Any, ...]) -> bool:
    """Return whether two declarations are of one class, which was not decorated again in between.

    The classes themselves are compared as well: one that attrs or `dataclasses` makes of another, to give it slots, has
    all attributes of the other.
    """
    return all(map(operator.is_, left, right))


def is_typed_dict(cls: Any) -> bool:
    """Return whether a class is a TypedDict, of `typing` or of typing_extensions."""
    return type(cls).__name__ == "_TypedDictMeta"


def _error(cause: str) -> TableError:
    return TableError("declare table", "", cause)


def _name(cls: Any) -> str:
    return getattr(cls, "__name__", None) or repr(cls)


# -- kinds ------------------------------------------------------------------------------------------------------------


def _fields_of(cls: Any) -> Iterator[Field] | None:
    """Return each field of a record class, with its type if the class has it; None for a class of another kind."""
    if not isinstance(cls, type):
        return None
    if is_typed_dict(cls):
        return _typed_dict_fields(cls)
    if attrs.has(cls):
        return _attrs_fields(cls)
    if hasattr(cls, "__dataclass_fields__"):
        return _dataclass_fields(cls)
    if _is_pydantic(cls):
        return _pydantic_fields(cls)
    if issubclass(cls, tuple) and hasattr(cls, "_field_defaults") and any(map(_annotations, cls.__mro__)):
        return _named_tuple_fields(cls)
    return None


def _attrs_fields(cls: Any) -> Iterator[Field]:
    for field in attrs.fields(cls):
        has_default = field.default is not attrs.NOTHING
        yield Field(field.name, None, field.alias or field.name, field.init, has_default)


def _dataclass_fields(cls: Any) -> Iterator[Field]:
    dataclasses = sys.modules["dataclasses"]
    declared = {field.name for field in dataclasses.fields(cls)}
    for name, field in cls.__dataclass_fields__.items():
        has_default = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if name in declared:
            yield Field(name, None, name, field.init, has_default)
        elif not has_default and not _is_class_variable(field.type):
            cause = "an InitVar without a default, which no instance keeps, so no row could be read back"
            raise _error(f"{_name(cls)}.{name} is {cause}; give it a default, or make it a field")


def _is_pydantic(cls: Any) -> bool:
    # version 1, and a pydantic that is being imported, have no such class with fields
    model = getattr(sys.modules.get("pydantic"), "BaseModel", None)
    return isinstance(cls, type) and model is not None and issubclass(cls, model) and hasattr(cls, "model_fields")


def _pydantic_fields(cls: Any) -> Iterator[Field]:
    if issubclass(cls, sys.modules["pydantic"].RootModel):
        raise _error(f"{_name(cls)} is a RootModel, which has no fields; declare a model with a field for its value")
    if cls.model_config.get("extra") == "allow":
        cause = 'has extra="allow", but its table has no columns for the further values'
        raise _error(f'{_name(cls)} {cause}; declare a field of type dict for them, or extra="forbid"')
    takes_names = cls.model_config.get("populate_by_name") or cls.model_config.get("validate_by_name")
    for name, field in cls.model_fields.items():
        alias = None if takes_names else _first_alias(cls, name, field.validation_alias)
        yield Field(name, field.annotation, alias or name, has_default=not field.is_required())


def _first_alias(cls: Any, name: str, alias: Any) -> str | None:
    choices = getattr(alias, "choices", [alias])
    found = next((choice for choice in choices if choice is None or isinstance(choice, str)), "")
    if found == "":
        raise _error(f"{_name(cls)}.{name} can only be given by an AliasPath; set validate_by_name=True in the model")
    return found


def _named_tuple_fields(cls: Any) -> Iterator[Field]:
    for name in cls._fields:
        yield Field(name, None, name, has_default=name in cls._field_defaults)


def _typed_dict_fields(cls: Any) -> Iterator[Field]:
    for name in _annotations(cls):
        yield Field(name, None, name, is_required=name in cls.__required_keys__)


def _annotations(cls: Any) -> Mapping[str, Any]:
    """Return the annotations that a class has itself, not those of its bases; for a TypedDict, those of all."""
    return inspect.get_annotations(cls)


def _check_annotations(cls: Any) -> None:
    """Refuse a subclass that annotates fields but is not decorated as its base is, so that they are no fields."""
    marks = ("__attrs_attrs__", "__dataclass_fields__")
    mark = next((mark for mark in marks if hasattr(cls, mark)), None)
    is_tuple = issubclass(cls, tuple) and "_fields" not in vars(cls)
    if is_typed_dict(cls) or (mark is None and not is_tuple) or (mark and mark in vars(cls)):
        return
    added = [name for name, hint in _annotations(cls).items() if not _is_class_variable(hint)]
    if added and not is_tuple:
        decorator = "@attrs.frozen" if mark == marks[0] else "@dataclass"
        raise _error(f"{_name(cls)} declares {added[0]}, but is not decorated like its base; add {decorator}")
    if added:
        raise _error(f"{_name(cls)} declares {added[0]}, which a subclass of a NamedTuple cannot add; use a dataclass")


def _is_class_variable(hint: Any) -> bool:
    if isinstance(hint, str):
        return hint.removeprefix("typing.").startswith("ClassVar")
    return hint is typing.ClassVar or typing.get_origin(hint) is typing.ClassVar


# -- types ------------------------------------------------------------------------------------------------------------


def resolve_hints(cls: Any, namespace: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the types of a class's fields.

    Args:
        cls: the class.
        namespace: names that its annotations may use, besides those of its module.

    Raises:
        TableError: an annotation names what is not defined there, or is no type.
    """
    try:
        return typing.get_type_hints(cls, localns=namespace and dict(namespace), include_extras=True)
    except NameError as error:
        advice = "define it in the module, or decorate the class with @edgeshard.table where that name is known"
        raise _error(f"{_name(cls)} has an annotation that cannot be resolved: {error}; {advice}") from error
    except Exception as error:  # an annotation is any expression
        raise _error(f"{_name(cls)} has an annotation that cannot be resolved: {error!r}") from error


def _typed(field: Field, hint: Any, variables: Mapping[Any, Any]) -> Field:
    is_required = field.is_required
    while (name := getattr(typing.get_origin(hint), "_name", "")) in ("Required", "NotRequired", "ReadOnly"):
        is_required = is_required if name == "ReadOnly" else name == "Required"
        hint = typing.get_args(hint)[0]
    return attrs.evolve(field, hint=_substituted(hint, variables), is_required=is_required)


def _type_variables(cls: type) -> dict[Any, Any]:
    """Return what the type variables of a class's generic bases stand for: in ``class Box(Base[int])``, int."""
    found: dict[Any, Any] = {}
    for each in cls.__mro__:
        for base in vars(each).get("__orig_bases__", ()):
            parameters = getattr(typing.get_origin(base), "__parameters__", ())
            for parameter, argument in zip(parameters, typing.get_args(base), strict=False):
                found.setdefault(parameter, found.get(argument, argument) if _is_variable(argument) else argument)
    return found


def _is_variable(hint: Any) -> bool:
    return isinstance(hint, typing.TypeVar)


def _substituted(hint: Any, variables: Mapping[Any, Any]) -> Any:
    if _is_variable(hint):
        return variables.get(hint, hint)
    parameters = getattr(hint, "__parameters__", ())
    if not parameters or not variables or isinstance(hint, type):
        return hint
    return hint[tuple(variables.get(parameter, parameter) for parameter in parameters)]


# -- advice -----------------------------------------------------------------------------------------------------------


def _advice(cls: Any) -> str:
    """Return why a class is no record class and what to do, as a clause that follows its name."""
    if not isinstance(cls, type):
        if isinstance(typing.get_origin(cls), type):
            return f"is not a class of its own; declare a subclass: class Concrete({cls!r}): ..."
        return f"is not a class; give {KINDS}"
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return "is a namedtuple without types; declare it as a typing.NamedTuple, with a type for each field"
    if cls in (list, tuple, set):
        return f"is a builtin type; write several records with write_many, each a dict or of {KINDS}"
    if cls.__module__ == "builtins":
        return f'is a builtin type; records are dicts, as {{"value": ...}}, or instances of {KINDS}'
    if hasattr(cls, "to_dict") and hasattr(cls, "iloc"):
        if hasattr(cls, "to_frame"):
            return "is a pandas Series; write it with write(value.to_dict())"
        return 'is a table of many records; write them with write_many(value.to_dict("records"))'
    if isinstance(getattr(cls, "__abstractmethods__", None), frozenset) and issubclass(cls, typing.Mapping):
        return "is a mapping; write dict(value)"
    return (
        f"is a plain class: decorate it with @attrs.frozen or @dataclass (records are dicts, or instances of {KINDS})"
    )
