"""The keys that a client must trust, in one folder: a TLS CA, the server's certificate, and the Noise root key.

The certificates have the extensions that RFC 5280 wants (4.2.1.1 to 4.2.1.3). Python checks them since 3.13: its documentation of
`ssl.create_default_context`, VERIFY_X509_STRICT.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .keys import KeyPair

HOST_NAMES = ("web.whatsapp.com", "*.whatsapp.com", "*.whatsapp.net", "localhost")
VALID_DAYS = 365
_SIGNS_CERTIFICATES = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


class Pki(NamedTuple):
    """The files in a PKI folder; ``ca`` is a client's SSL_CERT_FILE."""

    ca: Path
    certificate: Path
    certificate_key: Path
    noise_root_key: Path

    @classmethod
    def in_folder(cls, folder: Path) -> Pki:
        """The PKI in that folder, which is created if it does not exist."""
        pki = cls(folder / "ca.pem", folder / "server.pem", folder / "server.key", folder / "noise_root.key")
        if not all(path.exists() for path in pki):
            folder.mkdir(parents=True, exist_ok=True)
            pki._create()
        return pki

    def noise_root(self) -> KeyPair:
        """The key pair whose public key replaces WhatsApp's in the client's memory."""
        return KeyPair(self.noise_root_key.read_bytes())

    def tls_context(self) -> ssl.SSLContext:
        """The server's TLS context."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.certificate_key)
        context.num_tickets = 0  # clients connect once, so session tickets would only cost memory
        return context

    def _create(self) -> None:
        ca_key, server_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        issuer = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
        names: list[x509.GeneralName] = [x509.DNSName(name) for name in HOST_NAMES]
        names.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
        ca = (
            _builder("shardd test CA", ca_key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_SIGNS_CERTIFICATES, critical=True)
            .add_extension(issuer, critical=False)
        )
        server = (
            _builder(HOST_NAMES[0], server_key.public_key())
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False)
        )
        self.ca.write_bytes(_pem(ca, ca_key))
        self.certificate.write_bytes(_pem(server, ca_key))
        self.certificate_key.write_bytes(
            server_key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        self.noise_root_key.write_bytes(KeyPair().private)


def _builder(subject: str, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "shardd test CA")]))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=VALID_DAYS))
    )


def _pem(builder: x509.CertificateBuilder, ca_key: ec.EllipticCurvePrivateKey) -> bytes:
    return builder.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
