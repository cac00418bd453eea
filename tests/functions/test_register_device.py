"""register_device: from an HTTP request to its response, with HTTP fakes of Supabase Auth and the Data API."""

import base64
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import httpx
import jwt
import pytest
from chat_push.settings import SettingsError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.auth import ANA, BEN, AuthApi, signing_key, unsigned
from tests.functions.invocation import Context, LoadFunction, event, numbers_of
from tests.http_fakes import SUPABASE_URL, Json, Printed, body_of, push_token

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

pytestmark = [
    pytest.mark.disable_socket,
    # chat_push.observability filters it, but pytest resets the filters for each test.
    pytest.mark.filterwarnings("ignore:No application metrics to publish:UserWarning"),
]

KEY = signing_key("key")
TOKEN = KEY.token()
REGISTER, UNREGISTER, DEVICES = "/api/push/register", "/api/push/unregister", "/api/push/devices"

type Invoke = Callable[[Json], Json]


def request(method: str = "POST", path: str = REGISTER, token: str | None = TOKEN, **changes: Any) -> Json:
    """The event of a request of Ana. `changes` replace fields of the event."""
    sent = event("register_device")
    sent["routeKey"] = sent["requestContext"]["routeKey"] = f"{method} {path}"
    sent["rawPath"] = sent["requestContext"]["http"]["path"] = path
    sent["requestContext"]["http"]["method"] = method
    del sent["headers"]["authorization"]
    if token is not None:
        sent["headers"]["authorization"] = f"Bearer {token}"
    if method != "POST":
        del sent["body"], sent["headers"]["content-type"]
    return {**sent, **changes}


def registering(content_type: str | None = "application/json", **body: Any) -> Json:
    """The event of a registration with changed fields or another content type."""
    sent = request()
    sent["body"] = json.dumps(json.loads(sent["body"]) | body)
    if content_type != "application/json":
        del sent["headers"]["content-type"]
    if content_type is not None:
        sent["headers"]["content-type"] = content_type
    return sent


def unregistering(query: str = "", body: str | None = None, token: str = TOKEN) -> Json:
    """The event of a request that names the device in the query, in the body, or in both."""
    sent = request("DELETE", UNREGISTER, token, rawQueryString=query)
    if query:
        # API Gateway joins the values of a repeated name by commas.
        values: dict[str, list[str]] = {}
        for name, value in httpx.QueryParams(query).multi_items():
            values.setdefault(name, []).append(value)
        sent["queryStringParameters"] = {name: ",".join(found) for name, found in values.items()}
    if body is not None:
        sent["body"] = body
        sent["headers"]["content-type"] = "application/json"
    return sent


class DeviceApi:
    """The device functions of the Data API, with the rights of the caller. For httpx.MockTransport."""

    def __init__(self) -> None:
        self.devices: dict[tuple[str, str], Json] = {}
        self.fault: httpx.Response | Exception | None = None
        self.requests: list[httpx.Request] = []

    def __call__(self, call: httpx.Request) -> httpx.Response:
        self.requests.append(call)
        if isinstance(self.fault, Exception):
            raise self.fault
        if self.fault:
            return self.fault
        user = jwt.decode(self.caller(call), options={"verify_signature": False})["sub"]
        arguments = {name.removeprefix("p_"): value for name, value in body_of(call).items()}
        match call.url.path.removeprefix("/rest/v1/rpc/"):
            case "register_device":
                key = user, arguments["device_id"]
                created = key not in self.devices
                times = {"last_seen_at": "2026-11-22T10:00:01+00:00", "created_at": "2026-11-22T10:00:00+00:00"}
                self.devices[key] = {**arguments, "push_token": "ExponentPushToken[0000…", "is_active": True, **times}
                return httpx.Response(200, json={"device": self.devices[key], "created": created})
            case "unregister_device":
                return httpx.Response(200, json=self.devices.pop((user, arguments["device_id"]), None) is not None)
            case "my_devices":
                mine = [device for (owner, _), device in self.devices.items() if owner == user]
                return httpx.Response(200, json=mine)
        raise AssertionError(call.url)

    @staticmethod
    def caller(call: httpx.Request) -> str:
        """The access token of a call."""
        return str(call.headers["authorization"]).removeprefix("Bearer ")

    def registered(self, user: str = ANA) -> list[str]:
        """The device ids of a user."""
        return [device_id for owner, device_id in self.devices if owner == user]


