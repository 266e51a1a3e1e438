"""Falsifications of real results, from a simple edit to edits with all digests made to fit."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import torch
from forge import Forger, flip

Forgery = Callable[[Forger], Any]


def edited(part: str = "", of: str = "scratch", seal: bool = True, **change: Any) -> Forgery:
    """Values of one part of a record, sealed anew unless told otherwise."""

    def change_part(record: dict[str, Any]) -> None:
        for name in filter(None, part.split(".")):
            record = record[name]
        record.update(change)

    return lambda f: f.edit(change_part, f.folder(of), seal)


def tensors(name: str, change: Callable[[dict[str, torch.Tensor]], Any], method: str = "scratch") -> Forgery:
    """A file of tensors changed, and all digests made to fit."""

    def forge(f: Forger) -> None:
        f.tensors(name, change, f.folder(method))
        f.settle(f.folder(method))

    return forge


def gone(name: str) -> Forgery:
    return lambda f: (f.folder() / name).unlink()


def accuracy_with_curves(f: Forger) -> None:
    """Raise the row of the last snapshot, and everything that is computed from the curves."""
    from dfkd_bench.metrics.evaluate import curve_metrics
    from dfkd_bench.metrics.recorded.convergence import first_reaching

    f.curves(lambda rows: [row.update(top1=repr(99.0)) for row in rows[-1:]])

    def fit(record: dict[str, Any]) -> None:
        from dfkd_bench.results.verify.case import Case
        from dfkd_bench.results.verify.numbers import curves_in, read_curves

        teacher = record["result"]["fidelity"]["teacher_top1"]
        seen = curves_in(read_curves(Case(f.root, f.folder(), record, record)), teacher)
        record["result"].update(curve_metrics(seen))
        record["result"]["rel_teacher"] = seen.accuracies[-1] / teacher
        measured = record["measurement"]
        measured["seconds_to"] = first_reaching(seen.accuracies, measured["snapshot_seconds"], teacher)

    f.edit(fit)
    f.settle()


def accuracy_with_predictions(f: Forger) -> None:
    """Make as many predictions correct as the edited accuracy needs: 591 of 597."""

    def answers(t: dict[str, torch.Tensor]) -> None:
        t["student"] = t["labels"].clone()
        t["student"][:6] = (t["labels"][:6] + 1) % 10

    f.tensors("predictions.safetensors", answers)
    wanted = 100.0 * float(torch.tensor([1.0] * 591 + [0.0] * 6, dtype=torch.float64).mean())
    f.curves(lambda rows: rows[-1].update(top1=repr(wanted)))
    f.edit(lambda r: r["result"]["accuracy"].update(last=wanted))
    f.settle()


def oracle_as_last(f: Forger) -> None:
    f.curves(lambda rows: rows[0].update(top1="98.0"))
    edited("result.accuracy", last=98.0, oracle=98.0, oracle_snapshot=0)(f)
    f.settle()


def swap(name: str) -> Forgery:
    """Swap a file of two runs, and make all digests fit."""

    def forge(f: Forger) -> None:
        one, two = f.folder(seed=0) / name, f.folder(seed=1) / name
        kept = one.read_bytes()
        one.write_bytes(two.read_bytes())
        two.write_bytes(kept)
        f.settle(one.parent)
        f.settle(two.parent)

    return forge


def bit_of_the_table(f: Forger) -> None:
    path = f.root / "leaderboard.csv"
    flip(path, (path.read_text().index(".", path.read_text().index(",scratch,")) + 1.5) / path.stat().st_size)


def flipped(name: str, method: str = "scratch") -> Forgery:
    return lambda f: flip(f.folder(method) / name)


def in_spec(**change: Any) -> Forgery:
    """Edit the specification, and make hash, folder and digests fit."""

    def forge(f: Forger) -> None:
        f.edit(lambda r: r["spec"].update(change))
        f.settle(move=True)

    return forge


def of_another_protocol(f: Forger, version: str = "1.1", **change: Any) -> None:
    """Make all runs look like those of an earlier protocol (no falsification): other code and other terms."""

    def earlier(record: dict[str, Any]) -> None:
        record["spec"].update(protocol=version, code="ab" * 32, preset="of-before", **change)
        if recipe := record["manifest"].get("settings", {}).get("recipe"):
            recipe.update(lr=0.5, of_before=1)

    for path in [*f.root.rglob("record.json")]:
        f.edit(earlier, path.parent)
        f.settle(path.parent, move=True)
    f.table()


def as_another_seed(f: Forger) -> None:
    """Copy a run to a seed that was never run."""
    copy = f.root / "copy"
    shutil.copytree(f.folder(), copy)
    f.edit(lambda r: r["spec"].update(seed=7), copy)
    f.settle(copy, move=True)
    f.table()


def moved(f: Forger) -> None:
    folder = f.folder()
    folder.rename(folder.with_name(folder.name.replace("s0", "s4")))


def elsewhere(f: Forger) -> None:
    shutil.copytree(f.folder(), f.root / "again" / f.folder().relative_to(f.root))


def cell(f: Forger) -> None:
    path = f.root / "leaderboard.csv"
    header, first, *rest = path.read_text().split("\n")
    at = header.split(",").index("last_mean")
    cells = first.split(",")  # no comma inside a cell of this row before that column
    assert cells[8] in ("good:Good", "scratch")
    shift = len(cells) - len(header.split(","))
    assert shift >= 0
    value = next(c for c in cells[at : at + shift + 1] if "." in c)
    path.write_text("\n".join([header, first.replace(value, "98.75", 1), *rest]))


def row_gone(f: Forger) -> None:
    path = f.root / "leaderboard.csv"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if ",scratch," not in line))


def row_made_up(f: Forger) -> None:
    path = f.root / "leaderboard.csv"
    lines = path.read_text().splitlines(True)
    path.write_text("".join([*lines, lines[1].replace("good:Good", "mine").replace("scratch", "mine")]))


def column_gone(f: Forger) -> None:
    path = f.root / "leaderboard.csv"
    path.write_text(path.read_text().replace("n_failed", "n_lost"))


def curve_row(f: Forger) -> None:
    f.curves(lambda rows: rows.pop(0))
    f.settle()


def truncated(f: Forger) -> None:
    path = f.folder() / "student.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def run_gone(f: Forger) -> None:
    shutil.rmtree(f.folder())


def record_cut(f: Forger) -> None:
    path = f.folder() / "record.json"
    path.write_bytes(path.read_bytes()[:2000])


def teacher_hash(f: Forger) -> None:
    edited("spec", teacher="ab" * 32)(f)
    edited("manifest.teacher", sha256="ab" * 32)(f)


def alarm_hidden(f: Forger) -> None:
    edited("result.samples", of="good_Good", coverage=0.1)(f)
    edited("result", of="good_Good", alarms=[])(f)


def truncated_settled(f: Forger) -> None:
    truncated(f)
    f.settle()


def wrong_label(t: dict[str, torch.Tensor]) -> None:
    t["labels"][:1] = (t["labels"][:1] + 1) % 10


def wrong_confidence(t: dict[str, torch.Tensor]) -> None:
    t["student_confidence"][17] = 0.5


def less_weights(t: dict[str, torch.Tensor]) -> None:
    del t["generator.0.weight"]


def other_weights(t: dict[str, torch.Tensor]) -> None:
    """Of the right shapes, from nowhere."""
    for name in t:
        if name.endswith("weight"):
            t[name].mul_(1.01)


def unsealed(f: Forger) -> None:
    f.edit(lambda r: r.pop("seal"))


def schema_1(f: Forger) -> None:
    f.edit(lambda r: (r.pop("seal"), r.update(schema=1)))


def said_twice(f: Forger) -> None:
    """Write a key twice: readers that take the first one see another accuracy."""
    path = f.folder() / "record.json"
    path.write_text(path.read_text().replace('   "last":', '   "last": 99.0,\n   "last":'))


def seconds_longer_than_the_run(f: Forger) -> None:
    def slow(record: dict[str, Any]) -> None:
        measured = record["measurement"]
        measured["seconds"]["evaluation"] += 1000.0
        measured["seconds_total"] = sum(measured["seconds"].values())

    f.edit(slow)
