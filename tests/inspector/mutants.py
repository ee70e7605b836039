"""The library with one guarantee of the inspector broken, to see that the tests here notice.

    PYTHONPATH=tests python -m inspector.mutants           all mutants
    PYTHONPATH=tests python -m inspector.mutants NAME …    some of them

See `exactness.mutants`, which makes them and runs the tests.
"""

from __future__ import annotations

import sys

from exactness.mutants import BOUNDED_TESTS, Mutant, main

CHECKS: dict[str, tuple[str, ...]] = {
    "the boundary": (*BOUNDED_TESTS, "inspector/test_boundary.py", "-k", "trio"),
    "contents": (*BOUNDED_TESTS, "inspector/test_contents.py"),
    "the pages": (*BOUNDED_TESTS, "inspector/test_pages.py", "-k", "trio"),
    "changes": (*BOUNDED_TESTS, "inspector/test_changes.py", "-k", "trio"),
}

MUTANTS = [
    Mutant(
        "assets_outside_of_authorize",
        "static files are served without asking the app",
        "the boundary",
        "inspector/_boundary.py",
        "        access = await decide(self._authorize, request)\n",
        """        if request.scope["path"].endswith(".css"):
            return await self._serve(request, "inspector.css", Access("", can=()))
        access = await decide(self._authorize, request)
""",
    ),
    Mutant(
        "missing_pages_outside_of_authorize",
        "it is said which pages there are before the app is asked",
        "the boundary",
        "inspector/_boundary.py",
        """        if access is None:
            return refusal("There is no such page.", 404)""",
        """        if access is None:
            return refusal(request.scope["path"], 404)""",
    ),
    Mutant(
        "host_unchecked",
        "any host is allowed",
        "the boundary",
        "inspector/_boundary.py",
        "(len(hosts) != 1 or hosts[0].lower() not in self._hosts)",
        "not hosts",
    ),
    Mutant(
        "missing_origin_accepted",
        "a change without Origin and Sec-Fetch-Site is made",
        "the boundary",
        "inspector/_boundary.py",
        "bool(host) and origin is not None and urlsplit(origin).netloc == host",
        "origin is None or urlsplit(origin).netloc == host",
    ),
    Mutant(
        "truthy_access",
        "any true value counts as an access",
        "the boundary",
        "inspector/_access.py",
        """    raise TypeError(
        "authorize""",
        """    if found:
        return Access("", RIGHTS, None)
    raise TypeError(
        "authorize""",
    ),
    Mutant(
        "rights_of_streams_unchecked",
        "a stream has no right of its own",
        "the boundary",
        "inspector/_app.py",
        """path=f"{each.path}.live", serve=""",
        """path=f"{each.path}.live", right=None, serve=""",
    ),
    Mutant(
        "token_by_prefix",
        "a path that begins with the token is one with the token",
        "the boundary",
        "inspector/_alone.py",
        """compare_digest(first.encode("utf-8", "surrogatepass"), self._token)""",
        """first.encode().startswith(self._token)""",
    ),
    Mutant(
        "forwarded_accepted",
        "requests through a proxy count as local",
        "the boundary",
        "inspector/_alone.py",
        "            if problem is not None:\n",
        "            if not self:\n",
    ),
    Mutant(
        "authorized_once",
        "a stream asks the app at its beginning only",
        "the pages",
        "inspector/_live.py",
        "        view = await renewed()\n\n\ndef",
        "        view = view\n\n\ndef",
    ),
    Mutant(
        "redaction_after_differences",
        "differences of revisions are made of what is stored",
        "the pages",
        "inspector/_objects.py",
        "watched.saw(0 if row is None else row.revision, state)",
        "watched.saw(row.revision if row else 0, fields_of(parsed(row.state)) if row else None)",
    ),
    Mutant(
        "errors_unredacted",
        "texts of errors are shown as they are",
        "the pages",
        "inspector/_view.py",
        "        return self.redactor.error(key, text)",
        "        return text",
    ),
    Mutant(
        "tenant_missing_in_turns",
        "turns of all tenants are shown",
        "the pages",
        "inspector/_overview.py",
        "        seen = (turn for turn in found if view.sees(turn.key))",
        "        seen = found",
    ),
    Mutant(
        "tenant_missing_in_busy_objects",
        "busy objects of all tenants are shown",
        "the pages",
        "inspector/_overview.py",
        "    found = [busy for busy in found if view.sees(busy.key)]\n",
        "",
    ),
    Mutant(
        "tenant_missing_in_waits",
        "waits of all tenants are shown",
        "the pages",
        "inspector/_overview.py",
        "if view.sees(edge[0]) and view.sees(edge[2])]",
        "]",
    ),
    Mutant(
        "tenant_missing_in_the_audit",
        "changes of all tenants are shown",
        "the pages",
        "inspector/_overview.py",
        " if view.sees(entry.event.key)]",
        "]",
    ),
    Mutant(
        "tenant_of_an_object_unchecked",
        "an object of a foreign tenant is shown",
        "the pages",
        "inspector/_objects.py",
        """    view.check_tenant()
    key, now = view.key, view.now""",
        """    key, now = view.key, view.now""",
    ),
    Mutant(
        "characters_left_invisible",
        "invisible characters stay so",
        "the pages",
        "inspector/_rendering.py",
        "        finalize=visible,\n",
        "",
    ),
    Mutant(
        "escaping_off",
        "stored markup is markup",
        "the pages",
        "inspector/_rendering.py",
        "autoescape=True",
        "autoescape=False",
    ),
    Mutant(
        "failed_redaction_shows_all",
        "what couldn't be redacted is shown",
        "contents",
        "inspector/_contents.py",
        "            return WITHHELD",
        "            return value",
    ),
    Mutant(
        "expected_ignored",
        "an edit is saved on whatever is stored",
        "changes",
        "_api/editing.py",
        "changed, expected=expected)",
        "changed)",
    ),
    Mutant(
        "drop_of_a_foreign_tenant",
        "the tenant of a change isn't checked",
        "changes",
        "inspector/_dead.py",
        """    view.check_tenant()
    if not view.source.is_running:""",
        """    if not view.source.is_running:""",
    ),
]


if __name__ == "__main__":
    sys.exit(main("python -m inspector.mutants", MUTANTS, CHECKS))
