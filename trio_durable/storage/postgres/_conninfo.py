"""Connection string of a PostgreSQL database, which never shows its password.

libpq parses the string, a URL or ``key=value`` pairs, and takes missing parameters from the
environment and the password file. A service file is read here as well, because its hosts are
connected to one by one.

Two of libpq's habits would reveal passwords:

- Its messages about a malformed string quote parts of it, so they aren't passed on.
- It reads a URL with an unescaped ``@`` in the password as another host or database, which then
  appears in messages. So such URLs are refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
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
        service = parameters.get("service") or os.environ.get("PGSERVICE")
        found = _service(service, parameters.get("servicefile")) if service else {}
        self._knows_hosts = found is not None
        self._parameters = {**(found or {}), **parameters}
        self._secrets = [value for name in _SECRETS if (value := self._parameters.get(name))]
        self.location: str = _location(self._parameters)
        """The database as a URL, without secrets."""

    def __repr__(self) -> str:
        return f"<Conninfo of {self.location}>"

    def get(self, name: str) -> str:
        """A parameter of the string, of the service file or of the environment; "" if not set."""
        return self._parameters.get(name) or _from_environment().get(name, "")

    def parameters(self, **defaults: object) -> dict[str, str]:
        """Parameters for libpq: ``defaults``, unless the environment or the string sets them."""
        given = _from_environment()
        own = {name: str(value) for name, value in defaults.items() if name not in given}
        return {**own, **self._parameters}

    def hosts(self) -> list[dict[str, str]]:
        """The parameters ``host``, ``hostaddr`` and ``port`` of each host, in order.

        One empty dict if only libpq knows the hosts, or if the numbers of hosts and ports differ,
        which libpq reports.
        """
        columns = {name: self.get(name).split(",") for name in ("host", "hostaddr", "port")}
        count = max(len(columns["host"]), len(columns["hostaddr"]))
        if not self._knows_hosts or any(len(each) not in (1, count) for each in columns.values()):
            return [{}]
        return [
            {name: each[n if len(each) > 1 else 0] for name, each in columns.items() if any(each)}
            for n in range(count)
        ]

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


def _service(name: str, file: str | None) -> dict[str, str] | None:
    """The parameters of a service; None if no service file has it, or if a server of LDAP has them.

    libpq reads the same files, and reports what is wrong with them.
    """
    places = [Path(file or os.environ.get("PGSERVICEFILE") or "~/.pg_service.conf").expanduser()]
    if folder := os.environ.get("PGSYSCONFDIR"):
        places.append(Path(folder, "pg_service.conf"))
    keywords = {option.keyword.decode() for option in Defaults.get_defaults()} - {"service"}
    for place in places:
        try:
            lines = [line.strip() for line in place.read_text("utf-8").splitlines()]
        except (OSError, UnicodeError):
            continue
        if f"[{name}]" not in lines:
            continue
        found: dict[str, str] = {}
        for line in lines[lines.index(f"[{name}]") + 1 :]:
            if line.startswith("["):
                break
            if line.startswith("ldap"):
                return None
            key, separator, value = line.partition("=")
            if separator and key in keywords:
                found.setdefault(key, value)  # the first one counts
        return found
    return None


def _from_environment() -> dict[str, str]:
    return {
        option.keyword.decode(): os.environ[option.envvar.decode()]
        for option in Defaults.get_defaults()
        if option.envvar and option.envvar.decode() in os.environ
    }


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
