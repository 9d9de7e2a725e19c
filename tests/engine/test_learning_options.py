"""What people expect of a trainer, each on a tiny real model: that it does what its name says."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch.nn.functional import scaled_dot_product_attention

from engine.adapters.adapters import FILE, Attached, facts_of, plain_copy
from engine.adapters.exchange import export, import_lora, imported_facts
from engine.adapters.learned_token import LearnedToken, apply_learned_tokens
from engine.bases.base import BaseModel, plain_parameters
from engine.bases.loading import open_pipeline
from engine.device import memory
from engine.device.precision import attention, compute_dtype
from engine.drawing.denoising import Sampling, denoise, noise
from engine.drawing.drawing import Drawing, draw
from engine.learning.config import Previews
from engine.learning.learner import Learner, frozen_dtype
from engine.learning.listener import Progress
from engine.learning.objectives import average, ema_decay
from engine.learning.optimisers import learning_rate_at, make
from engine.recipe import ATTENTION, Recipe
from engine.sentences import sentence
from storage.errors import UserError
from tests.engine.learning import learn
from tests.engine.tiny import applied, asked, assert_same, load, plainly, together

LORA = Recipe("lora", 6, 2e-3, 2, 1, 1.0, rank=4, alpha=4, prior_pictures=2)
ALONE = replace(LORA, prior_batch=0, prior_weight=0.0)
SIDE = 64


def learned(base: BaseModel, album, recipe: Recipe, folder: Path, **options) -> dict[str, torch.Tensor]:
    learn(base, album, recipe, folder / FILE, side=SIDE, **options)
    return load_file(folder / FILE)


def alike(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor], tolerance: float = 2e-3) -> bool:
    return first.keys() == second.keys() and all(
        torch.allclose(first[key].float(), second[key].float(), atol=tolerance) for key in first
    )


@pytest.mark.parametrize("optimiser", ["adamw", "prodigy", "schedulefree"])
def test_every_optimiser_lowers_the_loss(tiny, pictures, tmp_path, optimiser) -> None:
    rate = {"adamw": 1e-3, "prodigy": 1.0, "schedulefree": 3e-3}[optimiser]
    recipe = Recipe("dreambooth", 50, rate, 4, 0, 0.0, optimiser=optimiser)
    trained = learn(tiny, pictures, recipe, tmp_path / FILE, side=SIDE)
    assert trained.last_loss < 0.95 * trained.first_loss


@pytest.mark.parametrize("recipe", [
    Recipe("lora", 3, 1.0, 2, 0, 0.0, optimiser="prodigy", pivotal=True),
    Recipe("dreambooth", 3, 1.0, 2, 0, 0.0, optimiser="prodigy", text_encoder=True),
], ids=["a learned token", "full DreamBooth and a text encoder"])  # fmt: skip
def test_prodigy_finds_one_rate_for_groups_of_parameters(tiny, pictures, tmp_path, recipe) -> None:
    assert learn(tiny, pictures, recipe, tmp_path / FILE, side=SIDE).steps == 3


@pytest.mark.parametrize("method", ["lora", "dreambooth"])
def test_float32_is_float32_on_a_base_that_rests_in_half_precision(tiny_folder, pictures, tmp_path, method) -> None:
    base = BaseModel.load(str(tiny_folder), torch.device("cpu"), lambda base: torch.bfloat16)
    for encoder in base.text_encoders.values():
        encoder.to(torch.bfloat16)
    seen = set[torch.dtype]()

    def on_start(learner: Learner) -> None:
        layers = [layer for layer in learner.denoiser.modules() if isinstance(layer, torch.nn.GroupNorm)]
        layers[0].register_forward_hook(lambda layer, given, made: seen.update({given[0].dtype, made.dtype}))

    recipe = Recipe(method, 1, 1e-3, 2, 0, 0.0, precision="float32", text_encoder=True)
    learn(base, pictures, recipe, tmp_path / FILE, side=SIDE, owns_base=True, on_start=on_start)
    assert seen == {torch.float32}
    assert {encoder.dtype for encoder in base.text_encoders.values()} == {torch.float32}


@pytest.mark.parametrize(("emulated", "dtype"), [(True, torch.float16), (False, torch.bfloat16)])
def test_cards_that_only_emulate_bfloat16_compute_in_float16(monkeypatch, emulated, dtype) -> None:
    """T4, V100, RTX 20 and GTX 16: torch.cuda.is_bf16_supported() is true there too, by emulation."""

    def supported(including_emulation: bool = True) -> bool:
        return including_emulation or not emulated

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert compute_dtype(torch.device("cuda")) == dtype


def test_8_bit_adam_is_refused_where_there_is_no_cuda() -> None:
    with pytest.raises(UserError) as refused:
        make(replace(LORA, optimiser="adamw8bit"), [{"params": [], "lr": 1e-4}], torch.device("cpu"))
    assert "CUDA" in sentence(refused.value)


def test_the_learning_rate_warms_up_and_falls_as_its_schedule_says() -> None:
    rates = {
        name: [learning_rate_at(name, step, 20, 4) for step in range(20)] for name in ("constant", "linear", "cosine")
    }
    for shares in rates.values():
        assert shares[:5] == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert set(rates["constant"][4:]) == {1.0}
    assert rates["linear"][12] == rates["cosine"][12] == pytest.approx(0.5)
    assert all(a > b for name in ("linear", "cosine") for a, b in zip(rates[name][4:], rates[name][5:], strict=False))


def test_the_reported_learning_rate_is_the_schedules(tiny, pictures, tmp_path) -> None:
    told: list[Progress] = []
    learned(tiny, pictures, replace(ALONE, schedule="linear", warmup=2), tmp_path, on_step=told.append)
    assert [one.learning_rate for one in told] == pytest.approx([0, 1e-3, 2e-3, 1.5e-3, 1e-3, 0.5e-3])


def test_a_warm_up_delays_learning_and_does_not_end_it(tiny, pictures, tmp_path) -> None:
    """The first step's rate of nothing must not stay: steps 2 and 3 of three learn."""
    warm = learned(tiny, pictures, replace(ALONE, steps=3, warmup=1), tmp_path / "warm")
    assert any(tensor.abs().max() > 0 for key, tensor in warm.items() if "lora_B" in key)
    still = learned(tiny, pictures, replace(ALONE, steps=1, warmup=1), tmp_path / "still")
    assert all(tensor.abs().max() == 0 for key, tensor in still.items() if "lora_B" in key)


