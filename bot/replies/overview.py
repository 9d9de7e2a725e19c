"""The list of commands."""

from bot.language import say
from bot.messages import Message
from bot.table import COMMANDS


def help_text(operator: bool = False) -> Message:
    """The answer to /help: the commands by topic. operator: include the commands for operators."""
    topics: dict[str, list[str]] = {}
    for command in COMMANDS.values():
        if operator or not command.operators:
            topics.setdefault(command.topic, []).append(f"{command.example}\n    {say(command.description)}")
    head = say("Show me 5 to 10 photos of a person, and I'll draw them in whatever you describe.")
    return Message("\n".join([head, *("\n".join([say(topic), *lines]) for topic, lines in topics.items())]))
