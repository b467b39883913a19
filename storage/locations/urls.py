"""Where a lake lies, as a setting names it: what can be served, and never with a password in it.

No message shows the setting: it may hold the password that it should not.
"""

import re
from urllib.parse import unquote

from storage.errors import SettingsError

POSTGRES = "postgres:"
"""What begins a catalog's url; what libpq takes comes behind it."""
_POSTGRES = re.compile(r"postgres(ql)?:")
_PASSWORD = re.compile(r"password\s*=|//[^@]*:[^@]*@", re.IGNORECASE)
_SHOWN = re.compile(r"""(password["'\s]*=\s*)('[^']*'|[^\s'"]+)|(//[^/\s:@'"]*:)[^\s'"]+(?=@)""", re.IGNORECASE)
_DATA = re.compile(r"(s3|gs|az)://[a-z0-9][\w.-]*(/[\w.=-]+)*/?", re.ASCII)


def check_catalog(url: str) -> str:
    """Give a catalog's url as DuckDB takes it: ``postgres:`` before what libpq takes, pairs or a URI.

    Raises:
        SettingsError: where it is no Postgres, or holds a password.
    """
    found = _POSTGRES.match(url)
    if not found:
        raise SettingsError(
            "lake.catalog", "must begin with postgres:", "Write postgres:dbname=lake host=db, or postgresql://db/lake"
        )
    if _PASSWORD.search(unquote(url)):  # libpq reads it so
        raise SettingsError(
            "lake.catalog",
            "must hold no password, which would end up in logs",
            "Put it into PGPASSWORD, ~/.pgpass or a service file",
        )
    pairs = url[found.end() :]
    return POSTGRES + (url if pairs.startswith("//") else pairs)


def check_data(url: str) -> str:
    """Give a data folder's url without a slash at its end.

    Raises:
        SettingsError: where it is no folder of a bucket, or holds more than that.
    """
    if not _DATA.fullmatch(url):
        raise SettingsError(
            "lake.data",
            "must be s3://bucket/folder, gs://bucket/folder or az://container/folder, without credentials",
            "Use letters, digits, dots, dashes, underscores; put credentials into the environment or a profile",
        )
    return url.rstrip("/")


def mask(text: str) -> str:
    """Put stars for what looks like a password in a message: some come from what the user wrote in the wrong place."""
    return _SHOWN.sub(r"\1\3***", unquote(text) if _PASSWORD.search(unquote(text)) else text)