def test_accumulation_is_a_larger_batch(tiny, pictures, tmp_path) -> None:
    recipe = replace(LORA, precision="float32")
    whole = learned(tiny, pictures, replace(recipe, batch=4, prior_batch=2), tmp_path / "whole")
    parts = learned(tiny, pictures, replace(recipe, batch=2, prior_batch=1, accumulation=2), tmp_path / "parts")
    assert alike(whole, parts)


def test_too_little_memory_halves_the_rows_and_changes_nothing_that_is_learned(tiny, pictures, tmp_path) -> None:
    recipe, rows, told = replace(LORA, batch=4, prior_batch=2, precision="float32"), [], []
    whole = learned(tiny, pictures, recipe, tmp_path / "whole")
    forward = tiny.unet.forward

    def small(sample: torch.Tensor, *arguments: object, **options: object) -> object:
        if torch.is_grad_enabled():
            if len(sample) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            rows.append(len(sample))
        return forward(sample, *arguments, **options)

    tiny.unet.forward = small
    try:
        trained = learn(tiny, pictures, recipe, tmp_path / "small" / FILE, side=SIDE, on_short_memory=told.append)
    finally:
        del tiny.unet.forward
    assert told == [3, 1] and trained.rows_at_once == 1 and set(rows) == {1}
    assert alike(whole, load_file(tmp_path / "small" / FILE))


def test_when_one_row_does_not_fit_gradient_checkpointing_is_tried_before_out_of_memory(
    tiny, pictures, tmp_path
) -> None:
    forward = tiny.unet.forward

    def never(sample: torch.Tensor, *arguments: object, **options: object) -> object:
        if not any(getattr(part, "gradient_checkpointing", False) for part in tiny.unet.modules()):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return forward(sample, *arguments, **options)

    tiny.unet.forward = never
    try:
        trained = learn(tiny, pictures, replace(ALONE, checkpointing=False), tmp_path / FILE, side=SIDE)
        assert trained.checkpointing and trained.rows_at_once == 1
        assert not any(getattr(part, "gradient_checkpointing", False) for part in tiny.unet.modules())
        tiny.unet.forward = lambda *arguments, **options: exec("raise torch.OutOfMemoryError('no')", {"torch": torch})
        with pytest.raises(UserError, match="out_of_memory"):
            learn(tiny, pictures, replace(ALONE, checkpointing=False), tmp_path / FILE, side=SIDE)
    finally:
        del tiny.unet.forward


