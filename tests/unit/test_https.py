"""HTTPS connections."""

import httpx
import pytest
from chat_push.database import DeviceRegistry, PushDatabase
from chat_push.expo import Expo
from chat_push.identity import Auth

from tests.http_fakes import EXPO_URL, SUPABASE_URL


def test_creating_a_client_does_not_read_the_certificates_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading them is slow. SnapStart's snapshot contains only what was read on import."""

    def read_again(*_: object, **__: object) -> None:
        raise AssertionError("the certificates are read again")

    monkeypatch.setattr("ssl.SSLContext.load_verify_locations", read_again)
    with pytest.raises(AssertionError):
        httpx.Client()
    PushDatabase(SUPABASE_URL, "key")
    DeviceRegistry(SUPABASE_URL, "key")
    Auth(SUPABASE_URL, "key")
    Expo(EXPO_URL)
