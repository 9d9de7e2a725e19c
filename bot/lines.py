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

    Words and text are positional; any option can be given in any order, as `--name value`, `--name=value` or
    `--name:value`, in small or capital letters, and with the dash that phones make of two hyphens. Raises UserError.
    """
    name, rest = (*text.strip().removeprefix("/").split(maxsplit=1), "", "")[:2]
    command = COMMANDS.get(name.lower())
    if command is None:
        near = get_close_matches(name.lower()[:32], COMMANDS, n=1)
        raise UserError("unknown_command", name=name[:32], near=near[0] if near else None)
    values: dict[str, Value] = {}
    starts = _option_starts(command, rest)
    head = rest[: starts[0].start()] if starts else rest
    for start, following in zip(starts, [*starts[1:], None], strict=False):
        end = following.start() if following else len(rest)
        option, text = _option(command, rest[start.end() : end].strip())
        if option.kind == OptionKind.FLAG:
            # The text after a flag is positional again: `/train --consent mia7 woman`.
            given, text = _flag(option, text)
            values.pop(option.name, None)
            values |= {option.name: True} if given else {}
            head = f"{head} {text}"
        else:
            values[option.name] = _value(option, text)
    _take_positional(command, head.strip(), values)
    return Line(command.name, values)


_START = re.compile(r"(?:(?<=\s)|^)(--|[—–]|-)(?=([^\W\d_]+))")
"""Where an option may begin: hyphens or a dash before a word (2)."""
_SEPARATOR = re.compile(r"\s*[=:]\s*|\s+")
"""What is between an option's name and its value."""
_QUOTES = ('""', "''", "“”", "„“", "„”", "«»", "»«", "‘’")
_YES, _NO = ("yes", "true", "on", "1", "ja"), ("no", "false", "off", "0", "nein")


def _option_starts(command: Command, text: str) -> list[re.Match[str]]:
    """The places where options begin.

    Two hyphens before a word always begin one. People also write dashes into prompts, so a dash does only before a word
    that is, or is nearly, an option's name, and a single hyphen only before a number's name and its value.
    """
    names = [option.name for option in _named_options(command)]
    found = []
    for start in _START.finditer(text):
        word, dash = start[2].lower(), start[1]
        if (
            dash == "--"
            or (dash == "-" and _is_number(command, word, text[start.end() + len(word) :]))
            or (dash not in ("-", "--") and get_close_matches(word, names, n=1, cutoff=0.7))
        ):
            found.append(start)
    return found


def _is_number(command: Command, word: str, after: str) -> bool:
    numbers = (OptionKind.INTEGER, OptionKind.NUMBER)
    known = any(option.name == word and option.kind in numbers for option in command.options)
    return known and re.match(r"(\s*[=:]\s*|\s+)\d", after) is not None


def _named_options(command: Command) -> list[Option]:
    return [option for option in command.options if option.kind != OptionKind.PHOTOS]


def _option(command: Command, text: str) -> tuple[Option, str]:
    """The option that a text such as "count=2" names, and the text of its value. Raises UserError."""
    for option in _named_options(command):
        rest = text[len(option.name) :]
        if text[: len(option.name)].lower() != option.name:
            continue
        if not rest or (between := _SEPARATOR.match(rest)):
            return option, rest[between.end() :] if rest and between else ""
        if option.kind in (OptionKind.INTEGER, OptionKind.NUMBER) and rest[0].isdigit():  # --count2
            return option, rest
    raise UserError("unknown_option", command=command.name, option=re.split(r"[\s=:]", text, maxsplit=1)[0][:32])


def _flag(option: Option, text: str) -> tuple[bool, str]:
    """Whether a flag is given, and the text after it: "yes" and "no" are its value, other words are not."""
    word, rest = (*text.split(maxsplit=1), "", "")[:2]
    if word.lower() in (*_YES, *_NO):
        return word.lower() in _YES, rest
    return True, text


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
            word, text = (*text.split(maxsplit=1), "")[:2]
            values[option.name] = word
    if text:
        raise UserError("too_many_words", command=command.name, word=text.split()[0][:32], example=command.example)


def _value(option: Option, text: str) -> Value:
    """The value of an option, without quotation marks around it. Raises UserError `not_a_number`."""
    text = text.strip()
    if len(text) >= 2 and text[0] + text[-1] in _QUOTES:
        text = text[1:-1].strip()
    return number(option, text) if option.kind in (OptionKind.INTEGER, OptionKind.NUMBER) else text


def number(option: Option, text: str) -> int | float:
    """A number as people type it, with a decimal point or a decimal comma. Raises UserError `not_a_number`.

    Whole numbers may have their thousands in groups, and decimals that are zero: 2.0 is 2, and 4,294,967,295 a seed.
    """
    text = text.strip()
    try:
        if option.kind == OptionKind.INTEGER:
            if re.fullmatch(r"\d{1,3}(?:([.,'’\s])\d{3})(?:\1\d{3})*", text):
                return int(re.sub(r"\D", "", text))
            return int(re.sub(r"[.,]0+$", "", text))
        value = float(text.replace(",", ".") if re.fullmatch(r"[+-]?\d*,\d+", text) else text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError("not_a_number", option=option.name, value=text[:32])
    return value
