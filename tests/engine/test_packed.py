"""Drawing and learning with packed layers: the same numbers, and a base that is itself again afterwards."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from engine.adapters import lora
from engine.adapters.adapters import FILE, Attached
from engine.bases.base import BaseModel, drawing_dtype
from engine.device.packed import Packed, packed
from engine.drawing.drawing import draw
from tests.engine.learning import learn
from tests.engine.tiny import LORA, SIDE, asked, assert_same, load

CPU = torch.device("cpu")


@pytest.fixture
def half(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor that has bfloat16."""
    monkeypatch.setattr("engine.device.precision.compute_dtype", lambda device: torch.bfloat16)


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("settings", [{"padding": 1}, {"stride": 2, "padding": 1}, {"dilation": 2}])
def test_packed_weights_give_the_same_convolution(groups: int, settings: dict[str, int]) -> None:
    layer = nn.Conv2d(16, 32, 3, groups=groups, **settings).bfloat16().requires_grad_(False)
    packed_one = Packed(lambda: layer.weight, layer.bias, layer, groups)
    for rows, side in ((2, 9), (3, 8)):
        features = torch.randn(rows, 16, side, 8, dtype=torch.bfloat16)
        wanted, found = layer(features), packed_one(features)
        assert found.is_contiguous(memory_format=torch.channels_last)
        assert found.shape == wanted.shape and torch.allclose(found.float(), wanted.float(), atol=2e-2, rtol=2e-2)


def test_only_bfloat16_on_a_cpu_is_packed(monkeypatch) -> None:
    layer = nn.Conv2d(4, 4, 3)
    module = nn.Sequential(layer)
    for dtype, device, packs in (
        (torch.bfloat16, CPU, True), (torch.bfloat16, torch.device("meta"), False), (torch.float32, CPU, False),
    ):  # fmt: skip
        monkeypatch.setattr("engine.device.precision.compute_dtype", lambda device, dtype=dtype: dtype)
        with packed(module, device):
            assert ("forward" in vars(layer)) == packs


@torch.no_grad()
def test_packed_layers_compute_packed_and_afterwards_are_themselves_again(half) -> None:
    module = nn.Sequential(
        nn.Conv2d(4, 8, 3), nn.GroupNorm(2, 8), nn.Conv2d(8, 4, 1, bias=False), nn.Conv2d(4, 9, 3), nn.Linear(5, 3),
    )  # fmt: skip
    pointers, features = [layer.weight.data_ptr() for layer in module], torch.randn(2, 4, 9, 9)
    same = nn.Conv2d(4, 4, 3, padding="same")
    with packed(nn.Sequential(same), CPU):
        assert "forward" not in vars(same)
    with torch.autocast("cpu", torch.bfloat16):
        wanted = module(features)
        with packed(module, CPU):
            assert all("forward" in vars(layer) for layer in module)
            found = module(features)
    assert torch.allclose(found.float(), wanted.float(), atol=2e-2, rtol=2e-2)
    assert not any("forward" in vars(layer) for layer in module)
    assert [layer.weight.data_ptr() for layer in module] == pointers


