"""The MongoDB source, against a real server of the protocol."""

import datetime
import math
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import quote

import bson
import msgspec
from bson.codec_options import CodecOptions
from hypothesis import given
from hypothesis import strategies as st
from pymongo.errors import OperationFailure, ServerSelectionTimeoutError
from twisted.internet import reactor as _reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from livestate.errors import DocumentMissing, SettingsError, SourceError
from livestate.sources.api import ISource
from livestate.sources.factory import make_source
from livestate.sources.mongodb.extended_json import CODEC, to_json
from livestate.sources.mongodb.source import _AUTHENTICATION_FAILED, MongoSource
from tests.mongodb_server import EXTERNAL, ExternalServer, MongoServer
from tests.support import Authority, examples, pem, written

reactor: Any = _reactor
PASSWORD = "hush/hush:@ %"


class Pipe(Protocol):
    """One side of a connection through a `Gate`."""

    transport: Any

    def __init__(self, gate: "Gate") -> None:
        self.gate = gate
        self.other: Pipe | None = None
        self.waiting = b""

    def connectionMade(self):
        if self is not self.gate.connecting:
            self.gate.opened += 1
            self.gate.inside.append(self)
            if self.gate.open:
                self.connect()

    def connect(self):
        self.other = self.gate.connecting = Pipe(self.gate)
        self.other.other = self
        connecting = connectProtocol(HostnameEndpoint(reactor, "127.0.0.1", self.gate.port), self.other)
        connecting.addCallbacks(lambda _: self.flush(), lambda _: self.transport.abortConnection())

    def dataReceived(self, data):
        self.waiting += data
        self.flush()

    def flush(self):
        if self.gate.open and self.other and self.other.transport:
            self.other.transport.write(self.waiting)
            self.waiting = b""

    def connectionLost(self, reason=None):
        if self in self.gate.inside:
            self.gate.inside.remove(self)
        if self.other and self.other.transport:
            self.other.transport.abortConnection()


class Gate(Factory):
    """A proxy to the server that can be closed: it still accepts connections then, but never answers."""

    noisy = False

    def __init__(self, server: Any, *, is_open: bool = True) -> None:
        self.port = int(server.url.rpartition(":")[2])
        self.open = is_open
        self.opened = 0
        self.inside: list[Pipe] = []
        self.connecting: Pipe | None = None
        self.listening = reactor.listenTCP(0, self, interface="127.0.0.1")
        self.url = f"mongodb://127.0.0.1:{self.listening.getHost().port}"

    def buildProtocol(self, addr):
        return Pipe(self)

    async def close(self):
        await self.listening.stopListening()
        while self.inside:
            self.inside[0].transport.abortConnection()
            await wait(0.01)


def wait(seconds: float) -> "Deferred[None]":
    return deferLater(reactor, seconds)


async def failure_of(source: MongoSource) -> SourceError:
    """Fetch, and return the error, whose message must be one line without a password."""
    try:
        found = await source.fetch()
    except SourceError as error:
        assert "\n" not in str(error), error
        assert PASSWORD not in str(error), error
        assert quote(PASSWORD, safe="") not in str(error), error
        return error
    raise AssertionError(f"fetched {found!r}")


