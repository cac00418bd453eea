"""What both workers share: their settings, and clients of the database and of the configured providers."""

from functools import lru_cache

from pydantic import BaseModel

from chat_push import https
from chat_push.database import PushDatabase
from chat_push.delivery import Sender, Senders
from chat_push.expo import Expo
from chat_push.key_refresh import RefreshKeyOnUnauthorized
from chat_push.models import Provider
from chat_push.secrets import BackendSecret, read_secret


class Settings(BaseModel):
    """The environment of a worker."""

    supabase_url: str
    backend_secret_id: str
    expo_url: str = "https://exp.host"
    fcm_url: str = "https://fcm.googleapis.com"
    apns_url: str = "https://api.push.apple.com"
    apns_sandbox_url: str = "https://api.sandbox.push.apple.com"


def clients(settings: Settings) -> tuple[PushDatabase, Senders]:
    """Clients that are kept between invocations, and replaced when the secret changes. Raises SecretUnavailable.

    FCM and APNs are configured if the secret holds their credentials.
    """
    secret = read_secret(settings.backend_secret_id, BackendSecret)
    direct: dict[Provider, Sender] = {}
    if secret.fcm_service_account:
        direct["fcm"] = _fcm(settings.fcm_url, secret.fcm_service_account.get_secret_value())
    if secret.apns_key:
        key = secret.apns_key.get_secret_value()
        urls = settings.apns_url, settings.apns_sandbox_url
        direct["apns"] = _apns(urls, key, secret.apns_key_id, secret.apns_team_id, secret.apns_topic)
    expo = _expo(settings.expo_url, settings.backend_secret_id, secret.token)
    return _database(settings.supabase_url, settings.backend_secret_id, secret.key), Senders(expo, direct)


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


# Their modules are imported here, because h2 and cryptography take time that a stack with Expo alone does not need.
@lru_cache(maxsize=1)
def _fcm(url: str, service_account: str) -> Sender:
    from chat_push.fcm import Fcm

    return Fcm(service_account, url)


@lru_cache(maxsize=1)
def _apns(urls: tuple[str, str], key: str, key_id: str | None, team_id: str | None, topic: str | None) -> Sender:
    from chat_push.apns import Apns

    return Apns(key, key_id, team_id, topic, {"production": urls[0], "sandbox": urls[1]})
