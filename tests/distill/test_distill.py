"""`dfkd-bench distill`: a teacher of somebody's, no dataset anywhere, and a student that agrees with it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Command
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from smoke_runs import stop_at
from torch import Tensor, nn

from dfkd_bench import models
from dfkd_bench.data import loading
from dfkd_bench.distill.request import DistillRequest, make_plan
from dfkd_bench.distill.run import WORK, distill_request
from dfkd_bench.distill.user_models import UserTeacher, call_factory
from dfkd_bench.errors import UsageError
from dfkd_bench.runs import records
from dfkd_bench.teachers.registry import load_teacher, teacher

MEAN, STD = (0.3053,), (0.3186,)
SHAPE = (1, 16, 16)
FACTS = ["--classes", "10", "--shape", "1x16x16", "--mean", "0.3053", "--std", "0.3186"]
BRIEF = ["--budget", "smoke", "--images", "768", "--threads", "1", "--device", "cpu"]
WORDS = [
    "distill", "--teacher", "net.safetensors", "--arch", "theirs.py:Reader", *FACTS, "--student", "cnn16", "--method",
    "dfad", "--out", "student", *BRIEF,
]  # fmt: skip
SOURCE = """
import torch
from torch import nn

def block(i, o):
    return nn.Sequential(nn.Conv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU(inplace=True))

