"""A document that is one record of a MongoDB collection.

    mongodb://[user:password@]host[:27017][,host2…]/database?collection=results
    mongodb://…/database?collection=results&query={"_id":"2026"}            the filter, URL-encoded, extended JSON
    mongodb://…/database?collection=results&notify=changes                  fetched at once when the collection changes

`query` (default: any) must match exactly one document. Which of several would be served is not defined in MongoDB
and could change from one fetch to the next, so several are refused, as is none. The other parameters are MongoDB's
own, by its names: `_DRIVER` lists them. Those that weaken TLS or hold a password are left out on purpose.

`mongodb_json` says what becomes of MongoDB's types in JSON.

PyMongo in one thread does the work. txmongo (26.0, tried against a server) cannot do it honestly: it knows no
SCRAM-SHA-256, so users made with that alone cannot come in; it swallows the error of a wrong password; and `tls=true`
in its URL is ignored and plaintext sent. It needs PyMongo in any case.

A thread cannot be cancelled, so three rules keep a bad server from costing more than that one thread:

- Every step with the server has an end (connectTimeoutMS and socketTimeoutMS, 1 s), whoever still waits for it.
- A fetch that was cancelled leaves its operation running; the next one first waits for it, and never runs beside it.
- One connection for documents and one for the driver's own watch on each server are all that is ever open; with
  `notify`, one for changes as well, and one more thread: see `mongodb_changes`.
"""

import os
import re
import warnings
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from bson import json_util
from bson.errors import BSONError
from pymongo import MongoClient
from pymongo.errors import (
    ConfigurationError,
    OperationFailure,
    ProtocolError,
    PyMongoError,
    ServerSelectionTimeoutError,
)
from pymongo.uri_parser import parse_uri
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.threads import deferToThreadPool
from zope.interface import alsoProvides, implementer

from livestate.errors import DocumentMissing, SettingsError, SourceError
from livestate.sources.api import ISource, IWatching
from livestate.sources.mongodb.change_stream import MongoChanges
from livestate.sources.mongodb.extended_json import CODEC, to_json
from livestate.sources.url import query_of

#: Parameters by the driver's names: https://www.mongodb.com/docs/manual/reference/connection-string-options/
_DRIVER = frozenset({
    "appName", "authMechanism", "authSource", "connectTimeoutMS", "directConnection", "readConcernLevel",
    "readPreference", "replicaSet", "retryWrites", "serverSelectionTimeoutMS", "socketTimeoutMS", "ssl", "tls",
    "tlsCAFile", "tlsCertificateKeyFile", "w",
})  # fmt: skip
#: The other mechanisms need packages that livestate does not ask for, or send the password in clear.
_MECHANISMS = frozenset({"SCRAM-SHA-256", "SCRAM-SHA-1", "MONGODB-X509"})
#: A server is looked for in steps of 500 ms (PyMongo's MIN_HEARTBEAT_INTERVAL), the last of which may begin just before
#: the end: 0.25 s are 0.5 to 0.75, so that the reason is known before a caller with 0.8 s gives up. The others bound
#: each step with the server; they exceed such a fetch, so that a slow first connection is there for the next one, and
#: not by much, so that one that hangs is over before a store that is back has to be noticed.
_TIMEOUTS = {"serverSelectionTimeoutMS": "250", "connectTimeoutMS": "1000", "socketTimeoutMS": "1000"}
#: Error codes of MongoDB's src/mongo/base/error_codes.yml; 8000 is Atlas's "bad auth".
_UNAUTHORIZED, _AUTHENTICATION_FAILED, _ATLAS_ERROR, _TIME_LIMIT = 13, 18, 8000, 50


