"""What is learned from: crops, buckets, captions, class pictures, and each step's random choices."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from engine.adapters.adapters import FILE, Attached
from engine.bases.families import SD1, TOON
from engine.bases.schedule import Diffusion
from engine.drawing.drawing import Drawing, draw
from engine.learning import class_pictures
from engine.learning.batches import micro_batches
from engine.learning.class_pictures import album_as_class, class_latents, class_picture_steps
from engine.learning.examples import Example, encode_album, instance_prompts
from engine.learning.listener import Stopped
from engine.learning.material import without
from engine.learning.samples import example_indices, step_sample
from engine.measuring.evaluation import people
from engine.photos.captioned import read_captioned, read_captions
from engine.photos.crops import bucket_of, buckets, cropped, face_square, largest_face, prepare
from engine.photos.faces import Face
from engine.recipe import Recipe
from engine.sentences import sentence
from engine.toon.world import album, render
from storage.errors import UserError
from tests.engine.learning import learn
from tests.engine.tiny import applied

LONDON = sorted((Path(__file__).parents[3] / "shared" / "data" / "portraits").glob("london_*"))
RECIPE = Recipe("lora", 4, 1e-3, 2, 1, 1.0, rank=4, alpha=4, prior_pictures=2)

sizes = st.tuples(st.integers(64, 4000), st.integers(64, 4000))


@given(st.sampled_from((256, 512, 768, 1024)))
def test_every_bucket_has_the_area_of_the_square_or_less_and_one_is_the_square(side: int) -> None:
    found = buckets(side, 64)
    assert (side, side) in found
    for width, height in found:
        assert width % 64 == height % 64 == 0
        assert width * height <= side * side
        assert max(width, height) <= 2 * min(width, height)
        assert (height, width) in found and width * height >= 0.8 * side * side


@given(sizes)
def test_a_picture_goes_into_the_bucket_of_its_aspect(size: tuple[int, int]) -> None:
    found = buckets(512, 64)
    chosen = bucket_of(size, found)
    aspect = size[0] / size[1]
    nearest = min(abs(torch.log(torch.tensor(w / h / aspect))) for w, h in found)
    assert abs(torch.log(torch.tensor(chosen[0] / chosen[1] / aspect))) <= nearest + 1e-5
    if size[0] == size[1]:
        assert chosen == (512, 512)


@given(sizes, st.data())
def test_the_square_around_a_face_lies_in_the_photo_and_holds_the_face_if_it_can(size, data) -> None:
    width = data.draw(st.integers(8, min(size)))
    left, top = data.draw(st.integers(0, size[0] - width)), data.draw(st.integers(0, size[1] - width))
    face = Face(left, top, left + width, top + width, 1.0)
    box = face_square(size, face, 256)
    assert 0 <= box[0] < box[2] <= size[0] and 0 <= box[1] < box[3] <= size[1]
    assert box[2] - box[0] == box[3] - box[1] >= min(256, *size)
    assert box[0] <= left and box[1] <= top and box[2] >= left + width and box[3] >= top + width


def test_a_crop_returns_the_box_of_its_face() -> None:
    picture = Image.new("RGB", (900, 600), "white")
    face = Face(100, 200, 200, 300, 1.0)
    picture.paste("red", (100, 200, 200, 300))
    for crop in ("face", "buckets"):
        part, box, _ = cropped(picture, crop, 128, 16, face)
        assert box is not None
        left, top, right, bottom = (
            round(share * side) for share, side in zip(box, (*part.size, *part.size), strict=True)
        )
        assert part.getpixel(((left + right) // 2, (top + bottom) // 2)) == (255, 0, 0)
        assert part.getpixel((min(right + 4, part.width - 1), (top + bottom) // 2))[1] > 200
    assert cropped(picture, "face", 128, 16, face)[0].size == (128, 128)
    assert cropped(picture, "buckets", 128, 16, face)[0].width > 128


@pytest.mark.parametrize(
    ("size", "crop", "expected"),
    [
        ((300, 300), "centre", (300, 300, 0, 0)),
        ((900, 600), "centre", (600, 900, 0, 32)),  # enlarged or reduced to a height of 128: 192 wide, 32 off each side
        ((600, 900), "centre", (900, 600, 32, 0)),
        ((90, 60), "centre", (60, 90, 0, 32)),
        ((900, 600), "face", (300, 300, 0, 0)),  # the square around the face is a photo of its own
    ],
)
def test_the_original_size_of_a_crop_is_what_diffusers_tells_sdxl(size, crop, expected) -> None:
    _, _, original = cropped(Image.new("RGB", size), crop, 128, 16, Face(100, 100, 200, 200, 1.0))
    assert original == expected


def test_a_picture_whose_target_is_the_noise_is_drawn_as_well_as_the_base_draws(tiny) -> None:
    assert class_picture_steps(tiny, "noise") == tiny.family.draw_steps
    assert class_picture_steps(tiny, "base") == class_pictures.DENOISING_STEPS < tiny.family.draw_steps


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a photo of cr7d man", "a photo of man"),
        ("cr7d smiling in a park", "man smiling in a park"),
        ("at the sea with Cr7d, in the rain", "at the sea with man, in the rain"),
        ("xcr7d and cr7dx are others", "xcr7d and cr7dx are others"),
        ("cr7d  man and cr7d", "man and man"),
    ],
)
def test_a_caption_without_the_token_is_one_of_the_class(prompt: str, expected: str) -> None:
    assert without("cr7d", "man", prompt) == expected


@pytest.mark.skipif(not LONDON, reason="the shared test photos are not here")
def test_the_face_is_larger_in_the_crop_than_in_the_photo() -> None:
    photo = Image.open(LONDON[0]).convert("RGB")
    wide = Image.new("RGB", (photo.width * 3, photo.height), "gray")
    wide.paste(photo, (photo.width * 2, 0))
    face = largest_face(wide)
    assert face is not None and face.left > photo.width * 1.8
    part, box, _ = cropped(wide, "face", 256, 64, face)
    assert part.size == (256, 256)
    assert box is not None and 0.2 < box[2] - box[0] < 0.6
    assert abs((box[0] + box[2]) / 2 - 0.5) < 0.15


def test_an_album_of_many_aspects_is_encoded_in_its_buckets_and_mirrored_on_demand(tiny) -> None:
    album = [Image.new("RGB", size, "red") for size in ((200, 100), (100, 100), (100, 200))]
    recipe = Recipe("lora", 1, 1e-3, 1, 0, 0, crop="buckets", flip=True)
    examples = encode_album(tiny, album, recipe, 64, [(0,), (1,), (2,)])
    assert [tuple(example.mean.shape) for example in examples[::2]] == [(4, 12, 20), (4, 16, 16), (4, 20, 12)]
    assert [example.prompts for example in examples] == [(0,), (0,), (1,), (1,), (2,), (2,)]


def test_class_pictures_are_drawn_once_for_each_base_noun_and_wording(tiny, tmp_path: Path) -> None:
    first, _ = class_latents(tiny, "man", 2, 64, tmp_path)
    (file,) = tmp_path.rglob("*.safetensors")
    before = file.stat().st_mtime_ns
    again, prompts = class_latents(tiny, "man", 2, 64, tmp_path)
    assert torch.equal(first, again) and file.stat().st_mtime_ns == before
    assert prompts == ["a photo of man"] * 2
    class_latents(tiny, "woman", 2, 64, tmp_path)
    class_latents(tiny, "man", 2, 64, tmp_path, ("a picture of {noun}",))
    assert len(list(tmp_path.rglob("*.safetensors"))) == 3


def test_class_pictures_go_on_after_the_batch_that_was_kept(tiny, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(class_pictures, "BATCH", 2)
    told: list[tuple[int, int]] = []

    def stop(drawn: int, of: int) -> None:
        if drawn == 2:
            raise Stopped

    with pytest.raises(Stopped):
        class_latents(tiny, "man", 5, 64, tmp_path, on_step=stop)
    stopped, _ = class_latents(tiny, "man", 5, 64, tmp_path, on_step=lambda *said: told.append(said))
    assert list(dict.fromkeys(told)) == [(2, 5), (4, 5)] and len(told) == 2 * class_pictures.DENOISING_STEPS
    assert torch.equal(stopped, class_latents(tiny, "man", 5, 64, None)[0])


def test_class_pictures_that_do_not_fit_together_are_drawn_apart(tiny) -> None:
    together, _ = class_latents(tiny, "man", 3, 64, None)
    forward, rows = tiny.unet.forward, []

    def small(sample: torch.Tensor, *arguments: object, **options: object) -> object:
        if len(sample) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        rows.append(len(sample))
        return forward(sample, *arguments, **options)

    tiny.unet.forward, most = small, 2
    apart, _ = class_latents(tiny, "man", 3, 64, None)
    assert set(rows) == {2}  # one picture, with guidance
    assert (together - apart).abs().max() < 0.05 * together.abs().max()
    most = 1
    with pytest.raises(UserError, match="out_of_memory"):
        class_latents(tiny, "man", 3, 64, None)


def test_drawing_between_two_steps_changes_no_class_picture_and_is_as_if_alone(tiny, pictures, tmp_path: Path) -> None:
    learn(tiny, pictures, replace(RECIPE, text_encoder=True, prior_batch=0), tmp_path / FILE, side=64)
    attached, asked = Attached(tiny), Drawing("zk1 man", seed=3, steps=1, width=64, height=64, avatars=(tmp_path,))
    quiet, alone = class_latents(tiny, "man", 1, 64, None)[0], draw(tiny, attached, asked)[0].image.tobytes()
    drawn: set[bytes] = set()
    busy, _ = class_latents(
        tiny, "man", 1, 64, None, on_step=lambda *said: drawn.add(draw(tiny, attached, asked)[0].image.tobytes())
    )
    assert torch.equal(quiet, busy) and drawn == {alone}


@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 3))
def test_every_photo_comes_once_before_any_comes_again(count: int, batch: int, seed: int) -> None:
    rows = [row for step in range(12) for row in example_indices(count, batch, step, seed)]
    for start in range(0, len(rows) - count + 1, count):
        assert sorted(rows[start : start + count]) == list(range(count))


def test_two_devices_have_the_rows_of_one_with_the_doubled_batch() -> None:
    examples = [Example(torch.zeros(4, 8, 8), torch.ones(4, 8, 8), (0,)) for _ in range(5)]
    priors = torch.zeros(2, 4, 8, 8)
    two = step_sample(3, 7, RECIPE, 2, examples, priors, Diffusion({}))
    one = step_sample(3, 7, replace(RECIPE, batch=4, prior_batch=2), 1, examples, priors, Diffusion({}))
    spread = step_sample(3, 7, replace(RECIPE, accumulation=2), 1, examples, priors, Diffusion({}))
    for other in (one, spread):
        assert other.examples == two.examples and other.class_pictures == two.class_pictures
        assert torch.equal(other.timesteps, two.timesteps)
        assert all(torch.equal(a, b) for a, b in zip(other.noises, two.noises, strict=True))
    assert not torch.equal(step_sample(4, 7, RECIPE, 2, examples, priors, Diffusion({})).timesteps, two.timesteps)


@given(st.lists(st.sampled_from(((4, 8, 8), (4, 6, 10))), min_size=1, max_size=12), st.integers(1, 5))
def test_rows_go_through_with_rows_of_their_shape_and_none_is_lost(shapes, most: int) -> None:
    batches = list(micro_batches(dict(enumerate(shapes)), most))
    assert sorted(place for batch in batches for place in batch) == list(range(len(shapes)))
    assert all(len(batch) <= most and len({shapes[place] for place in batch}) == 1 for batch in batches)


def test_a_captioned_set_is_read_and_what_is_wrong_in_it_is_named(tmp_path: Path) -> None:
    Image.new("RGB", (80, 60), "red").save(tmp_path / "a.png")
    with pytest.raises(UserError, match="no_captions"):
        read_captioned(tmp_path)
    lines = tmp_path / "metadata.jsonl"
    lines.write_text('{"file_name": "a.png", "text": "a red thing"}\n\n')
    found = read_captioned(tmp_path)
    assert len(found) == 1 and found.texts == ("a red thing",) and found[0].size == (80, 60)
    for bad in ("no json", "[]", json.dumps({"file_name": "b.png", "text": "x"}), json.dumps({"text": "x"}),
                json.dumps({"file_name": "../a.png", "text": "x"}),
                json.dumps({"file_name": "a.png", "text": 5})):  # fmt: skip
        lines.write_text('{"file_name": "a.png", "text": "a red thing"}\n' + bad)
        with pytest.raises(UserError) as raised:
            read_captioned(tmp_path)
        assert raised.value.code == "bad_captions" and "line 2" in sentence(raised.value)


RED, SAID = '{"file_name": "a.png", "text": "a red thing"}', ("a red thing",)
LIST, SEVERAL = '{"file_name": "a.png", "text": ["a", " ", null, "b"]}', ("a", "b")


@pytest.mark.parametrize(
    ("name", "content", "captions"),
    [
        ("metadata.jsonl", RED, SAID),
        ("metadata.jsonl", "\ufeff" + RED + "\r\n", SAID),
        ("metadata.jsonl", '{"file_name": "a.png", "text": "a\u2028b\u0085c"}', ("a\u2028b\u0085c",)),
        ("metadata.jsonl", '{"file_name": "a.png", "caption": "a red thing"}', SAID),
        ("metadata.jsonl", LIST, SEVERAL),
        ("metadata.csv", "file_name,text\r\na.png,a red thing\r\n", SAID),
        ("metadata.csv", "\ufefftext;file_name\na red thing;a.png\n", SAID),
        ("metadata.csv", 'file_name,text\na.png,"red, ""so"" red\nand round"\n', ('red, "so" red\nand round',)),
        ("a.txt", "\ufeffa red thing\r\n", SAID),
        ("a.txt", "a\n\nb", SEVERAL),
    ],
)
def test_captions_in_every_form_that_people_have(tmp_path: Path, name: str, content: str, captions) -> None:
    Image.new("RGB", (80, 60), "red").save(tmp_path / "a.png")
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    found = read_captioned(tmp_path)
    assert (found.files, found.captions, found.left_out) == ((tmp_path / "a.png",), (captions,), ())
    assert found.texts == captions[:1]
    assert instance_prompts(None, found, "", replace(RECIPE, captions=True), found.captions) == [list(captions)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("metadata.jsonl", '{"file_name": "b.png", "text": null}'),
        ("metadata.jsonl", '{"file_name": "b.png", "text": NaN}'),
        ("metadata.jsonl", '{"file_name": "b.png", "text": [null, ""]}'),
        ("metadata.csv", "b.png,"),
        ("metadata.csv", "b.png,nan"),
        ("metadata.csv", "b.png"),
        ("b.txt", "\n"),
        ("", ""),
    ],
)
def test_a_picture_without_a_caption_is_named_and_left_out(tmp_path: Path, name: str, row: str) -> None:
    for letter in "ab":
        Image.new("RGB", (80, 60), "red").save(tmp_path / f"{letter}.png")
    (tmp_path / "a.txt").write_text("a red thing")
    first = {"metadata.jsonl": RED + "\n", "metadata.csv": "file_name,text\na.png,a red thing\n"}.get(name, "")
    if name:
        (tmp_path / name).write_text(first + row)
    found = read_captioned(tmp_path)
    assert (found.captions, found.left_out) == ((SAID,), ("b.png: it has no caption.",))


def test_a_damaged_picture_is_named_and_left_out(tmp_path: Path) -> None:
    Image.effect_noise((300, 300), 50).save(tmp_path / "b.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:9000])
    (tmp_path / "b.txt").write_text("noise")
    with pytest.raises(UserError, match="no_good_pictures") as raised:
        read_captioned(tmp_path)
    assert "b.png: the file is damaged" in sentence(raised.value)
    Image.new("RGB", (80, 60), "red").save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("a red thing")
    found = read_captioned(tmp_path)
    assert found.captions == (SAID,) and len(found.left_out) == 1 and "b.png: the file is damaged" in found.left_out[0]
    assert len(read_captions(tmp_path)) == 2  # which does not read the pictures


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv", "a.txt"])
def test_captions_in_other_encodings_are_refused_in_one_line(tmp_path: Path, name: str, encoding: str) -> None:
    Image.new("RGB", (80, 60), "red").save(tmp_path / "a.png")
    text = {"metadata.jsonl": RED, "metadata.csv": "file_name,text\na.png,a red thing"}.get(name, "red")
    (tmp_path / name).write_bytes(text.replace("red", "rötlich").encode(encoding))
    with pytest.raises(UserError, match="bad_captions") as raised:
        read_captioned(tmp_path)
    assert "is not in UTF-8" in sentence(raised.value) and "\n" not in sentence(raised.value)


@pytest.mark.skipif(not LONDON, reason="the shared test photos are not here")
def test_a_drawing_is_learned_with_captions_and_a_photo_is_not() -> None:
    class Toons:
        family = TOON

    drawing, photo = render(album(people(1)[0], 1, seed=0)[0]), Image.open(LONDON[0])
    plain = [prompt.format(instance="cr7d man") for prompt in TOON.instance_prompts]
    told, usual = instance_prompts(Toons, [drawing, photo], "cr7d man", RECIPE, ())  # type: ignore[arg-type]
    assert usual == plain and told[: len(plain)] == plain
    assert len(set(told)) > 10 and all("cr7d man" in prompt for prompt in told)
    asked = replace(RECIPE, prompts=("{instance}!",))
    assert instance_prompts(Toons, [drawing], "cr7d man", asked, ()) == [["cr7d man!"]]  # type: ignore[arg-type]
    assert instance_prompts(Toons, [drawing], "cr7d man", replace(RECIPE, captions=True), ["she"]) == [["she"]]  # type: ignore[arg-type]


def test_photos_stand_among_the_class_pictures_under_prompts_from_all_over_their_lists(tiny, pictures) -> None:
    prompts = [[f"{number}: {word}" for word in "abcd"] for number in range(len(pictures))]
    latents, taken = album_as_class(tiny, pictures, prompts, 2, 64)
    assert taken == [f"{number}: {word}" for number in range(len(pictures)) for word in "ac"]
    own, _ = tiny.encode_pictures([prepare(picture, 64) for picture in pictures])
    assert torch.equal(latents[::2], own) and torch.equal(latents[1::2], own)


def test_photos_among_the_class_pictures_are_answered_as_before_under_the_class_noun(tiny, pictures, tmp_path) -> None:
    recipe = replace(RECIPE, steps=30, batch=4, prior_batch=4, learning_rate=3e-3, prior_pictures=4)
    photos, _ = tiny.encode_pictures([prepare(picture, 64) for picture in pictures])
    timesteps = torch.full((len(photos),), 500)
    noisy = tiny.schedule.noisy(
        photos, torch.randn(photos.shape, generator=torch.Generator().manual_seed(0)), timesteps
    )

    def answered(avatar: Path | None) -> torch.Tensor:
        stack = ((avatar, 1.0),) if avatar else ()
        with torch.no_grad(), applied(Attached(tiny), [stack] * len(photos)) as unet:
            return tiny.predict(unet, noisy, timesteps, tiny.encode_prompts(["a photo of man"] * len(photos)))

    def moved(name: str, recipe: Recipe) -> float:
        learn(tiny, pictures, recipe, tmp_path / name / FILE, side=64, prior_folder=tmp_path / "priors")
        return float((answered(tmp_path / name) - answered(None)).square().mean())

    assert moved("beside", replace(recipe, prior_album=4)) < 0.8 * moved("apart", recipe)


def test_other_families_learn_under_their_instance_prompts() -> None:
    class Photos:
        family = SD1

    drawing = render(album(people(1)[0], 1, seed=0)[0])
    assert instance_prompts(Photos, [drawing], "cr7d man", RECIPE, ()) == [["a photo of cr7d man"]]  # type: ignore[arg-type]
