"""Learning on a tiny real model: the loss falls, a stopped run equals an unstopped one, the base stays as it was."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from engine.adapters.adapters import FILE, LORA_METADATA, Attached, facts_of, read_file
from engine.adapters.exchange import export
from engine.bases.base import BaseModel, plain_parameters
from engine.drawing.drawing import Drawing, draw
from engine.learning import checkpoints
from engine.learning.class_pictures import class_latents
from engine.learning.listener import Progress, Stopped
from engine.learning.team import SINGLE_PROCESS, Team
from engine.recipe import Recipe
from engine.sentences import sentence
from storage.errors import UserError
from tests.engine.learning import learn

LORA = Recipe("lora", 12, 2e-3, 2, 1, 1.0, rank=4, alpha=4, prior_pictures=2)
WITH_TEXT = replace(LORA, text_encoder=True)
FULL = Recipe("dreambooth", 6, 2e-4, 2, 1, 1.0, prior_pictures=2)
SIDE = 64


def drawing(*avatars: Path, seed: int = 3) -> Drawing:
    return Drawing("a photo of zk1 man", seed=seed, steps=2, width=SIDE, height=SIDE, avatars=avatars)


AVERAGED = replace(WITH_TEXT, ema=0.9, schedule="cosine", warmup=3, min_snr=5.0, noise_offset=0.1, accumulation=2)
KINDS = {
    "lora": LORA, "text encoder": WITH_TEXT, "dreambooth": FULL, "averaged": AVERAGED,
    "prodigy": replace(LORA, optimiser="prodigy", learning_rate=1.0, schedule="linear"),
    "schedule-free": replace(LORA, optimiser="schedulefree", ema=0.5),
    "dreambooth, text encoder": replace(FULL, text_encoder=True),
    "pivotal": replace(LORA, pivotal=True), "dora": replace(LORA, dora=True, rslora=True),
    "buckets": replace(LORA, crop="buckets", flip=True, captions=True),
    "float16": replace(LORA, precision="float16", steps=4), "half gradients": replace(FULL, precision="bfloat16"),
    "plain": replace(LORA, prior_target="noise", timesteps="uniform"), "album as class": replace(LORA, prior_album=2),
}  # fmt: skip


@pytest.mark.parametrize("recipe", KINDS.values(), ids=KINDS)
def test_a_stopped_run_that_goes_on_equals_one_that_never_stopped(tiny_folder, pictures, tmp_path, recipe) -> None:
    def run(name: str, stop_at: int | None) -> Path:
        def on_step(progress: Progress) -> None:
            if progress.step == stop_at:
                raise Stopped

        base = BaseModel.load(str(tiny_folder), torch.device("cpu"))
        out, checkpoint = tmp_path / name / FILE, tmp_path / f"{name}.checkpoint"
        captions = [f"picture {number}" for number in range(len(pictures))]
        trained = learn(
            base,
            pictures,
            recipe,
            out,
            checkpoint=checkpoint,
            checkpoint_seconds=0.0,
            captions=captions,
            on_step=on_step,
        )
        assert trained.resumed_at == (recipe.steps // 2 if name == "halved" else 0)
        return out

    whole = run("whole", None)
    with pytest.raises(Stopped):
        run("halved", recipe.steps // 2)
    assert not (tmp_path / "halved" / FILE).exists()
    halved = run("halved", None)
    first, second = load_file(whole), load_file(halved)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_run_does_not_go_on_from_what_was_learned_of_something_else(tiny, pictures, tmp_path) -> None:
    recipe = replace(LORA, steps=3, prior_batch=0, captions=True)
    texts = [f"picture {number}" for number in range(len(pictures))]

    def stop(progress: Progress) -> None:
        if progress.step == 2:
            raise Stopped

    def run(
        album: list[Image.Image], captions: list[str], team: Team = SINGLE_PROCESS, on_step=lambda progress: None
    ) -> int:
        trained = learn(
            tiny,
            album,
            recipe,
            tmp_path / FILE,
            checkpoint=tmp_path / "checkpoint",
            checkpoint_seconds=0.0,
            captions=captions,
            team=team,
            on_step=on_step,
        )
        return trained.resumed_at

    class Two(Team):
        size = 2

    with pytest.raises(Stopped):
        run(pictures, texts, on_step=stop)
    kept = (tmp_path / "checkpoint").read_bytes()
    assert run(pictures, texts) == 2
    for album, captions, team in (
        ([*pictures[1:], pictures[0]], texts, SINGLE_PROCESS), (pictures, [*texts[:-1], "another"], SINGLE_PROCESS),
        (pictures, texts, Two()),
    ):  # fmt: skip
        (tmp_path / "checkpoint").write_bytes(kept)
        assert run(album, captions, team) == 0


class Clock:
    """Goes on by a second at each look, and by `writing` seconds more whenever the file was written."""

    def __init__(self, file: Path, writing: float) -> None:
        self.file, self.writing = file, writing
        self.seconds, self.written = 0.0, 0

    def __call__(self) -> float:
        written = self.file.stat().st_ino if self.file.exists() else 0
        self.seconds += 1.0 + (self.writing if written != self.written else 0.0)
        self.written = written
        return self.seconds


@pytest.mark.parametrize(("writing", "steps"), [(100.0, [1]), (0.0, [1, 8])])
def test_a_checkpoint_that_takes_long_is_written_seldom(tiny, pictures, tmp_path, writing, steps) -> None:
    checkpoint, kept = tmp_path / "checkpoint", list[int]()
    learn(
        tiny,
        pictures,
        replace(LORA, prior_batch=0, steps=10),
        tmp_path / FILE,
        checkpoint=checkpoint,
        checkpoint_seconds=1.0,
        clock=Clock(checkpoint, writing),
        on_checkpoint=kept.append,
    )
    assert kept == steps


def test_a_checkpoint_copies_only_what_it_must(tmp_path, monkeypatch) -> None:
    whole = torch.nn.Parameter(torch.randn(4, 6))
    gaps = torch.nn.Parameter(torch.randn(4, 6).T)
    parameters = [whole, gaps, torch.nn.Parameter(whole.detach())]
    written, save_file = dict[str, torch.Tensor](), checkpoints.save_file

    def save(tensors: dict[str, torch.Tensor], *rest: object) -> None:
        written.update(tensors)
        save_file(tensors, *rest)

    monkeypatch.setattr(checkpoints, "save_file", save)
    optimiser = torch.optim.SGD(parameters)
    checkpoints.save_checkpoint(tmp_path / "checkpoint", "run", 3, parameters, optimiser, None, {})
    copied = [written[f"parameter.{number}"].data_ptr() != one.data_ptr() for number, one in enumerate(parameters)]
    assert copied == [False, True, True]
    others = [torch.nn.Parameter(torch.zeros_like(one)) for one in parameters]
    assert checkpoints.load_checkpoint(tmp_path / "checkpoint", "run", others, torch.optim.SGD(others), None) == (3, {})
    assert all(torch.equal(one, other) for one, other in zip(parameters, others, strict=True))


def test_the_loss_falls(tiny: BaseModel, pictures: list[Image.Image], tmp_path: Path) -> None:
    recipe = Recipe("dreambooth", 60, 1e-3, 4, 0, 0.0)
    trained = learn(tiny, pictures, recipe, tmp_path / FILE)
    assert trained.last_loss < 0.9 * trained.first_loss


def test_training_reports_every_step_and_an_estimate_that_ends_at_zero(tiny, pictures, tmp_path) -> None:
    told: list[Progress] = []
    learn(tiny, pictures, LORA, tmp_path / FILE, on_step=told.append)
    assert [progress.step for progress in told] == list(range(1, LORA.steps + 1))
    assert all(progress.seconds_left > 0 for progress in told[:-1])
    assert told[-1].seconds_left == 0


@pytest.mark.parametrize("recipe", [LORA, WITH_TEXT, FULL])
def test_the_base_is_untouched_and_the_adapter_changes_the_picture(tiny, pictures, tmp_path, recipe) -> None:
    attached = Attached(tiny)
    weights = {name: tensor.clone() for name, tensor in plain_parameters(tiny.unet)}
    before = draw(tiny, attached, drawing())[0].image
    learn(tiny, pictures, recipe, tmp_path / FILE)
    adapted = draw(tiny, attached, drawing(tmp_path))[0].image
    assert all(torch.equal(weights[name], tensor) for name, tensor in plain_parameters(tiny.unet))
    assert draw(tiny, attached, drawing())[0].image.tobytes() == before.tobytes()
    assert adapted.tobytes() != before.tobytes()
    facts = facts_of(tmp_path)
    assert (facts.token, facts.noun, facts.method) == ("zk1", "man", recipe.method)
    assert facts.recipe == recipe.as_json()


@pytest.mark.parametrize("recipe", [LORA, WITH_TEXT])
def test_plain_diffusers_reads_the_lora(tiny, tiny_folder, pictures, tmp_path, recipe) -> None:
    """A file that loads and silently does nothing is what users of other trainers report (diffusers#9291)."""
    learn(tiny, pictures, recipe, tmp_path / FILE)
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_folder, dtype=torch.float32)
    parts = [pipeline.unet, *([pipeline.text_encoder] if recipe.text_encoder else [])]
    assert not any("lora" in name for part in parts for name, _ in part.named_modules())
    pipeline.load_lora_weights(tmp_path, weight_name=FILE, adapter_name="zk1")
    layers = [name for part in parts for name, _ in part.named_modules() if name.endswith("lora_A.zk1")]
    with safe_open(tmp_path / FILE, "pt") as reader:
        assert len(layers) == sum(key.endswith("lora_A.weight") for key in reader.keys())  # noqa: SIM118
    for part in parts:
        assert any(tensor.abs().max() > 0 for name, tensor in part.named_parameters() if "lora_B" in name)


