"""Buckets and keys of S3 through boto3: one client for a process, every error in one line.

This module knows what goes wrong with buckets; it knows nothing of folders or of recordings. No
message of it holds a secret key, a token or a password.
"""

from __future__ import annotations

import functools
import ipaddress
import logging
import mimetypes
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from deep_piano.errors import DeepPianoError, InputError, one_line

logger = logging.getLogger(__name__)

ATTEMPTS = 10
_CONNECT_TIMEOUT_S = 5
_LONGEST_PAUSE_S = 20.0  # botocore's own
_READ_TIMEOUT_S = 60
_BLOCK_BYTES = 1 << 20
_SET_CREDENTIALS = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"

_ONE_OBJECT = {
    "NoSuchKey": "there is no such file. List the folder again",
    "AccessDenied": "access is denied. Ask for the permission, or use other credentials",
    "403": "access is denied. Ask for the permission, or use other credentials",
    "InvalidObjectState": "the file is archived. Restore it first",
}
_NO_BUCKET = "there is no such bucket. Check its name and the endpoint, or create it"
_REFUSED = f"the credentials are refused. {_SET_CREDENTIALS}"
_EXPIRED = "the credentials have expired. Renew them"
_TAKEN = "it exists already: another run writes to the same name. Give another name"
_ELSEWHERE = "the bucket is in another region. Give that region, or set AWS_REGION"
_MISTAKES = {
    **dict.fromkeys(["NoSuchBucket", "InvalidBucketName"], _NO_BUCKET),
    **dict.fromkeys(["InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken"], _REFUSED),
    **dict.fromkeys(["ExpiredToken", "TokenRefreshRequired"], _EXPIRED),
    **dict.fromkeys(["PermanentRedirect", "AuthorizationHeaderMalformed"], _ELSEWHERE),
    **dict.fromkeys(["PreconditionFailed", "ConditionalRequestConflict"], _TAKEN),
    "RequestTimeTooSkewed": "the clock of this machine is wrong. Set it",
    "404": "there is nothing there. Check the bucket, the name and the endpoint",
}


@functools.cache
def connect(endpoint: str | None, region: str | None, attempts: int = ATTEMPTS) -> Any:
    """Return this process's client of an endpoint, without sending anything.

    A client takes a tenth of a second to make and may be used by several threads.

    Parameters
    ----------
    endpoint, region : str or None
        None leaves the choice to boto3: AWS_ENDPOINT_URL, AWS_REGION, the profile.
    attempts : int
        How often a request is made before it has failed, with longer and longer pauses between.

    Raises
    ------
    InputError
        The endpoint is not a URL, the profile is unknown, or the region is not valid.
    """
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    config = Config(
        retries={"mode": "standard", "total_max_attempts": attempts},
        connect_timeout=_CONNECT_TIMEOUT_S,
        read_timeout=_READ_TIMEOUT_S,
    )
    # boto3 itself reads AWS_DEFAULT_REGION only; every other client of AWS reads AWS_REGION.
    region = region or os.environ.get("AWS_REGION")
    try:
        session = boto3.session.Session(region_name=region)
        client = session.client("s3", endpoint_url=endpoint, config=config)
    except (BotoCoreError, ValueError) as error:
        raise InputError(
            f"cannot set up S3: {one_line(without_password(str(error)))}. "
            "Check the endpoint (such as http://127.0.0.1:9000), the region and AWS_PROFILE."
        ) from error
    _warn_of_plain_text(client.meta.endpoint_url)
    return client