@pytest.fixture
def auth() -> AuthApi:
    return AuthApi(KEY)


@pytest.fixture
def api() -> DeviceApi:
    return DeviceApi()


@pytest.fixture(autouse=True)
def _network(monkeypatch: pytest.MonkeyPatch, auth: AuthApi, api: DeviceApi) -> None:
    """Replaces the network by the fakes of Supabase. All code before it is real."""

    def handle(transport: httpx.HTTPTransport, call: httpx.Request) -> httpx.Response:
        call.read()
        assert str(call.url).startswith(SUPABASE_URL)
        return auth(call) if call.url.path.startswith("/auth/") else api(call)

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", handle)


@pytest.fixture
def invoke(load_function: LoadFunction, secrets_manager: "SecretsManagerClient") -> Invoke:
    secrets_manager.create_secret(Name="app", SecretString='{"supabase_publishable_key": "sb_publishable_x"}')
    environment = {"SUPABASE_URL": SUPABASE_URL, "APP_SECRET_ID": "app"}
    handler = load_function("register_device", **environment).lambda_handler
    return lambda sent: handler(sent, Context("register_device"))


def answered(answer: Json) -> tuple[int, Any]:
    """Status and JSON body of a response; None without a body."""
    return answer["statusCode"], json.loads(answer["body"]) if answer["body"] else None


def refusal(answer: Json) -> tuple[int, str, list[str]]:
    """Status, code and wrong fields of an error response. Checks its shape."""
    assert answer["headers"]["Content-Type"] == "application/json"
    status, body = answered(answer)
    assert body.keys() == {"error"}
    error = body["error"]
    assert error.keys() in ({"code", "message"}, {"code", "message", "fields"})
    assert error["message"]
    assert ("fields" in error) == (status == 422)
    for field in error.get("fields", []):
        assert field.keys() == {"field", "message"}
    assert "Traceback" not in answer["body"]
    return status, error["code"], [field["field"] for field in error.get("fields", [])]


class TestRegister:
    def test_a_first_registration_returns_201_and_a_repeated_one_200(self, invoke: Invoke) -> None:
        created, again = invoke(request()), invoke(request())
        assert [created["statusCode"], again["statusCode"]] == [201, 200]
        for answer in (created, again):
            assert answer["headers"]["Content-Type"] == "application/json"
            assert json.loads(answer["body"]) == {
                "device_id": "phone",
                "platform": "android",
                "push_provider": "expo",
                "push_environment": "production",
                "push_token": "ExponentPushToken[0000…",
                "app_version": "1.4.0",
                "locale": None,
                "is_active": True,
                "last_seen_at": "2026-11-22T10:00:01Z",
                "created_at": "2026-11-22T10:00:00Z",
            }

    def test_the_database_is_called_with_the_access_token_of_the_caller(self, invoke: Invoke, api: DeviceApi) -> None:
        """The apikey is the publishable key of the app: the function has no other."""
        invoke(request())
        [call] = api.requests
        assert str(call.url) == f"{SUPABASE_URL}/rest/v1/rpc/register_device"
        assert call.headers["apikey"] == "sb_publishable_x"
        assert call.headers["authorization"] == f"Bearer {TOKEN}"
        assert body_of(call) == {
            "p_device_id": "phone",
            "p_platform": "android",
            "p_push_token": push_token(1),
            "p_push_provider": "expo",
            "p_push_environment": "production",
            "p_app_version": "1.4.0",
            "p_locale": None,
        }

    def test_a_warm_registration_makes_one_database_request_and_none_to_auth(
        self, invoke: Invoke, api: DeviceApi, auth: AuthApi
    ) -> None:
        for phones in (1, 2, 3):
            assert invoke(registering(device_id=f"phone {phones}"))["statusCode"] == 201
            assert len(api.requests) == phones
        assert auth.paths == [".well-known/jwks.json"]

    @pytest.mark.parametrize(
        "content_type", ["application/json; charset=utf-8", "Application/JSON", " application/json"]
    )
    def test_every_spelling_of_the_content_type_json_is_accepted(self, invoke: Invoke, content_type: str) -> None:
        assert invoke(registering(content_type))["statusCode"] == 201

    def test_a_body_in_base64_is_decoded(self, invoke: Invoke, api: DeviceApi) -> None:
        sent = registering(device_id="Anas Händy 📱")
        encoded = base64.b64encode(json.dumps(json.loads(sent["body"]), ensure_ascii=False).encode()).decode()
        assert invoke({**sent, "body": encoded, "isBase64Encoded": True})["statusCode"] == 201
        assert api.registered() == ["Anas Händy 📱"]

    def test_the_last_of_two_equal_names_in_a_body_is_used(self, invoke: Invoke, api: DeviceApi) -> None:
        """JSON parsers of apps do the same."""
        sent = request()
        sent["body"] = '{"device_id": "first", ' + sent["body"].removeprefix("{")
        assert invoke(sent)["statusCode"] == 201
        assert api.registered() == ["phone"]

    def test_a_registration_is_counted_and_logged_without_tokens(self, invoke: Invoke, printed: Printed) -> None:
        invoke(request())
        lines = printed()
        [metrics] = [line for line in lines if "_aws" in line]
        assert metrics["DeviceRegistered"] == [1]
        assert push_token(1) not in str(lines)
        assert TOKEN not in str(lines)


