"""What both workers share: their settings, and clients of the database and of Expo."""

from functools import lru_cache

from pydantic import BaseModel

from chat_push import https
from chat_push.database import PushDatabase
from chat_push.expo import Expo
from chat_push.key_refresh import RefreshKeyOnUnauthorized
from chat_push.secrets import BackendSecret, read_secret


class Settings(BaseModel):
    """The environment of a worker."""

    supabase_url: str
    backend_secret_id: str
    expo_url: str = "https://exp.host"


def clients(settings: Settings) -> tuple[PushDatabase, Expo]:
    """Clients that are kept between invocations, and replaced when the secret changes. Raises SecretUnavailable."""
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
