"""Verification of access tokens, and the number of requests to Supabase Auth."""

import time
from typing import Any
from uuid import UUID

import httpx
import pytest
from chat_push.identity import Auth, AuthUnavailable, TokenNotSignedIn, TokenRefused
from hypothesis import given
from hypothesis import strategies as st

from tests.auth import ANA, BEN, AuthApi, SigningKey, claims, signed_by_hmac, signing_key, unsigned
from tests.http_fakes import SUPABASE_URL

KEY, NEW, RSA = signing_key("key"), signing_key("new"), signing_key("rsa", "RS256")
KEY_SET = ".well-known/jwks.json"
SECRET = b"the project's shared secret, that only Auth and the database know"


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def auth(api: AuthApi, clock: Clock | None = None) -> Auth:
    return Auth(SUPABASE_URL, "sb_publishable_x", httpx.MockTransport(api), clock or Clock())


class TestAcceptedTokens:
    @pytest.mark.parametrize("key", [KEY, RSA], ids=["ES256", "RS256"])
    @pytest.mark.parametrize("url", [SUPABASE_URL, SUPABASE_URL + "/"])
    def test_a_token_signed_with_a_key_of_the_project_is_accepted(self, key: SigningKey, url: str) -> None:
        api = AuthApi(KEY, RSA)
        checked = Auth(url, "sb_publishable_x", httpx.MockTransport(api)).user_id(key.token())
        assert checked == UUID(ANA)
        assert api.paths == [KEY_SET]

    @pytest.mark.parametrize(
        "changes",
        [
            {"aud": ["authenticated"]},
            {"aud": ["other", "authenticated"]},
            {"is_anonymous": True},  # signed in as an anonymous user, which is not the role anon
        ],
        ids=str,
    )
    def test_a_token_with_several_audiences_or_of_an_anonymous_user_is_accepted(self, changes: dict[str, Any]) -> None:
        assert auth(AuthApi(KEY)).user_id(KEY.token(**changes)) == UUID(ANA)

    def test_a_token_is_accepted_if_the_clocks_differ_by_half_a_minute(self) -> None:
        now = int(time.time())
        for times in ({"exp": now - 25}, {"nbf": now + 29, "iat": now + 29}):
            assert auth(AuthApi(KEY)).user_id(KEY.token(**times)) == UUID(ANA)

    def test_a_token_is_refused_if_the_clocks_differ_by_more_than_half_a_minute(self) -> None:
        now = int(time.time())
        for times in ({"exp": now - 31}, {"nbf": now + 45}, {"iat": now + 45}):
            with pytest.raises(TokenRefused):
                auth(AuthApi(KEY)).user_id(KEY.token(**times))


IN_A_DAY = int(time.time()) + 86_400
HEADER = {"typ": "JWT", "kid": "key"}
REFUSED = {
    "alg none": (unsigned({**HEADER, "alg": "none"}, claims()), "not valid"),
    "no alg": (unsigned({"kid": "key"}, claims()), "not valid"),
    "no header": (unsigned({}, claims()), "a key that this project does not have"),
    "alg none in capitals": (unsigned({**HEADER, "alg": "NONE"}, claims()), "not valid"),
    "alg none without kid": (unsigned({"alg": "none"}, claims()), "a key that this project does not have"),
    "HS256 with the public key": (signed_by_hmac(KEY.public_pem, {**HEADER, "alg": "HS256"}, claims()), "not valid"),
    "HS256 with a guessed secret": (signed_by_hmac(b"secret", {**HEADER, "alg": "HS256"}, claims()), "not valid"),
    "HS256 with a guessed secret, without kid": (signed_by_hmac(b"secret", {"alg": "HS256"}, claims()), "not valid"),
    "RS256 by name, with a key for ES256": (unsigned({**HEADER, "alg": "RS256"}, claims(), b"x" * 256), "not valid"),
    "unknown kid": (signing_key("stranger").token(), "a key that this project does not have"),
    "kid that is no string": (unsigned({**HEADER, "kid": 1, "alg": "ES256"}, claims()), "not a JWT"),
    "signature of another key": (SigningKey("key").token(), "signature is wrong"),
    "no signature": (KEY.token().rpartition(".")[0] + ".", "signature is wrong"),
    "claims of another token": (".".join([*KEY.token(sub=BEN).split(".")[:2], KEY.token().split(".")[2]]), "signature"),
    "expired": (KEY.token(exp=1), "has expired"),
    "not yet valid": (KEY.token(nbf=IN_A_DAY), "not valid yet"),
    "issued in the future": (KEY.token(iat=IN_A_DAY), "not valid yet"),
    "wrong issuer": (KEY.token(iss="https://other.supabase.co/auth/v1"), "of another project"),
    "no issuer": (KEY.token(iss=None), "not valid"),
    "wrong audience": (KEY.token(aud="other"), "for another audience"),
    "wrong audiences": (KEY.token(aud=["other"]), "for another audience"),
    "no audience": (KEY.token(aud=None), "not valid"),
    "no expiry": (KEY.token(exp=None), "not valid"),
    "no sub": (KEY.token(sub=None), "not valid"),
    "sub that is no user id": (KEY.token(sub="ana"), "names no user"),
    "publishable key": ("sb_publishable_x", "not a JWT"),
    "nothing": ("", "not a JWT"),
    "two parts": ("x.y", "not a JWT"),
    "no base64": ("x.y.z", "not a JWT"),
    "more than base64": (KEY.token().replace(".", ".é", 1), "not a JWT"),
    "half a character": ("\udcff", "not a JWT"),
    "line break": (KEY.token() + "\n", "not a JWT"),
}


