"""Photo inspection: what a photo must be, and that no file can do harm. Real photos where they are at hand."""

import csv
import io
import json
import random
import struct
import subprocess
import sys
import time
import zlib
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import resvg_py
from dicebear import Avatar, Style
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageDraw, ImageFile, ImageFilter, ImageFont, ImageOps

from engine.photos.decoding import BadPhoto, load_photo
from engine.photos.faces import describe, face_crop, find_faces, looks_drawn, rotated
from engine.photos.inspection import REJECTIONS, SENTENCES, Verdict, inspect_album, inspect_photo, learnable, sentence
from engine.photos.rules import Rules
from engine.toon import world

DATA = Path(__file__).parents[3] / "shared" / "data"
THINGS = Rules.for_noun("dog")

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the shared test photos are not here")


def texture(width: int = 320, height: int = 320, seed: int = 0) -> Image.Image:
    """A colourful picture that is no drawing: clouds of noise with fine grain."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(40, 216, (12, 12, 3), dtype=np.uint8)).resize((width, height))
    grain = rng.integers(-12, 13, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(coarse).astype(int) + grain, 0, 255).astype(np.uint8))


def saved(image: Image.Image, format: str = "JPEG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def huge_png(width: int, height: int) -> bytes:
    """A valid one-bit PNG of any size in a few kilobytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    body = b"".join(rows.compress(row) for _ in range(height)) + rows.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def with_chunk(png: bytes, kind: bytes, body: bytes) -> bytes:
    """The PNG with a chunk after its header."""
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return png[:33] + chunk + png[33:]


def coded(image: Image.Image, format: str, primaries: int, transfer: int) -> bytes:
    """The picture as a file without an ICC profile that gives its colours by these code points."""
    if format == "PNG":
        return with_chunk(saved(image, "PNG"), b"cICP", bytes((primaries, transfer, 0, 1)))
    if format == "HEIF":
        code_points = {"color_primaries": primaries, "transfer_characteristics": transfer}
        return saved(image, "HEIF", quality=100, chroma=444, save_nclx_profile=True, **code_points)
    head, box, rest = saved(image, "AVIF", quality=100, subsampling="4:4:4").partition(b"colrnclx")
    return head + box + struct.pack(">HH", primaries, transfer) + rest[4:]


def tiff(values: np.ndarray, order: str, kind: str, format: int) -> bytes:
    """An uncompressed TIFF of 32-bit samples (H, W, C) in this byte order, as programs for science and HDR write it."""
    height, width, channels = values.shape
    body = values.astype(f"{order}{kind}").tobytes()
    entries = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, channels, 8), (259, 3, 1, 1), (262, 3, 1, 2),
        (273, 4, 1, 32), (277, 3, 1, channels), (278, 4, 1, height), (279, 4, 1, len(body)), (339, 3, channels, 16),
    ]  # fmt: skip
    start = 32 + len(body)
    out = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", start)
    out += struct.pack(f"{order}4H4H", *[32] * 4, *[format] * 4)
    out = out.ljust(32, b"\0") + body + struct.pack(f"{order}H", len(entries))
    for tag, type, count, value in entries:
        one = struct.pack(f"{order}H2x" if type == 3 and count == 1 else f"{order}I", value)
        out += struct.pack(f"{order}HHI", tag, type, count) + one
    return out + bytes(4)


def codes(data: bytes, rules: Rules = THINGS) -> tuple[str, ...]:
    return inspect_photo(data, rules).verdict.codes


def drawings(count: int, size: int, seed: int = 1) -> list[Image.Image]:
    person = world.sample_person(random.Random(seed), held_out=True)
    return [world.render(scene, size) for scene in world.album(person, count, seed)]


