"""A run that compiles nothing loads no compiler, and steps as torch does."""

import sys
from pathlib import Path
from textwrap import dedent

import pytest
import torch
from commands import python

from dfkd_bench.utils import eager

HEAVY = ("torch._dynamo", "triton.runtime", "sympy", "sklearn", "torchmetrics", "torchvision", "pandas", "matplotlib")


@pytest.mark.long
def test_a_run_loads_neither_compiler_nor_libraries_of_the_evaluation(tmp_path: Path) -> None:
    code = """
        import sys
        import dfkd_bench
        (record,) = dfkd_bench.run({"method": "cpsc", "budget": "smoke"}, sys.argv[1])
        print(record["result"]["status"], sorted(m for m in sys.argv[2:] if m in sys.modules))
    """
    assert python(dedent(code), tmp_path, *HEAVY).strip().splitlines()[-1] == "complete []"


STEPS = """
    import sys
    import torch
    from dfkd_bench.utils import eager
    if sys.argv[1] == "spared":
        eager.avoid_compiler_import()
    torch.manual_seed(0)
    for kind, terms in (
        (torch.optim.SGD, dict(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)),
        (torch.optim.Adam, dict(lr=0.1, betas=(0.5, 0.9))),
        (torch.optim.AdamW, dict(lr=0.1)),
        (torch.optim.RMSprop, dict(lr=0.1)),
    ):
        x = torch.randn(4, requires_grad=True)
        optimiser = kind([x], **terms)
        for _ in range(3):
            optimiser.zero_grad()
            (x * x * torch.arange(4)).sum().backward()
            optimiser.step()
            assert torch.is_grad_enabled()
        optimiser.load_state_dict(optimiser.state_dict())
        loss = optimiser.step(lambda: torch.tensor(2.5))
        print(kind.__name__, x.tolist(), float(loss), sorted(optimiser.state_dict()["state"][0]))
    print("torch._dynamo" in sys.modules, file=sys.stderr)
    assert ("torch._dynamo" in sys.modules) == (sys.argv[1] != "spared")
"""


@pytest.mark.long
def test_steps_are_those_of_torch() -> None:
    spared = python(dedent(STEPS), "spared")
    assert spared == python(dedent(STEPS), "usual")
    assert spared.count("\n") == 4


@pytest.mark.long
def test_what_compiles_finds_optimisers_shielded_again() -> None:
    code = """
        import sys
        import torch
        from dfkd_bench.utils import eager
        eager.avoid_compiler_import()
        eager.avoid_compiler_import()
        assert any(vars(f).get(eager.SHIELD) is f for f in eager._shielded())
        eager.allow_compiler()
        assert not any(eager.SHIELD in vars(f) for f in eager._shielded())
        x = torch.ones(1, requires_grad=True)
        torch.optim.SGD([x], lr=0.1)
        print("torch._dynamo" in sys.modules)
    """
    assert python(dedent(code)).strip() == "True"


@pytest.mark.long
def test_a_differentiable_step_is_torchs_own() -> None:
    code = """
        import sys
        import torch
        from dfkd_bench.utils import eager
        eager.avoid_compiler_import()
        x = torch.ones(1, requires_grad=True)
        y = x * 2.0
        y.retain_grad()
        optimiser = torch.optim.SGD([y], lr=torch.tensor(0.1, requires_grad=True), differentiable=True)
        y.grad = torch.ones(1)
        optimiser.step()
        y.sum().backward()
        print(x.grad)
    """
    assert python(dedent(code)).strip() == "tensor([2.])"


def test_nothing_is_touched_where_the_compiler_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch._dynamo", sys.modules.get("torch._dynamo", sys))
    before = torch.optim.SGD.step
    marked = [f for f in eager._shielded() if vars(f).get(eager.SHIELD) is f]
    eager.avoid_compiler_import()
    assert torch.optim.SGD.step is before
    assert [f for f in eager._shielded() if vars(f).get(eager.SHIELD) is f] == marked