async def until_fetched(source: MongoSource, seconds: float) -> bytes:
    """Fetch until it succeeds, as the poller would."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return await source.fetch()
        except SourceError:
            if time.monotonic() > deadline:
                raise
            await wait(0.1)


class CountingSource(MongoSource):
    """Counts the threads that query the server."""

    running = 0

    def _find(self) -> bytes:
        self.running += 1
        try:
            return super()._find()
        finally:
            self.running -= 1


class ServerTestCase(TestCase):
    """Each class has one server until the end of the run, and each test its own collection there."""

    not_a_unit_test = "starts a MongoDB server"
    timeout = 60
    server: Any = None

    @classmethod
    def make_server(cls) -> Any:
        return ExternalServer(EXTERNAL) if EXTERNAL else MongoServer()

    def setUp(self):
        cls = type(self)
        if cls.server is None:  # trial does not support setUpClass
            cls.server = cls.make_server()
        self.client = self.server.client()
        self.addCleanup(self.client.close)
        self.collection = self.client.livestate_tests[f"c{uuid.uuid4().hex}"]
        if EXTERNAL:
            self.addCleanup(self.collection.drop)

    def source(self, url: str = "", more: str = "") -> CountingSource:
        url = f"{url or self.server.url}/livestate_tests?collection={self.collection.name}{more}"
        source = CountingSource(reactor, url, 1_000_000)
        verifyObject(ISource, source)
        self.addCleanup(source.close)
        return source


class FetchTests(ServerTestCase):
    """Fetching a document."""

    async def test_types(self):
        """Each BSON type that the server stores is converted to JSON, in the stored order and without `_id`."""
        self.collection.insert_one(
            {
                "_id": "results",
                "z": 1,
                "name": "Zoë ☃",
                "double": 0.5,
                "whole": 2.0,
                "long": bson.Int64(2**62),
                "none": None,
                "yes": True,
                "list": [1, {"_id": 7}],
                "id": bson.ObjectId("0123456789abcdef01234567"),
                "at": datetime.datetime(2026, 11, 3, 20, 0, 1, 250_000, tzinfo=datetime.timezone.utc),
                "bytes": b"\x00\xff",
                "uuid": bson.Binary.from_uuid(uuid.UUID(int=1)),
                "match": bson.Regex("^a", "i"),
                "stamp": bson.Timestamp(5, 6),
            }
        )
        expected = (
            '{"z":1,"name":"Zoë ☃","double":0.5,"whole":2.0,"long":4611686018427387904,"none":null,"yes":true,'
            '"list":[1,{"_id":7}],"id":"0123456789abcdef01234567","at":"2026-11-03T20:00:01.250000Z","bytes":"AP8=",'
            '"uuid":"00000000-0000-0000-0000-000000000001",'
            '"match":{"$regularExpression":{"pattern":"^a","options":"i"}},"stamp":{"$timestamp":{"t":5,"i":6}}}'
        )
        source = self.source()
        self.assertEqual((await source.fetch()).decode(), expected)
        self.assertEqual((await source.fetch()).decode(), expected)

    async def test_change(self):
        """The next fetch after a change returns the new document."""
        source = self.source()
        for count in range(3):
            self.collection.replace_one({"_id": 1}, {"count": count}, upsert=True)
            self.assertEqual(await source.fetch(), b'{"count":%d}' % count)

    async def test_query(self):
        """The query selects the document, also by a value that only extended JSON can express."""
        ids = self.collection.insert_many([{"n": n, "of": {"state": str(n)}} for n in range(3)]).inserted_ids
        by_id = self.source(more="&query=" + quote(f'{{"_id":{{"$oid":"{ids[1]}"}}}}'))
        self.assertEqual(await by_id.fetch(), b'{"n":1,"of":{"state":"1"}}')
        by_field = self.source(more='&query={"of.state":"2"}')
        self.assertEqual(await by_field.fetch(), b'{"n":2,"of":{"state":"2"}}')

    async def test_missing(self):
        """A missing document, collection or database raises DocumentMissing, and the next fetch tries again."""
        source = self.source(more='&query={"_id":"results"}')
        self.assertIsInstance(await failure_of(source), DocumentMissing)
        self.collection.insert_one({"_id": "other"})
        self.assertIsInstance(await failure_of(source), DocumentMissing)
        self.collection.insert_one({"_id": "results", "a": 1})
        self.assertEqual(await source.fetch(), b'{"a":1}')
        self.collection.delete_one({"_id": "results"})
        self.assertIsInstance(await failure_of(source), DocumentMissing)

    async def test_several(self):
        """A query that matches several documents is refused, as MongoDB does not define which it would return."""
        self.collection.insert_many([{"n": 1}, {"n": 2}])
        error = await failure_of(self.source())
        self.assertNotIsInstance(error, DocumentMissing)
        self.assertIn("several documents", str(error))

    async def test_bad_query(self):
        """The server's message about an invalid query is passed on."""
        self.collection.insert_one({"a": 1})
        error = await failure_of(self.source(more='&query={"a":{"$nonsense":1}}'))
        self.assertRegex(str(error), r"^MongoDB at [\w.:]+: .*\$nonsense")

    async def test_large(self):
        """A document of several megabytes is returned complete; the caller refuses one that is too large."""
        self.collection.insert_one({"text": "x" * 8_000_000})
        self.assertEqual(len(await self.source().fetch()), 8_000_011)