def test_a_training_that_cannot_begin_leaves_the_base_to_the_next(tiny, pictures, tmp_path) -> None:
    with pytest.raises(UserError, match="optimiser_unusable"):
        learn(tiny, pictures, replace(LORA, optimiser="adamw8bit"), tmp_path / FILE)
    trained = learn(tiny, pictures, replace(LORA, steps=1), tmp_path / FILE)
    assert trained.steps == 1


def test_the_base_is_itself_again_after_a_person_was_learned_or_drawn(tiny, pictures, tmp_path) -> None:
    fresh = class_latents(tiny, "man", 2, SIDE, None)[0]
    learn(tiny, pictures, WITH_TEXT, tmp_path / FILE)
    assert torch.equal(class_latents(tiny, "man", 2, SIDE, None)[0], fresh)
    draw(tiny, Attached(tiny), drawing(tmp_path))
    assert torch.equal(class_latents(tiny, "man", 2, SIDE, None)[0], fresh)


def test_drawing_between_two_steps_changes_nothing_of_the_training(tiny_folder, pictures, tmp_path) -> None:
    """The resident base serves others while it learns: their pictures and this training are as if alone."""
    other = tmp_path / "other"
    base = BaseModel.load(str(tiny_folder), torch.device("cpu"))
    learn(base, pictures[:2], WITH_TEXT, other / FILE, token="yu2", seed=5)
    alone = draw(base, Attached(base), drawing(other))[0].image.tobytes()
    learn(base, pictures, WITH_TEXT, tmp_path / "quiet" / FILE)

    attached, meanwhile = Attached(base), []

    def on_step(progress: Progress) -> None:
        if progress.step in (3, 7):
            meanwhile.append(draw(base, attached, drawing(other))[0].image.tobytes())
            meanwhile.append(draw(base, attached, drawing())[0].image.tobytes())

    learn(base, pictures, WITH_TEXT, tmp_path / "busy" / FILE, on_step=on_step)
    assert meanwhile[0] == meanwhile[2] == alone
    assert meanwhile[1] == meanwhile[3] == draw(base, attached, drawing())[0].image.tobytes()
    quiet, busy = (load_file(tmp_path / name / FILE) for name in ("quiet", "busy"))
    assert all(torch.equal(quiet[key], busy[key]) for key in quiet)


