"""The server's handshake with an independent client, written from the Noise specification."""

from __future__ import annotations

import hashlib
import os
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.whatsapp_server.crypto.keys import KeyPair, hkdf, signature_is_valid
from tests.whatsapp_server.wire.noise import (
    PROTOCOL_NAME,
    HandshakeError,
    NoiseCipher,
    NoiseHandshake,
    ServerIdentity,
    certificates,
    handshake,
)

PROLOGUE = b"WA\x06\x03"


class Initiator:
    """The client's half: its keys, and the running hash, salt and key of the handshake."""

    def __init__(self) -> None:
        self.static, self.ephemeral = KeyPair(), KeyPair()
        self.digest = hashlib.sha256(PROTOCOL_NAME + PROLOGUE).digest()
        self.salt = self.key = PROTOCOL_NAME
        self.count = 0

    def absorb(self, data: bytes) -> bytes:
        self.digest = hashlib.sha256(self.digest + data).digest()
        return data

    def mix(self, secret: bytes) -> None:
        keys = hkdf(secret, salt=self.salt, length=64)
        self.salt, self.key, self.count = keys[:32], keys[32:], 0

    def crypt(self, data: bytes, *, seal: bool) -> bytes:
        cipher, nonce = AESGCM(self.key), self.count.to_bytes(12, "big")
        out = cipher.encrypt(nonce, data, self.digest) if seal else cipher.decrypt(nonce, data, self.digest)
        self.absorb(out if seal else data)
        self.count += 1
        return out

    def hello(self) -> bytes:
        hello = handshake.HandshakeMessage.ClientHello(ephemeral=self.absorb(self.ephemeral.public))
        return bytes(handshake.HandshakeMessage(clientHello=hello).SerializeToString())

    def finish(self, reply: bytes, payload: bytes) -> tuple[bytes, bytes]:
        """(the server's certificate chain, our last message)."""
        hello = handshake.HandshakeMessage.FromString(reply).serverHello
        self.mix(self.ephemeral.agree(self.absorb(hello.ephemeral)))
        self.mix(self.ephemeral.agree(self.crypt(hello.static, seal=False)))
        chain = self.crypt(hello.payload, seal=False)
        static = self.crypt(self.static.public, seal=True)
        self.mix(self.static.agree(hello.ephemeral))
        last = handshake.HandshakeMessage.ClientFinish(static=static, payload=self.crypt(payload, seal=True))
        return chain, handshake.HandshakeMessage(clientFinish=last).SerializeToString()

    def cipher(self) -> NoiseCipher:
        keys = hkdf(b"", salt=self.salt, length=64)
        return NoiseCipher(read_key=keys[32:], write_key=keys[:32])


@pytest.fixture(scope="module")
def identity() -> ServerIdentity:
    return ServerIdentity(KeyPair())


def run(identity: ServerIdentity, payload: bytes) -> tuple[Initiator, bytes, Any, NoiseCipher]:
    client, server = Initiator(), NoiseHandshake(identity, PROLOGUE)
    chain, finish = client.finish(server.reply(client.hello()), payload)
    client_static, parsed, cipher = server.finish(finish)
    assert client_static == client.static.public
    return client, chain, parsed, cipher


def test_both_sides_end_with_the_same_keys_and_the_clients_payload(identity: ServerIdentity) -> None:
    payload = handshake.ClientPayload(username=62811, device=2).SerializeToString()
    client, _chain, parsed, server_cipher = run(identity, payload)
    client_cipher = client.cipher()

    assert (parsed.username, parsed.device) == (62811, 2)
    for number in range(3):
        assert client_cipher.open(server_cipher.seal(b"down %d" % number)) == b"down %d" % number
        assert server_cipher.open(client_cipher.seal(b"up %d" % number)) == b"up %d" % number


def test_frames_in_the_wrong_order_are_not_read(identity: ServerIdentity) -> None:
    client, _chain, _parsed, server_cipher = run(identity, b"")
    client_cipher = client.cipher()
    client_cipher.seal(b"lost")
    with pytest.raises(InvalidTag):
        server_cipher.open(client_cipher.seal(b"second"))


def test_the_certificates_lead_from_the_root_to_the_static_key(identity: ServerIdentity) -> None:
    _client, chain, _parsed, _cipher = run(identity, b"")
    certs = certificates.CertChain.FromString(chain)
    details = [
        certificates.CertChain.NoiseCertificate.Details.FromString(cert.details)
        for cert in (certs.intermediate, certs.leaf)
    ]

    assert signature_is_valid(identity.root.public, certs.intermediate.details, certs.intermediate.signature)
    assert signature_is_valid(details[0].key, certs.leaf.details, certs.leaf.signature)
    assert (details[0].issuerSerial, details[1].issuerSerial) == (0, details[0].serial)
    assert details[1].key == identity.static.public


def test_nonsense_and_forgeries_fail_the_handshake(identity: ServerIdentity) -> None:
    for nonsense in (b"", b"\xff\xff", os.urandom(100)):
        with pytest.raises(HandshakeError):
            NoiseHandshake(identity, PROLOGUE).reply(nonsense)
    client, server = Initiator(), NoiseHandshake(identity, b"XX\x06\x03")  # another prologue, another hash
    with pytest.raises(InvalidTag):
        client.finish(server.reply(client.hello()), b"")
    client, server = Initiator(), NoiseHandshake(identity, PROLOGUE)
    _chain, finish = client.finish(server.reply(client.hello()), b"")
    with pytest.raises(HandshakeError):
        server.finish(finish[:-1] + bytes((finish[-1] ^ 1,)))