class TestUnregister:
    @pytest.mark.parametrize(
        ("query", "body"),
        [
            ("device_id=phone", None),
            ("", '{"device_id": "phone"}'),
        ],
    )
    def test_a_device_is_unregistered_by_query_or_body(
        self, invoke: Invoke, api: DeviceApi, query: str, body: str | None
    ) -> None:
        invoke(request())
        answer = invoke(unregistering(query, body))
        assert (answer["statusCode"], answer["body"]) == (204, None)
        assert api.registered() == []

    @pytest.mark.parametrize("device_id", ["a,b", "ä/ö 📱", "a&b=c"])
    def test_a_device_id_may_be_any_text(self, invoke: Invoke, api: DeviceApi, device_id: str) -> None:
        for sent in (
            unregistering(str(httpx.QueryParams(device_id=device_id))),
            unregistering(body=json.dumps({"device_id": device_id})),
        ):
            invoke(registering(device_id=device_id))
            assert invoke(sent)["statusCode"] == 204
            assert api.registered() == []

    def test_unregister_prefers_the_body_to_the_query(self, invoke: Invoke, api: DeviceApi) -> None:
        for device_id in ("a", "a,b"):
            invoke(registering(device_id=device_id))
        assert invoke(unregistering("device_id=a&device_id=b", '{"device_id": "a,b"}'))["statusCode"] == 204
        assert api.registered() == ["a"]

    def test_unregister_of_an_unknown_device_returns_204(self, invoke: Invoke) -> None:
        assert invoke(unregistering("device_id=unknown"))["statusCode"] == 204

    def test_unregister_keeps_the_device_of_another_account(self, invoke: Invoke, api: DeviceApi) -> None:
        invoke(request())
        assert invoke(unregistering("device_id=phone", token=KEY.token(sub=BEN)))["statusCode"] == 204
        assert api.registered() == ["phone"]

    @pytest.mark.parametrize(
        ("query", "body", "fields"),
        [
            ("", None, ["device_id"]),
            ("device=phone", None, ["device_id"]),
            ("device_id=", None, ["device_id"]),
            ("device_id=a%00b", None, ["device_id"]),
            (f"device_id={'x' * 201}", None, ["device_id"]),
            ("device_id=phone", "{}", ["device_id"]),
            ("device_id=phone", '{"device_id": null}', ["device_id"]),
            ("", '{"device_id": 7}', ["device_id"]),
            ("", '{"device_id": "phone", "user_id": "x"}', ["user_id"]),
            ("", '["phone"]', ["body"]),
        ],
    )
    def test_unregister_without_a_valid_device_id_returns_422(
        self, invoke: Invoke, api: DeviceApi, query: str, body: str | None, fields: list[str]
    ) -> None:
        assert refusal(invoke(unregistering(query, body))) == (422, "invalid", fields)
        assert api.requests == []