class TestFiles:
    @pytest.mark.parametrize(
        ("data", "code"),
        [
            (b"", "empty"),
            (b"Dear photo,\nthis is a letter.\n" * 40, "not_image"),
            (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not_image"),
            (b"\xff\xd8\xff\xe0 and then nothing", "broken"),
            (saved(texture())[:4000], "broken"),
            (saved(texture(), "PNG")[:4000], "broken"),
            (b"\0" * 20_000_001, "too_heavy"),
            (huge_png(12_000, 10_000), "too_many_pixels"),
            (huge_png(8_000, 6_000), "too_many_pixels"),
        ],
        ids=["empty", "text", "svg", "header only", "cut jpeg", "cut png", "21 MB", "120 Mpx", "48 Mpx"],
    )
    def test_rejects(self, data: bytes, code: str) -> None:
        inspected = inspect_photo(data)
        assert inspected.verdict.codes == (code,)
        assert not inspected.verdict.ok
        assert inspected.image is None
        assert "?" not in sentence(inspected.verdict)
        with pytest.raises(BadPhoto) as raised:
            load_photo(data)
        assert raised.value.code == code

    def test_a_huge_picture_is_rejected_by_its_header(self, monkeypatch: pytest.MonkeyPatch) -> None:
        data = huge_png(12_000, 10_000)
        monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("the pixels were decoded"))
        verdict = inspect_photo(data).verdict
        assert verdict.facts == {"megapixels": 120, "limit": 40}

    @pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP"])
    def test_rejects_animation(self, format: str) -> None:
        frames = [texture(seed=seed) for seed in range(2)]
        assert codes(saved(frames[0], format, save_all=True, append_images=frames[1:])) == ("animated",)

    @pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF", "HEIF", "TIFF", "GIF", "BMP"])
    def test_reads(self, format: str) -> None:
        inspected = inspect_photo(saved(texture(600, 540), format), THINGS)
        assert inspected.verdict.codes == ()
        assert inspected.image is not None
        assert inspected.image.mode == "RGB"
        assert inspected.image.size == (600, 540)

    @settings(max_examples=150, deadline=None)
    @given(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "TIFF"]), st.data())
    def test_damage_never_raises(self, format: str, data: st.DataObject) -> None:
        whole = bytearray(saved(texture(80, 72), format))
        for at in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=12)):
            whole[at] = data.draw(st.integers(0, 255))
        cut = data.draw(st.integers(0, len(whole)))
        verdict = inspect_photo(bytes(whole[:cut]), THINGS).verdict
        assert set(verdict.codes) <= set(SENTENCES)

    def test_corrupt_exif_is_ignored(self) -> None:
        for block in (
            b"Exif\0\0",
            b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
            b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\x12\x01" * 40,
        ):
            assert codes(saved(texture(600, 600), exif=block)) == ()


