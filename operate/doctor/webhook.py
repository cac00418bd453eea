"""Checks of the webhook: the URL and the secret that the database uses, and the authorizer's answer to them."""

import secrets
from collections.abc import Iterator
from hashlib import sha256
from uuid import UUID

import httpx
from pydantic import SecretStr

from operate.doctor.diagnosis import Trigger
from operate.doctor.results import LATE, Finding, Healthy, Result
from operate.doctor.system import System

# No message has this id: send_chat_push logs "no push job" for it, counts UnknownMessage, and does nothing.
NO_MESSAGE = UUID(int=0)


def webhook(system: System) -> Iterator[Result]:
    """Checks that the database calls WebhookUrl with a secret that the authorizer accepts."""
    calls = ("push.notify_webhook", "supabase_functions.http_request")
    triggers = [trigger for trigger in system.diagnosis.triggers if trigger.calls in calls]
    ours = [trigger for trigger in triggers if trigger.url == system.webhook_url]
    configure = (
        f"select push.configure_webhook('{system.webhook_url}', '<secret>');  -- <secret>: \"current\" of"
        f" aws secretsmanager get-secret-value --secret-id {system.webhook_secret_id}"
    )
    if any(not trigger.readable for trigger in triggers):
        fault = "the database cannot decrypt the webhook's URL and secret: Vault has another key, as after a restore"
        yield Finding(fault, LATE, configure)
    elif not ours:
        urls = ", ".join(sorted(trigger.url or "no URL" for trigger in triggers))
        fault = f"the database calls {urls}, not {system.webhook_url}" if triggers else "the database has no webhook"
        yield Finding(fault, LATE, configure)
    elif not any(trigger.enabled for trigger in ours):
        remedy = f"alter table public.chat_messages enable trigger {ours[0].name};"
        yield Finding(f"the webhook {ours[0].name} of chat_messages is disabled", LATE, remedy)
    else:
        yield from _secret(system, next(trigger for trigger in ours if trigger.enabled), configure)


def _secret(system: System, trigger: Trigger, configure: str) -> Iterator[Result]:
    """Compares the digest of the trigger's secret with those that the authorizer accepts."""
    if trigger.calls != "push.notify_webhook":
        configure = (
            f'set the header x-webhook-secret of the webhook {trigger.name} to "current" of {system.webhook_secret_id},'
            " in the project's dashboard: Database, Webhooks"
        )
    current, previous = system.webhook_secret.current, system.webhook_secret.previous
    if trigger.secret_sha256 == _digest(current):
        also = "; the authorizer also accepts the previous secret" if previous else ""
        yield Healthy(f"webhook: the database calls {system.webhook_url} with the current secret{also}")
    elif previous and trigger.secret_sha256 == _digest(previous):
        fault = "a rotation is unfinished: the database sends the previous secret"
        consequence = 'The webhook rejects the database as soon as "previous" is set to null.'
        yield Finding(fault, consequence, configure)
    else:
        yield Finding("the database sends a secret that WebhookSecret does not hold", LATE, configure)


def _digest(secret: SecretStr) -> str:
    return sha256(secret.get_secret_value().encode()).hexdigest()


def authorizer(system: System) -> Iterator[Result]:
    """Checks that the webhook accepts its secret and rejects a wrong one."""
    log = system.log_of("AuthorizeWebhook")
    wrong = _call(system, secrets.token_hex(24))
    right = _call(system, system.webhook_secret.current.get_secret_value())
    if wrong.is_success:
        consequence = "Anyone can fill the queue, which sends no push, but AWS charges for each call."
        remedy = "sam deploy, with the template.yaml of this checkout"
        yield Finding("the webhook accepts a wrong secret", consequence, remedy)
    elif wrong.status_code not in (401, 403):
        yield Finding(f"the webhook answers {wrong.status_code} to a wrong secret, not 403", LATE, log)
    if right.status_code in (401, 403):
        yield Finding(
            "the webhook rejects its own secret",
            f"{LATE} For five minutes after a change of the secret this is normal.",
            f"wait five minutes and run the doctor again; then: {log}",
        )
    elif right.status_code != 202:
        yield Finding(f"the webhook answers {right.status_code} to its own secret, not 202", LATE, log)
    if right.status_code == 202 and wrong.status_code in (401, 403):
        yield Healthy("webhook authorizer: accepts the current secret and rejects a wrong one")


def _call(system: System, secret: str) -> httpx.Response:
    body = {"record": {"id": str(NO_MESSAGE)}}
    return system.http.post(system.webhook_url, headers={"x-webhook-secret": secret}, json=body)