def test_one_row_that_does_not_fit_while_it_is_measured_is_computed_again(tiny, pictures, tmp_path) -> None:
    forward = tiny.unet.forward

    def small(sample: torch.Tensor, *arguments: object, **options: object) -> object:
        if torch.is_grad_enabled() and not any(
            getattr(part, "gradient_checkpointing", False) for part in tiny.unet.modules()
        ):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(sample, *arguments, **options)

    tiny.unet.forward = small
    trained = learn(tiny, pictures, ALONE, tmp_path / FILE, side=SIDE)
    assert trained.checkpointing and trained.rows_at_once == ALONE.batch


def test_optimizer_state_that_does_not_fit_raises_out_of_memory(tiny, pictures, tmp_path, monkeypatch) -> None:
    def never(*arguments: object, **options: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("engine.learning.optimisers.AdamW.step", never)
    with pytest.raises(UserError, match="out_of_memory"):
        learned(tiny, pictures, ALONE, tmp_path)


def test_checkpointing_is_chosen_from_the_free_memory(tiny, pictures, tmp_path, monkeypatch) -> None:
    row = memory.activation_bytes(lambda: tiny.unet.requires_grad_(True)(
        torch.randn(1, 4, 16, 16), torch.tensor([5]), torch.randn(1, 77, 32)).sample)  # fmt: skip
    tiny.unet.requires_grad_(False)
    assert 10_000 < row < 100_000_000
    whole = learned(tiny, pictures, LORA, tmp_path / "whole")
    for free, rows, checkpointing in ((100, 3, True), (10**12, 3, False)):
        monkeypatch.setattr(memory, "free_memory", lambda device, free=free: free)
        trained = learn(tiny, pictures, LORA, tmp_path / "free" / FILE, side=SIDE)
        assert (trained.rows_at_once, trained.checkpointing) == (rows, checkpointing)
        assert alike(whole, load_file(tmp_path / "free" / FILE))


def test_free_memory_is_known_here() -> None:
    assert 2**20 < (memory.free_memory(torch.device("cpu")) or 2**21) < 2**45
    assert memory.rows_that_fit(100, 8, 500) == 4
    assert memory.rows_that_fit(100, 8, None) == 8


def test_the_mean_of_the_weights_is_what_is_kept(tiny, pictures, tmp_path) -> None:
    """Against a mean taken by hand of the adapters that runs of 0, 1, 2.. steps leave."""
    recipe = replace(ALONE, steps=4, ema=0.9, schedule="constant")
    kept = learned(tiny, pictures, recipe, tmp_path / "kept")
    runs = [learned(tiny, pictures, replace(recipe, steps=n, ema=0.0), tmp_path / str(n)) for n in (1, 2, 3, 4)]
    start = [key for key in kept if "lora_B" in key]
    mean = [torch.zeros_like(kept[key], dtype=torch.float32) for key in start]
    for step, run in enumerate(runs):
        average(mean, [run[key].float() for key in start], ema_decay(0.9, step))
    assert all(torch.allclose(kept[key].float(), one, atol=1e-4) for key, one in zip(start, mean, strict=True))
    assert not alike(kept, runs[-1], 1e-5)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_learns_nearly_the_same(tiny_folder, pictures, tmp_path: Path, precision: str) -> None:
    """float16's gradients go through the scaler; none of its steps may be left out."""
    losses = {}
    for name in ("float32", precision):
        base = BaseModel.load(str(tiny_folder), torch.device("cpu"))
        recipe = Recipe("lora", 6, 2e-3, 2, 0, 0.0, rank=4, alpha=4, precision=name)
        told: list[float] = []
        learn(base, pictures, recipe, tmp_path / name / FILE, side=SIDE,
              on_step=lambda progress, told=told: told.append(progress.loss))  # fmt: skip
        losses[name] = told
    exact, half = losses["float32"], losses[precision]
    assert half == pytest.approx(exact, rel=0.02) and half != exact
    one, other = (load_file(tmp_path / name / FILE) for name in losses)
    for key in one:
        if "lora_B" in key:  # zero at first: how far it has gone says whether every step was taken
            assert float(other[key].float().norm()) == pytest.approx(float(one[key].float().norm()), rel=0.2)


@pytest.mark.parametrize(
    ("dtype", "places", "fused"),
    [(torch.bfloat16, 256, False), (torch.bfloat16, 1024, True), (torch.float32, 256, True)],
)
def test_short_rows_are_attended_by_steps_in_bfloat16(dtype: torch.dtype, places: int, fused: bool) -> None:
    with attention(torch.device("cpu"), dtype, places):
        query = torch.randn(2, 3, 5, 4, dtype=dtype, requires_grad=True)
        answer = scaled_dot_product_attention(query, query, query)
    assert ("Flash" in type(answer.grad_fn).__name__) == fused
    assert torch.backends.cuda.flash_sdp_enabled()


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_backward_pass_uses_the_attention_kernel_of_the_forward_pass(
    tiny, pictures, tmp_path, monkeypatch, checkpointing
) -> None:
    recipe = replace(ALONE, steps=2, precision="bfloat16", checkpointing=checkpointing)
    monkeypatch.setattr("engine.device.precision.MAX_MATH_POSITIONS", 4096)  # the tiny base's latents are large
    by_steps = learned(tiny, pictures, recipe, tmp_path / "steps")
    monkeypatch.setattr("engine.device.precision.MAX_MATH_POSITIONS", 0)
    fused = learned(tiny, pictures, recipe, tmp_path / "fused")
    assert alike(by_steps, fused, 1e-2) and not alike(by_steps, fused, 0)


def test_under_autocast_lora_layers_take_their_input_in_the_dtype_that_is_computed_in(tiny, pictures, tmp_path) -> None:
    taken = set[torch.dtype]()

    def watch(learner: Learner) -> None:
        for name, layer in learner.denoiser.named_modules():
            if name.endswith((".to_q.lora_A.in_training", ".to_q.base_layer")):  # whose input is a norm's answer
                layer.register_forward_pre_hook(lambda layer, inputs: taken.add(inputs[0].dtype))

    learned(tiny, pictures, replace(ALONE, precision="bfloat16"), tmp_path, on_start=watch)
    assert taken == {torch.bfloat16}


def test_the_denoiser_is_set_to_training_mode_once(tiny, pictures, tmp_path) -> None:
    train_of, told = tiny.unet.train, []
    tiny.unet.train = lambda mode=True: told.append(mode) or train_of(mode)
    learned(tiny, pictures, replace(ALONE, accumulation=2), tmp_path)
    assert told.count(True) == 1


def test_face_weights_change_what_is_learned_only_where_there_is_a_face(tiny, pictures, tmp_path, monkeypatch) -> None:
    from engine.learning import examples
    from engine.photos.faces import Face

    plain = learned(tiny, pictures, ALONE, tmp_path / "plain")
    weighted = replace(ALONE, face_weight=5.0)
    assert alike(plain, learned(tiny, pictures, weighted, tmp_path / "none"), 0)
    monkeypatch.setattr(examples, "largest_face", lambda picture: Face(20, 20, 40, 40, 1.0))
    assert not alike(plain, learned(tiny, pictures, weighted, tmp_path / "face"), 1e-5)


@pytest.mark.parametrize("change", [{"dora": True}, {"rslora": True}], ids=str)
def test_dora_and_rslora_draw_the_same_in_plain_diffusers(tiny, tiny_folder, pictures, tmp_path, change) -> None:
    learned(tiny, pictures, replace(LORA, **change), tmp_path)
    with safe_open(tmp_path / FILE, "pt") as reader:
        assert any("magnitude" in key for key in reader.keys()) == ("dora" in change)  # noqa: SIM118
    asked = Drawing("a photo of zk1 man", seed=3, steps=2, width=SIDE, height=SIDE, avatars=(tmp_path,), guidance=1.0)
    ours = draw(tiny, Attached(tiny), asked)[0].image
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    before = pipeline.unet.state_dict().keys()
    pipeline.load_lora_weights(tmp_path, weight_name=FILE)
    assert pipeline.unet.state_dict().keys() != before
    theirs = pipeline(asked.prompt, num_inference_steps=2, guidance_scale=1.0, width=SIDE, height=SIDE,
                      latents=noise([3], tiny.latent_shape(SIDE, SIDE))).images[0]  # fmt: skip
    assert max(abs(a - b) for a, b in zip(ours.tobytes(), theirs.tobytes(), strict=True)) <= 12


CONVOLVED = (*ATTENTION, "conv1", "conv2", "conv_shortcut")


def test_dora_on_convolutions_draws_the_same_in_diffusers_after_an_export_and_in_a_batch(
    folders, pictures, tmp_path, exact
) -> None:
    """A convolution's magnitude has one number for each output channel, whatever the layout of the file."""
    base = load(folders("sd1"))
    recipe = replace(LORA, dora=True, targets=CONVOLVED, rank=3, alpha=6, learning_rate=1e-2)
    tensors = learned(base, pictures, recipe, tmp_path)
    assert any(key.endswith("conv1.lora_magnitude_vector") for key in tensors)
    plain = learned(base, pictures, replace(recipe, dora=False, targets=None), tmp_path / "plain")
    assert not any("conv" in key or "magnitude" in key for key in plain)
    attached = Attached(base)
    ours = draw(base, attached, asked(tmp_path))[0].image
    assert ours.tobytes() != draw(base, attached, asked())[0].image.tobytes()
    assert_same(plainly(folders("sd1"), "sd1", tmp_path / FILE), ours)
    export(base, tmp_path, "kohya", tmp_path / "kohya.safetensors")
    import_lora(
        base, tmp_path / "kohya.safetensors", imported_facts(base, "avatar", "zk1", "man"), tmp_path / "back" / FILE
    )
    assert_same(draw(base, attached, asked(tmp_path / "back"))[0].image, ours)
    batch = together(base, attached, [asked(tmp_path / "plain"), asked(tmp_path), asked()])
    assert_same(batch[1][0].image, ours, 2)


@pytest.mark.parametrize(
    ("change", "code", "facts"),
    [
        ({"min_snr": 5.0}, "no_min_snr", {}),
        ({"text_encoder": True}, "text_is_fixed", {"what": "text encoder"}),
        ({"pivotal": True}, "text_is_fixed", {"what": "pivotal"}),
    ],
    ids=str,
)
def test_what_a_flow_matching_base_cannot_learn_is_refused_before_anything_is_done(
    folders, pictures, tmp_path, change, code, facts
) -> None:
    base, told = load(folders("klein")), []
    with pytest.raises(UserError) as refused:
        learned(
            base,
            pictures,
            replace(LORA, **change),
            tmp_path,
            prior_folder=tmp_path / "priors",
            on_class_pictures=lambda *said: told.append(said),
        )
    assert (refused.value.code, refused.value.facts) == (code, facts)
    assert sentence(refused.value)
    assert not told and not list(tmp_path.iterdir())
    learned(base, pictures, replace(ALONE, steps=1), tmp_path)


def test_a_learned_word_stays_where_kohyas_format_cannot_hold_it(tiny, pictures, tmp_path) -> None:
    learned(tiny, pictures, replace(ALONE, steps=2, pivotal=True), tmp_path / "word")
    with pytest.raises(UserError) as refused:
        export(tiny, tmp_path / "word", "kohya", tmp_path / "kohya.safetensors")
    assert (refused.value.code, refused.value.facts) == ("word_stays", {"folder": tmp_path / "word"})
    assert str(tmp_path / "word") in sentence(refused.value)
    assert not (tmp_path / "kohya.safetensors").exists()
    export(tiny, tmp_path / "word", "diffusers", tmp_path / "diffusers.safetensors")
    assert "lora_word.zk1" in load_file(tmp_path / "diffusers.safetensors")


def test_a_learned_token_embedding_applies_only_with_its_avatar(tiny, pictures, tmp_path) -> None:
    prompts = ["a photo of zk1 man", "a photo of a man"]
    before = tiny.encode_prompts(prompts).prompt_embeds
    tensors = learned(tiny, pictures, replace(ALONE, pivotal=True), tmp_path)
    assert any(key == "lora_word.zk1" for key in tensors)
    assert torch.equal(tiny.encode_prompts(prompts).prompt_embeds, before) and not tiny.learned_tokens
    attached = Attached(tiny)
    with applied(attached, [[(tmp_path, 1.0)]]):
        within = tiny.encode_prompts(prompts).prompt_embeds
    assert not torch.equal(within[0], before[0]) and torch.equal(within[1], before[1])
    assert torch.equal(tiny.encode_prompts(prompts).prompt_embeds, before)
    with applied(attached, [[]]):
        assert torch.equal(tiny.encode_prompts(prompts).prompt_embeds, before)


def test_every_row_is_read_with_its_own_words(tiny, pictures, tmp_path) -> None:
    prompts = ["zk1 man", "zk1 man", "zk1 zk1 man"]
    before = tiny.encode_prompts(prompts).prompt_embeds
    learned(tiny, pictures, replace(ALONE, pivotal=True), tmp_path / "one")
    learned(tiny, pictures[:2], replace(ALONE, pivotal=True), tmp_path / "other", seed=5)
    one, other = (tmp_path / "one", 1.0), (tmp_path / "other", 1.0)
    attached = Attached(tiny)

    def read(*stacks: list[tuple[Path, float]]) -> torch.Tensor:
        with applied(attached, stacks):
            return tiny.encode_prompts(prompts).prompt_embeds

    mixed, ones, others = read([one], [], [other]), read([one]), read([other])
    assert torch.allclose(mixed[0], ones[0], atol=1e-6) and torch.allclose(mixed[2], others[2], atol=1e-6)
    assert torch.equal(mixed[1], before[1]) and not torch.allclose(ones[2], others[2], atol=1e-6)
    assert torch.allclose(read([(one[0], 0.0)])[0], before[0], atol=1e-6)


def test_a_learned_word_of_two_text_encoders_goes_to_both(folders, pictures, tmp_path) -> None:
    base = load(folders("sdxl"))
    before = base.encode_prompts(["zk1 man"])
    tensors = learned(base, pictures, replace(ALONE, pivotal=True), tmp_path)
    assert tensors["lora_word.zk1"].shape[1] == 32 + 48
    with applied(Attached(base), [[(tmp_path, 1.0)]]):
        within = base.encode_prompts(["zk1 man"])
    for part in (slice(0, 32), slice(32, None)):
        assert not torch.equal(within.prompt_embeds[..., part], before.prompt_embeds[..., part])
    assert not torch.equal(within.pooled_prompt_embeds, before.pooled_prompt_embeds)


def test_sdxl_learns_an_enlarged_photo_as_an_enlarged_photo(folders, pictures, tmp_path) -> None:
    base, told = load(folders("sdxl")), list[torch.Tensor]()
    forward = base.unet.forward

    def listen(*arguments, added_cond_kwargs, **options):
        told.append(added_cond_kwargs["time_ids"])
        return forward(*arguments, added_cond_kwargs=added_cond_kwargs, **options)

    base.unet.forward = listen
    small = [picture.resize((30, 20)) for picture in pictures]
    recipe = Recipe("lora", 1, 1e-3, 1, 1, 1.0, prior_pictures=1, precision="float32")
    learned(base, small, recipe, tmp_path)
    sizes = [((SIDE, SIDE), (0, 0)), ((20, 30), (0, round(5 * SIDE / 20)))]  # of a class picture, of a photo
    theirs = [[*original, *crop, SIDE, SIDE] for original, crop in sizes]
    rows = {tuple(row) for ids in told for row in ids.tolist()}
    assert rows == {tuple(map(float, row)) for row in theirs}


def test_a_fresh_word_changes_nothing_and_plain_diffusers_passes_over_it(tiny, tiny_folder, pictures, tmp_path) -> None:
    before = tiny.encode_prompts(["zk1 zk1 man"]).prompt_embeds
    with apply_learned_tokens(tiny, [[(LearnedToken(tiny, "zk1"), 1.0)]]):
        assert torch.equal(tiny.encode_prompts(["zk1 zk1 man"]).prompt_embeds, before)
    learned(tiny, pictures, replace(ALONE, pivotal=True), tmp_path)
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_folder, dtype=torch.float32)
    pipeline.load_lora_weights(tmp_path, weight_name=FILE)
    assert any("lora_B" in name and tensor.abs().max() > 0 for name, tensor in pipeline.unet.named_parameters())


