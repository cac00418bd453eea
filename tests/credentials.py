"""Credentials of FCM and APNs that tests make, as the consoles of Firebase and Apple give them."""

import json
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

APNS = {"key_id": "ABC1234567", "team_id": "TEAM123456", "topic": "com.example.app"}


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@cache
def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def pem(key: Any) -> str:
    encoded: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return encoded.decode()


def service_account(**changes: Any) -> str:
    """The JSON file of a service account. A field of None is left out."""
    fields = {
        "type": "service_account",
        "project_id": "chat-1",
        "private_key_id": "k1",
        "private_key": pem(rsa_key()),
        "client_email": "sender@chat-1.iam.gserviceaccount.com",
        "token_uri": "https://oauth2.googleapis.com/token",
        **changes,
    }
    return json.dumps({name: value for name, value in fields.items() if value is not None})
