"""Looking at a document as a client does, and saying what is wrong, as `livestate check` does."""

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

#: Seconds for one answer.
TIMEOUT = 10.0

_DECODERS = {
    "identity": lambda data: data,
    "gzip": gzip.decompress,
    "br": brotli.decompress,
    "zstd": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
}


@implementer(IPolicyForHTTPS)
class _Policy:
    """Verifies certificates against the system's roots, or those in one file."""

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
    """Fetch `url` in every content coding and with its entity tags, and print what came and what is wrong.

    :returns: the exit status: 0 nothing is wrong, 1 something is.
    :raises LivestateError: the server cannot be reached, its certificate cannot be verified, or `url` is none.
    """
    address = parse_address(url)
    url, login = address.document, _authorization(address.login)
    agent = Agent(reactor, _Policy(cafile))
    wrong: list[str] = []
    oldest = 0
    for coding in CODINGS[::-1]:
        answer = await _get(reactor, agent, url, {"Accept-Encoding": coding, **login})
        if coding == "identity":
            _print_head(url, answer, output)
        if answer.status != 200:
            wrong.append(f"{coding}: answered {answer.status} {_detail(answer)}".rstrip())
            break
        wrong += [f"{coding}: {text}" for text in _wrong_with(answer)]
        sent = answer.field("Content-Encoding") or "identity"
        tag = answer.field("ETag")
        age = answer.field("Livestate-Age")
        oldest = max(oldest, int(age) if age.isdecimal() else 0)
        print(f"  {coding:<9} {len(answer.body):>11,} bytes  {sent:<9} ETag {tag or '(none)'}", file=output)
        if tag:
            again = await _get(reactor, agent, url, {"Accept-Encoding": coding, "If-None-Match": tag, **login})
            # A document that changed in between is rightly sent whole.
            if again.status != 304 and again.field("ETag") == tag:
                wrong.append(f"{coding}: answered {again.status} to If-None-Match with the current ETag, not 304")
    if oldest > 10:
        wrong.append(f"the document is {oldest:,} s old: the store behind livestate does not answer")
    for text in wrong:
        print(f"wrong: {text}", file=output)
    if not wrong:
        print("nothing is wrong", file=output)
    return 1 if wrong else 0


def _authorization(login: tuple[str, str] | None) -> dict[str, str]:
    """Give the field that carries a user and a password (RFC 7617), where there are such."""
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
        raise LivestateError(f"{redacted(url)}: {_explained(reason)}") from None


def _explained(reason: BaseException) -> str:
    hint = " (--cafile FILE trusts another authority, or a development certificate)"
    return describe_connection_error(reason) + (hint if isinstance(reason, SSL.Error) else "")


def _print_head(url: str, answer: _CheckedResponse, output: TextIO) -> None:
    print(f"{redacted(url)} answered {answer.status}", file=output)
    for name in ("Content-Type", "Cache-Control", "Last-Modified", "Livestate-Age", "Access-Control-Allow-Origin"):
        value = answer.field(name)
        if value:
            print(f"  {name}: {value}", file=output)


def _wrong_with(answer: _CheckedResponse) -> list[str]:
    """Say what readers and caches will stumble over in a 200 answer."""
    wrong = []
    sent = answer.field("Content-Encoding") or "identity"
    try:
        document = _DECODERS[sent](answer.body)
        msgspec.json.decode(document, type=msgspec.Raw)
    except KeyError:
        wrong.append(f"sent in the content coding {sent!r}, which was not asked for")
    except Exception as error:  # every decoder has exceptions of its own
        wrong.append(f"the body is not JSON in {sent}: {error}")
    if answer.field("Content-Type").partition(";")[0].strip() != "application/json":
        wrong.append(f"Content-Type is {answer.field('Content-Type')!r}, not application/json")
    tag = answer.field("ETag")
    if not tag:
        wrong.append("no ETag: every poll fetches the whole document")
    elif tag.startswith("W/"):
        wrong.append("the ETag is weak: something between here and livestate changes the bytes")
    if "accept-encoding" not in answer.field("Vary").lower():
        wrong.append("Vary does not name Accept-Encoding: a cache may give one client another's coding")
    return wrong


def _detail(answer: _CheckedResponse) -> str:
    """Give the explanation in a problem document (RFC 9457), if it is one."""
    try:
        return str(msgspec.json.decode(answer.body, type=dict[str, Any]).get("detail", ""))
    except msgspec.DecodeError:
        return ""
