"""Make the README's pictures of a chat: `python -m tests.screenshots` writes .readme/discord.png and telegram.png.

Plays Anna on the page of `make simulate`, with the real bots and the real engine: she sends the demo album, trains and
draws. Needs a Chromium. Takes as long as one training on each platform.
"""

import argparse
import asyncio
import os
import shutil
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

from playwright.async_api import Page, async_playwright

ROOT = Path(__file__).parent.parent
ALBUM = sorted((ROOT / "bot" / "demo_album").glob("*.png"))
PATIENCE = 1_800_000
"""Milliseconds for a training on a busy machine."""


async def play(page: Page, platform: str, place: str) -> None:
    """Train and draw on one platform, up to the first pictures."""
    section = page.locator(f"#{platform}")
    await page.select_option("#place", "private")
    await section.locator("input[type=file]").set_input_files(ALBUM)
    await section.locator("input[name=text]").fill("/train mia7 woman")
    await section.get_by_role("button", name="Send").click()
    if platform == "telegram":
        await section.get_by_role("button", name="They agreed").click(timeout=PATIENCE)
    await section.get_by_role("button", name="Train mia7").click(timeout=PATIENCE)
    await section.get_by_role("button", name="Share").first.wait_for(timeout=PATIENCE)
    await page.select_option("#place", place)
    await section.locator("input[name=text]").fill("/imagine mia7 woman in a suit, smiling")
    await section.get_by_role("button", name="Send").click()
    await section.get_by_role("button", name="V1").first.wait_for(timeout=PATIENCE)
    await page.wait_for_timeout(2000)  # the pictures load


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.screenshots", description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / ".readme", help="folder for the pictures")
    out: Path = parser.parse_args().out
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.platforms.simulate", "--port", "0", cwd=ROOT, env={**os.environ}, stdout=PIPE
    )
    assert process.stdout
    try:
        address = (await process.stdout.readline()).decode().partition(" at ")[2].partition(";")[0]
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = await browser.new_page(viewport={"width": 1040, "height": 900}, color_scheme="light")
            await page.goto(address)
            for platform in ("telegram", "discord"):
                await play(page, platform, "private")
                await page.locator(f"#{platform}").screenshot(path=out / f"{platform}.png")
                print(out / f"{platform}.png", flush=True)
            await browser.close()
    finally:
        process.terminate()
        await process.wait()


if __name__ == "__main__":
    asyncio.run(main())