class TestPixels:
    def test_exif_turns_and_is_stripped(self) -> None:
        left_red = Image.new("RGB", (600, 540), "blue")
        left_red.paste("red", (0, 0, 300, 540))
        exif = Image.Exif()
        exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
        exif[0x010F] = "Camera"
        exif.get_ifd(0x8825)[2] = (52.0, 31.0, 12.0)
        stored = left_red.transpose(Image.Transpose.ROTATE_90)
        image = load_photo(saved(stored, "JPEG", exif=exif, comment=b"hello", quality=95))
        assert image.size == (600, 540)
        red, _, blue = image.getpixel((20, 270))
        assert red > 200 > 60 > blue
        assert image.info == {}
        assert not image.getexif()
        assert b"Camera" not in saved(image)

    def test_16_bit_gray_keeps_its_tones(self) -> None:
        ramp = np.linspace(0, 65535, 600 * 600).reshape(600, 600).astype(np.uint16)
        image = load_photo(saved(Image.fromarray(ramp), "PNG"))
        assert abs(np.asarray(image).mean() - 127.5) < 1
        assert "grayscale" in codes(saved(Image.fromarray(ramp), "PNG"))

    @pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
    def test_transparency_goes_onto_white(self, mode: str) -> None:
        if mode == "P":
            picture = Image.new("P", (600, 600), 0)
            picture.putpalette([0, 0, 0, 200, 0, 0])
            data = saved(picture, "PNG", transparency=0)
        else:
            data = saved(Image.new(mode, (600, 600), (0, 0, 0, 0) if mode == "RGBA" else (0, 0)), "PNG")
        assert load_photo(data).getpixel((10, 10)) == (255, 255, 255)

    def test_cmyk(self) -> None:
        image = load_photo(saved(Image.new("CMYK", (600, 600), (0, 255, 255, 0)), "JPEG"))
        red, green, blue = image.getpixel((10, 10))
        assert red > 200
        assert max(green, blue) < 80

    def test_colour_profiles(self) -> None:
        lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
        srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        plain = np.asarray(load_photo(saved(texture(), "PNG"))).astype(int)
        for profile in (srgb, lab, b"not a profile"):  # one that changes nothing, two that do not apply
            same = np.asarray(load_photo(saved(texture(), "PNG", icc_profile=profile))).astype(int)
            assert np.abs(same - plain).max() <= 2

    @pytest.mark.parametrize("format", ["PNG", "HEIF", "AVIF"])
    @pytest.mark.parametrize(
        ("primaries", "transfer", "stored", "shown"),
        [
            (12, 13, (234, 51, 35), (255, 0, 0)),  # Display P3's values for the three primaries of sRGB
            (12, 13, (117, 251, 76), (0, 255, 0)),
            (12, 13, (0, 0, 245), (0, 0, 255)),
            (9, 16, (148, 148, 148), (255, 255, 255)),  # ITU-R BT.2408, table 1: graphics white and 18 % gray
            (9, 16, (97, 97, 97), (100, 100, 100)),
            (9, 18, (191, 191, 191), (255, 255, 255)),
            (9, 18, (97, 97, 97), (100, 100, 100)),
            (1, 8, (55, 55, 55), (128, 128, 128)),  # linear light
            (1, 13, (200, 120, 80), (200, 120, 80)),
            (2, 2, (200, 120, 80), (200, 120, 80)),
            (1, 1, (200, 120, 80), (200, 120, 80)),
        ],
    )
    def test_colours_given_by_code_points(self, format, primaries, transfer, stored, shown) -> None:
        image = load_photo(coded(Image.new("RGB", (96, 80), stored), format, primaries, transfer))
        assert np.abs(np.asarray(image).astype(int)[40, 48] - shown).max() <= 4

    def test_hdr_keeps_its_highlights_apart(self) -> None:
        ramp = np.repeat(np.linspace(90, 192, 600)[None, :, None], 4, axis=0).repeat(3, axis=2).astype(np.uint8)
        shown = np.asarray(load_photo(coded(Image.fromarray(ramp), "PNG", 9, 16))).astype(int)[0, :, 0]
        assert (np.diff(shown) >= 0).all() and shown[-1] == 255
        white = int(np.searchsorted(ramp[0, :, 0], 148))
        assert 235 <= shown[white] <= 248  # brighter parts are left room, so white is a little below 255
        alone = np.asarray(load_photo(coded(Image.fromarray(ramp[:, : white // 2]), "PNG", 9, 16)))[0, :, 0]
        assert (alone == shown[: white // 2]).all()  # what is darker does not change

    @pytest.mark.parametrize("format", ["PNG", "HEIF", "AVIF"])
    def test_unknown_code_points_are_named(self, format: str) -> None:
        verdict = inspect_photo(coded(texture(), format, 9, 10), THINGS).verdict
        assert verdict.codes == ("unknown_colours",)
        assert "primaries 9, transfer 10" in sentence(verdict)

    def test_an_icc_profile_comes_first_but_in_png(self) -> None:
        srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        gray = Image.new("RGB", (96, 80), (97, 97, 97))
        assert load_photo(saved(gray, "HEIF", icc_profile=srgb)).getpixel((40, 40)) == (97, 97, 97)
        both = with_chunk(saved(gray, "PNG", icc_profile=srgb), b"cICP", bytes((9, 16, 0, 1)))
        assert load_photo(both).getpixel((40, 40)) == (100, 100, 100)

    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize("channels", [3, 4])
    def test_a_float_tiff_is_named(self, order: str, channels: int) -> None:
        verdict = inspect_photo(tiff(np.full((300, 300, channels), 0.5, np.float32), order, "f4", 3)).verdict
        assert verdict.codes == ("float_tiff",)
        assert "floating point" in sentence(verdict)

    def test_another_tiff_that_cannot_be_read_is_no_damaged_file(self) -> None:
        whole = tiff(np.full((300, 300, 3), 2**31, np.float32), "<", "u4", 1)
        assert codes(whole) == ("odd_tiff",)
        assert codes(whole[:3000]) == ("broken",)

    def test_a_gray_float_tiff_keeps_its_tones(self) -> None:
        ramp = np.linspace(0, 1, 600 * 600, dtype=np.float32).reshape(600, 600)
        assert abs(np.asarray(load_photo(saved(Image.fromarray(ramp), "TIFF"))).mean() - 127.5) < 1

    def test_48_megapixels_of_a_phone(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        data = saved(Image.new("RGB", (8064, 6048), (200, 120, 80)), exif=exif)
        image = load_photo(data)
        assert image.size == (3024, 4032)
        assert np.abs(np.array(image.getpixel((9, 9))) - (200, 120, 80)).max() <= 3

    @pytest.mark.parametrize("format", ["JPEG", "MPO", "HEIF"])
    def test_larger_photos_are_made_smaller(self, format: str) -> None:
        rules = Rules("ignored", max_pixels=200_000, reduced={format: 800_000})
        picture = texture(880, 800)
        frames = {"save_all": True, "append_images": [picture.reduce(4)]} if format == "MPO" else {}
        image = load_photo(saved(picture, format, **frames), rules)
        assert image.size == (440, 400)
        assert np.abs(np.asarray(image).astype(int) - np.asarray(picture.reduce(2))).mean() < 6
        for other in (saved(texture(1000, 900), format, **frames), saved(picture, "PNG")):
            with pytest.raises(BadPhoto, match="too_many_pixels"):
                load_photo(other, rules)

    def test_a_progressive_jpeg_may_have_fewer_pixels(self) -> None:
        rules = Rules("ignored", max_pixels=200_000, reduced={"JPEG": 800_000, "progressive": 300_000})
        with pytest.raises(BadPhoto) as raised:
            load_photo(saved(texture(880, 800), progressive=True), rules)
        assert raised.value.code == "too_many_pixels"

    def test_low_quality(self) -> None:
        assert "compressed" in codes(saved(texture(600, 600), quality=5))
        assert "compressed" not in codes(saved(texture(600, 600), quality=60))

    def test_blur_and_darkness(self) -> None:
        picture = texture(600, 600)
        assert "blurred" in codes(saved(picture.filter(ImageFilter.GaussianBlur(40)), "PNG"))
        assert "too_dark" in codes(saved(picture.point(lambda value: value // 12), "PNG"))

    def test_sizes(self) -> None:
        assert "too_small" in codes(saved(texture(200, 400)))
        assert codes(saved(texture(300, 400))) == ("low_resolution",)
        assert "aspect" in codes(saved(texture(2000, 400)))
        for tiny in ((1, 1), (1, 900), (15, 15), (64, 64)):
            assert "too_small" in codes(saved(texture(*tiny)), Rules())


class TestRules:
    def test_nouns(self) -> None:
        assert Rules.for_noun("man").faces == Rules.for_noun("young Woman").faces == "required"
        assert Rules.for_noun("dog").faces == Rules.for_noun("robot toy").faces == "ignored"

    def test_people_need_a_face(self) -> None:
        data = saved(texture(600, 600))
        assert "no_face" in codes(data, Rules.for_noun("person"))
        assert codes(data, Rules.for_noun("teapot")) == ()

    def test_every_code_has_a_sentence(self) -> None:
        assert set(SENTENCES) >= REJECTIONS
        verdict = inspect_photo(saved(texture(100, 100))).verdict
        assert sentence(verdict).startswith("Rejected: it has 100 x 100 pixels; at least 256")
        assert sentence(Verdict((), {})) == "Good."
        assert sentence(Verdict(("soft",), {})) == "Accepted, but it is a little out of focus."
        assert verdict.to_json()["ok"] is False


class TestDrawings:
    """The embedded base's own albums are drawn, at 128 px, and must be accepted."""

    def test_album_is_accepted(self) -> None:
        verdicts = inspect_album([saved(picture, "PNG") for picture in drawings(8, 128)], Rules.for_noun("man"))
        assert [verdict.codes[:1] for verdict in verdicts] == [("drawn",)] * 8
        assert all(verdict.ok for verdict in verdicts)

    def test_larger_jpegs(self) -> None:
        pictures = [picture for seed in range(4) for picture in drawings(3, 512, seed)]
        assert sum(codes(saved(picture, quality=90), Rules()) == ("drawn",) for picture in pictures) >= 11

    def test_crop_of_a_drawing_is_its_middle(self) -> None:
        picture = drawings(1, 256)[0]
        assert np.array_equal(face_crop(picture, 256), picture)

    @pytest.mark.parametrize("name", ["croodles", "notionists", "line-face", "lorelei"])
    @pytest.mark.parametrize("scale", [100, 60])
    def test_line_drawings(self, name: str, scale: int) -> None:
        style = Style(json.loads(files("dicebear_styles").joinpath(f"{name}.json").read_text("utf-8")))
        options = [{"seed": f"s{number}", "scale": scale / 100} for number in range(10)]
        svgs = [str(Avatar(style, one)) for one in options]
        pictures = [load_photo(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=512))) for svg in svgs]
        for side in (512, 128):
            assert all(looks_drawn(picture.resize((side, side), Image.Resampling.LANCZOS)) for picture in pictures)

    @pytest.mark.parametrize("size", [20, 28, 40, 60])
    @pytest.mark.parametrize("height", [500, 1300])
    def test_a_printed_page_is_no_drawing(self, size: int, height: int) -> None:
        page = Image.new("RGB", (1000, 1300), "white")
        line = "The quick brown fox jumps over the lazy dog and then reads a long letter. "
        width = int(ImageFont.load_default(size).getlength(line) / len(line))
        text = "\n".join((line * 20)[start : start + 880 // width] for start in range(1, height // size))
        ImageDraw.Draw(page).multiline_text((60, 60), text, "black", ImageFont.load_default(size), spacing=size // 2)
        page.paste("white", (0, height - 100, 1000, 1300))
        assert not looks_drawn(page)

    def test_a_plain_page_is_no_drawing(self) -> None:
        page = Image.new("RGB", (600, 600), "white")
        assert not looks_drawn(page)
        ImageDraw.Draw(page).text((20, 20), "a letter", fill="black")
        assert "no_face" in codes(saved(page, "PNG"), Rules())


class TestDuplicates:
    def test_exact_and_near(self) -> None:
        first = texture(600, 600)
        resaved = saved(first.resize((540, 540)), quality=70)
        album = [
            saved(texture(600, 600, 9)),
            saved(first, "PNG"),
            resaved,
            saved(first, "PNG"),
            saved(first, "BMP"),
            b"",
        ]
        verdicts = inspect_album(album, THINGS)
        assert [verdict.codes for verdict in verdicts] == [
            (),
            (),
            ("near_duplicate",),
            ("duplicate",),
            ("duplicate",),
            ("empty",),
        ]
        assert [verdict.facts.get("of") for verdict in verdicts] == [None, None, 2, 2, 2, None]

    def test_each_photo_is_reported_when_it_is_done(self) -> None:
        seen: list[int] = []
        inspect_album([b"", b"x"], seen=lambda number, one: seen.append(number))
        assert seen == [1, 2]


def test_import_is_cheap() -> None:
    code = (
        "import sys, engine.photos.inspection;"
        " print([m for m in ('dlib', 'torch', 'arq', 'pillow_heif') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert run.stdout.strip() == "[]", run.stderr


EXPECTED = {
    "face too small": "face_small",
    "too small": "too_small",
    "no face": "no_face",
    "face cut": "face_cut",
    "blurred": "blurred",
    "soft": "soft",
    "heavily compressed": "compressed",
    "too dark": "too_dark",
    "near duplicate": "near_duplicate",
    "duplicate": "duplicate",
    "rotated": "rotated",
    "animated": "animated",
    "broken file": "broken",
    "empty": "empty",
    "not an image": "not_image",
    "too many pixels": "too_many_pixels",
    "aspect ratio": "aspect",
    "black and white": "grayscale",
    "below 512": "low_resolution",
}
"""The words of the manifest, and the code that stands for them."""


def edge_rows() -> list[dict[str, str]]:
    manifest = DATA / "edge" / "manifest.tsv"
    if not manifest.exists():
        return []
    with manifest.open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


@needs_data
@pytest.mark.parametrize("row", edge_rows(), ids=lambda row: row["file"])
def test_edge_file(row: dict[str, str]) -> None:
    """Each file of the collection of hard cases gets the verdict that a person would give."""
    folder = DATA / "edge"
    data = (folder / row["file"]).read_bytes()
    before = [(folder / "face_good_512.jpg").read_bytes()] if row["file"].startswith("dup_") else []
    verdict = inspect_album([*before, data])[-1]
    wanted = row["expected_verdict"]
    asked = wanted.partition(":")[0]
    may_be = {"accept": {True}, "warn": {True}, "warn/reject": {True, False}, "reject/warn": {True, False}}
    assert verdict.ok in may_be.get(asked.split()[0].rstrip(";"), {False}), verdict
    if row["file"] == "drawn_face_ai_sketch.png":
        return  # a pencil sketch with soft shading passes for a photo: no cheap measure tells them apart
    if asked.startswith("accept"):
        assert set(verdict.codes) <= {"low_resolution", "grayscale"}, verdict
        return
    assert {code for words, code in EXPECTED.items() if words in wanted} & set(verdict.codes), (wanted, verdict)


@needs_data
class TestPhotos:
    def test_album_of_a_man(self) -> None:
        photos = sorted((DATA / "albums" / "suaresito").glob("*.jpg"))
        verdicts = inspect_album([photo.read_bytes() for photo in photos])
        assert all(verdict.ok for verdict in verdicts)
        assert sum("face_small" in verdict.codes for verdict in verdicts) == 2
        assert {code for verdict in verdicts for code in verdict.codes} == {"face_small"}

    @pytest.mark.parametrize("folder", ["albums/caosdelola_dog", "dreambench/dog", "dreambench/dog6"])
    def test_dogs(self, folder: str) -> None:
        photos = [photo.read_bytes() for photo in sorted((DATA / folder).glob("*.jpg"))]
        assert all(verdict.ok for verdict in inspect_album(photos, Rules.for_noun("dog")))
        assert codes(photos[0], Rules.for_noun("man")) == ("no_face",)

    def test_portraits(self) -> None:
        portraits = sorted((DATA / "portraits").glob("*.jpg"))[::15]
        verdicts = [inspect_photo(photo.read_bytes()).verdict for photo in portraits]
        assert all(verdict.ok for verdict in verdicts)
        assert {code for verdict in verdicts for code in verdict.codes} <= {"low_resolution"}

    def test_two_people(self) -> None:
        one, two = (
            load_photo(path.read_bytes()) for path in sorted((DATA / "portraits").glob("london_0*neutral*"))[:2]
        )
        both = Image.new("RGB", (one.width + two.width, one.height))
        both.paste(one, (0, 0))
        both.paste(two, (one.width, 0))
        verdict = inspect_photo(saved(both, "PNG")).verdict
        assert verdict.codes[-1] == "several_faces"
        assert verdict.facts["faces"] == 2

    def test_crop_holds_the_face(self) -> None:
        photo = load_photo((DATA / "albums" / "suaresito" / "20.jpg").read_bytes())
        crop = face_crop(photo, 256)
        assert crop.size == (256, 256)
        face = find_faces(crop)[0]
        assert 90 < face.width < 150
        assert abs(face.left + face.right - 256) < 40

    def test_crop_believes_who_has_looked_already(self, monkeypatch: pytest.MonkeyPatch) -> None:
        photo = load_photo((DATA / "albums" / "suaresito" / "20.jpg").read_bytes())
        monkeypatch.setattr("engine.photos.faces.is_drawing", lambda image: pytest.fail("looked once more"))
        middle = ImageOps.fit(photo, (256, 256), Image.Resampling.LANCZOS)
        assert np.array_equal(face_crop(photo, 256, drawn=True), middle)
        assert not np.array_equal(face_crop(photo, 256, drawn=False), middle)

    @pytest.mark.parametrize(
        ("name", "turn"),
        [
            ("portraits/canada_065f.jpg", 90),
            ("portraits/canada_065f.jpg", 270),
            ("portraits/canada_031f.jpg", 180),  # upside down it scores 0.59, on its side another one does
            ("portraits/london_038_neutral.jpg", 90),
            ("portraits/faker_male_94.jpg", 180),
            ("albums/suaresito/14.jpg", 270),  # the quick detector is in doubt even if the photo is upright
        ],
    )
    def test_a_turned_face_is_learned_upright(self, name: str, turn: int) -> None:
        upright = load_photo((DATA / name).read_bytes())
        lying = saved(rotated(upright, turn), "PNG")
        inspected = inspect_photo(lying)
        assert "rotated" in inspected.verdict.codes
        assert inspected.verdict.facts["turn"] == 360 - turn
        assert inspected.image is not None
        assert learnable(lying).tobytes() == inspected.image.tobytes() == upright.tobytes()

    def test_a_thing_is_learned_as_it_lies(self) -> None:
        lying = (DATA / "edge" / "rotated_90_no_exif.jpg").read_bytes()
        assert learnable(lying, THINGS).tobytes() == load_photo(lying).tobytes()

    def test_turned_photo_is_put_upright(self) -> None:
        inspected = inspect_photo((DATA / "edge" / "rotated_90_no_exif.jpg").read_bytes())
        assert inspected.image is not None
        assert find_faces(inspected.image)[0].turn == 0

    def test_descriptors_of_different_people_differ(self) -> None:
        man = [load_photo((DATA / "albums/suaresito" / name).read_bytes()) for name in ("02.jpg", "10.jpg")]
        other = load_photo(next((DATA / "portraits").glob("london_*neutral*")).read_bytes())
        first, second, third = (describe(photo) for photo in (*man, other))
        assert first is not None and second is not None and third is not None
        assert first.shape == (128,)
        assert np.linalg.norm(first - second) < 0.6 < np.linalg.norm(first - third)

    def test_speed(self) -> None:
        photo = (DATA / "albums" / "suaresito" / "02.jpg").read_bytes()
        inspect_photo(photo)
        started = time.process_time()
        inspect_photo(photo)
        assert time.process_time() - started < 1.0
