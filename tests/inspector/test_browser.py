"""The inspector of an app with 100,000 objects in a real browser: all pages, and all that they do.

Each page is visited on a wide and a narrow screen, in the light and in the dark. It has no fault
that axe-core finds, scrolls in one direction alone, and keeps to its content policy.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import httpx
import pytest
from web.servers import Server

from trio_durable import DurableRuntime, ObjectKey
from trio_durable.inspector import inspector
from trio_durable.inspector._app import ASSETS, InspectorApp
from trio_durable.storage import Commit, SQLiteStorage

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

MILLISECONDS = 60_000
ORDER, BASKET = "browsed.Order", "browsed.Basket"
FULL = f"type={ORDER}&id=full"
LONG = "long-" * 40
OBJECTS = 100_000
WIDE, NARROW = (1280, 800), (320, 640)

VISITS: dict[str, list[str]] = {
    "": ["", "?tenant=acme"],
    "type": [
        f"?type={ORDER}",
        f"?type={BASKET}&prefix=004",
        f"?type={ORDER}&prefix=long",
        f"?type={ORDER}&after=00500",
        "?type=browsed.Missing",
    ],
    "object": [
        f"?{FULL}",
        f"?{FULL}&tenant=acme",
        f"?type={ORDER}&id=large",
        f"?type={ORDER}&id={LONG}",
        f"?type={ORDER}&id=dead-0",
        "?type=browsed.Warehouse&id=north",
        f"?type={ORDER}&id=missing",
    ],
    "waiting": [""],
    "turns": [""],
    "dead": ["", "?kind=messages", "?tenant=acme", f"?type={BASKET}"],
    "nodes": [""],
    "audit": [""],
    "find": ["", "?text=missing", "?text=00001"],
    "tenants": [""],
    "edit": [f"?{FULL}", f"?type={ORDER}&id=large", f"?type={ORDER}&id={LONG}"],
}
"""The queries with which each page is visited."""
DOWNLOADS = {"download"}
FORMS = {"edit", "retry", "drop"}
"""Pages that take changes; tests below send each of them."""

WATCH_POLICY = """
window.violations = []
document.addEventListener("securitypolicyviolation", event => {
  violations.push(`${event.effectiveDirective}: ${event.blockedURI} ${event.sample}`)
})
"""


# --- the app -------------------------------------------------------------------------------------


def store_objects(path: Path) -> None:
    """Store many objects of two types, of which some ids are equal, and a large one."""
    now = time.time_ns() // 1000
    rows = [
        *(
            (
                ObjectKey(ORDER, f"{number:05}"),
                {"customer": "Grace", "total": number, "lines": [], "note": None},
            )
            for number in range(OBJECTS // 2)
        ),
        *(
            (ObjectKey(BASKET, f"{number:05}"), {"items": {"tea": number, "cake": 1}})
            for number in range(1, OBJECTS // 2 + 1)
        ),
        (ObjectKey(ORDER, "large"), {"note": "x" * 300_000}),
        (ObjectKey(ORDER, LONG), {"note": "x" * 3000, "lines": ["y" * 90] * 50}),
    ]
    with closing(SQLiteStorage(path, durability="normal").open_writer()) as writer:
        for start in range(0, len(rows), 5000):
            batch = [
                Commit(key, 0, json.dumps(state).encode())
                for key, state in rows[start : start + 5000]
            ]
            assert not writer.commit(batch, now)


@attrs.frozen
class Shop:
    server: Server

    @property
    def url(self) -> str:
        return f"{self.server.url}/inspector/"

    def add(self, order: str) -> int:
        """Change an order, as another client."""
        found = httpx.post(f"{self.server.url}/add/{order}", timeout=60).raise_for_status()
        total: int = found.json()
        return total


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    store_objects(folder / "shop.db")
    shutil.copy(Path(__file__).with_name("shop.py"), folder / "live.py")
    with Server(folder, "uvicorn") as server:
        yield Shop(server)


# --- the browser ---------------------------------------------------------------------------------


@attrs.frozen
class Visitor:
    """A page of the browser, and its complaints."""

    page: Page
    shop: Shop
    complaints: list[str] = attrs.field(factory=list)

    def open(self, address: str) -> None:
        """Open a page of the inspector, and wait until it is live, if it has a stream."""
        self.page.goto(self.shop.url + address)
        self.settle()

    def settle(self) -> None:
        if self.page.locator("body[data-live]").count():
            self.page.locator("[data-live-status]", has_text="● live").wait_for()

    def tab_to(self, condition: str) -> None:
        """Press the tab key until a condition of the focused element holds."""
        for _ in range(100):
            self.page.keyboard.press("Tab")
            if self.page.evaluate(f"(element => {condition})(document.activeElement)"):
                return
        raise AssertionError(f"the tab key doesn't lead there: {condition}")

    def assert_calm(self) -> None:
        """Nothing was blocked by the policy, and no script or request has failed."""
        assert self.page.evaluate("violations") == []
        assert self.complaints == []


@contextmanager
def visiting(
    chromium: Browser, shop: Shop, screen: tuple[int, int] = WIDE, scheme: str = "light"
) -> Iterator[Visitor]:
    width, height = screen
    options: Any = {"viewport": {"width": width, "height": height}, "color_scheme": scheme}
    context = chromium.new_context(**options)
    try:
        page = context.new_page()
        page.set_default_timeout(MILLISECONDS)
        page.add_init_script(WATCH_POLICY)
        visitor = Visitor(page, shop)
        page.on("console", lambda line: _note(line, visitor.complaints))
        page.on("pageerror", lambda error: visitor.complaints.append(str(error)))
        yield visitor
    finally:
        context.close()


def _note(line: Any, complaints: list[str]) -> None:
    # A page with a status of 4xx is such a line, too, and some are visited on purpose.
    is_status = "Failed to load resource" in line.text and "inspector." not in line.location["url"]
    if line.type in ("error", "warning") and not is_status:
        complaints.append(line.text)


@pytest.fixture
def visitor(chromium: Browser, shop: Shop) -> Iterator[Visitor]:
    with visiting(chromium, shop) as visitor:
        yield visitor
        visitor.assert_calm()


@pytest.fixture(scope="module")
def find_faults() -> Callable[[Page], str]:
    """A function that returns the faults of a page that axe-core finds."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="there is no axe")

    def find(page: Page) -> str:
        results = axe.Axe().run(page)
        return str(results.generate_report()) if results.violations_count else ""

    return find


