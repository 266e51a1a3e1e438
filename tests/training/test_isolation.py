"""Nothing that a method is handed, and nothing else in the process, leads to real data; trying fails the run."""

from __future__ import annotations

import gc
import io
import json
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import snoop
import torch
from good_method import LOSS, SAMPLE, SETUP, SYNTHESIZE, TEXT, changed

from dfkd_bench.data import loading
from dfkd_bench.errors import PrivilegeError, RunError
from dfkd_bench.runs.plan import Request, make_plan
from dfkd_bench.runs.planned import PlannedRun, RunOptions
from dfkd_bench.runs.progress import ProgressEvent
from dfkd_bench.teachers.registry import load_teacher, teachers
from dfkd_bench.training.runner import Outcome, run
from dfkd_bench.utils import guard
from dfkd_bench.utils.checkpoint import digest


def method(folder: Path, *changes: tuple[str, str]) -> Path:
    """A file with the good method, code added behind some of its lines."""
    path, added = folder / "spy.py", []
    for place, code in changes:
        indent = " " * 8 * place.startswith(" ")
        added.append((place, place + "".join(f"{indent}{line}\n" for line in code.splitlines())))
    path.write_text(changed(*added))
    return path


def plan_of(word: str, results: Path) -> PlannedRun:
    return make_plan(Request((word,), budget="smoke", threads=1, device="cpu"), results)[0]


