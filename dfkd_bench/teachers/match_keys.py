"""Match the weights of an imported file, which may use other names, to the names of a model.

Three rules are tried in this order: same names; same names after known synonyms and renumbering; same layers in the
same order. A file that none of them matches uniquely is refused.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from dfkd_bench.errors import RunError
from dfkd_bench.teachers.weights import COUNTER

WRAPPERS = {"module", "model", "_orig_mod", "net", "network", "backbone", "encoder", "student", "teacher"}
HOLDERS = {
    "layer", "layers", "block", "blocks", "stage", "stages", "group", "groups", "unit", "units", "res", "features",
    "feature", "body", "trunk", "stem", "convs", "norms", "bns",
}  # fmt: skip
SHORTCUTS = {
    "shortcut",
    "downsample",
    "skip",
    "convshortcut",
    "conv_shortcut",
    "shortcut_conv",
    "convdim",
    "projection",
}
KINDS = {
    "conv": {"conv", "convs", "convolution", "stem"},
    "bn": {"bn", "bns", "norm", "norms", "batchnorm", "batch_norm"},
    "linear": {"linear", "fc", "classifier", "head", "dense", "output", "logits"},
}
IN_WORDS = {"conv": "a convolution", "bn": "a BatchNorm", "linear": "a linear layer", "other": "a layer"}

Name = tuple[str | int, ...]


@dataclass(frozen=True)
class Layer:
    """The tensors of one module."""

    path: str  # its name in the file or model
    kind: str  # conv, bn, linear or other
    shapes: tuple[tuple[str, tuple[int, ...]], ...]  # parameter or buffer -> shape, sorted by name

    @property
    def signature(self) -> tuple[str, tuple[tuple[str, tuple[int, ...]], ...]]:
        """Kind and shapes, without the name."""
        return self.kind, self.shapes

    def __str__(self) -> str:
        shape = dict(self.shapes).get("weight", self.shapes[0][1])
        return f"{self.path!r}, {IN_WORDS[self.kind]} {shape}"


def reconcile(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], what: str) -> tuple[dict[str, Tensor], str]:
    """`weights` with the names of a model's state dict `own`, and a text that says how they were matched.

    Shapes may still differ where the names agree; `fit_weights` reports that. Raises `RunError` with the first
    difference if the file is of another network, or if its layers can be matched in several ways.
    """
    bare = stripped(weights, what)
    for theirs in (dict(weights), bare):
        if _layer_names(theirs) == _layer_names(own):
            return theirs, "by name"
    targets = stripped(own, what)
    if _layer_names(bare) == _layer_names(targets):
        return _renamed(own, weights, {p: p for p in _modules(targets)}), "by name"
    file, model = layers(bare), layers(targets)
    names, wanted = canonical(file), canonical(model)
    if names is not None and wanted is not None and names.keys() == wanted.keys():
        pairs = {names[name].path: wanted[name].path for name in names}
        return _renamed(own, weights, pairs), "by synonymous names"
    try:
        pairs = by_structure(file, model, what)
    except RunError:
        common = _layer_names(bare) & _layer_names(targets)
        if 2 * len(common) > len(_layer_names(targets)):
            return bare, "by name"  # most names agree: `fit_weights` reports the missing or extra ones
        raise
    return _renamed(own, weights, pairs), "by the order of their layers"


def stripped(weights: Mapping[str, Tensor], what: str = "the file") -> dict[str, Tensor]:
    """The weights without prefixes of wrappers such as `module.`. Raises `RunError` if two names become equal."""
    result: dict[str, Tensor] = {}
    for key, value in weights.items():
        bare = _bare(key)
        if bare in result:
            raise RunError(f"{what} has several weights {bare!r} with different prefixes: keep only one network in it")
        result[bare] = value
    return result


def _bare(key: str) -> str:
    parts = key.split(".")
    while len(parts) > 2 and parts[0] in WRAPPERS:
        parts = parts[1:]
    return ".".join(parts)


def _layer_names(weights: Mapping[str, Tensor]) -> set[str]:
    return {key for key in weights if not key.endswith(COUNTER)}


def _modules(weights: Mapping[str, Tensor]) -> list[str]:
    return list(dict.fromkeys(key.rpartition(".")[0] for key in weights))


def _renamed(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], pairs: Mapping[str, str]) -> dict[str, Tensor]:
    """`weights` with module names replaced by `pairs` (bare name in the file -> bare name in the model)."""
    full = {_bare(key): key for key in own}
    result = {}
    for key, value in weights.items():
        module, _, parameter = _bare(key).rpartition(".")
        target = f"{pairs[module]}.{parameter}".lstrip(".")
        result[full.get(target, target)] = value
    return result


def layers(weights: Mapping[str, Tensor]) -> list[Layer]:
    """The modules with weights, in the order of the file."""
    grouped: dict[str, dict[str, tuple[int, ...]]] = {}
    for key, value in weights.items():
        module, _, parameter = key.rpartition(".")
        if parameter != COUNTER:
            grouped.setdefault(module, {})[parameter] = tuple(value.shape)
    found = []
    for path, shapes in grouped.items():
        dims = len(shapes.get("weight", ()))
        kind = "bn" if "running_mean" in shapes else {4: "conv", 2: "linear"}.get(dims, "other")
        found.append(Layer(path, kind, tuple(sorted(shapes.items()))))
    return found


# -- synonyms ---------------------------------------------------------------------------------------------------------


def canonical(found: Sequence[Layer]) -> dict[Name, Layer] | None:
    """Layers by a canonical name, which does not depend on naming conventions; None if it is not unique.

    The canonical name is the rank of stage and block, `shortcut` for a layer of one, the kind of layer and its rank
    among siblings of that kind: `block1.layer.0.conv1`, `groups.0.0.conv1` and `layer1.0.conv1` are all
    (0, 0, "conv", 0).
    """
    alone = sum(layer.kind == "linear" for layer in found) == 1
    rough: list[tuple[Name, str, int | None]] = []  # path, word, number
    for layer in found:
        if alone and layer.kind == "linear":
            rough.append(((), "linear", None))  # the only linear layer is the head, whatever its path
        else:
            rough.append(_rough(layer))
    numbers: dict[Name, set[int]] = {}
    for where, _, _ in rough:
        for k, part in enumerate(where):
            if isinstance(part, int):
                numbers.setdefault(where[:k], set()).add(part)
    siblings: dict[tuple[Name, str], list[tuple[str, int | None]]] = {}
    for layer, (where, word, number) in zip(found, rough, strict=True):
        siblings.setdefault((where, layer.kind), []).append((word, number))
    result: dict[Name, Layer] = {}
    for layer, (where, _, number) in zip(found, rough, strict=True):
        alike = siblings[where, layer.kind]
        rank = 0
        if len(alike) > 1:
            if number is None or len({w for w, _ in alike}) > 1 or len(set(alike)) < len(alike):
                return None  # for example `conv` and `conv1`: their order is unknown
            rank = sorted(n for _, n in alike if n is not None).index(number)
        ranked = (
            sorted(numbers[where[:k]]).index(part) if isinstance(part, int) else part for k, part in enumerate(where)
        )
        name: Name = (*ranked, layer.kind, rank)
        if name in result:
            return None
        result[name] = layer
    return result


def _rough(layer: Layer) -> tuple[Name, str, int | None]:
    """A layer's path, its own word unless that only names its kind, and its number as written."""
    parts = [_split(part) for part in layer.path.split(".")]
    if len(parts) > 1 and parts[-1][0] == "" and parts[-2][1] is None:
        parts[-2:] = [(parts[-2][0], parts[-1][1])]  # `convs.0` means `conv0`
    where: list[str | int] = []
    for word, number in parts[:-1]:
        if word in SHORTCUTS:
            where.append("shortcut")
        elif word and word not in HOLDERS:
            where.append(word)
        if number is not None:
            where.append(number)
    word, number = parts[-1]
    if word in SHORTCUTS:
        where.append("shortcut")
        return tuple(where), "", number
    plain = not word or word in HOLDERS or word in KINDS.get(layer.kind, set())
    return tuple(where), "" if plain else word, number