# Values of every JSON type, texts that are almost valid, and texts that Postgres cannot store.
ODD: list[Any] = [
    True,
    0,
    7,
    -1.5,
    10**400,
    1e308,
    float("inf"),
    float("nan"),
    [],
    ["x"],
    {},
    {"x": 1},
    "",
    "\x00",
    "\ud800",
]
ODD_UUIDS: list[Any] = [
    ANA + "\n",
    " " + ANA,
    f"{{{ANA}}}",
    f"urn:uuid:{ANA}",
    ANA.replace("-", ""),
    "ana",
    "x" * 5000,
    [ANA],
]
ODD_CLAIMS: list[dict[str, Any]] = [
    *({"sub": value} for value in [*ODD, *ODD_UUIDS]),
    *({"session_id": value} for value in [*ODD, *ODD_UUIDS]),
    *({name: value} for name in ("exp", "iat", "nbf") for value in [*ODD[6:8], [], {}, "soon", "\x00"]),
    *({name: 10**400} for name in ("iat", "nbf")),
    *({name: value} for name in ("iss", "aud") for value in ODD),
    *({"user_metadata": {"name": [value]}} for value in ("\x00", "\\\x00", "\ud800", float("inf"), float("nan"))),
]


class TestOddClaims:
    """Claims of a token with a valid signature."""

    @pytest.mark.parametrize("changes", ODD_CLAIMS, ids=lambda changes: repr(changes)[:60])
    def test_claims_that_the_database_cannot_read_are_refused(self, changes: dict[str, Any]) -> None:
        with pytest.raises(TokenRefused) as raised:
            auth(AuthApi(KEY)).user_id(KEY.token(**changes))
        assert raised.value.__suppress_context__

    @pytest.mark.parametrize("changes", [odd for odd in ODD_CLAIMS if "session_id" in odd], ids=lambda c: repr(c)[:60])
    def test_a_session_that_the_database_cannot_read_is_refused_before_auth_is_called(
        self, changes: dict[str, Any]
    ) -> None:
        api = AuthApi()
        token = signed_by_hmac(SECRET, {"alg": "HS256"}, claims(**changes))
        api.users[token] = ANA
        with pytest.raises(TokenRefused):
            auth(api).user_id(token)
        assert api.paths == [KEY_SET]  # Auth itself may fail on such a token.

    @pytest.mark.parametrize("role", [value for value in ODD if not isinstance(value, float)], ids=repr)
    def test_a_role_of_any_other_type_does_not_count_as_signed_in(self, role: Any) -> None:
        with pytest.raises(TokenNotSignedIn):
            auth(AuthApi(KEY)).user_id(KEY.token(role=role))

    @pytest.mark.parametrize("payload", ["[]", "1", '"x"', "null", "", "{", "[" * 7000 + "]" * 7000, "9" * 5000])
    def test_claims_that_are_not_an_object_are_refused(self, payload: str) -> None:
        for api in (AuthApi(KEY), AuthApi()):
            with pytest.raises(TokenRefused):
                auth(api).user_id(KEY.signed(payload.encode()))

    @pytest.mark.parametrize(
        "changes",
        [
            {"session_id": None},
            {"sub": ANA.upper()},
            {"user_metadata": {"name": "\\u0000 🔑"}},
            {"app_metadata": {"provider": ["email", None, 1.5]}},
        ],
        ids=repr,
    )
    def test_claims_that_the_database_can_read_are_accepted(self, changes: dict[str, Any]) -> None:
        assert auth(AuthApi(KEY)).user_id(KEY.token(**changes)) == UUID(ANA)


