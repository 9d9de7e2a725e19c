"""Groups: topics, private replies, shares, and groups that change or shut the bot out."""

import pytest

from bot.frontends.telegram import outbox
from storage.jobs import Imagine
from tests.platforms.telegram.world import PHOTOS, World
from tests.platforms.telegram_server import (
    Person,
    said,
)
from tests.until import until


async def test_in_groups_photos_stay_private(world: World, anna: Person) -> None:
    group = world.server.group()
    await anna.say("/train mia7 woman", chat=group)
    led = await world.server.until(group, "in our private chat")
    assert led["reply_markup"]["inline_keyboard"][0][0]["url"] == "https://t.me/AvatarTestBot?start=train"
    body = world.server.add(group, anna.user, **{"photo": anna.photo(PHOTOS[0])["photo"]}, caption="/train mia7 woman")
    await world.server.push(message=body)
    await world.server.until(group, "in our private chat", 2)
    await anna.say("/weather", chat=group)
    await anna.say("/status@OtherBot", chat=group)
    await anna.say("/status", chat=group)
    await world.server.until(anna.id, "You have no jobs")
    assert len(world.server.of_bot(group)) == 2
    assert await world.storage.blobs.list("incoming/") == []


async def test_private_answers_of_a_group(world: World) -> None:
    shy, group = world.server.person("Ben", start=False), world.server.group()
    await shy.say("/status", chat=group)
    hint = await world.server.until(group, "Open our private chat once")
    assert hint["reply_markup"]["inline_keyboard"][0][0]["url"].startswith("https://t.me/AvatarTestBot")
    assert world.server.of_bot(shy.id) == []
    await shy.say("/start")
    await shy.say("/status", chat=group)
    await world.server.until(shy.id, "You have no jobs")


async def test_a_command_sent_as_the_group_is_refused(world: World) -> None:
    server = world.server
    group = server.group()
    admin = {"id": 1087968824, "is_bot": True, "first_name": "Group", "username": "GroupAnonymousBot"}
    for text in ("good morning", "/status"):
        body = server.add(group, admin, text=text, sender_chat=server.chats[group])
        await server.push(message=body)
    told = await server.until(group, "from your own account")
    assert told["reply_to_message"]["text"] == "/status"
    await world.settled()
    assert sum("own account" in said(body) for body in server.of_bot(group)) == 1


async def test_an_answer_in_a_topic_mentions_its_person(world: World, anna: Person) -> None:
    await world.trained(anna)
    group = world.server.group(topics={7})
    asked = await anna.say("/imagine mia7 --count 1", chat=group, message_thread_id=7, is_topic_message=True)
    drawn = await world.server.until(group, "Here you are")
    assert said(drawn).startswith("Anna, Here you are")
    [mention] = drawn["entities"]
    assert (mention["type"], mention["offset"], mention["length"]) == ("text_mention", 0, 4)
    assert mention["user"]["id"] == anna.id
    assert drawn["reply_to_message"]["message_id"] == asked["message_id"]
    assert all(body["message_thread_id"] == 7 for body in world.server.of_bot(group))
    [job] = await world.jobs(Imagine)
    assert job.room == f"telegram:{group}:7"
    other = world.server.person("Ben")
    await other.press(drawn, "Originals")
    await world.server.documents(group, 1)
    await other.press({**drawn, "chat": world.server.chats[other.id]}, "Originals")
    await world.server.alerted("Only the person")


