"""The signature of a function as asyncq keeps it, made from its parameters and their annotations."""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal, NamedTuple

_LONGEST_NAME, _LONGEST = 255, 4096
"""How long a name, and a whole signature, may be, in bytes."""
_HAS_REST, _HAS_OTHERS = 0x04, 0x08

_KINDS: dict[object, str] = {
    bool: "bool", int: "int", float: "number", str: "text", list: "list", tuple: "list", dict: "object",
    Mapping: "object", MutableMapping: "object",
}  # fmt: skip
"""The types of asyncq, by those of Python whose values are of no other one."""
_TYPES: dict[str, tuple[type | tuple[type, ...], str]] = {
    "bool": (bool, "true or false"),
    "int": (int, "a whole number"),
    "number": ((int, float), "a number"),
    "text": (str, "text"),
    "list": ((list, tuple), "a list"),
    "object": (dict, "an object"),
}


class Parameter(NamedTuple):
    """One argument, or all further ones."""

    name: str
    kind: str | None
    """Its type; None for any value."""
    is_required: bool

    def write(self, before: str = "", dots: str = "") -> str:
        """The text of this parameter in a signature."""
        text = f"{before}{self.name}{f':{self.kind}' if self.kind else ''}{dots}"
        return text if self.is_required else f"[{text}]"

    def check(self, name: str, value: object) -> None:
        """Refuses a value of another type. Does not show it, because it may be secret. Raises `TypeError`."""
        if self.kind is None or (value is None and not self.is_required):
            return
        wanted, words = _TYPES[self.kind]
        if isinstance(value, wanted) and (self.kind == "bool" or not isinstance(value, bool)):
            return
        given = "null" if value is None else "something else"
        given = next((words for kind, words in _TYPES.values() if isinstance(value, kind)), given)
        raise TypeError(f"takes {words} as `{name}`, you gave {given}")


class Signature:
    """Which arguments a function takes."""

    __slots__ = ("_keywords", "_named", "_others", "_positional", "_rest", "_text")

    def __init__(self, function: types.FunctionType) -> None:
        code, hints = function.__code__, _annotations(function)
        positional = code.co_varnames[: code.co_argcount]
        left = code.co_varnames[code.co_argcount :]
        optional = {*positional[len(positional) - len(function.__defaults__ or ()) :], *(function.__kwdefaults__ or {})}

        def parameter(name: str, *, may_be_missing: bool) -> Parameter:
            kinds = _kinds(hints.get(name), function.__globals__)
            if may_be_missing:
                kinds.discard("null")
            if kinds == {"int", "number"}:
                kinds = {"number"}
            kind = kinds.pop() if len(kinds) == 1 else None
            return Parameter(name, None if kind == "null" else kind, not may_be_missing)

        self._positional = [parameter(name, may_be_missing=name in optional) for name in positional]
        self._keywords = [parameter(name, may_be_missing=name in optional) for name in left[: code.co_kwonlyargcount]]
        extra = [parameter(name, may_be_missing=True) for name in left[code.co_kwonlyargcount :][:2]]
        self._rest = extra.pop(0) if code.co_flags & _HAS_REST else None
        self._others = extra[0] if code.co_flags & _HAS_OTHERS else None
        by_name = self._positional[code.co_posonlyargcount :] + self._keywords
        self._named = {parameter.name: parameter for parameter in by_name}
        # With `f(a, /, **others)`, `a` is two arguments, and a signature has one of each name.
        self._text = None if code.co_posonlyargcount and self._others else self._written()

    @property
    def text(self) -> str | None:
        """The text for `takes` of a registration; None if a signature cannot express it."""
        return self._text

    def check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Refuses arguments of other types. Their number and names fit already. Raises `TypeError`."""
        if self._text is None:
            return
        for place, value in enumerate(args):
            parameter = self._positional[place] if place < len(self._positional) else self._rest
            if parameter is not None:
                parameter.check(parameter.name, value)
        for name, value in kwargs.items():
            parameter = self._named.get(name, self._others)
            if parameter is not None:
                parameter.check(name, value)

    def placed(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The same call, with each named argument that has a place moved there, unless one before it is missing."""
        named, placed = dict(kwargs), list(args)
        for parameter in self._positional[len(args) :]:
            if parameter.name not in named or parameter.name not in self._named:
                break
            placed.append(named.pop(parameter.name))
        return tuple(placed), named

    def _written(self) -> str | None:
        words = [parameter.write() for parameter in self._positional]
        words += [self._rest.write("", "...")] if self._rest else []
        words += [parameter.write("--") for parameter in self._keywords]
        words += [self._others.write("--", "...")] if self._others else []
        text = " ".join(words)
        names = [it.name for it in (*self._positional, *self._keywords, self._rest, self._others) if it]
        return text if all(map(_can_be_named, names)) and len(text.encode()) <= _LONGEST else None


def _can_be_named(name: str) -> bool:
    """Whether a signature can contain this name. Python allows more, such as combining accents."""
    return all(letter == "_" or letter.isalnum() for letter in name) and len(name.encode()) <= _LONGEST_NAME


def _annotations(function: types.FunctionType) -> Mapping[str, object]:
    if hasattr(function, "__wrapped__"):
        return {}  # they belong to the function inside, which has other parameters
    if sys.version_info >= (3, 14):
        from annotationlib import Format, get_annotations

        return get_annotations(function, format=Format.FORWARDREF)
    return function.__annotations__


def _kinds(hint: object, names: dict[str, Any]) -> set[str | None]:
    """asyncq's types for the values of an annotation. "null" stands for None, and None for values of any type."""
    for _ in range(2):  # `a: "int"` below `from __future__ import annotations`
        if isinstance(hint, str):
            try:
                hint = eval(hint, names)
            except Exception:
                return {None}  # a name for type checkers only
    if hint is type(None):
        return {"null"}
    if isinstance(hint, typing.NewType):
        return _kinds(hint.__supertype__, names)
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return {kind for part in typing.get_args(hint) for kind in _kinds(part, names)}
    if origin is Literal:
        return {"null" if value is None else _KINDS.get(type(value)) for value in typing.get_args(hint)}
    if origin is typing.Annotated:
        return _kinds(typing.get_args(hint)[0], names)
    if typing.is_typeddict(hint):
        return {"object"}
    if sys.version_info >= (3, 12) and isinstance(hint, typing.TypeAliasType):
        return _kinds(hint.__value__, names)
    try:
        return {_KINDS.get(origin or hint)}
    except TypeError:
        return {None}  # Types are hashable, so this is not one.