@implementer(ISource)
class MongoSource:
    """Finds one document by its collection and a filter. See the module's docstring."""

    def __init__(self, reactor: Any, url: str, max_size: int) -> None:
        """Understand `url` and prepare the driver, without connecting.

        `max_size` is not looked at: MongoDB's own bound of 16 MiB a document is known, and what is between the two
        the caller refuses.

        :raises SettingsError: something in `url` is missing, unknown, or cannot be honoured.
        """
        parts = _split(url)
        given = query_of(parts, _DRIVER | {"collection", "query", "notify"})
        database = unquote(parts.path[1:])
        if not database or not given.get("collection"):
            raise SettingsError("needs a database and a collection: mongodb://host/DATABASE?collection=NAME")
        self._reactor = reactor
        self._filter = _filter_of(given.get("query", "{}"))
        self._servers, self._user = _servers_of(parts.netloc)
        self._users = given.get("authSource", database)
        self._label = f"MongoDB at {self._servers}"
        options = {name: given[name] for name in sorted(_DRIVER & given.keys())}
        watching = "notify" in given
        if watching and given["notify"] != "changes":
            raise SettingsError("notify is changes: the collection's change stream")
        self._client = _client_of(parts.netloc, database, {"maxPoolSize": "2" if watching else "1", **options})
        self._patience = int(given.get("socketTimeoutMS", _TIMEOUTS["socketTimeoutMS"]))
        try:
            self._collection = self._client[database].get_collection(given["collection"], codec_options=CODEC)
        except PyMongoError as error:
            raise SettingsError(_line(error)) from None
        query = f"&query={quote(given['query'])}" if "query" in given else ""
        self._name = f"mongodb://{self._servers}{parts.path}?collection={quote(given['collection'])}{query}"
        self._thread = DeferredLock()
        if watching:
            self._name += "&notify=changes"
            collection = self._collection
            self._changes = MongoChanges(reactor, collection, self._patience, self._no_changes, self._name)
            alsoProvides(self, IWatching)

    def __str__(self) -> str:
        return self._name

    async def fetch(self) -> bytes:
        """Find the document and give it as JSON.

        :raises DocumentMissing: no document matches.
        :raises SourceError: several match, no server is there, or the server refused or was too slow.
        """
        await self._thread.acquire()
        outcome: Deferred[bytes] = Deferred()
        found = deferToThreadPool(self._reactor, self._reactor.getThreadPool(), self._find)
        found.addBoth(self._thread_ended, outcome)
        # Cancelling ends this wait only: the thread runs on, and holds the lock until it has ended.
        return await outcome

    def watch(self, changed: Callable[[], None]) -> None:
        """Listen to the collection's change stream."""
        self._changes.start(changed)

    def close(self) -> None:
        """Close the connections, in a thread: the driver says goodbye to the server, which may not answer."""
        if IWatching.providedBy(self):
            self._changes.stop()
        self._reactor.callInThread(self._client.close)

    def _thread_ended(self, result: Any, outcome: "Deferred[bytes]") -> None:
        self._thread.release()
        # A cancelled Deferred swallows the one result that comes after; so does a failure's traceback end here.
        outcome.callback(result)

    def _find(self) -> bytes:
        """Ask the server. Runs in a thread."""
        try:
            # A negative limit asks for one batch and no cursor; two, to see whether the filter names one document.
            found = list(self._collection.find(self._filter, {"_id": False}, limit=-2, max_time_ms=self._patience))
        except Exception as error:
            # Not the driver's own errors alone: what is no message of MongoDB's can make it raise anything.
            raise SourceError(self._trouble(error)) from None
        if not found:
            raise DocumentMissing(f"{self._label}: no document of {self._collection.full_name} matches the query")
        if len(found) > 1:
            raise SourceError(
                f"{self._label}: several documents of {self._collection.full_name} match: let query= name one"
            )
        try:
            return to_json(found[0])
        except ValueError as error:
            raise SourceError(f"{self._label}: not a valid BSON document: {_line(error)}") from None
        except RecursionError:
            raise SourceError(f"{self._label}: its arrays and objects are nested too deeply") from None

    def _trouble(self, error: Exception) -> str:
        """Say in one line what is wrong."""
        if isinstance(error, OperationFailure):
            reason = self._refusal(error)
        elif isinstance(error, ServerSelectionTimeoutError):
            reason = self._absence()
        elif isinstance(error, BSONError):
            reason = f"not a valid BSON document: {_line(error)}"
        else:
            reason = _reason(error)
        return f"{self._label}: {reason}"

    def _no_changes(self, error: Exception) -> str:
        """Say in one line why there is no change stream."""
        trouble = self._trouble(error)
        login = (_UNAUTHORIZED, _AUTHENTICATION_FAILED, _ATLAS_ERROR)
        if isinstance(error, OperationFailure) and error.code not in login:
            return f"{trouble} (change streams are there on replica sets and sharded clusters alone)"
        return trouble

    def _refusal(self, error: OperationFailure) -> str:
        if error.code in (_AUTHENTICATION_FAILED, _ATLAS_ERROR):
            return f"authentication failed for user {self._user!r} of database {self._users!r} (authSource=)"
        if error.code == _UNAUTHORIZED and not self._user:
            return "the server asks for a user and a password"
        if error.code == _TIME_LIMIT:
            return "no answer in time"
        details = error.details or {}
        return _line(details.get("errmsg") or error)

    def _absence(self) -> str:
        """Say why no server could be selected, from what the driver's watch on each has met."""
        servers = self._client.topology_description.server_descriptions().values()
        # One that has refused a login counts as absent for half a second.
        reasons = {
            self._refusal(server.error) if isinstance(server.error, OperationFailure) else _reason(server.error)
            for server in servers
            if server.error
        }
        if reasons:
            return "; ".join(sorted(reasons))
        if any(server.is_server_type_known for server in servers):
            return "no server takes reads now (no primary, or another replicaSet= or readPreference=)"
        return "no answer in time"


