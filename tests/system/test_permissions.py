"""Each function's role allows the calls to AWS that the function makes, and no others. moto records the calls."""

import base64
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from local.aws.cloudformation import translate
from local.packages import PROJECT
from tests.stack import TEMPLATE, properties
from tests.system.chat import Chat, execute, running_function

# With this event a function makes every kind of call that it can make to AWS.
EVENTS = {
    "AuthorizeWebhook": "authorizer",
    "CleanupReceipts": "cleanup",
    "RegisterDevice": "register_device",
    "SendChatPush": "sweep",
}


@pytest.mark.parametrize("name", EVENTS)
async def test_a_role_allows_exactly_the_calls_that_its_function_makes(chat: Chat, tmp_path: Path, name: str) -> None:
    cloud = chat.cloud
    # A sweep that leaves work behind sends a wake-up to the queue.
    await chat.send(webhook_lost=True)
    await execute(cloud, "update push.rate_limiter set free_at = clock_timestamp() + interval '1 hour'")
    # The access key tells the calls of this function from others.
    environment = {**cloud.aws.environment, "AWS_ACCESS_KEY_ID": name}
    async with (
        recorded(cloud.aws.endpoint_url) as requests,
        running_function(cloud, cloud.template.functions[name], tmp_path, environment) as function,
    ):
        await function.invoke(json.loads((PROJECT / "tests" / "events" / f"{EVENTS[name]}.json").read_text()))
    await execute(cloud, "update push.rate_limiter set free_at = clock_timestamp()")
    queues = {queue.url: logical_id for logical_id, queue in cloud.template.queues.items()}
    assert allowed(name) == calls(requests, name, queues) | by_lambda_itself(name)


@asynccontextmanager
async def recorded(endpoint_url: str) -> AsyncIterator[list[dict[str, Any]]]:
    """Records the requests to AWS while the context is open. Fills the list at its end."""
    requests: list[dict[str, Any]] = []
    async with aiohttp.ClientSession(f"{endpoint_url}/moto-api/recorder/", raise_for_status=True) as recorder:

        async def call(action: str) -> None:
            async with recorder.post(action):
                pass

        await call("reset-recording")
        await call("start-recording")
        try:
            yield requests
        finally:
            await call("stop-recording")
        async with recorder.get("download-recording") as answer:
            requests += map(json.loads, (await answer.text()).splitlines())


def calls(requests: list[dict[str, Any]], name: str, queues: Mapping[str, str]) -> set[tuple[str, str]]:
    """Returns action and resource of each request of a function. It calls Secrets Manager and SQS only."""
    found = set()
    for request in requests:
        headers = {key.lower(): value for key, value in request["headers"].items()}
        if f"Credential={name}/" in headers.get("authorization", ""):
            service, operation = headers["x-amz-target"].split(".")
            body = json.loads(base64.b64decode(request["body"]))
            resource = body["SecretId"] if service == "secretsmanager" else queues[body["QueueUrl"]]
            # One right for both: https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonsqs.html
            action = "SendMessage" if operation == "SendMessageBatch" else operation
            found.add((f"{service.removeprefix('Amazon').lower()}:{action}", resource))
    return found


def allowed(name: str) -> set[tuple[str, str]]:
    """Returns action and resource (logical id) of each permission of a function's role."""
    [policy] = properties(translate(TEMPLATE)["Resources"], "IAM::Role")[f"{name}Role"]["Policies"]
    permissions = set()
    for statement in policy["PolicyDocument"]["Statement"]:
        actions, resource = statement["Action"], statement["Resource"]
        if isinstance(resource, dict):
            resource = resource.get("Ref") or resource["Fn::GetAtt"][0]
        permissions |= {(action, resource) for action in ([actions] if isinstance(actions, str) else actions)}
    return permissions


def by_lambda_itself(name: str) -> set[tuple[str, str]]:
    """Returns what Lambda itself does with a function's role: it writes logs and traces, and polls the queue."""
    resources = translate(TEMPLATE)["Resources"]
    logs = properties(resources, "Lambda::Function")[name]["LoggingConfig"]["LogGroup"]["Ref"]
    permissions = {(f"logs:{action}", logs) for action in ("CreateLogStream", "PutLogEvents")}
    permissions |= {(f"xray:{action}", "*") for action in ("PutTraceSegments", "PutTelemetryRecords")}
    for mapping in properties(resources, "Lambda::EventSourceMapping").values():
        if re.match(rf"{name}Alias", mapping["FunctionName"]["Ref"]):
            queue = mapping["EventSourceArn"]["Fn::GetAtt"][0]
            permissions |= {
                (f"sqs:{action}", queue) for action in ("ReceiveMessage", "DeleteMessage", "GetQueueAttributes")
            }
    return permissions
