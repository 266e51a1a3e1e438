"""Read JSON and TOML with limits on size and depth, check values against types, and write values as TOML.

Our files have a few kilobytes and a few levels. Larger or deeper ones are refused before they exhaust memory or stack.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from dfkd_bench.errors import BenchError, RunError, UsageError, did_you_mean

T = TypeVar("T")
LARGEST = 2**28  # bytes of a JSON file
LARGEST_TOML = 2**20  # bytes; less than for JSON, because the TOML parser is pure Python
DEEPEST = 64  # levels of lists and tables


def parse_json(payload: bytes | str) -> Any:
    """The value of JSON text. Raises `ValueError` if it is not JSON, or exceeds `LARGEST` or `DEEPEST`."""
    if len(payload) > LARGEST:
        raise ValueError(f"it has more than {LARGEST // 2**20} MiB")
    try:
        return _shallow(json.loads(payload))
    except RecursionError:
        raise _too_deep() from None


def read_json(path: Path) -> Any:
    """The value in a JSON file. Raises `OSError`, and `ValueError` as `parse_json` does."""
    return parse_json(_read(path, LARGEST))


def read_toml(path: Path, what: str = "", wrong: type[BenchError] = UsageError) -> dict[str, Any]:
    """The table of a TOML file. Raises `wrong` if it cannot be read; `what` describes the file in the message."""
    try:
        table: dict[str, Any] = _shallow(tomllib.loads(_read(path, LARGEST_TOML).decode()))
    except OSError as error:
        raise wrong(f"cannot read {f'{what} {path}'.strip()}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        reason = _too_deep() if isinstance(error, RecursionError) else error
        raise wrong(f"{f'{what} {path}'.strip()} is not TOML and cannot be read: {reason}") from error
    return table


def _read(path: Path, most: int) -> bytes:
    with path.open("rb") as file:
        payload = file.read(most + 1)
    if len(payload) > most:
        raise ValueError(f"it has more than {most // 2**20} MiB")
    return payload


def _shallow(whole: Any) -> Any:
    level, depth = [whole], 0
    while level := [one for one in level if type(one) in (dict, list)]:
        depth += 1
        if depth > DEEPEST:
            raise _too_deep()
        level = [value for one in level for value in (one.values() if type(one) is dict else one)]
    return whole


def _too_deep() -> ValueError:
    return ValueError(f"it is nested more than {DEEPEST} levels deep")


# -- types ------------------------------------------------------------------------------------------------------------


def convert(value: Any, kind: type[T]) -> T:
    """`value` as type `kind`; only integers become floats and lists become tuples. Raises `ValueError` otherwise."""
    import msgspec

    return msgspec.convert(value, kind)


def check(
    table: Mapping[str, Any],
    known: Mapping[str, tuple[Any, str]],
    where: str,
    form: str = "takes {}, got {!r:.200}",
    also: Collection[str] = (),
) -> dict[str, Any]:
    """The values of `table`, converted to the types in `known`: key -> (type, the type in words).

    Raises `UsageError`, starting with `where`, for an unknown key and for a value of a wrong type. `also`: further keys
    to suggest for a misspelt one.
    """
    result = {}
    for key, value in table.items():
        if key not in known:
            raise UsageError(f"{where}: unknown key {key!r}{did_you_mean(key, [*known, *also])}")
        kind, words = known[key]
        try:
            result[key] = convert(value, kind)
        except ValueError as error:
            raise UsageError(f"{where}: {key} {form.format(words, value)}") from error
    return result


# -- writing TOML -----------------------------------------------------------------------------------------------------


def toml(value: Any) -> str:
    """A value as TOML. Raises `RunError` for one that TOML cannot express."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{toml(key)} = {toml(one)}' for key, one in value.items())} }}"
    raise RunError(f"TOML cannot hold {value!r}")
