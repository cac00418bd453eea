"""What the workers are made of: their settings, their secret, and clients of the database and of Expo."""

from functools import lru_cache

from pydantic import BaseModel, SecretStr

from chat_push.database import PushDatabase
from chat_push.expo import Expo
from chat_push.secrets import read_secret


class Settings(BaseModel):
    """The environment of a worker."""

    supabase_url: str
    backend_secret_id: str
    expo_url: str = "https://exp.host"


class BackendSecret(BaseModel):
    """The secret that backend_secret_id names."""

    supabase_secret_key: SecretStr
    expo_access_token: SecretStr | None = None


def clients(settings: Settings) -> tuple[PushDatabase, Expo]:
    """Kept between invocations, and made anew once the secret has changed. Raises SecretUnavailable."""
    secret = read_secret(settings.backend_secret_id, BackendSecret)
    token = secret.expo_access_token
    return (
        _database(settings.supabase_url, secret.supabase_secret_key.get_secret_value()),
        _expo(settings.expo_url, token.get_secret_value() if token else None),
    )


@lru_cache(maxsize=1)
def _database(supabase_url: str, secret_key: str) -> PushDatabase:
    return PushDatabase(supabase_url, secret_key)


@lru_cache(maxsize=1)
def _expo(expo_url: str, access_token: str | None) -> Expo:
    return Expo(expo_url, access_token)
