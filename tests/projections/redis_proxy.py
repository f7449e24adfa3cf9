"""A proxy before a server that misbehaves as told, with TLS if wanted, and certificates for it."""

import contextlib
import datetime as dt
import ipaddress
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

JOIN_SEC = 20.0


class Proxy:
    """
    A proxy that does to each exchange what its `mode` says.

    pass: nothing. reset: let the server execute it, then reset. hole: take it, and pass nothing on.
    slow: answer a byte at a time. refuse: reset a new connection at once.
    """

    def __init__(self, port: int, context: ssl.SSLContext | None = None) -> None:
        self.mode = "pass"
        self.accepted = 0
        self._target = ("127.0.0.1", port)
        self._context = context
        self._ends = threading.Event()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._begin(self._accept)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._ends.set()
        for sock in [self._listener, *self._sockets]:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(JOIN_SEC)
        self._listener.close()
        for sock in self._sockets:
            sock.close()

    def _begin(self, work: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            self._sockets.append(client)
            self._begin(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self.mode == "refuse":
                reset(client)
                return
            if self._context is not None:
                client = self._context.wrap_socket(client, server_side=True)
                self._sockets.append(client)
            server = socket.create_connection(self._target)
            self._sockets.append(server)
            while True:
                readable, _, _ = select.select([client, server], [], [])
                if client in readable:
                    request = client.recv(1 << 20)
                    if not request:
                        return
                    if self.mode != "hole":
                        server.sendall(request)
                if server in readable:
                    answer = server.recv(1 << 20)
                    if not answer:
                        reset(client)
                        return
                    if self.mode == "reset":
                        reset(client)
                        return
                    self._answer(client, answer)

    def _answer(self, client: socket.socket, answer: bytes) -> None:
        if self.mode != "slow":
            client.sendall(answer)
            return
        for index in range(len(answer)):
            if self._ends.wait(0.1):
                return
            client.sendall(answer[index : index + 1])


def reset(sock: socket.socket) -> None:
    """Close with a reset rather than an orderly end."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@contextmanager
def proxied(port: int, context: ssl.SSLContext | None = None) -> Iterator[Proxy]:
    proxy = Proxy(port, context)
    try:
        yield proxy
    finally:
        proxy.close()


class Authority:
    """Makes certificates for 127.0.0.1, in files of a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._builder(self._subject, self._key.public_key()).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(
            certificate.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        )

    def context(self) -> ssl.SSLContext:
        """Return what a server with a certificate of this authority uses."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server_file())
        return context

    def server_file(self) -> Path:
        """Return a file with a server's key and its certificate by this authority."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "redis")])
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        certificate = self._builder(name, key.public_key()).add_extension(
            x509.SubjectAlternativeName([address]), critical=False
        )
        file = self._folder / f"{self._name}-server.pem"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + certificate.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        )
        return file

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey
    ) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
        )
