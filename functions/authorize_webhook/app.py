"""Lambda authorizer of the HTTP API: authorizes webhook requests that carry the shared secret."""

from hmac import compare_digest
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from chat_push.observability import count, log_start, logger, metrics
from chat_push.secrets import WebhookSecret, read_secret
from chat_push.settings import read_settings
from pydantic import BaseModel


class Settings(BaseModel):
    """The environment of this function."""

    webhook_secret_id: str


settings = read_settings(Settings)
log_start()


@metrics.log_metrics
@logger.inject_lambda_context
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, bool]:
    """Whether the request is authorized, as the simple response of payload format 2.0. API Gateway caches it.

    Raises SecretUnavailable: API Gateway then responds 500, which it does not cache.
    https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-lambda-authorizer.html
    """
    secret = read_secret(settings.webhook_secret_id, WebhookSecret)
    given = (event.get("headers") or {}).get("x-webhook-secret")
    # An empty secret does not count: it would authorize every request with an empty header.
    accepted = [_bytes(value.get_secret_value()) for value in (secret.current, secret.previous) if value]
    is_authorized = isinstance(given, str) and any(compare_digest(_bytes(given), value) for value in accepted)
    if not is_authorized:
        count("WebhookRefused")
        logger.warning("webhook refused: wrong secret")
    return {"isAuthorized": is_authorized}


def _bytes(text: str) -> bytes:
    # Header bytes that are not UTF-8 arrive as lone surrogates, which plain UTF-8 cannot encode.
    return text.encode(errors="surrogatepass")
