"""The pages: what they show, and what they never do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from trio_durable import DurableRuntime, ObjectKey
from trio_durable.inspector import Access, Content, TurnHistory, inspector
from trio_durable.inspector._access import RIGHTS
from trio_durable.inspector._app import InspectorApp
from trio_durable.inspector._overview import trees
from trio_durable.inspector._rendering import LIVE

from .served import ALL, Account, Site, Stream, served

pytestmark = pytest.mark.anyio
TYPE = "inspected.Account"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.db"


def of(object_id: str, **more: str) -> dict[str, str]:
    return {"type": TYPE, "id": object_id, **more}


PAGES: list[tuple[str, dict[str, str]]] = [
    ("/", {}),
    ("/type", {"type": TYPE}),
    ("/object", of("a")),
    ("/edit", of("a")),
    ("/download", of("a")),
    ("/dead", {}),
    ("/dead", {"kind": "messages"}),
    ("/turns", {}),
    ("/waiting", {}),
    ("/nodes", {}),
    ("/tenants", {}),
    ("/audit", {}),
    ("/find", {"text": "zzz"}),
    ("/nothing", {}),
]


async def texts(site: Site, tenant: str | None = None, ids: str = "a") -> Iterator[tuple[str, str]]:
    """The text of every page, and of every stream's first events, by the page."""
    found = []
    for page, query in PAGES:
        query = {**query, **({"id": ids} if "id" in query else {})}
        query = {**query, **({} if tenant is None else {"tenant": tenant})}
        found.append((page, (await site.client.get(page, params=query)).text))
        if (f"{page[1:]}.live", "GET") in site.app.routes:
            stream = Stream(site.app, f"{page[1:]}.live", list(query.items()))
            with anyio.move_on_after(0.5):
                await stream.run()
            found.append((f"{page}.live", stream.text))
    return iter(found)


# --- content -------------------------------------------------------------------------------------


async def test_the_overview_counts_objects_and_dead_letters(path: Path) -> None:
    async with served(path) as site:
        text = await site.get("/")
        assert "No object is stored yet" in text or "served" in text
        for each in "abc":
            await site.runtime.get(Account, each).open(each)
        await site.dead_letters("a", "b")
        text = await site.get("/")
    assert re.search(rf"{TYPE}</a></td><td class=\"n\">3</td>", text)
    assert "2 alarms" in text
    assert "2 messages" in text
    assert "✕ 4" in text


