"""Verifies Supabase Auth's access tokens. The only module that reads JWTs and JWKS, and that calls the Auth API.

API Gateway's own JWT authorizer supports no ES256, so the function verifies the token. PostgREST verifies it again.
https://supabase.com/docs/guides/auth/signing-keys
https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-jwt-authorizer.html
"""

import json
import re
import time
from collections.abc import Callable
from typing import Annotated, Any
from uuid import UUID

import httpx
import jwt
from pydantic import BaseModel, StringConstraints, ValidationError

from chat_push import https

TIMEOUT = httpx.Timeout(3, connect=2)
# Supabase's edge caches the key set for ten minutes as well. A revoked key is accepted for that long.
KEYS_CACHED_FOR_SECONDS = 600
# A limit, because every token with an unknown key id makes the function read the key set again.
KEYS_MIN_REFRESH_SECONDS = 60
# The value of PostgREST, which verifies the same token: https://docs.postgrest.org/en/stable/references/auth.html
CLOCK_SKEW_SECONDS = 30
AUDIENCE = "authenticated"
_JWT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]*", re.ASCII)
# The form that Auth writes and Postgres reads. Python's UUID() accepts others.
_CanonicalUuid = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\z")]

_NUL = re.compile(r"(?<!\\)(\\\\)*\\u0000")  # as JSON escapes it. Postgres cannot store it in a text.


class TokenRefused(Exception):
    """The token is not valid for this project. The text says why, and quotes nothing of the token."""


class TokenNotSignedIn(Exception):
    """The token is valid, but its role is not that of a signed-in user."""


class AuthUnavailable(Exception):
    """Supabase Auth does not respond, and the token cannot be verified without it."""


class _Claims(BaseModel):
    """The claims that the database reads: auth.uid() and the session of a device."""

    sub: _CanonicalUuid
    session_id: _CanonicalUuid | None = None


class Auth:
    """Verifies access tokens of one Supabase project. `clock` returns monotonic seconds."""

    def __init__(
        self,
        supabase_url: str,
        publishable_key: str,
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = f"{supabase_url.rstrip('/')}/auth/v1"
        self._http = httpx.Client(
            headers={"apikey": publishable_key},
            transport=transport or https.transport(),
            timeout=TIMEOUT,
        )
        self._clock = clock
        self._keys: dict[str, jwt.PyJWK] = {}
        self._keys_read_at: float | None = None
        self._keys_requested_at: float | None = None

    def user_id(self, access_token: str) -> UUID:
        """The id of the user whose token it is. Raises TokenRefused, TokenNotSignedIn or AuthUnavailable."""
        try:
            # Base64 decoders skip other characters, which no HTTP header could carry to PostgREST.
            header = jwt.get_unverified_header(access_token) if _JWT.fullmatch(access_token) else None
        except jwt.PyJWTError:
            header = None
        if header is None:
            raise TokenRefused("the access token is not a JWT")
        kid = header.get("kid", "")
        keys = self._current_keys(kid)
        if kid in keys:
            claims = self._verify_signature(access_token, keys[kid])
        elif not keys or header.get("alg") == "HS256":
            # A project that moves to asymmetric keys lists the first one before it signs with it. Until older tokens
            # have expired, tokens signed with the shared secret are valid, too.
            claims = self._verify_via_auth_api(access_token)
        else:
            raise TokenRefused("the access token is signed with a key that this project does not have")
        if claims.get("role") != "authenticated":
            raise TokenNotSignedIn("the access token does not belong to a signed-in user")
        return _user_id(claims)

    def _verify_signature(self, token: str, key: jwt.PyJWK) -> dict[str, Any]:
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                # The algorithm of the key, so that neither "none" nor HS256 with the public key as secret is accepted.
                algorithms=[key.algorithm_name],
                audience=AUDIENCE,
                issuer=self._url,
                leeway=CLOCK_SKEW_SECONDS,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.PyJWTError as error:
            raise TokenRefused(_REFUSALS.get(type(error), "the access token is not valid")) from None
        return claims

    def _verify_via_auth_api(self, token: str) -> dict[str, Any]:
        """The claims of a token that only Auth can verify, because it is signed with the shared secret."""
        try:
            token_claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
        except jwt.PyJWTError:
            raise TokenRefused("the access token is not valid") from None
        _user_id(token_claims)  # Before the request: Auth itself may fail on a claim that it cannot read.
        response = self._get("/user", {"Authorization": f"Bearer {token}"})
        if response.status_code in (401, 403):
            raise TokenRefused("the access token is not valid, or has expired")
        # The role stays that of the token, by which the database decides. Auth returns the role of the user.
        return {**token_claims, "sub": self._json(response).get("id")}

    def _current_keys(self, kid: str) -> dict[str, jwt.PyJWK]:
        """The project's asymmetric keys by id, read again if `kid` is missing. Empty if it has only a shared secret."""
        now = self._clock()
        fresh = self._keys_read_at is not None and now - self._keys_read_at < KEYS_CACHED_FOR_SECONDS
        known = fresh and (not self._keys or kid in self._keys)
        requested_recently = (
            self._keys_requested_at is not None and now - self._keys_requested_at < KEYS_MIN_REFRESH_SECONDS
        )
        if known or (fresh and requested_recently):
            return self._keys
        self._keys_requested_at = now
        try:
            self._keys = self._read_keys()
        except AuthUnavailable:
            if fresh:
                return self._keys
            raise
        self._keys_read_at = now
        return self._keys

    def _read_keys(self) -> dict[str, jwt.PyJWK]:
        body = self._json(self._get("/.well-known/jwks.json", {}))
        try:
            return {key["kid"]: jwt.PyJWK(key) for key in body.get("keys", []) if key.get("alg") in ("ES256", "RS256")}
        except (AttributeError, KeyError, TypeError, jwt.PyJWTError) as error:
            raise AuthUnavailable(f"Supabase Auth: unreadable keys, {type(error).__name__}") from None

    def _get(self, path: str, headers: dict[str, str]) -> httpx.Response:
        try:
            return self._http.get(self._url + path, headers=headers)
        except httpx.RequestError as error:
            raise AuthUnavailable(f"Supabase Auth: {type(error).__name__}") from None

    def _json(self, response: httpx.Response) -> dict[str, Any]:
        try:
            response.raise_for_status()
            body: dict[str, Any] = response.json()
        except (httpx.HTTPStatusError, ValueError):
            raise AuthUnavailable(f"Supabase Auth: HTTP {response.status_code}") from None
        return body


def _user_id(claims: dict[str, Any]) -> UUID:
    """The id of the user. Raises TokenRefused for claims that the database cannot read: its calls would fail."""
    try:
        stored = json.dumps(claims, ensure_ascii=False, allow_nan=False)
        stored.encode()  # Fails for a lone surrogate.
        if _NUL.search(stored):
            raise ValueError
    except (ValueError, RecursionError):
        raise TokenRefused("the access token has claims that the database cannot read") from None
    try:
        return UUID(_Claims.model_validate(claims).sub)
    except ValidationError as error:
        is_sub = any(fault["loc"] == ("sub",) for fault in error.errors())
        raise TokenRefused(f"the access token names no {'user' if is_sub else 'session'}") from None


_REFUSALS: dict[type[Exception], str] = {
    jwt.ExpiredSignatureError: "the access token has expired",
    jwt.ImmatureSignatureError: "the access token is not valid yet",
    jwt.InvalidIssuerError: "the access token is of another project",
    jwt.InvalidAudienceError: "the access token is for another audience",
    jwt.InvalidSignatureError: "the access token's signature is wrong",
}