class Reader(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.top, self.early = nn.Linear(96, num_classes), block(1, 32)
        self.middle = nn.Sequential(nn.MaxPool2d(2), block(32, 64), block(64, 64))
        self.late = nn.Sequential(nn.MaxPool2d(2), block(64, 128), block(128, 96))

    def forward(self, x):
        return self.top(self.late(self.middle(self.early(x))).mean((2, 3)))

class Small(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.body, self.top = nn.Sequential(block(1, 8), nn.MaxPool2d(4), block(8, 16)), nn.Linear(16, classes)

    def forward(self, x):
        return self.top(self.body(x).mean((2, 3)))

class Says(Reader):
    def forward(self, x):
        return super().forward(x).softmax(1)

class Constant(Reader):
    def forward(self, x):
        return super().forward(x) * 0 + 1

class Cut(Reader):
    def forward(self, x):
        return super().forward(x.detach())

class Glances(nn.Module):  # attention over patches: no BatchNorm, no maps
    def __init__(self, num_classes=10):
        super().__init__()
        self.cut, self.norm = nn.Linear(16, 24), nn.LayerNorm(24)
        self.look, self.heads = nn.MultiheadAttention(24, 2, batch_first=True), nn.Linear(24, num_classes)

    def forward(self, x):
        x = self.cut(nn.functional.unfold(x, 4, stride=4).transpose(1, 2))
        return self.heads(self.norm(x + self.look(x, x, x, need_weights=False)[0]).mean(1))
"""
RENAMED = {"0": "early.{}", "1": "middle.1.{}", "2": "middle.2.{}", "3": "late.1.{}", "4": "late.2.{}"}


def renamed(name: str) -> str:
    """A weight of the shipped digits teacher by its name in the foreign one."""
    if name.startswith("head."):
        return name.replace("head", "top")
    kind, layer, leaf = name.split(".")
    return RENAMED[layer].format({"convs": 0, "norms": 1}[kind]) + "." + leaf


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a trained network of somebody's and its code, and no dataset."""
    (tmp_path / "theirs.py").write_text(SOURCE)
    shipped = load_file(teacher("digits16-cnn32-s0").path)
    save_file({renamed(k): v for k, v in shipped.items()}, tmp_path / "net.safetensors")
    (tmp_path / "nothing").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DFKD_BENCH_DATA", str(tmp_path / "nothing"))
    known = dict(models.ARCHITECTURES)
    yield tmp_path  # type: ignore[misc]
    models.ARCHITECTURES.clear()
    models.ARCHITECTURES.update(known)


def teacher_entry(arch: str = "theirs.py:Reader", file: str = "net.safetensors", classes: int = 10) -> UserTeacher:
    return UserTeacher(Path(file), arch, classes, SHAPE)


def brief(**changes: Any) -> DistillRequest:
    """A wish of two short rounds or so."""
    wish = DistillRequest(
        teacher_entry(), MEAN, STD, "theirs.py:Small", "dfad", budget="smoke", images=768, device="cpu", threads=1
    )
    return replace(wish, **changes)


@torch.no_grad()
def agreement_on_digits(student: nn.Module) -> float:
    """Percent of the held-out real digits on which the student says what the foreign teacher says."""
    split = loading.load("digits16")[1]
    images: Tensor = split.normalised(slice(None))
    theirs = load_teacher(teacher("digits16-cnn32-s0"), torch.device("cpu"))  # the same function by construction
    return 100.0 * float((student.eval()(images).argmax(1) == theirs(images).argmax(1)).double().mean())


def loaded_by_the_pages_own_words(folder: Path) -> nn.Module:
    """The student as the report says that it is loaded."""
    said = re.search(r"<pre>(.*?)</pre>", (folder / "report.html").read_text(), re.DOTALL)
    assert said is not None
    code = said[1].replace("&#34;", '"').replace("&#39;", "'").replace('"student.safetensors"', "FILE")
    assert len(code.splitlines()) == 4
    names: dict[str, Any] = {"FILE": folder / "student.safetensors"}
    exec(code, names)
    found: nn.Module = names["student"]
    return found


@pytest.mark.slow
def test_a_student_of_a_foreign_teacher_agrees_with_it_on_digits_it_never_saw(here: Path) -> None:
    """In a process of its own that loads no dataset; `net` is a module outside the project."""
    code = (
        "import sys; read = []; kept = ('optdigits.npz', 'digits.csv.gz')\n"
        "sys.addaudithook(lambda event, said: read.append(said[0]) if event == 'open' and str(said[0]).endswith(kept) "
        "else None)\n"
        "from dfkd_bench.cli.main import entry; entry(); print('DATA', read)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "distill", "--teacher", "net.safetensors", "--arch", "theirs:Reader", *FACTS,
         "--student", "cnn16", "--method", "cpsc", "--set", "alpha=1.0", "--out", "student", "--threads", "1"],
        capture_output=True, text=True, check=False, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "DATA []" in done.stdout
    assert agreement_on_digits(loaded_by_the_pages_own_words(here / "student")) >= 93.0


def test_the_command_leaves_a_student_and_a_page(here: Path, command: Command) -> None:
    status, said, wrong = command(*WORDS, columns=150)
    assert (status, wrong) == (0, "")
    for word in ("synthetic agreement", "89.1 k, the teacher 242 k", "2.1 M, the teacher 6.56 M", "report.html"):
        assert word in said
    out = here / "student"
    names = ["curves.csv", "record.json", "report.html", "samples.png", "student.safetensors"]
    assert sorted(p.name for p in out.iterdir()) == names
    record = records.read(out)
    assert record["spec"]["task"] == "own/net-cnn16"
    assert (record["spec"]["data"], record["evaluation"]) == ("", None)
    assert record["result"]["counts"]["student_images"] == pytest.approx(768, abs=640)
    assert record["own"]["taps"] == ["early", "middle", "late", "penultimate"]
    assert record["own"]["sizes"]["teacher"]["bn_layers"] == 5
    page = (out / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 1
    assert not re.search(r"(src|href)=\"(?!data:)|<script|url\(", page)  # opens without a network
    for word in (f"{record['result']['synthetic_agreement']:.2f} %", "<polyline", "[0.3053]", "prefers-color-scheme"):
        assert word in page
    with safe_open(out / "student.safetensors", framework="pt") as file:
        about = json.loads(file.metadata()["dfkd_bench"])
    assert about == {"arch": "cnn16", "classes": 10, "shape": [1, 16, 16], "mean": [0.3053], "std": [0.3186],
                     "teacher_sha256": record["spec"]["teacher"]}  # fmt: skip
    student = loaded_by_the_pages_own_words(out)
    assert student(torch.zeros(2, *SHAPE)).shape == (2, 10)
    # it holds a student now
    status, _, wrong = command(*WORDS)
    assert status == 2
    assert "student contains student.safetensors already: give another --out, or overwrite it with --force" in wrong


def test_a_student_may_be_a_teacher_in_turn_and_says_itself_how(here: Path, command: Command) -> None:
    first = brief(student="cnn16", method="noise", exports=("pt2",))
    record = distill_request(first, here / "one")
    assert record["own"]["checked"]["student.pt2"].startswith("read back: logits of 3 images equal")
    for file in ("student.safetensors", "student.pt2"):
        extra = FACTS if file.endswith("pt2") else []
        words = [
            "--teacher",
            f"one/{file}",
            *extra,
            "--student",
            "theirs.py:Small",
            "--method",
            "noise",
            "--out",
            "two",
        ]
        status, said, wrong = command("distill", *words, *BRIEF, "--force")
        assert (status, wrong) == (0, ""), file
        assert "theirs.py:Small from student" in said
    eager = models.build("cnn16", 10, SHAPE).eval()
    eager.load_state_dict(load_file(here / "one" / "student.safetensors"))
    again = UserTeacher(here / "one" / "student.pt2", "", 10, SHAPE).load(torch.device("cpu"))
    x = torch.randn(4, *SHAPE)
    torch.testing.assert_close(again(x), eager(x), rtol=1e-4, atol=1e-4)
    small = call_factory("theirs.py:Small", 10)  # its weights bear its own names, not the adapter's
    small.load_state_dict(load_file(here / "two" / "student.safetensors"))


def test_onnx_is_checked_by_running_it(here: Path) -> None:
    pytest.importorskip("onnx", reason="needs the extra: pip install 'dfkd-bench[onnx]'")
    pytest.importorskip("onnxscript", reason="needs the extra: pip install 'dfkd-bench[onnx]'")
    import onnx
    from onnx.reference import ReferenceEvaluator

    from dfkd_bench.distill.export import compare, onnx_file
    from dfkd_bench.errors import RunError

    student = models.build("cnn16", 10, SHAPE)
    payload, said = onnx_file(student, SHAPE)
    assert said.startswith("checked and run by onnx")
    x = torch.randn(5, *SHAPE)
    with torch.no_grad():
        wanted = student.eval()(x)
    found = ReferenceEvaluator(onnx.load_from_string(payload)).run(None, {"images": x.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(found), wanted, rtol=1e-3, atol=1e-4)
    with pytest.raises(RunError, match="differ from the student's"):
        compare("ONNX", wanted + 1, wanted)


# -- on real images, after the run ------------------------------------------------------------------------------------


def test_real_images_are_met_after_the_run(here: Path) -> None:
    test = loading.load("digits16")[1]
    for k in range(30):
        folder = here / "photos" / f"class{int(test.labels[k])}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(test.images[k, 0].numpy()).save(folder / f"{k}.png")
    own = brief(method="noise", evaluate=f"folder:{here / 'photos'}")
    found = distill_request(own, here / "out")["evaluation"]
    assert (found["dataset"], found["images"]) == ("photos", 30)
    theirs = load_teacher(teacher("digits16-cnn32-s0"), torch.device("cpu"))
    said = theirs(test.normalised(slice(30))).argmax(1)
    assert found["teacher_top1"] == pytest.approx(100 * float((said == test.labels[:30]).double().mean()))
    assert "photos" in (here / "out" / "report.html").read_text()
    for name, says in {"digits61": "did you mean 'digits16'", "mnist": "dataset mnist is not in"}.items():
        with pytest.raises(UsageError, match=says):
            make_plan(brief(evaluate=name))
    with pytest.raises(UsageError, match="photos has 10 classes, the teacher 9"):
        make_plan(brief(teacher=teacher_entry(classes=9), evaluate=own.evaluate))


# -- interruptions -----------------------------------------------------------------------------------------------------


def test_a_killed_run_goes_on_and_ends_in_the_same_bytes(here: Path) -> None:
    own = brief(student="cnn16", images=3 * 640)
    whole = distill_request(own, here / "whole", checkpoint_seconds=-1)
    with pytest.raises(KeyboardInterrupt):
        distill_request(own, here / "cut", callback=stop_at(2), checkpoint_seconds=-1)
    assert not (here / "cut" / records.FILE).exists()
    # another seed is another run, which takes nothing from the one that was cut
    shutil.copytree(here / "cut", here / "mixed")
    mixed = distill_request(replace(own, seed=1, method="noise", images=1), here / "mixed")
    assert mixed["measurement"]["restarts"] == 0
    assert not (here / "mixed" / WORK).exists()

    again = distill_request(own, here / "cut", checkpoint_seconds=-1)
    assert again["measurement"]["restarts"] == 1
    assert records.canonical(again["result"]) == records.canonical(whole["result"])
    for name in ("student.safetensors", "curves.csv", "samples.png"):
        assert (here / "cut" / name).read_bytes() == (here / "whole" / name).read_bytes(), name
    assert not (here / "cut" / WORK).exists()


def test_everything_that_changes_the_student_changes_its_run(here: Path) -> None:
    own = brief()
    identity = make_plan(own).identity
    assert make_plan(replace(own, exports=("pt2",), evaluate="digits16")).identity == identity
    changes: dict[str, Any] = {
        "mean": (0.3,), "std": (0.3,), "flip": True, "images": 770, "student": "cnn16", "seed": 1,
        "teacher": replace(own.teacher, taps=("early",)), "threads": 2, "precision": "bf16", "method": "noise",
    }  # fmt: skip
    seen = {identity} | {make_plan(replace(own, **{k: v})).identity for k, v in changes.items()}
    assert len(seen) == len(changes) + 1
    (here / "theirs.py").write_text(SOURCE + "\nMORE = 1\n")
    assert make_plan(own).identity not in seen


# -- refusals ----------------------------------------------------------------------------------------------------------


def refused(own: DistillRequest, out: Path) -> str:
    with pytest.raises(UsageError) as caught:
        distill_request(own, out)
    assert not out.exists()  # nothing was begun
    return str(caught.value)


def test_a_teacher_that_cannot_be_distilled_is_refused_before_anything_runs(here: Path) -> None:
    out = here / "out"
    for arch, says in {
        "theirs.py:Says": "returns probabilities, not logits: remove the softmax",
        "theirs.py:Constant": "returns the same logits for every image",
        "theirs.py:Cut": r"gives no gradient for .* choose one of .*noise",
    }.items():
        assert re.search(says, refused(brief(teacher=teacher_entry(arch)), out)), arch
    twelve = teacher_entry("cnn32", str(teacher("digits16-cnn32-s0").path))
    own = brief(teacher=replace(twelve, image_shape=(3, 16, 16)), mean=MEAN * 3, std=STD * 3)
    with pytest.raises(Exception, match=r"is \(32, 1, 3, 3\) in the file, \(32, 3, 3, 3\) in the model"):
        distill_request(own, out)


def test_a_teacher_without_batchnorm_serves_methods_that_need_none(here: Path) -> None:
    torch.manual_seed(0)
    save_file(call_factory("theirs.py:Glances", 10).state_dict(), "glances.safetensors")
    own = brief(teacher=teacher_entry("theirs.py:Glances", "glances.safetensors"))
    says = refused(replace(own, method="cpsc"), here / "out")
    way = "--set beta_bn=0 avoids this, or choose one of"
    assert says.startswith(f"method cpsc needs BatchNorm statistics, which glances.safetensors does not have: {way} ")
    offered = says.partition("choose one of ")[2].split(", ")
    assert {"dfad", "dafl", "noise"} <= set(offered)
    assert not {"cpsc", "cmi", "real-kd", "zskt"} & set(offered)  # zskt wants maps, of which there are none
    says = refused(replace(own, method="zskt"), here / "out")
    way = "--set beta=0 avoids this, or name some to tap with --taps, or choose one of"
    assert says.startswith(f"method zskt needs feature maps, which glances.safetensors does not have: {way} ")
    record = distill_request(own, here / "out")
    assert record["own"]["taps"] == ["penultimate"]
    assert record["result"]["status"] == "complete"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--mean", ""], "give --mean as in the teacher's training: a wrong value would harm the student unnoticed"),
        (["--mean", "0.5,0.5"], "--mean takes 1 numbers, one per channel; got 2"),
        (["--std", "0"], "--std takes positive numbers"),
        (["--shape", "16x16"], "--shape takes CxHxW, such as 3x32x32, got '16x16'"),
        (["--classes", "1"], "--classes takes a whole number from 2 on, got 1"),
        (["--classes", "9"], "'top.weight' is (10, 96) in the file, (9, 96) in the model"),
        (["--method", "real-kd"], "method real-kd needs real images, and there are none: choose one of"),
        (["--method", "dfat"], "unknown method 'dfat'; did you mean 'dfad'"),
        (["--budget", "quik"], "unknown budget 'quik'; did you mean 'quick'"),
        (["--export", "onx"], "unknown export 'onx'; did you mean 'onnx'"),
        (["--student", "cnn61"], "unknown architecture 'cnn61'; did you mean 'cnn16'"),
        (["--taps", "erly"], "no module 'erly'; did you mean 'early'"),
        (["--teacher", "gone.safetensors"], "no such file: gone.safetensors"),
        (["--out", "theirs.py"], "--out must name a folder, and theirs.py is a file"),
        (["--set", "g_lr"], "--set takes KEY=VALUE, got 'g_lr'"),
    ],
)
def test_bad_wishes_are_one_line(here: Path, command: Command, words: list[str], says: str) -> None:
    status, _, wrong = command(*WORDS, *words)
    assert status in (1, 2)
    assert says in wrong
    assert wrong.count("\n") == 1
    assert not (here / "student").exists()


def test_names_are_escaped_on_the_page_and_on_the_terminal(here: Path, command: Command) -> None:
    name = "a[bold]<i>&.safetensors"
    (here / "net.safetensors").rename(here / name)
    status, said, _ = command(*WORDS, "--teacher", name, "--method", "noise", columns=150)
    assert status == 0
    assert "cnn16 from a[bold]<i>&.safetensors" in said
    page = (here / "student" / "report.html").read_text()
    assert "<i>&" not in page
    assert "a[bold]&lt;i&gt;&amp;.safetensors" in page