def test_a_seed_draws_the_same_picture_alone_and_in_a_batch(tiny: BaseModel) -> None:
    attached = Attached(tiny)
    four = draw(tiny, attached, Drawing("a man", count=4, seed=10, steps=2, width=SIDE, height=SIDE))
    one = draw(tiny, attached, Drawing("a man", seed=12, steps=2, width=SIDE, height=SIDE))[0]
    assert [picture.seed for picture in four] == [10, 11, 12, 13]
    difference = max(abs(a - b) for a, b in zip(four[2].image.tobytes(), one.image.tobytes(), strict=True))
    assert difference <= 2  # a batch sums in another order than a single row


def test_a_saved_picture_contains_its_seed_but_not_its_prompt(tiny: BaseModel, tmp_path: Path) -> None:
    asked = drawing(seed=77)
    draw(tiny, Attached(tiny), asked)[0].save(tmp_path / "a.png", asked, "tiny")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.text["seed"] == "77"
        assert "zk1" not in json.dumps(dict(picture.text))


def moved(folder: Path, to: Path, part: str | None = None, place: float = 0.5) -> Path:
    """A copy of a base's folder, in one of whose weights, `place` on the way through `part`, something is trained."""
    shutil.copytree(folder, to)
    for file in to.glob(f"{part}/*.safetensors") if part else ():
        weights = load_file(file)
        name = sorted(weights)[int(place * (len(weights) - 1))]
        save_file(weights | {name: weights[name] + 1e-3}, file, {"format": "pt"})
    return to


