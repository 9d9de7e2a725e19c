"""Photo inspection: decoding within strict limits, faces, quality and doubles. Pure code on bytes and pictures.

Nothing here trusts a file's name or its metadata. Every figure that a verdict rests on stands in its facts, and every
threshold stands in `Rules` or beside the function that measures, with what it was measured on.
dlib's models are loaded when the first photo is looked at, so importing this module stays cheap.
"""

import hashlib
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFilter, ImageOps, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "HEIF", "TIFF", "GIF", "BMP")

_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"II*\0", b"MM\0*", b"BM")

PEOPLE = frozenset(
    "man woman person boy girl child kid baby toddler teenager adult guy lady gentleman human face people "
    "mother father mom dad grandmother grandfather sister brother son daughter wife husband bride groom "
    "actor actress singer dancer athlete model king queen prince princess".split()
)
"""Class nouns whose photographs must show a face."""

SENTENCES = {
    "empty": "the file is empty",
    "too_heavy": "the file has {megabytes} MB, more than {limit} MB",
    "not_image": "this is not a picture in a format that can be read (JPEG, PNG, WebP, AVIF, HEIC, TIFF, GIF, BMP)",
    "broken": "the file is damaged or was not transferred completely",
    "too_many_pixels": "it has {megapixels} megapixels, more than {limit}",
    "animated": "it is an animation, not a photo",
    "too_small": "it has {width} x {height} pixels; at least {limit} on the shorter side are needed",
    "aspect": "it is too long and narrow ({width} x {height})",
    "no_face": "no face was found",
    "several_faces": "it shows {faces} faces; only the person to be learned should be in it",
    "blurred": "it is blurred",
    "too_dark": "it is too dark",
    "duplicate": "it is the same photo as number {of}",
    "soft": "it is a little out of focus",
    "face_small": "the face is small in it",
    "face_cut": "the face is cut off by the edge",
    "near_duplicate": "it is almost the same as number {of}",
    "rotated": "it lay on its side and was turned upright",
    "grayscale": "it is black and white",
    "compressed": "it is heavily compressed",
    "dark": "it is rather dark",
    "drawn": "it looks drawn, so no face was looked for",
    "low_resolution": "it has only {width} x {height} pixels",
}
"""One plain-language clause per code, for the command line. The chats word the same codes in their own module."""

REJECTIONS = frozenset(
    "empty too_heavy not_image broken too_many_pixels animated too_small aspect no_face several_faces "
    "blurred too_dark duplicate".split()
)


@dataclass(frozen=True, slots=True)
class Rules:
    """What a photo must be. `faces` says what no face, or more than one, means: a rejection or nothing."""

    faces: Literal["required", "ignored"] = "required"
    min_side: int = 256
    min_side_drawn: int = 128
    """A drawing keeps its lines at sizes where a photograph's face is a smudge; the embedded base model draws 128."""
    good_side: int = 512
    max_pixels: int = 40_000_000
    max_bytes: int = 20_000_000
    max_aspect: float = 3.0

    @classmethod
    def for_noun(cls, noun: str) -> "Rules":
        """The rules for a class noun: photographs of people need one face, things and animals need none."""
        words = noun.lower().split()
        return cls(faces="required" if words and words[-1] in PEOPLE else "ignored")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What inspection says of one photo: no codes for one without fault, and `ok` unless a code rejects it."""

    codes: tuple[str, ...]
    facts: Mapping[str, Any]

    @property
    def ok(self) -> bool:
        return REJECTIONS.isdisjoint(self.codes)

    def to_json(self) -> dict[str, Any]:
        return {"ok": self.ok, "codes": list(self.codes), "facts": dict(self.facts)}


@dataclass(frozen=True, slots=True, eq=False)
class Inspected:
    """One photo with its verdict. `image` is upright RGB without metadata, None where nothing could be decoded."""

    verdict: Verdict
    image: Image.Image | None
    digest: str
    """SHA-256 of the file."""
    thumbnail: NDArray[np.float32] | None
    """(16, 16, 3), 0 to 255: what near doubles are told by."""


@dataclass(frozen=True, slots=True)
class Face:
    """A face in a picture that was turned by `turn` degrees counter-clockwise; the box is in the turned picture."""

    left: int
    top: int
    right: int
    bottom: int
    score: float
    turn: int = 0

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top


class BadPhoto(ValueError):
    """A file that cannot be used as a photo; `code` is a verdict's code."""

    def __init__(self, code: str, **facts: Any) -> None:
        super().__init__(code)
        self.code, self.facts = code, facts


