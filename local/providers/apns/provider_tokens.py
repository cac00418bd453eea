"""Keys of a developer account, and the provider tokens that a sender signs with them.

https://developer.apple.com/documentation/usernotifications/establishing-a-token-based-connection-to-apns
"""

import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from string import ascii_uppercase, digits

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from local.providers.apns.protocol import Environment, RejectedError

MAX_AGE = timedelta(hours=1)
UPDATE_INTERVAL = timedelta(minutes=20)  # at least, between the issue of two tokens on one connection
# How far the clock of a sender may be ahead. Apple documents no limit.
_MAX_AHEAD = timedelta(minutes=5)


def new_id() -> str:
    """A key id or a team id: ten characters."""
    return "".join(secrets.choice(ascii_uppercase + digits) for _ in range(10))


@dataclass(frozen=True)
class ProviderKey:
    """A key for APNs, as the developer downloads it. Newer keys are for one environment, or for some topics."""

    id: str
    team_id: str
    private_key: str = field(repr=False)  # PEM, the content of the .p8 file
    public_key: EllipticCurvePublicKey = field(repr=False)
    environments: Collection[Environment]
    topics: Collection[str]


def new_key(team_id: str, environments: Collection[Environment], topics: Collection[str]) -> ProviderKey:
    """A new key of a team."""
    private_key = generate_private_key(SECP256R1())
    pem = private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return ProviderKey(new_id(), team_id, pem, private_key.public_key(), environments, topics)


@dataclass(frozen=True)
class _ProviderToken:
    """A valid provider token."""

    text: str = field(repr=False)
    key: ProviderKey
    issued_at: datetime


class TokensOfConnection:
    """The provider tokens that a sender uses on one connection."""

    def __init__(self) -> None:
        self._current: _ProviderToken | None = None
        self._blocked_until: datetime | None = None

    def check(
        self, authorization: str | None, keys: Mapping[str, ProviderKey], environment: Environment, now: datetime
    ) -> ProviderKey:
        """The key of the token in the header `authorization`. Raises RejectedError.

        After too many updates, the connection stays unusable for the rest of the 20 minutes:
        https://developer.apple.com/forums/thread/675879
        """
        if authorization is None:
            raise RejectedError("MissingProviderToken")
        scheme, _, text = authorization.partition(" ")
        current = self._current
        if current is None or current.text != text:
            current = _verified(text, keys, now)
        if scheme.lower() != "bearer" or keys.get(current.key.id) != current.key:  # a key that is missing was revoked
            raise RejectedError("InvalidProviderToken")
        if environment not in current.key.environments:
            raise RejectedError("BadEnvironmentKeyInToken")
        if self._current is not None and self._current.key != current.key:
            raise RejectedError("UnrelatedKeyIdInToken")
        if now - current.issued_at > MAX_AGE:
            raise RejectedError("ExpiredProviderToken")
        self._check_update(current, now)
        self._current = current
        return current.key

    def expire(self) -> None:
        """The token expires now, as if it were an hour old. So the next one is not too early."""
        self._current = None

    def _check_update(self, token: _ProviderToken, now: datetime) -> None:
        """Raises RejectedError: the token is too new, or an earlier one was.

        The times of issue count: a sender may come to a connection with a token that it will soon renew.
        """
        if self._blocked_until is not None and now < self._blocked_until:
            raise RejectedError("TooManyProviderTokenUpdates")
        if self._current is not None and self._current != token:
            earliest = self._current.issued_at + UPDATE_INTERVAL
            if token.issued_at < earliest:
                self._blocked_until = earliest
                raise RejectedError("TooManyProviderTokenUpdates")


def _verified(token: str, keys: Mapping[str, ProviderKey], now: datetime) -> _ProviderToken:
    """The valid token that arrives now. Raises RejectedError: InvalidProviderToken."""
    try:
        key = keys[jwt.get_unverified_header(token)["kid"]]
        # The clock of this service decides about `iat`. A provider token has no `exp`.
        claims = jwt.decode(token, key.public_key, ["ES256"], options={"require": ["iat", "iss"], "verify_iat": False})
    except (jwt.InvalidTokenError, KeyError) as error:
        raise RejectedError("InvalidProviderToken") from error
    if claims["iss"] != key.team_id or not isinstance(claims["iat"], int):
        raise RejectedError("InvalidProviderToken")
    issued_at = datetime.fromtimestamp(claims["iat"], now.tzinfo)
    if issued_at - now > _MAX_AHEAD:
        raise RejectedError("InvalidProviderToken")
    return _ProviderToken(token, key, issued_at)
