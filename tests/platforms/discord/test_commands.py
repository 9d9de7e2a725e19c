"""Commands, options, forms and completions; languages and operators."""

import re

import discord

from bot.commands.commands import Completion
from bot.frontends.discord.bot import DiscordBot
from bot.frontends.discord.form import form
from bot.frontends.discord.registry import completions, slash_command
from bot.frontends.discord.rooms import NAME
from bot.language import say, speaking
from bot.replies import refusals
from bot.table import COMMANDS, Command, Option, OptionKind
from tests.fakes.engine import drawing
from tests.platforms.discord.world import ANNA, BEN, PHOTOS, World
from tests.platforms.discord_server import check_form


async def test_train_and_imagine_in_the_private_chat(world: World) -> None:
    server, dm = world.server, world.server.dm(ANNA)
    ready = await world.avatar(dm)
    assert len(ready.files) == 4
    assert ready.notified == [ANNA]
    kept = sorted(await world.storage.blobs.list("photos/"))
    assert [await world.storage.blobs.get(key) for key in kept] == PHOTOS

    await server.slash(ANNA, dm, "imagine", prompt="mia7 woman in a suit", count=4, seed=5)
    drawn = await server.sees(ANNA, dm, "Here you are")
    assert [file["data"] for file in drawn.files] == [drawing(5 + number) for number in range(4)]
    assert drawn.notified == [ANNA]
    await server.press(ANNA, drawn, "Again")
    await server.until(lambda: len([one for one in server.seen(ANNA, dm) if "Here you are" in one.content]) == 2)
    await world.idle()
    # Progress is one message for each job, edited; each answer is a new one.
    said = [one.content for one in server.seen(ANNA, dm)]
    assert len([text for text in said if "Here you are" in text]) == 2
    assert len([text for text in said if text.startswith("Drawing: done")]) == 2
    assert [one for one in server.messages.values() if one.only_for] == []


async def test_progress_is_edited_on_change_only(world: World, studio: int) -> None:
    world.engine.gate.clear()
    asked = await world.server.slash(ANNA, studio, "train", token="mia7")
    await world.acknowledged(asked)
    await world.server.submit(asked, PHOTOS, noun="woman", consent=True)
    checked = await world.server.sees(ANNA, studio, "all good")
    assert checked.only_for == ANNA
    await world.server.press(ANNA, checked, "Train")
    progress = await world.server.sees(BEN, studio, "Training mia7: step 2 of 4")
    assert "▰▰▰▰▰▰▱▱▱▱▱▱ 50%" in progress.content
    before = len(progress.said)
    for _ in range(3):
        await world.bot.delivery.sweep()
        await world.bot.delivery.flush()
    assert len(progress.said) == before
    assert all(one != other for one, other in zip(progress.said, progress.said[1:], strict=False))
    assert checked.components == []
    world.engine.gate.set()
    await world.server.sees(BEN, studio, "Training of mia7: done")


async def test_exactly_the_table_is_registered(world: World) -> None:
    assert list(world.server.commands) == list(COMMANDS)
    for command in world.server.commands.values():
        assert command["description"] == COMMANDS[command["name"]].description
        shown = command["contexts"], command["integration_types"], command["default_member_permissions"]
        administrator = str(discord.Permissions(administrator=True).value)
        for_operators = COMMANDS[command["name"]].operators
        assert shown == (([0], [0], administrator) if for_operators else ([0, 1, 2], [0, 1], None))
        names = {re.sub(r"_\d+$", "s", option["name"]) for option in command["options"]}
        assert names == {option.name for option in COMMANDS[command["name"]].options}


async def test_somebody_is_answered_in_their_language(world: World, studio: int) -> None:
    server = world.server
    server.locales[ANNA] = "de"
    for command in server.commands.values():
        with speaking("de"):
            assert command["description_localizations"] == {"de": say(COMMANDS[command["name"]].description)}
    asked = await server.slash(ANNA, studio, "train")
    await server.until(lambda: asked.answer)
    labels = [one["label"] for one in asked.data["components"]]
    assert labels == ["Name", "Was die Person ist", "Fotos", "Einwilligung"]
    await server.submit(asked, PHOTOS, token="mia7", noun="woman", consent=True)
    await server.press(ANNA, await server.sees(ANNA, studio, "6 Fotos, alle gut"), "mia7 trainieren")
    notice = await server.sees(ANNA, studio, "Deine Antwort ist da")
    # The delivery loop says it in the language in which it was asked for, whatever process it is.
    await server.press(ANNA, notice, "Zeig es mir")
    shown = await server.sees(ANNA, studio, "mia7 ist fertig: 400 Schritte")
    assert "-# Auftrag" in shown.content and "Hier zeigen" in shown.buttons
    await server.slash(BEN, studio, "status")
    await server.sees(BEN, studio, "You have no jobs under way")


async def test_without_operators_there_is_no_command_for_them(world: World) -> None:
    bot = DiscordBot(world.storage, operators={"telegram:11"})
    assert {command.name for command in bot.tree.get_commands()} == COMMANDS.keys() - {"operator"}


async def test_a_broadcast_reaches_a_channel_once_as_a_public_message(world: World, studio: int) -> None:
    server = world.server
    await world.avatar(server.dm(ANNA))
    await server.slash(ANNA, studio, "imagine", prompt="mia7 woman", count=1)
    await server.sees(ANNA, studio, "Here you are")
    await server.slash(ANNA, studio, "operator", duty="broadcast", text="I rest at ten")
    await server.sees(BEN, studio, "A message from the people who run this bot: I rest at ten")
    await world.idle()
    assert len([one for one in server.seen(BEN, studio) if "I rest at ten" in one.content]) == 1


