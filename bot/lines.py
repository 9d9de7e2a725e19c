"""Reading a typed line: `/imagine mia7 woman in a suit --count 2` becomes a command's name and its values.

And back: the line that asks for a drawing again.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

from bot import limits
from bot.table import COMMANDS, Command, Option, OptionKind
from storage.errors import UserError
from storage.jobs import Imagine

Value = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Line:
    """A parsed command. Each value has its option's type; missing options are not checked."""

    command: str
    values: Mapping[str, Value] = field(default_factory=dict)


def parse(text: str) -> Line:
    """Read one line that begins with a slash.

    Words and text are positional; any option can be given as `--name value`, in any order. Raises UserError.
    """
    name, _, rest = text.strip().removeprefix("/").partition(" ")
    command = COMMANDS.get(name.lower())
    if command is None:
        near = get_close_matches(name.lower()[:32], COMMANDS, n=1)
        raise UserError("unknown_command", name=name[:32], near=near[0] if near else None)
    values: dict[str, Value] = {}
    head, *named = re.split(r"\s--(?=[a-z])", f" {rest}")
    for part in named:
        key, _, text = part.strip().partition(" ")
        option = next(
            (option for option in command.options if option.name == key and option.kind != OptionKind.PHOTOS), None
        )
        if option is None:
            raise UserError("unknown_option", command=command.name, option=key[:32])
        # The text after a flag is positional again: `/train --consent mia7 woman`.
        if option.kind == OptionKind.FLAG:
            values[key] = True
            head = f"{head} {text}"
        else:
            values[key] = _value(option, text.strip())
    _take_positional(command, head.strip(), values)
    return Line(command.name, values)


def values_of(asked: Imagine) -> dict[str, Value]:
    """The values of /imagine's options that ask for this drawing, without its original.

    A form has room for a few of them, so those that people change most often come first.
    """
    values: dict[str, Value | None] = {
        "prompt": asked.prompt,
        "style": limits.style_word(asked.style, asked.style_weight) if asked.style else None,
        "negative": asked.negative_prompt or None,
        "size": f"{asked.width}x{asked.height}" if asked.width else None,
        "guidance": asked.guidance,
        "count": asked.count,
        "seed": asked.seed,
        "steps": asked.steps,
    }
    return {name: value for name, value in values.items() if value is not None}


def line_of(asked: Imagine) -> str:
    """The /imagine line that asks for this drawing."""
    (_, prompt), *options = values_of(asked).items()
    flags = [f"--{name} {value:g}" if isinstance(value, float) else f"--{name} {value}" for name, value in options]
    return " ".join(["/imagine", str(prompt), *flags])


def _take_positional(command: Command, text: str, values: dict[str, Value]) -> None:
    # Only the first text option is positional, since it takes the rest of the line.
    for option in command.options:
        if not text or option.name in values:
            continue
        if option.kind == OptionKind.TEXT:
            values[option.name] = text
            return
        if option.kind == OptionKind.WORD:
            word, _, text = text.partition(" ")
            values[option.name] = word
            text = text.strip()
    if text:
        raise UserError("too_many_words", command=command.name, word=text.split()[0][:32], example=command.example)


def _value(option: Option, text: str) -> Value:
    try:
        if option.kind == OptionKind.INTEGER:
            return int(text)
        if option.kind == OptionKind.NUMBER:
            number = float(text)
            if math.isfinite(number):
                return number
            raise ValueError
    except ValueError:
        raise UserError("not_a_number", option=option.name, value=text[:32]) from None
    return text
