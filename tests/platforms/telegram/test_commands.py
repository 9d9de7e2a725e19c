"""Commands in a private chat, the menu, languages and operators."""

from dataclasses import replace
from typing import Any

from bot.language import say, speaking
from bot.settings import BotSettings
from bot.table import COMMANDS
from storage.jobs import Imagine, Inspect, Train
from tests.fakes.engine import SEEN, drawing
from tests.platforms.telegram.world import FOR_ALL, PHOTOS, SPACES, World
from tests.platforms.telegram_server import (
    Person,
    Refused,
    labels,
    said,
)
from tests.until import until


async def test_from_an_album_to_pictures(world: World, anna: Person) -> None:
    server = world.server
    await anna.send(PHOTOS[:8], "/train mia7 woman")
    asked = await server.until(anna.id, "mia7 woman: 8 photos")
    assert "has agreed" in said(asked)
    assert labels(asked) == ["They agreed: train", "Cancel"]
    assert await world.jobs(Inspect) == []
    await anna.press(asked, "They agreed")
    checked = await server.until(anna.id, "8 photos, all good")
    await anna.press(checked, "Train")
    ready = await server.until(anna.id, "mia7 is ready")
    assert labels(ready) == ["Imagine", "Delete", "Share here"]
    album = [body for body in server.of_bot(anna.id) if "media_group_id" in body]
    assert len(album) == 4
    assert album[0]["message_id"] < ready["message_id"]
    assert labels(server.messages[anna.id, checked["message_id"]]) == []

    await anna.say("/imagine mia7 woman in a suit —count 3 --seed 5")
    drawn = await server.until(anna.id, "Here you are (seeds 5, 6 and 7)")
    assert labels(drawn) == ["Again", "V1", "V2", "V3", "Seed", "Delete", "Originals"]
    pictures = [body for body in server.of_bot(anna.id) if said(body) == "mia7 woman in a suit"]
    assert len(pictures) == 1 and "photo" in pictures[0]
    await anna.press(drawn, "Originals")
    files = await server.documents(anna.id, 3)
    assert server.files[files[1]["document"]["file_id"]] == drawing(6)

    await anna.press(drawn, "V2")
    await server.until(anna.id, "Here you are", 2)
    [first, varied] = await world.jobs(Imagine)
    original = (await world.storage.records.jobs.pictures(first.id))[1].key
    assert varied.payload == replace(first.payload, seed=None, original=original, repeats=first.id)

    await anna.press(drawn, "Seed")
    await server.until(anna.id, "/imagine mia7 woman in a suit --count 1 --seed 7")
    await anna.press(drawn, "Delete")
    await server.until(anna.id, "Deleted here")
    assert labels(server.messages[anna.id, drawn["message_id"]]) == []
    assert await world.storage.blobs.list(f"pictures/{first.id}/") == []

    [avatar] = await world.storage.records.avatars.owned_by((await world.jobs(Train))[0].user_id)
    [photos] = {len(await world.storage.records.avatars.photos(avatar.id))}
    assert photos == 8
    assert await world.storage.blobs.list("incoming/") == []


async def test_what_was_read_from_photos_is_corrected_in_one_message(world: World, anna: Person) -> None:
    server = world.server
    world.engine.album = {"looks": SEEN}
    await anna.send(PHOTOS[:8], "/train mia7 man")
    await anna.press(await server.until(anna.id, "mia7 man: 8 photos"), "They agreed")
    checked = await server.until(anna.id, "I see short dark brown hair, a full beard, light skin, no glasses.")
    card = (anna.id, checked["message_id"])
    await anna.press(checked, "Hair length")
    asked = await server.until(anna.id, "mia7: Hair length. Which is right?")
    assert labels(asked) == ["Bald", "Short", "To the shoulders", "Long", "Back"]
    await world.restart()
    await anna.press(asked, "Long")
    await server.until(anna.id, "mia7 gets long dark brown hair")
    # It is one message all the time.
    assert asked["message_id"] == checked["message_id"] and "long dark brown" in said(server.messages[card])
    await anna.press(server.messages[card], "Train mia7")
    await server.until(anna.id, "This bot draws cartoons.")
    assert [looks["hair_length"] for looks in world.engine.drawn_from if looks] == ["long"]
    assert labels(server.messages[card]) == []


