"""Who may ask: this machine's own page, and elsewhere whoever has the token.

A page of another site must not reach the server through a visitor's browser. So the names in Host
and Origin must be exact (a name that is rebound to this address is not), what changes something
needs a header and a cookie that only the page itself can send, and no answer allows another origin
anything. This module knows requests; it knows nothing of what they ask for.
"""

from __future__ import annotations

import ipaddress
import secrets
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

HEADER: Final = "X-Deep-Piano"
TOKEN: Final = "token"
CHANGES_NOTHING: Final = frozenset({"GET", "HEAD"})

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), midi=(self), camera=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class Guard:
    """What a server asks of every request.

    Attributes
    ----------
    port : int
    names : tuple of str
        What the machine is called, beside the address that a request came to. Capitals and small
        letters are the same.
    token : str or None
        What must be known; None where only this machine can connect.
    secret : str
        Of the cookie, which the page gets with its first answer.
    """

    port: int
    names: tuple[str, ...] = ()
    token: str | None = field(default=None, repr=False)
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)

    @property
    def cookie(self) -> str:
        """The name of the cookie: cookies do not tell ports apart."""
        return f"deep_piano_{self.port}"

    def refusal(self, request: web.Request) -> str | None:
        """Return why a request is refused, None where it is not."""
        host = request.headers.get("Host", "").lower()
        if host not in self._hosts(request):
            return "this server is not called so. Open the page by the address that it printed."
        origins = request.headers.getall("Origin", [])
        if any(origin.lower() != f"http://{host}" for origin in origins):
            return "another site asks. Open the page by the address that it printed."
        changes = request.method not in CHANGES_NOTHING
        # A link on another site may lead to the page itself, and to nothing else.
        own = request.headers.get("Sec-Fetch-Site", "none") in ("same-origin", "none")
        if not own and (changes or request.path != "/"):
            return "another site asks. Open the page by the address that it printed."
        known = self._has_cookie(request)
        if self.token is not None and not known and not self._has_token(request):
            return "the token is missing. Open the page by the address that was printed."
        if changes and (request.headers.get(HEADER) != "1" or not known):
            return "the page is out of date. Reload it."
        return None

    def admit(self, response: web.StreamResponse) -> None:
        """Give a page its cookie."""
        response.set_cookie(self.cookie, self.secret, httponly=True, samesite="Strict", path="/")

    def _has_cookie(self, request: web.Request) -> bool:
        return _equal(request.cookies.get(self.cookie, ""), self.secret)

    def _has_token(self, request: web.Request) -> bool:
        # Only the address of the page itself may hold it, which takes it out at once.
        given = request.query.get(TOKEN, "") if request.path == "/" else ""
        return self.token is not None and _equal(given, self.token)

    def _hosts(self, request: web.Request) -> set[str]:
        """Return what Host may be: the address that the connection came to, and our names."""
        found = {name.lower() for name in self.names}
        here = request.transport.get_extra_info("sockname") if request.transport else None
        if here:
            address = ipaddress.ip_address(str(here[0]).partition("%")[0])
            mapped = getattr(address, "ipv4_mapped", None)
            address = mapped or address
            found.add(f"[{address}]" if address.version == 6 else str(address))
            found |= {"localhost"} if address.is_loopback else set()
        return {f"{name}:{self.port}" for name in found} | (found if self.port == 80 else set())


def _equal(given: str, right: str) -> bool:
    return secrets.compare_digest(given.encode("utf-8", "replace"), right.encode())


def middleware(guard: Guard) -> Middleware:
    """Return what stands before every handler: it refuses, and adds the headers of safety."""

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        refusal = guard.refusal(request)
        if refusal is not None:
            return web.json_response({"error": refusal}, status=403)
        return await handler(request)

    return guarded


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Add the headers of safety to an answer, as aiohttp's signal `on_response_prepare`."""
    for name, value in _HEADERS.items():
        response.headers[name] = value
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.pop("Server", None)


def is_this_machine_only(host: str) -> bool:
    """Tell whether only this machine can connect to a server on a host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
