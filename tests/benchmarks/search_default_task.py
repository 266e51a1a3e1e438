"""The declared search behind the default settings of the default task; anyone can run it again.

    python tests/benchmarks/search_default_task.py --results DIR --csv FILE

Twelve runs: two presets x three numbers of generator steps per round x seeds 100 and 101, which no reported result
uses. Each finished student is scored by its agreement with the teacher on one probe of synthetic images pooled from
all twelve runs; a run whose images show fewer than all classes is not eligible. No test image is used: test accuracies
are in the records, as in every record, and are not read here.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import torch
from safetensors.torch import load_file

from dfkd_bench import models
from dfkd_bench.evaluators.accuracy import logits_of
from dfkd_bench.plan import Request, make_plan
from dfkd_bench.protocol import DEFAULT_TASK, task
from dfkd_bench.run import run
from dfkd_bench.teachers.registry import load_teacher, teacher_for

PRESETS, STEPS, SEEDS, SHARE = ("official", "textbook"), (2, 4, 6), (100, 101), 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path("runs"))
    parser.add_argument("--csv", type=Path, default=Path("search.csv"))
    arguments = parser.parse_args()

    outcomes = []
    for preset in PRESETS:
        for steps in STEPS:
            request = Request(
                ("cpsc",), seeds=SEEDS, preset=preset, device="cpu", threads=1, overrides={"synthesis_steps": steps}
            )
            for planned in make_plan(request, arguments.results):
                done = run(planned.spec, arguments.results, method=planned.entry, teacher=planned.teacher)
                outcomes.append((preset, steps, planned.spec.seed, done))
                print(preset, steps, planned.spec.seed, flush=True)

    chosen = task(DEFAULT_TASK)
    teacher = load_teacher(teacher_for(chosen), torch.device("cpu"))
    probe = torch.cat([load_file(done.folder / "samples.safetensors")["images"][:SHARE] for *_, done in outcomes])
    wanted = logits_of(teacher, probe).argmax(1)
    rows = []
    for preset, steps, seed, done in outcomes:
        student = models.build(chosen.student, chosen.dataset.classes, chosen.dataset.image_shape[0])
        student.load_state_dict(load_file(done.folder / "student.safetensors"))
        agreement = 100.0 * float((logits_of(student, probe).argmax(1) == wanted).double().mean())
        rows.append(
            {
                "preset": preset,
                "synthesis_steps": steps,
                "seed": seed,
                "probe_agreement": round(agreement, 3),
                "coverage": done.record["result"]["samples"]["coverage"],
                "teacher_forwards": done.record["result"]["counts"]["teacher_forwards"],
            }
        )
    with arguments.csv.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(arguments.csv.read_text())


if __name__ == "__main__":
    main()
