"""Object stores, opened with credentials from the usual environment variables and profile files.

For ``s3://``, pyarrow and DuckDB each use the AWS SDK, which reads ``AWS_*`` variables, ``~/.aws`` and machine roles;
``AWS_ENDPOINT_URL`` selects an S3-compatible store. ``gs://`` uses Google's S3-compatible API, with HMAC keys in the
same variables. For ``az://`` both use the Azure SDK, with ``AZURE_*`` variables or the login of ``az``.
"""

import functools
import os

from pyarrow import fs

from storage.errors import LakeError

WHEELS = {"s3": ("httpfs", "aws"), "gs": ("httpfs", "aws"), "az": ("azure",)}
GOOGLE = "https://storage.googleapis.com"
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
ACCOUNT = "AZURE_STORAGE_ACCOUNT"


def split_url(url: str) -> tuple[str, str]:
    """Split the URL of an object into its scheme and its path, which begins with the bucket."""
    scheme, _, path = url.partition("://")
    return scheme, path


def open_store(url: str) -> fs.FileSystem:
    """Open the file system of the store of a URL.

    Raises:
        LakeError: if the environment names no account.
    """
    scheme, _ = split_url(url)
    return _open_azure(find_account()) if scheme == "az" else _open_s3(find_endpoint(scheme))


@functools.cache
def _open_s3(endpoint: str | None) -> fs.FileSystem:
    return fs.S3FileSystem(endpoint_override=endpoint)


@functools.cache
def _open_azure(account: str) -> fs.FileSystem:
    return fs.AzureFileSystem(account)


def check_store(url: str) -> None:
    """Check that a store answers and has the bucket.

    Raises:
        LakeError: if it does not.
    """
    bucket = split_url(url)[1].partition("/")[0]
    try:
        exists = open_store(url).get_file_info(bucket).type is not fs.FileType.NotFound
        reason = "does not exist"
    except OSError as error:
        exists, reason = False, f"cannot be read: {error}"
    if not exists:
        raise LakeError(f"bucket {bucket}", reason, "Check lake.data, the endpoint and the credentials")


def write_secret(url: str) -> str:
    """Return the SQL that gives a DuckDB connection access to the store of a URL."""
    scheme, _ = split_url(url)
    if scheme == "az":
        return _secret("azure", url, f"ACCOUNT_NAME '{find_account()}'")
    options = ["REFRESH auto"]
    if endpoint := find_endpoint(scheme):
        protocol, host = split_url(endpoint.rstrip("/"))
        options += [f"ENDPOINT '{host}'", f"USE_SSL {protocol == 'https'}", "URL_STYLE 'path'"]
    return _secret("gcs" if scheme == "gs" else scheme, url, *options)


def name_missing(url: str) -> str:
    """Describe the missing credentials for the store of a URL."""
    scheme, _ = split_url(url)
    if scheme == "az":
        return "neither AZURE_* variables nor a login with az give access"
    missing = [name for name in KEYS if not os.environ.get(name)] or ["AWS_PROFILE"]
    google = ", which for gs:// hold a Google HMAC key" if scheme == "gs" else ""
    return f"{' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} not set{google}, and no profile has them"


def find_endpoint(scheme: str) -> str | None:
    """Return the URL of the S3 service that the environment names; None for Amazon's own."""
    named = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return named or (GOOGLE if scheme == "gs" else None)


def find_account() -> str:
    """Return the Azure storage account that the environment names.

    Raises:
        LakeError: if it names none.
    """
    account = os.environ.get(ACCOUNT, "")
    if not account.isalnum():
        raise LakeError(ACCOUNT, "must name the storage account of an az:// folder", "Set it in the environment")
    return account


def _secret(kind: str, url: str, *options: str) -> str:
    more = "".join(f", {option}" for option in options)
    return f"CREATE OR REPLACE TEMPORARY SECRET lake_data (TYPE {kind}, PROVIDER credential_chain, SCOPE '{url}'{more})"
