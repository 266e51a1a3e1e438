"""`dfkd-bench distill`: distil a user's trained model into a smaller one, without any dataset."""

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
              help="Weights (safetensors or a torch state dict), or a .pt2 file of torch.export.")  # fmt: skip
@click.option("--arch", metavar="MODEL", help="Architecture of the teacher: a name of `list models`, module:factory "
              "or path/file.py:factory. The factory's code is run; code inside FILE is never run.")  # fmt: skip
@click.option("--classes", type=int, metavar="N", help="Number of classes.")
@click.option("--shape", metavar="CxHxW", help="Shape of the images, such as 3x32x32.")
@click.option("--mean", metavar="M[,M...]", help="Mean per channel of images in [0, 1], as in the teacher's training.")
@click.option("--std", metavar="S[,S...]", help="Standard deviation per channel, as in the teacher's training.")
@click.option("--flip", is_flag=True, help="A mirrored image keeps its class (photographs: yes; symbols: no).")
@click.option("--student", required=True, metavar="MODEL", help="A name of `list models`, or a factory.")
@click.option("-o", "--out", type=PATH, required=True, metavar="FOLDER", help="Output folder.")
@click.option("-m", "--method", required=True, metavar="NAME", help="A method or file.py:Class.")
@click.option("--preset", metavar="NAME", help="A method's preset. Default: the method's own.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a method's setting. Repeatable.")
@click.option("--budget", default="quick", show_default=True, metavar="BUDGET", help="smoke, quick, standard or full.")
@click.option("--images", type=int, metavar="N", help="Train the student on N images instead of the budget's.")
@click.option("-s", "--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--taps", metavar="NAME,...", help="Modules (or values of a .pt2) to tap. Default: one per resolution.")
@click.option("--head", metavar="NAME", help="The last linear module. Default: found automatically.")
@click.option("--eval", "evaluate", metavar="DATASET", help="Test set for after the run: folder:PATH or a dataset.")
@DATA_DIR
@click.option(
    "--export", "exports", multiple=True, metavar="FORM", help="Also write the student as onnx or pt2. Repeatable."
)
@click.option("--device", default="auto", show_default=True, metavar="DEVICE", help="auto, cpu or cuda.")
@click.option("--precision", default="fp32", show_default=True, metavar="PRECISION", help="fp32 or bf16.")
@click.option("--compile", "compiled", is_flag=True, help="torch.compile the steps; faster in long runs.")
@click.option(
    "--threads", type=int, default=2, show_default=True, metavar="N", help="CPU threads; results depend on the number."
)
@click.option("--force", is_flag=True, help="Overwrite a student in FOLDER.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
def command(**options: Any) -> None:
    """Distil your own trained model into a smaller one, without any dataset.

    After an interruption, the same command resumes. The student, a report page, the record and curves go to FOLDER.
    """
    request = request_of(options)

    from rich.console import Console

    from dfkd_bench.cli.live import follow
    from dfkd_bench.distill.run import distill_request
    from dfkd_bench.distill.table import result_table

    console, out = Console(quiet=options["quiet"]), options["out"]
    head = (
        f"{request.method} · {request.teacher.file.name} to {request.student} · {request.budget} · seed {request.seed}"
    )
    with follow(console, head, "1/1") as callback:
        record = distill_request(request, out, callback=callback, force=options["force"])
    console.print(result_table(record, out))


def request_of(options: dict[str, Any]) -> DistillRequest:
    """A request from the options, completed by metadata of the teacher's file. Raises `UsageError` if values miss."""
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
            why = "a wrong value would harm the student unnoticed" if name in ("mean", "std") else "not in the file"
            raise UsageError(f"give --{name} as in the teacher's training: {why}")
    overrides = pairs_of(options["overrides"])
    taps = tuple(t.strip() for t in options["taps"].split(",")) if options["taps"] else ()
    teacher = UserTeacher(file, options["arch"] or known.get("arch", ""), classes, shape, taps, options["head"] or "")
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
    unchanged = {name: options[name] for name in names}
    return DistillRequest(
        teacher, mean, std, overrides=overrides, compile=options["compiled"], exports=exports, **unchanged
    )


def sizes(text: str) -> tuple[int, int, int]:
    """Channels, height and width of `3x32x32`. Raises `UsageError` for another form."""
    try:
        channels, height, width = (int(part) for part in text.lower().split("x"))
    except ValueError:
        raise UsageError(f"--shape takes CxHxW, such as 3x32x32, got {text!r}") from None
    return channels, height, width


def numbers(text: str, name: str) -> tuple[float, ...]:
    """The numbers of `0.49,0.48,0.45`. Raises `UsageError` for another form."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--{name} takes one number per channel, such as 0.49,0.48,0.45, got {text!r}") from None
