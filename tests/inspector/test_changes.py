"""Changes by the inspector: edits and their conflicts, retries, removals, and their audit."""

from __future__ import annotations

import html
import json
import logging
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from trio_durable.inspector import Access, Content
from trio_durable.telemetry import Audited, Instrument, Point

from .served import ALL, Account, Site, served

pytestmark = pytest.mark.anyio
A = {"type": "inspected.Account", "id": "a"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.db"


def form_of(text: str) -> dict[str, str]:
    """The members of the form of an edit."""
    found = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', text))
    state = re.search(r"<textarea[^>]*>\n(.*?)</textarea>", text, re.DOTALL)
    assert state is not None
    return {name: html.unescape(value) for name, value in {**found, "state": state[1]}.items()}


async def opened(site: Site) -> dict[str, str]:
    return form_of(await site.get("/edit", **A))


def changed(form: dict[str, str], **members: Any) -> dict[str, str]:
    return {**form, "state": json.dumps({**json.loads(form["state"]), **members})}


async def stored(site: Site) -> Account:
    [snapshot] = await site.runtime.list_states(Account)
    return snapshot.state


# --- edits ---------------------------------------------------------------------------------------


async def test_an_edit_is_saved(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trio_durable.audit")
    async with served(path) as site:
        await site.runtime.get(Account, "a").open("ada", "\u202e<b>")
        form = await opened(site)
        found = await site.post("edit", changed(form, balance=7, tags=["x"]), **A)
        assert found.status_code == 303, found.text
        assert found.headers["location"] == "object?type=inspected.Account&id=a&saved=2"
        assert (await stored(site)).balance == 7
        assert (await stored(site)).secret == "\u202e<b>"
        # The object has it, too.
        assert await site.runtime.get(Account, "a").deposit(1) == 8
        assert "✓ done" in await site.get("/audit")
    [record] = caplog.records
    assert record.getMessage() == "'ada': edit inspected.Account('a'), revision 1 to 2: done"
    assert (record.durable_who, record.durable_outcome) == ("ada", "done")  # type: ignore[attr-defined]


async def test_an_edit_on_an_old_state_is_a_conflict_with_all_three(path: Path) -> None:
    async with served(path) as site:
        account = site.runtime.get(Account, "a")
        await account.open("ada")
        form = await opened(site)
        await account.deposit(5)
        await account.open("eve")
        found = await site.post("edit", changed(form, owner="bob", tags=["mine"]), **A)
        assert found.status_code == 409
        assert (await stored(site)).owner == "eve"
        rows = re.findall(
            r"<tr><td><code>(\w+)</code>.*?<code>(.*?)</code>.*?<code>(.*?)</code>"
            r".*?<code>(.*?)</code>",
            html.unescape(found.text),
        )
        assert rows == [
            ("owner", '"ada"', '"eve"', '"bob"'),
            ("balance", "0", "5", "0"),
            ("tags", "[]", "[]", '["mine"]'),
        ]
        again = form_of(found.text)
        assert json.loads(again["state"]) == {
            "owner": "bob",
            "balance": 5,
            "secret": "",
            "tags": ["mine"],
        }
        assert (await site.post("edit", again, **A)).status_code == 303
        assert (await stored(site)).balance == 5


async def test_the_same_revision_of_another_life_is_a_conflict(path: Path) -> None:
    async with served(path) as site:
        await site.runtime.get(Account, "a").open("ada")
        form = await opened(site)
        await site.runtime.delete(Account, "a")
        await site.runtime.get(Account, "a").open("eve")
        assert (await site.post("edit", changed(form, balance=7), **A)).status_code == 409
        assert (await stored(site)).balance == 0


async def test_a_change_between_the_check_and_the_save_is_a_conflict(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(path) as site:
        account = site.runtime.get(Account, "a")
        await account.open("ada")
        form = await opened(site)
        source, save = site.app._source, site.app._source.edit

        async def late(*args: Any) -> None:
            await account.deposit(5)
            await save(*args)

        monkeypatch.setattr(source, "edit", late)
        assert (await site.post("edit", changed(form, owner="bob"), **A)).status_code == 409
        assert (await stored(site)).owner == "ada"


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ("", "not JSON: it is empty"),
        ("[1]", "no JSON object"),
        ('{"owner": NaN}', "JSON has no NaN"),
        ('{"balance": 1, "balance": 2}', "is there twice"),
        ('{"balance": "much"}', "balance"),
        ('{"ownr": "ada"}', "it is no field"),
        ("<script>", "not JSON"),
    ],
)
async def test_what_is_no_state_is_refused_and_stays_in_the_form(
    path: Path, state: str, says: str
) -> None:
    async with served(path) as site:
        await site.runtime.get(Account, "a").open("ada")
        form = await opened(site)
        found = await site.post("edit", {**form, "state": state}, **A)
        assert found.status_code == 422
        assert says in html.unescape(found.text)
        assert form_of(found.text)["state"] == state
        assert (await stored(site)).owner == "ada"


async def test_an_edit_of_a_redacted_state_keeps_what_it_does_not_show(path: Path) -> None:
    def redact(content: Content) -> object:
        if content.kind == "state":
            return {**content.value, "secret": "…"}
        return content.value

    async with served(path, redact=redact) as site:
        await site.runtime.get(Account, "a").open("ada", "1234")
        form = await opened(site)
        assert "1234" not in json.dumps(form)
        assert (await site.post("edit", changed(form, owner="eve"), **A)).status_code == 303
        assert ((await stored(site)).owner, (await stored(site)).secret) == ("eve", "1234")


@pytest.mark.filterwarnings("ignore:Exception ignored")  # the client has not sent all of it
async def test_a_form_that_is_too_large_is_refused(path: Path) -> None:
    async with served(path) as site:
        await site.runtime.get(Account, "a").open("ada")
        found = await site.post("edit", {"state": "x" * 5_000_000}, **A)
        assert found.status_code == 413


# --- dead letters --------------------------------------------------------------------------------


def items(text: str) -> list[str]:
    return [html.unescape(each) for each in re.findall(r'name="item" value="([^"]*)"', text)]


@pytest.mark.parametrize("kind", ["alarms", "messages"])
async def test_one_dead_letter_is_retried(path: Path, kind: str) -> None:
    told: list[Point] = []

    class Log(Instrument):
        def on_event(self, event: Point) -> None:
            if isinstance(event, Audited):
                told.append(event)

    async with served(path) as site:
        assert site.runtime._opened is not None
        notifier = site.runtime._opened.notifier
        assert notifier is not None
        notifier._instruments += (Log(),)
        await site.dead_letters("a", "b", text="<i>")
        text = await site.get("/dead", kind=kind)
        assert "RuntimeError" in text
        assert "&lt;i&gt;" in text
        found = await site.post("retry", {"only": items(text)[0]}, kind=kind)
        assert found.status_code == 303
        assert "1 of 1 will be tried again." in await site.get(f"/{found.headers['location']}")
        found = await site.post("drop", {"item": items(text)}, kind=kind)
        [event, *_] = told
        assert isinstance(event, Audited)
        assert (event.who, event.action, event.key.object_id, event.outcome) == (
            "ada",
            "retry",
            "a",
            "done",
        )


@pytest.mark.parametrize("kind", ["alarms", "messages"])
async def test_selected_dead_letters_are_removed(path: Path, kind: str) -> None:
    async with served(path) as site:
        await site.dead_letters("a", "b", "c")
        first, second, _ = items(await site.get("/dead", kind=kind))
        found = await site.post("drop", {"item": [first, second]}, kind=kind)
        assert "done=2+of+2+removed" in found.headers["location"]
        assert len(items(await site.get("/dead", kind=kind))) == 1
        found = await site.post("drop", {"item": [first]}, kind=kind)
        assert "done=0+of+1" in found.headers["location"]


@pytest.mark.parametrize("kind", ["alarms", "messages"])
async def test_all_dead_letters_are_retried_each_once(path: Path, kind: str) -> None:
    async with served(path) as site:
        await site.dead_letters(*(f"a{number:03}" for number in range(130)))
        found = await site.post("retry", {"scope": "all"}, kind=kind)
        assert found.status_code == 200
        done = re.findall(r"<li>(\d+) retried", found.text)
        assert done[-1] == "130"
        assert len(done) >= 2
        assert "Done." in found.text


async def test_dead_letters_are_of_a_type_and_of_a_page(path: Path) -> None:
    async with served(path) as site:
        await site.dead_letters(*(f"a{number:03}" for number in range(105)))
        for kind in ("alarms", "messages"):
            text = await site.get("/dead", kind=kind, type="inspected.Account")
            assert len(items(text)) == 100
            following = re.search(r'href="([^"]*)" rel="next"', text)
            assert following is not None
            page = await site.get(f"/{html.unescape(following[1])}")
            assert len(items(page)) == 5
            assert not set(items(page)) & set(items(text))
            assert "There are none" in await site.get("/dead", kind=kind, type="other")


@pytest.mark.parametrize(
    "item", ["", "1", "{}", '["alarm"]', '["alarm", "a", "", "b"]', '["message", "zz"]', "[" * 9000]
)
async def test_an_item_that_names_nothing_is_refused(path: Path, item: str) -> None:
    async with served(path) as site:
        assert (await site.post("retry", {"only": item})).status_code == 404


async def test_dead_letters_of_a_foreign_tenant_are_not_there(path: Path) -> None:
    access = Access("eve", can={"list", "retry", "drop"}, tenants={"acme"})
    async with served(path, access) as site:
        await site.dead_letters("a", tenant="other")
        [message] = await site.runtime.tenant("other").list_dead_messages()
        item = json.dumps(["message", message.id])
        for tenant, status in (("other", 404), ("", 404), ("acme", 303)):
            for action in ("retry", "drop"):
                found = await site.post(action, {"only": item}, tenant=tenant)
                assert found.status_code == status
        assert len(await site.runtime.tenant("other").list_dead_messages()) == 1


async def test_a_failed_change_is_in_the_audit(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(path) as site:
        await site.dead_letters("a")
        item = items(await site.get("/dead"))[0]
        from trio_durable import StorageUnavailable

        async def fail(_: object) -> bool:
            raise StorageUnavailable("app.db", "the disk is full")

        monkeypatch.setattr(site.app._source, "retry_alarm", fail)
        found = await site.post("retry", {"only": item})
        assert "0+of+1" in found.headers["location"]
        assert "▲ StorageUnavailable" in await site.get("/audit")


async def test_an_edit_needs_both_rights(path: Path) -> None:
    access: list[Access] = [ALL]
    async with served(path, lambda _: access[0]) as site:
        await site.runtime.get(Account, "a").open("ada")
        form = await opened(site)
        for rights in ({"list", "state"}, {"list", "edit"}, {"edit", "state"}):
            access[0] = Access("eve", can=rights, tenants=None)  # type: ignore[arg-type]
            found: httpx.Response = await site.post("edit", changed(form, balance=7), **A)
            assert found.status_code == 403
        assert (await stored(site)).balance == 0
