"""What the workers are made of: their settings, their secret, and clients of the database and of Expo."""

from functools import lru_cache

from pydantic import BaseModel, Field, SecretStr

from chat_push import https
from chat_push.database import PushDatabase
from chat_push.expo import Expo
from chat_push.key_refresh import RefreshKeyOnUnauthorized
from chat_push.secrets import read_secret


class Settings(BaseModel):
    """The environment of a worker."""

    supabase_url: str
    backend_secret_id: str
    expo_url: str = "https://exp.host"


class BackendSecret(BaseModel):
    """The secret that backend_secret_id names."""

    supabase_secret_key: SecretStr = Field(min_length=1)
    expo_access_token: SecretStr | None = None

    @property
    def key(self) -> str:
        """The key of the database."""
        return self.supabase_secret_key.get_secret_value()

    @property
    def token(self) -> str | None:
        """The access token of Expo; an empty one is none."""
        return (self.expo_access_token.get_secret_value() if self.expo_access_token else None) or None


def clients(settings: Settings) -> tuple[PushDatabase, Expo]:
    """Kept between invocations, and made anew once the secret has changed. Raises SecretUnavailable."""
    secret = read_secret(settings.backend_secret_id, BackendSecret)
    return (
        _database(settings.supabase_url, settings.backend_secret_id, secret.key),
        _expo(settings.expo_url, settings.backend_secret_id, secret.token),
    )


@lru_cache(maxsize=1)
def _database(supabase_url: str, secret_id: str, key: str) -> PushDatabase:
    def fetch_current_key() -> str:
        return read_secret(secret_id, BackendSecret, force_refresh=True).key

    return PushDatabase(supabase_url, key, RefreshKeyOnUnauthorized("apikey", fetch_current_key, https.transport()))


@lru_cache(maxsize=1)
def _expo(expo_url: str, secret_id: str, token: str | None) -> Expo:
    def fetch_current_bearer() -> str | None:
        token = read_secret(secret_id, BackendSecret, force_refresh=True).token
        return f"Bearer {token}" if token else None

    return Expo(expo_url, token, RefreshKeyOnUnauthorized("Authorization", fetch_current_bearer, https.transport()))
