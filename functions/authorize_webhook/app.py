"""Lambda authorizer of the HTTP API: lets a webhook in that carries the shared secret."""

from hmac import compare_digest
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from chat_push.observability import count, logger, metrics
from chat_push.secrets import read_secret
from chat_push.settings import read_settings
from pydantic import BaseModel, SecretStr


class Settings(BaseModel):
    webhook_secret_id: str


class WebhookSecret(BaseModel):
    """`previous` is accepted too while the database is given a new secret."""

    current: SecretStr
    previous: SecretStr | None = None


settings = read_settings(Settings)


@metrics.log_metrics
@logger.inject_lambda_context
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, bool]:
    """The simple response of payload format 2.0.

    Raises SecretUnavailable: the gateway then answers 500 and, other than a refusal, does not cache it.
    """
    secret = read_secret(settings.webhook_secret_id, WebhookSecret)
    given = (event.get("headers") or {}).get("x-webhook-secret")
    # An empty secret is none: it would let everybody in.
    accepted = [_bytes(known.get_secret_value()) for known in (secret.current, secret.previous) if known]
    is_authorized = isinstance(given, str) and any(compare_digest(_bytes(given), known) for known in accepted)
    if not is_authorized:
        count("WebhookRefused")
        logger.warning("webhook refused: wrong secret")
    return {"isAuthorized": is_authorized}


def _bytes(text: str) -> bytes:
    # A header's bytes that are no UTF-8 arrive as lone surrogates, which plain UTF-8 refuses.
    return text.encode(errors="surrogatepass")