def start(word: str, results: Path, **options) -> Outcome:
    planned = plan_of(word, results)
    return run(planned, RunOptions(results, **options))


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hashes of all real images and labels, in a file: the test process itself must hold none of them."""
    path = tmp_path_factory.mktemp("known") / "known.json"
    path.write_text(json.dumps(snoop.fingerprints("digits16")))
    gc.collect()
    return path


# -- searching --------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_the_search_finds_data_that_is_there(known: Path, tmp_path: Path) -> None:
    """In an object, in a nested container, cut out and normalised."""
    train, test = loading.load("digits16")
    batches, kept = loading.TrainingBatches(train), [{"deep": (test.normalised(slice(3, 4)),)}]
    del train, test
    report = tmp_path / "found.txt"
    path = method(tmp_path, (SETUP, SEARCH.format(when="True", verb="setup", known=str(known), report=str(report))))
    with suppress(RunError):
        start(f"{path}:Good", tmp_path, callback=raising(1))
    assert report.read_text() == "setup: a test image (normalised), a train image (uint8), the train labels\n"
    assert batches
    assert kept


SEARCH = """import json, snoop
if {when}:
    known = json.loads(open({known!r}).read())
    found = snoop.everywhere(known, [self, vars(self)])
    (open({report!r}, "a")).write("{verb}: " + ", ".join(sorted(found)) + "\\n")"""


@pytest.mark.long
def test_no_verb_finds_real_data_even_after_other_runs_in_the_process(known: Path, tmp_path: Path) -> None:
    report = tmp_path / "found.txt"
    search = {"known": str(known), "report": str(report)}
    path = method(
        tmp_path,
        (SETUP, SEARCH.format(when="True", verb="setup", **search)),
        (SAMPLE, SEARCH.format(when="self.context.progress.student_step == 2", verb="sample", **search)),
    )

    def spy() -> str:
        report.unlink(missing_ok=True)
        with suppress(RunError):
            start(f"{path}:Good", tmp_path, callback=raising(2))
        return report.read_text()

    start("real-kd", tmp_path / "first")  # trains and is evaluated here: train and test data are loaded
    gc.disable()  # nothing may depend on the collector coming by at the right moment
    try:
        with suppress(RunError):  # and this one fails while it holds real data
            start("real-kd", tmp_path / "second", callback=raising(3))
        assert spy() == "setup: \nsample: \n"
    finally:
        gc.enable()


def raising(round: int):
    def callback(event: ProgressEvent) -> None:
        if event.round == round:
            raise RunError("this callback refuses to go on")

    return callback


@pytest.mark.long
def test_a_method_is_gone_and_hooks_are_blind_when_the_student_is_evaluated(known: Path, tmp_path: Path) -> None:
    """A hook that a method leaves on teacher or student sees no test image; the method itself is dead by then."""
    path = method(
        tmp_path,
        (
            "from dataclasses import dataclass\n",
            "import weakref\nSEEN, ALIVE = [], []",
        ),
        (
            SETUP,
            "ALIVE.append(weakref.ref(self))\n"
            "for view in (context.teacher, context.student):\n"
            "    view._module.register_forward_pre_hook(lambda m, x: SEEN.append(x[0].detach().clone()))\n"
            "    view._module.convs[0].register_forward_pre_hook(lambda m, x: SEEN.append(x[0].detach().clone()))",
        ),
    )
    alive: list[bool] = []

    def callback(event: ProgressEvent) -> None:
        if event.phase == "evaluation":
            alive.append(sys.modules["_dfkd_bench_file_spy"].ALIVE[0]() is not None)

    start(f"{path}:Good", tmp_path, callback=callback)
    assert alive == [False] * 3
    module = sys.modules["_dfkd_bench_file_spy"]
    hashes = json.loads(known.read_text())
    assert len(module.SEEN) > 30  # the hooks did see the synthetic images
    assert set().union(*(snoop.found_in(batch, hashes) for batch in module.SEEN)) == set()


# -- trying -----------------------------------------------------------------------------------------------------------

FILE = "import sklearn, pathlib\nfile = pathlib.Path(sklearn.__file__).parent / 'datasets/data/digits.csv.gz'\n"
ATTEMPTS = {
    "sklearn": "from sklearn.datasets import load_digits\nload_digits()",
    "door": "from dfkd_bench.data import loading\nloading.load('digits16')",
    "loader": "from dfkd_bench.data.datasets import digits16\ndigits16.load()",
    "open": FILE + "open(file, 'rb').read()",
    "pathlib": FILE + "file.read_bytes()",
    "os": FILE + "import os\nos.open(file, os.O_RDONLY)",
    "gzip": FILE + "import gzip\ngzip.open(str(file)).read()",
    "numpy": FILE + "import numpy\nnumpy.loadtxt(file, delimiter=',')",
    "copy": FILE + "import shutil\nshutil.copy(file, 'copy.bin')",
    "relative": FILE + "import os\nos.chdir(file.parent)\nopen(b'digits.csv.gz', 'rb')",
}


def swallowed(code: str) -> str:
    return "try:\n" + "".join(f"    {line}\n" for line in code.splitlines()) + "except BaseException: pass"


@pytest.mark.long
@pytest.mark.parametrize("way", ATTEMPTS)
def test_reaching_for_the_data_fails_the_run_even_if_swallowed(tmp_path: Path, monkeypatch, way: str) -> None:
    monkeypatch.chdir(tmp_path)
    place = {0: SETUP, 1: SYNTHESIZE, 2: SAMPLE, 3: LOSS}[list(ATTEMPTS).index(way) % 4]
    path = method(tmp_path, (place, swallowed(ATTEMPTS[way])))
    opened = r"opened (digits\.csv\.gz|optdigits\.npz), a file of"
    what = rf"^a method without the privilege real_data ({opened}|tried to load a) dataset"
    for _ in range(2):  # starting it again does not get round it: no checkpoint outlives a violation
        with pytest.raises(PrivilegeError, match=what):
            start(f"{path}:Good", tmp_path)
    folder = tmp_path / plan_of(f"{path}:Good", tmp_path).spec.folder
    assert plan_of(f"{path}:Good", tmp_path).state == "failed"
    assert not (folder / "checkpoint.pt").exists()
    assert json.loads((folder / "record.json").read_text())["result"]["status"] == "failed"


def test_reaching_for_the_data_raises_where_it_happens(tmp_path: Path) -> None:
    path = method(tmp_path, (SAMPLE, ATTEMPTS["sklearn"] + "\nraise AssertionError('went on')"))
    with pytest.raises(PrivilegeError, match=r"opened digits\.csv\.gz"):
        start(f"{path}:Good", tmp_path)


def test_importing_a_method_is_no_time_for_data_either(tmp_path: Path) -> None:
    """A module keeps what it loads while it is imported."""
    path = tmp_path / "early.py"
    path.write_text(swallowed("from sklearn.datasets import load_digits\nDATA = load_digits()") + "\n" + TEXT)
    with pytest.raises(PrivilegeError, match=r"opened digits\.csv\.gz"):
        start(f"{path}:Good", tmp_path)


def test_a_violation_late_in_a_run_leaves_no_later_checkpoint(tmp_path: Path) -> None:
    """The checkpoint from before it stays; the run that goes on from there commits the same violation again."""
    when = "if self.seen.value == 7:\n    from dfkd_bench.data import loading\n    "
    path = method(tmp_path, (SAMPLE, when + swallowed("loading.load('digits16')").replace("\n", "\n    ")))
    for _ in range(2):
        with pytest.raises(PrivilegeError):
            start(f"{path}:Good", tmp_path)
    folder = tmp_path / plan_of(f"{path}:Good", tmp_path).spec.folder
    saved = torch.load(io.BytesIO((folder / "checkpoint.pt").read_bytes()[64:]), weights_only=True)
    assert saved["rounds"] == 5


def test_the_door_is_open_again_afterwards(tmp_path: Path) -> None:
    path = method(tmp_path, (SETUP, ATTEMPTS["door"]))
    with pytest.raises(PrivilegeError):
        start(f"{path}:Good", tmp_path)
    assert len(loading.load("digits16")) == 2


def test_a_shut_door_within_a_shut_door_forgets_nothing() -> None:
    inner, outer = (pytest.raises(PrivilegeError, match="tried to load a dataset") for _ in range(2))
    with outer, guard.data_blocked():
        with suppress(PrivilegeError):
            loading.load("digits16")
        with inner, guard.data_blocked():
            pass


# -- privileges -------------------------------------------------------------------------------------------------------

UNDECLARED = {
    "gradients": (SYNTHESIZE, "self.context.teacher(torch.zeros(2, 1, 16, 16, requires_grad=True))"),
    "bn_statistics": (SETUP, "context.teacher.bn_statistics"),
    "moments": (SYNTHESIZE, "self.context.teacher(torch.zeros(2, 1, 16, 16), moments=True)"),
    "penultimate": (SYNTHESIZE, "self.context.teacher(torch.zeros(2, 1, 16, 16), taps=('penultimate',))"),
    "stage_maps": (SYNTHESIZE, "self.context.teacher(torch.zeros(2, 1, 16, 16), taps=('stage1',))"),
    "real_data": (SETUP, "context.grant('real_data')"),
    "external_model": (SETUP, "context.grant('external_model')"),
}


@pytest.mark.parametrize("privilege", UNDECLARED)
def test_undeclared_use_is_refused(tmp_path: Path, privilege: str) -> None:
    path = method(tmp_path, UNDECLARED[privilege])
    if privilege == "gradients":
        path.write_text(path.read_text().replace("Privileges(gradients=True)", "Privileges()"))
    name = {"moments": "bn_statistics"}.get(privilege, privilege)
    with pytest.raises(PrivilegeError, match=rf"{name} without declaring it in its Privileges$"):
        start(f"{path}:Good", tmp_path)


def test_declared_use_is_allowed(tmp_path: Path) -> None:
    path = method(tmp_path, UNDECLARED["bn_statistics"])
    text = path.read_text().replace("Privileges(gradients=True)", "Privileges(gradients=True, bn_statistics=True)")
    path.write_text(text)
    with pytest.raises(RunError, match=r"^this callback refuses to go on$"):
        start(f"{path}:Good", tmp_path, callback=raising(2))


@pytest.mark.parametrize("privilege", ["real_data", "unlabelled_data", "class_names", "external_model"])
def test_a_foreign_method_that_declares_it_is_not_granted_it(tmp_path: Path, privilege: str) -> None:
    path = method(tmp_path, (SETUP, f"super().setup(context)\ncontext.grant({privilege!r})"))
    path.write_text(path.read_text().replace("gradients=True", f"gradients=True, {privilege}=True"))
    with pytest.raises(PrivilegeError, match=f"^{privilege} is not granted to this method"):
        start(f"{path}:Good", tmp_path)


def test_declaring_real_data_does_not_open_the_door(tmp_path: Path) -> None:
    path = method(tmp_path, (SETUP, swallowed(ATTEMPTS["sklearn"])))
    path.write_text(path.read_text().replace("gradients=True", "gradients=True, real_data=True"))
    with pytest.raises(PrivilegeError, match=r"opened digits\.csv\.gz"):
        start(f"{path}:Good", tmp_path)


def test_an_unknown_privilege_is_refused_by_name(tmp_path: Path) -> None:
    path = method(tmp_path, (SETUP, "context.grant('real-data')"))
    with pytest.raises(PrivilegeError, match=r"^unknown privilege 'real-data'; did you mean 'real_data'\?$"):
        start(f"{path}:Good", tmp_path)


# -- the networks -----------------------------------------------------------------------------------------------------


def test_what_a_method_does_to_its_teacher_does_not_reach_the_evaluation(tmp_path: Path) -> None:
    code = "with torch.no_grad():\n    context.teacher._module.head.weight.zero_()"
    path = method(tmp_path, (SETUP, code))
    teacher_entry = teachers()["digits16-cnn32-s0"]
    before = digest(load_teacher(teacher_entry, torch.device("cpu")).state_dict())
    record = start(f"{path}:Good", tmp_path).record
    assert record["result"]["fidelity"]["teacher_top1"] == pytest.approx(teacher_entry.top1, abs=0.01)
    assert digest(load_teacher(teacher_entry, torch.device("cpu")).state_dict()) == before
