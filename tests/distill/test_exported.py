"""Teachers from .pt2 files: they say what the eager model says, and nothing in such a file runs."""

from __future__ import annotations

import json
import pickle
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import fill
from torch import Tensor, nn

from dfkd_bench.distill.exported_program import Exported, read_program
from dfkd_bench.distill.user_models import UserTeacher, wrap
from dfkd_bench.errors import RunError, UsageError

SHAPE, CLASSES = (2, 8, 8), 3
BATCH = ({0: torch.export.Dim("batch")},)


class Plain(nn.Module):
    """Convolutions, a residual sum, in-place activations, a flattened head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.down = nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.more = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6))
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(6 * 4 * 4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(self.stem(x))
        x = torch.relu(x + self.more(x))
        out: Tensor = self.head(self.drop(x.reshape(x.shape[0], -1)))
        return out


def eager() -> Plain:
    model = Plain()
    fill(model, 3)
    return model.eval()


def saved(path: Path, model: nn.Module, decomposed: bool = False, batch: Any = BATCH, n: int = 2) -> Path:
    program = torch.export.export(model, (torch.zeros(n, *SHAPE),), dynamic_shapes=batch)
    torch.export.save(program.run_decompositions() if decomposed else program, path)
    return path


def load(path: Path, **options: Any) -> Exported:
    return Exported(read_program(path), CLASSES, SHAPE, **options).eval()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("pt2") / "net.pt2", eager())


@pytest.mark.parametrize("decomposed", [False, True])
def test_a_program_says_what_the_model_says(tmp_path: Path, file: Path, decomposed: bool) -> None:
    path = saved(tmp_path / "net.pt2", eager(), True) if decomposed else file
    hooked = wrap(eager(), "net", CLASSES, SHAPE)
    teacher = UserTeacher(path, "", CLASSES, SHAPE).load(torch.device("cpu"))
    assert not any(p.requires_grad for p in teacher.parameters())
    x = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(1), requires_grad=True)
    x = x.contiguous(memory_format=torch.channels_last)
    ours = hooked.eval().observe(x, ("penultimate", "bn_means"), moments=True)
    theirs = teacher.observe(x, ("penultimate", "bn_means"), moments=True)
    torch.testing.assert_close(theirs.logits, ours.logits)
    torch.testing.assert_close(theirs.taps["bn_means"], ours.taps["bn_means"])
    torch.testing.assert_close(theirs.features, ours.features)
    assert teacher.feature_dim == 6 * 4 * 4 == theirs.features.shape[1]
    assert len(theirs.moments) == len(teacher.running_moments()) == 3
    for pairs in (zip(theirs.moments, ours.moments, strict=True),
                  zip(teacher.running_moments(), hooked.running_moments(), strict=True)):  # fmt: skip
        for mine, other in pairs:
            torch.testing.assert_close(mine, other)
    slopes = [torch.autograd.grad(o.logits.square().sum() + sum(v.sum() for _, v in o.moments), x)[0]
              for o in (ours, theirs)]  # fmt: skip
    torch.testing.assert_close(slopes[0], slopes[1])
    assert teacher.observe(x).moments == ()
    assert sum(p.numel() for p in teacher.parameters()) == sum(p.numel() for p in hooked.parameters())


def test_taps_are_the_last_maps_of_each_resolution_or_those_named(file: Path) -> None:
    model, x = load(file), torch.randn(2, *SHAPE)
    *taps, last = model.tap_names
    assert last == "penultimate"
    found = model.observe(x, model.tap_names).taps
    assert [tuple(found[name].shape) for name in taps] == [(2, 4, 8, 8), (2, 6, 4, 4)]
    torch.testing.assert_close(found[taps[0]], eager().stem(x))
    torch.testing.assert_close(found[taps[1]].flatten(1), found["penultimate"])
    assert load(file, taps=("conv2d",)).tap_names == ("conv2d", "penultimate")
    with pytest.raises(UsageError, match="no value 'conv2dd'; did you mean 'conv2d'"):
        load(file, taps=("conv2dd",))
    with pytest.raises(UsageError, match="no linear operator"):
        Exported(read_program(file), CLASSES + 1, SHAPE)


class Averages(Plain):
    """One row, whatever the number of images."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).mean(0, keepdim=True)


