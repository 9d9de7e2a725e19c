"""The chat page in a real Chromium."""

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Locator, Page, Route, async_playwright, expect

from storage.jobs import Imagine

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: set CHROMIUM to its path"),
]
expect.set_options(timeout=30_000)  # milliseconds: a busy machine is no fault of the page

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        opened = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield opened
        await opened.close()


class Watch:
    """What no page may do: talk to others, or complain in the console."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.complaints: list[str] = []

    def over(self, page: Page) -> None:
        page.on("request", lambda request: self._local(request.url))
        page.on(
            "console", lambda line: self.complaints.append(line.text) if line.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _local(self, url: str) -> None:
        if not url.startswith((self.address, f"blob:{self.address}")):
            self.complaints.append(f"external request: {url}")


async def enter(browser: Browser, watch: Watch, name: str, path: str = "/", **context: Any) -> Page:
    page = await (await browser.new_context(**context)).new_page()
    page.set_default_timeout(10_000)
    watch.over(page)
    await page.goto(watch.address + path)
    await page.get_by_label("Your name").fill(name)
    await page.get_by_role("button", name="Enter").click()
    await expect(page.get_by_label("Message", exact=True)).to_be_focused()
    return page


ON_A_DESK = {"viewport": {"width": 1280, "height": 860}}
ON_A_PHONE = {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark", "has_touch": True}


class Pair:
    """Anna on a desk and Ben on a phone in the same room, with Anna's avatar mia7 if it is wanted."""

    def __init__(self, browser: Browser, address: str, bot: Any, folder: Path) -> None:
        self.browser, self.bot, self.folder = browser, bot, folder
        self.watch = Watch(address)

    async def enter(self, *, trained: bool) -> tuple[Page, Page, Locator]:
        """Their pages, and the line that Anna types in."""
        if trained:
            await self.bot.avatar("mia7", name="Anna Berg")
        anna = await enter(self.browser, self.watch, "Anna Berg", **ON_A_DESK)
        ben = await enter(self.browser, self.watch, "Ben", "/r/studio", **ON_A_PHONE)
        return anna, ben, anna.get_by_label("Message", exact=True)

    async def shot(self, page: Page, name: str) -> None:
        await page.wait_for_timeout(300)  # for transitions to end
        await page.screenshot(path=self.folder / f"{name}.png")


@pytest.fixture
async def pair(browser: Browser, chat: str, bot: Any, tmp_path: Path) -> AsyncIterator[Pair]:
    made = Pair(browser, chat, bot, tmp_path)
    yield made
    assert made.watch.complaints == []


@pytest.fixture
def files(draw: Callable[..., bytes], tmp_path: Path) -> list[Path]:
    """Nine photos."""
    paths = [tmp_path / f"photo {number}.png" for number in range(1, 10)]
    for number, path in enumerate(paths, start=1):
        path.write_bytes(draw(number, 300))
    return paths


async def test_two_people_in_a_room_read_each_other(pair: Pair) -> None:
    anna, ben, text = await pair.enter(trained=False)
    await pair.shot(anna, "empty")
    await text.fill("Hello Ben!")
    await text.press("Enter")
    await expect(ben.get_by_text("Hello Ben!")).to_be_visible()
    await anna.get_by_role("button", name="Log out").click()
    await expect(anna.get_by_label("Your name")).to_be_visible()
    await pair.shot(anna, "welcome")
    await ben.reload()
    await ben.get_by_role("button", name="Rooms", exact=True).click()
    await expect(ben.get_by_role("link", name="studio")).to_be_visible()
    await pair.shot(ben, "phone-rooms")
    await ben.keyboard.press("Escape")
    await expect(ben.get_by_text("Hello Ben!")).to_be_visible()