async def test_the_operator_is_known(world: World, studio: int) -> None:
    await world.server.slash(ANNA, studio, "operator", duty="queue")
    seen = await world.server.sees(ANNA, studio, "Nothing is waiting or running. I'm working.")
    assert seen.only_for == ANNA
    await world.server.slash(BEN, studio, "operator", duty="pause")
    refused = await world.server.until(lambda: next(iter(world.server.seen(BEN, studio)), None))
    assert refused.only_for == BEN
    assert not await world.storage.records.operators.paused()


async def test_a_share_is_for_the_whole_server(world: World, studio: int) -> None:
    await world.avatar(world.server.dm(ANNA))
    await world.server.slash(ANNA, studio, "share", token="mia7")
    await world.server.sees(BEN, studio, "shares mia7 with this group")
    elsewhere = world.server.add("server", ANNA, BEN)
    await world.server.slash(BEN, elsewhere, "imagine", prompt="mia7 woman")
    assert (await world.server.sees(BEN, elsewhere, "Here you are")).only_for == BEN
    await world.server.slash(BEN, world.server.dm(BEN), "imagine", prompt="mia7 woman")
    await world.server.sees(BEN, world.server.dm(BEN), "no avatar")
    await world.server.slash(ANNA, world.server.dm(ANNA), "share", token="mia7")
    await world.server.sees(ANNA, world.server.dm(ANNA), "just you and me")


async def test_forget_leaves_no_note(world: World, studio: int) -> None:
    server, records = world.server, world.storage.records
    await world.avatar(server.dm(ANNA))
    await server.slash(ANNA, studio, "imagine", prompt="mia7 woman")
    drawn = await server.sees(ANNA, studio, "Here you are")
    await server.press(ANNA, drawn, "Post here")
    await server.sees(BEN, studio, "Here you are")
    await world.bot.outbox.ledger.miss(str(BEN), "another", f"{NAME}:{BEN}")
    await world.idle()
    assert len(await records.notes.find("discord/sent")) > 2
    await server.slash(ANNA, studio, "forget")
    await server.press(ANNA, await server.sees(ANNA, studio, "Forget you for good?"), "Erase everything")
    await server.sees(ANNA, studio, "You are forgotten")
    assert await records.notes.find("discord/sent") == []
    assert [note.key for note in await records.notes.find("discord/missed")] == [f"{BEN}|another"]
    assert not await records.users.exists(NAME, str(ANNA))


async def test_completions(world: World) -> None:
    server, dm = world.server, world.server.dm(ANNA)
    await world.avatar(dm)
    assert await server.complete(ANNA, dm, "imagine", "prompt", "mi") == ["mia7 woman"]
    assert await server.complete(BEN, dm, "imagine", "prompt", "mi") == []
    assert await server.complete(ANNA, dm, "delete", "token", "") == ["mia7"]
    assert "woman" in await server.complete(ANNA, dm, "train", "noun", "wo")


def test_completing_the_last_word() -> None:
    known = [Completion("mia7", "woman"), Completion("max3", "man"), Completion("m" * 16, "w" * 90)]
    assert [one.value for one in completions(OptionKind.TEXT, "mia7 woman with m", known)] == [
        "mia7 woman with mia7",
        "mia7 woman with max3",
        f"mia7 woman with {'m' * 16}",
    ]
    assert completions(OptionKind.TEXT, "x" * 100 + " m", known) == []
    assert len(completions(OptionKind.WORD, "", [Completion(f"a{n}") for n in range(40)])) == 25


async def test_any_table_can_be_registered() -> None:
    """Whatever kinds, bounds, choices and sources its options have."""
    command = Command(
        "odd",
        "d" * 200,
        "/odd",
        (
            Option("later", OptionKind.TEXT, "not needed"),
            Option("first", OptionKind.WORD, "needed", required=True),
            Option("size", OptionKind.INTEGER, "one of three", choices=("128", "256", "512")),
            Option("share", OptionKind.NUMBER, "a part", least=0, most=1),
            Option("picture", OptionKind.PHOTOS, "to start from", most=1),
            Option("loud", OptionKind.FLAG, "or not"),
        ),
    )
    tree = discord.app_commands.CommandTree(discord.Client(intents=discord.Intents.none()))
    tree.add_command(slash_command(command, None, None))  # type: ignore[arg-type]
    made = tree.get_commands()[0].to_dict(tree)
    assert [(one["name"], one["type"], one["required"]) for one in made["options"]] == [
        ("first", 3, True),
        ("later", 3, False),
        ("size", 4, False),
        ("share", 10, False),
        ("picture", 11, False),
        ("loud", 5, False),
    ]
    assert [choice["value"] for choice in made["options"][2]["choices"]] == [128, 256, 512]
    assert (made["options"][3]["min_value"], made["options"][3]["max_value"]) == (0, 1)


async def test_forms_keep_to_the_limits() -> None:
    for command in COMMANDS.values():
        if command.options:
            check_form(form(command, {"token": "mia7"}).to_dict())
    train = form(COMMANDS["train"], {}).to_dict()["components"]
    assert {label["label"] for label in train} >= {"Token", "Noun", "Photos", "Consent"}
    consent = next(label for label in train if label["label"] == "Consent")
    assert consent["description"] == refusals.CONSENT
