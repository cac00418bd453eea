"""./dev doctor finds faults of the secrets, of what they give access to, and of the webhook."""

from uuid import uuid4

import pytest
from aiohttp import web

from local.http_server import serving
from operate.doctor.results import Finding, Healthy, NotExamined
from tests.operate.conftest import BreakableCloud, vault_update


@pytest.mark.parametrize("value", ["{}", '{"supabase_secret_key": null}', "no JSON"])
async def test_an_incomplete_backend_secret_is_a_finding(breakable: BreakableCloud, value: str) -> None:
    finding = await breakable.finding_alone(
        "the secret BackendSecret is incomplete", backend_secret_id=breakable.secret(value)
    )
    assert finding.remedy == f"./dev secrets put --env {breakable.env_file}"
    complete = breakable.secret({"supabase_secret_key": breakable.cloud.supabase.secret_key})
    await breakable.is_healthy(backend_secret_id=complete)


async def test_an_incomplete_webhook_secret_is_a_finding(breakable: BreakableCloud) -> None:
    secret = breakable.secret("{}")
    await breakable.finding_alone("the secret WebhookSecret is incomplete: current", webhook_secret_id=secret)
    await breakable.is_healthy(webhook_secret_id=breakable.secret({"current": breakable.cloud.webhook_secret}))


async def test_an_empty_secret_is_a_finding(breakable: BreakableCloud) -> None:
    breakable.cloud.aws.secrets_manager.create_secret(Name="empty")
    await breakable.finding_alone("the secret BackendSecret is empty or does not exist", backend_secret_id="empty")


async def test_a_secret_key_of_another_project_is_a_finding(breakable: BreakableCloud) -> None:
    finding = await breakable.finding_alone(
        "Supabase refuses supabase_secret_key of the secret BackendSecret (HTTP 401)",
        backend_secret_id=breakable.secret({"supabase_secret_key": "sb_secret_of_another_project"}),
    )
    assert finding.remedy == f"./dev secrets put --env {breakable.env_file}"


async def test_an_unreachable_supabase_is_a_finding(breakable: BreakableCloud) -> None:
    await breakable.cloud.supabase.stop()
    try:
        await breakable.finding_alone("Supabase does not answer")
    finally:
        await breakable.cloud.supabase.start()
    await breakable.is_healthy()


@pytest.mark.parametrize(
    ("wanted", "given", "what"),
    [
        ("a-token", None, "Expo refuses requests without an access token (UNAUTHORIZED)"),
        ("a-token", "another", "Expo refuses expo_access_token of the secret BackendSecret (invalid_token)"),
        (None, "a-token", "Expo refuses expo_access_token of the secret BackendSecret (invalid_token)"),
    ],
)
async def test_an_access_token_that_expo_refuses_is_a_finding(
    breakable: BreakableCloud, wanted: str | None, given: str | None, what: str
) -> None:
    def secret(access_token: str | None) -> str:
        key = breakable.cloud.supabase.secret_key
        return breakable.secret({"supabase_secret_key": key, "expo_access_token": access_token})

    breakable.cloud.expo.configure({"access_token": wanted})
    finding = await breakable.finding(what, backend_secret_id=secret(given))
    assert finding.remedy == f"./dev secrets put --env {breakable.env_file}"
    await breakable.is_healthy(backend_secret_id=secret(wanted))


async def test_an_unreachable_expo_is_a_finding(breakable: BreakableCloud) -> None:
    await breakable.finding("Expo gives no receipts (ConnectError)", expo_url="http://127.0.0.1:9")


async def test_an_unfinished_rotation_of_the_webhook_secret_is_a_finding(breakable: BreakableCloud) -> None:
    new = uuid4().hex
    secret = breakable.secret({"current": new, "previous": breakable.cloud.webhook_secret})
    results = await breakable.examination(webhook_secret_id=secret)
    rotation, refusal = [result for result in results if isinstance(result, Finding)]
    assert rotation.what == "a rotation is unfinished: the database sends the previous secret"
    # The authorizer caches secrets for five minutes, so it does not accept the new one yet.
    assert refusal.what == "the webhook rejects its own secret"
    assert "five minutes" in refusal.consequence
    await breakable.execute(rotation.remedy.replace("<secret>", new))
    await breakable.finding("the webhook rejects its own secret", webhook_secret_id=secret)


async def test_a_previous_secret_that_is_still_accepted_is_reported(breakable: BreakableCloud) -> None:
    secret = breakable.secret({"current": breakable.cloud.webhook_secret, "previous": "the one before"})
    results = await breakable.examination(webhook_secret_id=secret)
    [webhook] = [result for result in results if "also accepts the previous secret" in str(result)]
    assert isinstance(webhook, Healthy)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (202, ["the webhook accepts a wrong secret"]),
        (
            500,
            [
                "the webhook answers 500 to a wrong secret, not 403",
                "the webhook answers 500 to its own secret, not 202",
            ],
        ),
        (403, ["the webhook rejects its own secret"]),
    ],
)
async def test_a_webhook_that_gives_every_secret_the_same_answer_is_a_finding(
    breakable: BreakableCloud, status: int, expected: list[str]
) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status)

    app = web.Application()
    app.router.add_post("/webhook", answer)
    async with serving(app) as base:
        url = f"{base}/webhook"
        await breakable.execute(vault_update("push_webhook_url", url))
        results = await breakable.examination(webhook_url=url)
    assert [result.what for result in results if isinstance(result, Finding)] == expected


async def test_an_unreachable_webhook_is_reported_as_unknown(breakable: BreakableCloud) -> None:
    url = "http://127.0.0.1:9/webhook"
    await breakable.execute(vault_update("push_webhook_url", url))
    [unknown] = [result for result in await breakable.examination(webhook_url=url) if isinstance(result, NotExamined)]
    assert str(unknown).startswith("unknown   webhook authorizer: ConnectError")
