"""Photograph the running stack for the README: grids, the page of nights, the mailbox and one mail.

Needs a stack that has run (`make run DAYS=3`), what `make install-dev` installs, and a Chromium on this machine.
Run:  .venv/bin/python docs/take_screenshots.py [--api-port 8080] [--rehearsal-port 8085]
"""

import argparse
import json
import re
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM_OPTIONS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
WAIT_MILLISECONDS = 60_000
GRID_RIGHT = 360  # pixels from the left
SETTLE_MILLISECONDS = 3_000  # charts and lists come in after the page says that it is loaded


def arg_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--api-port", type=int, default=8080, help="port of Airflow's UI")
    parser.add_argument("--rehearsal-port", type=int, default=8085, help="port of the mailbox")
    parser.add_argument("--images", type=Path, default=ROOT / "docs" / "images", help="folder for the pictures")
    parser.add_argument("--chromium", default="/usr/bin/chromium", help="the browser's executable")
    return parser


def main(*, api_port: int, rehearsal_port: int, images: Path, chromium: str) -> None:
    """Take all pictures."""
    images.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, headless=True, args=CHROMIUM_OPTIONS)
        _airflow(browser, f"http://127.0.0.1:{api_port}", images)
        _mailbox(browser, f"http://127.0.0.1:{rehearsal_port}", images)
        browser.close()


def _airflow(browser: Browser, url: str, images: Path) -> None:
    page = browser.new_page(viewport={"width": 1200, "height": 600}, color_scheme="light")
    page.set_default_timeout(WAIT_MILLISECONDS)
    passwords = json.loads((ROOT / ".airflow" / "secrets" / "passwords.json").read_text(encoding="utf-8"))
    page.goto(f"{url}/auth/login")
    page.fill("input[name=username]", "admin")
    page.fill("input[name=password]", passwords["admin"])
    page.click("button[type=submit]")
    page.get_by_text("Health").first.wait_for()
    for dag_id in ("build_recommendations", "send_resources_you_may_like"):
        page.goto(f"{url}/dags/{dag_id}")
        page.get_by_role("link", name=re.compile(r"^20\d\d-")).first.click()  # the latest run
        page.get_by_text("Task Instances").first.wait_for()
        page.get_by_label("Expand all task groups").click()
        _widen_grid(page)
        _save(page, images / f"{dag_id}.png")
    page.goto(f"{url}/plugin/ryml-nights")
    page.frame_locator("iframe").get_by_role("heading", name="Nights").wait_for()
    _save(page, images / "nights.png", height=300)
    page.frame_locator("iframe").locator("a[href^=resources_you_may_like]").first.click()
    page.frame_locator("iframe").get_by_role("link", name="Lists and waterfall").click()
    page.frame_locator("iframe").get_by_role("heading", name="From candidates to lists").wait_for()
    _save(page, images / "lists.png")
    page.frame_locator("iframe").get_by_role("link", name="The night").click()
    page.frame_locator("iframe").get_by_role("link", name="Checks").first.click()
    page.frame_locator("iframe").get_by_role("heading", name="Checks of").wait_for()
    _save(page, images / "checks.png")
    page.close()


def _widen_grid(page: Page) -> None:
    """Move the divider to where the columns of the last four runs are seen."""
    divider = page.locator("[data-panel-resize-handle-id]").first.bounding_box()
    if divider is None:
        raise SystemExit("the grid has no divider; this Airflow's page is another one than that of 3.3")
    page.mouse.move(divider["x"] + 1, 560)
    page.mouse.down()
    page.mouse.move(GRID_RIGHT, 560, steps=5)
    page.mouse.up()
    page.mouse.move(700, 30)


def _mailbox(browser: Browser, url: str, images: Path) -> None:
    page = browser.new_page(viewport={"width": 1000, "height": 640}, color_scheme="light")
    page.goto(f"{url}/mailbox")
    _save(page, images / "mailbox.png")
    page.locator("ol.mails a").first.click()
    page.frame_locator("iframe").get_by_text("View item").first.wait_for()
    page.set_viewport_size({"width": 1000, "height": 900})
    _save(page, images / "mail.png")
    page.close()


def _save(page: Page, path: Path, height: int | None = None) -> None:
    page.wait_for_timeout(SETTLE_MILLISECONDS)
    size = page.viewport_size
    clip = {"x": 0, "y": 0, "width": size["width"], "height": height} if height and size else None
    page.screenshot(path=path, clip=clip)


if __name__ == "__main__":
    main(**vars(arg_parser().parse_args()))
