"""The prompts of the evaluation: what they cover, and that pre-training never read them."""

import re
from collections import Counter
from collections.abc import Iterator
from random import Random

from engine.bases.families import TOON
from engine.cartoon import captions, world
from engine.pretraining.pictures import scene_of
from engine.toon import prompts as products
from engine.toon import things
from tests.evaluation import prompts as ours
from tests.evaluation.prompts import COUNT, prompts

ALL = [one for person in range(40) for one in prompts(person)]


def test_each_person_has_many_prompts_of_each_kind() -> None:
    assert COUNT >= 36 and all(len(prompts(person)) == COUNT for person in range(40))
    assert prompts(3) == prompts(3) and prompts(3) != prompts(4)
    assert all(one.text.count("{who}") == 1 for one in ALL)
    assert Counter(one.kind for one in prompts(0)) == Counter(ours.PER_PERSON)
    assert ALL[0].of("qv0t man").count("qv0t man") == 1
    assert len({one.text for one in ALL}) > 0.9 * len(ALL)


def test_forty_people_ask_for_everything_about_equally_often() -> None:
    asked = Counter((name, value) for one in ALL for name, values in one.shows.items() for value in values[:1])

    def of(attribute: str) -> Counter[str]:
        return Counter({value: count for (name, value), count in asked.items() if name == attribute})

    assert len(of("clothes_colour")) >= 60 and len(of("background")) >= 60
    assert set(of("clothes")) == set(world.CLOTHES) and set(of("glasses")) == set(world.GLASSES)
    assert set(of("eyes")) == set(world.EYES) - {"open"} and set(of("mouth")) == set(world.MOUTHS) - {"neutral"}
    assert set(of("hat")) == set(world.HATS) - {"none"}
    assert sum(len(of(name)) for name in ("place", "worn", "held")) >= 40
    assert set(of("looking")) == {"left", "right"} and set(of("distance")) == {"close", "far"}
    assert {one.size for one in ALL} == {(1, 1), (2, 3), (3, 2)}
    for name in ("clothes", "clothes_colour", "eyes", "mouth", "glasses", "place", "held"):
        assert max(of(name).values()) <= 2 * min(of(name).values()), name
    # Garments and colours are mixed anew for each person.
    pairs = Counter((one.shows["clothes"], one.shows["clothes_colour"]) for one in ALL if "clothes_colour" in one.shows)
    assert max(pairs.values()) <= 6


def test_everything_that_is_asked_for_can_be_drawn() -> None:
    for names in ours.THINGS.values():
        assert set(names) <= set(things.THINGS)
    for attribute, names in ours.THINGS.items():
        kinds = {things.THINGS[name].kind for name in names}
        assert kinds <= {"place": {"place"}, "worn": {"costume", "headgear"}}.get(attribute, {"held", "companion"})


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9'-]+", text.lower())


def learned() -> Iterator[str]:
    """Captions of pre-training, and all prompts that the product itself has."""
    random = Random(0)
    for number in range(4000):
        scene = scene_of(number, "square")
        yield captions.caption(scene, random)
        yield captions.instance_caption("qv0t man", scene.look, random)
    for noun in ("man", "woman", "person"):
        yield from (one.format(noun=noun) for one in TOON.prior_prompts)
        yield from (one.format(who=f"qv0t {noun}") for one, _ in products.PROMPTS)
        yield from (one.format(instance=f"qv0t {noun}") for one in TOON.instance_prompts)


def test_no_prompt_is_a_sentence_of_pretraining() -> None:
    read = list(learned())
    whole = {" ".join(words(text)) for text in read}
    asked = {" ".join(words(one.of(who))) for one in ALL for who in ("qv0t man", "man", "woman", "person")
             if one.kind != "plain"}  # fmt: skip
    assert not whole & asked
    # Nor do the frames around the values share a run of three words with any caption.
    frames = [
        part
        for name in ("PLAIN", "DRESSED", "BEHIND", "BOTH", "FACE", "WITH", "SCENE", "TWO")
        for frame in getattr(ours, name)
        for part in re.split(r"\{\w+\}", frame)
    ]
    runs = {tuple(found[at : at + 3]) for part in frames for found in [words(part)] for at in range(len(found) - 2)}
    assert len(runs) > 10
    known = {tuple(found[at : at + 3]) for text in read for found in [words(text)] for at in range(len(found) - 2)}
    assert not runs & known
    openings = {opening for opening in captions.OPENINGS if opening}
    assert not [one.text for one in ALL if any(one.text.lower().startswith(f"{opening} ") for opening in openings)]


def test_most_wordings_of_things_are_not_those_of_captions() -> None:
    known = {wording for thing in things.THINGS.values() for wording in thing.wordings}
    wordings = [wording for names in ours.THINGS.values() for texts in names.values() for wording in texts]
    assert sum(wording not in known for wording in wordings) > 0.6 * len(wordings)
