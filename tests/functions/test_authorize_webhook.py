"""authorize_webhook: which webhook requests it authorizes."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from chat_push.secrets import SecretUnavailable
from chat_push.settings import SettingsError

from tests.functions.invocation import Context, LoadFunction, event, numbers_of
from tests.http_fakes import Printed

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

pytestmark = [
    pytest.mark.disable_socket,
    # chat_push.observability filters it, but pytest resets the filters for each test.
    pytest.mark.filterwarnings("ignore:No application metrics to publish:UserWarning"),
]

type Authorize = Callable[[dict[str, Any]], dict[str, bool]]

CURRENT, PREVIOUS = "the current secret", "the previous secret"


def request_with(secret: str | None) -> dict[str, Any]:
    """The event of the authorizer with this secret, or without the header."""
    request = event("authorizer")
    del request["headers"]["x-webhook-secret"]
    if secret is not None:
        request["headers"]["x-webhook-secret"] = secret
        request["identitySource"] = [secret]
    return request


@pytest.fixture
def authorize(secrets_manager: "SecretsManagerClient", load_function: LoadFunction) -> Authorize:
    handler = load_function("authorize_webhook", WEBHOOK_SECRET_ID="webhook").lambda_handler
    return lambda request: handler(request, Context("authorize_webhook"))


class TestSecret:
    @pytest.mark.parametrize(
        ("stored", "given", "authorized"),
        [
            ({"current": CURRENT}, CURRENT, True),
            ({"current": CURRENT, "previous": None}, CURRENT, True),
            ({"current": CURRENT, "previous": PREVIOUS}, CURRENT, True),
            ({"current": CURRENT, "previous": PREVIOUS}, PREVIOUS, True),
            ({"current": CURRENT, "previous": PREVIOUS}, "guessed", False),
            ({"current": CURRENT}, CURRENT + " ", False),
            ({"current": CURRENT}, CURRENT[:-1], False),
            ({"current": CURRENT}, CURRENT.upper(), False),
            ({"current": CURRENT}, "", False),
            ({"current": CURRENT}, None, False),
            ({"current": CURRENT, "previous": ""}, "", False),
            ({"current": ""}, "", False),
            ({"current": ""}, None, False),
            ({"current": "", "previous": PREVIOUS}, PREVIOUS, True),
            ({"current": CURRENT}, "schlüssel 🔑", False),
            ({"current": "schlüssel 🔑"}, "schlüssel 🔑", True),
            ({"current": CURRENT}, "\udcff\udcfe", False),
            ({"current": CURRENT}, f"{CURRENT}\udcff", False),
            ({"current": CURRENT}, f"{CURRENT},{CURRENT}", False),  # API Gateway joins two headers by a comma
        ],
    )
    def test_only_the_current_or_previous_webhook_secret_is_authorized(
        self,
        secrets_manager: "SecretsManagerClient",
        authorize: Authorize,
        stored: dict[str, str | None],
        given: str | None,
        authorized: bool,
    ) -> None:
        secrets_manager.create_secret(Name="webhook", SecretString=json.dumps(stored))
        assert authorize(request_with(given)) == {"isAuthorized": authorized}

    def test_a_wrong_webhook_secret_is_refused_logged_and_counted(
        self, secrets_manager: "SecretsManagerClient", authorize: Authorize, printed: Printed
    ) -> None:
        secrets_manager.create_secret(Name="webhook", SecretString=json.dumps({"current": CURRENT}))
        assert authorize(request_with("guessed")) == {"isAuthorized": False}
        lines = printed()
        logged = [(line["level"], line["message"]) for line in lines if "_aws" not in line]
        assert logged == [("WARNING", "webhook refused: wrong secret")]
        assert numbers_of(lambda: lines) == {"WebhookRefused": 1}
        assert "guessed" not in str(lines)
        assert CURRENT not in str(lines)

    @pytest.mark.parametrize(
        "headers", [None, {}, {"x-webhook-secret": None}, {"x-webhook-secret": [CURRENT]}], ids=str
    )
    def test_a_webhook_secret_in_a_header_of_another_shape_is_refused(
        self, secrets_manager: "SecretsManagerClient", authorize: Authorize, headers: Any
    ) -> None:
        secrets_manager.create_secret(Name="webhook", SecretString=json.dumps({"current": CURRENT}))
        assert authorize(event("authorizer") | {"headers": headers}) == {"isAuthorized": False}
        without = event("authorizer")
        del without["headers"]
        assert authorize(without) == {"isAuthorized": False}

    @pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
    def test_a_wrong_webhook_secret_of_any_bytes_is_refused_without_an_error(
        self, secrets_manager: "SecretsManagerClient", authorize: Authorize, encoding: str
    ) -> None:
        secrets_manager.create_secret(Name="webhook", SecretString=json.dumps({"current": CURRENT}))
        for number in range(256):
            text = bytes([number, 255 - number]).decode(encoding, errors="surrogateescape")
            assert authorize(request_with(text)) == {"isAuthorized": False}

    @pytest.mark.parametrize("value", [None, "not JSON", "{}", '{"current": null}'])
    def test_an_unavailable_webhook_secret_raises_instead_of_a_refusal_that_would_be_cached(
        self, secrets_manager: "SecretsManagerClient", authorize: Authorize, printed: Printed, value: str | None
    ) -> None:
        if value is not None:
            secrets_manager.create_secret(Name="webhook", SecretString=value)
        for given in (CURRENT, "", None):
            with pytest.raises(SecretUnavailable, match="secret webhook"):
                authorize(request_with(given))
            assert numbers_of(printed) == {"SecretUnavailable": 1}


def test_without_its_settings_authorize_webhook_does_not_start(
    monkeypatch: pytest.MonkeyPatch, load_function: LoadFunction
) -> None:
    monkeypatch.delenv("WEBHOOK_SECRET_ID", raising=False)
    with pytest.raises(SettingsError, match="WEBHOOK_SECRET_ID: Field required"):
        load_function("authorize_webhook")
