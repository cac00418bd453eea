"""Google's accounts: service accounts, their keys, and the access tokens that they get for a signed JWT.

Source: https://developers.google.com/identity/protocols/oauth2/service-account#httprest
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from local.providers.fcm.protocol import Json, RefusedError

TOKEN_PATH = "/token"
AUDIENCE = "https://oauth2.googleapis.com/token"  # a constant, wherever the endpoint is
GRANT_TYPE = "urn:ietf:params:oauth:grant-type:jwt-bearer"
SCOPES = (
    "https://www.googleapis.com/auth/firebase.messaging",
    "https://www.googleapis.com/auth/cloud-platform",
)
_LONGEST_GRANT = timedelta(hours=1)
_CLOCK_SKEW = timedelta(minutes=5)  # what Google tolerates is not documented


@cache
def _private_key() -> rsa.RSAPrivateKey:
    """One key pair for all accounts, because to make one takes 0.1 s. The key ids differ."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@dataclass
class ServiceAccount:
    """An account that may send messages of its project, unless it lacks the role."""

    email: str
    project: str
    may_send: bool
    key_ids: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class _AccessToken:
    account: ServiceAccount
    scopes: frozenset[str]
    expires_at: datetime


class Accounts:
    """The service accounts, and the access tokens that are valid."""

    def __init__(self) -> None:
        self._accounts: dict[str, ServiceAccount] = {}  # by email
        self._tokens: dict[str, _AccessToken] = {}

    def create_key(self, project: str, token_uri: str, *, may_send: bool) -> dict[str, str]:
        """A new account with a new key. Returns the JSON file that the Firebase console offers for download."""
        key_id = secrets.token_hex(20)
        email = f"firebase-adminsdk-{key_id[:5]}@{project}.iam.gserviceaccount.com"
        self._accounts[email] = ServiceAccount(email, project, may_send, {key_id})
        pem = _private_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        return {
            "type": "service_account",
            "project_id": project,
            "private_key_id": key_id,
            "private_key": pem,
            "client_email": email,
            "client_id": str(secrets.randbelow(10**21)),
            "auth_uri": "https://accounts.google.com/o/oauth2/auth",
            "token_uri": token_uri,
            "auth_provider_x509_cert_url": "https://www.googleapis.com/oauth2/v1/certs",
            "client_x509_cert_url": f"https://www.googleapis.com/robot/v1/metadata/x509/{email.replace('@', '%40')}",
            "universe_domain": "googleapis.com",
        }

    def delete_key(self, key_id: str) -> None:
        """The key signs no more grants. Access tokens that it got stay valid."""
        for account in self._accounts.values():
            account.key_ids.discard(key_id)

    def revoke_tokens(self) -> None:
        """No access token is valid any more."""
        self._tokens.clear()

    def grant(self, form: Mapping[str, str], now: datetime, lifetime: timedelta) -> Json:
        """Exchanges a signed JWT for an access token. Returns the answer. Raises RefusedError, with OAuth's errors."""
        if form.get("grant_type") != GRANT_TYPE:
            raise oauth_error("unsupported_grant_type", f"Invalid grant_type: {form.get('grant_type', '')}")
        if not (assertion := form.get("assertion")):
            raise oauth_error("invalid_request", "Missing required parameter: assertion")
        account, claims = self._verify(assertion)
        _check_times(claims, now)
        scopes = frozenset(str(claims.get("scope", "")).split())
        if not scopes:
            raise oauth_error("invalid_scope", "Invalid OAuth scope or ID token audience provided.")
        token = f"ya29.{secrets.token_urlsafe(96)}"
        self._tokens[token] = _AccessToken(account, scopes, now + lifetime)
        # Google's answers say a second less than the token lives.
        return {"access_token": token, "expires_in": int(lifetime.total_seconds()) - 1, "token_type": "Bearer"}

    def account_of(self, token: str, now: datetime) -> tuple[ServiceAccount, bool] | None:
        """Whose access token it is, and whether it has a scope that FCM accepts.

        Returns None: the token is not known, or not valid any more.
        """
        found = self._tokens.get(token)
        return (
            None if found is None or found.expires_at <= now else (found.account, not found.scopes.isdisjoint(SCOPES))
        )

    def _verify(self, assertion: str) -> tuple[ServiceAccount, dict[str, Any]]:
        """The account that signed a JWT, and its claims."""
        try:
            header = jwt.get_unverified_header(assertion)
            issuer = jwt.decode(assertion, options={"verify_signature": False}).get("iss")
        except jwt.InvalidTokenError as error:
            raise oauth_error("invalid_grant", "Bad Request") from error
        account = self._accounts.get(str(issuer))
        if account is None:
            raise oauth_error("invalid_grant", "Invalid grant: account not found")
        if header.get("kid", next(iter(account.key_ids), None)) not in account.key_ids:
            raise oauth_error("invalid_grant", "Invalid JWT Signature.")
        try:
            claims = jwt.decode(
                assertion,
                _private_key().public_key(),
                algorithms=["RS256"],
                audience=AUDIENCE,
                options={"verify_exp": False, "verify_iat": False},
            )
        except jwt.InvalidAudienceError as error:
            raise oauth_error(
                "invalid_grant", f"Invalid JWT: Failed audience check. The right audience is {AUDIENCE}"
            ) from error
        except jwt.InvalidTokenError as error:
            raise oauth_error("invalid_grant", "Invalid JWT Signature.") from error
        return account, claims


def oauth_error(error: str, description: str, status: int = 400) -> RefusedError:
    """An error of the token endpoint, in the form of OAuth."""
    return RefusedError(status, {"error": error, "error_description": description})


def _check_times(claims: Mapping[str, object], now: datetime) -> None:
    issued, expires = claims.get("iat"), claims.get("exp")
    if isinstance(issued, int) and isinstance(expires, int):
        is_short = 0 < expires - issued <= _LONGEST_GRANT.total_seconds()
        is_issued = issued <= (now + _CLOCK_SKEW).timestamp()
        is_alive = expires > (now - _CLOCK_SKEW).timestamp()
        if is_short and is_issued and is_alive:
            return
    raise oauth_error(
        "invalid_grant",
        "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. "
        "Check your iat and exp values in the JWT claim.",
    )
