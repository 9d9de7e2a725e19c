"""A base in eight bits, on the CPU: near the full one, adaptable, and half as large. CUDA was not at hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from engine.adapters.adapters import FILE, Attached, plain_copy
from engine.bases.base import BaseModel
from engine.bases.quantised import HEADROOM, Int8Linear, quantise, too_large
from engine.drawing.drawing import draw
from storage.errors import UserError
from tests.engine.learning import learn
from tests.engine.tiny import LORA, SIDE, asked, load


def test_a_layer_is_within_half_a_step_of_what_it_was() -> None:
    torch.manual_seed(0)
    layer, features = nn.Linear(256, 128), torch.randn(4, 256)
    small = Int8Linear(layer)
    step = layer.weight.detach().abs().amax(dim=1, keepdim=True) / 127
    assert ((small.dequantised() - layer.weight).abs() <= step / 2 + 1e-7).all()
    error = (small(features) - layer(features)).norm() / layer(features).norm()
    assert 0 < error < 0.01
    scale = small.scale.clone()
    assert small.to(torch.bfloat16).weight.dtype == torch.int8
    assert torch.equal(small.scale, scale)
    assert small.to(torch.bfloat16)(features.bfloat16()).dtype == torch.bfloat16


def test_gradients_pass_a_layer_that_keeps_no_copy_of_its_weight() -> None:
    torch.manual_seed(0)
    small, features = Int8Linear(nn.Linear(256, 128)), torch.randn(4, 256, requires_grad=True)
    kept = list[torch.Tensor]()

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = small(features)
    assert not [one for one in kept if one.is_floating_point() and one.numel() >= small.weight.numel()]
    outputs.square().sum().backward()
    expected = (2 * outputs @ small.dequantised()).detach()
    assert features.grad is not None
    torch.testing.assert_close(features.grad, expected)


def test_eight_bits_are_chosen_only_where_the_full_base_does_not_fit() -> None:
    layer = nn.Linear(1000, 1000, bias=False)
    wanted = int(1_000_000 * 2 * HEADROOM)
    assert too_large([layer], torch.bfloat16, wanted - 1)
    assert not too_large([layer], torch.bfloat16, wanted)


@pytest.fixture
def small(folders, monkeypatch: pytest.MonkeyPatch) -> BaseModel:
    """The tiny SD 1.x as a card without room would hold it."""
    monkeypatch.setattr("engine.bases.base.free_bytes", lambda device: 0)
    monkeypatch.setattr("engine.bases.quantised.SMALLEST", 1024)
    return load(folders("sd1"))


def test_a_quantised_base_draws_nearly_the_same_and_learns_a_person(small, folders, pictures, tmp_path: Path) -> None:
    assert small.quantised and any(isinstance(part, Int8Linear) for part in small.unet.modules())
    full = load_full(folders)
    ours, theirs = (np.asarray(draw(base, Attached(base), asked())[0].image, float) for base in (small, full))
    assert 0 < np.abs(ours - theirs).mean() < 6
    learn(small, pictures, LORA, tmp_path / FILE, side=SIDE)
    learned = draw(small, Attached(small), asked(tmp_path))[0].image
    assert np.abs(np.asarray(learned, float) - ours).mean() > 0
    with pytest.raises(UserError, match="quantised_base"):
        plain_copy(small.unet)


def load_full(folders) -> BaseModel:
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(folders("sd1"), dtype=torch.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.bases.base.free_bytes", lambda device: None)
        return BaseModel(pipeline, str(folders("sd1")), torch.device("cpu"))


def test_only_large_layers_change() -> None:
    module = nn.Sequential(nn.Linear(8, 8), nn.Linear(256, 128), nn.Conv2d(64, 64, 3))
    assert quantise(module) == 256 * 128
    assert [type(part) for part in module] == [nn.Linear, Int8Linear, nn.Conv2d]
