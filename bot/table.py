"""The commands as data. Every frontend registers exactly this table.

Descriptions and topics are in English here; the code that shows them translates them with `bot.language.say`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from bot import limits
from bot.language import marked
from bot.programs import PROGRAMS
from storage import naming


class OptionKind(StrEnum):
    """What an option's value is."""

    WORD = "word"
    """Text without a space."""
    TEXT = "text"
    """The rest of the line."""
    INTEGER = "integer"
    """A whole number."""
    NUMBER = "number"
    """A number with or without decimals."""
    FLAG = "flag"
    """Given or not."""
    PHOTOS = "photos"
    """Attached files."""


class Source(StrEnum):
    """Where completions of an option come from."""

    AVATARS = "avatars"
    """Tokens of the avatars that the person may use in this room."""
    OWN_AVATARS = "own_avatars"
    """Tokens of the person's own avatars."""
    JOBS = "jobs"
    """The person's unfinished jobs."""
    STYLES = "styles"
    """The styles of the running engines."""
    SIZES = "sizes"
    """Usual sizes of the base model in use."""
    CHOICES = "choices"
    """The option's own `choices`."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a command."""

    name: str
    kind: OptionKind
    description: str
    required: bool = False
    source: Source | None = None
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None


@dataclass(frozen=True, slots=True)
class Command:
    """One command. Its options of kind word or text can be given by position in a typed line.

    `topic` is its heading in `/help`. `operators`: only for the accounts in AVATAR_OPERATORS.
    """

    name: str
    description: str
    example: str
    options: tuple[Option, ...] = ()
    topic: str = marked("Other")
    operators: bool = False


DUTIES = ("pause", "resume", "queue", "stats", "ban", "unban", "quota", "broadcast")
"""What /operator can do."""

_MAKE, _SHARE, _DATA = marked("Make and draw"), marked("Share"), marked("Your data")
_COUNTS = tuple(str(number) for number in range(1, limits.COUNT_MOST + 1))

