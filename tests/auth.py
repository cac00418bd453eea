"""A fake of Supabase Auth at the HTTP border, with signing keys and access tokens."""

import base64
import hashlib
import hmac
import json
import time
from functools import cache
from typing import Any

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.http_fakes import SUPABASE_URL, Json, uuid

ANA, BEN = uuid(1), uuid(2)


class SigningKey:
    """An asymmetric key of a project."""

    def __init__(self, kid: str, algorithm: str = "ES256") -> None:
        self.kid = kid
        self.algorithm = algorithm
        self._private: Any = (
            ec.generate_private_key(ec.SECP256R1())
            if algorithm == "ES256"
            else rsa.generate_private_key(public_exponent=65537, key_size=2048)
        )

    @property
    def public(self) -> Json:
        """The public key, as the key set contains it."""
        algorithm: Any = jwt.get_algorithm_by_name(self.algorithm)
        listed: Json = algorithm.to_jwk(self._private.public_key(), as_dict=True)
        return {**listed, "kid": self.kid, "alg": self.algorithm, "use": "sig"}

    @property
    def public_pem(self) -> bytes:
        pem: bytes = self._private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return pem

    def token(self, **changes: Any) -> str:
        """An access token of Ana with changed claims. A claim of None is left out."""
        return self.signed(json.dumps(claims(**changes)).encode())

    def signed(self, payload: bytes) -> str:
        """A token with any payload. jwt.encode would refuse some."""
        return jwt.api_jws.encode(payload, self._private, self.algorithm, {"kid": self.kid})


@cache
def signing_key(kid: str, algorithm: str = "ES256") -> SigningKey:
    """A key that all tests share, because generating one is slow."""
    return SigningKey(kid, algorithm)


def claims(**changes: Any) -> Json:
    """The claims of an access token that Supabase Auth issues."""
    now = int(time.time())
    issued = {
        "iss": f"{SUPABASE_URL}/auth/v1",
        "sub": ANA,
        "aud": "authenticated",
        "role": "authenticated",
        "exp": now + 3600,
        "iat": now,
        "aal": "aal1",
        "session_id": uuid(9001),
        "is_anonymous": False,
    }
    return {name: value for name, value in {**issued, **changes}.items() if value is not None}


def unsigned(header: Json, payload: Json, signature: bytes = b"") -> str:
    """A token with any signature, as an attacker builds it."""
    return ".".join(_base64(part) for part in (json.dumps(header).encode(), json.dumps(payload).encode(), signature))


def signed_by_hmac(secret: bytes, header: Json, payload: Json) -> str:
    """A token with HS256 and any secret. PyJWT would refuse a public key as a secret."""
    signed = unsigned(header, payload).removesuffix(".")
    return f"{signed}.{_base64(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class AuthApi:
    """The part of Supabase Auth that verifies tokens. For httpx.MockTransport."""

    def __init__(self, *keys: SigningKey) -> None:
        self.keys = list(keys)
        self.users: dict[str, str] = {}  # the user of each token that only Auth can verify
        self.fault: httpx.Response | Exception | None = None
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        assert request.headers["apikey"].startswith("sb_publishable_")
        if isinstance(self.fault, Exception):
            raise self.fault
        if self.fault:
            return self.fault
        if request.url.path == "/auth/v1/.well-known/jwks.json":
            return httpx.Response(200, json={"keys": [key.public for key in self.keys]})
        assert request.url.path == "/auth/v1/user"
        user = self.users.get(request.headers["authorization"].removeprefix("Bearer "))
        if user is None:
            return httpx.Response(403, json={"code": 403, "error_code": "bad_jwt", "msg": "invalid JWT"})
        return httpx.Response(200, json={"id": user, "aud": "authenticated", "role": "authenticated"})

    @property
    def paths(self) -> list[str]:
        """The requested paths, in order."""
        return [request.url.path.removeprefix("/auth/v1/") for request in self.requests]