class FaultTests(ServerTestCase):
    """A server that is down, or does not answer."""

    def gate(self, **options: Any) -> Gate:
        if EXTERNAL:
            self.server.stop()  # skips
        gate = Gate(self.server, **options)
        self.addCleanup(lambda: Deferred.fromCoroutine(gate.close()))
        self.collection.insert_one({"a": 1})
        return gate

    async def cancel_fetch(self, source: MongoSource, after: float) -> None:
        """Start a fetch, and cancel it after some seconds."""
        fetching = Deferred.fromCoroutine(source.fetch())
        await wait(after)
        fetching.cancel()
        with self.assertRaises((CancelledError, SourceError)):
            await fetching

    async def test_connections(self):
        """All fetches share one connection; the driver's monitoring has another."""
        gate = self.gate()
        source = self.source(gate.url)
        for _ in range(10):
            self.assertEqual(await source.fetch(), b'{"a":1}')
        self.assertEqual(gate.opened, 2)

    async def test_down_then_up(self):
        """A server that is down is reported within a second, and fetches succeed once it is back."""
        self.collection.insert_one({"a": 1})
        source = self.source()
        self.assertEqual(await source.fetch(), b'{"a":1}')
        self.server.stop()
        try:
            for expected in ("connection closed|connection refused", "connection refused", "connection refused"):
                started = time.monotonic()
                error = await failure_of(source)
                self.assertRegex(str(error), f"^MongoDB at 127.0.0.1:{self.server.port}: ({expected})$")
                self.assertLess(time.monotonic() - started, 1.5)  # 0.75, and a margin for a busy machine
        finally:
            self.server.start()
        self.assertEqual(await until_fetched(source, 2), b'{"a":1}')

    async def test_down_at_start(self):
        """A server that is down at the start is used once it is up."""
        self.collection.insert_one({"a": 1})
        self.server.stop()
        try:
            source = self.source()
            self.assertIn("connection refused", str(await failure_of(source)))
        finally:
            self.server.start()
        self.assertEqual(await until_fetched(source, 2), b'{"a":1}')

    async def test_restart_between_fetches(self):
        """After a restart of the server the next fetch replaces the lost connection and succeeds."""
        self.collection.insert_one({"a": 1})
        source = self.source()
        await source.fetch()
        self.server.stop()
        self.server.start()
        self.assertEqual(await source.fetch(), b'{"a":1}')

    async def test_never_answers(self):
        """A server that never answers occupies one thread and two connections, and is used once it answers."""
        gate = self.gate(is_open=False)
        source = self.source(gate.url)
        for _ in range(8):
            await self.cancel_fetch(source, 0.3)
            self.assertLessEqual(source.running, 1)
            self.assertLessEqual(len(gate.inside), 2)
        self.assertIn("no answer in time", str(await failure_of(source)))
        gate.open = True
        self.assertEqual(await until_fetched(source, 5), b'{"a":1}')

    async def test_stops_answering(self):
        """The same for a server that stops answering; the result of a cancelled fetch is not given to the next."""
        gate = self.gate()
        source = self.source(gate.url)
        self.assertEqual(await source.fetch(), b'{"a":1}')
        gate.open = False
        for _ in range(8):
            await self.cancel_fetch(source, 0.3)
            self.assertLessEqual(source.running, 1)
            self.assertLessEqual(len(gate.inside), 2)
        self.collection.replace_one({"a": 1}, {"a": 2})
        gate.open = True
        self.assertEqual(await until_fetched(source, 5), b'{"a":2}')

    async def test_cancelled_while_waiting(self):
        """A fetch that is cancelled while it waits for an earlier one does not block the next."""
        gate = self.gate()
        source = self.source(gate.url)
        await source.fetch()
        gate.open = False
        await self.cancel_fetch(source, 0.05)
        await self.cancel_fetch(source, 0.05)
        gate.open = True
        for pipe in list(gate.inside):
            pipe.flush()
        self.assertEqual(await source.fetch(), b'{"a":1}')


