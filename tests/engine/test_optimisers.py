"""The engine's AdamW is torch's to the bit and goes on from what torch's left behind; clipping is torch's, too."""

import copy
import gc
import subprocess
import sys
import weakref

import pytest
import torch

from engine.learning import blocks, optimisers
from engine.learning.optimisers import AdamW, clip


def stepped(optimiser: torch.optim.Optimizer, parameters: list[torch.Tensor], steps: range) -> None:
    for step in steps:
        for number, parameter in enumerate(parameters):
            random = torch.Generator().manual_seed(10 * step + number)
            # One of them has no gradient at first.
            parameter.grad = torch.randn(parameter.shape, generator=random) if number or step > 1 else None
        for group in optimiser.param_groups:
            group["lr"] = 0.01 / (1 + step)
        optimiser.step()
        optimiser.zero_grad()


def test_it_steps_as_torchs_does_and_either_goes_on_from_the_others_state() -> None:
    start = [torch.nn.Parameter(torch.randn(shape)) for shape in ((3,), (4, 5), (2, 3, 1))]
    ours, theirs = ([torch.nn.Parameter(one.detach().clone()) for one in start] for _ in range(2))
    own = AdamW([{"params": ours[:1], "lr": 0.1}, {"params": ours[1:], "lr": 0.2, "weight_decay": 0.5}], 0.01)
    torchs = torch.optim.AdamW(
        [{"params": theirs[:1], "lr": 0.1}, {"params": theirs[1:], "lr": 0.2, "weight_decay": 0.5}],
        weight_decay=0.01, fused=True,
    )  # fmt: skip
    stepped(own, ours, range(4))
    stepped(torchs, theirs, range(4))
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
    states = [copy.deepcopy(optimiser.state_dict()["state"]) for optimiser in (own, torchs)]
    for number in range(3):
        assert all(torch.equal(value, states[1][number][name]) for name, value in states[0][number].items())
    groups = own.state_dict()["param_groups"]
    own.load_state_dict({"state": states[1], "param_groups": groups})
    stepped(own, ours, range(4, 6))
    stepped(torchs, theirs, range(4, 6))
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
    assert not all(torch.equal(one, other) for one, other in zip(ours, start, strict=True))


WHOLE_LIFE = """
import sys, torch
from engine.learning.optimisers import AdamW, clear_state

weight = torch.nn.Parameter(torch.zeros(3))
weight.grad = torch.ones(3)
optimiser = AdamW([{"params": [weight], "lr": 0.1}], 0.01)
optimiser.step()
optimiser.zero_grad()
optimiser.load_state_dict(optimiser.state_dict())
clear_state(optimiser)
assert not optimiser.state
sys.exit("torch._dynamo" in sys.modules)
"""


def test_no_step_of_its_life_imports_torchs_compiler() -> None:
    assert subprocess.run([sys.executable, "-c", WHOLE_LIFE]).returncode == 0


def test_a_cleared_state_holds_no_memory_and_the_optimiser_starts_again() -> None:
    weight = torch.nn.Parameter(torch.zeros(4, 3))
    weight.grad_dtype = torch.bfloat16
    optimiser = AdamW([{"params": [weight], "lr": 0.1}], 0.01)
    for _ in range(2):
        weight.grad = torch.ones(4, 3, dtype=torch.bfloat16)
        optimiser.step()
        kept = [weakref.ref(value) for value in optimiser.state[weight].values()]
        optimisers.clear_state(optimiser)
        gc.collect()
        assert [ref() for ref in kept] == [None] * 3
    plain = torch.optim.SGD([weight], momentum=0.9)
    weight.grad = torch.ones(4, 3, dtype=torch.bfloat16)
    plain.step()
    optimisers.clear_state(plain)
    assert not plain.state


@pytest.fixture(params=[1, 2])
def cores(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def test_gradients_in_half_precision_have_their_mean_kept_so_and_a_state_goes_on_to_the_bit(cores, monkeypatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_SIZE", {"cpu": 16})
    start = [torch.randn(shape) for shape in ((3,), (7, 5), (2, 3, 4), (1, 40))]

    def fresh() -> list[torch.nn.Parameter]:
        parameters = [torch.nn.Parameter(one.clone()) for one in start]
        for parameter in parameters[1:]:
            parameter.grad_dtype = torch.bfloat16
        return parameters

    def move(optimiser: AdamW, parameters: list[torch.nn.Parameter], step: int) -> None:
        for number, parameter in enumerate(parameters):
            gradient = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(10 * step + number))
            parameter.grad = gradient.to(parameter.grad_dtype)
        optimiser.step()

    parameters, other = fresh(), fresh()
    own, later = (AdamW([{"params": several, "lr": 0.1}], 0.01) for several in (parameters, other))
    expected = [(one.clone(), torch.zeros_like(one), torch.zeros_like(one)) for one in start]
    for step in range(4):
        if step == 2:
            later.load_state_dict(copy.deepcopy(own.state_dict()))
            for one, same in zip(other, parameters, strict=True):
                one.data.copy_(same.data)
        move(own, parameters, step)
        if step >= 2:
            move(later, other, step)
        for parameter, (weights, mean, squares) in zip(parameters, expected, strict=True):
            gradient = parameter.grad.float()
            weights.mul_(1 - 0.1 * 0.01)
            mean.lerp_(gradient, 0.1)
            squares.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
            root = (squares / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8
            weights.sub_(0.1 * (mean / (1 - 0.9 ** (step + 1))) / root)
            mean.copy_(mean.to(parameter.grad_dtype))
            assert torch.allclose(parameter, weights, atol=1e-5)
    assert [own.state[one]["exp_avg"].dtype for one in parameters] == [torch.float32, *[torch.bfloat16] * 3]
    assert all(torch.equal(one, same) for one, same in zip(other, parameters, strict=True))
    for one, same in zip(other, parameters, strict=True):
        assert all(torch.equal(value, own.state[same][name]) for name, value in later.state[one].items())


@pytest.mark.parametrize("most", [1e9, 0.5])
def test_gradients_are_clipped_as_torch_clips_them(cores, most: float) -> None:
    ours = [torch.nn.Parameter(torch.randn(shape)) for shape in ((5, 9), (4, 5), (2, 3, 1))]
    for parameter in ours[:2]:
        parameter.grad = torch.randn_like(parameter)
    theirs = copy.deepcopy(ours)
    for one, other in zip(ours[:2], theirs, strict=False):
        other.grad = one.grad.clone()
    clip(ours, most)
    torch.nn.utils.clip_grad_norm_(theirs, most)
    assert all(torch.equal(one.grad, other.grad) for one, other in zip(ours[:2], theirs, strict=False))
    assert ours[2].grad is None
