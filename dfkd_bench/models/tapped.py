"""The interface of every classifier: logits, named taps (intermediate outputs) and moments of BatchNorm inputs.

Our own models use no hooks: the forward passes values through a `Trace`, which stores the requested ones. Only what is
requested is computed (unused moments would cost 20 % of a published student step), and the forward compiles to one
graph.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from dfkd_bench.blocks.observed_norm import fixed_norm, is_fixed, observed_moments, observed_norm
from dfkd_bench.blocks.precision import at_least_fp32
from dfkd_bench.errors import RunError, did_you_mean
from dfkd_bench.method import Moments, Outputs

M = TypeVar("M", bound=nn.Module)
BN_MEANS = "bn_means"  # a tap of every network: means over space of each BN layer's input, side by side (n, channels)


def batch_moments(x: Tensor) -> Moments:
    """Mean and biased variance (c,) over batch and space of x (n, c, ...), computed in fp32 at least."""
    with torch.autocast(x.device.type, enabled=False):
        x = at_least_fp32(x)
        if x.device.type == "cpu" and x.dim() == 4 and not torch.compiler.is_compiling():
            return observed_moments(x)  # ten times faster than torch.var_mean here
        variance, mean = torch.var_mean(x, dim=[d for d in range(x.dim()) if d != 1], correction=0)
    return mean, variance


def normalise(layer: nn.BatchNorm2d, x: Tensor, observed: bool) -> tuple[Tensor, Moments | None]:
    """Output of a BatchNorm layer for x, and the moments of x if `observed`."""
    if is_fixed(layer, x):
        if not observed:
            return fixed_norm(layer, x), None
        y, mean, variance = observed_norm(layer, x)
        return y, (mean, variance)
    found = batch_moments(x) if observed else None
    result: Tensor = layer(x)
    return result, found


def place(model: M, device: torch.device) -> M:
    """Move a network to `device` in channels_last format, which is faster for convolutions."""
    moved: M = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return moved


class Trace:
    """Stores the requested taps and moments of one forward."""

    def __init__(self, taps: tuple[str, ...] = (), moments: bool = False) -> None:
        self.wanted = taps
        self.taps: dict[str, Tensor] = {}
        self.moments: list[Moments] | None = [] if moments else None
        self.means: list[Tensor] | None = [] if BN_MEANS in taps else None

    def bn(self, layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
        """Apply a BatchNorm layer; store the moments of its input if requested."""
        y, moments = normalise(layer, x, self.moments is not None)
        if self.moments is not None and moments is not None:
            self.moments.append(moments)
        if self.means is not None:
            self.means.append(at_least_fp32(x).flatten(2).mean(2))
        return y

    def tap(self, name: str, x: Tensor) -> Tensor:
        """Return `x`; store it if tap `name` is requested."""
        if name in self.wanted:
            self.taps[name] = x
        return x


class Tapped(nn.Module, ABC):
    """A classifier that gives taps and BatchNorm moments."""

    tap_names: tuple[str, ...] = ("penultimate",)
    raw_taps: Mapping[str, str] = {}  # tap -> name of the same map before the network's last BN and ReLU
    feature_dim: int = 0

    @abstractmethod
    def trace(self, x: Tensor, t: Trace) -> Tensor:
        """Logits (n, classes) of x (n, channels, height, width); calls `t.bn` for BN layers and `t.tap` for taps."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits only."""
        return self.trace(x, Trace())

    def observe(self, x: Tensor, taps: tuple[str, ...] = (), moments: bool = False) -> Outputs:
        """Logits in fp32, the requested taps, and BN moments if requested. Raises `RunError` for an unknown tap."""
        known = [*self.tap_names, *self.raw_taps.values(), BN_MEANS]
        for name in taps:
            if name not in known:
                raise RunError(f"no tap {name!r} in {type(self).__name__}{did_you_mean(name, known)}")
        t = Trace(taps, moments)
        logits = at_least_fp32(self.trace(x, t))
        if t.means is not None:
            t.taps[BN_MEANS] = torch.cat(t.means, 1) if t.means else x.new_zeros(len(x), 0)
        return Outputs(logits, t.taps, tuple(t.moments or ()))

    def bn_layers(self) -> list[nn.BatchNorm2d]:
        """BatchNorm layers in construction order, which is the order of the forward (tested)."""
        return [m for m in self.modules() if isinstance(m, nn.BatchNorm2d)]

    def running_moments(self) -> tuple[Moments, ...]:
        """Running (mean, variance) of every BatchNorm layer, fp32, in the order of `Outputs.moments`."""
        moments: list[Moments] = []
        for layer in self.bn_layers():
            if layer.running_mean is not None and layer.running_var is not None:
                moments.append((at_least_fp32(layer.running_mean), at_least_fp32(layer.running_var)))
        return tuple(moments)