def test_previews_show_the_same_seeds_and_leave_the_training_as_it_was(tiny, pictures, tmp_path, exact) -> None:
    recipe = replace(LORA, ema=0.5, precision="float32")
    quiet = learned(tiny, pictures, recipe, tmp_path / "quiet")
    shown: dict[int, list[Image.Image]] = {}
    previews = Previews(("a photo of zk1 man", "a man"), frozenset({3, 6}), steps=2, side=SIDE)
    busy = learned(tiny, pictures, recipe, tmp_path / "busy", previews=previews,
                   on_previews=lambda step, pictures: shown.update({step: pictures}))  # fmt: skip
    assert alike(quiet, busy, 0)
    assert list(shown) == [3, 6] and all(len(several) == 2 for several in shown.values())
    assert shown[3][0].tobytes() != shown[6][0].tobytes()
    after = draw(tiny, Attached(tiny), Drawing("a photo of zk1 man", seed=0, steps=2, width=SIDE, height=SIDE,
                                               avatars=(tmp_path / "busy",)))[0].image  # fmt: skip
    assert max(abs(a - b) for a, b in zip(after.tobytes(), shown[6][0].tobytes(), strict=True)) <= 4


def test_captions_teach_each_picture_under_its_own_words_and_make_a_style(tiny, pictures, tmp_path) -> None:
    recipe = replace(ALONE, captions=True)
    texts = [f"picture {number}" for number in range(5)]
    first = learned(tiny, pictures, recipe, tmp_path / "own", captions=texts, kind="style")
    other = learned(tiny, pictures, recipe, tmp_path / "swapped", captions=texts[::-1], kind="style")
    assert not alike(first, other, 1e-5)
    assert facts_of(tmp_path / "own").kind == "style"