async def test_objects_are_counted_up_to_a_thousand(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trio_durable.inspector import _overview

    monkeypatch.setattr(_overview, "COUNTED", 2)
    async with served(path) as site:
        for each in "abc":
            await site.runtime.get(Account, each).open(each)
        assert '<td class="n">2+</td>' in await site.get("/")


async def test_a_type_has_pages_of_a_hundred_and_prefixes(path: Path) -> None:
    async with served(path) as site:
        for number in range(105):
            await site.runtime.get(Account, f"a{number:03}").open("x")
        await site.runtime.get(Account, "b").open("x")
        first = await site.get("/type", type=TYPE)
        assert first.count('class="id" href="object') >= 100
        assert "a099</a>" in first
        assert "a100</a>" not in re.split("Recently", first)[0]
        second = re.split("Recently", await site.get("/type", type=TYPE, after="a099"))[0]
        assert "a100</a>" in second
        assert "b</a>" in second
        found = re.split("Recently", await site.get("/type", type=TYPE, prefix="a10"))[0]
        assert re.findall(r">(\w+)</a></td><td class=\"n\">1", found) == [
            f"a{number}" for number in range(100, 105)
        ]


async def test_a_type_shows_what_changed_last_and_what_is_called_most(path: Path) -> None:
    async with served(path) as site:
        for each in ("a", "b", "b", "b"):
            await site.runtime.get(Account, each).deposit(1)
        _, recent, busiest = re.split(
            "Recently changed|Busiest", await site.get("/type", type=TYPE)
        )
    assert re.findall(r">(\w+)</a>", recent) == ["b", "a"]
    assert re.findall(r">(\w+)</a></td><td class=\"n\">(\d)", busiest) == [("b", "3"), ("a", "1")]


async def test_an_object_shows_its_state_alarms_and_messages(path: Path) -> None:
    async with served(path) as site:
        account = site.runtime.get(Account, "a")
        await account.open("ada")
        await site.runtime.schedule_alarm(Account, "a", "reminder", after=1000, payload=["later"])
        await site.runtime.outgoing(after=1000).send(Account.receive, "a", "the text")
        text = await site.get("/object", **of("a"))
    assert "&#34;owner&#34;: &#34;ada&#34;" in text
    assert "[&#34;later&#34;]" in text
    assert "the text" in text
    assert "perform_handler" in text
    assert 'href="edit?type=inspected.Account&amp;id=a"' in text


async def test_an_object_that_is_not_there_is_a_missing_page(path: Path) -> None:
    async with served(path) as site:
        found = await site.client.get("/object", params=of("nobody"))
        assert found.status_code == 404
        assert "Nothing is stored" in found.text


async def test_a_large_state_is_a_download(path: Path) -> None:
    async with served(path) as site:
        await site.runtime.get(Account, "a").open("x" * 300_000)
        text = await site.get("/object", **of("a"))
        assert "too large for a page" in text
        assert "xxxx" not in text
        found = await site.client.get("/download", params=of("a"))
        assert found.json()["owner"] == "x" * 300_000
        assert found.headers["content-disposition"].startswith("attachment")
        assert (await site.client.get("/edit", params=of("a"))).status_code == 413


async def test_a_class_that_is_not_served_is_view_only(path: Path) -> None:
    async with served(path) as site:
        await site.runtime.get(Account, "a").open("ada")
    async with served(path) as site:
        site.runtime._registry._objects = ()
        text = await site.get("/object", **of("a"))
        assert "view only" in text
        assert "Edit…" not in text
        assert (await site.client.get("/edit", params=of("a"))).status_code == 409


async def test_turns_are_kept_with_their_errors(path: Path) -> None:
    async with served(path) as site:
        await site.runtime.get(Account, "a").deposit(1)
        with pytest.raises(RuntimeError):
            await site.runtime.get(Account, "a").fail("it is broken")
        failed, slowest = (await site.get("/turns")).split("<h2>Slowest</h2>")
        assert "RuntimeError: it is broken" in failed
        assert "<code>deposit</code>" in slowest


async def test_turns_are_not_kept_by_an_inspector_that_comes_late(path: Path) -> None:
    async with DurableRuntime(":memory:", objects=[Account]) as runtime:
        from .served import client_of

        async with client_of(inspector(runtime, authorize=lambda _: ALL)) as client:
            text = (await client.get("/turns")).text
            assert "kept only in an app in which the inspector is mounted before" in text
    kept = TurnHistory()
    async with DurableRuntime(":memory:", objects=[Account], instruments=[kept]) as runtime:
        app = inspector(runtime, authorize=lambda _: ALL)
        assert isinstance(app, InspectorApp)
        assert app._source.history is kept


async def test_objects_that_wait_are_below_those_that_they_wait_for(path: Path) -> None:
    async with served(path) as site, anyio.create_task_group() as tasks:
        tasks.start_soon(site.runtime.get(Account, "slow", timeout=None).sleep)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(site.runtime.get(Account, "first", timeout=None).ask, "slow")
        tasks.start_soon(site.runtime.get(Account, "second", timeout=None).ask, "first")
        await anyio.wait_all_tasks_blocked()
        text = await site.get("/waiting")
        assert re.findall(r"id=(\w+)\"", text) == ["slow", "first", "second"]
        assert "<strong>2</strong> waits " in text
        tasks.cancel_scope.cancel()


def test_waits_are_trees_from_the_object_that_holds_up_the_others() -> None:
    a, b, c, d = (ObjectKey("T", each) for each in "abcd")
    [tree] = trees([(b, "x", a), (c, "y", b), (d, "z", a)])
    assert (tree.key, [each.key for each in tree.waiters]) == (a, [b, d])
    assert [(each.key, each.handler) for each in tree.waiters[0].waiters] == [(c, "y")]


def test_a_circle_of_waits_ends() -> None:
    a, b = ObjectKey("T", "a"), ObjectKey("T", "b")
    [tree] = trees([(a, "x", b), (b, "y", a)])
    assert [each.waiters for each in tree.waiters] == [[]]


@pytest.mark.parametrize(
    "text", ["ada", f"{TYPE}/ada", f"{TYPE}('ada')", f'{TYPE}("ada")', " ada "]
)
async def test_an_object_is_found_by_a_pasted_name(path: Path, text: str) -> None:
    async with served(path) as site:
        await site.runtime.get(Account, "ada").open("x")
        found = await site.client.get("/find", params={"text": text})
        assert found.headers["location"] == f"object?type={TYPE}&id=ada"
        assert "No stored object has the id" in await site.get("/find", text="adam")


# --- markup --------------------------------------------------------------------------------------

MARKUP = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&lt;\u202e"


async def test_stored_markup_is_text_on_every_page(path: Path) -> None:
    async with served(path) as site:
        await site.runtime.get(Account, MARKUP).open(MARKUP, MARKUP)
        await site.dead_letters(MARKUP, text=MARKUP)
        with pytest.raises(RuntimeError):
            await site.runtime.get(Account, MARKUP).fail(MARKUP)
        await site.post("dead", {}, done=MARKUP)
        for page, text in await texts(site, ids=MARKUP):
            if page == "/download":
                continue
            assert "<img" not in text, page
            assert "alert(1)</script>" not in text, page
            assert "\u202e" not in text, page
            assert text.count("<script") == (0 if page.endswith(".live") else 1), page
        for query in ({"text": MARKUP}, {"type": MARKUP}, {"tenant": MARKUP}, {"done": MARKUP}):
            for page in ("/find", "/type", "/dead", "/object", "/"):
                text = (await site.client.get(page, params=query)).text
                assert "<img" not in text, (page, query)
                assert "\u202e" not in text, (page, query)


def test_no_template_switches_escaping_off_or_has_a_script_of_its_own() -> None:
    from trio_durable import inspector as package

    for template in (Path(package.__file__).parent / "templates").glob("*.html"):
        text = template.read_text(encoding="utf-8")
        for each in ("|safe", "autoescape", "javascript:", " style=", " onclick", "</style>"):
            assert each not in text, template
        assert text.count("<script") == (template.name == "layout.html")
        assert "{{" not in "".join(re.findall(r"<script.*?</script>", text))
        # Each value in an attribute is in double quotes.
        assert not re.findall(r"=\s*\{\{|='[^']*\{\{", text), template


# --- tenants and redaction -----------------------------------------------------------------------

CANARY = "canary-5f2e"


async def test_no_page_has_anything_of_a_foreign_tenant(path: Path) -> None:
    """Also if the address names the tenant."""
    access = Access("eve", can=RIGHTS, tenants={"acme"})
    async with served(path, access) as site, anyio.create_task_group() as tasks:
        for tenant in ("foreign", ""):
            objects = site.runtime.tenant(tenant) if tenant else site.runtime
            await objects.get(Account, "a").open(CANARY, CANARY)
            await objects.get(Account, CANARY).open("x")
            await site.dead_letters("a", tenant=tenant, text=CANARY)
            with pytest.raises(RuntimeError):
                await objects.get(Account, "a").fail(CANARY)
            tasks.start_soon(objects.get(Account, f"{CANARY}-busy", timeout=None).sleep)
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(
                objects.get(Account, f"{CANARY}-waits", timeout=None).ask, f"{CANARY}-busy"
            )
            await anyio.wait_all_tasks_blocked()
            site.app._audit.record(0, CANARY, "edit", ObjectKey(TYPE, "a", tenant), "done")
        await site.runtime.tenant("acme").get(Account, "a").open("ada")
        for tenant in ("foreign", "", "acme"):
            for page, text in await texts(site, tenant=tenant):
                assert CANARY not in text, (page, tenant)
        assert "ada" in await site.get("/object", **of("a", tenant="acme"))
        assert (await site.client.get("/nodes")).status_code == 404
        for page, query in PAGES:
            if "id" in query:
                for tenant in ("foreign", ""):
                    found = await site.client.get(page, params={**query, "tenant": tenant})
                    assert found.status_code == 404, page
        tasks.cancel_scope.cancel()


def redact(content: Content) -> object:
    if content.kind == "state":
        content.value["secret"] = "…"
        return content.value
    return "…"


async def test_no_page_has_anything_that_was_redacted(path: Path) -> None:
    async with served(path, redact=redact) as site:
        await site.runtime.get(Account, "a").open("ada", CANARY)
        await site.dead_letters("a", text=CANARY)
        await site.runtime.schedule_alarm(Account, "a", "reminder", after=1000, payload=[CANARY])
        await site.runtime.outgoing(after=1000).send(Account.receive, "a", CANARY)
        with pytest.raises(RuntimeError):
            await site.runtime.get(Account, "a").fail(CANARY)
        stream = Stream(site.app, "object.live", list(of("a").items()))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stream.run)
            await anyio.sleep(2)
            await site.runtime.get(Account, "a").open("eve", f"{CANARY} again")
            await anyio.sleep(2)
            tasks.cancel_scope.cancel()
        assert "eve" in stream.text
        assert "1 change" in stream.text
        assert CANARY not in stream.text
        for page, text in await texts(site):
            assert CANARY not in text, page
        conflict = await site.post(
            "edit", {"state": "{}", "base": "{}", "revision": "1", "digest": "00"}, **of("a")
        )
        assert conflict.status_code == 409
        assert CANARY not in conflict.text