class UserTests(ServerTestCase):
    """Logging in."""

    @classmethod
    def make_server(cls):
        return MongoServer(user=("root", PASSWORD))

    def as_user(self, name: str, password: str = PASSWORD, more: str = "&authSource=admin") -> MongoSource:
        self.collection.replace_one({"_id": 1}, {"a": 1}, upsert=True)
        return self.source(f"mongodb://{name}:{quote(password, safe='')}@127.0.0.1:{self.server.port}", more)

    async def test_password(self):
        """A user and password work with both SCRAM mechanisms, whichever the server has for the user."""
        for mechanism in ("SCRAM-SHA-1", "SCRAM-SHA-256"):
            name = f"user{mechanism[-1]}"
            self.client.admin.command("createUser", name, pwd=PASSWORD, roles=[], mechanisms=[mechanism])
            self.assertEqual(await self.as_user(name).fetch(), b'{"a":1}')
        explicit = self.as_user("root", more="&authSource=admin&authMechanism=SCRAM-SHA-256")
        self.assertEqual(await explicit.fetch(), b'{"a":1}')

    async def test_wrong_password(self):
        """A wrong password is always reported as such, with the database that the user was looked for in."""
        for more, database in (("&authSource=admin", "admin"), ("", "livestate_tests")):
            source = self.as_user("root", "wrong" if more else PASSWORD, more)
            for _ in range(2):
                self.assertEqual(
                    str(await failure_of(source)),
                    f"MongoDB at 127.0.0.1:{self.server.port}: authentication failed for user 'root' "
                    f"of database '{database}' (authSource=)",
                )

    async def test_password_changed(self):
        """Once a password becomes valid, the same source can log in."""
        source = self.as_user("late")
        self.assertIn("authentication failed", str(await failure_of(source)))
        self.client.admin.command("createUser", "late", pwd=PASSWORD, roles=[])
        self.assertEqual(await source.fetch(), b'{"a":1}')

    async def test_no_user(self):
        """A server that requires a login is reported as such."""
        self.assertIn("requires a user and a password", str(await failure_of(self.source())))


class TLSTests(ServerTestCase):
    """TLS to the server."""

    folder: Any
    certificate: Path

    @classmethod
    def make_server(cls):
        cls.folder = tempfile.TemporaryDirectory()  # removed together with the class
        folder, authority = Path(cls.folder.name), Authority()
        cls.certificate = folder / "authority.pem"
        cls.certificate.write_bytes(pem(authority.certificate))
        both = written(folder / "server.pem", pem(*authority.issue("127.0.0.1")))
        return MongoServer(tls=(both, both))

    def setUp(self):
        super().setUp()
        self.collection.insert_one({"a": 1})
        self.url = f"mongodb://127.0.0.1:{self.server.tls_port}"

    async def test_verified(self):
        """With the authority's file the certificate is accepted."""
        source = self.source(self.url, f"&tls=true&tlsCAFile={self.certificate}")
        self.assertEqual(await source.fetch(), b'{"a":1}')

    async def test_unknown_authority(self):
        """A certificate from an unknown authority is refused, with a message about the certificate."""
        self.assertRegex(str(await failure_of(self.source(self.url, "&tls=true"))), "(?i)certificate verify failed")

    async def test_other_name(self):
        """A certificate for another host is refused."""
        source = self.source(self.url.replace("127.0.0.1", "localhost"), f"&tlsCAFile={self.certificate}")
        self.assertRegex(str(await failure_of(source)), "(?i)localhost")

    async def test_plaintext(self):
        """Plaintext to a TLS port, and TLS to a plaintext port, are errors."""
        await failure_of(self.source(self.url))
        await failure_of(self.source(more=f"&tls=true&tlsCAFile={self.certificate}"))


