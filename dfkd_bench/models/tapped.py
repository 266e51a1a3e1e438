"""One interface for every classifier: logits, named taps, and BatchNorm input moments by an explicit forward.

No hooks on our own models: a `Trace` travels through the forward and writes down what was asked for. Nothing that was
not asked for is computed (moments cost 20 % of a published student step where nobody reads them), and the forward
traces as one graph.
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
    """Mean and biased variance over batch and space of x (n, c, ...), computed in fp32 at least."""
    with torch.autocast(x.device.type, enabled=False):
        x = at_least_fp32(x)
        if x.device.type == "cpu" and x.dim() == 4 and not torch.compiler.is_compiling():
            return observed_moments(x)  # where torch's own is an order of magnitude slower
        variance, mean = torch.var_mean(x, dim=[d for d in range(x.dim()) if d != 1], correction=0)
    return mean, variance


def normalise(layer: nn.BatchNorm2d, x: Tensor, observed: bool) -> tuple[Tensor, Moments | None]:
    """What a BatchNorm layer makes of x, and the moments of x where it is `observed`."""
    if is_fixed(layer, x):
        if not observed:
            return fixed_norm(layer, x), None
        y, mean, variance = observed_norm(layer, x)
        return y, (mean, variance)
    found = batch_moments(x) if observed else None
    result: Tensor = layer(x)
    return result, found


def place(model: M, device: torch.device) -> M:
    """Move a network to `device`, in the memory format that convolutions like."""
    moved: M = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return moved


class Trace:
    """What one forward is asked to write down."""

    def __init__(self, taps: tuple[str, ...] = (), moments: bool = False) -> None:
        self.wanted = taps
        self.taps: dict[str, Tensor] = {}
        self.moments: list[Moments] | None = [] if moments else None
        self.means: list[Tensor] | None = [] if BN_MEANS in taps else None

    def bn(self, layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
        """Apply a BatchNorm layer, noting the moments of its input where they are wanted."""
        y, found = normalise(layer, x, self.moments is not None)
        if self.moments is not None and found is not None:
            self.moments.append(found)
        if self.means is not None:
            self.means.append(at_least_fp32(x).flatten(2).mean(2))
        return y

    def tap(self, name: str, x: Tensor) -> Tensor:
        """Pass `x` on, noting it where tap `name` is wanted."""
        if name in self.wanted:
            self.taps[name] = x
        return x


class Tapped(nn.Module, ABC):
    """A classifier whose forward can be observed."""

    tap_names: tuple[str, ...] = ("penultimate",)
    raw_taps: Mapping[str, str] = {}  # feature map -> the tap that is this map before the network's last BN and ReLU
    feature_dim: int = 0

    @abstractmethod
    def trace(self, x: Tensor, t: Trace) -> Tensor:
        """Logits (n, classes) of x (n, channels, height, width), passing BN layers and taps through `t`."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits alone."""
        return self.trace(x, Trace())

    def observe(self, x: Tensor, taps: tuple[str, ...] = (), moments: bool = False) -> Outputs:
        """Logits in fp32, the taps asked for, and BN moments if asked for. Raises `RunError` for an unknown tap."""
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
        """BatchNorm layers in the order in which the forward meets them (construction order, tested)."""
        return [m for m in self.modules() if isinstance(m, nn.BatchNorm2d)]

    def running_moments(self) -> tuple[Moments, ...]:
        """Running (mean, variance) of every BatchNorm layer, fp32, in the order of `Outputs.moments`."""
        found: list[Moments] = []
        for layer in self.bn_layers():
            if layer.running_mean is not None and layer.running_var is not None:
                found.append((at_least_fp32(layer.running_mean), at_least_fp32(layer.running_var)))
        return tuple(found)


class Hooked(Tapped):
    """The same interface for any foreign classifier, by forward hooks.

    `taps` names submodules whose outputs become taps. The penultimate features are the input of the last linear layer
    (or of the module named by `head`), averaged over space. `idle` names BatchNorm layers that a forward does not meet.
    Outputs that wrap their logits (an attribute `logits`, or the first of a tuple) are unwrapped. Raises `RunError`
    where no head can be found.
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
            raise RunError("the model has no linear layer to take penultimate features from: name one as the head")
        self.head, self.idle = head, frozenset(idle)
        self.tap_names = (*taps, "penultimate")
        self.feature_dim = int(getattr(named[head], "in_features", getattr(named[head], "in_channels", 0)))

    def bn_layers(self) -> list[nn.BatchNorm2d]:
        """BatchNorm layers that keep running statistics and are met by a forward, in construction order."""
        found = [(n, m) for n, m in self.module.named_modules() if isinstance(m, nn.BatchNorm2d)]
        return [m for n, m in found if m.running_mean is not None and n not in self.idle]

    def trace(self, x: Tensor, t: Trace) -> Tensor:
        """Forward the wrapped module with hooks that live for this call alone."""
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

    `x.mean((2, 3))` to the bit; written so that in channels_last its gradient is laid out as x is, without which the
    way back through the ReLU before it takes ten times as long.
    """
    return x.permute(0, 2, 3, 1).flatten(1, 2).mean(1)


def pooled(x: Tensor) -> Tensor:
    """Features (n, d): maps (n, d, height, width) averaged over space, anything else flattened."""
    return spatial_mean(x) if x.dim() == 4 else x.flatten(1)


def logits_in(output: Any) -> Tensor:
    """The tensor of logits in what a foreign model returns: itself, `.logits`, or the first of a tuple."""
    found = getattr(output, "logits", output[0] if isinstance(output, tuple | list) and output else output)
    if not isinstance(found, Tensor):
        raise RunError(f"the model returns {type(output).__name__}, in which no logits are to be found")
    return found
