"""What operators decide: a pause, bans, quotas, and words to everybody."""

from datetime import timedelta
from typing import Any

import pytest

from bot.commands.commands import Commands
from bot.delivery import Delivery
from bot.language import speaking
from bot.messages import Caller, Message
from bot.settings import BotSettings
from storage.jobs import Imagine, State, Train

OLGA = Caller("chat", "olga", "Olga", "studio")


@pytest.fixture(autouse=True)
def operators(bot: Any) -> None:
    bot.commands = Commands(bot.records, bot.blobs, bot.queue, bot.events, ["chat:olga"])


async def do(bot: Any, text: str) -> str:
    reply = await bot.commands.line(OLGA, f"/operator {text}")
    assert reply.private
    return str(reply.message.text)


@pytest.mark.parametrize(
    "text", ["pause", "resume", "queue", "stats", "ban chat:ben", "unban chat:ben", "quota pictures 0", "broadcast hi"]
)
async def test_operators_only(bot: Any, text: str) -> None:
    reply = await bot.say(f"/operator {text}", name="Ben")
    assert "Only the operators" in reply.message.text
    assert not await bot.records.operators.paused()
    assert await bot.records.quotas.default() == {}
    assert await bot.records.notices.pending("chat") == []
    assert (await bot.records.users.get_or_create("chat", "ben", "Ben")).banned is None
    assert "/operator" not in (await bot.say("/help", name="Ben")).message.text
    assert "/operator" in (await bot.commands.line(OLGA, "/help")).message.text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "still needs duty"),
        ("dance", "I can pause, resume"),
        ("ban ben", "platform:id"),
        ("ban chat:olga", "operator of this bot"),
        ("quota kittens 3", "Send /operator quota"),
        ("quota pictures many", "Send /operator quota"),
        ("quota pictures 999999", "quota must be from 0 to 100,000"),
        ("quota pictures 3 chat:nobody", "the account chat:nobody"),
        ("broadcast", "What should I tell"),
        ("broadcast " + "x" * 1001, "1,000 characters"),
    ],
)
async def test_wrong_duties_are_answered_kindly(bot: Any, text: str, said: str) -> None:
    assert said in await do(bot, text)


async def test_a_pause_keeps_jobs_and_says_so(bot: Any) -> None:
    await bot.avatar("mia7")
    for job in await bot.records.jobs.undelivered("chat"):
        await bot.records.jobs.mark_delivered(job.id)
    assert "Paused" in await do(bot, "pause")
    reply = await bot.say("/imagine mia7")
    assert "taking a break. Your place in the queue is kept" in reply.message.text
    assert "1 waiting. I'm paused." in await do(bot, "queue")
    wall = Wall()
    delivery = Delivery(bot.records, bot.events, wall, bot.commands.answer)
    await delivery.follow(reply.job_id, await wall.post("studio", reply.message), reply.message)
    await delivery.sweep()
    await delivery.flush()
    assert "taking a break" in wall.texts[-1]
    assert "1 waiting job" in await do(bot, "resume")
    await delivery.sweep()
    await delivery.flush()
    assert "rest" not in wall.texts[-1]
    assert "Here you are" in (await bot.answer(reply)).text


async def test_a_ban_stops_everything_but_access_to_ones_own_data(bot: Any) -> None:
    await bot.avatar("mia7")
    await bot.avatar("ben5", "Ben")
    await bot.say("/share ben5", name="Ben")
    hers, his = await bot.say("/imagine ben5"), await bot.say("/imagine ben5", name="Ben")
    assert "Stopped: 2 jobs." in await do(bot, "ban chat:ben")
    assert (await bot.records.jobs.get(hers.job_id)).state == State.CANCELLED
    assert (await bot.records.jobs.get(his.job_id)).state == State.CANCELLED
    assert (await bot.say("/imagine ben5")).job_id is None
    for text in ("/imagine ben5", "/train new5 man", "/avatars", "/status", "/share ben5", "/link"):
        reply = await bot.say(text, 6, name="Ben")
        assert "banned you" in reply.message.text
        assert "\n" not in reply.message.text
    assert "banned you" in (await bot.press(f"again:{his.job_id}", name="Ben")).message.text
    assert await bot.commands.complete(bot.caller("Ben"), "avatars") == []
    assert (await bot.say("/export ben5", name="Ben")).message.files
    assert (await bot.say("/mydata", name="Ben")).message.files
    await do(bot, "unban chat:ben")
    assert (await bot.say("/imagine ben5")).job_id is not None