# --- the pages -----------------------------------------------------------------------------------


def test_every_page_and_every_form_has_its_test(tmp_path: Path) -> None:
    app = inspector(DurableRuntime(tmp_path / "app.db"), authorize=lambda _: None)
    assert isinstance(app, InspectorApp)
    names = {
        method: {path for path, of in app.routes if of == method and not path.endswith(".live")}
        for method in ("GET", "POST")
    }
    assert names["GET"] == {*VISITS, *DOWNLOADS, *ASSETS}
    assert names["POST"] == FORMS


@pytest.mark.parametrize("screen", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_sound(
    chromium: Browser,
    shop: Shop,
    find_faults: Callable[[Page], str],
    screen: tuple[int, int],
    scheme: str,
) -> None:
    faults: list[str] = []
    with visiting(chromium, shop, screen, scheme) as visitor:
        for page, queries in VISITS.items():
            for address in (page + query for query in queries):
                visitor.open(address)
                visitor.assert_calm()  # before axe, which adds a script
                if visitor.page.evaluate(
                    "document.documentElement.scrollWidth > document.documentElement.clientWidth"
                ):
                    faults.append(f"{address} scrolls sideways")
                if found := find_faults(visitor.page):
                    faults.append(f"{address}: {found}")
                visitor.complaints.clear()
    assert not faults, "\n".join(faults)


def test_links_lead_from_page_to_page(visitor: Visitor) -> None:
    page = visitor.page
    visitor.open("")
    for link in page.get_by_role("navigation").get_by_role("link").all_inner_texts():
        page.get_by_role("navigation").get_by_role("link", name=link).click()
        page.get_by_role("heading", name=link, level=1).wait_for()
        visitor.settle()
        visitor.assert_calm()
    page.get_by_role("link", name="trio-durable").click()
    page.get_by_role("link", name=ORDER).click()
    assert page.get_by_role("row").count() > 100
    page.get_by_role("link", name="Next 100").click()
    page.get_by_role("link", name="00100", exact=True).wait_for()
    page.get_by_label("Ids that begin with").fill("0123")
    page.get_by_role("button", name="Show").click()
    page.get_by_role("link", name="01239", exact=True).click()
    page.locator("#live_state", has_text='"total": 1239').wait_for()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download JSON").click()
    assert json.loads(download.value.path().read_bytes())["total"] == 1239


def test_a_pasted_id_leads_to_its_object(visitor: Visitor) -> None:
    page = visitor.page
    visitor.open("turns")
    page.get_by_label("Find an object").fill(f"{ORDER}('full')")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="full", level=1).wait_for()
    page.get_by_label("Find an object").fill("00001")
    page.get_by_role("button", name="Find").click()
    assert page.locator("main").get_by_role("link").all_inner_texts() == [
        f"{BASKET} 00001",
        f"{ORDER} 00001",
    ]


# --- live ----------------------------------------------------------------------------------------


def test_the_change_of_another_client_is_shown_and_the_focus_stays(visitor: Visitor) -> None:
    page = visitor.page
    visitor.open(f"object?type={ORDER}&id=00002")
    assert visitor.shop.add("00002") == 4
    page.get_by_text("Revision 1 → 2: 2 changes").wait_for()
    visitor.tab_to("element.closest('#live_changes') && element.matches('summary')")
    page.keyboard.press("Enter")
    assert page.locator("#live_changes details[open]").count() == 0
    visitor.tab_to("element.matches('#live_state pre')")
    page.evaluate("document.activeElement.isOld = true")
    assert visitor.shop.add("00002") == 6
    page.locator("#live_state pre", has_text='"total": 6').wait_for()
    assert page.evaluate("document.activeElement.matches('#live_state pre')")
    # It is another element, in the place of the one that had the focus.
    assert page.evaluate("document.activeElement.isOld") is None
    page.get_by_text("Revision 2 → 3").wait_for()
    closed = page.locator("#live_changes details", has_text="Revision 1 → 2")
    assert closed.get_attribute("open") is None


