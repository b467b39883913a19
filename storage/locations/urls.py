"""The URLs of a lake in the settings: supported ones only, and without a password.

No message shows the setting, since it may contain a password.
"""

import re
from pathlib import Path
from urllib.parse import quote, unquote

from storage.errors import SettingsError

POSTGRES = "postgres:"
"""Prefix of a catalog's URL; a libpq connection string follows."""
_POSTGRES = re.compile(r"postgres(ql)?:")
_PASSWORD = re.compile(r"password\s*=|//[^@]*:[^@]*@", re.IGNORECASE)
_SHOWN = re.compile(r"""(password["'\s]*=\s*)('[^']*'|[^\s'"]+)|(//[^/\s:@'"]*:)[^\s'"]+(?=@)""", re.IGNORECASE)
_DATA = re.compile(r"(s3|gs|az)://[a-z0-9][\w.-]*(/[\w.=-]+)*/?", re.ASCII)


def check_catalog(url: str) -> str:
    """Return a catalog's URL in DuckDB's notation: ``postgres:`` and a libpq connection string, as pairs or a URI.

    Raises:
        SettingsError: if it is not a Postgres URL, or contains a password.
    """
    prefix = _POSTGRES.match(url)
    if not prefix:
        raise SettingsError(
            "lake.catalog", "must begin with postgres:", "Write postgres:dbname=lake host=db, or postgresql://db/lake"
        )
    if _PASSWORD.search(unquote(url)):  # libpq decodes it, too
        raise SettingsError(
            "lake.catalog",
            "must not contain a password, which would end up in logs",
            "Put it into PGPASSWORD, ~/.pgpass or a service file",
        )
    pairs = url[prefix.end() :]
    return POSTGRES + (url if pairs.startswith("//") else pairs)


def check_data(url: str) -> str:
    """Return the URL of a data folder without a trailing slash.

    Raises:
        SettingsError: if it is not a folder in a bucket, or contains more than that.
    """
    if not _DATA.fullmatch(url):
        raise SettingsError(
            "lake.data",
            "must be s3://bucket/folder, gs://bucket/folder or az://container/folder, without credentials",
            "Use letters, digits, dots, dashes, underscores; put credentials into the environment or a profile",
        )
    return url.rstrip("/")


def write_sqlite_url(path: Path) -> str:
    """Return the URL of a SQLite file for SQLAlchemy, which decodes it and ends its path at a question mark.

    With the driver named, MLflow does not take the encoded path for one in which to create a folder.
    """
    text = str(path)
    return f"sqlite+pysqlite:///{quote(text)}" if set(text) & set("?#%") else f"sqlite:///{text}"


def read_sqlite_url(url: str) -> Path | None:
    """Return the file of a SQLite URL of SQLAlchemy; None for another kind of URL."""
    match = re.fullmatch(r"sqlite(?:\+pysqlite)?:///([^?]*)(?:\?.*)?", url)
    return Path(unquote(match[1])) if match else None


def mask(text: str) -> str:
    """Replace what looks like a password in a message by stars: users put passwords in the wrong place."""
    return _SHOWN.sub(r"\1\3***", unquote(text) if _PASSWORD.search(unquote(text)) else text)
