"""The drawn world: outlines, turned heads, captions, and what a scene shows."""

import math
import re
from dataclasses import replace
from random import Random

import numpy as np
import pytest
import resvg_py
from dicebear import Avatar
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.cartoon import artwork, attributes, captions, figure, pose, world
from engine.cartoon.pose import LEVELS, USUAL, Pose, level, place, placement, turn
from engine.cartoon.world import HAIR_STYLES_OF, Look, Scene, rgb, sample_look, sample_person, sample_scene
from engine.toon import colours, things
from engine.toon.world import artwork as style

PLAIN = Look("t-shirt", "white", "#ffffff", "blue", "#3a6fd8")


def somebody(seed: int = 0, **changes: object) -> world.Person:
    person = replace(sample_person(Random(seed), held_out=False), face_width=1.0, brow_weight=1.0)
    return replace(person, **changes)  # type: ignore[arg-type]


# Outlines


@pytest.mark.parametrize(
    ("component", "variant"),
    [
        ("mouth", "smile"),
        ("eyes", "hearts"),
        ("top", "dreads01"),
        ("accessories", "kurt"),
        ("facialHair", "beardMedium"),
    ],
)
def test_a_part_is_drawn_as_the_artwork_draws_it(component: str, variant: str) -> None:
    options: dict[str, object] = {
        f"{name}Probability": 0 for name in ("top", "accessories", "facialHair") if name != component
    }
    options |= {f"{component}Probability": 100, f"{component}Variant": [variant], "size": 280}
    options |= {"hairColor": ["#112233"], "facialHairColor": ["#112233"], "accessoriesColor": ["#445566"]}
    with_part = str(Avatar(style("avataaars"), options).to_string())
    start = with_part.index(f'<g id="{component}-{variant}')
    theirs = re.search(r"<g[^>]*>(.*?)</g>(?=<g id=|<clipPath|<linear|</defs)", with_part[start:])
    assert theirs is not None
    x, y = artwork._origins()[component]
    colour = {"{hair}": "#112233", "{facialHair}": "#112233", "{accessories}": "#445566"}
    ours = "".join(s.to_svg(s.points, colour.get(s.fill, s.fill)) for s in artwork.part(component, variant))
    frame = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 280 280" width="280" height="280" fill="none">'
    pictures = [
        np.frombuffer(bytes(resvg_py.svg_to_bytes(svg_string=f"{frame}{body}</svg>")), np.uint8)
        for body in (ours, f'<g transform="translate({x} {y})">{theirs.group(1)}</g>')
    ]
    decoded = [
        np.asarray(figure.Image.open(figure.io.BytesIO(p.tobytes())).convert("RGBA"), np.int16) for p in pictures
    ]
    different = (np.abs(decoded[0] - decoded[1]).max(axis=2) > 40).mean()
    assert decoded[0][..., 3].max() == 255 or component == "eyes"
    assert different < 0.012  # the gleam of two sunglasses is left out


def test_splitting_a_curve_does_not_change_it() -> None:
    curve = artwork.outline("M0 0C0 100 100 100 100 0", "black")
    assert curve.operations.count("C") >= 8
    points = np.concatenate(([[0.0, 0.0]], curve.points[1:])).reshape(-1, 2)
    ends = points[0::3]
    t = np.interp(ends[:, 0], *np.array([(3 * s * s - 2 * s**3, s) for s in np.linspace(0, 1, 4001)]).T * [[100], [1]])
    assert np.allclose(ends[:, 1], 300 * t * (1 - t), atol=0.05)


# Poses


def test_the_usual_pose_moves_nothing() -> None:
    points = np.random.default_rng(0).uniform(0, 280, (50, 2))
    assert np.array_equal(turn(points, USUAL), points)
    assert np.allclose(place(points, placement(USUAL, 280, 280)), points)


@pytest.mark.parametrize("side", [-1, 1])
def test_a_turned_head_moves_in_parallax_and_narrows_at_the_far_side(side: int) -> None:
    turned = Pose(yaw=40.0 * side)
    nose, ear, hair = (turn(np.array([[x, y]]), turned)[0, 0] - x for x, y in ((140.0, 130), (80.0, 115), (30.0, 120)))
    assert side * nose > 20 and abs(hair) < 4 and abs(ear) < abs(nose)
    eyes = turn(np.array([[100.0, 116], [124, 116], [156, 116], [180, 116]]), turned)[:, 0]
    left, right = eyes[1] - eyes[0], eyes[3] - eyes[2]
    far, near = (right, left) if side > 0 else (left, right)
    assert far < 0.8 * near and far < 0.75 * 24


@given(st.floats(-40, 40), st.floats(-20, 20))
def test_a_turned_head_never_folds(yaw: float, pitch: float) -> None:
    grid = np.stack(np.meshgrid(np.linspace(20, 260, 60), np.linspace(0, 280, 60)), axis=-1)
    moved = turn(grid.reshape(-1, 2), Pose(yaw, pitch), 1.28).reshape(grid.shape)
    assert (np.diff(moved[..., 0], axis=1) > 0).all() and (np.diff(moved[..., 1], axis=0) > 0).all()


