"""A document from a MongoDB collection.

    mongodb://[user:password@]host[:27017][,host2…]/database?collection=results
    mongodb://…/database?collection=results&query={"_id":"2026"}            the filter, URL-encoded, extended JSON
    mongodb://…/database?collection=results&notify=changes                  fetched at once when the collection changes

`query` (default: any) must match exactly one document. If several match, MongoDB does not define which is returned, and
it could change from one fetch to the next; so several matches are an error, just as none is. The other parameters are
MongoDB's own, with their usual names; `_DRIVER_PARAMETERS` lists them. Those that weaken TLS or contain a password are
left out on purpose.

`extended_json` describes how MongoDB's types are written in JSON.

The source runs PyMongo in a thread. txmongo (26.0, tried against a server) has too many defects: it does not support
SCRAM-SHA-256, so users who have only those credentials cannot log in; it hides the error for a wrong password; and it
ignores `tls=true` in its URL and sends plaintext. It needs PyMongo in any case.

A thread cannot be cancelled, so three rules keep a bad server from costing more than that one thread:

- Every step with the server has a timeout (connectTimeoutMS and socketTimeoutMS, 1 s), whether or not anything still
  waits for it.
- When a fetch is cancelled its operation goes on. The next fetch waits for it to end before it starts its own.
- There is never more than one connection for documents, and one per server for the driver's monitoring. With `notify`
  there is one more connection, and one more thread: see `change_stream`.
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

#: The driver's parameters that a URL may have: https://www.mongodb.com/docs/manual/reference/connection-string-options/
_DRIVER_PARAMETERS = frozenset({
    "appName", "authMechanism", "authSource", "connectTimeoutMS", "directConnection", "readConcernLevel",
    "readPreference", "replicaSet", "retryWrites", "serverSelectionTimeoutMS", "socketTimeoutMS", "ssl", "tls",
    "tlsCAFile", "tlsCertificateKeyFile", "w",
})  # fmt: skip
#: The other mechanisms need packages that livestate does not install, or send the password in clear text.
_AUTH_MECHANISMS = frozenset({"SCRAM-SHA-256", "SCRAM-SHA-1", "MONGODB-X509"})
#: PyMongo looks for a server in steps of 500 ms (its MIN_HEARTBEAT_INTERVAL), and the last step may start just before
#: the timeout. So 0.25 s become 0.5 to 0.75 s, and the reason for a failure is known before a caller with a timeout of
#: 0.8 s gives up. The other two limit each step with the server. They are longer than such a fetch, so that a slow
#: first connection can be used by the next one, but not much longer, so that a hanging step has ended by the time that
#: the recovery of the store must be noticed.
_TIMEOUTS = {"serverSelectionTimeoutMS": "250", "connectTimeoutMS": "1000", "socketTimeoutMS": "1000"}
#: Error codes from MongoDB's src/mongo/base/error_codes.yml; 8000 is Atlas's "bad auth".
_UNAUTHORIZED, _AUTHENTICATION_FAILED, _ATLAS_ERROR, _TIME_LIMIT = 13, 18, 8000, 50


@implementer(ISource)
class MongoSource:
    """Fetches the one document in a collection that a filter matches. See the module's docstring."""

    def __init__(self, reactor: Any, url: str, max_size: int) -> None:
        """Parse `url` and prepare the driver, without connecting.

        :param max_size: not used. MongoDB limits a document to 16 MiB, and the caller refuses one larger than
            `max_size`.
        :raises SettingsError: when something in `url` is missing, unknown or not supported.
        """
        parts = _split(url)
        parameters = query_of(parts, _DRIVER_PARAMETERS | {"collection", "query", "notify"})
        database = unquote(parts.path[1:])
        if not database or not parameters.get("collection"):
            raise SettingsError("needs a database and a collection: mongodb://host/DATABASE?collection=NAME")
        self._reactor = reactor
        self._filter = _parse_filter(parameters.get("query", "{}"))
        self._servers, self._user = _parse_servers(parts.netloc)
        self._auth_source = parameters.get("authSource", database)
        self._label = f"MongoDB at {self._servers}"
        options = {name: parameters[name] for name in sorted(_DRIVER_PARAMETERS & parameters.keys())}
        notify = "notify" in parameters
        if notify and parameters["notify"] != "changes":
            raise SettingsError("notify must be changes: the collection's change stream")
        self._client = _make_client(parts.netloc, database, {"maxPoolSize": "2" if notify else "1", **options})
        self._timeout_ms = int(parameters.get("socketTimeoutMS", _TIMEOUTS["socketTimeoutMS"]))
        try:
            self._collection = self._client[database].get_collection(parameters["collection"], codec_options=CODEC)
        except PyMongoError as error:
            raise SettingsError(_first_line(error)) from None
        query = f"&query={quote(parameters['query'])}" if "query" in parameters else ""
        self._name = f"mongodb://{self._servers}{parts.path}?collection={quote(parameters['collection'])}{query}"
        self._lock = DeferredLock()
        if notify:
            self._name += "&notify=changes"
            self._changes = MongoChanges(
                reactor, self._collection, self._timeout_ms, self._describe_no_changes, self._name
            )
            alsoProvides(self, IWatching)

    def __str__(self) -> str:
        return self._name

    async def fetch(self) -> bytes:
        """Find the document and return it as JSON.

        :raises DocumentMissing: when no document matches.
        :raises SourceError: when several match, no server can be reached, or the server refused or was too slow.
        """
        await self._lock.acquire()
        outcome: Deferred[bytes] = Deferred()
        found = deferToThreadPool(self._reactor, self._reactor.getThreadPool(), self._find)
        found.addBoth(self._thread_ended, outcome)
        # Cancelling ends only this wait: the thread goes on, and holds the lock until it has ended.
        return await outcome

    def watch(self, changed: Callable[[], None]) -> None:
        """Listen to the collection's change stream."""
        self._changes.start(changed)

    def close(self) -> None:
        """Close the connections in a thread, as the driver tells the server, which may not answer."""
        if IWatching.providedBy(self):
            self._changes.stop()
        self._reactor.callInThread(self._client.close)

    def _thread_ended(self, result: Any, outcome: "Deferred[bytes]") -> None:
        self._lock.release()
        # If the Deferred was cancelled it ignores this result, a failure included.
        outcome.callback(result)

    def _find(self) -> bytes:
        """Query the server. Runs in a thread."""
        try:
            # A negative limit means a single batch and no cursor. Two, to notice a filter that matches several.
            found = list(self._collection.find(self._filter, {"_id": False}, limit=-2, max_time_ms=self._timeout_ms))
        except Exception as error:
            # Any exception: given something that is not a MongoDB message, the driver can raise anything.
            raise SourceError(self._describe(error)) from None
        if not found:
            raise DocumentMissing(f"{self._label}: no document in {self._collection.full_name} matches the query")
        if len(found) > 1:
            raise SourceError(
                f"{self._label}: several documents in {self._collection.full_name} match; make query= match only one"
            )
        try:
            return to_json(found[0])
        except ValueError as error:
            raise SourceError(f"{self._label}: not a valid BSON document: {_first_line(error)}") from None
        except RecursionError:
            raise SourceError(f"{self._label}: its arrays and objects are nested too deeply") from None

    def _describe(self, error: Exception) -> str:
        """Describe an error in one line."""
        if isinstance(error, OperationFailure):
            reason = self._describe_refusal(error)
        elif isinstance(error, ServerSelectionTimeoutError):
            reason = self._describe_absence()
        elif isinstance(error, BSONError):
            reason = f"not a valid BSON document: {_first_line(error)}"
        else:
            reason = _reason(error)
        return f"{self._label}: {reason}"

    def _describe_no_changes(self, error: Exception) -> str:
        """Describe in one line why there is no change stream."""
        text = self._describe(error)
        login = (_UNAUTHORIZED, _AUTHENTICATION_FAILED, _ATLAS_ERROR)
        if isinstance(error, OperationFailure) and error.code not in login:
            return f"{text} (change streams need a replica set or a sharded cluster)"
        return text

    def _describe_refusal(self, error: OperationFailure) -> str:
        if error.code in (_AUTHENTICATION_FAILED, _ATLAS_ERROR):
            return f"authentication failed for user {self._user!r} of database {self._auth_source!r} (authSource=)"
        if error.code == _UNAUTHORIZED and not self._user:
            return "the server requires a user and a password"
        if error.code == _TIME_LIMIT:
            return "no answer in time"
        details = error.details or {}
        return _first_line(details.get("errmsg") or error)

    def _describe_absence(self) -> str:
        """Describe why no server could be selected, by the errors that the driver's monitoring has met."""
        servers = self._client.topology_description.server_descriptions().values()
        # A server that has refused a login counts as unreachable for half a second.
        reasons = {
            self._describe_refusal(server.error)
            if isinstance(server.error, OperationFailure)
            else _reason(server.error)
            for server in servers
            if server.error
        }
        if reasons:
            return "; ".join(sorted(reasons))
        if any(server.is_server_type_known for server in servers):
            return "no server accepts reads now (there is no primary, or replicaSet= or readPreference= is wrong)"
        return "no answer in time"