async def test_a_ban_survives_forget_and_can_precede_the_first_message(bot: Any) -> None:
    await bot.avatar("ben5", "Ben")
    await do(bot, "ban chat:ben")
    asked = (await bot.say("/forget", name="Ben")).message
    assert "forgotten" in (await bot.press(asked.buttons[0].action, name="Ben")).message.text
    assert "banned you" in (await bot.say("/train ben5 man", 6, name="Ben")).message.text
    assert "haven't met" in await do(bot, "ban chat:eve")
    assert "banned you" in (await bot.say("/status", name="Eve")).message.text
    await do(bot, "ban chat:mallory")
    for name in ("ben", "eve", "mallory"):
        await do(bot, f"unban chat:{name}")
        assert "banned" not in (await bot.say("/status", name=name.title())).message.text


async def test_quotas_of_pictures(bot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await bot.avatar("mia7")
    assert "10 pictures" in await do(bot, "quota pictures 10")
    first = await bot.say("/imagine mia7")
    await bot.answer(first)
    assert (await bot.say("/imagine mia7")).job_id
    refused = (await bot.say("/imagine mia7")).message.text
    assert "You have 2 left of 10 pictures a day. You can do this again in 24 h" in refused
    assert (await bot.say("/imagine mia7 --count 2")).job_id
    assert "used up" in (await bot.say("/imagine mia7 --count 1")).message.text
    assert "used up" in (await bot.press(f"again:{first.job_id}")).message.text

    await bot.say("/cancel")
    assert (await bot.say("/imagine mia7 --count 2")).job_id, "what no engine began is given back"
    assert "any number of trainings" in await do(bot, "quota pictures 11 chat:anna")
    assert (await bot.say("/imagine mia7 --count 1")).job_id
    assert "any number of pictures" in await do(bot, "quota pictures none chat:anna")
    assert (await bot.say("/imagine mia7")).job_id
    await do(bot, "quota pictures 3 chat:anna")
    assert "fewer than the 4" in (await bot.say("/imagine mia7")).message.text
    clock = bot.records.database.clock
    monkeypatch.setattr(bot.records.database, "clock", lambda: clock() + timedelta(days=1, seconds=1))
    assert (await bot.say("/imagine mia7 --count 3")).job_id


async def test_quotas_of_trainings_outlast_an_erasure(bot: Any) -> None:
    await do(bot, "quota trainings 1")
    await bot.avatar("mia7")
    reply = await bot.say("/train ann3 woman", 6)
    assert "You have used up today's 1 training" in reply.message.text
    assert len([key for key in await bot.kept() if key.startswith("photos/")]) == 6
    await bot.press((await bot.say("/forget")).message.buttons[0].action)
    assert "used up" in (await bot.say("/train ann3 woman", 6)).message.text
    await do(bot, "quota trainings 0")
    assert "switched training off here" in (await bot.say("/train ann3 woman", 6, name="Ben")).message.text


async def test_a_failed_job_does_not_count_towards_the_quota(bot: Any) -> None:
    await bot.avatar("mia7")
    await do(bot, "quota pictures 4")
    bot.engine.errors = {Imagine: {"code": "crashed", "facts": {}}, Train: {"code": "crashed", "facts": {}}}
    for _ in range(3):
        assert "could not draw" in (await bot.answer(await bot.say("/imagine mia7"))).text
    assert (await bot.say("/imagine mia7")).job_id


class Wall:
    """A frontend that keeps what it shows, and refuses where it is told to."""

    name = "chat"

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.rooms: list[str] = []
        self.closed: set[str] = set()

    async def post(self, room: str, message: Message, dedupe: str | None = None) -> str:
        if room in self.closed:
            raise ConnectionError("blocked")
        self.rooms.append(room)
        self.texts.append(message.text)
        return str(len(self.texts))

    async def edit(self, ref: str, message: Message) -> None:
        self.texts.append(message.text)


async def test_a_broadcast_reaches_every_room_once(bot: Any, caplog: pytest.LogCaptureFixture) -> None:
    await bot.avatar("mia7")
    for job in await bot.records.jobs.undelivered("chat"):
        await bot.records.jobs.mark_delivered(job.id)
    await bot.records.chat.append("kitchen", "Ben", {"text": "hello"})
    await bot.commands.line(Caller("discord", "1", "Dora", "900"), "/imagine x")
    assert "2 rooms" in await do(bot, "broadcast I rest at ten")
    wall = Wall()
    wall.closed = {"kitchen"}
    delivery = Delivery(bot.records, bot.events, wall, bot.commands.answer)
    for _ in range(2):
        await delivery.post_notices()
    assert wall.rooms == ["studio"]
    assert wall.texts == ["A message from the people who run this bot: I rest at ten"]
    wall.closed = set()
    await delivery.post_notices()
    await delivery.post_notices()
    assert wall.rooms == ["studio", "kitchen"]
    assert "rest at ten" not in caplog.text


async def test_a_broadcast_is_announced_in_the_language_of_each_room(bot: Any) -> None:
    await bot.avatar("mia7")
    for room, language in (("studio", "en"), ("atelier", "en"), ("atelier", "de")):
        with speaking(language):
            await bot.say("/imagine mia7 woman in a suit --count 1", room=room)
    await bot.engine.work_off()
    for job in await bot.records.jobs.undelivered("chat"):
        await bot.records.jobs.mark_delivered(job.id)
    with speaking("de"):
        await do(bot, "broadcast I rest at ten")
    wall = Wall()
    await Delivery(bot.records, bot.events, wall, bot.commands.answer).post_notices()
    assert dict(zip(wall.rooms, wall.texts, strict=True)) == {
        "studio": "A message from the people who run this bot: I rest at ten",
        "atelier": "Eine Nachricht von den Betreibern dieses Bots: I rest at ten",
    }


async def test_figures(bot: Any) -> None:
    await bot.avatar("mia7")
    text = await do(bot, "stats")
    assert "People: 2 (2 chat)" in text
    assert "Avatars: 1 (1 ready)" in text
    assert "mia7" not in text + await do(bot, "queue")
    assert "Base model" not in text  # no engine ever ran
    await bot.records.operators.set_base_model("hub/model", None)
    assert (await do(bot, "stats")).splitlines()[-1] == "Base model: hub/model."
    await bot.records.operators.set_base_model("/engine/weights", "cartoon")
    last = (await do(bot, "stats")).splitlines()[-2:]
    assert last[0] == "Base model: /engine/weights." and "set AVATAR_BASE_MODEL" in last[1]


def test_operators_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVATAR_OPERATORS", "discord:1234, telegram:567,")
    assert BotSettings().operator_accounts == {"discord:1234", "telegram:567"}
    monkeypatch.setenv("AVATAR_OPERATORS", "somebody")
    with pytest.raises(ValueError, match="platform:id"):
        BotSettings()


async def test_operators_can_cancel_any_job(bot: Any) -> None:
    await bot.avatar("mia7")
    reply = await bot.say("/imagine mia7")
    assert "Stopped" in (await bot.commands.line(OLGA, f"/cancel {reply.job_id}")).message.text
    assert (await bot.records.jobs.get(reply.job_id)).state == State.CANCELLED
    assert "You have no jobs" in (await bot.commands.line(OLGA, "/cancel")).message.text