async def test_an_album_is_shown_completed_and_checked(pair: Pair, files: list[Path]) -> None:
    pair.bot.engine.verdicts = {3: {"ok": False, "codes": ["several_faces"], "facts": {"faces": 2}},
                                5: {"ok": True, "codes": ["soft"], "facts": {}}}  # fmt: skip
    anna, ben, text = await pair.enter(trained=False)
    # Photos are shown before they are sent, and can be taken out again.
    await anna.locator("#files").set_input_files(files)
    await expect(anna.locator(".thumb")).to_have_count(9)
    await anna.get_by_role("button", name="Remove photo 9").click()
    await expect(anna.locator(".thumb")).to_have_count(8)
    # Completion by keyboard alone: the command, then the class noun.
    await text.fill("")
    await text.press_sequentially("/tr")
    await expect(anna.locator("#options").get_by_role("option")).to_have_count(1)
    await text.press("Tab")
    await text.press_sequentially("mia7 wo")
    await expect(anna.locator("#options").get_by_role("option", name="woman")).to_be_visible()
    await pair.shot(anna, "tray")
    await text.press("Tab")
    await expect(text).to_have_value("/train mia7 woman ")
    # Without the box ticked there is a kind reply for her alone, and the line stays.
    await text.press("Enter")
    await expect(anna.get_by_text("please tick the box")).to_be_visible()
    await expect(anna.get_by_text("Only you can see this")).to_be_visible()
    await anna.get_by_role("button", name="Dismiss").click()
    await anna.locator("#consent").check()
    await text.press("Enter")
    for page in (anna, ben):
        await expect(page.get_by_text("8 photos: 7 good, #3 shows two faces.")).to_be_visible()
    # The photos themselves are hers alone.
    await expect(anna.locator(".verdict img")).to_have_count(8)
    await expect(ben.locator(".verdict img")).to_have_count(0)
    await pair.shot(anna, "verdicts")
    await ben.get_by_role("button", name="Train with the 7 good ones").click()
    await expect(ben.get_by_text("Only the person who started this")).to_be_visible()


async def test_both_see_a_training_and_its_samples(pair: Pair, files: list[Path]) -> None:
    pair.bot.engine.pause = 0.2
    pair.bot.engine.gate.clear()
    anna, ben, text = await pair.enter(trained=False)
    await anna.locator("#files").set_input_files(files[:8])
    await anna.locator("#consent").check()
    await text.fill("/train mia7 woman")
    await text.press("Enter")
    await anna.get_by_role("button", name="Train mia7", exact=True).click()
    await expect(ben.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "50")
    await expect(ben.get_by_text("step 2 of 4")).to_be_visible()
    await pair.shot(anna, "progress")
    pair.bot.engine.gate.set()
    for page in (anna, ben):
        await expect(page.get_by_text("mia7 is ready")).to_be_visible()
        await expect(page.locator(".picture img")).to_have_count(4)
    # The Imagine button begins the line.
    await anna.get_by_role("button", name="Imagine", exact=True).click()
    await expect(text).to_have_value("/imagine mia7 woman ")


async def test_pictures_are_drawn_enlarged_varied_and_deleted(pair: Pair) -> None:
    anna, ben, text = await pair.enter(trained=True)
    for page in (anna, ben):
        await expect(page.locator(".picture img")).to_have_count(4)  # the samples
    await text.press_sequentially("/imagine mia")
    await expect(anna.locator("#options").get_by_role("option", name="mia7")).to_be_visible()
    await text.press("Tab")
    await text.press_sequentially("woman in a red hoodie, smiling --count 4 --seed 20")
    await text.press("Enter")
    for page in (anna, ben):
        await expect(page.locator(".picture img")).to_have_count(8)
        await expect(page.get_by_text("Here you are")).to_be_visible()
    await pair.shot(anna, "pictures")
    await pair.shot(ben, "phone-dark")
    # Large, by keyboard.
    await anna.locator(".picture").nth(4).focus()
    await anna.keyboard.press("Enter")
    await expect(anna.get_by_role("dialog")).to_contain_text("seed 20")
    await anna.keyboard.press("ArrowRight")
    await expect(anna.get_by_role("dialog")).to_contain_text("seed 21")
    await pair.shot(anna, "lightbox")
    await anna.keyboard.press("Escape")
    await expect(anna.get_by_role("dialog")).to_be_hidden()
    # One of them varied; how to draw it again; and gone.
    await anna.get_by_role("button", name="V2", exact=True).click()
    for page in (anna, ben):
        await expect(page.locator(".picture img")).to_have_count(12)
    original = pair.bot.engine.seen[-1].payload.original
    assert original is not None and original.endswith("/1.png")
    await anna.get_by_role("button", name="Seed", exact=True).last.click()
    await expect(anna.get_by_text("--count 1 --seed 7").first).to_be_visible()
    await anna.get_by_role("button", name="Delete", exact=True).last.click()
    for page in (anna, ben):
        await expect(page.locator(".picture img")).to_have_count(8)


async def test_erased_pictures_are_gone_after_a_reload(pair: Pair) -> None:
    anna, ben, text = await pair.enter(trained=True)
    await text.fill("/imagine mia7 woman --count 4")
    await text.press("Enter")
    await expect(ben.locator(".picture img")).to_have_count(8)
    await text.fill("/delete mia7")
    await text.press("Enter")
    await anna.get_by_role("button", name="Erase mia7").click()
    await expect(anna.get_by_text("mia7 is erased")).to_be_visible()
    await pair.shot(anna, "erased")
    await ben.reload()
    await expect(ben.locator(".picture.gone")).to_have_count(8)
    await expect(ben.locator(".picture img")).to_have_count(0)