def test_a_fixed_batch_is_one_error_that_says_how_to_export(tmp_path: Path) -> None:
    path = saved(tmp_path / "average.pt2", Averages().eval())
    with pytest.raises(UsageError, match=r"answers two images with 1 rows: export it with .*dynamic_shapes"):
        load(path)
    path = saved(tmp_path / "one.pt2", eager(), batch=None, n=1)
    with pytest.raises(UsageError, match=r"fixed batch.*dynamic_shapes=\(\{0: torch.export.Dim"):
        load(path)


def test_training_mode_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "train.pt2", eager().train())
    with pytest.raises(RunError, match=r"training mode.*model.eval\(\)"):
        read_program(path)


class Bomb:
    """Pickled, it makes a file when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def changed(file: Path, to: Path, change: dict[str, Any]) -> Path:
    """A copy of an archive with some members replaced: bytes, or a function of the parsed JSON."""
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(to, "w") as target:
        for name in source.namelist():
            payload, new = source.read(name), change.get(name.partition("/")[2])
            if callable(new):
                tree = json.loads(payload)
                new(tree)
                payload = json.dumps(tree).encode()
            target.writestr(name, payload if new is None or callable(new) else new)
    return to


def test_nothing_that_is_pickled_is_opened(tmp_path: Path, file: Path) -> None:
    mark = tmp_path / "ran"
    bomb = pickle.dumps((Bomb(mark),))
    path = changed(file, tmp_path / "a.pt2", {"data/sample_inputs/model.pt": bomb})
    torch.testing.assert_close(load(path)(torch.ones(2, *SHAPE)), load(file)(torch.ones(2, *SHAPE)))

    def pickled(tree: Any) -> None:
        tree["config"]["head.bias"]["use_pickle"] = True

    path = changed(file, tmp_path / "b.pt2", {"data/weights/model_weights_config.json": pickled})
    with pytest.raises(RunError, match=r"pickled objects \(head.bias\), which are never opened"):
        read_program(path)
    with suppress(Exception):  # torch's own loader does open them: the reason for ours
        torch.export.load(changed(file, tmp_path / "c.pt2", {"data/sample_inputs/model.pt": bomb}))
    assert mark.exists()
    mark.unlink()
    UserTeacher(tmp_path / "a.pt2", "", CLASSES, SHAPE).load(torch.device("cpu"))
    assert not mark.exists()


@pytest.mark.parametrize(
    "target",
    ["torch.load", "torch.hub.load", "_operator.call", "torch.ops.aten.from_file.default", "os.system",
     "torch.ops.higher_order.cond", "torch.ops.aten.linear", "torch.ops.aten.linear.nothing"],
)  # fmt: skip
def test_only_computing_operators_are_called(tmp_path: Path, file: Path, target: str) -> None:
    def swap(tree: Any) -> None:
        tree["graph_module"]["graph"]["nodes"][0]["target"] = target

    path = changed(file, tmp_path / "x.pt2", {"models/model.json": swap})
    with pytest.raises(RunError, match="no computing operator of ATen: it is not run"):
        read_program(path)


def test_files_that_are_something_else_are_one_line(tmp_path: Path, file: Path) -> None:
    def far(tree: Any) -> None:
        tree["schema_version"]["major"] = 99

    def big(tree: Any) -> None:
        tree["config"]["head.bias"]["tensor_meta"]["sizes"] = [{"as_int": 10**6}]

    (tmp_path / "text.pt2").write_text("no archive")
    with zipfile.ZipFile(tmp_path / "empty.pt2", "w") as archive:
        archive.writestr("a/b", "c")
    changed(file, tmp_path / "far.pt2", {"models/model.json": far})
    changed(file, tmp_path / "big.pt2", {"data/weights/model_weights_config.json": big})
    for name, says in {"text": "is no program", "empty": "is no program", "far": "format 99", "big": "is no"}.items():
        with pytest.raises(RunError, match=says):
            read_program(tmp_path / f"{name}.pt2")
    with pytest.raises(UsageError, match="no such file"):
        read_program(tmp_path / "absent.pt2")
    with pytest.raises(UsageError, match="leave out --arch"):
        UserTeacher(file, "cnn16", CLASSES, SHAPE).load(torch.device("cpu"))