def _split(part: str) -> tuple[str, int | None]:
    """`layer1` as ("layer", 1), `conv_b` as ("conv", 1), `0` as ("", 0), `fc` as ("fc", None)."""
    if lettered := re.fullmatch(r"(.+)_([a-d])", part):
        return lettered[1].lower(), ord(lettered[2]) - ord("a")
    numbered = re.fullmatch(r"(.*?)_?(\d+)", part)
    return (numbered[1].lower(), int(numbered[2])) if numbered else (part.lower(), None)


# -- structure --------------------------------------------------------------------------------------------------------


def by_structure(file: Sequence[Layer], model: Sequence[Layer], what: str) -> dict[str, str]:
    """Names in the file -> names in the model, from kinds, shapes and order of the layers.

    `model` is in construction order. Raises `RunError` with the first difference, and if the order of the file is
    unreliable while several layers have equal kind and shapes.
    """
    ours, theirs = Counter(a.signature for a in model), Counter(a.signature for a in file)
    if ours == theirs and max(ours.values()) == 1:  # all signatures differ, so the order does not matter
        place = {a.signature: a.path for a in model}
        return {a.path: place[a.signature] for a in file}
    ordered = construction_order(file)
    if ordered is None and ours == theirs:
        raise RunError(
            f"{what} has the layers of this architecture under other names and not in construction order; several "
            "have equal shapes, so they cannot be matched: save it with torch.save(model.state_dict(), FILE)"
        )
    for k, (a, b) in enumerate(zip(ordered or file, model, strict=False)):
        if a.signature != b.signature:
            raise RunError(f"{what} is of another architecture: its layer {k + 1} is {a}, that of the model is {b}")
    if len(file) != len(model):
        raise RunError(f"{what} is of another architecture: it has {len(file)} layers, the model has {len(model)}")
    assert ordered is not None  # equal counts and signatures: refused above
    if crossing := _crossing(ordered, model):
        raise RunError(
            f"{what} has the layers of this architecture in another arrangement: {crossing[0]!r} of the file starts or "
            f"ends within {crossing[1]!r} of the model"
        )
    return {a.path: b.path for a, b in zip(ordered, model, strict=True)}


