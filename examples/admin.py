"""A page for administrators: find customers by SQL, look at their states, and edit them.

Serve it from the folder above this one::

    uvicorn examples.admin:app

and open http://localhost:8000/. ``ADMIN_DB`` names the SQLite file (default admin.db).

- The search reads the view ``durable_objects_v1``. It only preselects: a row that SQL can't judge,
  such as one that isn't JSON, passes, and the decoded states decide.
- The form has the revision and the digest of the state that it shows. ``put_state`` with
  ``expected`` stores the edited state only if nothing has changed in the meantime; otherwise the
  form comes back with the state that is stored now, and with the user's own values.

Keep such a page behind your login. It refuses forms of other sites, and escapes what it shows.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator, Sequence
from html import escape
from pathlib import Path
from typing import TypeAlias, cast
from urllib.parse import parse_qs, urlencode

import anyio.to_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from trio_durable import (
    DurableObject,
    DurableRuntime,
    Snapshot,
    StateConflict,
    StateDecodeError,
    current_runtime,
    handler,
)

DATABASE = Path(os.environ.get("ADMIN_DB", "admin.db"))
MOST = 100
"""Customers on a page."""


class Customer(DurableObject, name="admin.Customer"):
    """A customer, with a credit in cents."""

    name: str = ""
    credit: int = 0
    is_blocked: bool = False

    @handler
    def sign_up(self, name: str, credit: int) -> None:
        """Begin."""
        self.name, self.credit = name, credit

    @handler
    def spend(self, cents: int) -> int:
        """Spend cents; return what is left."""
        self.credit -= cents
        return self.credit


# --- finding -------------------------------------------------------------------------------------

FIND = """
SELECT id FROM durable_objects_v1
WHERE type = 'admin.Customer' AND CASE
    WHEN json_valid(state) THEN coalesce(instr(state ->> 'name', ?), 1)
    ELSE 1
END
ORDER BY id LIMIT ?
"""
"""The ids of customers whose name may contain a text."""

Customers: TypeAlias = "Sequence[Snapshot[Customer]]"


def find(text: str) -> list[str]:
    """The ids of the customers that may match."""
    uri = f"{DATABASE.absolute().as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as file:
        return [object_id for (object_id,) in file.execute(FIND, (text, MOST))]


async def snapshots(ids: Sequence[str]) -> Customers:
    """The states of customers as they are stored now, without loading the objects."""
    if not ids:
        return []
    async with current_runtime().watch_many([(Customer, each) for each in ids]) as found:
        return [cast("Snapshot[Customer]", await anext(found)) for _ in ids]


def is_match(snapshot: Snapshot[Customer], text: str) -> bool:
    """Whether a customer matches. One that can't be decoded does, so that it is seen."""
    try:
        return bool(snapshot.revision) and text in snapshot.state.name
    except StateDecodeError:
        return True


async def search(request: Request) -> Response:
    """A page with the customers that match."""
    text = request.query_params.get("search", "")
    ids = await anyio.to_thread.run_sync(find, text)
    found = [each for each in await snapshots(ids) if is_match(each, text)]
    return HTMLResponse(page("Customers", SEARCH.format(text=escape(text), rows=rows(found))))


# --- editing -------------------------------------------------------------------------------------


async def show(request: Request) -> Response:
    """A page with the form of one customer."""
    [snapshot] = await snapshots([request.query_params["id"]])
    if not snapshot.revision:
        return PlainTextResponse("There is no such customer.", 404)
    try:
        customer = snapshot.state
    except StateDecodeError as error:
        return HTMLResponse(page(snapshot.key.object_id, f"<pre>{escape(str(error))}</pre>"), 422)
    return HTMLResponse(form(snapshot.key.object_id, customer, snapshot.revision, snapshot.digest))


async def save(request: Request) -> Response:
    """Store the form, or show it once more with the state that has come meanwhile."""
    if request.headers.get("sec-fetch-site") != "same-origin":  # as all browsers send it
        return PlainTextResponse("This form is of another site.", 403)
    given = {name: each for name, [each] in parse_qs((await request.body()).decode()).items()}
    try:
        object_id, expected = given["id"], (int(given["revision"]), given["digest"])
        customer = Customer(
            name=given.get("name", ""),
            credit=int(given["credit"]),
            is_blocked="is_blocked" in given,
        )
    except (KeyError, ValueError) as error:
        return PlainTextResponse(f"This is no form of ours: {error}", 400)
    try:
        await current_runtime().put_state(Customer, object_id, customer, expected=expected)
    except StateConflict as conflict:
        if conflict.json is None:
            return PlainTextResponse("This customer was deleted meanwhile.", 410)
        # Saving once more replaces the state that is shown with the form.
        again = form(object_id, customer, conflict.revision, conflict.digest, conflict.json)
        return HTMLResponse(again, 409)
    return RedirectResponse(f"./?{urlencode({'search': customer.name})}", 303)


# --- pages ---------------------------------------------------------------------------------------

SEARCH = """
<form><input name=search value="{text}" aria-label=name> <button>Search</button></form>
<table><tr><th>id<th>name<th>credit<th>revision</tr>{rows}</table>
"""
FORM = """
{conflict}
<form method=post action=save>
<input type=hidden name=id value="{id}">
<input type=hidden name=revision value="{revision}">
<input type=hidden name=digest value="{digest}">
<p><label>Name <input name=name value="{name}"></label>
<p><label>Credit <input name=credit type=number value="{credit}"></label>
<p><label>Blocked <input name=is_blocked type=checkbox {checked}></label>
<p><button>Save</button>
</form>
"""
CONFLICT = """
<p role=alert>This customer was changed meanwhile. Stored is now:
<pre>{stored}</pre>
<p>Save once more to replace that.
"""


def page(title: str, body: str) -> str:
    """An HTML document. The title is text, the body HTML."""
    return f"<!doctype html><title>{escape(title)}</title><h1>{escape(title)}</h1>{body}"


def rows(found: Customers) -> str:
    """The rows of the table of customers."""
    return "".join(map(row, found))


def row(snapshot: Snapshot[Customer]) -> str:
    """The row of one customer."""
    object_id = escape(snapshot.key.object_id)
    try:
        customer = snapshot.state
    except StateDecodeError as error:
        return f"<tr><td>{object_id}<td colspan=3>{escape(str(error))}</tr>"
    name, credit = escape(customer.name), f"{customer.credit / 100:,.2f}"
    query = escape(urlencode({"id": snapshot.key.object_id}))
    link = f'<a href="customer?{query}">{object_id}</a>'
    return f"<tr><td>{link}<td>{name}<td>{credit}<td>{snapshot.revision}</tr>"


def form(
    object_id: str, customer: Customer, revision: int, digest: str | None, stored: str | None = None
) -> str:
    """The page of one customer; with ``stored`` that of a conflict."""
    body = FORM.format(
        conflict="" if stored is None else CONFLICT.format(stored=escape(stored)),
        id=escape(object_id),
        revision=revision,
        digest=digest or "",
        name=escape(customer.name),
        credit=customer.credit,
        checked="checked" if customer.is_blocked else "",
    )
    return page(object_id, body)


@contextlib.asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[None]:
    """Open the runtime while the application serves."""
    async with DurableRuntime(DATABASE, objects=[Customer]):
        yield


app = Starlette(
    routes=[
        Route("/", search),
        Route("/customer", show),
        Route("/save", save, methods=["POST"]),
    ],
    lifespan=lifespan,
)
