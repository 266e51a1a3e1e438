"""A method with its add-ons, as one `Method` for loop, meter, checkpoint and conformance checks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor

from dfkd_bench.addon import AddOn, Loss, Sample
from dfkd_bench.errors import RunError
from dfkd_bench.method import Batch, Context, Flags, Method, Outputs, Privileges, StudentRecipe
from dfkd_bench.training.context import NetworkView, RunContext
from dfkd_bench.training.loop import taps_of
from dfkd_bench.utils.seeding import derive, seed_global


class Composed(Method):
    """Calls the method; calls of `sample` and `distill_loss` go through the add-ons, the outermost (last) first.

    `own`: the privileges of the method itself; `addons`: (name, add-on), innermost first. Raises `RunError` if an
    add-on refuses the method.
    """

    def __init__(self, method: Method, own: Privileges, addons: Sequence[tuple[str, AddOn]]) -> None:
        super().__init__(method.config)
        self.method, self.own, self.addons = method, own, tuple(addons)
        self._shown: list[tuple[Sequence[str], Sequence[str]]] = []  # taps of (student, teacher) for the method, then
        self._sample: Sample = method.sample  # for each add-on
        self._loss: Loss = partial(self._show, 0, method.distill_loss)
        for k, (name, addon) in enumerate(addons, 1):
            if why := addon.refuse(method.flags):
                raise RunError(f"add-on {name} cannot go around this method: {why}")
            self._sample = partial(addon.sample, inner=self._sample)
            self._loss = partial(self._show, k, partial(addon.distill_loss, inner=self._loss))

    @property
    def privileges(self) -> Privileges:  # type: ignore[override]  # of the instances, not of a class
        """The union of the privileges of all parts."""
        return union_of(self.own, *(addon.privileges for _, addon in self.addons))

    @property
    def flags(self) -> Flags:
        """The method's flags, with the taps of all add-ons; `rowwise` is False if an add-on overrides `sample`."""
        flags = self.method.flags
        taps = [*flags.distill_taps, *(tap for _, addon in self.addons for tap in addon.distill_taps)]
        no_sample = all(type(addon).sample is AddOn.sample for _, addon in self.addons)
        return dataclasses.replace(flags, rowwise=flags.rowwise and no_sample, distill_taps=tuple(dict.fromkeys(taps)))

    @property
    def recipe(self) -> StudentRecipe:
        """The method's."""
        return self.method.recipe

    def setup(self, context: Context) -> None:
        """Set up each part with a context of its own privileges.

        The method is set up first, so its initial weights are the same with and without add-ons.
        """
        whole = cast(RunContext, context)
        self.context = context
        scope = whole.scoped("", self.own)
        self.method.setup(scope)
        taps = self._admit(scope, self.method.flags.distill_taps, ())
        for name, addon in self.addons:
            seed_global(derive(whole.streams.seed, f"addon/{name}"), "setup")
            scope = whole.scoped(name, addon.privileges)
            addon.setup(scope)
            taps = self._admit(scope, addon.distill_taps, taps)

    def _admit(self, scope: RunContext, own: tuple[str, ...], within: tuple[str, ...]) -> tuple[str, ...]:
        """Store the taps that `distill_loss` of a part gets: its own and those of the parts inside; returns both.

        Raises `PrivilegeError` for teacher taps that the part uses without declaring them.
        """
        cast(NetworkView, scope.teacher).check(taps_of(scope.teacher, own))
        features = ("penultimate",) if scope.privileges.penultimate else ()
        taps = tuple(dict.fromkeys([*within, *own, *features]))
        self._shown.append((taps_of(scope.student, (*taps, "penultimate")), taps_of(scope.teacher, taps)))
        return taps

    def _show(self, part: int, loss: Loss, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
        """`loss` of a part, without the taps that only outer add-ons use: the part sees what it sees without them."""
        ours, theirs = self._shown[part]
        return loss(batch, select_taps(student, ours), select_taps(teacher, theirs))

    def synthesize(self) -> Mapping[str, Tensor]:
        """The method's."""
        return self.method.synthesize()

    def sample(self, n: int) -> Batch:
        """Through every add-on."""
        return self._sample(n)

    def distill_loss(self, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
        """Through every add-on."""
        return self._loss(batch, student, teacher)

    def after_distill_step(self, batch: Batch) -> None:
        """The method's, then each add-on's."""
        self.method.after_distill_step(batch)
        for _, addon in self.addons:
            addon.after_distill_step(batch)

    def on_epoch_start(self, epoch: int) -> None:
        """The method's, then each add-on's."""
        self.method.on_epoch_start(epoch)
        for _, addon in self.addons:
            addon.on_epoch_start(epoch)

    def on_epoch_end(self, epoch: int) -> None:
        """The method's, then each add-on's."""
        self.method.on_epoch_end(epoch)
        for _, addon in self.addons:
            addon.on_epoch_end(epoch)

    def preview(self, n: int, stream: torch.Generator) -> Batch:
        """The method's: add-ons make no images."""
        return self.method.preview(n, stream)


def select_taps(outputs: Outputs, names: Sequence[str]) -> Outputs:
    """`outputs` with only the taps of these names."""
    return dataclasses.replace(outputs, taps={name: tap for name, tap in outputs.taps.items() if name in names})


def union_of(*cards: Privileges) -> Privileges:
    """The union of declared privileges."""
    return Privileges(**{name: True for card in cards for name in card.declared()})


def without_addons(method: Method) -> Method:
    """The method itself, without its add-ons."""
    return method.method if isinstance(method, Composed) else method


def method_and_addons(method: Method) -> list[object]:
    """The method itself and each of its add-ons."""
    return [method.method, *(addon for _, addon in method.addons)] if isinstance(method, Composed) else [method]