def _split(url: str) -> Any:
    """Split the URL. No error message repeats any of it, as it may be part of a password."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise SettingsError("not a URL") from None
    truncated = "@" not in parts.netloc and "@" in parts.path + parts.query
    if truncated or parts.fragment:
        raise SettingsError("special characters in a user, password or query must be percent-encoded")
    return parts


def _parse_servers(netloc: str) -> tuple[str, str | None]:
    """Return the servers as text, and the user."""
    try:
        parsed = parse_uri(f"mongodb://{netloc}/")
    except (PyMongoError, ValueError):
        raise SettingsError(
            "expected user:password@host:port[,host:port…], with special characters percent-encoded"
        ) from None
    # PyMongo removes the brackets of an IPv6 address; a Unix socket has no port.
    nodes = ((f"[{host}]" if ":" in host else host, port) for host, port in parsed["nodelist"])
    return ",".join(f"{host}:{port}" if port else host for host, port in nodes), parsed["username"]


def _parse_filter(text: str) -> dict[str, Any]:
    try:
        found = json_util.loads(text)
    except (ValueError, TypeError, BSONError) as error:
        raise SettingsError(f"query is not JSON: {_first_line(error)}") from None
    if not isinstance(found, dict):
        raise SettingsError('query must be a JSON object such as {"_id":"results"}')
    return found


def _make_client(netloc: str, database: str, parameters: dict[str, str]) -> MongoClient[dict[str, Any]]:
    """Return the driver's client, which connects when it is first used."""
    if parameters.get("authMechanism", "SCRAM-SHA-1") not in _AUTH_MECHANISMS:
        raise SettingsError(f"authMechanism must be one of {', '.join(sorted(_AUTH_MECHANISMS))}")
    for name in _TIMEOUTS.keys() & parameters.keys():
        # To the driver, 0 means no timeout: the thread might never end.
        if not parameters[name].isdecimal() or not int(parameters[name]):
            raise SettingsError(f"{name} must be a number of milliseconds above 0")
    for name in ("tlsCAFile", "tlsCertificateKeyFile"):
        # PyMongo 4.20 does not name the file in its error.
        if name in parameters and not os.access(parameters[name], os.R_OK):
            raise SettingsError(f"{name}: cannot read {parameters[name]}")
    # By default the driver monitors each server over two connections, to notice a new primary sooner.
    options = {"serverMonitoringMode": "poll", **_TIMEOUTS, **parameters}
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in options.items())
    try:
        with warnings.catch_warnings():
            # The driver only warns about a value that it does not understand, and then ignores it.
            warnings.simplefilter("error", UserWarning)
            return MongoClient(f"mongodb://{netloc}/{quote(database, safe='')}?{query}", connect=False)
    except (ConfigurationError, UserWarning, ValueError, TypeError, OSError) as error:
        raise SettingsError(_first_line(error)) from None


def _first_line(error: object) -> str:
    """Return the first line of an error's text, without the driver's list of its timeouts."""
    return str(error).partition("\n")[0].partition(" (configured timeouts")[0].strip()


def _reason(error: BaseException) -> str:
    """Describe briefly why a server could not be reached, without its address or the errno."""
    if isinstance(error, PyMongoError):
        if error.timeout:
            return "no answer in time"
        if isinstance(error, ProtocolError):
            # The text has numbers that differ each time.
            return f"not MongoDB's protocol: {re.sub('-?[0-9]+', '…', _first_line(error))}"
    elif not isinstance(error, OSError):
        return f"not MongoDB's protocol ({type(error).__name__} in the driver)"
    text = re.sub(r"^\S+:\d+: (\[Errno -?\d+\] )?", "", _first_line(error))
    return text[:1].lower() + text[1:]
