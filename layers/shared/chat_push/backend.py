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


class DirectUrls(BaseModel):
    """Where FCM and APNs are. The local cloud has other addresses."""

    fcm_url: str = "https://fcm.googleapis.com"
    apns_url: str = "https://api.push.apple.com"
    apns_sandbox_url: str = "https://api.sandbox.push.apple.com"


class Settings(DirectUrls):
    """The environment of a worker."""

    supabase_url: str
    backend_secret_id: str
    expo_url: str = "https://exp.host"


def clients(settings: Settings) -> tuple[PushDatabase, Senders]:
    """Clients that are kept between invocations, and replaced when the secret changes. Raises SecretUnavailable."""
    secret = read_secret(settings.backend_secret_id, BackendSecret)
    expo = _expo(settings.expo_url, settings.backend_secret_id, secret.token)
    senders = Senders(expo, direct_senders(secret, settings))
    return _database(settings.supabase_url, settings.backend_secret_id, secret.key), senders


def direct_senders(secret: BackendSecret, urls: DirectUrls) -> dict[Provider, Sender]:
    """Clients of FCM and APNs, each if the secret holds its credentials. They are kept until these change."""
    senders: dict[Provider, Sender] = {}
    if secret.fcm_service_account:
        senders["fcm"] = _fcm(urls.fcm_url, secret.fcm_service_account.get_secret_value())
    if secret.apns_key:
        key = secret.apns_key.get_secret_value()
        servers = urls.apns_url, urls.apns_sandbox_url
        senders["apns"] = _apns(servers, key, secret.apns_key_id, secret.apns_team_id, secret.apns_topic)
    return senders


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


# Their modules are imported here: cryptography takes time that a stack with Expo alone does not need.
@lru_cache(maxsize=1)
def _fcm(url: str, service_account: str) -> Sender:
    from chat_push.fcm import Fcm

    return Fcm(service_account, url)


@lru_cache(maxsize=1)
def _apns(urls: tuple[str, str], key: str, key_id: str | None, team_id: str | None, topic: str | None) -> Sender:
    from chat_push.apns import Apns

    return Apns(key, key_id, team_id, topic, {"production": urls[0], "sandbox": urls[1]})
