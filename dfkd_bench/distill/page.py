"""The page beside a student of one's own: how close it is to its teacher, what it was taught on, what it cost.

One file that needs nothing else: no script, no network, images inlined; light or dark as the reader's system is.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dfkd_bench.report.html import templates
from dfkd_bench.report.images import grid
from dfkd_bench.report.terminal.runs import percent, short

if TYPE_CHECKING:
    from dfkd_bench.data.base import Dataset
    from dfkd_bench.runs.spec import RunSpec

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 240, 44, 16, 12, 34  # of the chart, in its own units
LINES = {"probe_agreement": "held-out images of the whole run", "synthetic_agreement": "images of the moment"}
PHASES = {"synthesis": "making images", "distillation": "teaching the student", "evaluation": "judging and writing"}


def grid_of(
    images: grid.Images, labels: grid.Labels | None, said: grid.Labels | None, facts: Dataset, spec: RunSpec
) -> bytes:
    """PNG of the last synthetic images (n, channels, height, width), in the teacher's input space; a row per class."""
    rows = grid.choose(grid.visible(images, facts), labels, said, min(10, facts.classes), 12)
    wrong = sum(bool(caption) for row in rows for caption in row.captions)
    note = f"{wrong} of {sum(len(r.images) for r in rows)}: the teacher sees another class, given in the corner"
    margin = "pseudo-label" if labels is not None else "the teacher's answer" if said is not None else ""
    subtitle = f"{len(rows)} of {facts.classes} classes" if margin else ""
    return grid.draw(rows, f"Synthetic images, {spec.method}", subtitle, margin, note if wrong else "")


def page(record: Mapping[str, Any], curves: Sequence[Mapping[str, Any]], picture: bytes | None) -> str:
    """The page as HTML text. `record` as `own.run` writes it, `picture` the PNG of the images, if there are any."""
    own, result = record["own"], record["result"]
    return (
        templates()
        .get_template("own.html.j2")
        .render(
            record=record,
            own=own,
            teacher=record["manifest"]["teacher"]["name"],
            tiles=tiles(record),
            alarms=alarms(result),
            chart=chart(curves),
            picture=None if picture is None else base64.b64encode(picture).decode(),
            sizes=sizes(own["sizes"]),
            quality=quality(result),
            tested=tested(record["evaluation"]),
            costs=costs(record),
            settings=settings(record),
            load=how_to_load(own),
        )
    )