class TestRefusedTokens:
    @pytest.mark.parametrize(("token", "reason"), REFUSED.values(), ids=REFUSED)
    def test_an_invalid_token_is_refused_with_a_reason_that_does_not_quote_it(self, token: str, reason: str) -> None:
        with pytest.raises(TokenRefused, match=reason) as raised:
            auth(AuthApi(KEY, RSA)).user_id(token)
        assert raised.value.__suppress_context__ or raised.value.__context__ is None
        for part in filter(None, token.split(".")):
            assert part not in str(raised.value)

    @pytest.mark.parametrize("role", ["anon", "service_role", None])
    def test_a_token_with_another_role_than_authenticated_is_not_signed_in(self, role: str | None) -> None:
        with pytest.raises(TokenNotSignedIn):
            auth(AuthApi(KEY)).user_id(KEY.token(role=role))

    def test_a_token_of_another_project_with_the_same_key_id_is_refused(self) -> None:
        other = SigningKey("key")
        with pytest.raises(TokenRefused, match="signature"):
            auth(AuthApi(KEY)).user_id(other.token(iss="https://other.supabase.co/auth/v1"))

    @given(st.text() | st.from_regex(r"[\w-]{1,40}\.[\w-]{1,40}\.[\w-]{0,40}", fullmatch=True))
    def test_any_text_that_is_not_an_access_token_is_refused(self, token: str) -> None:
        with pytest.raises(TokenRefused):
            auth(AuthApi(KEY)).user_id(token)


class TestKeySet:
    def test_the_key_set_is_cached_for_ten_minutes(self, clock: Clock) -> None:
        api = AuthApi(KEY)
        checking = auth(api, clock)
        for seconds in (0, 300, 299):
            clock.now += seconds
            checking.user_id(KEY.token())
        assert api.paths == [KEY_SET]
        clock.now += 1
        checking.user_id(KEY.token())
        assert api.paths == [KEY_SET] * 2

    def test_a_new_key_of_the_project_is_found_at_once(self, clock: Clock) -> None:
        api = AuthApi(KEY)
        checking = auth(api, clock)
        checking.user_id(KEY.token())
        clock.now += 60
        api.keys = [NEW, KEY]
        assert checking.user_id(NEW.token(sub=BEN)) == UUID(BEN)
        assert checking.user_id(KEY.token()) == UUID(ANA)
        assert api.paths == [KEY_SET] * 2

    def test_a_revoked_key_is_refused_after_ten_minutes(self, clock: Clock) -> None:
        api = AuthApi(KEY)
        checking = auth(api, clock)
        checking.user_id(KEY.token())
        api.keys = [NEW]
        clock.now += 599
        checking.user_id(KEY.token())
        clock.now += 1
        with pytest.raises(TokenRefused):
            checking.user_id(KEY.token())

    def test_unknown_key_ids_cause_at_most_one_read_of_the_key_set_per_minute(self, clock: Clock) -> None:
        api = AuthApi(KEY)
        checking = auth(api, clock)
        checking.user_id(KEY.token())
        for _ in range(120):
            clock.now += 1
            with pytest.raises(TokenRefused, match="a key that this project does not have"):
                checking.user_id(NEW.token())
        assert api.paths == [KEY_SET] * 3
        assert checking.user_id(KEY.token()) == UUID(ANA)

    @pytest.mark.parametrize(
        "fault",
        [
            httpx.ConnectError("refused"),
            httpx.ReadTimeout("slow"),
            httpx.Response(500),
            httpx.Response(429),
            httpx.Response(404, text="no project"),
            httpx.Response(200, html="<h1>Log in to the hotel's network</h1>"),
            httpx.Response(200, json=[]),
            httpx.Response(200, json={"keys": None}),
            httpx.Response(200, json={"keys": [{"kid": "key", "kty": "EC", "alg": "ES256"}]}),
        ],
        ids=repr,
    )
    def test_while_auth_is_down_cached_keys_are_used_until_they_expire(
        self, clock: Clock, fault: httpx.Response | Exception
    ) -> None:
        api = AuthApi(KEY)
        checking = auth(api, clock)
        checking.user_id(KEY.token())
        api.fault = fault
        clock.now += 599
        assert checking.user_id(KEY.token()) == UUID(ANA)
        with pytest.raises(TokenRefused):
            checking.user_id(NEW.token())
        clock.now += 1
        for token in (KEY.token(), NEW.token()):
            with pytest.raises(AuthUnavailable, match=r"^Supabase Auth: \w+"):
                checking.user_id(token)
        api.fault = None
        assert checking.user_id(KEY.token()) == UUID(ANA)

    def test_without_cached_keys_a_token_cannot_be_verified_while_auth_is_down(self) -> None:
        api = AuthApi(KEY)
        api.fault = httpx.ConnectTimeout("slow")
        with pytest.raises(AuthUnavailable):
            auth(api).user_id(KEY.token())

    def test_public_keys_of_other_kinds_are_ignored(self) -> None:
        secret = {"kty": "oct", "k": "c2VjcmV0", "kid": "shared", "alg": "HS256"}
        answer = httpx.Response(200, json={"keys": [secret, KEY.public]})
        checking = Auth(SUPABASE_URL, "sb_publishable_x", httpx.MockTransport(lambda _: answer))
        assert checking.user_id(KEY.token()) == UUID(ANA)
        with pytest.raises(TokenRefused):
            checking.user_id(signed_by_hmac(b"secret", {"alg": "HS256", "kid": "shared"}, claims()))

    def test_requests_to_auth_time_out_after_three_seconds(self) -> None:
        api = AuthApi(KEY)
        auth(api).user_id(KEY.token())
        assert api.requests[0].extensions["timeout"] == {"connect": 2, "read": 3, "write": 3, "pool": 3}


