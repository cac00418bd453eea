"""The local cloud does what template.yaml says: an error in the template is an error in the cloud."""

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from local.aws.build import Build, built
from local.aws.gateway import gateway
from local.aws.lambda_runtime import FunctionError
from local.aws.template import Template, read_template
from local.cloud import LocalCloud
from tests.stack import PARAMETERS, changed
from tests.system.chat import call_webhook, running_function


@pytest.fixture
async def build() -> AsyncIterator[Build]:
    async with built() as build:
        yield build


def wrong_template(cloud: LocalCloud, build: Build, folder: Path, correct: str, wrong: str) -> Template:
    """Reads a copy of the built template with one change. Links to the built folders lie beside it."""
    for part in build.template.parent.iterdir():
        if part.is_dir():
            (folder / part.name).symlink_to(part)
    path = changed(folder, correct, wrong, template=build.template)
    return read_template(path, PARAMETERS, cloud.aws.endpoint_url)


@pytest.mark.parametrize(
    ("correct", "wrong", "message"),
    [
        ("Handler: app.lambda_handler", "Handler: app.handler", "Handler 'handler' missing on module 'app'"),
        ("    - Ref: SharedLayer\n", "", "No module named 'chat_push'"),
        ("    - Ref: DependenciesLayer\n", "", "No module named 'aws_lambda_powertools'"),
        ("          SUPABASE_URL:\n            Ref: SupabaseUrl\n", "", "SUPABASE_URL: Field required"),
        ("BACKEND_SECRET_ID:", "BACKEND_SECRET:", "BACKEND_SECRET_ID: Field required"),
        ('{"sweep": true,', '{"sweeps": true,', "Extra inputs are not permitted"),
        # Lambda's minimum is 128, but no function needs that much.
        ("MemorySize: 512", "MemorySize: 48", "Runtime exited with error: signal: killed"),
    ],
)
async def test_the_sweep_fails_while_the_template_has_an_error(
    cloud: LocalCloud, build: Build, tmp_path: Path, correct: str, wrong: str, message: str
) -> None:
    template = wrong_template(cloud, build, tmp_path, correct, wrong)
    sweep = template.schedules["SendChatPushSweep"]
    async with running_function(cloud, template.functions[sweep.function], tmp_path) as function:
        with pytest.raises(FunctionError, match=message):
            await function.invoke(sweep.event)


@pytest.mark.parametrize(
    ("correct", "wrong", "with_secret", "without_secret"),
    [
        ("title: Chat Push", "title: Push", 202, 401),  # has no effect on the answer
        ("              security:\n              - WebhookAuthorizer: []\n", "", 202, 202),
        ("              - x-webhook-secret\n", "              - x-secret\n", 401, 401),
        ("Ref: AuthorizeWebhook.Alias", "Ref: SendChatPush.Alias", 500, 401),
        ("/api/push/chat-message:", "/api/push/message:", 401, 401),  # register_device asks for an access token
        ("$request.body.record.id", "$request.body.id", 400, 401),
        ("overwrite:statuscode: '202'", "overwrite:statuscode: '200'", 200, 401),
    ],
)
async def test_a_webhook_is_answered_as_the_template_says(
    cloud: LocalCloud, build: Build, tmp_path: Path, correct: str, wrong: str, with_secret: int, without_secret: int
) -> None:
    template = wrong_template(cloud, build, tmp_path, correct, wrong)
    async with gateway(template, cloud.functions, cloud.aws.sqs) as url:
        body = {"record": {"id": str(uuid4())}}
        assert await call_webhook(url, body, {"x-webhook-secret": cloud.webhook_secret}) == with_secret
        assert await call_webhook(url, body, {}) == without_secret
