"""Screenshots of the Space for the documentation: serves a run, uses the page, and writes PNG files.

    .venv/bin/python scripts/screenshots.py runs/sample docs/images

Needs a Chromium and playwright (the extra `dev`).
"""

import argparse
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

CHROMIUM = "/usr/bin/chromium"


def main() -> None:
    """Take the screenshots of a run, or of a page that is already served."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a run with a trained model")
    parser.add_argument("out", type=Path, help="output folder")
    parser.add_argument("--url", help="address of a demo that is already served")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.url:
        take(options.url, options.out)
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "regen_hf.cli", "demo", str(options.run), "--port", str(port)]
    served = subprocess.Popen(command, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    try:
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if served.poll() is not None:
                raise SystemExit("The demo did not start. See the messages above.")
            time.sleep(0.2)
        take(url, options.out)
    finally:
        served.terminate()
        served.wait(20)


def take(url: str, out: Path) -> None:
    """Take a screenshot of every tab, and of the first tab in dark mode on a phone."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1240, "height": 900})
        page.set_default_timeout(60_000)
        page.goto(f"{url}/?__theme=light")
        ask(page)
        page.screenshot(path=out / "demo_shop.png")
        tab(page, "Compare")
        page.get_by_role("button", name="Compare", exact=True).click()
        page.locator("#comparison .columns").wait_for()
        page.wait_for_timeout(1000)
        page.screenshot(path=out / "demo_compare.png")
        tab(page, "Recommend")
        page.get_by_role("button", name="Recommend items").click()
        page.locator("#offers button.act").first.click()
        page.locator("#offers .answer[aria-busy=false]").first.wait_for()
        page.screenshot(path=out / "demo_recommend.png")
        tab(page, "Explore the dataset")
        page.locator("#rows summary").first.click()
        page.wait_for_timeout(500)
        page.screenshot(path=out / "demo_explore.png")
        tab(page, "About")
        page.wait_for_timeout(1000)
        page.screenshot(path=out / "demo_about.png")
        page.set_viewport_size({"width": 390, "height": 844})
        page.goto(f"{url}/?__theme=dark")
        ask(page)
        page.locator("#answer").scroll_into_view_if_needed()
        page.screenshot(path=out / "demo_phone.png", full_page=True)
        browser.close()
    for path in out.glob("demo_*.png"):  # a palette stores flat colours in a third of the bytes
        Image.open(path).convert("RGB").quantize(256).save(path, optimize=True)


def tab(page: Page, name: str) -> None:
    """Open a tab."""
    page.get_by_role("tab", name=name).click()


def ask(page: Page) -> None:
    """Ask the default question about the first shopper."""
    page.locator("ol.history li").first.wait_for()
    page.get_by_role("button", name="Ask", exact=True).click()
    page.locator(".measure").first.wait_for()
    page.wait_for_timeout(500)


if __name__ == "__main__":
    main()
