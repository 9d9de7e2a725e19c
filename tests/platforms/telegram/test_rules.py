"""Pure rules: pieces of text, buttons, rooms and turns."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.frontends.telegram.pace import Pace, Rate
from bot.frontends.telegram.rendering import keyboard, pieces, units
from bot.frontends.telegram.rooms import Room
from bot.messages import Button
from tests.fakes.clock import Clock


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=200), st.integers(4, 30))
def test_pieces_fit_and_lose_nothing(text: str, most: int) -> None:
    parts = pieces(text, most)
    assert all(0 < units(part) <= most for part in parts)
    assert "".join("".join(parts).split()) == "".join(text.split())


def test_a_button_whose_action_is_too_long_is_a_bug() -> None:
    assert keyboard([Button("x", "a" * 64)]) is not None
    with pytest.raises(ValueError, match="64 bytes"):
        keyboard([Button("x", "é" * 33)])


def test_rooms_of_other_platforms_are_refused() -> None:
    for room in (Room(5), Room(-100, 7)):
        assert Room.read(str(room)) == room
    with pytest.raises(ValueError, match="not a room"):
        Room.read("studio")


async def test_turns_keep_their_order_and_silence() -> None:
    clock, order = Clock(), list[int]()
    pace = Pace(private=Rate(2, 0.3), clock=clock, sleep=clock.sleep)

    async def turn(number: int) -> None:
        await pace.turn(1)
        order.append(number)

    await asyncio.gather(*(turn(number) for number in range(5)))
    assert order == list(range(5))
    assert clock.now == pytest.approx(0.6)
    pace.pause(2, 0.3)
    await pace.turn(2, 10)
    assert clock.now == pytest.approx(0.9)