async def test_files_go_into_the_private_chat(world: World, anna: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.trained(anna)
    group = world.server.group()
    await anna.say("/export mia7", chat=group)
    await world.server.until(anna.id, "what I learned of mia7")
    await anna.say("/mydata")
    await world.server.until(anna.id, "I keep 1 avatar")
    files = [
        world.server.files[body["document"]["file_id"]] for body in world.server.of_bot(anna.id) if "document" in body
    ]
    assert files[0] == b"weights"
    assert b"mia7" in files[1]
    assert world.server.of_bot(group) == []

    monkeypatch.setattr(outbox, "FILE_MOST", len(b"weights") - 1)
    await anna.say("/export mia7")
    await world.server.until(anna.id, "The person who runs me can give it to you")
    assert len([body for body in world.server.of_bot(anna.id) if "document" in body]) == len(files)


async def test_a_share_is_for_all_topics_of_a_group(world: World, anna: Person) -> None:
    await world.trained(anna)
    group, ben = world.server.group(), world.server.person("Ben")
    await anna.say("/share mia7", chat=group)
    await world.server.until(group, "shares mia7 with this group")
    await ben.say("/imagine mia7 --count 1 --seed 5", chat=group, thread=7)
    await world.server.until(group, "seed 5")
    await ben.say("/imagine mia7 --count 1")
    await world.server.until(ben.id, "no avatar")


async def test_a_share_is_for_the_person_it_mentions(world: World, anna: Person) -> None:
    await world.trained(anna)
    server = world.server
    bens = [server.person("Ben 😀") for _ in range(2)]
    for ben in bens:
        await ben.say("/imagine mia7")
        await server.until(ben.id, "no avatar")
    await anna.say("/share mia7 Ben 😀")
    await server.until(anna.id, "2 people here are called Ben 😀")
    mention = {"type": "text_mention", "offset": 12, "length": 6, "user": bens[1].user}
    await anna.say("/share mia7 Ben 😀 --expires 7d", entities=[mention])
    await server.until(anna.id, f"Ben 😀 (telegram {bens[1].id}) can now draw mia7 anywhere")


async def test_a_mention_of_a_person_whose_name_is_unknown(world: World, anna: Person) -> None:
    await world.trained(anna)
    group = world.server.group()
    world.engine.pause = 0.3
    await anna.say("/imagine mia7 --count 1", chat=group)
    await world.server.until(group, "Drawing")
    await world.restart()
    drawn = await world.server.until(group, "Here you are")
    assert said(drawn).startswith("Anna, ")


async def test_a_group_becomes_a_supergroup(world: World, anna: Person) -> None:
    await world.trained(anna)
    group = world.server.group()
    world.engine.pause = 0.2
    await anna.say("/imagine mia7 --count 1", chat=group)
    await world.server.until(group, "Drawing")
    new = world.server.move(group)
    await world.server.until(new, "Here you are")
    await world.restart()
    await anna.say("/imagine mia7 --count 1 --seed 9", chat=new)
    await world.server.until(new, "seed 9")
    assert {job.room for job in await world.jobs(Imagine)} == {f"telegram:{group}"}


async def test_a_muted_groups_answer_goes_to_the_asker(world: World, anna: Person) -> None:
    server = world.server
    await world.trained(anna)
    group, forum = server.group(), server.group(topics={7})
    world.engine.pause = 0.1
    await anna.say("/imagine mia7 --count 2 --seed 3", chat=group)
    await server.until(group, "Drawing")
    server.muted.add(group)
    shown = await server.until(anna.id, "Here you are (seeds 3 and 4)")
    assert "reply_to_message" not in shown
    await anna.press(shown, "Originals")
    await server.documents(anna.id, 1)

    await anna.say("/share mia7", chat=group)
    await server.until(anna.id, "shares mia7 with this group")

    await anna.say("/imagine mia7 --count 2 --seed 5", chat=forum, message_thread_id=7, is_topic_message=True)
    await server.until(forum, "Drawing")
    server.closed.add((forum, 7))
    await server.until(anna.id, "Here you are (seeds 5 and 6)")
    await world.settled()
    assert all([(await world.storage.records.jobs.get(job.id)).delivered for job in await world.jobs(Imagine)])
    assert len([text for texts in server.told.values() for text in texts if "Here you are" in text]) == 2
    assert await world.notes("telegram/missed") == []


async def test_a_topic_gets_its_undelivered_answer_later(world: World, anna: Person) -> None:
    await world.trained(anna)
    group = world.server.group(topics={7})
    world.engine.pause = 0.1
    await anna.say("/imagine mia7 --count 2 --seed 3", chat=group, message_thread_id=7, is_topic_message=True)
    await world.server.until(group, "Drawing")
    await anna.membership("kicked")
    await anna.membership("kicked", chat=group)
    await until(lambda: world.has_notes("telegram/missed", 2))
    await anna.membership("member", chat=group)
    shown = await world.server.until(group, "Here you are (seeds 3 and 4)")
    assert shown["message_thread_id"] == 7
    await until(lambda: world.has_notes("telegram/missed", 0))