class TestDevices:
    def test_the_list_of_devices_contains_only_those_of_the_caller(self, invoke: Invoke) -> None:
        assert answered(invoke(request("GET", DEVICES))) == (200, [])
        invoke(registering(device_id="a"))
        invoke(registering(device_id="b"))
        status, devices = answered(invoke(request("GET", DEVICES)))
        assert (status, [device["device_id"] for device in devices]) == (200, ["a", "b"])
        assert answered(invoke(request("GET", DEVICES, KEY.token(sub=BEN)))) == (200, [])


class TestAuthentication:
    @pytest.mark.parametrize(
        "authorization", [None, "", "Bearer", "Bearer ", "Basic YW5hOmFuYQ==", TOKEN], ids=lambda value: str(value)[:20]
    )
    @pytest.mark.parametrize(("method", "path"), [("POST", REGISTER), ("DELETE", UNREGISTER), ("GET", DEVICES)])
    def test_a_request_without_a_bearer_token_returns_401(
        self, invoke: Invoke, api: DeviceApi, auth: AuthApi, method: str, path: str, authorization: str | None
    ) -> None:
        sent = request(method, path, None)
        if authorization is not None:
            sent["headers"]["authorization"] = authorization
        answer = invoke(sent)
        assert refusal(answer) == (401, "unauthorized", [])
        assert answer["headers"]["WWW-Authenticate"] == "Bearer"
        assert (api.requests, auth.requests) == ([], [])

    @pytest.mark.parametrize(
        "headers", [None, {}, {"authorization": None}, {"authorization": [TOKEN]}, {"x": "\udcff"}]
    )
    def test_a_request_with_missing_or_malformed_headers_returns_401(self, invoke: Invoke, headers: Any) -> None:
        without = request()
        del without["headers"]
        for sent in (request(headers=headers), without):
            assert refusal(invoke(sent)) == (401, "unauthorized", [])

    @pytest.mark.parametrize("name", ["content-type", "x-forwarded-for", "cookie"])
    def test_other_headers_may_contain_any_bytes(self, invoke: Invoke, name: str) -> None:
        sent = request("GET", DEVICES)
        sent["headers"][name] = "\udcff\udcfe"
        assert invoke(sent)["statusCode"] == 200
        sent = request()
        sent["headers"][name] = "\udcff\udcfe"
        assert invoke(sent)["statusCode"] == (415 if name == "content-type" else 201)

    @pytest.mark.parametrize("scheme", ["bearer", "BEARER"])
    def test_every_spelling_of_the_bearer_scheme_is_accepted(self, invoke: Invoke, scheme: str) -> None:
        sent = request("GET", DEVICES)
        sent["headers"]["authorization"] = f"{scheme}  {TOKEN} "
        assert invoke(sent)["statusCode"] == 200

    @pytest.mark.parametrize(
        "token",
        [
            KEY.token(exp=1),
            KEY.token(iss="https://other.supabase.co/auth/v1"),
            KEY.token(aud="other"),
            signing_key("stranger").token(),
            unsigned({"alg": "none", "kid": "key"}, {"sub": ANA}),
            KEY.token(sub=7),
            KEY.token(sub=f"urn:uuid:{ANA}"),
            KEY.token(session_id="s1"),
            KEY.token(session_id=["s1"]),
            "sb_publishable_x",
            f"{TOKEN},Bearer {TOKEN}",
            "é.é.é",
            "\udcff",
        ],
        ids=[
            *("expired", "issuer", "audience", "key", "alg none", "sub", "urn", "session", "sessions"),
            *("API key", "two", "no ASCII", "half a character"),
        ],
    )
    def test_an_invalid_token_returns_401_and_a_challenge(self, invoke: Invoke, api: DeviceApi, token: str) -> None:
        answer = invoke(request(token=token))
        assert refusal(answer) == (401, "unauthorized", [])
        challenge = answer["headers"]["WWW-Authenticate"]
        message = json.loads(answer["body"])["error"]["message"]
        assert challenge == f'Bearer error="invalid_token", error_description="{message}"'
        assert '"' not in message
        assert api.requests == []

    def test_a_token_with_an_anonymous_role_returns_403(self, invoke: Invoke, api: DeviceApi) -> None:
        assert refusal(invoke(request(token=KEY.token(role="anon")))) == (403, "not_signed_in", [])
        assert api.requests == []

    def test_the_token_is_checked_before_route_method_and_body(self, invoke: Invoke) -> None:
        for sent in (
            request(token=None, body="x" * 9000),
            request("GET", "/api/push/nothing", None),
            request("PUT", REGISTER, None),
        ):
            assert invoke(sent)["statusCode"] == 401

    def test_a_request_returns_503_while_auth_is_down(self, invoke: Invoke, auth: AuthApi, printed: Printed) -> None:
        auth.fault = httpx.ConnectTimeout("slow")
        answer = invoke(request())
        assert refusal(answer) == (503, "unavailable", [])
        assert answer["headers"]["Retry-After"] == "5"
        assert [line["error"] for line in printed() if line.get("level") == "ERROR"] == [
            "Supabase Auth: ConnectTimeout"
        ]


