"""What a role allows is what its function does: the calls to AWS that moto records, against the policies."""

import base64
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from local.aws.build import built
from local.aws.cloudformation import translate
from local.aws.lambda_runtime import lambda_function
from local.packages import PROJECT
from tests.stack import TEMPLATE, properties
from tests.system.chat import Chat, execute

# Each leads its function to everything that it may ask of AWS.
EVENTS = {
    "AuthorizeWebhook": "authorizer",
    "CleanupReceipts": "cleanup",
    "RegisterDevice": "register_device",
    "SendChatPush": "sweep",
}


@pytest.mark.parametrize("name", EVENTS)
async def test_a_function_may_do_what_it_does_and_nothing_else(chat: Chat, tmp_path: Path, name: str) -> None:
    cloud = chat.cloud
    function = cloud.template.functions[name]
    # A sweep that must leave work behind wakes the next one.
    await chat.send(webhook_lost=True)
    await execute(cloud, "update push.rate_limiter set free_at = clock_timestamp() + interval '1 hour'")
    # moto knows who is calling by the key of the credentials.
    environment = {**cloud.aws.environment, "AWS_ACCESS_KEY_ID": name}
    async with (
        built() as build,
        recorded(cloud.aws.endpoint_url) as requests,
        lambda_function(function, runtime=build.runtime, environment=environment, folder=tmp_path) as fresh,
    ):
        await fresh.invoke(json.loads((PROJECT / "tests" / "events" / f"{EVENTS[name]}.json").read_text()))
    await execute(cloud, "update push.rate_limiter set free_at = clock_timestamp()")
    queues = {queue.url: logical_id for logical_id, queue in cloud.template.queues.items()}
    assert allowed(name) == calls(requests, name, queues) | by_lambda_itself(name)


@asynccontextmanager
async def recorded(endpoint_url: str) -> AsyncIterator[list[dict[str, Any]]]:
    """The requests to AWS while the context is open; the list is filled at its end."""
    requests: list[dict[str, Any]] = []
    async with aiohttp.ClientSession(f"{endpoint_url}/moto-api/recorder/", raise_for_status=True) as recorder:

        async def ask(what: str) -> None:
            async with recorder.post(what):
                pass

        await ask("reset-recording")
        await ask("start-recording")
        try:
            yield requests
        finally:
            await ask("stop-recording")
        async with recorder.get("download-recording") as answer:
            requests += map(json.loads, (await answer.text()).splitlines())


def calls(requests: list[dict[str, Any]], name: str, queues: Mapping[str, str]) -> set[tuple[str, str]]:
    """Action and resource of each request of a function. It has clients of Secrets Manager and SQS alone."""
    found = set()
    for request in requests:
        headers = {key.lower(): value for key, value in request["headers"].items()}
        if f"Credential={name}/" in headers.get("authorization", ""):
            service, operation = headers["x-amz-target"].split(".")
            body = json.loads(base64.b64decode(request["body"]))
            resource = body["SecretId"] if service == "secretsmanager" else queues[body["QueueUrl"]]
            found.add((f"{service.removeprefix('Amazon').lower()}:{operation}", resource))
    return found


def allowed(name: str) -> set[tuple[str, str]]:
    """Action and resource, by its logical id, of each permission of a function's role."""
    [policy] = properties(translate(TEMPLATE)["Resources"], "IAM::Role")[f"{name}Role"]["Policies"]
    permissions = set()
    for statement in policy["PolicyDocument"]["Statement"]:
        actions, resource = statement["Action"], statement["Resource"]
        if isinstance(resource, dict):
            resource = resource.get("Ref") or resource["Fn::GetAtt"][0]
        permissions |= {(action, resource) for action in ([actions] if isinstance(actions, str) else actions)}
    return permissions


def by_lambda_itself(name: str) -> set[tuple[str, str]]:
    """What Lambda does with a function's role: it writes logs and traces, and polls the queue."""
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