class SettingsTests(SynchronousTestCase):
    """Parsing the URL."""

    def refusal(self, url: str) -> str:
        with self.assertRaises(SettingsError) as caught:
            MongoSource(reactor, url, 1000)
        self.assertNotIn("\n", str(caught.exception))
        self.assertNotIn("hush", str(caught.exception))
        return str(caught.exception)

    def test_unreachable_after_refusal(self):
        """The driver treats a server that refused a login as unreachable; the message stays the same."""
        refused = OperationFailure(
            "Authentication failed.", _AUTHENTICATION_FAILED, {"errmsg": "Authentication failed."}
        )
        server = mock.Mock(error=refused)
        client: Any = mock.Mock(topology_description=mock.Mock(server_descriptions=lambda: {"h": server}))
        source = MongoSource(reactor, "mongodb://me:hush@h/d?collection=c", 1000)
        message = source._describe(refused)
        source._client.close()
        source._client = client
        self.assertEqual(source._describe(ServerSelectionTimeoutError("no servers")), message)
        self.assertIn("authentication failed for user 'me'", message)

    def test_incomplete(self):
        """A database and a collection are required, with names that MongoDB allows."""
        for rest in ("", "/", "/db", "/db?collection=", "/?collection=c"):
            self.assertIn("database and a collection", self.refusal(f"mongodb://localhost{rest}"))
        self.refusal("mongodb://localhost/d%20b?collection=c")
        self.refusal("mongodb://localhost/db?collection=a..b")

    def test_parameters(self):
        """A parameter that is unknown, weakens TLS, or has an invalid value is refused with its name."""
        for parameter, text in {
            "colour=red": "colour",
            "sort={}": "sort",
            "tlsInsecure=true": "tlsInsecure",
            "tlsAllowInvalidCertificates=true": "tlsAllowInvalidCertificates",
            "tlsCertificateKeyFilePassword=hush": "tlsCertificateKeyFilePassword",
            "tls=perhaps": "tls",
            "tls=true&ssl=false": "ssl",
            "tlsCAFile=/nowhere/ca.pem": "/nowhere/ca.pem",
            "timeoutMS=900": "unknown",
            "socketTimeoutMS=soon": "socketTimeoutMS",
            "connectTimeoutMS=0": "connectTimeoutMS",
            "serverSelectionTimeoutMS=-1": "serverSelectionTimeoutMS",
            "authMechanism=PLAIN": "authMechanism",
            "authMechanism=SCRAM-SHA-256": "username",
            "readPreference=mine": "valid read preference",
            "query={": "query",
            "query=[1]": "query",
            'query={"_id":{"$oid":"1"}}': "query",
            'query={"a":"#1"}': "percent-encoded",
        }.items():
            self.assertIn(text, self.refusal(f"mongodb://localhost/db?collection=c&{parameter}"), parameter)

    def test_hosts(self):
        """An invalid host, or a password that truncates the URL, is refused without being shown."""
        for hosts in ("", "localhost:port", "localhost:70000", "[::1", "a:1,,b:2", "u:hu:hush@h", "u@hush:p@h"):
            self.refusal(f"mongodb://{hosts}/db?collection=c")
        for character in "/?#":
            self.refusal(f"mongodb://user:1{character}hush@localhost/db?collection=c")

    def test_name(self):
        """The name of the source has servers, database, collection and query, but no user or password."""
        for hosts, shown in {
            "localhost": "localhost:27017",
            "user:hush%2Fhush@localhost:1,[::1]:2": "localhost:1,[::1]:2",
        }.items():
            source = MongoSource(
                reactor, f'mongodb://{hosts}/db?socketTimeoutMS=900&collection=c&query={{"a":1}}', 1000
            )
            self.assertEqual(str(source), f"mongodb://{shown}/db?collection=c&query=%7B%22a%22%3A1%7D")

    def test_factory(self):
        """`make_source` accepts the scheme, and shows a refused URL without its password."""
        self.assertIsInstance(make_source(reactor, "mongodb://localhost/db?collection=c", 1000), MongoSource)
        with self.assertRaises(SettingsError) as caught:
            make_source(reactor, "mongodb://user:hush@localhost/db", 1000)
        self.assertNotIn("hush", str(caught.exception))


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1).map(bson.Int64),
    st.integers(-(2**31), 2**31 - 1),
    st.floats(),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.binary(max_size=20),
    st.builds(bson.Binary, st.binary(max_size=20), st.sampled_from([0, 1, 5, 6, 128])),
    st.uuids().map(bson.Binary.from_uuid),
    st.binary(min_size=12, max_size=12).map(bson.ObjectId),
    st.integers(-(2**63), 2**63 - 1).map(bson.DatetimeMS),
    st.builds(bson.Timestamp, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
    st.integers(-(10**34) + 1, 10**34 - 1).map(lambda digits: bson.Decimal128(str(digits))),
    st.sampled_from(["NaN", "-Infinity", "0E-6176", "1E+6144"]).map(bson.Decimal128),
    st.builds(bson.Regex, st.just("^a.*"), st.sampled_from(["", "i", "mx"])),
    st.builds(bson.Code, st.just("return 1"), st.none() | st.just({"a": bson.ObjectId()})),
    st.builds(bson.DBRef, st.just("c"), st.just(bson.ObjectId())),
    st.just(bson.MinKey()),
    st.just(bson.MaxKey()),
)
names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(names, inner), max_leaves=20)