def data_api(status: int, code: str, details: str | None = None) -> httpx.Response:
    """An error response of PostgREST that contains a push token, which must not be passed on."""
    return httpx.Response(status, json={"code": code, "message": f"not with {push_token(1)}", "details": details})


class TestSecret:
    @pytest.mark.parametrize(
        ("value", "fault"),
        [
            ("sb_publishable_x", "secret app is not JSON"),
            ("{}", "supabase_publishable_key: Field required"),
            ('{"supabase_publishable_key": ""}', "supabase_publishable_key: Value should have at least 1 item"),
        ],
    )
    def test_a_malformed_secret_returns_503_until_it_is_fixed(
        self,
        invoke: Invoke,
        secrets_manager: "SecretsManagerClient",
        printed: Printed,
        value: str,
        fault: str,
    ) -> None:
        secrets_manager.put_secret_value(SecretId="app", SecretString=value)
        answer = invoke(request())
        assert refusal(answer) == (503, "unavailable", [])
        assert answer["headers"]["Retry-After"] == "5"
        lines = printed()
        assert numbers_of(lambda: lines) == {"SecretUnavailable": 1}
        assert [fault in line["error"] for line in lines if line.get("level") == "ERROR"] == [True, True]
        assert "sb_publishable_x" not in str(lines)
        secrets_manager.put_secret_value(
            SecretId="app", SecretString='{"supabase_publishable_key": "sb_publishable_x"}'
        )
        assert invoke(request())["statusCode"] == 201

    def test_a_rotated_secret_is_used_without_a_deploy(
        self,
        invoke: Invoke,
        secrets_manager: "SecretsManagerClient",
        forget_secrets: Callable[[], None],
        api: DeviceApi,
    ) -> None:
        invoke(request("GET", DEVICES))
        secrets_manager.put_secret_value(
            SecretId="app", SecretString='{"supabase_publishable_key": "sb_publishable_y"}'
        )
        forget_secrets()
        invoke(request("GET", DEVICES))
        assert [call.headers["apikey"] for call in api.requests] == ["sb_publishable_x", "sb_publishable_y"]