class Hooked(Tapped):
    """The same interface for any other `nn.Module`, by forward hooks.

    `taps` are names of submodules whose outputs become taps. The penultimate features are the input of the last linear
    layer (or of the module `head`), averaged over space. `idle` are names of BatchNorm layers that the forward does not
    use. Logits may be the output, its attribute `logits`, or the first element of a tuple. Raises `RunError` if there
    is no head.
    """

    def __init__(
        self, module: nn.Module, taps: Sequence[str] = (), head: str | None = None, idle: Sequence[str] = ()
    ) -> None:
        super().__init__()
        self.module = module
        named = dict(module.named_modules())
        linear = [n for n, m in named.items() if isinstance(m, nn.Linear)]
        head = head or (linear[-1] if linear else None)
        for name in (*taps, *([head] if head else [])):
            if name not in named:
                raise RunError(f"the model has no module {name!r}{did_you_mean(name, [n for n in named if n])}")
        if head is None:
            raise RunError("the model has no linear layer, whose input is the penultimate features: name its head")
        self.head, self.idle = head, frozenset(idle)
        self.tap_names = (*taps, "penultimate")
        self.feature_dim = int(getattr(named[head], "in_features", getattr(named[head], "in_channels", 0)))

    def bn_layers(self) -> list[nn.BatchNorm2d]:
        """BatchNorm layers with running statistics that the forward uses, in construction order."""
        layers = [(n, m) for n, m in self.module.named_modules() if isinstance(m, nn.BatchNorm2d)]
        return [m for n, m in layers if m.running_mean is not None and n not in self.idle]

    def trace(self, x: Tensor, t: Trace) -> Tensor:
        """Logits of x from the wrapped module; the hooks are removed after the call."""
        handles = []
        named = dict(self.module.named_modules())
        layers = self.bn_layers()
        moments: dict[int, Moments] = {}
        means: dict[int, Tensor] = {}

        def on_output(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
            def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
                t.tap(name, output)

            return hook

        def on_head(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            t.tap("penultimate", pooled(inputs[0]))

        def on_bn(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if t.moments is not None:
                moments[id(layer)] = batch_moments(inputs[0])
            if t.means is not None:
                means[id(layer)] = at_least_fp32(inputs[0]).flatten(2).mean(2)

        for name in self.tap_names[:-1]:
            if name in t.wanted:
                handles.append(named[name].register_forward_hook(on_output(name)))
        if "penultimate" in t.wanted:
            handles.append(named[self.head].register_forward_pre_hook(on_head))
        if t.moments is not None or t.means is not None:
            handles += [layer.register_forward_pre_hook(on_bn) for layer in layers]
        try:
            logits = logits_in(self.module(x))
        finally:
            for handle in handles:
                handle.remove()
        if t.moments is not None:
            t.moments.extend(moments[id(layer)] for layer in layers if id(layer) in moments)
        if t.means is not None:
            t.means.extend(means[id(layer)] for layer in layers if id(layer) in means)
        return logits


def spatial_mean(x: Tensor) -> Tensor:
    """Mean over space of x (n, c, h, w): (n, c).

    Bitwise equal to `x.mean((2, 3))`. In channels_last its gradient keeps the memory layout of x, without which the
    backward pass of the ReLU before it is ten times slower.
    """
    return x.permute(0, 2, 3, 1).flatten(1, 2).mean(1)


def pooled(x: Tensor) -> Tensor:
    """Features (n, d): maps (n, d, height, width) are averaged over space, other shapes flattened."""
    return spatial_mean(x) if x.dim() == 4 else x.flatten(1)


def logits_in(output: Any) -> Tensor:
    """Logits in a model's output: the output itself, its attribute `logits`, or the first element of a tuple.

    Raises `RunError` if that is not a tensor.
    """
    logits = getattr(output, "logits", output[0] if isinstance(output, tuple | list) and output else output)
    if not isinstance(logits, Tensor):
        raise RunError(f"the model returns {type(output).__name__}, which contains no logits")
    return logits
