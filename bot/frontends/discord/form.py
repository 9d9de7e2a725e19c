"""The form of a command with photos: Discord's modal with a file upload.

A submitted form is read from the interaction and not from a form in memory, so that a form that was open during a
restart still works.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import discord
from discord import ui

from bot.frontends.discord.rendering import cut
from bot.language import say
from bot.lines import Value, number
from bot.replies import discord as wording
from bot.replies import refusals
from bot.table import COMMANDS, Command, Option, OptionKind

FIELDS = 5
"""Most fields of a form."""
LABEL = 45
"""Most characters of a field's label."""
DESCRIPTION = 100
"""Most characters of a field's description, or of a checkbox's label."""
UPLOADS = 10
"""Most files of one upload."""
_ID = "form:"
_TICKED = "yes"
_PART = discord.ComponentType.label.value
_FILES = discord.ComponentType.file_upload.value
_WORD, _TEXT = 100, 4000


@dataclass(frozen=True, slots=True)
class FormFile:
    """An attached file. `size`: in bytes, as Discord states it."""

    url: str
    size: int


@dataclass(frozen=True, slots=True)
class SubmittedForm:
    """A submitted form. `shown`: the names of its fields. `job`: the job whose options it changes, or ""."""

    command: Command
    shown: frozenset[str]
    values: Mapping[str, Value]
    files: Sequence[FormFile]
    job: str


def form(command: Command, given: Mapping[str, Value], job: str = "") -> ui.Modal:
    """The form of a command, filled in with the given values.

    Required options come first, then the given ones in their order. Options beyond FIELDS keep their default, or the
    value of the `job`.
    """
    custom_id = f"{_ID}{command.name}:{job}" if job else f"{_ID}{command.name}"
    modal = ui.Modal(title=wording.form_title(command.name), custom_id=custom_id)
    order = {name: number for number, name in enumerate(given)}
    ranked = sorted(command.options, key=lambda option: (not option.required, order.get(option.name, len(order))))
    for option in ranked[:FIELDS]:
        sentence = refusals.CONSENT if option.name == "consent" else option.description
        description = say(sentence)
        modal.add_item(
            ui.Label(
                text=cut(wording.label(option.name), LABEL),
                description=cut(description, DESCRIPTION),
                component=_field(option, given.get(option.name)),
            )
        )
    return modal


def submitted_form(interaction: discord.Interaction[Any]) -> SubmittedForm | None:
    """The submitted form of an interaction; None if it is not one of ours.

    Raises UserError not_a_number for text in a number's field.
    """
    data: Mapping[str, Any] = interaction.data or {}
    custom_id = str(data.get("custom_id", ""))
    name, _, job = custom_id.removeprefix(_ID).partition(":")
    command = COMMANDS.get(name)
    if command is None or not custom_id.startswith(_ID):
        return None
    options = {option.name: option for option in command.options}
    values: dict[str, Value] = {}
    files: list[FormFile] = []
    shown: set[str] = set()
    attachments = data.get("resolved", {}).get("attachments", {})
    for part in data.get("components", ()):
        field = part.get("component") if part.get("type") == _PART else part
        option = options.get((field or {}).get("custom_id", ""))
        if option is None:
            continue
        shown.add(option.name)
        if field.get("type") == _FILES:
            found = [attachments[file] for file in field.get("values", ()) if file in attachments]
            files += [FormFile(str(file["url"]), int(file["size"])) for file in found]
        elif option.kind == OptionKind.FLAG:
            values[option.name] = _TICKED in field.get("values", ())
        elif text := str(field.get("value") or "").strip():
            numeric = option.kind in (OptionKind.INTEGER, OptionKind.NUMBER)
            values[option.name] = number(option, text) if numeric else text
    return SubmittedForm(command, frozenset(shown), values, files, job)


def _field(option: Option, given: Value | None) -> ui.Item[Any]:
    match option.kind:
        case OptionKind.PHOTOS:
            fewest, most = int(option.least or 0), min(UPLOADS, int(option.most or UPLOADS))
            return ui.FileUpload(custom_id=option.name, required=option.required, min_values=fewest, max_values=most)
        case OptionKind.FLAG:
            box = discord.CheckboxGroupOption(
                label=cut(_capital(say(option.description)), DESCRIPTION),
                value=_TICKED,
                default=bool(given),
            )
            return ui.CheckboxGroup(
                custom_id=option.name,
                required=option.required,
                min_values=int(option.required),
                max_values=1,
                options=[box],
            )
        case kind:
            return ui.TextInput(
                custom_id=option.name,
                style=discord.TextStyle.paragraph if kind == OptionKind.TEXT else discord.TextStyle.short,
                required=option.required,
                default=None if given is None else str(given),
                placeholder=cut(", ".join(option.choices), DESCRIPTION) or None,
                max_length=_TEXT if kind == OptionKind.TEXT else _WORD,
            )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