class TestSharedSecret:
    """Only Auth can verify a token that is signed with the shared secret."""

    TOKEN = signed_by_hmac(SECRET, {"alg": "HS256", "typ": "JWT"}, claims())

    def test_auth_verifies_each_token_that_is_signed_with_the_shared_secret(self, clock: Clock) -> None:
        api = AuthApi()
        api.users[self.TOKEN] = ANA
        checking = auth(api, clock)
        for _ in range(2):
            assert checking.user_id(self.TOKEN) == UUID(ANA)
        assert api.paths == [KEY_SET, "user", "user"]
        assert api.requests[-1].headers["authorization"] == f"Bearer {self.TOKEN}"

    @pytest.mark.parametrize("status", [401, 403])
    def test_a_token_that_auth_refuses_is_refused(self, status: int) -> None:
        api = AuthApi()
        checking = auth(api)
        with pytest.raises(TokenRefused, match="has expired"):
            checking.user_id(self.TOKEN)
        api.fault = httpx.Response(status, json={"msg": "invalid JWT"})
        with pytest.raises(TokenRefused, match="has expired"):
            checking.user_id(self.TOKEN)

    def test_the_role_of_the_token_counts_and_not_the_role_of_the_user(self) -> None:
        """Auth returns the role of the user."""
        api = AuthApi()
        token = signed_by_hmac(SECRET, {"alg": "HS256"}, claims(role="anon"))
        api.users[token] = ANA
        with pytest.raises(TokenNotSignedIn):
            auth(api).user_id(token)

    @pytest.mark.parametrize("fault", [httpx.ReadTimeout("slow"), httpx.Response(500), httpx.Response(429)], ids=repr)
    def test_while_auth_is_down_no_token_signed_with_the_shared_secret_can_be_verified(
        self, fault: httpx.Response | Exception
    ) -> None:
        api = AuthApi()
        checking = auth(api)
        api.users[self.TOKEN] = ANA
        checking.user_id(self.TOKEN)
        api.fault = fault
        with pytest.raises(AuthUnavailable):
            checking.user_id(self.TOKEN)

    @pytest.mark.parametrize("header", [{"alg": "HS256"}, {"alg": "HS256", "kid": "of the secret"}], ids=str)
    def test_the_shared_secret_is_accepted_while_the_project_moves_to_its_first_key(
        self, header: dict[str, str]
    ) -> None:
        api = AuthApi(KEY)
        token = signed_by_hmac(SECRET, header, claims())
        api.users[token] = ANA
        assert auth(api).user_id(token) == UUID(ANA)
        assert auth(api).user_id(KEY.token(sub=BEN)) == UUID(BEN)

    def test_the_first_asymmetric_key_of_a_project_is_found_after_ten_minutes(self, clock: Clock) -> None:
        api = AuthApi()
        checking = auth(api, clock)
        with pytest.raises(TokenRefused):
            checking.user_id(KEY.token())
        api.keys = [KEY]
        clock.now += 600
        assert checking.user_id(KEY.token()) == UUID(ANA)
