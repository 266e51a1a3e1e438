"""What a preset uses beyond its method, and settings that name a file: from the plugin's text to the method's hands."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from commands import dfkd
from contexts import make_context
from good_method import changed
from safetensors.torch import save_file
from tiny import CPU, Keepless

from dfkd_bench.errors import PrivilegeError, RunError, UsageError
from dfkd_bench.method import Privileges
from dfkd_bench.plugins import registry
from dfkd_bench.protocol import task
from dfkd_bench.runs.plan import Request, make_plan
from dfkd_bench.runs.planned import PlannedRun
from dfkd_bench.runs.provenance import manifest
from dfkd_bench.teachers.registry import load_teacher
from dfkd_bench.training.build import assemble
from dfkd_bench.training.context import RunContext
from dfkd_bench.utils import guard

EXTRA = '    preset_privileges = {"wide": ("penultimate", "external_model")}\n    search = {"lr": (0.1, 0.2)}\n'
EXTRA += "    least_label_consistency = 75.0\n"
FIELD = '    asset: str = setting("", "tensors from elsewhere", unit="file")\n'


def plugin(folder: Path) -> str:
    """The good method with a preset that uses more, and a setting that names a file."""
    path, anchor, last = folder / "mine.py", '    paper = "none"\n', "    lr: float"
    path.write_text(changed((anchor, anchor + EXTRA), (last, FIELD + last)))
    return f"{path}:Good"


def plan(word: str, tmp: Path, preset: str | None = None, **overrides: str) -> PlannedRun:
    request = Request((word,), preset=preset, budget="smoke", threads=1, device="cpu", overrides=overrides)
    return make_plan(request, tmp / "runs")[0]


def tensors(path: Path, value: float) -> Path:
    save_file({"a": torch.full((2,), value)}, path)
    return path


@pytest.mark.parametrize("preset", ["default", "wide"])
def test_privileges_of_a_preset_reach_card_manifest_and_context(tmp_path: Path, preset: str) -> None:
    planned = plan(plugin(tmp_path), tmp_path, preset)
    expected = ["gradients", *(["penultimate", "external_model"] if preset == "wide" else [])]
    kind = registry.load(planned.method)
    card = registry.static_card(planned.method)
    assert card is not None, "the card must be readable without importing the file"
    assert card == registry.cards.card_of_class(kind)
    assert list(card.privileges_of(preset)) == expected
    assert card.search == {"lr": (0.1, 0.2)}
    assert card.least_label_consistency == 75.0
    about = manifest(planned, CPU)
    assert about["plugin"]["privileges"] == expected
    assert set(kind.privileges_of(preset).declared()) == set(expected)
    with guard.data_blocked():
        job, _ = assemble(
            planned.spec,
            task(planned.spec.task),
            kind,
            frozenset(),
            load_teacher(planned.teacher, CPU),
            CPU,
            Keepless(),
        )
    context, x = job.context, torch.zeros(2, 1, 16, 16)
    assert set(context.privileges.declared()) == set(expected)
    if preset == "wide":
        assert context.teacher(x, taps=("penultimate",)).features.shape[0] == 2
    else:
        with pytest.raises(PrivilegeError, match="penultimate without declaring it"):
            context.teacher(x, taps=("penultimate",))


# -- files ------------------------------------------------------------------------------------------------------------


def test_a_file_is_known_by_its_content(tmp_path: Path) -> None:
    word, path = plugin(tmp_path), tensors(tmp_path / "a.safetensors", 1.0)
    sha = hashlib.sha256(path.read_bytes()).hexdigest()
    first = plan(word, tmp_path, asset=str(path)).spec
    assert dict(first.overrides) == {"asset": f"{path}#{sha}"}
    assert plan(word, tmp_path, asset=f"{path}#{sha}").spec == first  # a resumed run names it like this
    tensors(path, 2.0)
    second = plan(word, tmp_path, asset=str(path)).spec
    assert second.hash != first.hash
    with pytest.raises(UsageError, match=rf"asset: {path} has changed \(SHA-256 \w{{12}}, not {sha[:12]}\)"):
        plan(word, tmp_path, asset=f"{path}#{sha}")
    assert dict(plan(word, tmp_path, asset="").spec.overrides) == {"asset": ""}  # nothing to seal


@pytest.mark.parametrize("name", ["missing.safetensors", "."])
def test_a_file_that_cannot_be_read_is_one_clear_line(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", "--method", plugin(tmp_path), "--budget", "smoke", "--results", str(tmp_path / "runs")]
    status, _, said = dfkd(monkeypatch, capsys, *words, "--set", f"asset={tmp_path / name}", columns=400)
    assert status == 2
    assert len(said.strip().splitlines()) == 1
    assert f"--set: asset: cannot read {tmp_path / name}: " in said
    assert not (tmp_path / "runs").exists()


def opening(**privileges: bool) -> RunContext:
    return make_context(privileges=Privileges(**privileges))


def test_an_asset_is_opened_by_its_name_and_hash(tmp_path: Path) -> None:
    path = tensors(tmp_path / "a.safetensors", 1.5)
    sealed = f"{path}#{hashlib.sha256(path.read_bytes()).hexdigest()}"
    context = opening(external_model=True)
    assert {k: v.tolist() for k, v in context.asset(sealed).items()} == {"a": [1.5, 1.5]}
    with pytest.raises(PrivilegeError, match="without declaring external_model"):
        opening(class_names=True).asset(sealed)
    tensors(path, 2.5)
    with pytest.raises(RunError, match=r"a.safetensors is not the file that this run began with"):
        context.asset(sealed)
    path.unlink()
    with pytest.raises(RunError, match=r"cannot read .*a.safetensors: No such file"):
        context.asset(sealed)
    path.write_bytes(b"pickle")
    with pytest.raises(RunError, match="is not a safetensors file"):
        context.asset(f"{path}#{hashlib.sha256(b'pickle').hexdigest()}")


def test_a_path_may_hold_the_sign_that_parts_it_from_its_hash(tmp_path: Path) -> None:
    file = tensors(tmp_path / "a#b.safetensors", 1.0)
    sealed = dict(plan(plugin(tmp_path), tmp_path, "wide", asset=str(file)).spec.overrides)["asset"]
    assert sealed == f"{file}#{hashlib.sha256(file.read_bytes()).hexdigest()}"
    assert dict(plan(plugin(tmp_path), tmp_path, "wide", asset=sealed).spec.overrides)["asset"] == sealed