class TestDatabaseErrors:
    @pytest.mark.parametrize(
        ("fault", "expected", "header"),
        [
            (data_api(401, "PGRST301"), (401, "unauthorized", []), "WWW-Authenticate"),
            (data_api(401, "PGRST303"), (401, "unauthorized", []), "WWW-Authenticate"),
            (data_api(401, "PT401"), (401, "unauthorized", []), "WWW-Authenticate"),
            (data_api(409, "23503"), (403, "no_profile", []), None),
            (
                data_api(429, "PT429", '{"retry_after_seconds": 17}'),
                (429, "too_many_registrations", []),
                "Retry-After",
            ),
            (
                data_api(400, "22023", '{"rule": "push_provider is not configured", "field": "push_provider"}'),
                (422, "invalid", ["push_provider"]),
                None,
            ),
            (data_api(400, "22023", "of a trigger of the app"), (503, "unavailable", []), "Retry-After"),
            (data_api(503, "PGRST001"), (503, "unavailable", []), "Retry-After"),
            (data_api(500, "40P01"), (503, "unavailable", []), "Retry-After"),
            (data_api(404, "PGRST202"), (503, "unavailable", []), "Retry-After"),  # without the migrations
            (data_api(400, "22P05"), (503, "unavailable", []), "Retry-After"),
            (httpx.Response(502, html="<h1>Bad gateway</h1>"), (503, "unavailable", []), "Retry-After"),
            (httpx.Response(401, json={"message": "Invalid API key"}), (503, "unavailable", []), "Retry-After"),
            (httpx.ConnectError("refused"), (503, "unavailable", []), "Retry-After"),
            (httpx.ReadTimeout("slow"), (503, "unavailable", []), "Retry-After"),
        ],
        ids=repr,
    )
    def test_each_database_error_has_its_response(
        self,
        invoke: Invoke,
        api: DeviceApi,
        printed: Printed,
        fault: httpx.Response | Exception,
        expected: tuple[int, str, list[str]],
        header: str | None,
    ) -> None:
        api.fault = fault
        answer = invoke(request())
        assert refusal(answer) == expected
        cors = {"Access-Control-Allow-Origin", "Access-Control-Expose-Headers"}
        assert answer["headers"].keys() == {"Content-Type", *cors, *filter(None, [header])}
        if header == "Retry-After":
            assert answer["headers"][header] == ("17" if expected[0] == 429 else "5")
        for shown in (answer["body"], str(printed())):
            assert push_token(1) not in shown
            assert TOKEN not in shown

    def test_a_malformed_database_response_is_not_quoted(
        self, invoke: Invoke, api: DeviceApi, printed: Printed
    ) -> None:
        """It can only be a bug: the invocation fails, Lambda counts it, and API Gateway responds 500."""
        api.fault = httpx.Response(200, json={"device": {"device_id": push_token(1)}, "created": True})
        with pytest.raises(ValueError, match="Field required") as raised:
            invoke(request())
        assert push_token(1) not in str(raised.value) + str(printed())


class TestBrowsers:
    """They let a page of another site call the API only if it says so: https://fetch.spec.whatwg.org/#http-cors-protocol"""

    @pytest.mark.parametrize("path", [REGISTER, UNREGISTER, DEVICES])
    def test_a_preflight_needs_no_token_and_allows_what_the_client_sends(self, invoke: Invoke, path: str) -> None:
        answer = invoke(request("OPTIONS", path, token=None))
        assert answer["statusCode"] == 204
        assert answer["headers"]["Access-Control-Allow-Origin"] == "*"
        assert answer["headers"]["Access-Control-Allow-Headers"] == "Authorization, Content-Type"
        assert set(answer["headers"]["Access-Control-Allow-Methods"].split(", ")) == {"POST", "DELETE", "GET"}

    @pytest.mark.parametrize(
        ("sent", "status"),
        [
            (request(), 201),
            (unregistering("device_id=a"), 204),
            (request("GET", DEVICES), 200),
            (request(token=""), 401),
        ],
        ids=["register", "unregister", "list", "refused"],
    )
    def test_a_page_of_any_site_can_read_each_response(self, invoke: Invoke, sent: Json, status: int) -> None:
        answer = invoke(sent)
        assert answer["statusCode"] == status
        assert answer["headers"]["Access-Control-Allow-Origin"] == "*"
        assert answer["headers"]["Access-Control-Expose-Headers"] == "Retry-After"


