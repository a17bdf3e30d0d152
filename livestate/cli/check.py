"""`livestate check`: request a document as clients do, and report problems with how it is served."""

import gzip
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import brotli
import msgspec
import treq
import zstandard
from OpenSSL import SSL
from twisted.internet.defer import TimeoutError as DeferTimeout
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.web.client import Agent, PartialDownloadError, ResponseFailed
from twisted.web.http_headers import Headers
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from livestate.client.address import parse_address
from livestate.config.redaction import redacted
from livestate.errors import LivestateError, SettingsError
from livestate.formats.negotiation import CODINGS
from livestate.system.timeouts import with_timeout
from livestate.tls.contexts import client_options, describe_connection_error

#: Timeout in seconds for one response.
TIMEOUT = 10.0

_DECODERS = {
    "identity": lambda data: data,
    "gzip": gzip.decompress,
    "br": brotli.decompress,
    "zstd": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
}


@implementer(IPolicyForHTTPS)
class _Policy:
    """Verifies certificates against the system's authorities, or those in one file."""

    def __init__(self, cafile: Path | None) -> None:
        self._cafile = None if cafile is None else str(cafile)

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:
        return client_options(hostname.decode("ascii"), self._cafile)


@dataclass(frozen=True, slots=True)
class _CheckedResponse:
    status: int
    fields: Headers
    body: bytes

    def field(self, name: str) -> str:
        return ", ".join(self.fields.getRawHeaders(name, []))


async def check_url(reactor: Any, url: str, cafile: Path | None, output: TextIO) -> int:
    """Request `url` in every content coding and with its entity tags, and print the responses and their problems.

    :param cafile: a PEM file of certificate authorities to trust instead of the system's.
    :returns: the exit status: 0 if there are no problems, else 1.
    :raises LivestateError: when the server cannot be reached, its certificate cannot be verified, or `url` is not a
        valid URL.
    """
    address = parse_address(url)
    url, login = address.document, _authorization(address.login)
    agent = Agent(reactor, _Policy(cafile))
    problems: list[str] = []
    max_age = 0
    for coding in CODINGS[::-1]:
        response = await _get(reactor, agent, url, {"Accept-Encoding": coding, **login})
        if coding == "identity":
            _print_fields(url, response, output)
        if response.status != 200:
            problems.append(f"{coding}: answered {response.status} {_detail(response)}".rstrip())
            break
        problems += [f"{coding}: {problem}" for problem in _find_problems(response)]
        encoding = response.field("Content-Encoding") or "identity"
        etag = response.field("ETag")
        age = response.field("Livestate-Age")
        max_age = max(max_age, int(age) if age.isdecimal() else 0)
        print(f"  {coding:<9} {len(response.body):>11,} bytes  {encoding:<9} ETag {etag or '(none)'}", file=output)
        if etag:
            second = await _get(reactor, agent, url, {"Accept-Encoding": coding, "If-None-Match": etag, **login})
            # A 200 with another tag is correct: the document changed between the two requests.
            if second.status != 304 and second.field("ETag") == etag:
                problems.append(f"{coding}: answered {second.status} to the current ETag in If-None-Match, not 304")
    if max_age > 10:
        problems.append(f"the document is {max_age:,} s old: livestate is not getting it from the store")
    for problem in problems:
        print(f"problem: {problem}", file=output)
    if not problems:
        print("no problems found", file=output)
    return 1 if problems else 0


def _authorization(login: tuple[str, str] | None) -> dict[str, str]:
    """Return the header field for Basic authentication (RFC 7617), if there is a login."""
    if login is None:
        return {}
    return {"Authorization": "Basic " + b64encode(":".join(login).encode("utf-8")).decode("ascii")}


async def _get(reactor: Any, agent: Agent, url: str, fields: dict[str, str]) -> _CheckedResponse:
    headers = Headers({name: [value] for name, value in {"User-Agent": "livestate-check", **fields}.items()})

    async def get() -> _CheckedResponse:
        response = await agent.request(b"GET", url.encode("ascii"), headers)
        return _CheckedResponse(response.code, response.headers, await treq.content(response))

    try:
        return await with_timeout(TIMEOUT, get(), reactor)
    except DeferTimeout:
        raise LivestateError(f"{redacted(url)}: no answer within {TIMEOUT:g} s") from None
    except ValueError as error:
        raise SettingsError(f"{redacted(url)}: {error}") from None
    except (ConnectError, ConnectionDone, ConnectionLost, OSError, PartialDownloadError, ResponseFailed) as error:
        reason = error.reasons[0].value if isinstance(error, ResponseFailed) else error
        raise LivestateError(f"{redacted(url)}: {_explain(reason)}") from None


def _explain(reason: BaseException) -> str:
    hint = " (trust another CA or a development certificate with --cafile FILE)"
    return describe_connection_error(reason) + (hint if isinstance(reason, SSL.Error) else "")


def _print_fields(url: str, response: _CheckedResponse, output: TextIO) -> None:
    print(f"{redacted(url)} answered {response.status}", file=output)
    for name in ("Content-Type", "Cache-Control", "Last-Modified", "Livestate-Age", "Access-Control-Allow-Origin"):
        value = response.field(name)
        if value:
            print(f"  {name}: {value}", file=output)


def _find_problems(response: _CheckedResponse) -> list[str]:
    """Return the problems that a 200 response causes for clients and caches."""
    problems = []
    encoding = response.field("Content-Encoding") or "identity"
    try:
        document = _DECODERS[encoding](response.body)
        msgspec.json.decode(document, type=msgspec.Raw)
    except KeyError:
        problems.append(f"Content-Encoding is {encoding!r}, which was not requested")
    except Exception as error:  # every decoder raises exceptions of its own
        problems.append(f"the body is not valid JSON in {encoding}: {error}")
    if response.field("Content-Type").partition(";")[0].strip() != "application/json":
        problems.append(f"Content-Type is {response.field('Content-Type')!r}, not application/json")
    etag = response.field("ETag")
    if not etag:
        problems.append("no ETag: every poll transfers the whole document")
    elif etag.startswith("W/"):
        problems.append("the ETag is weak: something between here and livestate modifies the body")
    if "accept-encoding" not in response.field("Vary").lower():
        problems.append("Vary does not list Accept-Encoding: a cache may send clients an encoding they cannot decode")
    return problems


def _detail(response: _CheckedResponse) -> str:
    """Return the `detail` of a problem document (RFC 9457), or an empty string if the body is not one."""
    try:
        return str(msgspec.json.decode(response.body, type=dict[str, Any]).get("detail", ""))
    except msgspec.DecodeError:
        return ""
