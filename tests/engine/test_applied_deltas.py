"""Full DreamBooth applied to rows of a batch draws as the difference added to the weights, and changes no weight."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from engine.adapters import adapters
from engine.adapters.adapters import FILE, AdapterFacts, Attached, facts_of, plain_copy, write
from engine.adapters.deltas import compress, read_delta, restored
from engine.bases.base import BaseModel, plain_parameters
from engine.bases.quantised import Int8Linear
from engine.drawing.denoising import Sampling, denoise, noise
from engine.drawing.drawing import draw, make_plan
from engine.recipe import Recipe
from storage.errors import UserError
from tests.engine.learning import learn
from tests.engine.tiny import LORA, SIDE, applied, asked, assert_same, load, together

PEOPLE = ("ann", "bob")


def moved(base: BaseModel, seed: int, size: float) -> Iterator[tuple[str, Tensor]]:
    """A difference in every weight of the denoiser, along two directions of each matrix, `size` of the weight's own."""
    random = torch.Generator().manual_seed(seed)
    for name, weight in plain_parameters(base.unet):
        if weight.ndim < 2:
            yield name, size * torch.randn(weight.shape, generator=random)
        else:
            matrix = weight.flatten(1)
            left, right = (torch.randn(side, 2, generator=random) for side in matrix.shape)
            change = left @ right.T
            yield name, (size * weight.float().norm() / change.norm() * change).reshape(weight.shape)


def learned(base: BaseModel, folder: Path, seed: int = 0, size: float = 0.3) -> Path:
    """A full DreamBooth avatar with a random difference instead of a training."""
    start = base.family.denoiser
    delta = compress(lambda: ((f"{start}.{name}", change) for name, change in moved(base, seed, size)))
    write(delta.tensors, AdapterFacts("zk1", "man", "dreambooth", base.source, {}, 0), folder / FILE, {})
    return folder


@torch.no_grad()
def filled(base: BaseModel, folder: Path, dtype: torch.dtype | None = None) -> nn.Module:
    """The reference: a copy of the denoiser with the difference added to its weights, in their own dtype."""
    copied, stored = plain_copy(base.unet, dtype), load_file(folder / FILE)
    for name, weight in copied.named_parameters():
        change = restored(stored, f"{base.family.denoiser}.{name}", weight.shape)
        if change is not None:
            weight += change.to(weight)
    return copied


def seen(base: BaseModel, denoiser: nn.Module) -> Tensor:
    """Latents of two rows after three steps with guidance."""
    words = base.encode_prompts(["a man", "a man in a suit"])
    latents = noise([3, 4], base.latent_shape(SIDE, SIDE))
    return denoise(denoiser, base, latents, words, base.encode_negatives([""]), Sampling(3, 3.0))


@pytest.mark.parametrize(
    ("family", "copied"), [("sd1", 0), *((family, adapters.COPIED_ROWS) for family in ("sd1", "sd2", "sdxl", "klein"))]
)
def test_an_applied_difference_draws_as_one_added_to_the_weights(
    folders, family: str, copied: int, tmp_path: Path, monkeypatch, exact
) -> None:
    monkeypatch.setattr(adapters, "COPIED_ROWS", copied)
    base = load(folders(family))
    ann, bob = (learned(base, tmp_path / name, seed) for seed, name in enumerate(PEOPLE))
    plain, attached = seen(base, base.unet), Attached(base)
    with applied(attached, [[(ann, 1.0)]] * 2) as denoiser:
        predicted = seen(base, denoiser)
    with applied(attached, [[(ann, 1.0)], [(bob, 1.0)]]) as denoiser:
        mixed = seen(base, denoiser)
    ones, others = seen(base, filled(base, ann)), seen(base, filled(base, bob))
    assert torch.allclose(predicted, ones, atol=2e-3) and torch.allclose(mixed[0], ones[0], atol=2e-3)
    assert torch.allclose(mixed[1], others[1], atol=2e-3)
    assert min(float((ones - plain).abs().max()), float((ones[1] - others[1]).abs().max())) > 0.05
    assert torch.equal(seen(base, base.unet), plain)