async def test_somebody_is_answered_in_their_language(world: World) -> None:
    server, mia = world.server, world.server.person("Mia", language="de-AT")
    with speaking("de"):
        described = {one.name: say(one.description) for one in COMMANDS.values() if not one.operators}
    for scope in ("default de", "all_private_chats de", "all_group_chats de"):
        assert {one["command"]: one["description"] for one in server.commands[scope]}.items() >= described.items()
    assert "de" not in server.commands["default"][0]["description"].split()
    await mia.send(PHOTOS[:8], "/train mia7 woman")
    asked = await server.until(mia.id, "Eine Frage, bevor ich sie mir ansehe.")
    await world.restart()
    await mia.press(asked, "Einverstanden")
    await mia.press(await server.until(mia.id, "8 Fotos, alle gut."), "mia7 trainieren")
    await server.until(mia.id, "mia7 ist fertig: 400 Schritte in")
    await mia.say("/imagine mia7 woman in a suit")
    await server.until(mia.id, "Bitte schön (Seeds")
    await server.until(mia.id, "Zeichnung: fertig")


async def test_the_commands_are_the_table(world: World, anna: Person) -> None:
    for scope, more in (("default", []), ("all_private_chats", ["start"]), ("all_group_chats", [])):
        assert [one["command"] for one in world.server.commands[scope]] == [*FOR_ALL, *more]
    await anna.say("/start")
    assert "Hello Anna!" in said(await world.server.until(anna.id, "/train"))
    for name in FOR_ALL:
        await anna.say(f"/start {name}")
        await world.server.until(anna.id, COMMANDS[name].description)
    await anna.say("/help@AvatarTestBot")
    await world.server.until(anna.id, "Erase an avatar")
    await anna.say("hello")
    await world.server.until(anna.id, "Please use a command")
    await anna.say("/imagin mia7")
    await world.server.until(anna.id, "Did you mean /imagine?")


async def test_operators_find_their_command(world: World, anna: Person) -> None:
    world.settings = BotSettings(_env_file=None, operators=f"telegram:{anna.id},telegram:999,discord:5")
    await world.restart()
    assert [one["command"] for one in world.server.commands[f"chat {anna.id}"]] == [*FOR_ALL, "operator", "start"]
    assert "chat 999" not in world.server.commands  # who never spoke with the bot has no chat to register for
    await anna.say("/operator pause")
    await until(world.storage.records.operators.paused)


async def test_a_former_operator_loses_the_command(world: World, anna: Person) -> None:
    ben, commands = world.server.person("Ben"), world.server.commands
    world.settings = BotSettings(_env_file=None, operators=f"telegram:{anna.id},telegram:{ben.id},telegram:999")
    await world.restart()
    assert {f"chat {anna.id}", f"chat {anna.id} de", f"chat {ben.id}", f"chat {ben.id} de"} <= commands.keys()
    world.settings = BotSettings(_env_file=None, operators=f"telegram:{anna.id}")
    world.server.inject("deleteMyCommands", Refused(502, "Bad Gateway"))
    await world.restart()
    assert f"chat {ben.id}" in commands
    await world.restart()
    assert {f"chat {anna.id}", f"chat {anna.id} de"} <= commands.keys()
    assert not {f"chat {ben.id}", f"chat {ben.id} de"} & commands.keys()
    # Once is enough, and who never was there keeps nothing.
    assert await world.notes("telegram/operators") == [str(anna.id)]


async def test_an_operators_word_reaches_each_chat_in_its_language(world: World, anna: Person) -> None:
    world.settings = BotSettings(_env_file=None, operators=f"telegram:{anna.id}")
    await world.restart()
    mia, group = world.server.person("Mia", language="de"), world.server.group()
    await mia.say("/imagine mia7")
    await world.server.until(mia.id, "Avatar")
    await world.trained(anna)
    await anna.say("/share mia7 --person Mia")
    await world.server.until(anna.id, f"Mia (telegram {mia.id})")
    await anna.say("/imagine mia7 woman --count 1", chat=group)
    await world.server.until(group, "Here you are")
    await mia.say("/imagine mia7 woman --count 1")
    await world.server.until(mia.id, "Bitte schön")
    await anna.say("/operator broadcast I rest at ten")
    await world.server.until(anna.id, "A message from the people who run this bot: I rest at ten")
    await world.server.until(group, "A message from the people who run this bot: I rest at ten")
    await world.server.until(mia.id, "Eine Nachricht von den Betreibern dieses Bots: I rest at ten")