def _warn_of_plain_text(url: str) -> None:
    """Warn once for each client where an endpoint has no TLS, unless it is this machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    with suppress(ValueError):  # a name, not an address
        if ipaddress.ip_address(host).is_loopback:
            return
    if parts.scheme == "http" and host != "localhost":
        logger.warning(
            "%s is S3 without TLS: whoever is on the way can read and change what is stored. Give "
            "an https:// endpoint.",
            one_line(without_password(url)),
        )


@dataclass(frozen=True)
class Bucket:
    """A bucket of an endpoint. It can be pickled: the client belongs to the process.

    Every method raises InputError for a mistake or a permission that trying again does not mend,
    and DeepPianoError for trouble that lasted longer than the retries.

    Attributes
    ----------
    name : str
    endpoint, region, attempts
        As for `connect`.
    """

    name: str
    endpoint: str | None = None
    region: str | None = None
    attempts: int = ATTEMPTS

    def keys(self, prefix: str) -> Iterator[tuple[str, int, str]]:
        """Yield the key of every object below a prefix, its size in bytes and its stamp.

        The stamp is the ETag and the time of the last change.
        """
        with self._explained("list", prefix) as client:
            pages = client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.name, Prefix=prefix):
                for item in page.get("Contents", ()):
                    etag, changed = item["ETag"].strip('"'), item["LastModified"].isoformat()
                    yield item["Key"], item["Size"], f"{etag} {changed}"

    def download(self, key: str, path: Path, *, one_object: type[DeepPianoError]) -> None:
        """Write an object to a file; repeat a transfer that breaks off.

        Raises
        ------
        one_object
            This object is missing, denied or archived; the others need not be.
        """
        with self._explained("read", key, one_object=one_object) as client:
            _download(client, self.name, key, path, self.attempts)

    def upload(self, path: Path, key: str, *, replace: bool = True) -> None:
        """Store a file of at most 5 GB in one request, which is atomic.

        Its type is told by its name, so that a browser shows a page and plays a sound. Without
        `replace`, an existing object of that key raises an InputError.
        """
        kind = mimetypes.guess_type(key)[0] or "application/octet-stream"
        condition = {} if replace else {"IfNoneMatch": "*"}
        with self._explained("write", key) as client, path.open("rb") as body:
            client.put_object(Bucket=self.name, Key=key, Body=body, ContentType=kind, **condition)

    def exists(self, key: str) -> bool:
        """Tell whether there is an object of that key."""
        # Not a HEAD request: its errors have no body, so a missing bucket looks like a missing
        # key. Keys come sorted, and a key is the first of those that begin with it.
        with self._explained("look at", key) as client:
            page = client.list_objects_v2(Bucket=self.name, Prefix=key, MaxKeys=1)
        return any(item["Key"] == key for item in page.get("Contents", ()))

    def remove(self, key: str) -> None:
        """Remove an object; one that is missing is fine."""
        with self._explained("remove", key) as client:
            client.delete_object(Bucket=self.name, Key=key)

    @contextmanager
    def _explained(
        self, doing: str, key: str, *, one_object: type[DeepPianoError] = InputError
    ) -> Iterator[Any]:
        client = connect(self.endpoint, self.region, self.attempts)
        with explained(f"{doing} s3://{self.name}/{one_line(key)}", client, one_object):
            yield client


_answered: set[str] = set()  # endpoints that have answered: their loss is not a user's mistake


@contextmanager
def explained(
    doing: str, client: Any, one_object: type[DeepPianoError] = InputError
) -> Iterator[None]:
    """Turn the errors of boto3 in the block into one line.

    Parameters
    ----------
    doing : str
        What the block does: "list s3://bucket/prefix".
    client : object
        The client that does it.
    one_object : type
        What to raise where one object is missing or denied and others need not be.

    Raises
    ------
    InputError
        A mistake or a permission that trying again does not mend.
    DeepPianoError
        Trouble that lasted longer than the retries; an endpoint that has answered before and is
        gone.
    """
    from botocore import exceptions as boto
    from botocore.parsers import ResponseParserError

    endpoint = without_password(client.meta.endpoint_url)
    kind: type[DeepPianoError] = InputError
    try:
        yield
        _answered.add(endpoint)
        return
    except boto.ClientError as error:
        _answered.add(endpoint)
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in _ONE_OBJECT:
            kind, why = one_object, _ONE_OBJECT[code]
        elif code in _MISTAKES:
            why = _MISTAKES[code]
        else:
            said = one_line(str(error.response.get("Error", {}).get("Message", "")))[:200]
            why = f"{endpoint} answers {code} ({said}). Check it, or try again later"
            kind = DeepPianoError
    except (
        boto.NoCredentialsError,
        boto.PartialCredentialsError,
        boto.CredentialRetrievalError,
        boto.TokenRetrievalError,
        boto.SSOError,
    ) as error:
        why = f"there are no usable credentials ({type(error).__name__}). {_SET_CREDENTIALS}"
    except boto.SSLError:
        why = f"the certificate of {endpoint} is not trusted. Check the endpoint and AWS_CA_BUNDLE"
    except boto.ConnectionError as error:
        why = f"{endpoint} cannot be reached ({type(error).__name__}). Check it and the network"
        if endpoint in _answered:
            kind = DeepPianoError
    except (
        boto.HTTPClientError,
        boto.IncompleteReadError,
        boto.FlexibleChecksumError,
    ) as error:
        kind = DeepPianoError
        why = f"the transfer failed every time ({type(error).__name__}). Try again later"
    except boto.BotoCoreError as error:
        why = f"{one_line(without_password(str(error)))}. Check the AWS settings"
    except (ResponseParserError, KeyError, ValueError):
        why = f"{endpoint} does not answer as S3 does. Check the endpoint"
    # boto3's message may quote a header, and so a token: show no traceback of it.
    raise kind(f"cannot {doing}: {why}.") from None


def _download(client: Any, bucket: str, key: str, path: Path, attempts: int) -> None:
    from botocore.exceptions import FlexibleChecksumError, HTTPClientError, IncompleteReadError

    for attempt in range(attempts):
        # boto3 repeats requests, but not the reading of a response's body.
        body = client.get_object(Bucket=bucket, Key=key)["Body"]
        try:
            with path.open("wb") as file, closing(body):
                shutil.copyfileobj(body, file, _BLOCK_BYTES)
            return
        except (HTTPClientError, IncompleteReadError, FlexibleChecksumError) as error:
            if attempt == attempts - 1:
                raise
            logger.debug("fetching %s again after %s", key, type(error).__name__)
            time.sleep(min(_LONGEST_PAUSE_S, 0.1 * 2**attempt))


def without_password(text: str) -> str:
    """Return a text without the part before an @, where URLs have passwords.

    Examples
    --------
    >>> without_password("https://me:secret@host/x")
    'https://...@host/x'
    """
    return re.sub(r"(\w+://)?\S*@", r"\1...@", text)