def test_an_avatar_knows_its_base_by_the_weights_and_not_by_the_path(
    tiny, tiny_folder, pictures, tmp_path, monkeypatch
) -> None:
    avatar = tmp_path / "avatar"
    learn(tiny, pictures, LORA, avatar / FILE)
    monkeypatch.chdir(moved(tiny_folder, tmp_path / "elsewhere").parent)
    same = BaseModel.load("elsewhere", torch.device("cpu"))
    Attached(same).checked(((avatar, 1.0),))
    assert export(same, avatar, "diffusers", tmp_path / "exported.safetensors")
    for number, (part, place) in enumerate((("unet", 0.1), ("unet", 0.5), ("unet", 0.9), ("text_encoder", 0.5))):
        other = BaseModel.load(str(moved(tiny_folder, tmp_path / str(number), part, place)), torch.device("cpu"))
        other.source = tiny.source  # another model at the same path
        with pytest.raises(UserError, match="wrong_base") as refused:
            Attached(other).checked(((avatar, 1.0),))
        assert "other weights" in sentence(refused.value)
        with pytest.raises(UserError, match="wrong_base"):
            export(other, avatar, "kohya", tmp_path / "refused.safetensors")


def test_an_avatar_without_a_fingerprint_is_matched_by_its_bases_name(tiny, pictures, tmp_path) -> None:
    learn(tiny, pictures, LORA, tmp_path / FILE)
    facts, tensors, config = read_file(tmp_path)
    values = asdict(facts)
    assert values.pop("fingerprint") == tiny.fingerprint
    save_file(tensors, tmp_path / FILE, {"avatar": json.dumps(values), LORA_METADATA: json.dumps(config)})
    Attached(tiny).checked(((tmp_path, 1.0),))
    tiny.source = "another"
    with pytest.raises(UserError, match="wrong_base"):
        Attached(tiny).checked(((tmp_path, 1.0),))


@pytest.mark.parametrize("rest", ["bfloat16", "quantised"])
def test_a_base_is_the_same_however_it_rests(tiny, tiny_folder, monkeypatch, rest: str) -> None:
    if rest == "quantised":
        monkeypatch.setattr("engine.bases.base.free_bytes", lambda device: 0)
        monkeypatch.setattr("engine.bases.quantised.SMALLEST", 1024)
    else:
        monkeypatch.setattr("engine.bases.base.resting_dtype", lambda device: torch.bfloat16)
    assert BaseModel.load(str(tiny_folder), torch.device("cpu")).fingerprint == tiny.fingerprint


def test_a_missing_avatar_and_a_foreign_file_are_refused(tiny: BaseModel, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="missing_avatar"):
        draw(tiny, Attached(tiny), drawing(tmp_path / "nobody"))
    (tmp_path / FILE).write_bytes(b"not a safetensors file")
    with pytest.raises(UserError, match="bad_adapter"):
        draw(tiny, Attached(tiny), drawing(tmp_path))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"prompt": " "}, "empty_prompt"), ({"prompt": "x" * 1001}, "prompt_too_long"), ({"count": 17}, "out_of_range"),
        ({"steps": 251}, "out_of_range"), ({"guidance": 30.5}, "out_of_range"), ({"width": 65}, "bad_size"),
        ({"height": 1544}, "bad_size"),
    ],
)  # fmt: skip
def test_one_beyond_a_limit_is_refused(tiny: BaseModel, change: dict[str, object], code: str) -> None:
    with pytest.raises(UserError) as refused:
        draw(tiny, Attached(tiny), Drawing(**({"prompt": "a man"} | change)))  # type: ignore[arg-type]
    assert refused.value.code == code
    assert sentence(refused.value)