def test_everybody_in_one_batch_gets_the_picture_drawn_alone(folders, pictures, tmp_path: Path, exact) -> None:
    base = load(folders("sd1"))
    ann, bob = (learned(base, tmp_path / name, seed, 0.1) for seed, name in enumerate(PEOPLE))
    learn(base, pictures, replace(LORA, text_encoder=True), tmp_path / "lora" / FILE, token="zk2", side=SIDE)
    attached = Attached(base)
    drawings = [
        asked(ann, count=2), asked(bob), asked(tmp_path / "lora"), asked(), asked(bob, tmp_path / "lora"),
        asked(ann, weights=(0.5,)), asked(ann, bob, weights=(0.5, 0.5)),
    ]  # fmt: skip
    assert len({make_plan(drawing, base, attached).batch_key for drawing in drawings}) == 1
    batch = [pictures[0].image for pictures in together(base, attached, drawings)]
    alone = [draw(base, attached, drawing)[0].image for drawing in drawings]
    for one, other in zip(batch, alone, strict=True):
        assert_same(one, other, 2)
    shown = [np.asarray(one, np.int16) for one in alone]
    assert min(np.abs(a - b).max() for n, a in enumerate(shown) for b in shown[:n]) > 4


def test_the_base_is_never_copied_to_be_drawn_with(folders, tmp_path: Path, monkeypatch) -> None:
    base = load(folders("sd1"))
    ann, bob = (learned(base, tmp_path / name, seed) for seed, name in enumerate(PEOPLE))
    own = {name: (tensor.data_ptr(), tensor.clone()) for name, tensor in plain_parameters(base.unet)}
    monkeypatch.setattr(adapters, "plain_copy", lambda *given: pytest.fail("the base was copied"))
    attached = Attached(base)
    with applied(attached, [[(ann, 1.0)], [(bob, 1.0)]]) as denoiser:
        assert denoiser is base.unet
        for name, tensor in plain_parameters(denoiser):
            assert tensor.data_ptr() == own[name][0] and torch.equal(tensor, own[name][1])
    together(base, attached, [asked(ann), asked(bob)])
    kept = [
        tensor
        for ready in attached.loaded
        for one in ready.layers["unet"].values()
        for tensor in one.tensors
    ]  # fmt: skip
    assert sum(ready.size for ready in attached.loaded) == sum(tensor.nbytes for tensor in kept) > 0
    whole = sum(tensor.nbytes for _, tensor in plain_parameters(base.unet))
    assert all(ready.size < 0.4 * whole for ready in attached.loaded)


def test_what_bfloat16_weights_would_swallow_is_still_seen(folders, tmp_path: Path, monkeypatch, exact) -> None:
    """A norm's weights are about 1, where bfloat16 has steps of 1/128. Added to them, a change by 1/400 would be lost;
    applied to the output it is not."""
    exact_base = load(folders("sd1"))
    monkeypatch.setattr("engine.bases.base.resting_dtype", lambda device: torch.bfloat16)
    base = load(folders("sd1"))
    assert base.dtype == torch.bfloat16
    norms = {name for name, tensor in plain_parameters(base.unet) if tensor.ndim == 1 and bool((tensor == 1).all())}
    changes = {f"unet.{name}": torch.full_like(weight, 1 / 400, dtype=torch.float32)
               for name, weight in plain_parameters(base.unet) if name in norms}  # fmt: skip
    write(changes, AdapterFacts("zk1", "man", "dreambooth", base.source, {}, 0), tmp_path / FILE, {})
    plain = seen(base, base.unet)
    assert norms and torch.equal(seen(base, filled(base, tmp_path)), plain)
    with applied(Attached(base), [[(tmp_path, 1.0)]] * 2) as denoiser:
        predicted = seen(base, denoiser)
    wanted = seen(exact_base, filled(exact_base, tmp_path)) - seen(exact_base, exact_base.unet)
    assert float((predicted - plain).flatten() @ wanted.flatten()) > 0.5 * float(wanted.square().sum())