def test_layers_are_looked_for_again_after_a_lora_was_put_on_and_taken_off(half) -> None:
    module = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.Conv2d(4, 4, 3))).requires_grad_(False)
    own = list(module[0])
    with packed(module, CPU):
        assert all("forward" in vars(layer) for layer in own)
    lora.attach(module, ("0",), LORA, "zk1")
    adapted = module[0][0]
    factors = [adapted.lora_A["zk1"], adapted.lora_B["zk1"]]
    with packed(module, CPU, learning=True):
        assert all("forward" in vars(layer) for layer in own)
        assert not any("forward" in vars(layer) for layer in factors)
        with packed(module, CPU):  # a drawing between two steps
            assert all("forward" in vars(layer) for layer in (*own, *factors))
        assert not any("forward" in vars(layer) for layer in factors)
    lora.detach(module)
    with packed(module, CPU):
        assert list(module[0]) == own and all("forward" in vars(layer) for layer in own)
        assert not any("forward" in vars(layer) for layer in factors)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(16, 32, 3, padding=1), nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.Conv2d(16, 32, 3, padding=1, groups=4), nn.Conv2d(16, 32, 3), nn.Conv2d(16, 32, 3, padding=2),
        nn.Conv2d(16, 32, 1), nn.Linear(8, 12), nn.Linear(8, 12, bias=False),
    ],
)  # fmt: skip
def test_what_goes_back_through_frozen_layers_is_the_same(half, layer: nn.Module) -> None:
    module = nn.Sequential(layer.requires_grad_(False))
    features = torch.randn(2, 16, 9, 8, requires_grad=True)

    def through() -> tuple[torch.Tensor, torch.Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            answer = module(features)
        answer.float().square().sum().backward()
        gradient, features.grad = features.grad, None
        assert gradient is not None
        return answer.detach().float(), gradient

    wanted = through()
    with packed(module, CPU, learning=True):
        assert "forward" in vars(layer)
        found = through()
    for one, other in zip(found, wanted, strict=True):
        assert torch.allclose(one, other, atol=2e-2 * float(other.abs().max()))


def test_what_learns_itself_is_not_packed_and_a_drawing_between_leaves_the_rest_packed(half) -> None:
    module = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Conv2d(8, 4, 3).requires_grad_(False))
    with packed(module, CPU, learning=True):
        assert ["forward" in vars(layer) for layer in module] == [False, True]
        learning = vars(module[1])["forward"]
        with packed(module, CPU):
            assert vars(module[1])["forward"] != learning
        assert ["forward" in vars(layer) for layer in module] == [False, True]
        assert vars(module[1])["forward"] == learning
    assert not any("forward" in vars(layer) for layer in module)


def test_a_lora_learns_the_same_through_packed_layers(folders, pictures, tmp_path: Path, monkeypatch, half) -> None:
    files = [tmp_path / name / FILE for name in ("packed", "plain")]
    learn(load(folders("sd1")), pictures, LORA, files[0], side=SIDE)

    def only_drawing(module: nn.Module, device: torch.device, learning: bool = False) -> AbstractContextManager[None]:
        return nullcontext() if learning else packed(module, device)

    monkeypatch.setattr("engine.device.fast.packed", only_drawing)
    learn(load(folders("sd1")), pictures, LORA, files[1], side=SIDE)
    one, other = (load_file(file) for file in files)
    learned = torch.cat([other[name].flatten() for name in other if "lora_B" in name]).float()
    found = torch.cat([one[name].flatten() for name in other if "lora_B" in name]).float()
    # Adam makes as much of the small gradients, whose sign may be rounding's, as of the others.
    assert float((found - learned).norm() / learned.norm()) < 0.1 and float(learned.abs().max()) > 1e-4


def test_a_picture_is_the_same_with_packed_layers(folders, pictures, tmp_path: Path, monkeypatch, half) -> None:
    base = load(folders("sd1"))
    learn(base, pictures, LORA, tmp_path / FILE, side=SIDE)
    attached, drawing = Attached(base), asked(tmp_path)
    own = draw(base, attached, drawing)[0].image
    monkeypatch.setattr("engine.device.fast.packed", lambda *given: nullcontext())
    assert_same(own, draw(base, attached, drawing)[0].image)


def test_a_base_that_rests_as_it_is_drawn_with_draws_the_same(
    folders, pictures, tmp_path: Path, monkeypatch, half
) -> None:
    assert BaseModel.load(str(folders("sd1")), CPU, drawing_dtype).dtype == torch.float32
    monkeypatch.setattr("engine.device.cores.LARGE", 0)
    usual, resting = load(folders("sd1")), BaseModel.load(str(folders("sd1")), CPU, drawing_dtype)
    assert (usual.unet.dtype, resting.unet.dtype, resting.dtype) == (torch.float32, torch.bfloat16, torch.bfloat16)
    assert resting.text_encoder.dtype == torch.float32 and resting.fingerprint == usual.fingerprint
    learn(usual, pictures, LORA, tmp_path / FILE, side=SIDE)
    one, other = (draw(base, Attached(base), asked(tmp_path))[0].image for base in (usual, resting))
    assert_same(one, other, 4)
