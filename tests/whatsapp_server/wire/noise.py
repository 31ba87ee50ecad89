"""The server's side of Noise_XX_25519_AESGCM_SHA256 as WhatsApp uses it.

The messages are: client ephemeral; server ephemeral, static and payload; client static and payload. The server's payload
is a chain of two certificates: an intermediate one, signed by the root that the client trusts (issuer serial 0), and a
leaf with the server's static key.
"""

from __future__ import annotations

import hashlib
import time

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ..crypto.keys import KeyPair, hkdf
from .neonize_library import load_neonize

load_neonize()
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # noqa: E402 - no stubs; after the library is loaded
from neonize.proto.waCert import WACert_pb2 as certificates  # noqa: E402
from neonize.proto.waWa6 import WAWebProtobufsWa6_pb2 as handshake  # noqa: E402

__all__ = ["HandshakeError", "NoiseCipher", "NoiseHandshake", "ServerIdentity", "certificates", "handshake"]

PROTOCOL_NAME = b"Noise_XX_25519_AESGCM_SHA256\0\0\0\0"  # as long as a hash, so it is not hashed
ROOT_SERIAL, INTERMEDIATE_SERIAL, LEAF_SERIAL = 0, 1, 2
_DAY = 86400


class HandshakeError(Exception):
    """The client's handshake message could not be read or authenticated."""


class ServerIdentity:
    """The server's static key and its certificate chain."""

    def __init__(self, root: KeyPair) -> None:
        self.root = root
        self.static = KeyPair()
        intermediate = KeyPair()
        self.chain: bytes = certificates.CertChain(
            intermediate=_certificate(INTERMEDIATE_SERIAL, ROOT_SERIAL, intermediate.public, signer=root),
            leaf=_certificate(LEAF_SERIAL, INTERMEDIATE_SERIAL, self.static.public, signer=intermediate),
        ).SerializeToString()


class NoiseHandshake:
    """Handles the client's two messages: returns the reply to the first, and a cipher after the second."""

    def __init__(self, identity: ServerIdentity, prologue: bytes) -> None:
        self._identity = identity
        self._ephemeral = KeyPair()
        self._hash = self._salt = PROTOCOL_NAME
        self._cipher = AESGCM(PROTOCOL_NAME)
        self._counter = 0
        self._absorb(prologue)

    def reply(self, client_hello: bytes) -> bytes:
        """ServerHello for the client's first message."""
        client_ephemeral: bytes = _parse(client_hello).clientHello.ephemeral
        if len(client_ephemeral) != len(self._ephemeral.public):
            raise HandshakeError("the client's hello has no ephemeral key")
        self._absorb(client_ephemeral)
        self._absorb(self._ephemeral.public)
        self._mix(self._ephemeral.agree(client_ephemeral))
        static = self._seal(self._identity.static.public)
        self._mix(self._identity.static.agree(client_ephemeral))
        payload = self._seal(self._identity.chain)
        hello = handshake.HandshakeMessage.ServerHello(ephemeral=self._ephemeral.public, static=static, payload=payload)
        message: bytes = handshake.HandshakeMessage(serverHello=hello).SerializeToString()
        return message

    def finish(self, client_finish: bytes) -> tuple[bytes, handshake.ClientPayload, NoiseCipher]:
        """The client's static key, its payload (login or registration), and the cipher for all further frames."""
        message = _parse(client_finish).clientFinish
        try:
            client_static = self._open(message.static)
            self._mix(self._ephemeral.agree(client_static))
            payload = handshake.ClientPayload.FromString(self._open(message.payload))
        except (InvalidTag, ValueError, DecodeError) as error:
            raise HandshakeError("the client's finish is not authentic") from error
        keys = hkdf(b"", salt=self._salt, length=64)
        return client_static, payload, NoiseCipher(read_key=keys[:32], write_key=keys[32:])

    def _absorb(self, data: bytes) -> None:
        self._hash = hashlib.sha256(self._hash + data).digest()

    def _mix(self, secret: bytes) -> None:
        keys = hkdf(secret, salt=self._salt, length=64)
        self._salt, self._cipher, self._counter = keys[:32], AESGCM(keys[32:]), 0

    def _seal(self, plain: bytes) -> bytes:
        sealed = self._cipher.encrypt(_nonce(self._counter), plain, self._hash)
        self._counter += 1
        self._absorb(sealed)
        return sealed

    def _open(self, sealed: bytes) -> bytes:
        plain = self._cipher.decrypt(_nonce(self._counter), sealed, self._hash)
        self._counter += 1
        self._absorb(sealed)
        return plain


class NoiseCipher:
    """Encrypts and decrypts frames after the handshake; each direction has its own message counter."""

    __slots__ = ("_read", "_read_count", "_write", "_write_count")

    def __init__(self, read_key: bytes, write_key: bytes) -> None:
        self._read, self._write = AESGCM(read_key), AESGCM(write_key)
        self._read_count = self._write_count = 0

    def open(self, sealed: bytes) -> bytes:
        """Plain bytes of the next frame from the client."""
        plain = self._read.decrypt(_nonce(self._read_count), sealed, None)
        self._read_count += 1
        return plain

    def seal(self, plain: bytes) -> bytes:
        """Sealed bytes of the next frame to the client."""
        sealed = self._write.encrypt(_nonce(self._write_count), plain, None)
        self._write_count += 1
        return sealed


def _nonce(counter: int) -> bytes:
    return counter.to_bytes(12, "big")


def _parse(message: bytes) -> handshake.HandshakeMessage:
    try:
        return handshake.HandshakeMessage.FromString(message)
    except DecodeError as error:
        raise HandshakeError("not a handshake message") from error


def _certificate(serial: int, issuer: int, key: bytes, *, signer: KeyPair) -> certificates.CertChain.NoiseCertificate:
    now = int(time.time())
    details = certificates.CertChain.NoiseCertificate.Details(
        serial=serial, issuerSerial=issuer, key=key, notBefore=now - _DAY, notAfter=now + 365 * _DAY
    ).SerializeToString()
    return certificates.CertChain.NoiseCertificate(details=details, signature=signer.sign(details))