def test_what_was_learned_in_small_steps_shows_on_a_bfloat16_base(
    folders, pictures, tmp_path: Path, monkeypatch, exact
) -> None:
    """Forty steps of 2e-6 leave four of five bfloat16 weights where they are; the picture must move as in float32."""
    exact_base = load(folders("sd1"))
    recipe = Recipe("dreambooth", 40, 2e-6, 2, 0, 0.0, precision="float32")
    learn(exact_base, pictures, recipe, tmp_path / FILE, side=SIDE)
    wanted = (seen(exact_base, filled(exact_base, tmp_path)) - seen(exact_base, exact_base.unet)).flatten()
    monkeypatch.setattr("engine.bases.base.resting_dtype", lambda device: torch.bfloat16)
    base = load(folders("sd1"))
    plain = seen(base, base.unet)
    with applied(Attached(base), [[(tmp_path, 1.0)]] * 2) as denoiser:
        predicted = seen(base, denoiser)
    in_weights, shown = (
        float((found - plain).flatten() @ wanted / wanted.square().sum())
        for found in (seen(base, filled(base, tmp_path)), predicted)
    )
    assert in_weights < 0.8 < shown < 1.2


def test_a_difference_applies_to_a_base_in_eight_bits(folders, tmp_path: Path, monkeypatch, exact) -> None:
    monkeypatch.setattr("engine.bases.base.free_bytes", lambda device: 0)
    monkeypatch.setattr("engine.bases.quantised.SMALLEST", 1024)
    base = load(folders("sd1"))
    assert any(isinstance(part, Int8Linear) for part in base.unet.modules())
    one, other = (
        draw(base, Attached(base), asked(*avatars))[0].image for avatars in ((learned(base, tmp_path, 1),), ())
    )
    assert one.tobytes() != other.tobytes()


def test_what_is_no_weight_of_this_base_is_refused(folders, tmp_path: Path) -> None:
    base = load(folders("sd1"))
    stored = load_file(learned(base, tmp_path) / FILE)
    key = "unet.conv_in.weight"
    for changed in (
        {"unet.class_embedding.weight.left": stored[f"{key}.left"].clone()},
        {f"{key}.left": stored[f"{key}.left"][:, 1:]},
        {"unet.conv_in.bias": stored["unet.conv_in.bias"][1:]},
        {"unet.conv_norm_out.weight": stored["unet.conv_norm_out.weight"][1:]},
        {"vae.conv_in.bias": stored["unet.conv_in.bias"].clone()},
    ):
        write({**stored, **changed}, facts_of(tmp_path), tmp_path / FILE, {})
        with pytest.raises(UserError, match="bad_adapter"):
            Attached(base).checked([(tmp_path, 1.0)])


def test_only_so_many_bytes_stay_loaded(folders, tmp_path: Path, monkeypatch) -> None:
    base, reads, read = load(folders("sd1")), [], adapters.read_tensors
    ann, bob = (learned(base, tmp_path / name, seed) for seed, name in enumerate(PEOPLE))
    monkeypatch.setattr(adapters, "read_tensors", lambda file: reads.append(file.parent.name) or read(file))
    attached = Attached(base)
    attached.checked([(ann, 1.0), (bob, 1.0)])
    size = sum(ready.size for ready in attached.loaded)
    assert reads == ["ann", "bob"] and len(attached.loaded) == 2
    monkeypatch.setattr(adapters, "RESIDENT_BYTES", size - 1)
    attached = Attached(base)
    attached.checked([(ann, 1.0), (bob, 1.0)])
    assert len(attached.loaded) == 1
    attached.checked([(ann, 1.0), (bob, 1.0)])
    assert reads == ["ann", "bob"] * 2  # what was found sound is not read for a check again
    with applied(attached, [[(ann, 1.0)], [(bob, 1.0)]]):
        assert len(attached.loaded) == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_holds_the_factors_of_a_tiny_difference(dtype) -> None:
    """float16 has nothing below 6e-8; the factors have about the root of what they stand for."""
    layer = nn.Linear(320, 320)
    change = 1e-7 * torch.randn(320, 1) @ torch.randn(1, 320)
    delta = compress(lambda: [("layer.weight", change), ("layer.bias", torch.zeros(320))])
    factors = read_delta(delta.tensors, nn.ModuleDict({"layer": layer}), torch.device("cpu"), dtype)["layer"]
    found = factors.up.double() @ factors.down.double()  # type: ignore[union-attr]
    assert float((found - change).norm() / change.norm()) < 0.02