def sentence(verdict: Verdict) -> str:
    """The verdict in one plain sentence."""
    if not verdict.codes:
        return "Good."
    said = [SENTENCES[code].format_map(_Said(verdict.facts)) for code in verdict.codes]
    return f"{'Accepted, but' if verdict.ok else 'Rejected:'} {'; '.join(said)}."


class _Said(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return "?"


# Decoding


def load_photo(data: bytes, rules: Rules | None = None) -> Image.Image:
    """The photo as RGB: upright by EXIF, in sRGB, transparency on white, without metadata. Raises BadPhoto."""
    return _decode(data, rules or Rules())[0]


def _decode(data: bytes, rules: Rules) -> tuple[Image.Image, dict[str, Any]]:
    """The normalised picture, and what only the file tells: its format and, for JPEG, its quality."""
    if not data:
        raise BadPhoto("empty")
    if len(data) > rules.max_bytes:
        raise BadPhoto("too_heavy", megabytes=round(len(data) / 1e6, 1), limit=rules.max_bytes // 1_000_000)
    with _quiet():
        opened = _open(data, rules)
        facts: dict[str, Any] = {"format": opened.format}
        if (opened.width * opened.height) > rules.max_pixels:
            raise _too_many(opened.width * opened.height, rules)
        try:
            if getattr(opened, "is_animated", False) and opened.format not in ("MPO", "TIFF", "HEIF"):
                raise BadPhoto("animated")
            if opened.format in ("JPEG", "MPO"):
                facts["quality"] = _jpeg_quality(opened)
            opened.load()
            return _normalised(opened), facts
        except BadPhoto:
            raise
        except MemoryError:
            raise
        except Exception as error:  # Pillow's plugins raise nearly everything on damaged files, SyntaxError included
            raise BadPhoto("broken") from error


def _open(data: bytes, rules: Rules) -> Image.Image:
    _register_heif()
    try:
        return Image.open(BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        pixels = re.search(r"\d{6,}", str(error))
        raise _too_many(int(pixels[0]) if pixels else Image.MAX_IMAGE_PIXELS or 0, rules) from error
    except UnidentifiedImageError as error:
        started = data.startswith(_MAGIC) or data[4:8] == b"ftyp"
        raise BadPhoto("broken" if started else "not_image") from error
    except Exception as error:
        raise BadPhoto("broken") from error


def _too_many(pixels: int, rules: Rules) -> BadPhoto:
    return BadPhoto("too_many_pixels", megapixels=round(pixels / 1e6), limit=rules.max_pixels // 1_000_000)


@contextmanager
def _quiet() -> Iterator[None]:
    """Pillow warns about damaged metadata, which is thrown away, and about huge pictures, which is a refusal here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


@cache
def _register_heif() -> None:
    with suppress(ImportError):  # without it HEIC is one of the formats that cannot be read
        import pillow_heif

        pillow_heif.register_heif_opener()


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation to the turn that puts the picture upright (CIPA DC-008, tag 0x0112)."""


def _normalised(image: Image.Image) -> Image.Image:
    orientation = None
    with suppress(
        Exception
    ):  # a corrupt EXIF block raises SyntaxError, struct.error and others; the photo is still good
        orientation = image.getexif().get(0x0112)
    profile = image.info.get("icc_profile")
    rgb = _rgb(image, profile if isinstance(profile, bytes) else None)
    if orientation in _TURNS:
        rgb = rgb.transpose(_TURNS[orientation])
    clean = Image.new("RGB", rgb.size)  # a new picture carries none of the old one's metadata
    clean.paste(rgb)
    return clean


def _rgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _from_wide(image).convert("RGB")
    alpha = None
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        image = image.convert("RGB")
    elif image.mode in ("P", "1", "LAB", "HSV", "YCbCr"):
        image = image.convert("RGB")
    if profile:
        with suppress(Exception):  # profiles of the wrong colour space or cut short are common; the pixels still count
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            image = converted or image
    image = image.convert("RGB")
    if alpha is not None:
        image = Image.composite(image, Image.new("RGB", image.size, "white"), alpha)
    return image


def _from_wide(image: Image.Image) -> Image.Image:
    """Gray of 16 or 32 bits, or floating point, scaled to 8 bits; `convert` would clip it to white."""
    values = np.nan_to_num(np.asarray(image).astype(np.float64))
    top = float(values.max(initial=0.0))
    scale = 255.0 if image.mode == "F" and top <= 1.0 else 1.0 if top <= 255 else 255 / max(65535.0, top)
    return Image.fromarray(np.clip(np.rint(values * scale), 0, 255).astype(np.uint8))


def _jpeg_quality(image: Image.Image) -> int | None:
    """The quality, 1 to 100, that libjpeg's scale gives for the file's first quantisation table (jcparam.c)."""
    tables: dict[int, list[int]] | None = getattr(image, "quantization", None)
    if not tables:
        return None
    table = next(iter(tables.values()))
    scale = 100 * sum(table) / 3686  # the sum of libjpeg's luminance table at quality 50
    return round(max(1.0, min(100.0, 5000 / scale if scale > 100 else 100 - scale / 2)))


# Faces


@cache
def _detector() -> Any:
    import dlib

    return dlib.get_frontal_face_detector()


@cache
def _network() -> Any:
    import dlib
    import face_recognition_models as models

    return dlib.cnn_face_detection_model_v1(models.cnn_face_detector_model_location())


@cache
def _descriptor() -> tuple[Any, Any]:
    import dlib
    import face_recognition_models as models

    return (
        dlib.shape_predictor(models.pose_predictor_five_point_model_location()),
        dlib.face_recognition_model_v1(models.face_recognition_model_location()),
    )


_LOOKED_AT = 640
"""Side in pixels at which the quick detector looks; it finds faces from 40 px on, 6 % of the picture."""
_SURE, _MAYBE = 0.5, -0.35
"""The quick detector's score above which a face is believed, and below which nothing is.

On 580 photos every score above 0.3 was a face; faces turned aside, in shadow or tiny score down to -0.3, as do a
backpack and a dog. Those between are shown to the network, which is slow but says 0.5 to 1.1 to faces alone."""


def find_faces(image: Image.Image) -> list[Face]:
    """The faces in a picture, the largest first. Where none is upright, it is looked for in the three other turns."""
    faces = _upright_faces(image)
    if not faces:
        for turn in (90, 270, 180):
            turned, scale = _shrunk(_turned(image, turn), _LOOKED_AT)
            found = _quick(turned, scale, upsample=0, least=_SURE)
            if found:
                faces = [Face(f.left, f.top, f.right, f.bottom, f.score, turn) for f in found]
                break
    if not faces:
        faces = _thorough(image, 360)
    return sorted(faces, key=lambda face: -face.width)


def _upright_faces(image: Image.Image) -> list[Face]:
    small, scale = _shrunk(image, _LOOKED_AT)
    found = _quick(small, scale, upsample=1, least=_MAYBE)
    doubtful = [face for face in found if face.score < _SURE][:5]
    return [face for face in found if face.score >= _SURE or (face in doubtful and _confirmed(image, face))]


def _quick(small: Image.Image, scale: float, upsample: int, least: float) -> list[Face]:
    boxes, scores, _ = _detector().run(np.asarray(small), upsample, least)
    return [_face(box, score, scale) for box, score in zip(boxes, scores, strict=True)]


def _confirmed(image: Image.Image, face: Face) -> bool:
    """Whether the network sees a face where the quick detector was in doubt."""
    around = _square(face, 2.5)
    return any(
        seen.width > 0.2 * (around[2] - around[0]) for seen in _thorough(image.crop(around).resize((224, 224)), 224)
    )


def _thorough(image: Image.Image, side: int) -> list[Face]:
    small, scale = _shrunk(image, side)
    found = _network()(np.asarray(small), 0)
    return [_face(seen.rect, seen.confidence, scale) for seen in found if seen.confidence > 0.4]


def _face(box: Any, score: float, scale: float) -> Face:
    left, top, right, bottom = (round(value / scale) for value in (box.left(), box.top(), box.right(), box.bottom()))
    return Face(left, top, right, bottom, float(score))


def _shrunk(image: Image.Image, side: int) -> tuple[Image.Image, float]:
    """The picture with its longer side at `side` pixels (at most doubled), and the scale that did it."""
    scale = min(side / max(image.size), 2.0)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0), scale


def _turned(image: Image.Image, turn: int) -> Image.Image:
    turns = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}
    return image.transpose(turns[turn]) if turn else image


def _square(face: Face, factor: float, lower: float = 0.0) -> tuple[int, int, int, int]:
    """A square around a face, `factor` times its size, its centre lowered by that share of the face's height."""
    half = factor * max(face.width, face.height) / 2
    x, y = (face.left + face.right) / 2, (face.top + face.bottom) / 2 + lower * face.height
    return round(x - half), round(y - half), round(x + half), round(y + half)


def face_crop(image: Image.Image, size: int, *, enlarge: float = 2.2, drawn: bool | None = None) -> Image.Image:
    """The square around the largest face, with hair and shoulders, at `size` pixels; without a face, the middle.

    Args:
        drawn: whether it is a drawing, from whoever has looked already.
    """
    faces = [] if (is_drawing(image) if drawn is None else drawn) else find_faces(image)
    if not faces:
        return ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
    image = _turned(image, faces[0].turn)
    left, top, right, bottom = _square(faces[0], enlarge, lower=0.1)
    side = min(right - left, *image.size)
    left = max(0, min((left + right - side) // 2, image.width - side))
    top = max(0, min((top + bottom - side) // 2, image.height - side))
    return image.resize((size, size), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))


def describe(image: Image.Image) -> NDArray[np.float64] | None:
    """128 numbers for the largest face, None without one; two of the same person are less than 0.6 apart (Euclid)."""
    import dlib

    faces = find_faces(image)
    if not faces:
        return None
    landmarks, model = _descriptor()
    small, scale = _shrunk(_turned(image, faces[0].turn), 1024)
    box = (faces[0].left, faces[0].top, faces[0].right, faces[0].bottom)
    shape = landmarks(np.asarray(small), dlib.rectangle(*(round(value * scale) for value in box)))
    return np.array(model.compute_face_descriptor(np.asarray(small), shape))


# Quality


def looks_drawn(image: Image.Image) -> bool:
    """Whether a picture is a flat drawing: even areas with hard edges between them and no shading.

    At 128 px, after a median filter that takes JPEG's ringing away. Measured on 800 drawings of the embedded base's
    world and 580 photos: it knows every drawing saved as PNG and 19 of 20 JPEGs from 256 px on (at 128 px two thirds at
    quality 90), and takes none of 464 portraits for one; of 90 photos of things, three of a cartoon clock.
    """
    side = image.copy()
    side.thumbnail((128, 128), Image.Resampling.BOX)
    pixels = np.asarray(side.filter(ImageFilter.MedianFilter(3))).astype(np.int16)
    if min(pixels.shape[:2]) < 16:
        return False
    here = pixels[:-1, :-1]
    step = np.maximum(np.abs(pixels[:-1, 1:] - here), np.abs(pixels[1:, :-1] - here)).max(axis=2)
    even, shaded = float((step <= 5).mean()), float(((step > 5) & (step <= 24)).mean())
    hard = float((step > 24).sum() / max(1, (step > 5).sum()))
    levels = pixels >> 5
    _, counts = np.unique(levels[..., 0] * 64 + levels[..., 1] * 8 + levels[..., 2], return_counts=True)
    colours = int((counts > 0.02 * levels[..., 0].size).sum())
    return even >= 0.7 and shaded <= 0.15 and hard >= 0.3 and colours >= 2


def is_drawing(image: Image.Image) -> bool:
    """Flat as a drawing, and without a face as photographs show it (a dark suit before a white wall is flat as well).

    Of the photos that look drawn, faces score 1.37 or more; of 240 drawings, the best scores 1.03.
    """
    if not looks_drawn(image):
        return False
    small, scale = _shrunk(image, _LOOKED_AT)
    return not _quick(small, scale, upsample=1, least=1.2)


def _sharpness(gray: NDArray[np.float64]) -> float:
    """The variance of the second differences at unit contrast, in the direction where it is less (motion blurs one)."""
    if min(gray.shape) < 8:
        return 0.0
    even = (gray - gray.mean()) / (gray.std() + 4)
    across = even[:, 2:] + even[:, :-2] - 2 * even[:, 1:-1]
    along = even[2:] + even[:-2] - 2 * even[1:-1]
    return float(min(across.var(), along.var()))


def _gray(image: Image.Image, side: int) -> NDArray[np.float64]:
    """Gray values with the longer side at most at `side` pixels."""
    image = image.convert("L")
    image.thumbnail((side, side), Image.Resampling.BOX)
    return np.asarray(image).astype(np.float64)


def _colourless(image: Image.Image) -> bool:
    small = image.copy()
    small.thumbnail((128, 128), Image.Resampling.BOX)
    pixels = np.asarray(small).astype(np.int16)
    return float((pixels.max(axis=2) - pixels.min(axis=2) <= 4).mean()) > 0.995


# Verdicts


def inspect_photo(data: bytes, rules: Rules | None = None) -> Inspected:
    """The verdict on one photo. Nothing that a file holds makes this raise."""
    rules = rules or Rules()
    digest = hashlib.sha256(data).hexdigest()
    try:
        image, facts = _decode(data, rules)
    except BadPhoto as bad:
        return Inspected(Verdict((bad.code,), bad.facts), None, digest, None)
    image, codes = _judged(image, facts, rules)
    verdict = Verdict(tuple(codes), {name: value for name, value in facts.items() if value is not None})
    thumbnail = np.asarray(image.resize((16, 16), Image.Resampling.BOX)).astype(np.float32)
    return Inspected(verdict, image, digest, thumbnail)


def _judged(image: Image.Image, facts: dict[str, Any], rules: Rules) -> tuple[Image.Image, list[str]]:
    """The codes for a decoded photo, and the photo, turned upright if a face shows that it lay on its side."""
    codes: list[str] = []
    facts |= {"width": image.width, "height": image.height}
    shorter, longer = sorted(image.size)
    drawn = is_drawing(image)
    least = rules.min_side_drawn if drawn else rules.min_side
    if shorter < least:
        codes.append("too_small")
        facts["limit"] = least
    elif shorter < rules.good_side and not drawn:
        codes.append("low_resolution")
    if longer > rules.max_aspect * shorter:
        codes.append("aspect")
    if shorter < 64 or "aspect" in codes:
        return image, codes
    face = None
    if drawn:
        codes.append("drawn")
    elif rules.faces == "required":
        face, image = _judge_faces(image, facts, codes)
    if not drawn:
        _judge_light(image, face, facts, codes)
    if _colourless(image):
        codes.append("grayscale")
    if (facts.get("quality") or 100) < 25:
        codes.append("compressed")
    return image, codes


def _judge_faces(image: Image.Image, facts: dict[str, Any], codes: list[str]) -> tuple[Face | None, Image.Image]:
    faces = find_faces(image)
    faces = [face for face in faces if face.width > 0.4 * faces[0].width]  # people in the background do no harm
    facts["faces"] = len(faces)
    if not faces:
        codes.append("no_face")
        return None, image
    face = faces[0]
    if face.turn:
        codes.append("rotated")
        facts["turn"] = face.turn
        image = _turned(image, face.turn)
    if len(faces) > 1:
        codes.append("several_faces")
    facts["face"] = round(face.width / min(image.size), 3)
    if facts["face"] < 0.12:
        codes.append("face_small")
    inside = max(0, min(face.right, image.width) - max(face.left, 0)) * max(
        0, min(face.bottom, image.height) - max(face.top, 0)
    )
    if inside < 0.97 * face.width * face.height:
        codes.append("face_cut")
    return face, image


_BLURRED, _SOFT = 0.008, 0.002
"""Least sharpness at 48 and at 128 px.

On a face of 124 px, gaussian blur of 9 px and motion blur of 25 px give 0.003 and 0.006 at 48 px, and blur of 3 px
gives 0.0013 at 128 px. The dimmest good photo gives 0.012 and 0.0028, the usual one 0.1 and 0.03."""


def _judge_light(image: Image.Image, face: Face | None, facts: dict[str, Any], codes: list[str]) -> None:
    """Blur and darkness, of the face where there is one."""
    part = image.crop((face.left, face.top, face.right, face.bottom)) if face else image
    fine, coarse = _sharpness(_gray(part, 128)), _sharpness(_gray(part, 48))
    gray = _gray(part, 128)
    bright = float(np.percentile(gray, 90))
    facts |= {"sharpness": [round(fine, 5), round(coarse, 5)], "brightness": round(float(gray.mean()))}
    if gray.std() >= 4:  # an even area is neither sharp nor blurred
        if coarse < _BLURRED:
            codes.append("blurred")
        elif fine < _SOFT:
            codes.append("soft")
    if bright < 40:
        codes.append("too_dark")
    elif gray.mean() < 45:
        codes.append("dark")


def inspect_album(
    photos: Sequence[bytes], rules: Rules | None = None, seen: Callable[[int, Inspected], None] | None = None
) -> list[Verdict]:
    """The verdicts on an album's photos, in their order, with doubles told. `seen` hears of each as it is done."""
    inspected: list[Inspected] = []
    verdicts: list[Verdict] = []
    for number, data in enumerate(photos, start=1):
        one = inspect_photo(data, rules)
        verdicts.append(_with_doubles(one, inspected))
        inspected.append(one)
        if seen:
            seen(number, one)
    return verdicts


def _with_doubles(one: Inspected, earlier: Sequence[Inspected]) -> Verdict:
    """The verdict, with the number of the first earlier photo that is the same, or else almost the same."""
    if one.image is None:
        return one.verdict
    for code, alike in (("duplicate", _same), ("near_duplicate", _near)):
        for number, other in enumerate(earlier, start=1):
            if other.image is not None and alike(one, other):
                return Verdict((*one.verdict.codes, code), {**one.verdict.facts, "of": number})
    return one.verdict


def _same(one: Inspected, other: Inspected) -> bool:
    if one.digest == other.digest:
        return True
    a, b = one.image, other.image
    return a is not None and b is not None and a.size == b.size and a.tobytes() == b.tobytes()


def _near(one: Inspected, other: Inspected) -> bool:
    """Alike in every part of a 16 x 16 thumbnail; a resaved and resized photo differs by less than 1 on average."""
    if one.thumbnail is None or other.thumbnail is None:
        return False
    difference = np.abs(one.thumbnail - other.thumbnail)
    return float(difference.mean()) < 3 and float(difference.max()) < 30
