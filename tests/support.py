"""Helpers for tests: a reactor with simulated time and threads, HTTP requests and responses, and certificates."""

import base64
import datetime
import ipaddress
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, settings
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher

#: A time between two whole seconds, like most times.
NOW = 1_700_000_000.25

#: A factor on the number of examples that hypothesis tries. `tests.unit` lowers it, soak runs raise it.
EFFORT = float(os.environ.get("LIVESTATE_TEST_EFFORT", "1"))


def examples(count: int, **more: Any) -> settings:
    """Return hypothesis settings with `count` examples, scaled by `EFFORT`, and no deadline: the machine may be busy."""
    return settings(deadline=None, max_examples=max(5, round(count * EFFORT)), **more)


few = examples(60)
many = examples(300)

#: For rule-based state machines, where each example is a sequence of up to 30 steps.
stories = examples(40, stateful_step_count=30, suppress_health_check=list(HealthCheck))


class FakeReactor(MemoryReactorClock):
    """A reactor with simulated time, whose threads run at once or, with `hold_threads`, when `run_job` is called."""

    def __init__(self, now: float = NOW, hold_threads: bool = False) -> None:
        super().__init__()
        self.rightNow = now
        self.hold_threads = hold_threads
        self.jobs: list[Callable[[], None]] = []

    def getThreadPool(self) -> Any:
        return self

    def callInThreadWithCallback(self, on_result: Any, function: Any, *args: Any, **kwargs: Any) -> None:
        def job() -> None:
            try:
                result = function(*args, **kwargs)
            except Exception as error:
                on_result(False, error)
            else:
                on_result(True, result)

        self.jobs.append(job)
        if not self.hold_threads:
            self.run_job()

    def callInThread(self, function: Any, *args: Any, **kwargs: Any) -> None:
        self.callInThreadWithCallback(lambda success, result: None, function, *args, **kwargs)

    def callFromThread(self, function: Any, *args: Any, **kwargs: Any) -> None:
        function(*args, **kwargs)

    def run_job(self) -> None:
        self.jobs.pop(0)()

    def run_for(self, seconds: float, step: float = 0.05) -> None:
        """Advance time in small steps, and a little more, so that calls that are due by then have run."""
        for _ in range(round(seconds / step)):
            self.advance(step)
        self.advance(0.0005)


@dataclass
class ParsedResponse:
    """An HTTP response, as it was received."""

    status: int
    reason: str
    lines: list[tuple[str, str]]
    body: bytes

    @property
    def fields(self) -> dict[str, str]:
        """The header fields by name; it is an error if a field is repeated."""
        fields = dict(self.lines)
        if len(fields) != len(self.lines):
            raise AssertionError(f"a field is repeated: {self.lines}")
        return fields


def parse_response(data: bytes) -> ParsedResponse:
    """Parse the bytes of one response."""
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    version, status, reason = first.split(" ", 2)
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        raise AssertionError(f"not a response: {first!r}")
    pairs = [line.split(": ", 1) for line in lines]
    return ParsedResponse(int(status), reason, [(name, value) for name, value in pairs], body)


def exchange(factory: Factory[Any], data: bytes) -> bytes:
    """Connect to `factory`, send `data`, and return everything that it sends back."""
    sent: bytes = exchange_on(factory, data).value()
    return sent


def exchange_on(factory: Factory[Any], data: bytes) -> StringTransport:
    """Connect to `factory`, send `data`, and return the transport."""
    protocol: Any = factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", 54321))
    transport = StringTransport(peerAddress=IPv4Address("TCP", "192.0.2.1", 54321))
    protocol.makeConnection(transport)
    protocol.dataReceived(data)
    return transport


