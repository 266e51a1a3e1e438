"""Every rule of the conformance suite can fail: a method that keeps all of them is broken in one place at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
from good_method import LOSS, PATH, PREVIEW, SAMPLE, SETUP, SYNTHESIZE, TEXT, changed

from dfkd_bench.conformance import RULES, RuleResult, assert_conforms, check_method
from dfkd_bench.plugins.registry import load, resolve

END = "        return self.make(n, stream)\n"
DOC = '    """A one-layer generator that looks for images of high teacher entropy."""\n'
PLACES = (SETUP, SYNTHESIZE, SAMPLE, LOSS, PREVIEW, END)
FLAGS = "return Flags(synthesis_steps=1, student_steps=2)"
SAMPLED = "return Batch(batch.images + 0.01 * self.seen.value, labels=batch.labels)"
STUDENT, TEACHER = "self.context.student._module", "self.context.teacher._module"


def verb(name: str, argument: str, *lines: str) -> str:
    body = "".join(f"        {line}\n" for line in lines)
    return f'\n    def {name}(self, {argument}):\n        """Added."""\n{body}'


def lines(*text: str) -> str:
    return "".join(f"        {line}\n" for line in text)


# rule; the text that is replaced, or the place behind which code is added; the new text; part of what is reported;
# other rules that cannot hold then either
CASES: list[tuple[str, str, str, str, set[str]]] = [
    ("frozen-config", "@dataclass(frozen=True)", "@dataclass", "GoodConfig is not frozen", set()),
    ("settings", '"learning rate of the generator"', '""', "lr has no one-line help", set()),
    ("settings", "setting(4,", "setting(None,", "width has a default of type NoneType", {"presets"}),
    ("settings", 'choices=("normal",', 'choices=("gamma",', "the default of kind is 'normal'", set()),
    ("settings", 'generator")', 'generator", privilege="penultimate")', "lr switches 'penultimate', which", set()),
    ("presets", '"wide": {"width": 8}', '"wide": {"widht": 8}', "sets 'widht', which Config lacks", set()),
    ("presets", '"wide": {"width": 8}', '"wide": {"width": "8"}', "sets width to '8'", set()),
    ("presets", '"wide": {"width": 8}', '"wide": {"kind": "gamma"}', "sets kind to 'gamma'", set()),
    ("presets", '{"lr": 0.02}', '{"rate": 0.02}', "sets 'rate', which Config lacks", set()),
    ("presets", '(("wide",', '(("narrow",', "task_settings name the preset 'narrow'", set()),
    ("presets", '    paper =', '    least_label_consistency = 900\n    paper =', "label_consistency is 900", set()),
    ("pinned", '{"width": "generator_width"}', '{"width": "head_width"}', "ties width to 'head_width', which", set()),
    ("pinned", '{"width": "generator_width"}', '{"depth": "generator_width"}', "'depth', which Config", set()),
    ("card", 'paper = "none"', 'paper = "".join(["none"])', "only by importing it", set()),
    ("card", DOC, "", "the class has no docstring", set()),
    ("flags", FLAGS, FLAGS.replace(")", ', order="both")'), "order is 'both'", set()),
    ("flags", FLAGS, FLAGS.replace(")", ", rounds_per_epoch=0)"), "rounds_per_epoch is 0", set()),
    ("flags", FLAGS, FLAGS.replace(")", ", warmup_synthesis_steps=-1)"), "warmup_synthesis_steps is -1", set()),
    ("flags", FLAGS, FLAGS.replace(")", ", student_mode='both')"), "student_mode is 'both'", set()),
    ("flags", FLAGS, FLAGS.replace(")", ", student_mode=('eval', 'both'))"), "is ('eval', 'both')", set()),
    ("flags", FLAGS, FLAGS.replace(")", ", student_mode=('eval', 'train_keep_stats'))"), "is ('eval', 'train_k", set()),
    ("flags", FLAGS, FLAGS.replace(")", ", distill_taps=('stage9',))"), "'stage9'", {"privileges"}),
    ("flags", FLAGS, FLAGS.replace("1", "1 + ('G' in vars(self) and self.seen.value > 0)"), "changed", {"verb-order"}),
    ("flags", "return StudentRecipe()", 'return StudentRecipe(lr=float("nan"))', "lr=nan", {"finite"}),
    ("setup", SETUP, lines("raise ValueError('no')"), "ValueError: no", set()),
    ("setup", SETUP, lines("raise SystemExit(3)"), "SystemExit: 3", set()),
    ("privileges", "Privileges(gradients=True)", "Privileges()", "the teacher's gradients without", set()),
    ("real-data", SAMPLE, lines("import sklearn.datasets as d", "d.load_digits()"), "opened digits.csv.gz", set()),
    (
        "real-data",
        SAMPLE,
        lines("import contextlib, sklearn.datasets as d", "with contextlib.suppress(Exception): d.load_digits()"),
        "opened digits.csv.gz",
        set(),
    ),
    ("loop", END, verb("on_epoch_end", "epoch", "raise KeyError(epoch)"), "on_epoch_end raised KeyError: 0", set()),
    ("loop", END, verb("after_distill_step", "batch", "batch.no"), "after_distill_step raised Attribute", set()),
    ("synthesize", SYNTHESIZE, lines("raise RuntimeError('first\\nsecond')"), "RuntimeError: first", set()),
    ("synthesize", "loss.detach()}", 'loss.detach(), "two": torch.ones(2)}', "two is a tensor of shape (2,)", set()),
    ("synthesize", "loss.detach()}", "loss}", "loss carries a gradient", set()),
    ("finite", "loss.detach()}", "loss.detach() / 0}", "synthesize returned loss = inf", set()),
    ("shapes", SAMPLE, lines("n -= 1"), "sample(8) returned images (7, 1, 16, 16)", set()),
    ("sample", SAMPLED, SAMPLED.replace("return Batch", "return tuple"), "tuple", set()),
    ("finite", SAMPLED, SAMPLED.replace("0.01", "1e39"), "pixels that are not finite", set()),
    ("labels", SAMPLED, SAMPLED.replace("batch.labels", "batch.labels + 5"), "labels from 5 to 1", set()),
    ("dtype", SAMPLED, SAMPLED.replace("batch.labels", "batch.labels.float()"), "labels are torch.float32", set()),
    ("dtype", SAMPLED, SAMPLED.replace("batch.images", "batch.images.double()"), "images are torch.float64", set()),
    ("device", SAMPLED, SAMPLED.replace("batch.labels", "batch.labels.to('meta')"), "labels are on meta", set()),
    ("shapes", SAMPLED, SAMPLED.replace("batch.labels", "batch.labels[:3]"), "returned labels (3,)", set()),
    ("no-grad", SAMPLED, "return Batch(batch.images.requires_grad_(), batch.labels)", "images carry a gradient", set()),
    (
        "batch-reuse",
        SAMPLE,
        lines(
            "if self.context.progress.student_step % 2:",
            "    self.kept.images.zero_()",
            "    return self.kept",
            "self.kept = self.make(n, self.context.stream('sample'))",
            "return self.kept",
        ),
        "other content",
        set(),
    ),
    (
        "teacher-unchanged",
        SYNTHESIZE,
        lines(f"with torch.no_grad(): {TEACHER}.head.bias.add_(0.01)"),
        "synthesize changed the teacher's weights",
        {"resume"},
    ),
    ("teacher-unchanged", LOSS, lines(f"{TEACHER}.train()"), "the teacher in train mode", {"resume"}),
    (
        "teacher-unchanged",
        SETUP,
        lines("context.teacher._module.register_forward_hook(lambda m, i, o: None)"),
        "setup left a hook on the teacher",
        set(),
    ),
    (
        "student-unchanged",
        END,
        verb("after_distill_step", "batch", f"with torch.no_grad(): {STUDENT}.head.bias.add_(0.01)"),
        "after_distill_step changed the student's weights",
        set(),
    ),
    (
        "student-unchanged",
        SETUP,
        lines("context.student._module.register_forward_hook(lambda m, i, o: None)"),
        "setup left a hook on the student",
        set(),
    ),
    (
        "student-statistics",
        SYNTHESIZE,
        lines(f"{STUDENT}.norms[0].running_mean.add_(1.0)"),
        "synthesize moved the student's BatchNorm",
        set(),
    ),
    ("student-statistics", SAMPLED, "self.context.student(batch.images)\n        " + SAMPLED, "sample moved", set()),
    ("global-rng", SYNTHESIZE, lines("torch.rand(1)"), "synthesize drew from torch's global", set()),
    ("global-rng", LOSS, lines("import numpy", "numpy.random.rand()"), "distill_loss drew from NumPy", set()),
    ("global-rng", SAMPLE, lines("import random", "random.random()"), "sample drew from Python", set()),
    ("distill-loss", LOSS, lines("return student.logits.mean(1)"), "a tensor of shape (8,)", set()),
    ("distill-loss", LOSS, lines("return student.logits.mean().detach()"), "the loss has no gradient", set()),
    ("distill-loss", LOSS, lines("return torch.ones((), requires_grad=True) * 1"), "reaches the student", set()),
    ("finite", LOSS, lines("return student.logits.mean() / 0"), "distill_loss returned", set()),
    (
        "registered",
        END,
        verb("on_epoch_end", "epoch", "import copy", "if epoch == 1: self.G = copy.deepcopy(self.G)"),
        "G was registered and has been replaced",
        set(),
    ),
    (
        "registered",
        END,
        verb("on_epoch_start", "epoch", "if epoch == 1: self.context.state('late', 1)"),
        "registered after setup: late",
        set(),
    ),
    ("finite", LOSS, lines("return student.logits.square().mean() * 1e36"), "distill_loss returned", set()),
    (
        "preview",
        "return self.make(n, stream)",
        "return Batch(self.make(n, stream).images)\n\n    least_label_consistency = 50.0",
        "preview gives no labels",
        set(),
    ),
    ("preview", "    def preview", "    least_label_consistency = 50.0\n\n    def look", "gives no labels", set()),
    ("preview", PREVIEW, lines("stream = self.context.stream('sample')"), "preview changed stream", set()),
    ("preview", PREVIEW, lines("self.seen.value += 1"), "preview changed states/seen", set()),
    ("preview", PREVIEW, lines("stream = torch.Generator().manual_seed(5)"), "two streams gave the same images", set()),
    ("preview", PREVIEW, lines("import os", "stream.manual_seed(int.from_bytes(os.urandom(4)))"), "one stream", set()),
    ("preview", PREVIEW, lines("n = n // 2"), "preview(16) returned images (8,", set()),
    ("preview", PREVIEW, lines("raise OSError('no')"), "OSError: no", set()),
    (
        "preview",
        END,
        verb("after_distill_step", "batch", "self.last = batch")
        + verb("preview", "n, stream", "return Batch(self.last.images[torch.randint(8, (n,), generator=stream)])"),
        "training batches' own",
        set(),
    ),
    (
        "same-seed",
        'context.state("seen", 0)',
        "context.state('seen', 1)\n" + lines("self.seen.value = Good.made = min(2, getattr(Good, 'made', 0) + 1)"),
        "other images",
        set(),
    ),
    (
        "same-seed",
        SAMPLED,
        "import os\n        return Batch(batch.images * (1 + os.urandom(1)[0] / 999), labels=batch.labels)",
        "other images",
        {"resume"},
    ),
    (
        "same-seed",
        END,
        '\n    def __init__(self, config):\n        """Draws before setup."""\n        super().__init__(config)\n'
        "        self.shift = torch.randn(())\n" + verb("distill", "")
        + verb("distill_loss", "b, s, t", "return F.mse_loss(s.logits, t.logits + self.shift)"),
        "differ in student",
        {"resume"},
    ),
    (
        "other-seed",
        SAMPLE,
        lines(
            "stream = torch.Generator().manual_seed(self.context.progress.student_step)",
            "return Batch(torch.randn(n, 1, 16, 16, generator=stream))",
        ),
        "two seeds sampled the same images",
        set(),
    ),
    ("resume", "self.seen = context.state(", 'self.seen = type("Cell", (), {"value": 0})()  # ', "student", set()),
    (
        "state-round-trip",
        SETUP,
        lines("from fractions import Fraction", "context.state('odd', Fraction(1, 3))"),
        "may contain only tensors",
        set(),
    ),
    (
        "state-round-trip",
        SETUP,
        lines(
            "class Odd:",
            "    def state_dict(_): return {}",
            "    def load_state_dict(_, state): raise KeyError('gone')",
            "context.register('odd', Odd())",
        ),
        "KeyError: 'gone'",
        set(),
    ),
    (
        "state-round-trip",
        SETUP,
        lines(
            "class Half:",
            "    def state_dict(_): return {'stepped': self.G[0].weight.grad is not None}",
            "    def load_state_dict(_, state): pass",
            "context.register('half', Half())",
        ),
        "after loading, registered/half differ",
        set(),
    ),
    ("verb-order", SAMPLE, lines("self.on_epoch_start(0)"), "sample called on_epoch_start itself", set()),
    (
        "teacher-gradients",
        SYNTHESIZE,
        lines(f"{TEACHER}.requires_grad_(True)"),
        "synthesize left a gradient on",
        set(),
    ),
]  # fmt: skip


def broken(tmp_path: Path, old: str, new: str) -> list[RuleResult]:
    path = tmp_path / "broken.py"
    path.write_text(changed((old, old + new if old in PLACES else new)))
    return check_method(resolve(f"{path}:Good"), batch_size=8)


@pytest.mark.long
@pytest.mark.parametrize(
    ("rule", "old", "new", "seen", "others"), CASES, ids=[f"{i}-{c[0]}" for i, c in enumerate(CASES)]
)
def test_a_broken_method_fails_its_rule_and_says_why(
    tmp_path: Path, rule: str, old: str, new: str, seen: str, others: set[str]
) -> None:
    results = broken(tmp_path, old, new)
    failed = {r.name: r.seen for r in results if not r.passed and r.reached}
    assert seen in failed.get(rule, ""), failed
    assert set(failed) - {rule} <= others, failed
    assert all(text and "\n" not in text and "Traceback" not in text for r in results for text in (r.expected, r.seen))
    assert [r.name for r in results] == list(RULES)


def test_every_rule_has_a_method_that_breaks_it_and_no_other() -> None:
    assert {case[0] for case in CASES if not case[4]} | {"import"} == set(RULES)


@pytest.mark.parametrize("line", ["raise OSError('gone')", "import sys; sys.exit(0)", "import no_such_module"])
def test_a_method_that_cannot_be_imported_fails_import_and_reaches_nothing_else(tmp_path: Path, line: str) -> None:
    path = tmp_path / "broken.py"
    path.write_text(TEXT + f"\n{line}\n")
    first, *rest = check_method(resolve(f"{path}:Good"))
    assert (first.name, first.passed) == ("import", False)
    assert "cannot be imported" in first.seen
    assert all(not r.passed and r.seen == "not reached: the method cannot be imported" for r in rest)


@pytest.mark.parametrize("preset", ["default", "wide"])
def test_the_good_method_keeps_every_rule(preset: str) -> None:
    assert_conforms(resolve(f"{PATH}:Good"), preset=preset, batch_size=8)


@pytest.mark.long
@pytest.mark.parametrize(
    "more",
    [
        "rowwise=True",
        "order='distill_first', warmup_rounds=9, rounds_per_epoch=7",
        "warmup_synthesis_steps=3, warmup_rounds=9",
        "student_mode='train'",
        "student_mode='train_keep_stats'",
    ],
)
def test_every_flag_can_be_used_within_the_rules(tmp_path: Path, more: str) -> None:
    path = tmp_path / "flagged.py"
    used = SYNTHESIZE + lines("self.context.student(self.make(4, self.context.stream('more')).images)")
    path.write_text(TEXT.replace(FLAGS, FLAGS.replace(")", f", {more})")).replace(SYNTHESIZE, used))
    assert_conforms(resolve(f"{path}:Good"), batch_size=8)


def several_modes(tmp_path: Path, touching: str) -> list[RuleResult]:
    """Two synthesis steps, the student in train mode in the second one, where the method does this to it in each."""
    path = tmp_path / "modes.py"
    flags = FLAGS.replace("synthesis_steps=1", "synthesis_steps=2").replace(")", ", student_mode=('eval', 'train'))")
    path.write_text(TEXT.replace(FLAGS, flags).replace(SYNTHESIZE, SYNTHESIZE + lines(*touching)))
    return check_method(resolve(f"{path}:Good"), batch_size=8)


def test_each_call_of_a_round_may_have_a_student_mode_of_its_own(tmp_path: Path) -> None:
    look = "self.context.student(self.make(4, self.context.stream('more')).images)"
    assert all(r.passed for r in several_modes(tmp_path, [look]))
    train = f"{STUDENT}.train()"  # in the first one as well
    wrong = [r.name for r in several_modes(tmp_path, [train, look]) if not r.passed]
    assert wrong == ["student-statistics"]


def test_a_method_without_synthesis_teacher_or_preview_conforms(tmp_path: Path) -> None:
    path = tmp_path / "bare.py"
    text = TEXT.replace(FLAGS, "return Flags(synthesis_steps=0, teacher_in_distillation=False)")
    text = text.replace(LOSS, LOSS + lines("return F.cross_entropy(student.logits, batch.labels)"))
    path.write_text(text[: text.index("    def preview")])
    assert_conforms(resolve(f"{path}:Good"), batch_size=8)


def test_a_class_can_be_checked_without_an_entry() -> None:
    assert_conforms(load(resolve(f"{PATH}:Good")), batch_size=8)


def test_assert_conforms_names_what_is_broken(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text(TEXT.replace("labels=batch.labels)", "labels=batch.labels + 5)"))
    with pytest.raises(AssertionError) as caught:
        assert_conforms(f"{path}:Good", batch_size=8)
    assert str(caught.value).splitlines() == [
        f"1 of {len(RULES)} conformance rules are broken",
        "  labels: labels are classes of the task",
        "    expected  from 0 to 9",
        "    seen      labels from 5 to 14",
    ]


def test_a_file_that_takes_real_data_is_not_granted_it(tmp_path: Path) -> None:
    path = tmp_path / "greedy.py"
    text = TEXT.replace("Privileges(gradients=True)", "Privileges(gradients=True, real_data=True)")
    path.write_text(text.replace(SETUP, SETUP + lines("super().setup(context)", "context.grant('real_data')")))
    seen = {r.name: r.seen for r in check_method(resolve(f"{path}:Good"), batch_size=8) if not r.passed}
    assert "real_data is not granted to this method" in seen["privileges"]
