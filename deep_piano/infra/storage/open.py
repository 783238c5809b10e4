"""Opens the folder or file of a path or URI, and checks whether two folders are separate."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from deep_piano.errors import InputError, one_line
from deep_piano.infra.storage.bucket import ATTEMPTS, Bucket, without_password
from deep_piano.infra.storage.folder import Folder, named
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
    scheme, rest = _scheme_of(text), text.partition("://")[2]
    shown = one_line(without_password(text))
    if scheme is None:
        if not text or "\0" in text or text.startswith("s3:"):
            raise InputError(f"{shown!r} is not a folder. Give a local one or s3://bucket/prefix.")
        return LocalFolder(escape(text), Path(text).absolute())
    if scheme == "file":
        host, slash, path = unquote(rest, errors="surrogateescape").partition("/")
        if host not in ("", "localhost") or not slash or "\0" in path:
            raise InputError(f"{shown} is not a folder of this machine. Write file:///path.")
        return LocalFolder(escape(text), Path("/" + path))
    if scheme != "s3":
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


@contextmanager
def local_file(uri: str, **service: Any) -> Iterator[Path | None]:
    """Yield the local path of the file that a path or URI names; None where it names a folder.

    Parameters
    ----------
    uri : str
        A local path, `file:///path` or `s3://bucket/key`. A file in S3 is copied; the copy has the
        file's name, and is removed after the block.
    **service
        As for `open_folder`.

    Raises
    ------
    InputError
        The URI is of another kind. A local file need not exist.
    """
    if _scheme_of(uri) != "s3":
        path = local_path(uri)
        is_folder = uri and os.path.isdir(path)  # noqa: PTH112 (of a name too long, Path raises)
        yield None if is_folder else path
        return
    above, _, name = uri.rpartition("/")
    parent = open_folder(above, **service) if name and not above.endswith("/") else None
    if parent is None or not parent.exists(name):
        yield None
        return
    with parent.local(name) as path, named(path, uri):
        yield path


def local_path(uri: str) -> Path:
    """Return the local path that a path or a `file://` URL names.

    Raises
    ------
    InputError
        It names a place elsewhere.
    """
    scheme, shown = _scheme_of(uri), one_line(without_password(uri))
    if scheme is None:
        return Path(uri)
    if scheme == "file":
        folder = open_folder(uri)
        assert isinstance(folder, LocalFolder)
        return folder.root
    if scheme == "s3":
        raise InputError(f"{shown} is in S3, and a file on this machine is needed. Give a path.")
    raise InputError(
        f"{shown} is on another machine, and nothing is downloaded from there. Download it, and "
        "give the file's path."
    )


def _scheme_of(uri: str) -> str | None:
    """Return the scheme of a URI in lower case; None for a path."""
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", uri)
    return found[1].lower() if found else None


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
