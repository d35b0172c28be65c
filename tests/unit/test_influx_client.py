"""What goes to InfluxDB over the wire."""

import gzip
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from services.influx.src.influx_client import InfluxClient

LINES = b"m f=1 1\n" * 1000


class Sink(BaseHTTPRequestHandler):
    """Keeps what it is sent."""

    received: list[tuple[str | None, bytes]]

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.received.append((self.headers["Content-Encoding"], body))
        self.send_response(204)
        self.end_headers()


@contextmanager
def sink(context: ssl.SSLContext | None = None) -> Iterator[tuple[int, list[tuple[str | None, bytes]]]]:
    received: list[tuple[str | None, bytes]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Keeping", (Sink,), {"received": received}))
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port, received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def certificate(where: Path) -> Path:
    """A key and a certificate for 127.0.0.1, which vouches for itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ) + made.public_bytes(serialization.Encoding.PEM)
    file = where / "server.pem"
    file.write_bytes(pem)
    return file


def write(url: str) -> None:
    client = InfluxClient(url, "token", "org")
    try:
        client.write("bucket", LINES, "ns")
    finally:
        client.close()


def test_points_go_uncompressed_to_a_server_in_the_same_network() -> None:
    with sink() as (port, received):
        write(f"http://127.0.0.1:{port}")
    assert received == [(None, LINES)]


def test_points_are_compressed_on_a_longer_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    with sink(context) as (port, received):
        write(f"HTTPS://127.0.0.1:{port}")
    ((coding, body),) = received
    assert coding == "gzip"
    assert len(body) < len(LINES) // 10
    assert gzip.decompress(body) == LINES