class TestInvalidRequests:
    @pytest.mark.parametrize(
        ("sent", "expected"),
        [
            (request(body="{"), (400, "not_json", [])),
            (request(body="device_id=phone"), (400, "not_json", [])),
            (request(body=" "), (400, "not_json", [])),
            (request(body="9" * 5000), (400, "not_json", [])),
            (request(body="/w==", isBase64Encoded=True), (400, "not_json", [])),
            (request(body="\ud800"), (400, "not_json", [])),
            (request("GET", "/api/push/nothing"), (404, "not_found", [])),
            (request("POST", REGISTER + "/"), (404, "not_found", [])),
            (request("GET", "/api/push/chat-message"), (404, "not_found", [])),
            (request("GET", REGISTER), (405, "method_not_allowed", [])),
            (request("POST", UNREGISTER), (405, "method_not_allowed", [])),
            (request("HEAD", DEVICES), (405, "method_not_allowed", [])),
            (registering(device_id="x" * 8200), (413, "too_long", [])),
            (request(body="é" * 4097), (413, "too_long", [])),
            (request(body=base64.b64encode(b" " * 8193).decode(), isBase64Encoded=True), (413, "too_long", [])),
            (registering("text/plain"), (415, "wrong_content_type", [])),
            (registering("application/x-www-form-urlencoded"), (415, "wrong_content_type", [])),
            (registering("application/jsonp"), (415, "wrong_content_type", [])),
            (registering(None), (415, "wrong_content_type", [])),
            (request(body=None), (422, "invalid", ["body"])),
            (request(body=""), (422, "invalid", ["body"])),
            (request(body="null"), (422, "invalid", ["body"])),
            (request(body="[]"), (422, "invalid", ["body"])),
            (request(body=f"[{request()['body']}]"), (422, "invalid", ["body"])),
            (request(body="{}"), (422, "invalid", ["device_id", "platform", "push_token"])),
            (registering(device_id="\x00", platform="ios"), (422, "invalid", ["device_id"])),
            (registering(device_id="\ud800", app_version="\ud800"), (422, "invalid", ["device_id", "app_version"])),
            (registering(device_id=10**4000), (422, "invalid", ["device_id"])),
            (registering(push_token="0a" * 32), (422, "invalid", ["push_token"])),
            (registering(platform="web"), (422, "invalid", ["push_provider"])),
            (registering(push_provider="fcm"), (422, "invalid", ["push_token"])),
            (registering(push_environment="test"), (422, "invalid", ["push_environment"])),
            (registering(locale="de_DE"), (422, "invalid", ["locale"])),
            (
                registering(push_provider="apns", push_token="0a" * 32),
                (422, "invalid", ["push_provider"]),
            ),
            (registering(push_token="x" * 5000), (422, "invalid", ["push_token"])),
            (registering(user_id=BEN), (422, "invalid", ["user_id"])),
            (registering(device_id={"a": [1]}), (422, "invalid", ["device_id"])),
        ],
        ids=lambda value: "" if isinstance(value, dict) else f"{value[0]} {value[1]} {' '.join(value[2])}",
    )
    def test_an_invalid_request_is_refused_without_a_database_request(
        self, invoke: Invoke, api: DeviceApi, printed: Printed, sent: Json, expected: tuple[int, str, list[str]]
    ) -> None:
        answer = invoke(sent)
        assert refusal(answer) == expected
        assert api.requests == []
        shown = answer["body"] + str(printed())
        assert TOKEN not in shown
        assert push_token(1) not in shown

    def test_a_405_response_names_the_allowed_method(self, invoke: Invoke) -> None:
        for path, method in [(REGISTER, "POST"), (UNREGISTER, "DELETE"), (DEVICES, "GET")]:
            assert invoke(request("PATCH", path))["headers"]["Allow"] == method

    def test_a_body_of_8_kb_is_accepted(self, invoke: Invoke) -> None:
        sent = request()
        sent["body"] += " " * (8 * 1024 - len(sent["body"]))
        assert invoke(sent)["statusCode"] == 201

    def test_a_deeply_nested_body_is_refused(self, invoke: Invoke) -> None:
        """The status depends on the depth that the interpreter's parser allows."""
        for opening, closing in (("[", "]"), ('{"a":', "}")):
            depth = 8000 // len(opening + closing)
            status, _, _ = refusal(invoke(request(body=opening * depth + "1" + closing * depth)))
            assert status in (400, 422)

    def test_a_native_token_is_refused_with_an_explanation(self, invoke: Invoke) -> None:
        answer = invoke(registering(push_token="0a" * 32))
        assert "addPushTokenListener returns the native token" in answer["body"]