def test_a_hidden_page_pauses_until_it_is_seen(visitor: Visitor) -> None:
    page = visitor.page
    visitor.open(f"object?type={ORDER}&id=00003")
    hide = """hidden => {
        Object.defineProperty(document, "hidden", { value: hidden, configurable: true })
        document.dispatchEvent(new Event("visibilitychange"))
    }"""
    page.evaluate(hide, True)
    page.locator("[data-live-status]", has_text="○ paused").wait_for()
    visitor.shop.add("00003")
    page.evaluate(hide, False)
    page.locator("#live_state", has_text='"total": 5').wait_for()
    visitor.settle()


# --- changes -------------------------------------------------------------------------------------


def edited(page: Page, **members: object) -> None:
    """Change members in the form, and save it."""
    field = page.get_by_label("The state as JSON")
    field.fill(json.dumps({**json.loads(field.input_value()), **members}))
    page.get_by_role("button", name="Save").click()


def test_an_edit_is_saved_and_a_conflict_shows_both(
    visitor: Visitor, find_faults: Callable[[Page], str]
) -> None:
    page = visitor.page
    visitor.open(f"object?type={ORDER}&id=00004")
    page.get_by_role("link", name="Edit…").click()
    edited(page, note="by hand")
    page.get_by_text("Saved as revision 2").wait_for()
    page.get_by_role("link", name="Edit…").click()
    visitor.shop.add("00004")
    edited(page, note="once more", total=9)
    page.get_by_text("nothing was saved").wait_for()
    rows = page.locator("table.diff tbody tr").all_inner_texts()
    assert [row.split("\t") for row in rows] == [
        ["total ✕ both", "4", "6", "9"],
        ["lines", "[]", '["tea"]', "[]"],
        ["note", '"by hand"', '"by hand"', '"once more"'],
    ]
    visitor.assert_calm()
    assert find_faults(page) == ""
    page.get_by_role("button", name="Save").click()
    page.get_by_text("Saved as revision 4").wait_for()
    shown = json.loads(page.locator("#live_state pre").inner_text())
    assert (shown["total"], shown["lines"], shown["note"]) == (9, ["tea"], "once more")
    visitor.open("audit")
    outcomes = page.locator("#live_audit tbody tr td:last-child").all_inner_texts()
    assert outcomes == ["✓ done", "▲ conflict", "✓ done"]


def test_what_is_no_state_is_refused(visitor: Visitor, find_faults: Callable[[Page], str]) -> None:
    page = visitor.page
    visitor.open(f"edit?type={ORDER}&id=00005")
    page.get_by_label("The state as JSON").fill('{"total": "much"}')
    page.get_by_role("button", name="Save").click()
    page.get_by_role("alert").wait_for()
    assert page.get_by_label("The state as JSON").input_value() == '{"total": "much"}'
    visitor.assert_calm()
    assert find_faults(page) == ""


def test_dead_letters_are_retried_and_removed(
    visitor: Visitor, find_faults: Callable[[Page], str]
) -> None:
    page = visitor.page
    visitor.open("dead?tenant=globex")
    page.get_by_role("button", name="Retry", exact=True).click()
    page.get_by_text("1 of 1 will be tried again.").wait_for()
    visitor.assert_calm()
    visitor.open("dead?tenant=globex&kind=messages")
    page.get_by_role("button", name="Select this page").click()
    assert page.get_by_role("checkbox").all_inner_texts()
    page.get_by_text("Remove selected…").click()
    page.get_by_role("button", name="Remove for good").click()
    page.get_by_text("1 of 1 removed.").wait_for()
    visitor.open("dead?kind=messages")
    page.get_by_role("button", name="Retry all").click()
    page.get_by_text("Done.", exact=True).wait_for()
    visitor.assert_calm()
    assert find_faults(page) == ""
    page.get_by_role("link", name="Back to the list").click()
    page.get_by_text("3 will be tried again.").wait_for()


def test_pages_work_without_scripts(chromium: Browser, shop: Shop) -> None:
    context = chromium.new_context(java_script_enabled=False)
    try:
        page = context.new_page()
        page.set_default_timeout(MILLISECONDS)
        page.goto(f"{shop.url}edit?type={ORDER}&id=00006")
        edited(page, note="no script")
        page.get_by_text("Saved as revision 2").wait_for()
    finally:
        context.close()
    with closing(sqlite3.connect(shop.server.folder / "shop.db")) as database:
        query = "SELECT json_extract(state, '$.note') FROM durable_objects WHERE object_id = ?"
        notes = {note for (note,) in database.execute(query, ("00006",))}
    assert "no script" in notes