def _split(url: str) -> Any:
    """Take the URL apart; whatever in it cannot be a part is never repeated in a text, as it may be a password."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise SettingsError("not a URL") from None
    cut_short = "@" not in parts.netloc and "@" in parts.path + parts.query
    if cut_short or parts.fragment:
        raise SettingsError("special characters in a user, password or query must be percent-encoded")
    return parts


def _servers_of(netloc: str) -> tuple[str, str | None]:
    """Give the servers as text, and the user."""
    try:
        parsed = parse_uri(f"mongodb://{netloc}/")
    except (PyMongoError, ValueError):
        raise SettingsError(
            "not user:password@host:port[,host:port…] (special characters in it must be percent-encoded)"
        ) from None
    # IPv6 addresses come without their brackets; a Unix socket has no port.
    nodes = ((f"[{host}]" if ":" in host else host, port) for host, port in parsed["nodelist"])
    return ",".join(f"{host}:{port}" if port else host for host, port in nodes), parsed["username"]


def _filter_of(text: str) -> dict[str, Any]:
    try:
        found = json_util.loads(text)
    except (ValueError, TypeError, BSONError) as error:
        raise SettingsError(f"query is not JSON: {_line(error)}") from None
    if not isinstance(found, dict):
        raise SettingsError('query is not a JSON object such as {"_id":"results"}')
    return found


def _client_of(netloc: str, database: str, given: dict[str, str]) -> MongoClient[dict[str, Any]]:
    """Make the driver's client, which connects when it is first used."""
    if given.get("authMechanism", "SCRAM-SHA-1") not in _MECHANISMS:
        raise SettingsError(f"authMechanism is none of {', '.join(sorted(_MECHANISMS))}")
    for name in _TIMEOUTS.keys() & given.keys():
        # The driver's 0 means for ever: a thread that never comes back.
        if not given[name].isdecimal() or not int(given[name]):
            raise SettingsError(f"{name} is not a number of milliseconds above 0")
    for name in ("tlsCAFile", "tlsCertificateKeyFile"):
        # PyMongo 4.20 does not name the file.
        if name in given and not os.access(given[name], os.R_OK):
            raise SettingsError(f"{name}: cannot read {given[name]}")
    # The driver would watch each server over two connections, to hear of a new primary sooner.
    options = {"serverMonitoringMode": "poll", **_TIMEOUTS, **given}
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in options.items())
    try:
        with warnings.catch_warnings():
            # A value that the driver does not understand is a warning to it, and then as if not given.
            warnings.simplefilter("error", UserWarning)
            return MongoClient(f"mongodb://{netloc}/{quote(database, safe='')}?{query}", connect=False)
    except (ConfigurationError, UserWarning, ValueError, TypeError, OSError) as error:
        raise SettingsError(_line(error)) from None


def _line(error: object) -> str:
    """Give the first line of an error's text, without the driver's list of its settings."""
    return str(error).partition("\n")[0].partition(" (configured timeouts")[0].strip()


def _reason(error: BaseException) -> str:
    """Say in a few words why a server could not be reached, without its address and the number of the error."""
    if isinstance(error, PyMongoError):
        if error.timeout:
            return "no answer in time"
        if isinstance(error, ProtocolError):
            # With numbers that are others each time.
            return f"not MongoDB's protocol: {re.sub('-?[0-9]+', '…', _line(error))}"
    elif not isinstance(error, OSError):
        return f"not MongoDB's protocol ({type(error).__name__} in the driver)"
    text = re.sub(r"^\S+:\d+: (\[Errno -?\d+\] )?", "", _line(error))
    return text[:1].lower() + text[1:]