def decoded(stored: bytes) -> Any:
    options: Any = CODEC
    return bson.decode(stored, options)


class ConversionTests(SynchronousTestCase):
    """Converting BSON to JSON."""

    def test_rare_types(self):
        """A Decimal128 becomes a string with all its digits, and a date beyond the year 9999 keeps its milliseconds."""
        stored = bson.encode(
            {"d": bson.Decimal128("0.10"), "n": math.nan, "t": bson.DatetimeMS(2**60), "c": bson.Code("x")}
        )
        self.assertEqual(
            to_json(decoded(stored)),
            b'{"d":"0.10","n":null,"t":{"$date":{"$numberLong":"1152921504606846976"}},"c":{"$code":"x"}}',
        )

    def test_unreadable(self):
        """A Decimal128 with too many digits raises ValueError, or is read as the zero that IEEE 754 defines.

        PyMongo 4.18 refuses such bits; 4.20 reads them as that zero. A fetch turns the ValueError into a SourceError.
        """
        try:
            json = to_json({"d": bson.Decimal128.from_bid(b"\xff" * 14 + b"\x5f\x00")})
        except ValueError:
            return
        self.assertEqual(json, b'{"d":"0E-6129"}')

    @given(st.dictionaries(names, values))
    @examples(100)
    def test_any_document(self, document):
        """Any BSON document becomes valid JSON with its keys in order, and always the same bytes."""
        stored = bson.encode(document, codec_options=CodecOptions(uuid_representation=4))
        json = to_json(decoded(stored))
        self.assertEqual(list(msgspec.json.decode(json)), list(decoded(stored)))
        self.assertEqual(to_json(decoded(stored)), json)
