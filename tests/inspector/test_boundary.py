"""The boundary: what reaches the pages, and what doesn't."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from starlette.requests import Request
from starlette.responses import Response

from trio_durable.inspector import Access
from trio_durable.inspector._access import RIGHTS, Right
from trio_durable.inspector._alone import Alone
from trio_durable.inspector._app import Route
from trio_durable.inspector._boundary import HEADERS

from .served import ALL, HOST, SAME_ORIGIN, Site, Stream, client_of, refuse, served

pytestmark = pytest.mark.anyio

UNKNOWN = ["nothing", "static/inspector.css", "inspector.css/", "object/", ".git/config"]
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.db"


def query_of(route: Route) -> dict[str, str]:
    named = {"type": "inspected.Account", "id": "a"}
    return (
        named if route.path.partition(".live")[0] in ("object", "type", "edit", "download") else {}
    )


async def status(site: Site, path: str, method: str, query: dict[str, str]) -> int:
    if path.endswith(".live") and method == "GET":
        import anyio

        stream = Stream(site.app, path, list(query.items()))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stream.run)
            while not stream.status:
                await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()
        return stream.status
    found = await site.client.request(method, f"/{path}", params=query, headers=SAME_ORIGIN)
    assert HEADERS.items() <= {name: found.headers.get(name) for name in HEADERS}.items()
    return found.status_code


async def test_everything_asks_the_app_first(path: Path) -> None:
    asked: list[tuple[str, str]] = []

    def authorize(request: Request) -> Response:
        asked.append((request.method, request.url.path))
        return Response("log in first", 401)

    async with served(path, authorize) as site:
        wanted = [
            (method, f"/{each}")
            for each in [*dict.fromkeys(name for name, _ in site.app.routes), *UNKNOWN]
            for method in METHODS
        ]
        for method, each in wanted:
            found = await site.client.request(method, each, headers=SAME_ORIGIN)
            assert found.status_code == 401, (method, each)
            assert found.text == ("" if method == "HEAD" else "log in first")
            assert HEADERS.items() <= {name: found.headers[name] for name in HEADERS}.items()
    assert [method for method, _ in asked] == [method for method, _ in wanted]


async def test_none_is_answered_like_a_missing_page_for_all_paths(path: Path) -> None:
    async with served(path, None) as site:
        found = {
            (response.status_code, response.text)
            for name in [*dict.fromkeys(name for name, _ in site.app.routes), *UNKNOWN]
            for response in [await site.client.get(f"/{name}")]
        }
    assert found == {(404, "There is no such page.\n")}


async def test_the_app_may_decide_asynchronously(path: Path) -> None:
    async def authorize(_: Request) -> Access:
        return ALL

    async with served(path, authorize) as site:
        assert "Overview" in await site.get("/")


@pytest.mark.parametrize("returned", [True, "ada", {"who": "ada"}, object()])
async def test_anything_else_that_it_returns_is_an_error(path: Path, returned: Any) -> None:
    async with served(path, lambda _: returned) as site:
        with pytest.raises(TypeError, match="must return an Access, a response or None"):
            await site.client.get("/")


@pytest.mark.parametrize("missing", [*get_args(Right), None])
async def test_each_route_needs_its_right(path: Path, missing: Right | None) -> None:
    """All routes with all methods, by an access that lacks one right, or none."""
    access = Access("ada", can=RIGHTS - {missing}, tenants=None)
    async with served(path, access) as site:
        await site.runtime.get("inspected.Account", "a").open("ada")
        for name in dict.fromkeys(name for name, _ in site.app.routes):
            for method in METHODS:
                route = site.app.routes.get((name, "GET" if method == "HEAD" else method))
                query = {} if route is None else query_of(route)
                found = await status(site, name, method, query)
                if route is None:
                    assert found == 405, (method, name)
                elif route.right is not None and missing in (route.right, "list"):
                    assert found == 403, (method, name)
                elif (missing, name) == ("state", "edit"):
                    assert found == 403
                else:
                    assert found in (200, 303, 400), (method, name, found)
        for name in UNKNOWN:
            assert await status(site, name, "GET", {}) == 404


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"GET", "HEAD"}))
async def test_a_change_needs_to_come_from_the_same_origin(path: Path, method: str) -> None:
    async with served(path) as site:
        for headers in [
            {},
            {"Origin": "http://evil.example"},
            {"Origin": "null"},
            {"Origin": f"http://{HOST}.evil.example"},
            {"Origin": f"http://{HOST}:81"},
            {"Sec-Fetch-Site": "same-site"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "none"},
            # A browser that says where it comes from is believed about that alone.
            {"Sec-Fetch-Site": "cross-site", "Origin": f"http://{HOST}"},
        ]:
            found = await site.client.request(method, "/retry", headers=headers)
            assert found.status_code == 403, headers
            assert "another site" in found.text


async def test_a_browser_without_fetch_metadata_sends_its_origin(path: Path) -> None:
    async with served(path) as site:
        found = await site.client.post("/retry", headers={"Origin": f"http://{HOST}"})
        assert found.status_code == 303


async def test_a_page_of_another_site_may_link_here_and_nothing_else(path: Path) -> None:
    async with served(path) as site:
        link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
        found = await site.client.get("/", headers={**link, "Sec-Fetch-Dest": "document"})
        assert found.status_code == 200
        for headers in [
            {**link, "Sec-Fetch-Dest": "iframe"},
            {**link, "Sec-Fetch-Dest": "object"},
            {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
            {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
        ]:
            for page in ("/", "/inspector.js", "/.live"):
                found = await site.client.get(page, headers=headers)
                assert found.status_code == 403, headers


async def test_another_host_is_refused_where_hosts_are_named(path: Path) -> None:
    async with served(path, hosts={"Inspected"}) as site:
        assert await site.get("/")
        for host in ("evil.example", f"{HOST}.", f"{HOST}:80", "127.0.0.1", ""):
            found = await site.client.get("/", headers={"Host": host})
            assert found.status_code == 421, host


async def test_websockets_are_closed_before_they_are_accepted(path: Path) -> None:
    async with served(path) as site:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        await site.app({"type": "websocket", "path": "/", "headers": []}, None, send)
        assert sent == [{"type": "websocket.close", "code": 1008}]


async def test_it_is_mounted_below_any_path(path: Path) -> None:
    from starlette.applications import Starlette
    from starlette.routing import Mount

    async with served(path) as site:
        await site.runtime.get("inspected.Account", "a").open("ada")
        async with client_of(Starlette(routes=[Mount("/deep/inspector", site.app)])) as client:
            redirect = await client.get("/deep/inspector")
            assert redirect.status_code == 307
            assert redirect.headers["location"].endswith("inspector/")
            assert (await client.get("/deep/inspector/")).status_code == 200
            assert (await client.get("/deep/inspector/inspector.css")).status_code == 200
            found = await client.get("/deep/inspector/type", params={"type": "inspected.Account"})
            assert 'href="object?type=inspected.Account&amp;id=a"' in found.text
        # A framework that takes the mounted path out of the path.
        async with client_of(site.app, root_path="/elsewhere") as client:
            assert (await client.get("/inspector.css")).status_code == 200


# --- the command alone ---------------------------------------------------------------------------

TOKEN = "a-long-token"


@pytest.fixture
async def alone(path: Path) -> Any:
    async with served(path, refuse) as site:
        yield Alone(site.app._source, "ada", TOKEN, 8000)


async def test_the_command_needs_the_token_in_the_path(alone: Alone) -> None:
    async with client_of(alone) as client:
        local = {"Host": "127.0.0.1:8000"}
        assert (await client.get(f"/{TOKEN}/", headers=local)).status_code == 200
        assert (await client.get(f"/{TOKEN}/inspector.js", headers=local)).status_code == 200
        for guess in ("/", "/inspector.js", f"/{TOKEN[:-1]}/", f"/{TOKEN}x/", f"//{TOKEN}/", "/é/"):
            found = await client.get(guess, headers=local)
            assert found.status_code == 404, guess
            assert HEADERS.items() <= {name: found.headers[name] for name in HEADERS}.items()


async def test_the_command_is_for_the_loopback_host(alone: Alone) -> None:
    async with client_of(alone) as client:
        assert (
            await client.get(f"/{TOKEN}/", headers={"Host": "localhost:8000"})
        ).status_code == 200
        for host in ("evil.example", "evil.example:8000", "127.0.0.1", "127.0.0.1:8001"):
            found = await client.get(f"/{TOKEN}/", headers={"Host": host})
            assert found.status_code == 421, host


@pytest.mark.parametrize(
    "name", ["Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via"]
)
async def test_the_command_refuses_what_a_proxy_has_forwarded(alone: Alone, name: str) -> None:
    async with client_of(alone) as client:
        headers = {"Host": "127.0.0.1:8000", name: "127.0.0.1"}
        assert (await client.get(f"/{TOKEN}/", headers=headers)).status_code == 403
