"""Opens the folder that a path or URI names, and checks whether two folders are separate."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote

from deep_piano.errors import InputError, one_line
from deep_piano.infra.storage.bucket import ATTEMPTS, Bucket, without_password
from deep_piano.infra.storage.folder import Folder
from deep_piano.infra.storage.local import LocalFolder, escape
from deep_piano.infra.storage.s3 import S3Folder


def open_folder(
    uri: str | os.PathLike[str],
    *,
    endpoint: str | None = None,
    region: str | None = None,
    attempts: int = ATTEMPTS,
) -> Folder:
    """Return the folder that a path or URI names, without any access to it.

    Parameters
    ----------
    uri : str or path
        A local path, `file:///path`, `s3://bucket` or `s3://bucket/prefix`.
    endpoint, region : str, optional
        Of an S3 service; boto3 finds them in the environment or the profile where not given.
    attempts : int
        How often a request to it is made before it has failed.

    Raises
    ------
    InputError
        The URI is of another kind or names no bucket.

    Examples
    --------
    >>> open_folder("s3://music/piano/").uri
    's3://music/piano'
    """
    text = os.fspath(uri)
    scheme, separator, rest = text.partition("://")
    shown = one_line(without_password(text))
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme) or not separator:
        if not text or "\0" in text or text.startswith("s3:"):
            raise InputError(f"{shown!r} is not a folder. Give a local one or s3://bucket/prefix.")
        return LocalFolder(escape(text), Path(text).absolute())
    if scheme.lower() == "file":
        host, slash, path = unquote(rest, errors="surrogateescape").partition("/")
        if host not in ("", "localhost") or not slash or "\0" in path:
            raise InputError(f"{shown} is not a folder of this machine. Write file:///path.")
        return LocalFolder(escape(text), Path("/" + path))
    if scheme.lower() != "s3":
        raise InputError(
            f"{shown} is of an unknown kind. Give a local folder or s3://bucket/prefix."
        )
    bucket, _, prefix = rest.partition("/")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}", bucket):
        raise InputError(f"{shown} names no bucket. Write s3://bucket or s3://bucket/prefix.")
    prefix = prefix.strip("/")
    return S3Folder(
        uri=f"s3://{bucket}/{prefix}".rstrip("/"),
        bucket=Bucket(bucket, endpoint, region, attempts),
        prefix=prefix and prefix + "/",
    )


def require_apart(corpus: Folder, dataset: Folder) -> None:
    """Raise `InputError` where the folders to read and to write contain each other."""
    if _holds(corpus, dataset) or _holds(dataset, corpus):
        raise InputError(
            f"{dataset.uri}, to write to, and {corpus.uri}, to read from, contain each other. "
            "Give what is written a folder of its own."
        )


def _holds(outer: Folder, inner: Folder) -> bool:
    """Tell whether one folder is, or is within, another."""
    if isinstance(outer, LocalFolder) and isinstance(inner, LocalFolder):
        return inner.root.resolve().is_relative_to(outer.root.resolve())
    if isinstance(outer, S3Folder) and isinstance(inner, S3Folder):
        return outer.bucket == inner.bucket and inner.prefix.startswith(outer.prefix)
    return False