def test_the_far_ear_is_behind_the_head() -> None:
    assert figure._ears(somebody(), Pose(yaw=30), {"skin": "#123456"}, behind=True).count("<path") == 1
    assert figure._ears(somebody(), Pose(yaw=30), {"skin": "#123456"}, behind=False).count("<path") == 1


@pytest.mark.parametrize("ratio", world.RATIOS)
@pytest.mark.parametrize(
    "posed", [USUAL, Pose(yaw=35, pitch=10), Pose(roll=20, scale=0.8), Pose(x=0.1, y=-0.1, scale=1.3), Pose(scale=0.55)]
)
def test_the_eyes_are_where_the_pose_says(ratio: str, posed: Pose) -> None:
    bald = somebody(noun="man", hair_style="sides", skin="#edb98a", facial_hair="none", brows="#edb98a")
    look = replace(PLAIN, pose=posed, ratio=ratio)
    open_, closed = (
        np.asarray(figure.render(Scene(bald, replace(look, eyes=eyes), 0)), np.int16)
        for eyes in ("surprised", "closed")
    )
    changed = np.argwhere(np.abs(open_ - closed).max(axis=2) > 30)[:, ::-1]
    left, right, _ = figure.features(Scene(bald, look, 0)) * 256 / 280
    assert np.linalg.norm(changed.mean(axis=0) - (left + right) / 2) < 8


@given(st.floats(-40, 40), st.floats(0.5, 1.7), st.floats(-0.25, 0.25))
def test_levels_of_a_pose_are_ordered_and_zero_is_usual(yaw: float, scale: float, x: float) -> None:
    for name, value, usual in (("yaw", yaw, 0.0), ("scale", scale, 1.0), ("x", x, 0.0)):
        number, most = level(name, value), (len(LEVELS[name]) - 2) // 2
        assert -most <= number <= most and (number > 0) <= (value > usual) and (number < 0) <= (value < usual)
    assert all(level(name, getattr(USUAL, name)) == 0 for name in LEVELS)


# Pictures


@pytest.mark.parametrize("seed", range(12))
def test_a_scene_is_drawn_alike_every_time_and_in_its_shape(seed: int) -> None:
    scene = sample_scene(Random(seed))
    picture = figure.render(scene, 128)
    across, down = world.RATIOS[scene.look.ratio]
    assert min(picture.size) == 128 and picture.width * down == picture.height * across
    assert picture.tobytes() == figure.render(scene, 128).tobytes()


def test_a_figure_that_is_moved_up_or_turned_has_no_lower_edge() -> None:
    look = replace(PLAIN, clothes_colour="#ff0000", pose=Pose(roll=14, y=-0.15, scale=0.9))
    picture = np.asarray(figure.render(Scene(somebody(), look, 0)), np.int16)
    red = (picture[-1] == (255, 0, 0)).all(axis=1)
    assert red.sum() > 120 and (np.diff(np.flatnonzero(red)) == 1).all()


def test_every_place_covers_every_shape_of_picture() -> None:
    magenta = replace(PLAIN, background="#ff00ff", pose=Pose(scale=0.5))
    for name, thing in things.THINGS.items():
        for ratio in world.RATIOS if thing.kind == "place" else ():
            picture = np.asarray(figure.render(Scene(somebody(), replace(magenta, things=(name,), ratio=ratio), 1), 64))
            corners = [picture[y, x] for y in (0, -1) for x in (0, -1)]
            assert not any((corner == (255, 0, 255)).all() for corner in corners), (name, ratio)


# People and captions


@given(st.integers(0, 2**32))
@settings(max_examples=200)
def test_pre_training_never_shows_a_held_out_person(seed: int) -> None:
    assert not sample_scene(Random(seed)).person.held_out
    assert sample_person(Random(seed), held_out=True).held_out


@given(st.integers(0, 2**32))
@settings(max_examples=100)
def test_a_persons_colours_are_near_their_names(seed: int) -> None:
    person = sample_person(Random(seed), held_out=False)
    for name, value, table in (
        (person.hair_name, person.hair, world.HAIR_COLOURS),
        (person.skin_name, person.skin, {**world.SKINS, **world.FANTASY_SKINS}),
    ):
        nearest = min(table, key=lambda key: min(math.dist(rgb(value), rgb(colour)) for colour in table[key]))
        spread = max(math.dist(rgb(a), rgb(b)) for a in table[name] for b in table[name])
        distance = min(math.dist(rgb(value), rgb(colour)) for colour in table[name])
        assert nearest == name or distance <= spread / 2 + 13


