"""Records of every schema that ever was can be read, and say the same."""

from __future__ import annotations

import json
from pathlib import Path

from factory import make_record

from dfkd_bench.report.tables.runs import digest_of, long_table
from dfkd_bench.runs import records
from dfkd_bench.runs.spec import RunSpec

PAST = Path(__file__).parents[1] / "helpers" / "records"


def test_there_is_a_record_of_every_past_schema() -> None:
    assert [json.loads(p.read_text())["schema"] for p in sorted(PAST.glob("*.json"))] == [*range(1, records.SCHEMA)]


def test_schema_1_gets_its_settings_from_the_manifest() -> None:
    path = PAST / "schema-1.json"
    old, new = json.loads(path.read_text()), records.read(path)
    assert "settings" not in old["spec"]
    assert new["spec"]["settings"] == old["manifest"]["settings"]["method"]
    assert new["spec"]["settings"]["alpha"] == 1.0
    assert (new["hash"], new["result"], new["measurement"]) == (old["hash"], old["result"], old["measurement"])
    spec = RunSpec.from_json(new["spec"])
    assert spec.hash != new["hash"]  # its code digest is of another kind: no run of today is taken for it
    (row,) = long_table([new]).to_dict("records")
    assert row["last"] == old["result"]["accuracy"]["last"]
    assert row["settings_sha256"] == digest_of(new["spec"]["settings"])


def test_a_failed_record_of_schema_1_has_no_settings() -> None:
    old = json.loads((PAST / "schema-1.json").read_text())
    del old["manifest"]["settings"]
    assert records.upgraded(old)["spec"]["settings"] == {}


def test_a_record_is_sealed_as_its_file_holds_it(tmp_path: Path) -> None:
    path = records.write(tmp_path, {**make_record(), **RESULT_WITH_NAN})
    held = json.loads(path.read_text())
    assert held["seal"] == records.seal(held) == records.seal(records.read(path))
    held["result"]["accuracy"]["last"] = 97.6
    assert held["seal"] != records.seal(held)


RESULT_WITH_NAN = {"result": {"status": "diverged", "accuracy": {"last": 97.5, "mean": float("nan")}}}
