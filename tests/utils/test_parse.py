"""JSON and TOML as they are read: what is too large or too deep is refused, and values are held against types."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from dfkd_bench.errors import RunError, UsageError
from dfkd_bench.utils import parse


def deep(levels: int) -> str:
    return "[" * levels + "]" * levels


def test_depth_is_counted_and_bounded() -> None:
    assert parse.parse_json(deep(parse.DEEPEST)) == eval(deep(parse.DEEPEST))
    assert parse.parse_json('{"a": [{"b": 1.5}, "]]"]}') == {"a": [{"b": 1.5}, "]]"]}
    for levels in (parse.DEEPEST + 1, 10_000, 1_000_000):
        with pytest.raises(ValueError, match=r"^it is nested more than 64 levels deep$"):
            parse.parse_json(deep(levels))


def test_a_file_that_is_too_large_is_not_read_whole(tmp_path: Path) -> None:
    with (tmp_path / "a.json").open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(ValueError, match=r"^it has more than 256 MiB$"):
        parse.read_json(tmp_path / "a.json")
    with pytest.raises(UsageError, match=r"a\.json is not TOML and cannot be read: it has more than 1 MiB$"):
        parse.read_toml(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"a = ", "Invalid value"),
        (b"a = '\xff'", "invalid start byte"),
        (b"a = " + deep(10_000).encode(), "nested more than 64 levels deep"),
        (b"a." * 10_000 + b"a = 1", "nested more than 64 levels deep"),
    ],
    ids=["syntax", "bytes", "arrays", "tables"],
)
def test_toml_that_cannot_be_read_is_one_line(payload: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(payload)
    with pytest.raises(RunError) as caught:
        parse.read_toml(path, "table of teachers", RunError)
    assert str(caught.value).startswith(f"table of teachers {path} is not TOML and cannot be read: ")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_toml_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"^cannot read {tmp_path}/a: No such file or directory$"):
        parse.read_toml(tmp_path / "a")
    with pytest.raises(UsageError, match=rf"^cannot read run file {tmp_path}: Is a directory$"):
        parse.read_toml(tmp_path, "run file")


KNOWN: dict[str, tuple[Any, str]] = {
    "share": (float, "a number"), "count": (int, "a whole number"), "names": (tuple[str, ...], "a list of names"),
}  # fmt: skip


def test_values_are_taken_as_their_types() -> None:
    found = parse.check({"share": 2, "names": ["a", "b"]}, KNOWN, "here")
    assert found == {"share": 2.0, "names": ("a", "b")}
    assert type(found["share"]) is float


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"cuont": 1}, "here: unknown key 'cuont'; did you mean 'count'?"),
        ({"elsewher": 1}, "here: unknown key 'elsewher'; did you mean 'elsewhere'?"),
        ({"count": True}, "here: count takes a whole number, got True"),
        ({"count": 2.0}, "here: count takes a whole number, got 2.0"),
        ({"count": "2"}, "here: count takes a whole number, got '2'"),
        ({"share": "0.5"}, "here: share takes a number, got '0.5'"),
        ({"names": ["a", 1]}, "here: names takes a list of names, got ['a', 1]"),
        ({"names": "a" * 999}, f"here: names takes a list of names, got '{'a' * 199}"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(table: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse.check(table, KNOWN, "here", also=["elsewhere"])
    assert str(caught.value) == says


def test_what_is_written_as_toml_is_read_as_it_was() -> None:
    values = {
        "text": 'quo"te \\ \n \x00 \x7f é', "flag": True, "number": 1e-07, "large": 1e22, "whole": -3,
        "many": [0.5, [1, 2]], "table": {"a b": "x", "c": {"d": False}}, "empty": {},
    }  # fmt: skip
    text = "\n".join(f"{parse.toml(key)} = {parse.toml(value)}" for key, value in values.items())
    assert tomllib.loads(text) == values
    with pytest.raises(RunError, match="TOML cannot hold None"):
        parse.toml([None])