async def test_help_in_the_dark(pair: Pair) -> None:
    anna, _, text = await pair.enter(trained=False)
    await text.fill("/help")
    await text.press("Enter")
    await expect(anna.locator(".help code", has_text="/train mia7 woman")).to_be_visible()
    await anna.get_by_role("button", name="Switch between light and dark").click()
    await expect(anna.locator("html")).to_have_attribute("data-theme", "dark")
    await pair.shot(anna, "help-dark")


async def test_an_unanswered_request_is_sent_again_with_the_same_key(browser: Browser, chat: str, bot: Any) -> None:
    """The server received it, and the answer was lost on its way back."""
    await bot.avatar("mia7")
    page = await enter(browser, Watch(chat), "Anna", **ON_A_DESK)
    text, answers = page.get_by_label("Message", exact=True), page.get_by_text("Here you are")

    async def lose(route: Route) -> None:
        await route.fetch()
        await route.abort()

    await page.route("**/say", lose, times=1)
    await text.fill("/imagine mia7 woman --count 1")
    await text.press("Enter")
    await expect(page.get_by_text("The server does not answer")).to_be_visible()
    await expect(text).to_have_value("/imagine mia7 woman --count 1")
    await text.press("Enter")
    await expect(text).to_have_value("")
    await expect(answers).to_have_count(1)

    await page.route("**/press", lose, times=1)
    await page.get_by_role("button", name="Again").click()
    await expect(page.get_by_text("The server did not answer")).to_be_visible()
    await expect(answers).to_have_count(2)
    await page.get_by_role("button", name="Again").first.click()
    # A press after an answer is another request.
    await page.get_by_role("button", name="Again").first.click()
    await expect(answers).to_have_count(3)
    owner = await bot.records.users.get_or_create("chat", "anna", "Anna")
    drawings = [job for job in await bot.records.jobs.for_user(owner.id) if isinstance(job.payload, Imagine)]
    assert len(drawings) == 3


async def test_what_is_typed_while_a_line_is_on_its_way_stays(browser: Browser, chat: str, bot: Any) -> None:
    await bot.avatar("mia7")
    page = await enter(browser, Watch(chat), "Anna", **ON_A_DESK)
    text, answered = page.get_by_label("Message", exact=True), asyncio.Event()

    async def delay(route: Route) -> None:
        answer = await route.fetch()
        await answered.wait()
        await route.fulfill(response=answer)

    await page.route("**/say", delay, times=1)
    await text.fill("/imagine mia7 woman --count 1")
    await text.press("Enter")
    await expect(page.get_by_text("Here you are")).to_be_visible()
    await text.fill("/avatars")
    answered.set()
    await expect(page.get_by_role("button", name="Send")).to_be_enabled()
    await expect(text).to_have_value("/avatars")
    await text.press("Enter")
    await expect(page.get_by_text("Avatars you can use here")).to_be_visible()
    await expect(text).to_have_value("")


async def barriers(page: Page) -> list[str]:
    """What axe-core finds on the page as it is now, at the levels A and AA and by good practice."""
    found = await Axe().run(page, options={"resultTypes": ["violations"]})
    return [f"{one['id']}: {node['html'][:120]}" for one in found.response["violations"] for node in one["nodes"]]


