"""The credentials of FCM and APNs, as the consoles of Firebase and Apple give them, and the tokens that they sign.

./dev secrets put checks them by the same rules as the senders. No error contains a part of a credential.
"""

import json
import re
import time
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

GOOGLE_TOKEN_URL = "https://oauth2.googleapis.com/token"  # noqa: S105 - no password
_SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
# Apple takes a provider token for an hour, and refuses more than one in 20 minutes.
PROVIDER_TOKEN_SLOT_SECONDS = 40 * 60


class CredentialInvalid(Exception):
    """The text is no credential of the kind that is expected. The message says what it is, if that can be seen."""


@dataclass(frozen=True)
class ServiceAccount:
    """A Google service account that may send the messages of a Firebase project."""

    project_id: str
    client_email: str
    token_url: str
    key_id: str | None
    private_key: RSAPrivateKey = field(repr=False)

    def assertion(self) -> str:
        """A JWT that Google exchanges for an access token: https://developers.google.com/identity/protocols/oauth2/service-account"""
        now = int(time.time())
        claims = {"iss": self.client_email, "scope": _SCOPE, "aud": GOOGLE_TOKEN_URL, "iat": now, "exp": now + 3600}
        return jwt.encode(claims, self.private_key, "RS256", {"kid": self.key_id} if self.key_id else None)


@dataclass(frozen=True)
class ApnsKey:
    """A key of Apple for token-based connections to APNs."""

    key_id: str
    team_id: str
    topic: str
    private_key: EllipticCurvePrivateKey = field(repr=False)

    def provider_token(self, now: float) -> str:
        """The provider token at this time, in seconds.

        Apple refuses a team that makes more than one in 20 minutes, however many servers it has. So all environments of
        the function compute the same: `iat` is the beginning of a slot, and the signature is deterministic (RFC 6979),
        which PyJWT cannot do.
        https://developer.apple.com/documentation/usernotifications/establishing-a-token-based-connection-to-apns
        """
        issued_at = int(now // PROVIDER_TOKEN_SLOT_SECONDS * PROVIDER_TOKEN_SLOT_SECONDS)
        header, claims = {"alg": "ES256", "kid": self.key_id}, {"iss": self.team_id, "iat": issued_at}
        signed = b".".join(_base64(json.dumps(part, separators=(",", ":")).encode()) for part in (header, claims))
        signature = self.private_key.sign(signed, ECDSA(SHA256(), deterministic_signing=True))
        r, s = decode_dss_signature(signature)
        return b".".join((signed, _base64(r.to_bytes(32) + s.to_bytes(32)))).decode()


def parse_service_account(text: str) -> ServiceAccount:
    """The service account in the JSON file of the Google console. Raises CredentialInvalid."""
    try:
        value = json.loads(text)
    except ValueError:
        raise CredentialInvalid(_no_json(text)) from None
    if not isinstance(value, dict):
        raise CredentialInvalid("the file is JSON, but no object")
    if "project_info" in value:
        raise CredentialInvalid("the file is google-services.json of an app, which holds no private key")
    if {"installed", "web"} & value.keys():
        raise CredentialInvalid("the file is an OAuth client, not a service account")
    if value.get("type") not in (None, "service_account"):
        raise CredentialInvalid('the file is another kind of Google credential: its type is not "service_account"')
    for name in ("project_id", "client_email", "private_key"):
        if not isinstance(value.get(name), str) or not value[name]:
            raise CredentialInvalid(f"the file has no {name}")
    key = _load(value["private_key"])
    if not isinstance(key, RSAPrivateKey):
        raise CredentialInvalid("its private_key is no RSA key")
    if not re.fullmatch(r"[a-z0-9:.-]{1,100}", value["project_id"]):
        raise CredentialInvalid("its project_id is not the id of a project")
    token_url, key_id = value.get("token_uri") or GOOGLE_TOKEN_URL, value.get("private_key_id")
    return ServiceAccount(value["project_id"], value["client_email"], token_url, key_id, key)


def parse_apns_key(text: str, key_id: str | None, team_id: str | None, topic: str | None) -> ApnsKey:
    """The key in a .p8 file of Apple, with what its console shows beside it. Raises CredentialInvalid."""
    if "BEGIN CERTIFICATE" in text:
        raise CredentialInvalid("the file is a certificate; create a key (.p8) for APNs instead")
    if "PRIVATE KEY" not in text:
        raise CredentialInvalid("the file is no .p8 key: it has no line BEGIN PRIVATE KEY (a .p12 is a certificate)")
    if text.lstrip().startswith("{"):
        raise CredentialInvalid("the file is a JSON file, such as a service account of Google; APNs needs a .p8 key")
    key = _load(text)
    if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
        raise CredentialInvalid("the key is not of Apple: its keys are elliptic, of the curve P-256")
    for name, value in (("apns_key_id", key_id), ("apns_team_id", team_id)):
        if not re.fullmatch(r"[A-Z0-9]{10}", value or ""):
            raise CredentialInvalid(f"{name} must have 10 capital letters and digits")
    if not re.fullmatch(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+", topic or ""):
        raise CredentialInvalid("apns_topic must be the bundle id of the app, such as com.example.app")
    return ApnsKey(key_id or "", team_id or "", topic or "", key)


def _no_json(text: str) -> str:
    if re.match(r"\s*(AAAA[\w-]{7}:|AIza)", text):
        return "it is a server key of the old FCM API, which Google has switched off; create a service account"
    if "PRIVATE KEY" in text:
        return "it is a key file, such as a .p8 of Apple, not the JSON file of a service account"
    return "the file is no JSON"


def _load(pem: str) -> Any:
    try:
        return load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError):
        raise CredentialInvalid("its private key is damaged, or has a password") from None


def _base64(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")