def request(target: str = "/", method: str = "GET", **fields: str) -> bytes:
    """Return the bytes of a request; keyword arguments such as `accept_encoding="gzip"` are fields."""
    lines = [f"{method} {target} HTTP/1.1", "Host: live.example"]
    lines += [f"{name.replace('_', '-').title()}: {value}" for name, value in fields.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


async def until(reactor: Any, predicate: Callable[[], Any]) -> None:
    """Wait until `predicate` is true, or until the test times out."""
    while not predicate():
        await deferLater(reactor, 0.01)


def result_of(coroutine: Any) -> Any:
    """Run a coroutine that does not wait, and return its result or raise its error."""
    results: list[Any] = []
    Deferred.fromCoroutine(coroutine).addBoth(results.append)
    if not results:
        raise AssertionError("the coroutine waits")
    if hasattr(results[0], "raiseException"):
        results[0].raiseException()
    return results[0]


@contextmanager
def log_lines(least: LogLevel = LogLevel.info) -> Iterator[list[str]]:
    """Collect livestate's log lines of a level or above."""
    lines: list[str] = []
    order = list(LogLevel.iterconstants())

    def observe(event: LogEvent) -> None:
        if str(event.get("log_namespace", "")).startswith("livestate") and order.index(
            event["log_level"]
        ) >= order.index(least):
            lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)  # type: ignore[arg-type]  # a function is an observer
    try:
        yield lines
    finally:
        globalLogPublisher.removeObserver(observe)  # type: ignore[arg-type]


class Authority:
    """A certificate authority: a root, or an intermediate one below `parent`."""

    def __init__(self, name: str = "test authority", parent: "Authority | None" = None) -> None:
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self.key = ec.generate_private_key(ec.SECP256R1())
        issuer = parent if parent is not None else self
        self.certificate = _sign(issuer, self.name, self.key, [], ca=True)

    def issue(
        self, *names: str, key: Any = None, days: float = 1, subject: str = "test server"
    ) -> tuple[Any, x509.Certificate]:
        """Return a server's private key and its certificate for `names`, by default localhost.

        :param key: the private key; without one a new one, ECDSA.
        :param subject: the certificate's common name.
        """
        key = key or ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)])
        return key, _sign(self, name, key, list(names or ("localhost",)), ca=False, days=days)


def _sign(
    issuer: Authority, subject: x509.Name, key: Any, names: list[str], ca: bool, days: float = 1
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.timezone.utc)
    day = datetime.timedelta(days=1)
    builder = x509.CertificateBuilder(
        issuer.name, subject, key.public_key(), x509.random_serial_number(), now - day, now + days * day
    ).add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), False)
    return builder.sign(issuer.key, hashes.SHA256())


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def pem(*things: Any, password: bytes | None = None) -> bytes:
    """Return keys and certificates as one PEM file."""
    encryption: Any = (
        serialization.BestAvailableEncryption(password) if password is not None else serialization.NoEncryption()
    )
    return b"".join(
        thing.public_bytes(serialization.Encoding.PEM)
        if isinstance(thing, x509.Certificate)
        else thing.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        for thing in things
    )


def unsupported(key: bytes) -> bytes:
    """Return the PEM of a key on the curve SM2, which `cryptography` does not support, made from one on P-256."""
    loaded: Any = serialization.load_pem_private_key(key, None)
    der = loaded.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    other = der.replace(bytes.fromhex("06082a8648ce3d030107"), bytes.fromhex("06082a811ccf5501822d"))
    return b"-----BEGIN PRIVATE KEY-----\n" + base64.encodebytes(other) + b"-----END PRIVATE KEY-----\n"


def written(path: Path, data: bytes, mode: int = 0o600) -> str:
    """Write a file, and return its name."""
    path.write_bytes(data)
    path.chmod(mode)
    return str(path)


def replace(path: Path, data: bytes | str) -> None:
    """Replace a file atomically, as editors and publishers do."""
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(data if isinstance(data, bytes) else data.encode())
    new.rename(path)


def certificate_in(path):
    """Return the certificate in a file, after checking that the key in the file matches it."""
    data = Path(path).read_bytes()
    certificate = x509.load_pem_x509_certificate(data)
    key = serialization.load_pem_private_key(data, None)
    assert key.public_key() == certificate.public_key()
    return certificate
