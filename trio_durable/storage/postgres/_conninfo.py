"""Connection string of a PostgreSQL database, which never shows its password.

libpq parses the string, a URL or ``key=value`` pairs, and takes missing parameters from the
environment, the password file or the service file. Two of its habits would reveal passwords:

- Its messages about a malformed string quote parts of it, so they aren't passed on.
- It reads a URL with an unescaped ``@`` in the password as another host or database, which then
  appears in messages. So such URLs are refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo as Defaults

_HELP = (
    "check its parameters' names, and write special characters of user, password and database as "
    "%XX in a URL (p%40ss for p@ss) or in quotes between spaces (password='p@ss')"
)
_SECRETS = ("password", "sslpassword")
_SEARCH_PATH = re.compile(r"(?:-c\s*|--)search_path=((?:\\.|\S)+)")
_PORTS = re.compile(r"[0-9]*(,[0-9]*)*")


class Conninfo:
    """A parsed connection string.

    Raises:
        TypeError: It isn't a str.
        ValueError: It is malformed. The message quotes nothing of it.
    """

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise TypeError(f"a connection string is a str, not {type(text).__name__}")
        parameters = _parsed(text)
        if parameters is None:
            raise ValueError(f"the PostgreSQL connection string can't be read; {_HELP}")
        self._parameters = parameters
        self._secrets = [parameters[name] for name in _SECRETS if parameters.get(name)]
        self.location = _location(parameters)
        """The database as a URL, without secrets."""

    def __repr__(self) -> str:
        return f"<Conninfo of {self.location}>"

    @property
    def options(self) -> str:
        """Command-line options for the server; "" if the string has none."""
        return self._parameters.get("options", "")

    def parameters(self, **defaults: object) -> dict[str, str]:
        """Parameters for libpq: ``defaults``, unless the environment or the string sets them."""
        given = {
            option.keyword.decode()
            for option in Defaults.get_defaults()
            if option.envvar and option.envvar.decode() in os.environ
        }
        own = {name: str(value) for name, value in defaults.items() if name not in given}
        return {**own, **self._parameters}

    def censored(self, text: str) -> str:
        """``text`` with all secrets of this string replaced by ``***``."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _parsed(text: str) -> dict[str, str] | None:
    scheme, separator, rest = text.partition("://")
    if separator and scheme in ("postgresql", "postgres"):
        authority, _, path = rest.partition("?")[0].partition("/")
        if "@" in path or authority.count("@") > 1:
            return None
    try:
        found = conninfo_to_dict(text)
    except psycopg.Error:
        return None
    parameters = {name: str(value) for name, value in found.items() if value is not None}
    if _PORTS.fullmatch(parameters.get("port", "")) is None or "@" in parameters.get("host", ""):
        return None
    return parameters


def _location(parameters: Mapping[str, str]) -> str:
    defaults = {
        option.keyword.decode(): option.val.decode(errors="replace")
        for option in Defaults.get_defaults()
        if option.val
    }

    def part(name: str) -> str:
        return parameters.get(name) or defaults.get(name, "")

    user, host, port = part("user"), part("host") or part("hostaddr"), part("port")
    query = [f"service={quote(part('service'))}"] if part("service") else []
    # The search path selects the tables, so it is part of the location. Other options aren't.
    if path := _SEARCH_PATH.search(part("options")):
        query.append(f"options={quote(f'-csearch_path={path[1]}', safe='')}")
    return "".join(
        (
            "postgresql://",
            f"{quote(user, safe='')}@" if user else "",
            quote(host, safe=",[]:"),
            f":{port}" if port else "",
            f"/{quote(part('dbname') or user, safe='')}",
            f"?{'&'.join(query)}" if query else "",
        )
    )