@given(st.integers(0, 2**32))
def test_a_colour_has_the_name_that_captions_say(seed: int) -> None:
    name, value = world.sample_colour(Random(seed))
    assert name in colours.names_of(rgb(value))


@given(st.integers(0, 2**32))
@settings(max_examples=200)
def test_a_caption_is_short_lower_case_and_names_somebody(seed: int) -> None:
    random = Random(seed)
    text = captions.caption(sample_scene(random), random)
    assert text == text.lower().strip() and len(text) < 500
    nouns = {noun for options in captions.NOUNS.values() for noun in options}
    assert set(re.split(r"[ ,]+", text)) & nouns


@given(st.integers(0, 2**32))
@settings(max_examples=200)
def test_a_pose_that_is_not_usual_is_always_told(seed: int) -> None:
    random = Random(seed)
    scene = sample_scene(random)
    text = captions.caption(scene, random)
    for name in LEVELS:
        number = level(name, getattr(scene.look.pose, name))
        token = captions.pose_token(name, number)
        told = token in text or any(words in text for words in captions.POSE_WORDS[name].get(number, ()))
        assert told or number == 0
        assert number or not re.search(rf"<{name}[+-]", text)


def test_a_prompt_without_a_pose_means_the_usual_one() -> None:
    assert captions.pose_tokens(USUAL) == ""
    assert captions.pose_tokens(Pose(yaw=-20, scale=1.5)) == "<yaw-2> <scale+3>"
    assert len(set(captions.POSE_TOKENS)) == len(captions.POSE_TOKENS) == 6 + 4 + 6 + 6 + 4 + 4


@given(st.integers(0, 2**32))
def test_an_instance_caption_names_the_look_and_nothing_of_identity(seed: int) -> None:
    random = Random(seed)
    look = sample_look(random, with_things=0.0)
    text = captions.instance_caption("cr7d man", look, random)
    assert "cr7d man" in text and text.endswith(captions.pose_tokens(look.pose))
    told = [captions.CLOTHES[look.clothes]]
    told += [captions.GLASSES[look.glasses]] if look.glasses != "none" else []
    told += [captions.MOUTHS[look.mouth]] if look.mouth != "neutral" else []
    assert all(any(words in text for words in wordings) for wordings in told)
    person = [captions.HAIR_STYLES, captions.FACIAL_HAIRS]
    assert not [words for known in person for wordings in known.values() for words in wordings if words in text]
    assert "skin" not in text and "-haired" not in text


def test_everything_that_can_be_drawn_has_words() -> None:
    assert {style for styles in HAIR_STYLES_OF.values() for style in styles} == set(captions.HAIR_STYLES)
    for table, words in (
        (world.HAIR_COLOURS, captions.HAIR_COLOURS), ({**world.SKINS, **world.FANTASY_SKINS}, captions.SKINS),
        (world.FACIAL_HAIRS, captions.FACIAL_HAIRS), (world.CLOTHES, captions.CLOTHES), (world.EYES, captions.EYES),
        (world.GLASSES, captions.GLASSES), (world.MOUTHS, captions.MOUTHS),
    ):  # fmt: skip
        assert set(table) == set(words)


# What a scene shows


@given(st.integers(0, 2**32))
@settings(max_examples=100)
def test_the_truth_names_what_can_be_seen_and_nothing_that_is_hidden(seed: int) -> None:
    scene = sample_scene(Random(seed))
    shown = attributes.truth(scene)
    assert set(shown.classes) == set(attributes.ATTRIBUTES) and set(shown.colours) == set(attributes.COLOURS)
    hidden = captions.hidden_by(scene.look)
    assert (shown.classes["clothes"] == attributes.UNSEEN) == ("clothes" in hidden)
    assert (shown.colours["background"] is None) == ("background" in hidden)
    assert (shown.classes["hair_style"] == attributes.UNSEEN) == (scene.look.hat != "none" or "hair" in hidden)
    named = {attributes.ATTRIBUTES[kind][shown.classes[kind]] for kind in ("place", "worn", "held")} - {"none"}
    assert named == set(scene.look.things)


@given(st.floats(-40, 40), st.floats(-20, 20), st.floats(-24, 24), st.floats(0.5, 1.7), st.floats(-0.2, 0.2))
def test_a_pose_survives_as_numbers(yaw: float, pitch: float, roll: float, scale: float, x: float) -> None:
    posed = Pose(yaw, pitch, roll, scale, x, -x)
    again = attributes.pose_of(attributes.pose_numbers(posed))
    assert all(math.isclose(getattr(posed, name), getattr(again, name), abs_tol=1e-6) for name in attributes.POSE)
    assert all(abs(number) <= 1.05 for number in attributes.pose_numbers(posed))


def test_poses_for_pre_training_stay_in_their_ranges() -> None:
    random = Random(0)
    for _ in range(300):
        posed = pose.sample_pose(random)
        assert all(LEVELS[name][0] <= getattr(posed, name) <= LEVELS[name][-1] for name in LEVELS)