async def test_a_reply_to_a_picture_varies_it(world: World, anna: Person) -> None:
    await world.trained(anna)
    group, ben = world.server.group(), world.server.person("Ben")
    await world.storage.queue.offer(["inks"], 600)
    for chat in (anna.id, group):
        await anna.say("/imagine mia7 woman in a suit --count 3 --negative hat --style inks", chat=chat)
        await world.server.until(chat, "Here you are")
    first, openly = await world.jobs(Imagine)
    assert openly.payload.style == "inks"
    await world.restart()

    def second(chat: int) -> dict[str, Any]:
        return [body for body in world.server.of_bot(chat) if "media_group_id" in body][-2]

    await anna.say("a woman on the moon", reply_to_message=second(anna.id))
    await world.server.until(anna.id, "Here you are", 2)
    original = (await world.storage.records.jobs.pictures(first.id))[1].key
    varied = (await world.jobs(Imagine))[-1]
    changed = {"prompt": "mia7 woman on the moon", "original": original, "repeats": first.id}
    assert varied.payload == replace(first.payload, **changed)
    assert "Again" in labels(await world.server.until(anna.id, "Here you are", 2))
    # A reply to anything else is no prompt.
    await anna.say("thanks", reply_to_message=await world.server.until(anna.id, "Here you are", 2))
    await world.server.until(anna.id, "Please use a command")

    # In a group people also talk about pictures: there a prompt has to name the avatar.
    await anna.say("that one is lovely", chat=group, reply_to_message=second(group))
    await ben.say("mia7 on the beach", chat=group, reply_to_message=second(group))
    await world.server.until(ben.id, "not shared with you here")
    await anna.say("/share mia7", chat=group)
    await world.server.until(group, "shares mia7 with this group")
    await ben.say("Mia7 on the beach", chat=group, reply_to_message=second(group))
    await world.server.until(group, "Here you are", 2)
    original = (await world.storage.records.jobs.pictures(openly.id))[1].key
    assert (await world.jobs(Imagine))[-1].payload == replace(
        openly.payload, prompt="Mia7 on the beach", original=original, repeats=openly.id
    )
    assert len(await world.jobs(Imagine)) == 4


async def test_forget_leaves_nothing(world: World, anna: Person) -> None:
    await world.trained(anna)
    group, ben = world.server.group(), world.server.person("Ben")
    await anna.say("/imagine mia7 --count 1", chat=group)
    await world.server.until(group, "Here you are")
    await ben.send(PHOTOS[:5])
    await world.server.until(ben.id, "5 photos. Who is it?")
    await anna.send(PHOTOS[:7])
    await world.server.until(anna.id, "7 photos. Who is it?")
    records, blobs = world.storage.records, world.storage.blobs
    assert len(await blobs.list(f"incoming/telegram/{anna.id}/")) == 7
    await anna.say("/forget")
    await anna.press(await world.server.until(anna.id, "Forget you for good?"), "Erase everything")
    await world.server.until(anna.id, "You are forgotten")
    await until(world.all_handled)
    left = [note for space in SPACES for note in await records.notes.find(space)]
    assert left
    assert [note for note in left if str(anna.id) in repr(note) or "Anna" in repr(note)] == []
    assert await blobs.list(f"incoming/telegram/{anna.id}/") == []
    assert len(await blobs.list(f"incoming/telegram/{ben.id}/")) == 5
    assert len([note for note in left if note.space == "telegram/photos"]) == 5
    assert not await records.users.exists("telegram", str(anna.id))


async def test_inline_shows_the_persons_own_pictures(world: World, anna: Person) -> None:
    await world.trained(anna)
    await anna.say("/imagine mia7 --count 3 --seed 3")
    await world.server.until(anna.id, "Here you are")
    ben = world.server.person("Ben")
    for who, words, count in ((anna, "mia", 3), (anna, "", 3), (anna, "cr7d", 0), (ben, "mia7", 0)):
        before = len(world.server.inline)
        await who.ask(words)
        await until(lambda before=before: len(world.server.inline) > before)
        assert len(world.server.inline[-1]) == count, words
    await anna.say("/delete mia7")
    await anna.press(await world.server.until(anna.id, "for good"), "Erase")
    await world.server.until(anna.id, "mia7 is erased")
    await anna.ask("mia7")
    await until(lambda: len(world.server.inline) == 5)
    assert world.server.inline[-1] == []
