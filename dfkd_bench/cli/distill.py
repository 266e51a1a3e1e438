"""`dfkd-bench distill`: a smaller model out of a trained one, with no dataset anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dfkd_bench.cli.options import DATA_DIR, PATH, pairs_of
from dfkd_bench.errors import UsageError

if TYPE_CHECKING:
    from dfkd_bench.distill.request import DistillRequest

EPILOG = """\b
Examples:
  dfkd-bench distill --teacher net.safetensors --arch mymodels:make_net --classes 10 --shape 3x32x32 \\
      --mean 0.49,0.48,0.45 --std 0.20,0.20,0.20 --student wrn16_1 --method NAME --out student
  dfkd-bench distill --teacher net.pt2 --classes 10 --shape 1x28x28 --mean 0.13 --std 0.31 --method NAME \\
      --student small.py:Small --export onnx --eval folder:photos --out student
"""


@click.command(epilog=EPILOG)
@click.option("--teacher", type=PATH, required=True, metavar="FILE",
              help="Weights (safetensors, or a plain torch state dict), or a .pt2 of torch.export.")  # fmt: skip
@click.option("--arch", metavar="MODEL", help="What FILE holds the weights of: a name of `list models`, module:factory "
              "or path/file.py:factory. A factory is code of yours and is run; nothing in FILE ever is.")  # fmt: skip
@click.option("--classes", type=int, metavar="N", help="Number of classes.")
@click.option("--shape", metavar="CxHxW", help="Of the images, such as 3x32x32.")
@click.option("--mean", metavar="M[,M...]", help="Per channel, of images in [0, 1], as the teacher was trained.")
@click.option("--std", metavar="S[,S...]", help="The standard deviation likewise.")
@click.option("--flip", is_flag=True, help="A mirrored image keeps its class (photographs: yes; symbols: no).")
@click.option("--student", required=True, metavar="MODEL", help="A name of `list models`, or a factory.")
@click.option("-o", "--out", type=PATH, required=True, metavar="FOLDER", help="What comes out.")
@click.option("-m", "--method", required=True, metavar="NAME", help="A method or file.py:Class.")
@click.option("--preset", metavar="NAME", help="A method's preset. Default: the method's own.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a method's setting. Repeatable.")
@click.option("--budget", default="quick", show_default=True, metavar="BUDGET", help="smoke, quick, standard or full.")
@click.option("--images", type=int, metavar="N", help="Train the student on N images instead of the budget's.")
@click.option("-s", "--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--taps", metavar="NAME,...", help="Modules (or values of a .pt2) to tap. Default: one per resolution.")
@click.option("--head", metavar="NAME", help="The last linear module. Default: found by rule.")
@click.option("--eval", "evaluate", metavar="DATASET", help="Test images for after the run: folder:PATH or a dataset.")
@DATA_DIR
@click.option(
    "--export", "exports", multiple=True, metavar="FORM", help="Write the student as onnx or pt2 too. Repeatable."
)
@click.option("--device", default="auto", show_default=True, metavar="DEVICE", help="auto, cpu or cuda.")
@click.option("--precision", default="fp32", show_default=True, metavar="PRECISION", help="fp32 or bf16.")
@click.option("--compile", "compiled", is_flag=True, help="torch.compile the steps; worth it in long runs.")
@click.option("--threads", type=int, default=2, show_default=True, metavar="N", help="CPU threads; they change bits.")
@click.option("--force", is_flag=True, help="Write over a student in FOLDER.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
def command(**options: Any) -> None:
    """Distil your own trained model into a smaller one, with no dataset anywhere.

    The same command goes on after an interruption. FOLDER gets the student, a report page, its record and curves.
    """
    own = request_of(options)

    from rich.console import Console

    from dfkd_bench.cli.live import follow
    from dfkd_bench.distill.run import distill_request
    from dfkd_bench.distill.table import result_table

    console, out = Console(quiet=options["quiet"]), options["out"]
    head = f"{own.method} · {own.teacher.file.name} to {own.student} · {own.budget} · seed {own.seed}"
    with follow(console, head, "1/1") as callback:
        record = distill_request(own, out, callback=callback, force=options["force"])
    console.print(result_table(record, out))


def request_of(options: dict[str, Any]) -> DistillRequest:
    """The options as a wish; what they leave out may be in the teacher's file. Raises `UsageError` where it is not."""
    from dfkd_bench.distill.request import DistillRequest
    from dfkd_bench.distill.user_models import UserTeacher, metadata_of

    file: Path = options["teacher"]
    if not file.is_file():
        raise UsageError(f"no such file: {file}")
    known = metadata_of(file)
    classes: int = options["classes"] if options["classes"] is not None else known.get("classes", 0)
    shape = sizes(options["shape"]) if options["shape"] else tuple(known.get("shape", ()))
    mean, std = (numbers(options[k], k) if options[k] else tuple(known.get(k, ())) for k in ("mean", "std"))
    for name, value in (("classes", classes), ("shape", shape), ("mean", mean), ("std", std)):
        if not value:
            why = (
                "a wrong guess would spoil the student in silence" if name in ("mean", "std") else "the file has it not"
            )
            raise UsageError(f"say --{name} as the teacher was trained: {why}")
    overrides = pairs_of(options["overrides"])
    taps = tuple(t.strip() for t in options["taps"].split(",")) if options["taps"] else ()
    teacher_entry = UserTeacher(
        file, options["arch"] or known.get("arch", ""), classes, shape, taps, options["head"] or ""
    )
    names = (
        "student",
        "method",
        "preset",
        "budget",
        "images",
        "seed",
        "flip",
        "device",
        "precision",
        "threads",
        "evaluate",
    )
    exports = tuple(dict.fromkeys(options["exports"]))
    same = {name: options[name] for name in names}
    return DistillRequest(
        teacher_entry, mean, std, overrides=overrides, compile=options["compiled"], exports=exports, **same
    )


def sizes(text: str) -> tuple[int, int, int]:
    """`3x32x32` as numbers. Raises `UsageError` for anything else."""
    try:
        channels, height, width = (int(part) for part in text.lower().split("x"))
    except ValueError:
        raise UsageError(f"--shape takes CxHxW, such as 3x32x32, got {text!r}") from None
    return channels, height, width


def numbers(text: str, name: str) -> tuple[float, ...]:
    """`0.49,0.48,0.45` as numbers. Raises `UsageError` for anything else."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--{name} takes a number per channel, such as 0.49,0.48,0.45, got {text!r}") from None