async def test_without_the_right_no_page_has_a_state(path: Path) -> None:
    access = Access("eve", can=RIGHTS - {"state"}, tenants=None)
    async with served(path, access) as site:
        await site.runtime.get(Account, "a").open(CANARY, CANARY)
        await site.dead_letters("a", text=CANARY)
        with pytest.raises(RuntimeError):
            await site.runtime.get(Account, "a").fail(CANARY)
        for page, text in await texts(site):
            assert CANARY not in text, page
        assert "RuntimeError" in await site.get("/turns")


# --- live ----------------------------------------------------------------------------------------


async def test_a_stream_has_what_changes_and_its_differences(path: Path) -> None:
    async with served(path) as site, anyio.create_task_group() as tasks:
        await site.runtime.get(Account, "a").deposit(1)
        stream = Stream(site.app, "object.live", list(of("a").items()))
        tasks.start_soon(stream.run)
        await anyio.sleep(3)
        first = stream.text
        assert "event: live_state\n" in first
        await site.runtime.get(Account, "a").deposit(41)
        await anyio.sleep(3)
        later = stream.text[len(first) :]
        assert "Revision 1 → 2: 1 change" in later
        assert "<del>1</del>" in later
        assert "<ins>42</ins>" in later
        tasks.cancel_scope.cancel()


