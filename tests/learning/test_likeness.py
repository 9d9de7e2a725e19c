"""Learning is measured: albums of people that pre-training never showed, the automatic recipe, and the judge."""

import json
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest

from engine.measuring.evaluation import people
from engine.toon import WEIGHTS
from engine.toon.judge import ATTRIBUTES, IDENTITY, Judge, seen_as
from engine.toon.world import Scene, render, sample_look

PEOPLE = 1
"""He has a beard, so that every attribute of identity can be learned."""


def labels(scene: Scene) -> dict[str, int]:
    """Class numbers of the attributes that the scene's picture shows."""
    shown = {**vars(scene.person), **vars(scene.look)}
    hidden = {"hat_colour"} if scene.look.hat == "none" else {"hair_style", "hair_colour"}
    hidden |= {"eyes"} if scene.look.glasses == "sunglasses" else set()
    return {name: values.index(shown[name]) for name, values in ATTRIBUTES.items() if name not in hidden}


pytestmark = [pytest.mark.slow, pytest.mark.learning]


def evaluated(work: Path) -> dict[str, Any]:
    """What `python -m engine evaluate` says of one person, drawn in four steps: with 25, drawing takes as long as
    training."""
    command = [sys.executable, "-m", "engine", "evaluate", "--world", "--people", str(PEOPLE)]
    command += ["--few-step", str(WEIGHTS / "few")]
    command += ["--work", str(work), "--json"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    assert run.returncode == 0, run.stderr
    print(run.stdout)
    figures = dict(json.loads(run.stdout.splitlines()[-1]))
    del figures["peak_memory_mb"]  # of the process, which had less to do if others drew for it
    return figures


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluation")


@pytest.fixture(scope="module")
def figures(work: Path) -> dict[str, Any]:
    return evaluated(work)


def test_an_evaluation_goes_on_with_what_was_drawn_before(figures: dict[str, Any], work: Path) -> None:
    assert evaluated(work) == figures  # among them the seconds that training took, which never are the same


def test_the_judge_knows_what_real_renders_of_unseen_people_show() -> None:
    random = Random("renders to judge")
    scenes = [Scene(person, sample_look(random), random.getrandbits(32)) for person in people(300, seed=1)]
    right: dict[str, list[bool]] = {name: [] for name in ATTRIBUTES}
    for scene, seen in zip(scenes, Judge.load().attributes([render(scene) for scene in scenes]), strict=True):
        for name, number in labels(scene).items():
            right[name].append(seen[name] == seen_as(ATTRIBUTES[name][number]))
    shares = {name: sum(answers) / len(answers) for name, answers in right.items()}
    print(shares)
    assert min(shares.values()) > 0.96, shares


@pytest.mark.parametrize("attribute", [*IDENTITY, "all"])
def test_a_person_comes_out_right_clearly_more_often_with_the_adapter(attribute: str, figures: dict[str, Any]) -> None:
    with_it, without = (
        figures[name]["identity"] if attribute == "all" else figures[name]["by_attribute"][attribute]
        for name in ("with_adapter", "without_adapter")
    )
    assert with_it >= without + 0.2


def test_the_clothes_still_follow_the_prompt(figures: dict[str, Any]) -> None:
    attributes = figures["with_adapter"]["by_attribute"]
    assert attributes["prompt clothes"] > 0.5 and attributes["prompt clothes_colour"] > 0.5
    assert figures["with_adapter"]["prompt"] > 0.7 * figures["without_adapter"]["prompt"]


def test_others_of_the_class_stay_as_different_as_they_were(figures: dict[str, Any]) -> None:
    assert figures["class_noun"]["variety"] > 0.7 * figures["class_noun_alone"]["variety"]