@pytest.mark.parametrize(
    ("scheme", "width", "height"), [("light", 1280, 860), ("dark", 1280, 860), ("light", 390, 844), ("dark", 390, 844)]
)
async def test_the_page_is_accessible(
    browser: Browser, chat: str, bot: Any, tmp_path: Path, scheme: Any, width: int, height: int
) -> None:
    """No barrier that axe knows, whatever is on the page, in light and dark, on a desk and on a phone."""
    narrow = width < 700
    watch = Watch(chat)
    bot.engine.verdicts = {2: {"ok": True, "codes": ["soft"], "facts": {}}}
    page = await (
        await browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, bypass_csp=True,
                                  reduced_motion="reduce")
    ).new_page()  # fmt: skip
    page.set_default_timeout(15_000)
    watch.over(page)
    await page.goto(chat)
    await expect(page.get_by_label("Your name")).to_be_visible()
    found = {"welcome": await barriers(page)}
    await page.screenshot(path=tmp_path / f"{scheme}-{width}-0-welcome.png")
    await page.get_by_label("Your name").fill("Anna Berg")
    await page.keyboard.press("Enter")
    text = page.get_by_label("Message", exact=True)
    await expect(text).to_be_focused()
    found["empty"] = await barriers(page)
    await page.screenshot(path=tmp_path / f"{scheme}-{width}-1-empty.png")

    checked = await bot.answer(await bot.say("/train mia7 woman", 6, name="Anna Berg"))
    await bot.press(checked.buttons[0].action, name="Anna Berg")
    await expect(page.get_by_text("6 photos, all good.")).to_be_visible()
    await expect(page.get_by_text("mia7 is ready")).to_be_visible()
    await text.fill("/imagine mia7 woman in a red hoodie, smiling --seed 20")
    await text.press("Enter")
    await expect(page.get_by_text("Here you are")).to_be_visible()
    await text.fill("/avatars mia7 --nonsense")
    await text.press("Enter")
    await expect(page.get_by_text("has no option")).to_be_visible()
    await page.wait_for_timeout(300)
    found["pictures"] = await barriers(page)
    await page.screenshot(path=tmp_path / f"{scheme}-{width}-2-pictures.png")
    await text.fill("/help")
    await text.press("Enter")
    await expect(text).to_have_value("")
    await text.press_sequentially("/i")
    await expect(page.locator("#options").get_by_role("option")).to_have_count(1)
    found["help and completion"] = await barriers(page)
    await page.screenshot(path=tmp_path / f"{scheme}-{width}-3-help.png")
    await text.fill("")

    if narrow:
        await page.get_by_role("button", name="Rooms", exact=True).click()
        found["rooms"] = await barriers(page)
        await page.screenshot(path=tmp_path / f"{scheme}-{width}-4-rooms.png")
    await page.get_by_role("button", name="My pictures").click()
    await expect(page.locator("#gallery .picture img")).to_have_count(4)
    await expect(page.locator("#gallery")).to_contain_text("mia7 woman in a red hoodie, smiling")
    await expect(page.locator("#gallery")).to_contain_text("seed 20")
    await page.wait_for_timeout(300)
    found["gallery"] = await barriers(page)
    await page.screenshot(path=tmp_path / f"{scheme}-{width}-5-gallery.png")
    await page.locator("#gallery .picture").nth(1).focus()
    await page.keyboard.press("Enter")
    await expect(page.locator("#lightbox")).to_contain_text("seed 21")
    found["lightbox"] = await barriers(page)
    await page.screenshot(path=tmp_path / f"{scheme}-{width}-6-lightbox.png")
    await page.get_by_role("button", name="Use prompt and seed").click()
    await expect(text).to_have_value("/imagine mia7 woman in a red hoodie, smiling --seed 21")
    assert {state: barrier for state, barrier in found.items() if barrier} == {}
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert watch.complaints == []


async def test_the_page_works_with_the_keyboard_only(browser: Browser, chat: str, bot: Any) -> None:
    """From the log-in to a picture, the gallery and another room, without a pointer."""
    watch = Watch(chat)
    await bot.avatar("mia7")
    page = await (await browser.new_context(viewport={"width": 1280, "height": 860})).new_page()
    page.set_default_timeout(15_000)
    watch.over(page)
    await page.goto(chat)
    await expect(page.get_by_label("Your name")).to_be_focused()
    keys = page.keyboard

    async def go_to(name: str) -> None:
        """Press Tab until this has the focus."""
        for _ in range(60):
            said = await page.evaluate(
                "document.activeElement.getAttribute('aria-label') || document.activeElement.textContent.trim()"
            )
            if said == name:
                return
            await keys.press("Tab")
        raise AssertionError(f"Tab never comes to {name}")

    await keys.type("Anna")
    await keys.press("Enter")
    await expect(page.get_by_label("Message", exact=True)).to_be_focused()
    bot.engine.remarks = {"unknown": [{"phrase": "submarine", "similar": []}], "known": {}}
    await keys.type("/imagine mia7 woman in a submarine --count 2")
    await keys.press("Enter")
    await expect(page.get_by_text("Here you are")).to_be_visible()
    remark = page.get_by_text("I can't draw “submarine” yet; I drew the rest.")
    await expect(remark).to_be_visible()
    below, pictures = await remark.bounding_box(), await page.locator(".pictures").last.bounding_box()
    assert below and pictures and below["y"] >= pictures["y"] + pictures["height"]
    await go_to("Again")
    await keys.press("Enter")
    await expect(page.get_by_text("Here you are")).to_have_count(2)
    await go_to("My pictures")
    await keys.press("Space")
    await expect(page.locator("#gallery .picture img")).to_have_count(4)
    await keys.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await go_to("Make or join a room")
    await keys.type("garden")
    await keys.press("Enter")
    await expect(page.get_by_role("heading", name="garden")).to_be_visible()
    await expect(page.get_by_label("Message", exact=True)).to_be_focused()
    assert watch.complaints == []