class TestAnyInput:
    """Property tests: the function never fails, and every response is a documented one."""

    @given(st.binary(max_size=60) | st.text(st.characters(categories=None)).map(lambda text: json.dumps(text).encode()))
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_a_body_of_any_bytes_returns_400_or_422(self, invoke: Invoke, body: bytes) -> None:
        answer = invoke(request(body=base64.b64encode(body).decode(), isBase64Encoded=True))
        assert refusal(answer)[0] in (400, 422)

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(categories=None)),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(categories=None)), inner),
            max_leaves=8,
        )
    )
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_a_body_of_any_json_returns_422(self, invoke: Invoke, body: Any) -> None:
        for sent in (request(body=json.dumps(body)), unregistering(body=json.dumps(body))):
            assert refusal(invoke(sent))[0] == 422

    @given(
        st.dictionaries(
            st.sampled_from(["device_id", "platform", "push_token", "push_provider", "app_version"]),
            st.text(st.characters(categories=None)) | st.sampled_from(["ios", "fcm", "\x00", "a" * 300]),
        )
    )
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_a_registration_with_any_texts_is_accepted_or_returns_422(
        self, invoke: Invoke, body: dict[str, str]
    ) -> None:
        answer = invoke(registering(**body))
        if answer["statusCode"] not in (200, 201):
            status, _, fields = refusal(answer)
            assert status == 422
            # With a wrong provider the token is not checked. With a valid one it may be wrong.
            assert set(fields) <= body.keys() | {"push_token"}


class TestWarmFunction:
    def test_a_warm_function_never_mixes_its_callers(self, invoke: Invoke, api: DeviceApi, auth: AuthApi) -> None:
        tokens = {ANA: KEY.token(), BEN: KEY.token(sub=BEN)}
        for round_number in range(3):
            for user, token in tokens.items():
                assert (
                    invoke({**registering(device_id=f"{user} {round_number}"), **_bearer(token)})["statusCode"] == 201
                )
                assert api.caller(api.requests[-1]) == token
        for user, token in tokens.items():
            _, devices = answered(invoke(request("GET", DEVICES, token)))
            assert [device["device_id"] for device in devices] == [f"{user} {number}" for number in range(3)]
        assert auth.paths == [".well-known/jwks.json"]

    def test_a_warm_function_forgets_a_refused_caller(self, invoke: Invoke, api: DeviceApi, printed: Printed) -> None:
        invoke(request())
        for refused in (request(body="{"), registering(platform="windows"), request("GET", "/api/push/nothing")):
            invoke(refused)
        api.fault = httpx.ReadTimeout("slow")
        invoke(request())
        api.fault = None
        printed()
        calls = len(api.requests)
        assert invoke(request(token=None))["statusCode"] == 401
        assert len(api.requests) == calls
        token = KEY.token(sub=BEN)
        assert answered(invoke(request("GET", DEVICES, token))) == (200, [])
        assert api.caller(api.requests[-1]) == token
        assert ANA not in str(printed())


def _bearer(token: str) -> Json:
    return {"headers": {**request()["headers"], "authorization": f"Bearer {token}"}}


@pytest.mark.parametrize("missing", ["SUPABASE_URL", "APP_SECRET_ID"])
def test_without_its_settings_register_device_does_not_start(
    monkeypatch: pytest.MonkeyPatch, load_function: LoadFunction, missing: str
) -> None:
    for name in ("SUPABASE_URL", "APP_SECRET_ID"):
        monkeypatch.setenv(name, "x")
    monkeypatch.delenv(missing)
    with pytest.raises(SettingsError, match=f"{missing}: Field required"):
        load_function("register_device")
