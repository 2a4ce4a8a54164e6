"""Arguments and values as JSON, exactly as asyncq stores them."""

from __future__ import annotations

import json
from typing import Any

MAX_DEPTH = 64
"""How deep arrays and objects may be nested in the arguments of a call, which are themselves one level."""
MAX_BYTES = 1024 * 1024
"""How long the positional or the keyword arguments of a call, or its value, may be, in bytes of UTF-8."""

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_PLAIN = (int, float, bool, type(None))
decode = json.loads


class NotJson(Exception):
    """A value that cannot be stored; the message continues the sentence "it ..."."""


def encode(value: object) -> str:
    """The JSON text of a value. Tuples become arrays. Raises `NotJson`."""
    _check(value, 0)
    try:
        text = _encode(value)
        size = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError:
        raise NotJson("contains half of a surrogate pair, which is not Unicode text") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise NotJson(f"is not JSON: {error}") from None
    if size > MAX_BYTES:
        raise NotJson(f"is longer than 1 MiB ({size} bytes); put the data into a file and pass its path")
    return text


def _check(value: object, depth: int) -> None:
    """Refuses what the encoder would change, or what the store refuses."""
    if isinstance(value, str):
        if "\0" in value:
            raise NotJson("contains a NUL character")
    elif isinstance(value, (list, tuple)):
        if depth >= MAX_DEPTH:
            raise NotJson(f"is nested deeper than {MAX_DEPTH}")
        for item in value:
            if type(item) not in _PLAIN:
                _check(item, depth + 1)
    elif isinstance(value, dict):
        if depth >= MAX_DEPTH:
            raise NotJson(f"is nested deeper than {MAX_DEPTH}")
        for key, item in value.items():
            if not isinstance(key, str):
                raise NotJson(f"has the key {key!r}, and JSON has only text as keys")
            if "\0" in key:
                raise NotJson("has a key with a NUL character")
            if type(item) not in _PLAIN:
                _check(item, depth + 1)


def encode_arguments(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, str]:
    """The texts of the positional and of the keyword arguments of a call of `name`.

    Raises `TypeError`, which names the argument that cannot be stored.
    """
    try:
        return encode(args), encode(kwargs) if kwargs else "{}"
    except NotJson as all_together:
        # Only a failing call pays for this search.
        for key, value in [*enumerate(args, 1), *kwargs.items()]:
            try:
                encode([value])
            except NotJson as flaw:
                which = f"argument {key}" if isinstance(key, int) else f"argument `{key}`"
                raise TypeError(f"{which} of `{name}` {flaw}") from None
        raise TypeError(f"the arguments of `{name}`: together they {all_together}") from None