COMMANDS: Mapping[str, Command] = {
    command.name: command
    for command in (
        Command(
            "train",
            marked("Make an avatar of somebody from 5 to 10 photos"),
            "/train mia7 woman",
            (
                Option("token", OptionKind.WORD, marked("a made-up name for prompts, such as mia7"), required=True),
                Option(
                    "noun",
                    OptionKind.WORD,
                    marked("what they are, such as woman"),
                    required=True,
                    source=Source.CHOICES,
                    choices=naming.NOUNS,
                ),
                Option(
                    "photos",
                    OptionKind.PHOTOS,
                    marked("5 to 10 photos of this one person"),
                    required=True,
                    least=limits.PHOTOS_FEWEST,
                    most=limits.PHOTOS_MOST,
                ),
                Option(
                    "consent", OptionKind.FLAG, marked("the person in the photos has agreed to this"), required=True
                ),
            ),
            _MAKE,
        ),
        Command(
            "imagine",
            marked("Draw somebody's avatar"),
            "/imagine mia7 woman in a red hoodie, smiling",
            (
                Option(
                    "prompt",
                    OptionKind.TEXT,
                    marked("what to draw, naming an avatar"),
                    required=True,
                    source=Source.AVATARS,
                ),
                Option(
                    "avatar", OptionKind.WORD, marked("who to draw if the prompt names nobody"), source=Source.AVATARS
                ),
                Option(
                    "count",
                    OptionKind.INTEGER,
                    marked("how many pictures, 1 to 4"),
                    source=Source.CHOICES,
                    choices=_COUNTS,
                    least=1,
                    most=limits.COUNT_MOST,
                ),
                Option(
                    "seed",
                    OptionKind.INTEGER,
                    marked("start from this number to repeat a picture"),
                    most=limits.SEED_MOST,
                ),
                Option(
                    "steps",
                    OptionKind.INTEGER,
                    marked("drawing steps: more is slower and finer"),
                    most=limits.STEPS_MOST,
                ),
                Option(
                    "guidance",
                    OptionKind.NUMBER,
                    marked("how strictly to follow the prompt"),
                    most=limits.GUIDANCE_MOST,
                ),
                Option("negative", OptionKind.TEXT, marked("what should not be in the picture")),
                Option(
                    "size",
                    OptionKind.WORD,
                    marked("width x height in pixels; the base model's own if you leave it out"),
                    source=Source.SIZES,
                ),
                Option(
                    "style",
                    OptionKind.WORD,
                    marked("a drawing style; add :0.6 for a weaker effect"),
                    source=Source.STYLES,
                ),
            ),
            _MAKE,
        ),
        Command(
            "avatars",
            marked("Show the avatars you can use here, or one of yours"),
            "/avatars mia7 --rename mia8",
            (
                Option("token", OptionKind.WORD, marked("one of your avatars"), source=Source.OWN_AVATARS),
                Option("rename", OptionKind.WORD, marked("its new name")),
                Option("default", OptionKind.FLAG, marked("draw this one when a prompt names nobody")),
            ),
            _MAKE,
        ),
        Command("status", marked("Show your jobs and their position in the queue"), "/status", (), _MAKE),
        Command(
            "cancel",
            marked("Stop one of your jobs, the newest if you name none"),
            "/cancel",
            (Option("job", OptionKind.WORD, marked("which job, as /status names it"), source=Source.JOBS),),
            _MAKE,
        ),
        Command(
            "share",
            marked("Let this group, or one person, draw one of your avatars"),
            "/share mia7 --expires 7d",
            (
                Option("token", OptionKind.WORD, marked("which avatar"), required=True, source=Source.OWN_AVATARS),
                Option("person", OptionKind.TEXT, marked("who; everybody in this group if you name nobody")),
                Option(
                    "expires",
                    OptionKind.WORD,
                    marked("for how long, such as 2h or 7d; without it, until you take it back"),
                    source=Source.CHOICES,
                    choices=("1h", "1d", "7d", "30d"),
                ),
            ),
            _SHARE,
        ),
        Command(
            "unshare",
            marked("Stop sharing an avatar"),
            "/unshare mia7",
            (
                Option("token", OptionKind.WORD, marked("which avatar"), required=True, source=Source.OWN_AVATARS),
                Option("person", OptionKind.TEXT, marked("from whom; from this group if you name nobody")),
            ),
            _SHARE,
        ),
        Command(
            "link",
            marked("Link your account on another platform"),
            "/link",
            (Option("code", OptionKind.WORD, marked("the code that /link gave you on the other platform")),),
            _SHARE,
        ),
        Command(
            "export",
            marked("Get a trained avatar as a file"),
            "/export mia7",
            (
                Option("token", OptionKind.WORD, marked("which avatar"), required=True, source=Source.OWN_AVATARS),
                Option(
                    "program",
                    OptionKind.WORD,
                    marked("the program that it is for"),
                    source=Source.CHOICES,
                    choices=tuple(PROGRAMS),
                ),
            ),
            _DATA,
        ),
        Command(
            "delete",
            marked("Erase an avatar with its photos and pictures"),
            "/delete mia7",
            (Option("token", OptionKind.WORD, marked("which avatar"), required=True, source=Source.OWN_AVATARS),),
            _DATA,
        ),
        Command("mydata", marked("Show what I keep about you"), "/mydata", (), _DATA),
        Command("privacy", marked("Read what I keep, where and for how long"), "/privacy", (), _DATA),
        Command("forget", marked("Erase everything about you"), "/forget", (), _DATA),
        Command("help", marked("Show what I can do"), "/help"),
        Command(
            "operator",
            marked("Run this bot"),
            "/operator quota pictures 100",
            (
                Option(
                    "duty", OptionKind.WORD, marked("what to do"), required=True, source=Source.CHOICES, choices=DUTIES
                ),
                Option("text", OptionKind.TEXT, marked("who or what it is about")),
            ),
            operators=True,
        ),
    )
}
