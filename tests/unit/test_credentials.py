"""Credentials of FCM and APNs: which files are accepted, and the tokens that they sign."""

import json
import time
from typing import Any

import jwt
import pytest
from chat_push.credentials import CredentialInvalid, parse_apns_key, parse_service_account
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from tests.credentials import APNS, ec_key, pem, rsa_key, service_account

GOOGLE_SERVICES = json.dumps({"project_info": {"project_id": "chat-1"}, "client": []})
LOCKED = ec_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")).decode()


class TestServiceAccount:
    def test_the_assertion_is_what_google_asks_for(self) -> None:
        account = parse_service_account(service_account())
        assertion = account.assertion()
        claims = jwt.decode(
            assertion, rsa_key().public_key(), ["RS256"], audience="https://oauth2.googleapis.com/token"
        )
        assert (claims["iss"], claims["exp"] - claims["iat"]) == ("sender@chat-1.iam.gserviceaccount.com", 3600)
        assert claims["scope"] == "https://www.googleapis.com/auth/firebase.messaging"
        assert jwt.get_unverified_header(assertion) == {"alg": "RS256", "typ": "JWT", "kid": "k1"}

    @pytest.mark.parametrize(
        ("text", "named"),
        [
            ("AAAAabc1234:APA91b" + "x" * 130, "server key of the old FCM API"),
            ("AIza" + "x" * 35, "server key of the old FCM API"),
            (pem(ec_key()), r"\.p8 of Apple"),
            ("hello", "no JSON"),
            ("[1]", "no object"),
            (GOOGLE_SERVICES, r"google-services\.json"),
            (json.dumps({"installed": {}}), "OAuth client"),
            (service_account(type="authorized_user"), "another kind of Google credential"),
            (service_account(project_id=None), "no project_id"),
            (service_account(project_id="../x"), "project_id is not the id"),
            (service_account(private_key="-----BEGIN PRIVATE KEY-----\nx\n"), "damaged"),
            (service_account(private_key=pem(ec_key())), "no RSA key"),
        ],
        ids=lambda value: value[:20],
    )
    def test_a_wrong_file_is_named_as_what_it_is_and_not_quoted(self, text: str, named: str) -> None:
        with pytest.raises(CredentialInvalid, match=named) as raised:
            parse_service_account(text)
        assert not any(line in str(raised.value) for line in text.split("\n") if len(line) > 40)


class TestApnsKey:
    def test_the_provider_token_names_key_and_team_and_has_the_signature_of_a_jwt(self) -> None:
        key = parse_apns_key(pem(ec_key()), *APNS.values())
        token = key.provider_token(time.time())
        claims = jwt.decode(token, ec_key().public_key(), ["ES256"])
        assert claims.keys() == {"iss", "iat"}
        assert claims["iss"] == "TEAM123456"
        assert jwt.get_unverified_header(token) == {"alg": "ES256", "kid": "ABC1234567"}

    def test_all_environments_of_the_function_make_the_same_token_for_40_minutes(self) -> None:
        """Apple refuses a team that makes more than one token in 20 minutes."""
        tokens = {
            parse_apns_key(pem(ec_key()), *APNS.values()).provider_token(minute * 60 + offset)
            for minute in range(40)
            for offset in (0.0, 59.9)
        }
        assert len(tokens) == 1
        assert parse_apns_key(pem(ec_key()), *APNS.values()).provider_token(40 * 60) not in tokens

    @pytest.mark.parametrize("now", [0.0, 2399.9, 2400.0, 1_795_000_000.0])
    def test_a_provider_token_is_never_older_than_40_minutes(self, now: float) -> None:
        token = parse_apns_key(pem(ec_key()), *APNS.values()).provider_token(now)
        issued_at = jwt.decode(token, options={"verify_signature": False})["iat"]
        assert 0 <= now - issued_at < 2400

    @pytest.mark.parametrize(
        ("changes", "named"),
        [
            ({"text": "-----BEGIN CERTIFICATE-----\nx"}, "is a certificate"),
            ({"text": "\x30\x82binary"}, r"no \.p8 key"),
            ({"text": service_account()}, "service account of Google"),
            ({"text": pem(rsa_key())}, "not of Apple"),
            ({"text": pem(ec.generate_private_key(ec.SECP384R1()))}, "not of Apple"),
            ({"text": LOCKED}, "has a password"),
            ({"key_id": None}, "apns_key_id"),
            ({"key_id": "abc1234567"}, "apns_key_id"),
            ({"team_id": "TEAM"}, "apns_team_id"),
            ({"topic": None}, "apns_topic"),
            ({"topic": "My App"}, "apns_topic"),
        ],
        ids=lambda value: value if isinstance(value, str) else next(iter(value)),  # Keys differ between processes.
    )
    def test_a_wrong_key_is_named_as_what_it_is_and_not_quoted(self, changes: dict[str, Any], named: str) -> None:
        fields = {"text": pem(ec_key()), **APNS, **changes}
        with pytest.raises(CredentialInvalid, match=named) as raised:
            parse_apns_key(**fields)
        assert not any(line in str(raised.value) for line in fields["text"].split("\n") if len(line) > 40)


def test_the_repr_of_credentials_contains_no_key() -> None:
    for credential in (parse_service_account(service_account()), parse_apns_key(pem(ec_key()), *APNS.values())):
        assert "key=" not in repr(credential).replace("private_key_id=", "")
        assert "PRIVATE" not in repr(credential)
