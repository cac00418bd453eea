"""Who is calling: Supabase Auth's access tokens. The only module that knows JWTs, JWKS and the Auth API.

An HTTP API's own JWT authorizer knows no ES256, so the function checks the token itself; PostgREST checks it again.
https://supabase.com/docs/guides/auth/signing-keys
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
# Supabase's edge caches the key set for ten minutes too; a key that was revoked may live that long.
KEYS_CACHED_FOR_SECONDS = 600
# An unknown key id must not let anybody make us call Auth without end.
KEYS_MIN_REFRESH_SECONDS = 60
# As PostgREST, which checks the same token again: of the two the stricter one would decide.
CLOCK_SKEW_SECONDS = 30
AUDIENCE = "authenticated"
_JWT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]*", re.ASCII)
# As Auth writes it, and as Postgres reads it: Python's UUID() takes other forms too.
_CanonicalUuid = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\z")]

_NUL = re.compile(r"(?<!\\)(\\\\)*\\u0000")  # as JSON escapes it; Postgres has none in texts


class TokenRefused(Exception):
    """The token is missing or not valid here; the text says why and holds nothing of it."""


class TokenNotSignedIn(Exception):
    """The token is valid but of nobody: an anonymous role."""


class AuthUnavailable(Exception):
    """Supabase Auth does not answer, and without it the token cannot be checked."""


class _Claims(BaseModel):
    """What the database reads of a token: auth.uid() and the session of a device."""

    sub: _CanonicalUuid
    session_id: _CanonicalUuid | None = None


class Auth:
    """Checks access tokens of one Supabase project. `clock` gives seconds that only go forward."""

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
        """The person whose token it is. Raises TokenRefused, TokenNotSignedIn or AuthUnavailable."""
        try:
            # Base64 decoders skip what is not base64, but no HTTP header can pass it on.
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
            # A key is listed before it signs. Until then, and for as long as older tokens live, the secret counts that
            # the project shares with its database.
            claims = self._verify_via_auth_api(access_token)
        else:
            raise TokenRefused("the access token is signed with a key that this project does not have")
        if claims.get("role") != "authenticated":
            raise TokenNotSignedIn("the access token is of no signed-in user")
        return _user_id(claims)

    def _verify_signature(self, token: str, key: jwt.PyJWK) -> dict[str, Any]:
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                # The key's own algorithm: neither "none" nor HS256 with a public key for a secret.
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
        """The claims of a token that only Auth can check, because it is signed with a shared secret."""
        try:
            token_claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
        except jwt.PyJWTError:
            raise TokenRefused("the access token is not valid") from None
        _user_id(token_claims)  # Auth itself may fail on a claim that it cannot read.
        answer = self._get("/user", {"Authorization": f"Bearer {token}"})
        if answer.status_code in (401, 403):
            raise TokenRefused("the access token is not valid, or has expired")
        # The user's role is another thing than the token's, which the database will go by.
        return {**token_claims, "sub": self._json(answer).get("id")}

    def _current_keys(self, kid: str) -> dict[str, jwt.PyJWK]:
        """The project's asymmetric keys by id; none if it has only a shared secret. `kid` is the one that is wanted."""
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
            listed = self._json(self._get("/.well-known/jwks.json", {})).get("keys", [])
        except AuthUnavailable:
            if fresh:
                return self._keys
            raise
        self._keys = {key["kid"]: jwt.PyJWK(key) for key in listed if key.get("alg") in ("ES256", "RS256")}
        self._keys_read_at = now
        return self._keys

    def _get(self, path: str, headers: dict[str, str]) -> httpx.Response:
        try:
            return self._http.get(self._url + path, headers=headers)
        except httpx.RequestError as error:
            raise AuthUnavailable(f"Supabase Auth: {type(error).__name__}") from None

    def _json(self, answer: httpx.Response) -> dict[str, Any]:
        try:
            answer.raise_for_status()
            body: dict[str, Any] = answer.json()
        except (httpx.HTTPStatusError, ValueError):
            raise AuthUnavailable(f"Supabase Auth: HTTP {answer.status_code}") from None
        return body


def _user_id(claims: dict[str, Any]) -> UUID:
    """The person. Raises TokenRefused for claims that the database could not read: it would fail with each call."""
    try:
        stored = json.dumps(claims, ensure_ascii=False, allow_nan=False)
        stored.encode()  # fails on half a character
        if _NUL.search(stored):
            raise ValueError
    except (ValueError, RecursionError):
        raise TokenRefused("the access token has claims that cannot be read") from None
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
