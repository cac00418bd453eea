"""The webhook: does the database ring the right door with the right secret, and does the door know it?"""

import secrets
from collections.abc import Iterator
from hashlib import sha256
from uuid import UUID

import httpx
from pydantic import SecretStr

from operate.doctor.diagnosis import Trigger
from operate.doctor.results import Finding, Healthy, Result
from operate.doctor.system import System

# No message has this id: send_chat_push logs "no push job" for it, counts UnknownMessage, and does nothing.
NO_MESSAGE = UUID(int=0)

LATE = "Pushes wait for the sweep, up to a minute."


def webhook(system: System) -> Iterator[Result]:
    """Does the database ring WebhookUrl, with the secret that the authorizer lets in?"""
    bells = [trigger for trigger in system.diagnosis.triggers if trigger.calls != "push.create_job"]
    ours = [bell for bell in bells if bell.url == system.webhook_url]
    configure = (
        f"select push.configure_webhook('{system.webhook_url}', '<secret>');  -- <secret>: \"current\" of"
        f" aws secretsmanager get-secret-value --secret-id {system.webhook_secret_id}"
    )
    if any(not bell.readable for bell in bells):
        yield Finding(
            "the database cannot decrypt the webhook's URL and secret, as after a restore: Vault has another key",
            LATE,
            configure,
        )
    elif not ours:
        urls = ", ".join(sorted(bell.url or "nothing" for bell in bells))
        fault = f"the database rings {urls}, not {system.webhook_url}" if bells else "the database has no webhook"
        yield Finding(fault, LATE, configure)
    elif not any(bell.enabled for bell in ours):
        remedy = f"alter table public.chat_messages enable trigger {ours[0].name};"
        yield Finding(f"the webhook {ours[0].name} of chat_messages is disabled", LATE, remedy)
    else:
        yield from _agreement(system, next(bell for bell in ours if bell.enabled), configure)


def _agreement(system: System, bell: Trigger, configure: str) -> Iterator[Result]:
    if bell.calls != "push.notify_webhook":
        configure = (
            f'"current" of {system.webhook_secret_id} as the header x-webhook-secret of the webhook {bell.name},'
            " in the dashboard of the project: Database, Webhooks"
        )
    current, previous = system.webhook_secret.current, system.webhook_secret.previous
    if bell.secret_sha256 == _digest(current):
        also = "; the previous secret still opens" if previous else ""
        yield Healthy(f"webhook: the database rings {system.webhook_url} with the current secret{also}")
    elif previous and bell.secret_sha256 == _digest(previous):
        consequence = 'The webhook stops once "previous" is set to null.'
        yield Finding("a rotation is unfinished: the database rings with the previous secret", consequence, configure)
    else:
        yield Finding("the database rings with another secret than WebhookSecret has", LATE, configure)


def _digest(secret: SecretStr) -> str:
    return sha256(secret.get_secret_value().encode()).hexdigest()


def ring(system: System) -> Iterator[Result]:
    """Does the door open to the secret, and to nothing else?"""
    log = system.log_of("AuthorizeWebhook")
    wrong = _ring(system, secrets.token_hex(24))
    right = _ring(system, system.webhook_secret.current.get_secret_value())
    if wrong.is_success:
        consequence = "Anybody may fill the queue. No push comes of it, but the bill does."
        yield Finding("the webhook lets a wrong secret in", consequence, "sam deploy, with template.yaml as it is here")
    elif wrong.status_code not in (401, 403):
        yield Finding(f"the webhook answers {wrong.status_code} to a wrong secret, not 403", LATE, log)
    if right.status_code in (401, 403):
        yield Finding(
            "the webhook refuses its own secret",
            f"{LATE} It is so for five minutes after the secret has changed.",
            f"five minutes of patience; then by {log}",
        )
    elif right.status_code != 202:
        yield Finding(f"the webhook answers {right.status_code} to its own secret, not 202", LATE, log)
    if right.status_code == 202 and wrong.status_code in (401, 403):
        yield Healthy("doorbell: opens to its secret, and not to a wrong one")


def _ring(system: System, secret: str) -> httpx.Response:
    ring = {"record": {"id": str(NO_MESSAGE)}}
    return system.http.post(system.webhook_url, headers={"x-webhook-secret": secret}, json=ring)
