"""The page in a real Chromium: two people in one room."""

import os
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: set CHROMIUM to its path"),
]
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


async def test_two_people_in_one_room(
    browser: Browser, chat: str, bot: Any, draw: Callable[..., bytes], tmp_path: Path
) -> None:
    bot.engine.pause = 0.2
    bot.engine.verdicts = {3: {"ok": False, "codes": ["several_faces"], "facts": {"faces": 2}},
                           5: {"ok": True, "codes": ["soft"], "facts": {}}}  # fmt: skip
    bot.engine.gate.clear()
    watch = Watch(chat)
    anna = await enter(browser, watch, "Anna Berg", viewport={"width": 1280, "height": 860})
    ben = await enter(
        browser, watch, "Ben", "/r/studio", viewport={"width": 390, "height": 844}, color_scheme="dark", has_touch=True
    )
    await anna.screenshot(path=tmp_path / "1-empty.png")

    # What one says, the other reads.
    text = anna.get_by_label("Message", exact=True)
    await text.fill("Hello Ben!")
    await text.press("Enter")
    await expect(ben.get_by_text("Hello Ben!")).to_be_visible()

    # Photos are shown before they are sent, and can be taken out again.
    files = []
    for number in range(1, 10):
        files.append(tmp_path / f"photo {number}.png")
        files[-1].write_bytes(draw(number, 300))
    await anna.locator("#files").set_input_files(files)
    await expect(anna.locator(".thumb")).to_have_count(9)
    await anna.get_by_role("button", name="Remove photo 9").click()
    await expect(anna.locator(".thumb")).to_have_count(8)

    # Completion by keyboard alone: the command, then the class noun.
    await text.fill("")
    await text.press_sequentially("/tr")
    await expect(anna.get_by_role("option")).to_have_count(1)
    await text.press("Tab")
    await text.press_sequentially("mia7 wo")
    await expect(anna.get_by_role("option", name="woman")).to_be_visible()
    await anna.screenshot(path=tmp_path / "2-tray.png")
    await text.press("Tab")
    await expect(text).to_have_value("/train mia7 woman ")

    # Without the box ticked there is a kind reply for her alone, and the line stays.
    await text.press("Enter")
    await expect(anna.get_by_text("please tick the box")).to_be_visible()
    await expect(anna.get_by_text("Only you can see this")).to_be_visible()
    await anna.get_by_role("button", name="Dismiss").click()
    await anna.locator("#consent").check()
    await text.press("Enter")
    await expect(anna.get_by_text("8 photos: 7 good, #3 shows two faces.")).to_be_visible()
    await expect(ben.get_by_text("8 photos: 7 good, #3 shows two faces.")).to_be_visible()
    await expect(anna.locator(".verdict img")).to_have_count(8)
    await expect(ben.locator(".verdict img")).to_have_count(0)
    await anna.screenshot(path=tmp_path / "3-verdicts.png")

    # Only Anna can press, and both see the progress and the samples.
    await ben.get_by_role("button", name="Train with the 7 good ones").click()
    await expect(ben.get_by_text("Only the person who started this")).to_be_visible()
    await anna.get_by_role("button", name="Train with the 7 good ones").click()
    await expect(ben.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "50")
    await expect(ben.get_by_text("step 2 of 4")).to_be_visible()
    await anna.screenshot(path=tmp_path / "4-progress.png")
    bot.engine.gate.set()
    for page in (anna, ben):
        await expect(page.get_by_text("mia7 is ready")).to_be_visible()
        await expect(page.locator(".picture img")).to_have_count(4)

    # The Imagine button begins the line; a token completes in it.
    await anna.get_by_role("button", name="Imagine", exact=True).click()
    await expect(text).to_have_value("/imagine mia7 woman ")
    await text.fill("/imagine mi")
    await text.press("End")
    await text.press_sequentially("a")
    await text.press("Tab")
    await text.press_sequentially("woman in a red hoodie, smiling --count 4 --seed 20")
    await text.press("Enter")
    for page in (anna, ben):
        await expect(page.locator(".picture img")).to_have_count(8)
        await expect(page.get_by_text("Here you are")).to_be_visible()
    await anna.wait_for_timeout(300)
    await anna.screenshot(path=tmp_path / "5-pictures.png")
    await ben.screenshot(path=tmp_path / "6-phone-dark.png")

    # Large, by keyboard.
    await anna.locator(".picture").nth(4).focus()
    await anna.keyboard.press("Enter")
    await expect(anna.get_by_role("dialog")).to_contain_text("seed 20")
    await anna.keyboard.press("ArrowRight")
    await expect(anna.get_by_role("dialog")).to_contain_text("seed 21")
    await anna.screenshot(path=tmp_path / "7-lightbox.png")
    await anna.keyboard.press("Escape")
    await expect(anna.get_by_role("dialog")).to_be_hidden()

    # After a reload all is there, and what was erased is not.
    await text.fill("/delete mia7")
    await text.press("Enter")
    await anna.get_by_role("button", name="Erase mia7").click()
    await expect(anna.get_by_text("mia7 is erased")).to_be_visible()
    await anna.screenshot(path=tmp_path / "8-erased.png")
    await text.fill("/help")
    await text.press("Enter")
    await expect(anna.get_by_text("I learn a person")).to_be_visible()
    await anna.get_by_role("button", name="Switch between light and dark").click()
    await anna.wait_for_timeout(200)
    await anna.screenshot(path=tmp_path / "9-help-dark.png")
    await ben.reload()
    await ben.get_by_role("button", name="Rooms", exact=True).click()
    await expect(ben.get_by_role("link", name="studio")).to_be_visible()
    await ben.wait_for_timeout(300)
    await ben.screenshot(path=tmp_path / "10-phone-rooms.png")
    await ben.keyboard.press("Escape")
    await expect(ben.get_by_text("Hello Ben!")).to_be_visible()
    await expect(ben.locator(".picture.gone")).to_have_count(8)
    await expect(ben.locator(".picture img")).to_have_count(0)
    await anna.get_by_role("button", name="Log out").click()
    await expect(anna.get_by_label("Your name")).to_be_visible()
    await anna.screenshot(path=tmp_path / "11-welcome-dark.png")
    assert watch.complaints == []