def test_many_captions_are_read_a_few_at_a_time(tiny, pictures, tmp_path, monkeypatch) -> None:
    read, sizes = tiny.encode_prompts, []
    monkeypatch.setattr(tiny, "encode_prompts", lambda prompts: sizes.append(len(prompts)) or read(prompts))
    recipe = replace(ALONE, steps=1, captions=True)
    learned(tiny, pictures * 8, recipe, tmp_path, captions=[f"picture {number}" for number in range(40)])
    assert sizes == [32, 8]


def test_a_base_of_our_own_is_let_go_and_the_same_is_learned(tiny_folder, pictures, tmp_path, exact) -> None:
    for name, recipe in (("lora", LORA), ("full", Recipe("dreambooth", 3, 1e-4, 2, 0, 0.0))):
        bases = [BaseModel.load(str(tiny_folder), torch.device("cpu")) for _ in range(2)]
        recipe = replace(recipe, precision="float32")
        shared = learned(bases[0], pictures, recipe, tmp_path / name / "shared")
        sole = learned(bases[1], pictures, recipe, tmp_path / name / "sole", owns_base=True)
        assert not bases[1].text_encoders and "vae" not in bases[1].parts and "vae" in bases[0].parts
        assert alike(shared, sole, 0)


def test_the_weights_before_are_read_of_the_denoiser_alone(tiny, pictures, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("engine.bases.loading.open_pipeline", lambda source: pytest.fail("all parts were read"))
    before = {name: tensor.clone() for name, tensor in plain_parameters(tiny.unet)}
    learned(tiny, pictures, Recipe("dreambooth", 1, 1e-4, 2, 0, 0.0), tmp_path, owns_base=True)
    untrained = tiny.original_weights()
    assert all(torch.equal(untrained(name), tensor) for name, tensor in before.items())
    assert not all(torch.equal(before[name], tensor) for name, tensor in plain_parameters(tiny.unet))


@pytest.fixture(scope="module")
def half_folder(tiny_folder, tmp_path_factory) -> Path:
    """The tiny base as most bases lie on the disk, in half precision."""
    folder: Path = tmp_path_factory.mktemp("half")
    DiffusionPipeline.from_pretrained(tiny_folder, dtype=torch.float16).save_pretrained(folder)
    return folder


def test_a_base_in_half_precision_keeps_its_dtype_and_equals_its_float32_copy(half_folder) -> None:
    opened = open_pipeline(str(half_folder))
    assert {part.dtype for part in (opened.unet, opened.vae, opened.text_encoder)} == {torch.float16}
    wide = DiffusionPipeline.from_pretrained(half_folder, dtype=torch.float32)
    base = BaseModel.load(str(half_folder), torch.device("cpu"))
    assert base.fingerprint == BaseModel(wide, "wide", torch.device("cpu")).fingerprint
    for ours, theirs in ((base.unet, wide.unet), (base.vae, wide.vae), (base.text_encoder, wide.text_encoder)):
        state = theirs.state_dict()
        assert all(tensor.dtype == state[name].dtype for name, tensor in ours.state_dict().items())
        assert all(torch.equal(tensor, state[name]) for name, tensor in ours.state_dict().items())


@pytest.mark.parametrize("recipe", [replace(ALONE, precision="bfloat16"), Recipe("dreambooth", 3, 1e-4, 2, 0, 0.0)])
def test_a_base_that_rests_as_it_is_learned_with_learns_the_same(
    half_folder, pictures, tmp_path, exact, recipe, monkeypatch
) -> None:
    monkeypatch.setattr("diffusers.models.modeling_utils.logger.warning", pytest.fail)
    cpu = torch.device("cpu")
    bases = [
        BaseModel.load(str(half_folder), cpu),
        BaseModel.load(str(half_folder), cpu, lambda family: frozen_dtype(recipe, cpu)),
    ]
    lora = recipe.method == "lora"
    assert bases[1].dtype == bases[1].unet.dtype == (torch.bfloat16 if lora else torch.float32)
    assert bases[1].text_encoder.dtype == bases[1].vae.dtype == torch.float32
    usual = learned(bases[0], pictures, recipe, tmp_path / "usual", owns_base=lora)
    assert alike(usual, learned(bases[1], pictures, recipe, tmp_path / "resting", owns_base=True), 0)


@pytest.mark.parametrize("steps", [12])
def test_a_stored_delta_is_small_records_its_error_and_draws_nearly_as_the_full_model(
    tiny, pictures, tmp_path, steps
) -> None:
    recipe = Recipe("dreambooth", steps, 1e-4, 2, 0, 0.0)
    learners, full = list[Learner](), list[torch.nn.Module]()

    def keep_the_last(progress: Progress) -> None:
        if progress.step == progress.steps:
            full.append(plain_copy(learners[0].denoiser))

    trained = learn(tiny, pictures, recipe, tmp_path / FILE, on_start=learners.append, on_step=keep_the_last)
    size = sum(2 * parameter.numel() for parameter in tiny.unet.parameters())
    stored = load_file(tmp_path / FILE)
    assert sum(tensor.nbytes for tensor in stored.values()) <= 0.15 * size
    with safe_open(tmp_path / FILE, "pt") as reader:
        said = json.loads(reader.metadata()["delta"])
    assert said["error"] == pytest.approx(trained.delta_error) and 0 < said["error"] < 0.8
    words = tiny.encode_prompts(["a photo of zk1 man", ""])

    def denoised(unet):  # type: ignore[no-untyped-def]
        latents = noise([3], tiny.latent_shape(SIDE, SIDE))
        return denoise(unet, tiny, latents, words[:1], words[1:], Sampling(4, 2.0))

    drawn = [denoised(tiny.unet), denoised(full[0])]
    with applied(Attached(tiny), [[(tmp_path, 1.0)]]) as unet:
        drawn.append(denoised(unet))
    moved, missed = (float((drawn[1] - other).norm()) for other in (drawn[0], drawn[2]))
    assert missed < 0.5 * moved


def test_with_full_dreambooth_the_text_encoder_learns_a_lora(tiny, pictures, tmp_path) -> None:
    prompt = ["a photo of zk1 man"]
    plain = tiny.encode_prompts(prompt).prompt_embeds
    recipe = Recipe("dreambooth", 4, 1e-4, 2, 0, 0.0, text_encoder=True)
    stored = learned(tiny, pictures, recipe, tmp_path)
    kinds = {name.split(".")[0]: "lora" if ".lora_" in name else "difference" for name in stored}
    assert kinds == {"unet": "difference", "text_encoder": "lora"}
    assert torch.equal(tiny.encode_prompts(prompt).prompt_embeds, plain)
    with applied(Attached(tiny), [[(tmp_path, 1.0)]]):
        assert not torch.allclose(tiny.encode_prompts(prompt).prompt_embeds, plain, atol=1e-4)
    assert not any("lora" in name for name in learned(tiny, pictures, replace(recipe, text_encoder=False), tmp_path))


SCRIPT = """
import sys, torch, json
from pathlib import Path
from PIL import Image
sys.path.insert(0, {root!r})
from engine.bases.base import BaseModel
from engine.recipe import Recipe
from engine.learning.team import join
from engine.learning.training import train
from engine.learning.config import TrainingConfig
from engine.learning.listener import Listener
torch.set_num_threads(1)
album = [Image.open(path) for path in sorted(Path({album!r}).glob("*.png"))]
recipe = Recipe("lora", 4, 2e-3, {batch}, {priors}, 1.0, rank=4, alpha=4, prior_pictures=2, text_encoder=True,
                precision="float32")
team, losses = join(), []
class Told(Listener):
    def on_step(self, progress):
        losses.append([progress.loss, progress.prior_loss])
config = TrainingConfig("zk1", "man", recipe, side=64, prior_folder=Path({priors_folder!r}))
train(BaseModel.load({base!r}, torch.device("cpu")), album, config, Path({out!r}), listener=Told(), team=team)
if team.first:
    Path({out!r}).with_suffix(".json").write_text(json.dumps([team.size, losses]))
"""


def test_two_processes_learn_what_one_learns_with_the_doubled_batch(tiny_folder, pictures, tmp_path) -> None:
    """The four GPUs of the seed, as two CPU processes that torchrun starts and accelerate joins; in float32, whose
    rounding does not hide a difference."""
    album = tmp_path / "album"
    album.mkdir()
    for number, picture in enumerate(pictures):
        picture.save(album / f"{number}.png")
    outs = {}
    for name, batch, launcher in (
        ("one", 2, []),
        ("two", 1, ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]),
    ):  # fmt: skip
        out, script = tmp_path / name / FILE, tmp_path / f"{name}.py"
        values = {"root": Path(__file__).parents[2], "album": album, "base": tiny_folder, "out": out}
        paths = {key: str(value) for key, value in (values | {"priors_folder": tmp_path / "priors"}).items()}
        script.write_text(SCRIPT.format(batch=batch, priors=batch, **paths))
        run = subprocess.run([sys.executable, *launcher, str(script)], capture_output=True, text=True, timeout=600,
                             check=False)  # fmt: skip
        assert run.returncode == 0, run.stderr[-3000:]
        outs[name] = json.loads(out.with_suffix(".json").read_text()), load_file(out)
    (one, losses), adapter = outs["one"]
    assert one == 1
    (size, others), other = outs["two"]
    assert size == 2
    assert torch.allclose(torch.tensor(others), torch.tensor(losses), rtol=1e-4, atol=1e-7)
    assert alike(adapter, other)