async def test_options_and_their_values_complete_by_keyboard(browser: Browser, chat: str, bot: Any) -> None:
    watch = Watch(chat)
    await bot.avatar("mia7")
    bot.queue.offered = ["inks", "oils"]
    page = await enter(browser, watch, "Anna")
    text, options = page.get_by_label("Message", exact=True), page.get_by_role("listbox").get_by_role("option")

    async def offered() -> list[str]:
        return await options.locator("b").all_text_contents()

    async def typed(keys: str, first: str) -> None:
        await text.press_sequentially(keys)
        await expect(options.first).to_contain_text(first)
        await expect(options.first).to_have_attribute("aria-selected", "true")
        await expect(text).to_have_attribute("aria-activedescendant", "option-0")

    await typed("/imagine mia7 woman --", "--avatar")
    names = ["--avatar", "--count", "--seed", "--steps", "--guidance", "--negative", "--size", "--style"]
    assert await offered() == names
    await typed("co", "--count")
    await text.press("Tab")
    await expect(options).to_have_text(["1", "2", "3", "4"])
    await text.press("ArrowDown")
    await expect(text).to_have_attribute("aria-activedescendant", "option-1")
    await text.press("Enter")
    await typed("--sty", "--style")
    await text.press("Enter")
    await typed("o", "oils")
    await text.press("Tab")
    await typed("--av", "--avatar")
    await text.press("Tab")
    await typed("m", "mia7")
    await text.press("Tab")
    await expect(text).to_have_value("/imagine mia7 woman --count 2 --style oils --avatar mia7 ")
    # What is given is not offered again.
    await typed("--", "--seed")
    assert set(names) - set(await offered()) == {"--count", "--style", "--avatar"}
    await text.press("Escape")
    await text.fill("")
    await typed("/avatars mia7 --d", "--default")
    await text.press("Tab")
    await text.press("Enter")
    await expect(text).to_have_value("")
    owner = await bot.records.users.get_or_create("chat", "anna", "Anna")
    assert (await bot.records.avatars.owned_by(owner.id))[0].preferred

    # What operators do is offered to them alone.
    await typed("/", "/train")
    assert "/operator" not in await offered()
    olga = await enter(browser, watch, "Olga")
    await olga.get_by_label("Message", exact=True).press_sequentially("/op")
    await expect(olga.get_by_role("listbox").get_by_role("option")).to_have_text([re.compile("/operator")])
    assert watch.complaints == []


async def test_the_page_speaks_german(browser: Browser, chat: str, bot: Any, tmp_path: Path) -> None:
    watch = Watch(chat)
    await bot.avatar("mia7")
    page = await (await browser.new_context(locale="de-DE", viewport={"width": 1280, "height": 860})).new_page()
    page.set_default_timeout(15_000)
    watch.over(page)
    await page.goto(f"{chat}/r/garten")
    await page.get_by_label("Dein Name").fill("Anna")
    await page.get_by_role("button", name="Eintreten").click()
    await expect(page.get_by_text("Wen soll ich zeichnen?")).to_be_visible()
    text = page.get_by_label("Nachricht", exact=True)
    await text.press_sequentially("/imag")
    await expect(page.locator("#options").get_by_role("option")).to_contain_text("Den Avatar von jemandem zeichnen")
    await text.fill("/imagine mia7 woman in a suit --count 2")
    await text.press("Enter")
    await expect(page.get_by_text("Bitte schön (Seeds 7 und 8).")).to_be_visible()
    await page.screenshot(path=tmp_path / "german.png")
    for element in await page.locator("[aria-label], [placeholder], button, h1, h2, label").all():
        said = " ".join(
            [await element.get_attribute("aria-label") or "", await element.get_attribute("placeholder") or "",
             await element.text_content() or ""]
        )  # fmt: skip
        assert not re.search(r"\b(the|your|room|photos?|pictures?|close|send|message|next|use)\b", said.lower()), said
    # Whoever wants another language than their browser's chooses it, and keeps it.
    await page.locator("#language").select_option("English")
    await expect(page.get_by_label("Message", exact=True)).to_be_visible()
    await page.reload()
    await expect(page.get_by_role("button", name="My pictures")).to_be_visible()
    assert watch.complaints == []