def tiles(record: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The headline numbers: name, value, what it is."""
    result, (teacher, student) = record["result"], (record["own"]["sizes"][k] for k in ("teacher", "student"))
    found = [
        ("synthetic agreement", percent(result["synthetic_agreement"]), "same answer as the teacher, no real data")
    ]
    if done := record["evaluation"]:
        found.append(
            (f"top-1 on {done['dataset']}", percent(done["student_top1"]), f"teacher {done['teacher_top1']:.2f} %")
        )
        found.append((f"agreement on {done['dataset']}", percent(done["agreement"]), f"{done['images']:,} real images"))
    found.append(("parameters", short(student["parameters"]), f"the teacher has {short(teacher['parameters'])}"))
    seconds = record["measurement"]["seconds_total"]
    found.append(
        ("time", f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min", record["manifest"]["device"])
    )
    return found


def alarms(result: Mapping[str, Any]) -> list[str]:
    """What a reader should be warned of."""
    found = list(result["alarms"])
    if result["status"] == "diverged":
        found.insert(0, "diverged: a loss or weight became infinite or not a number; this student is not usable")
    if result["samples"] is None:
        found.append("this method shows no images of its own: nothing is known of the student without real images")
    return found


def chart(curves: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Agreement over student images as the coordinates of a drawing; None without two points."""
    lines = []
    end: float = max(row["student_images"] for row in curves)
    values = [row[k] for k in LINES for row in curves if row.get(k) is not None]
    if len(values) < 2:
        return None
    low = min(10 * int(min(values) // 10), 90)

    def x(images: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * images / end, 1)

    def y(value: float) -> float:
        return float(round(TOP + (HEIGHT - TOP - BOTTOM) * (100 - value) / (100 - low), 1))

    for key, name in LINES.items():
        points = [(x(row["student_images"]), y(row[key])) for row in curves if row.get(key) is not None]
        if points:
            lines.append({"name": name, "points": points, "path": " ".join(f"{a},{b}" for a, b in points)})
    step = next(s for s in (2, 5, 10, 20, 25) if (100 - low) / s <= 6)
    ticks = [(y(v), f"{v} %") for v in range(100, low - 1, -step)]
    feet = [(x(end * k / 4), short(end * k / 4)) for k in range(5)]
    return {"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": WIDTH - RIGHT, "bottom": HEIGHT - BOTTOM,
            "lines": lines, "ticks": ticks, "feet": feet}  # fmt: skip


def sizes(found: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str, str, str]]:
    """What is smaller, and by how much: name, teacher, student, ratio."""
    t, s = found["teacher"], found["student"]
    names = {"parameters": "parameters", "macs": "multiply-adds per image", "features": "penultimate width"}
    return [(n, short(t[k]), short(s[k]), f"{t[k] / s[k]:.1f} x" if s[k] else "-") for k, n in names.items()]


def quality(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The synthetic images in numbers."""
    q = result["samples"]
    if q is None:
        return []
    rows = [("KL(teacher || student) on them", f"{result['synthetic_kl']:.4f} nats")]
    rows.append(("classes that the teacher sees in them", f"{q['coverage']:.0%}"))
    if q["label_consistency"] is not None:
        rows.append(("label agreement: seen as the class they were made as", percent(q["label_consistency"])))
    if q["diversity"] is not None:
        rows.append(("diversity within a class (cosine distance of features)", f"{q['diversity']:.2f}"))
    rows.append(("near-duplicates", f"{q['duplicate_rate']:.1%}"))
    return rows


def tested(done: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """The student on real images, where some were given."""
    if done is None:
        return []
    return [
        ("images", f"{done['images']:,}"),
        ("teacher, top-1", percent(done["teacher_top1"])),
        ("student, top-1", percent(done["student_top1"])),
        ("agreement", percent(done["agreement"])),
        ("KL(teacher || student)", f"{done['kl']:.4f} nats"),
        ("calibration error (ECE), student", f"{done['ece']:.3f}"),
    ]


def costs(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What it took."""
    counts, measured = record["result"]["counts"], record["measurement"]
    rows = [(PHASES.get(k, k), f"{v:.1f} s") for k, v in measured["seconds"].items()]
    passes = f"{short(counts['teacher_forwards'])} forward, {short(counts['teacher_backwards'])} backward"
    rows += [
        ("images through the teacher", passes),
        ("student", f"{short(counts['student_steps'])} steps on {short(counts['student_images'])} images"),
        ("images made", short(counts["images_synthesised"])),
        ("parameters of generators", short(record["result"]["generator_parameters"])),
        ("peak memory", f"{measured['peak_memory_bytes'] / 2**20:,.0f} MiB"),
        ("machine", f"{record['manifest']['device']}, CPU threads: {record['manifest']['threads']}"),
        ("restarts", str(measured["restarts"])),
    ]
    return rows


def settings(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Everything that the student depends on, as the reader would have to say it again."""
    spec, own, about = record["spec"], record["own"], record["manifest"]
    rows = [
        ("teacher", f"{about['teacher']['name']} (SHA-256 of file and factory {spec['teacher'][:16]})"),
        ("architecture of the teacher", own["teacher_arch"] or "an exported program"),
        ("taps of the teacher", ", ".join(own["taps"])),
        ("student", own["arch"]),
        ("classes, image shape", f"{own['classes']}, {' x '.join(map(str, own['shape']))}"),
        ("mean, std of images in [0, 1]", f"{own['mean']}, {own['std']}"),
        ("method, preset", f"{spec['method']}, {spec['preset']}"),
        ("budget, seed", f"{spec['budget']}, {spec['seed']}"),
        ("device, precision", f"{spec['device']}, {spec['precision']}{', compiled' if spec['compile'] else ''}"),
        ("dfkd-bench, torch", f"{about['dfkd_bench']}, {about['packages']['torch']}"),
    ]
    rows += [(f"{spec['method']}: {k}", str(v)) for k, v in about["settings"]["method"].items()]
    return rows + [(f"student's recipe: {k}", str(v)) for k, v in about["settings"]["recipe"].items()]


def how_to_load(own: Mapping[str, Any]) -> str:
    """Python that gives the student back."""
    module, colon, name = own["arch"].rpartition(":")
    if not colon:
        source = "from dfkd_bench import models"
        build = f"models.build({own['arch']!r}, {own['classes']}, {tuple(own['shape'])})"
    else:
        stem = module.rpartition("/")[2].removesuffix(".py")
        source, build = f"from {stem} import {name}", f"{name}()  # with the number of classes, if it takes one"
    return "\n".join(
        [
            "from safetensors.torch import load_file",
            source,
            f"student = {build}",
            'student.load_state_dict(load_file("student.safetensors")); student.eval()',
        ]
    )
