"""Turns the table of commands into Discord's slash commands."""

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import discord
from discord import app_commands

from bot.commands.commands import Completion
from bot.language import ENGLISH, closest, say, speaking
from bot.lines import Value
from bot.table import Command, Option, OptionKind, Source

DESCRIPTION = 100
"""Most characters of the description of a command or an option."""
CHOICE = 100
"""Most characters of a choice's name or value."""
CHOICES = 25
"""Most choices or completions of an option."""
_PHOTOS = 10
"""Number of attachments if the option sets no limit."""

Interaction = discord.Interaction[Any]
Asked = Callable[[Interaction, Command, Mapping[str, Any]], Awaitable[None]]
"""Runs a command with the given values of its Discord options."""
Complete = Callable[[Interaction, Source], Awaitable[Sequence[Completion]]]

_TYPES: Mapping[OptionKind, type[str | int | float]] = {
    OptionKind.WORD: str,
    OptionKind.TEXT: str,
    OptionKind.INTEGER: int,
    OptionKind.NUMBER: float,
    OptionKind.FLAG: bool,
}


class Translations(app_commands.Translator):
    """Translates descriptions. Names are not translated, since people tell each other what to type."""

    async def translate(
        self,
        string: app_commands.locale_str,
        locale: discord.Locale,
        context: app_commands.TranslationContext[Any, Any],
    ) -> str | None:
        described = (
            app_commands.TranslationContextLocation.command_description,
            app_commands.TranslationContextLocation.parameter_description,
        )
        language = closest([locale.value])
        if context.location not in described or language == ENGLISH:
            return None
        with speaking(language):
            return say(string.message)[:DESCRIPTION]


def photo_options(option: Option) -> list[str]:
    """The Discord options of an option for photos: photo_1 to photo_10, since a Discord option holds one file."""
    most = int(option.most or _PHOTOS)
    return [option.name] if most == 1 else [f"{option.name.removesuffix('s')}_{n}" for n in range(1, most + 1)]


def wants_form(command: Command) -> bool:
    """Whether the command opens a form if no photos are attached: it needs several, and a form takes them at once."""
    return any(
        option.kind == OptionKind.PHOTOS and option.required and (option.most or 2) > 1 for option in command.options
    )


def slash_command(command: Command, run: Asked, complete: Complete) -> "app_commands.Command[Any, ..., None]":
    """The slash command of one command of the table. It can be used in servers, in the private chat and in other
    private channels; a command for operators only by administrators of a server that the bot is in."""
    loose = wants_form(command)
    parameters: list[inspect.Parameter] = []
    descriptions: dict[str, str] = {}
    choices: dict[str, list[app_commands.Choice[Any]]] = {}
    completions: dict[str, Any] = {}
    for option in sorted(command.options, key=lambda option: not option.required):
        names = photo_options(option) if option.kind == OptionKind.PHOTOS else [option.name]
        for name in names:
            required = option.required and not loose
            parameters.append(_parameter(name, option, required))
            descriptions[name] = option.description[:DESCRIPTION]
        if option.kind in (OptionKind.INTEGER, OptionKind.NUMBER) and option.choices:
            take = _TYPES[option.kind]
            choices[option.name] = [
                app_commands.Choice(name=choice[:CHOICE], value=take(choice)) for choice in option.choices[:CHOICES]
            ]
        elif option.source is not None and option.kind in (OptionKind.WORD, OptionKind.TEXT):
            completions[option.name] = _completer(option, complete)

    async def callback(interaction: Interaction, **values: Any) -> None:
        await run(interaction, command, {name: value for name, value in values.items() if value is not None})

    first = inspect.Parameter("interaction", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=discord.Interaction)
    callback.__signature__ = inspect.Signature([first, *parameters])  # type: ignore[attr-defined]
    decorated: Any = callback
    if descriptions:
        decorated = app_commands.describe(**descriptions)(decorated)
    if choices:
        decorated = app_commands.choices(**choices)(decorated)
    if completions:
        decorated = app_commands.autocomplete(**completions)(decorated)
    # Discord does not know a bot's operators, but can restrict a command to a server's administrators.
    to_all = not command.operators
    registered = app_commands.Command[Any, ..., None](
        name=command.name,
        description=command.description[:DESCRIPTION],
        callback=decorated,
        allowed_contexts=app_commands.AppCommandContext(guild=True, dm_channel=to_all, private_channel=to_all),
        allowed_installs=app_commands.AppInstallationType(guild=True, user=to_all),
    )
    if command.operators:
        registered.default_permissions = discord.Permissions(administrator=True)
    return registered


def values_of(command: Command, given: Mapping[str, Any]) -> tuple[dict[str, Value], list[discord.Attachment]]:
    """Split the given values into those of options and the attached photos, in the order of their options."""
    photos = [name for option in command.options if option.kind == OptionKind.PHOTOS for name in photo_options(option)]
    values = {name: value for name, value in given.items() if name not in photos}
    return values, [given[name] for name in photos if name in given]


def _parameter(name: str, option: Option, required: bool) -> inspect.Parameter:
    annotation: Any = discord.Attachment if option.kind == OptionKind.PHOTOS else _TYPES[option.kind]
    if option.kind in (OptionKind.INTEGER, OptionKind.NUMBER) and (option.least is not None or option.most is not None):
        take = _TYPES[option.kind]
        least, most = (None if bound is None else take(bound) for bound in (option.least, option.most))
        annotation = app_commands.Range[annotation, least, most]
    default = inspect.Parameter.empty if required else None
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _completer(option: Option, complete: Complete) -> Any:
    async def completer(interaction: discord.Interaction, current: str) -> list[app_commands.Choice[str]]:
        if option.source == Source.CHOICES:
            known: Sequence[Completion] = [Completion(choice) for choice in option.choices]
        else:
            known = await complete(interaction, option.source) if option.source else []
        return completions(option.kind, current, known)

    return completer


def completions(kind: OptionKind, current: str, known: Sequence[Completion]) -> list[app_commands.Choice[str]]:
    """The completions of the current input. In a text, the last word is completed."""
    before, _, word = current.rpartition(" ") if kind == OptionKind.TEXT else ("", "", current)
    before = f"{before} " if before else ""
    found: list[app_commands.Choice[str]] = []
    for one in known:
        if not one.value.lower().startswith(word.lower()):
            continue
        # The first word of a text is completed with the avatar's noun: "mia7 woman".
        value = f"{before}{one.value}" + (f" {one.hint}" if kind == OptionKind.TEXT and one.hint and not before else "")
        shown = f"{value} · {one.hint}" if kind == OptionKind.WORD and one.hint else value
        if len(value) <= CHOICE:
            found.append(app_commands.Choice(name=shown[:CHOICE], value=value))
    return found[:CHOICES]
