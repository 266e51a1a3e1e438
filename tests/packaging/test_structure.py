"""Imports run one way through the folders of the package, nothing else lies at its root, and frozen names stay."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import structure

AT_THE_ROOT = {"__init__", "__main__", "_version", "addon", "api", "errors", "method", "protocol", "recipe"}
# what methods and add-ons outside this repository import: their digests cover the lines that do
FROZEN = {
    "dfkd_bench": "run Request RunSpec load_results",
    "dfkd_bench.method": (
        "Batch Context Flags Method Moments Network Outputs Privileges Progress "
        "RealData StudentRecipe TaskFacts setting"
    ),
    "dfkd_bench.addon": "AddOn AddOnContext Loss Sample SlowStudent",
    "dfkd_bench.errors": "BenchError BusyError DiskError PrivilegeError RunError UsageError did_you_mean",
    "dfkd_bench.conformance": "assert_conforms",
    "dfkd_bench.blocks.attention": "attention_loss attention_map",
    "dfkd_bench.blocks.augmentation": "random_crop random_flip random_resized_crop random_roll stretched",
    "dfkd_bench.blocks.bn_stats": "bn_buffers bn_statistics_loss kept_statistics repeated",
    "dfkd_bench.blocks.contrastive": "supervised_contrastive_loss",
    "dfkd_bench.blocks.disagreement": "DISAGREEMENTS disagreement js_divergence kl_per_sample l1_loss masked_kl",
    "dfkd_bench.blocks.ema": "EMA",
    "dfkd_bench.blocks.generators": (
        "ConditionalBatchNorm2d ConditionalGenerator DEEP "
        "DeepConditionalGenerator DeepGenerator Generator LARGE "
        "LabelledGenerator SMALL doubled reinitialise"
    ),
    "dfkd_bench.blocks.heads": "ProjectionHead",
    "dfkd_bench.blocks.inversion": "INFINITE Inverter SmoothedMoments descend invert",
    "dfkd_bench.blocks.losses": "ikd_loss kd_loss pseudo_ce_loss",
    "dfkd_bench.blocks.meta": "MetaLearner",
    "dfkd_bench.blocks.observed_norm": (
        "SPACE coefficients fixed_norm is_fixed moments moments_backward observed_moments observed_norm"
    ),
    "dfkd_bench.blocks.pool": "BYTES FeatureBank FeatureQueue ImagePool",
    "dfkd_bench.blocks.precision": "at_least_fp32",
    "dfkd_bench.blocks.priors": ("activation_loss balance_loss one_hot_loss total_variation unit_moments"),
    "dfkd_bench.blocks.rendering": "Renderer",
    "dfkd_bench.blocks.streaming": "Objective Priors Stream Terms Through Weights weighted",
}
# what packages with other plug-ins import, as `dfkd-bench new` writes them
OBJECTS = {
    "dfkd_bench.models": "Architecture build",
    "dfkd_bench.models.tapped": "Tapped Trace spatial_mean",
    "dfkd_bench.data.base": "Dataset Download",
    "dfkd_bench.data.source": "Images Labels Source Which",
    "dfkd_bench.data.terms": "Pinned SMALL_TEACHER TeacherRecipe USUAL USUAL_TEACHER small_pinned",
    "dfkd_bench.metrics.base": "Column Metric View",
    "dfkd_bench.report.figures.base": "FigureKind Job",
    "dfkd_bench.report.figures.input": "FigureInput",
    "dfkd_bench.report.figures.layout": "finish new_figure",
    "dfkd_bench.report.figures.style": "Look Looks looks",
    "dfkd_bench.runs.progress": "Callback Logger ProgressEvent",
}
GROUPS = ("methods", "addons", "architectures", "datasets", "metrics", "figures", "loggers")


def test_imports_run_one_way() -> None:
    files = structure.file_graph(structure.PACKAGE)
    rooms = structure.room_graph(files)
    assert set(rooms) <= set(structure.ORDER), "a new folder has a place in the order"
    assert structure.backwards(rooms) == []
    assert structure.circles(files) == []
    assert structure.circles(rooms) == []


def test_the_root_holds_the_contract_and_little_else() -> None:
    assert {path.stem for path in structure.PACKAGE.glob("*.py")} == AT_THE_ROOT


def test_a_circle_and_an_import_against_the_order_are_found(tmp_path: Path) -> None:
    package = tmp_path / "dfkd_bench"
    for name, text in {
        "utils/__init__.py": "", "data/__init__.py": "", "utils/files.py": "def f():\n    import dfkd_bench.data.find",
        "data/find.py": "from dfkd_bench.utils import files\nfrom dfkd_bench.errors import E\n", "errors.py": "",
        "__init__.py": "",
    }.items():  # fmt: skip
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    files = structure.file_graph(package)
    rooms = structure.room_graph(files)
    assert structure.backwards(rooms) == [("utils", "data")]
    assert structure.circles(rooms) == [["data", "utils"]]
    assert structure.circles(files) == [["dfkd_bench.data.find", "dfkd_bench.utils.files"]]
    assert structure.floors(rooms) == 2


def test_the_script_prints_the_numbers() -> None:
    done = subprocess.run([sys.executable, structure.__file__], capture_output=True, text=True, check=True)
    assert "modules at the root   7 (and __init__, __main__)" in done.stdout
    assert "circles of files      0" in done.stdout


@pytest.mark.parametrize(("module", "names"), [*FROZEN.items(), *OBJECTS.items()])
def test_frozen_names_stay(module: str, names: str) -> None:
    found = import_module(module)
    assert [name for name in names.split() if not hasattr(found, name)] == []


def test_entry_point_groups_stay() -> None:
    from dfkd_bench.plugins import entry

    kinds = (entry.METHOD, entry.ADDON, entry.ARCHITECTURE, entry.DATASET, entry.METRIC, entry.FIGURE, entry.LOGGER)
    assert tuple(kind.group for kind in kinds) == tuple(f"dfkd_bench.{name}" for name in GROUPS)


def test_shipped_methods_import_frozen_names_alone() -> None:
    """Of the contract, its errors and the blocks: nothing that leads to data, files or the loop."""
    package = Path(import_module("dfkd_methods").__file__ or "").parent
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dfkd_bench"):
                assert node.module not in ("dfkd_bench", "dfkd_bench.conformance"), path.name
                known = FROZEN[str(node.module)].split()
                assert [a.name for a in node.names if a.name not in known] == [], path.name
