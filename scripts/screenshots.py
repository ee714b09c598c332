"""Screenshots of the Space for the documentation: serves a run, uses the page, and writes PNG files.

    .venv/bin/python scripts/screenshots.py runs/sample docs/images

Every tab is taken on a desktop in light and dark mode and on a phone in both: `demo_ask.png`, `demo_ask_dark.png`,
`demo_ask_phone.png`, `demo_ask_phone_dark.png`, and so on. Needs a Chromium and playwright (the extra `dev`).
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
TABS = {  # what is pressed in a tab, and what is then waited for
    "ask": (None, "#reasons .why"),
    "compare": ("Compare", "#comparison .columns"),
    "recommend": ("Recommend items", "#offers .answer[aria-busy=false]"),
    "shoppers": (None, "#rows summary"),
    "about": (None, "#code pre"),
}
WIDTHS = {"": (1240, 900), "_phone": (390, 844)}
THEMES = {"": "light", "_dark": "dark"}


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
    """Take a screenshot of every tab, in both widths and themes."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for width, (pixels, height) in WIDTHS.items():
            page = browser.new_page(viewport={"width": pixels, "height": height})
            page.set_default_timeout(120_000)
            page.goto(f"{url}/?__theme=light")
            page.locator("ol.history li").first.wait_for()
            for tab in TABS:
                use(page, tab)
                for theme, name in THEMES.items():
                    page.evaluate("dark => document.body.classList.toggle('dark', dark)", name == "dark")
                    page.wait_for_timeout(300)
                    path = out / f"demo_{tab}{width}{theme}.png"
                    page.screenshot(path=path)
                    # A palette stores flat colours in a third of the bytes.
                    Image.open(path).convert("RGB").quantize(256).save(path, optimize=True)
            page.close()
        browser.close()


def use(page: Page, tab: str) -> None:
    """Open a tab and do there what a visitor does."""
    button, result = TABS[tab]
    page.get_by_role("tab", name=tab.capitalize()).click()
    if button:
        page.get_by_role("button", name=button, exact=True).click()
    page.locator(result).first.wait_for()
    if tab == "shoppers":
        page.locator(result).first.click()
    page.wait_for_timeout(700)


if __name__ == "__main__":
    main()