async def test_a_stream_sends_nothing_twice(path: Path) -> None:
    async with served(path) as site, anyio.create_task_group() as tasks:
        stream = Stream(site.app, "tenants.live")
        stream = Stream(site.app, "audit.live")
        tasks.start_soon(stream.run)
        await anyio.sleep(30)
        assert stream.text.count("event: ") == 1
        assert ": here" in stream.text
        tasks.cancel_scope.cancel()


async def test_a_stream_ends_when_the_user_may_not_see_it_any_more(path: Path) -> None:
    found: list[Any] = [ALL]
    async with served(path, lambda _: found[0]) as site:
        for later in (None, Access("ada", can=()), Access("ada", can=RIGHTS, tenants={"acme"})):
            found[0] = ALL
            await site.runtime.get(Account, "a").open("ada")
            stream = Stream(site.app, "object.live", list(of("a", tenant="").items()))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(stream.run)
                await anyio.sleep(3)
                found[0] = later
                with anyio.fail_after(3):
                    while not stream.has_ended:
                        await anyio.sleep(0.1)
                assert "ada" in stream.text


async def test_streams_end_with_the_watches_of_the_runtime(path: Path) -> None:
    async with served(path) as site, anyio.create_task_group() as tasks:
        stream = Stream(site.app, "turns.live")
        tasks.start_soon(stream.run)
        await anyio.sleep(3)
        assert not stream.has_ended
        site.runtime.end_watches()
        await anyio.sleep(2)
        assert stream.has_ended


async def test_a_stream_looks_at_most_five_times_a_second(path: Path) -> None:
    looks = []

    def authorize(_: object) -> Access:
        looks.append(anyio.current_time())
        return ALL

    async with served(path, authorize) as site:
        with anyio.move_on_after(20):
            await Stream(site.app, "turns.live").run()
    assert len(looks) <= 100


async def test_what_a_page_sends_again_is_a_part_of_it(path: Path) -> None:
    """Each block has its element, and is the same in both."""
    async with served(path) as site:
        await site.runtime.get(Account, "a").open("ada")
        await site.dead_letters("a")
        for page, query in PAGES:
            text = (await site.client.get(page, params=query)).text
            assert set(re.findall(rf'id="({LIVE}\w+)"', text)) <= {
                name
                for template in (
                    "overview",
                    "type",
                    "object",
                    "dead",
                    "turns",
                    "waiting",
                    "nodes",
                    "audit",
                )
                for name in blocks_of(template)
            }
            if f"{page[1:]}.live" in {name for name, _ in site.app.routes}:
                assert re.findall(rf'id="({LIVE}\w+)"', text), page


def blocks_of(template: str) -> set[str]:
    from trio_durable.inspector._rendering import _environment

    return {
        name for name in _environment().get_template(f"{template}.html").blocks if name[:5] == LIVE
    }