def construction_order(found: Sequence[Layer]) -> list[Layer] | None:
    """Layers in construction order, or None if it is unknown.

    Numbered siblings (`features.0`, `features.1`) are in the order of their numbers. Others keep the order of the file,
    unless that is alphabetical (safetensors sorts) or a module's layers are not contiguous.
    """
    paths = [layer.path for layer in found]
    trusted = paths != sorted(paths) and _contiguous(paths)

    def walk(some: Sequence[Layer], depth: int) -> list[Layer] | None:
        children: dict[str, list[Layer]] = {}
        for layer in some:
            parts = layer.path.split(".")
            children.setdefault(parts[depth] if depth < len(parts) else "", []).append(layer)
        if len(children) > 1 and all(c.isdecimal() for c in children):
            children = {c: children[c] for c in sorted(children, key=int)}
        elif len(children) > 1 and not trusted:
            return None
        result: list[Layer] = []
        for name, inside in children.items():
            ordered = walk(inside, depth + 1) if name and len(inside) > 1 else inside
            if ordered is None:
                return None
            result += ordered
        return result

    return walk(found, 0)


def _contiguous(paths: Sequence[str]) -> bool:
    """Whether every module's layers are contiguous and numbered siblings of the same word are in ascending order."""
    seen: dict[str, None] = {}
    before: tuple[str, ...] = ()
    last: dict[tuple[str, str], int] = {}
    for path in paths:
        parts = tuple(path.split("."))
        for depth in range(1, len(parts) + 1):
            prefix = ".".join(parts[:depth])
            if parts[:depth] == before[:depth]:
                continue
            if prefix in seen:
                return False
            seen[prefix] = None
            word, number = _split(parts[depth - 1])
            if number is not None:
                siblings = (".".join(parts[: depth - 1]), word)
                if number < last.get(siblings, -1):
                    return False
                last[siblings] = number
        before = parts
    return True


def _crossing(file: Sequence[Layer], model: Sequence[Layer]) -> tuple[str, str] | None:
    """Two modules, of the file and of the model, that overlap without one containing the other; None if none.

    A pre-activation network can have the same sequence of layers as another network with other block boundaries.
    """
    for name, theirs in _spans(file).items():
        for other, ours in _spans(model).items():
            if theirs & ours and not (theirs <= ours or ours <= theirs):
                return name, other
    return None


def _spans(found: Sequence[Layer]) -> dict[str, frozenset[int]]:
    spans: dict[str, set[int]] = {}
    for k, layer in enumerate(found):
        parts = layer.path.split(".")
        for depth in range(1, len(parts)):
            spans.setdefault(".".join(parts[:depth]), set()).add(k)
    return {name: frozenset(span) for name, span in spans.items()}
