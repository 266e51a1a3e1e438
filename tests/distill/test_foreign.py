"""Models of other people: found by their factory, observed by rule, their weights never run."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from dfkd_bench import models
from dfkd_bench.distill import user_models
from dfkd_bench.distill.export import weights_file
from dfkd_bench.distill.user_models import UserTeacher, call_factory, metadata_of, wrap
from dfkd_bench.errors import RunError, UsageError
from dfkd_bench.models.tapped import Hooked

CPU = torch.device("cpu")
FACTORIES = """
from torch import nn
import helper

def net(outputs):
    return nn.Sequential(nn.Conv2d(1, helper.WIDTH, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten(), nn.Linear(4, outputs))

def plain(): return net(3)
def counted(num_classes): return net(num_classes)
def named(width=1, classes=7): return net(classes)
def loose(**options): return net(options["num_classes"])
def breaks(): raise ValueError("out of paper")
def text(): return "a network"
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module of factories, which is where the user stands."""
    (tmp_path / "facts_of_mine.py").write_text(FACTORIES)
    (tmp_path / "helper.py").write_text("WIDTH = 4\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    known = set(sys.modules)
    yield tmp_path  # type: ignore[misc]
    for name in set(sys.modules) - known:
        del sys.modules[name]


def gives(word: str, classes: int) -> int:
    last = call_factory(word, classes)[-1]  # type: ignore[index]
    return int(last.out_features)


def test_a_factory_is_given_the_classes_if_it_takes_them(here: Path) -> None:
    wanted = {"plain": 3, "counted": 5, "named": 5}
    assert {name: gives(f"facts_of_mine:{name}", 5) for name in wanted} == wanted
    assert gives("facts_of_mine.py:counted", 6) == 6
    assert gives(f"{here}/facts_of_mine.py:loose", 4) == 4
    assert type(call_factory("torchvision.models:resnet18", 10)).__name__ == "ResNet"


@pytest.mark.parametrize(
    ("word", "error", "says"),
    [
        ("facts_of_mine:cuonted", UsageError, "no factory 'cuonted'; did you mean 'counted'"),
        ("facts_of_mine:breaks", RunError, "failed: ValueError: out of paper"),
        ("facts_of_mine:text", UsageError, "returned str, not a torch.nn.Module"),
        ("nowhere_at_all:net", UsageError, "no module 'nowhere_at_all' here"),
        ("nowhere.py:net", UsageError, "no such file: nowhere.py"),
        ("bad.py:net", RunError, "cannot be imported: SystemExit"),
        ("lacks.py:net", RunError, "cannot be imported: No module named 'absent_module'"),
        ("facts_of_mine:1+1", UsageError, "a factory is module:factory or"),
    ],
)
def test_what_is_no_factory_is_one_line(here: Path, word: str, error: Any, says: str) -> None:
    (here / "bad.py").write_text("raise SystemExit(3)\n")
    (here / "lacks.py").write_text("import absent_module\n")
    with pytest.raises(error, match=says):
        call_factory(word, 3)


def test_the_digest_follows_the_code_and_what_it_imports_from_beside_itself(here: Path) -> None:
    words = ("facts_of_mine.py:plain", "facts_of_mine:plain")
    before = [user_models.factory_digest(word) for word in words]
    (here / "helper.py").write_text("WIDTH = 4\nDEPTH = 1\n")
    after = [user_models.factory_digest(word) for word in words]
    assert all(a != b for a, b in zip(before, after, strict=True))
    (here / "other.py").write_text("nothing = 1\n")
    assert [user_models.factory_digest(word) for word in words] == after


# -- taps and heads by rule ---------------------------------------------------------------------------------------


def test_taps_of_a_known_network() -> None:
    model = wrap(torchvision.models.resnet18(num_classes=5), "resnet18", 5, (3, 64, 64))
    assert isinstance(model, Hooked)
    assert model.tap_names == ("relu", "layer1", "layer2", "layer3", "layer4", "penultimate")
    assert (model.head, model.feature_dim, len(model.running_moments())) == ("fc", 512, 20)
    with torch.no_grad():
        taps = model.eval().observe(torch.randn(1, 3, 64, 64), model.tap_names).taps
    assert [v.shape[-1] for v in taps.values()] == [32, 16, 8, 4, 2, 512]
    assert taps["layer4"].mean((2, 3)).equal(taps["penultimate"])


def conv(i: int, o: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(i, o, 3, stride, 1), nn.BatchNorm2d(o), nn.ReLU())


def test_taps_of_a_plain_sequence_and_a_head_that_is_a_convolution() -> None:
    body = nn.Sequential(conv(1, 4), nn.MaxPool2d(2), conv(4, 6), conv(6, 6), nn.Conv2d(6, 3, 1),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten())  # fmt: skip
    model = wrap(body, "body", 3, (1, 8, 8))
    assert model.tap_names == ("0", "3", "penultimate")
    assert model.feature_dim == 6
    outputs = model.eval().observe(torch.randn(2, 1, 8, 8), model.tap_names)
    torch.testing.assert_close(outputs.features, outputs.taps["3"].mean((2, 3)))
    torch.testing.assert_close(body[4](outputs.features[..., None, None]).flatten(1), outputs.logits)


def test_a_stage_ends_with_its_module_not_with_what_the_next_one_does_first() -> None:
    second = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, 2, 1))  # begins at the old resolution
    body = nn.Sequential(conv(1, 4), second, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
    assert wrap(body, "body", 3, (1, 8, 8)).tap_names == ("0", "1", "penultimate")


class Odd(nn.Module):
    """A shared layer, a layer that is never called, one without statistics, logits inside an object."""

    def __init__(self) -> None:
        super().__init__()
        self.unused, self.act = nn.BatchNorm2d(9), nn.ReLU()
        self.a, self.bare = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4, track_running_stats=False)
        self.b, self.norm = nn.Conv2d(4, 4, 3, 2, 1), nn.BatchNorm2d(4)
        self.aside, self.out = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Any:
        x = self.act(self.norm(self.b(self.act(self.bare(self.a(x))))))
        pooled = x.mean((2, 3))
        return SimpleNamespace(logits=self.out(pooled), aside=None)


def test_odd_networks_are_seen_as_they_are_called() -> None:
    odd = Odd().train()
    model = wrap(odd, "odd", 3, (1, 8, 8))
    assert odd.training
    assert model.tap_names == ("bare", "norm", "penultimate")  # `act` serves two places
    outputs = model.observe(torch.randn(4, 1, 8, 8), ("penultimate", "bn_means"), moments=True)
    assert outputs.logits.shape == (4, 3)
    assert len(outputs.moments) == len(model.running_moments()) == 1
    assert outputs.taps["bn_means"].shape == (4, 4)
    assert wrap(Odd(), "odd", 3, (1, 8, 8), taps=("a",), head="out").tap_names == ("a", "penultimate")
    with pytest.raises(UsageError, match="no linear layer with 4 outputs"):
        wrap(Odd(), "odd", 4, (1, 8, 8))
    with pytest.raises(UsageError, match=r"odd does not accept an image of shape 2x8x8: "):
        wrap(Odd(), "odd", 3, (2, 8, 8))
    with pytest.raises(RunError, match="no module 'oot'; did you mean 'out'"):
        wrap(Odd(), "odd", 3, (1, 8, 8), head="oot")


# -- weights ------------------------------------------------------------------------------------------------------


def test_weights_are_loaded_strictly_and_never_run(here: Path) -> None:
    weights = call_factory("facts_of_mine:plain", 3).state_dict()
    save_file(weights, "net.safetensors")
    teacher = UserTeacher(Path("net.safetensors"), "facts_of_mine:plain", 3, (1, 8, 8)).load(CPU)
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())
    torch.testing.assert_close(teacher.state_dict()["module.5.weight"], weights["5.weight"])
    torch.save({"state_dict": weights}, "net.pt")
    assert UserTeacher(Path("net.pt"), "facts_of_mine.py:plain", 3, (1, 8, 8)).load(CPU).feature_dim == 4
    torch.save(call_factory("facts_of_mine:plain", 3), "whole.pt")
    save_file({k: v for k, v in weights.items() if k != "5.bias"}, "lacks.safetensors")
    for file, arch, classes, says in (
        ("whole.pt", "facts_of_mine:plain", 3, "whose code is never run"),
        ("lacks.safetensors", "facts_of_mine:plain", 3, "no weight '5.bias'"),
        ("net.safetensors", "facts_of_mine:counted", 4, r"'5.weight' is \(3, 4\) in the file, \(4, 4\) in the model"),
        ("net.safetensors", "", 3, "give the architecture of net.safetensors"),
        ("net.safetensors", "cnn61", 3, "unknown architecture 'cnn61'; did you mean 'cnn16'"),
    ):
        with pytest.raises((RunError, UsageError), match=says):
            UserTeacher(Path(file), arch, classes, (1, 8, 8)).load(CPU)


def test_a_teacher_is_known_by_file_and_code(here: Path) -> None:
    save_file(call_factory("facts_of_mine:plain", 3).state_dict(), "net.safetensors")
    first = UserTeacher(Path("net.safetensors"), "facts_of_mine:plain", 3, (1, 8, 8))
    before = first.sha256
    assert UserTeacher(Path("net.safetensors"), "", 3, (1, 8, 8)).sha256 != before
    (here / "helper.py").write_text("WIDTH = 4\nDEPTH = 1\n")
    assert first.sha256 != before
    with pytest.raises(UsageError, match="cannot read teacher"):
        _ = UserTeacher(Path("gone.safetensors"), "", 3, (1, 8, 8)).sha256


def test_a_students_file_says_how_it_is_to_be_seen_but_names_no_code(tmp_path: Path) -> None:
    about = {"arch": "cnn16", "classes": 3, "shape": [1, 8, 8], "mean": [0.5], "std": [0.25]}
    student = models.build("cnn16", 3, (1, 8, 8))
    path = tmp_path / "student.safetensors"
    path.write_bytes(weights_file(student, about))
    assert metadata_of(path) == about
    path.write_bytes(weights_file(student, about | {"arch": "os:system"}))
    assert "arch" not in metadata_of(path)
    save_file(student.state_dict(), path)
    assert metadata_of(path) == {}
    assert metadata_of(tmp_path / "no.safetensors") == metadata_of(Path(__file__)) == {}


def test_a_student_may_come_from_a_factory(here: Path) -> None:
    word = user_models.register_student("facts_of_mine:counted")
    try:
        student = models.build(word, 4, (1, 8, 8))
        assert student(torch.randn(2, 1, 8, 8)).shape == (2, 4)
    finally:
        del models.ARCHITECTURES[word]
    assert user_models.register_student("cnn16") == "cnn16"
    with pytest.raises(UsageError, match="unknown architecture"):
        user_models.register_student("cnn15x")
