"""The HTTP API answers callers, and calls authorizers and functions, as API Gateway does."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from uuid import uuid4

import aiohttp
import pytest

from local.aws.account import ACCOUNT
from local.aws.gateway import gateway
from local.aws.lambda_runtime import Account, LambdaFunction
from local.aws.services import Aws
from local.aws.template import Authorizer, LambdaIntegration, Queue, Route, SqsIntegration, Template
from local.types import Json
from tests.local.aws.conftest import StartFunction
from tests.waiting import eventually

CONCURRENCY = 3

AUTHORIZER = """
    import os, time

    def lambda_handler(event, context):
        print("asked")
        match event["headers"]["x-webhook-secret"]:
            case "slow":
                while not os.path.exists(f"{os.environ['LAMBDA_TASK_ROOT']}/go"):
                    time.sleep(0.01)
                return {"isAuthorized": True}
            case "right":
                return {"isAuthorized": True, "context": {"by": event["identitySource"][0]}}
            case "raises":
                raise LookupError("secret cannot be read")
            case "malformed":
                return {"authorized": True}
            case "event":
                return {"isAuthorized": True, "context": event}
        return {"isAuthorized": False}
"""

ECHO = """
    import time

    def lambda_handler(event, context):
        match event.get("body"):
            case "raise":
                raise LookupError("a secret of the function")
            case "created":
                return {
                    "statusCode": 201, "headers": {"X-Id": 7}, "cookies": ["a=1", "b=2"], "body": "made"
                }
            case "empty":
                return {"statusCode": 204, "body": None}
            case "binary":
                return {"statusCode": 200, "isBase64Encoded": True, "body": "AAE="}
        return event
"""


@dataclass
class Api:
    http: aiohttp.ClientSession
    aws: Aws
    queue: Queue
    authorizer: LambdaFunction
    account: Account

    async def call_webhook(self, body: bytes | Json, secret: str | None = "right") -> tuple[int, str]:
        headers = {"x-webhook-secret": secret} if secret is not None else {}
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.http.post("/webhook", data=data, headers=headers) as response:
            return response.status, await response.text()

    async def queued(self) -> list[str]:
        answer = await asyncio.to_thread(self.aws.sqs.receive_message, QueueUrl=self.queue.url, MaxNumberOfMessages=10)
        return [message["Body"] for message in answer.get("Messages", [])]

    def authorizer_invocations(self) -> int:
        return self.authorizer.log_lines().count("asked")


@pytest.fixture
async def api(services: Aws, start_function: StartFunction) -> AsyncIterator[Api]:
    name = f"queue-{uuid4().hex}"
    url = f"{services.endpoint_url}/{ACCOUNT}/{name}"
    queue = Queue(name, "arn", url, timedelta(seconds=30), timedelta(days=4), None)
    authorizer = Authorizer("Webhook", "Authorize", "x-webhook-secret", timedelta(seconds=300))
    template = Template(
        functions={},
        queues={name: queue},
        secrets={},
        routes=(
            Route("POST", "/webhook", SqsIntegration(name, "$request.body.record.id", 202), authorizer),
            Route("POST", "/whole", SqsIntegration(name, "$request.body", 200), None),
            Route("POST", "/echo", LambdaIntegration("Echo"), None),
            Route("GET", "/echo", LambdaIntegration("Echo"), authorizer),
            Route("ANY", "/echo/{proxy+}", LambdaIntegration("Echo"), None),
            Route("GET", "/echo/{proxy+}", LambdaIntegration("Echo"), None),
            Route("GET", "/echo/a/b", LambdaIntegration("Echo"), None),
        ),
        event_source_mappings={},
        schedules={},
    )
    await services.create(template)
    account = Account(CONCURRENCY)
    functions = {
        "Authorize": await start_function(AUTHORIZER, name="Authorize", account=account),
        "Echo": await start_function(ECHO, name="Echo", account=account),
    }
    async with AsyncExitStack() as stack:
        base_url = await stack.enter_async_context(gateway(template, functions, services.sqs))
        http = await stack.enter_async_context(aiohttp.ClientSession(base_url))
        yield Api(http, services, queue, functions["Authorize"], account)


async def test_the_gateway_queues_only_the_mapped_path_of_the_body(api: Api) -> None:
    status, _ = await api.call_webhook({"type": "INSERT", "record": {"id": "m-1", "message": "private"}})
    assert status == 202
    assert await api.queued() == ["m-1"]


async def test_a_mapping_of_the_whole_body_queues_it_unchanged(api: Api) -> None:
    async with api.http.post("/whole", data=b"not json") as response:
        assert response.status == 200
    assert await api.queued() == ["not json"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no json",
        b"[" * 50_000,
        b'{"record": {"id": "\xff"}}',
        [],
        {},
        {"record": None},
        {"record": {}},
        {"record": {"id": ""}},
        {"record": {"id": None}},
        {"record": {"id": "m-1", "message": "x" * 110_000}},  # the mapping sees the first 100 KB
    ],
    ids=lambda body: str(body)[:30],
)
async def test_a_body_without_the_mapped_path_is_rejected_and_not_queued(api: Api, body: Json) -> None:
    assert await api.call_webhook(body) == (400, '{"message": "Bad Request"}')
    assert await api.queued() == []


async def test_a_mapped_value_that_is_not_a_string_is_queued_as_json(api: Api) -> None:
    assert (await api.call_webhook({"record": {"id": 7}}))[0] == 202
    assert await api.queued() == ["7"]


@pytest.mark.parametrize("secret", [None, ""])
async def test_a_request_without_the_identity_header_is_401_and_does_not_invoke_the_authorizer(
    api: Api, secret: str | None
) -> None:
    assert await api.call_webhook({"record": {"id": "m-1"}}, secret) == (401, '{"message": "Unauthorized"}')
    assert api.authorizer_invocations() == 0
    assert await api.queued() == []


async def test_a_request_that_the_authorizer_rejects_is_403(api: Api) -> None:
    assert await api.call_webhook({"record": {"id": "m-1"}}, "wrong") == (403, '{"message": "Forbidden"}')
    assert await api.queued() == []


@pytest.mark.parametrize("secret", ["raises", "malformed"])
async def test_a_malformed_answer_of_the_authorizer_is_500_and_not_cached(api: Api, secret: str) -> None:
    for _ in range(2):
        status, body = await api.call_webhook({"record": {"id": "m-1"}}, secret)
        assert (status, body) == (500, '{"message": "Internal Server Error"}')
    assert api.authorizer_invocations() == 2
    assert await api.queued() == []


async def test_the_answer_of_the_authorizer_is_cached_for_each_identity(api: Api) -> None:
    for secret, status in [("right", 202), ("wrong", 403), ("right", 202), ("wrong", 403)]:
        assert (await api.call_webhook({"record": {"id": "m-1"}}, secret))[0] == status
    assert api.authorizer_invocations() == 2


async def test_each_request_of_a_burst_on_a_cold_cache_invokes_the_authorizer_and_the_account_throttles(
    api: Api, tmp_path: Path
) -> None:
    burst = [asyncio.create_task(api.call_webhook({"record": {"id": "m-1"}}, "slow")) for _ in range(20)]
    await eventually(lambda: api.account.throttled == 20 - CONCURRENCY)
    (tmp_path / "Authorize" / "go").touch()
    statuses = sorted([status for status, _ in await asyncio.gather(*burst)])
    assert statuses == [202] * CONCURRENCY + [500] * (20 - CONCURRENCY)
    assert api.authorizer.environments() == CONCURRENCY
    assert (await api.call_webhook({"record": {"id": "m-1"}}, "slow"))[0] == 202
    assert api.authorizer_invocations() == CONCURRENCY


async def test_a_throttled_function_is_500(api: Api) -> None:
    with ExitStack() as others:
        for _ in range(CONCURRENCY):
            others.enter_context(api.account.execution("Other"))
        async with api.http.post("/echo", data="created") as response:
            assert (response.status, await response.json()) == (500, {"message": "Internal Server Error"})
    async with api.http.post("/echo", data="created") as response:
        assert response.status == 201


@pytest.mark.parametrize(("method", "path"), [("GET", "/webhook"), ("POST", "/webhook/"), ("POST", "/")])
async def test_an_unknown_route_is_404(api: Api, method: str, path: str) -> None:
    async with api.http.request(method, path, headers={"x-webhook-secret": "right"}) as response:
        assert (response.status, await response.json()) == (404, {"message": "Not Found"})


@pytest.mark.parametrize(
    ("method", "path", "route", "rest"),
    [
        ("GET", "/echo/a/b", "GET /echo/a/b", None),
        ("GET", "/echo/a", "GET /echo/{proxy+}", "a"),
        ("GET", "/echo/a/b/c", "GET /echo/{proxy+}", "a/b/c"),
        ("PUT", "/echo/a/b", "ANY /echo/{proxy+}", "a/b"),
        ("PATCH", "/echo/a/", "ANY /echo/{proxy+}", "a/"),
    ],
)
async def test_the_most_specific_route_answers_a_request(
    api: Api, method: str, path: str, route: str, rest: str | None
) -> None:
    async with api.http.request(method, path) as response:
        event = await response.json()
    assert (event["routeKey"], event["requestContext"]["routeKey"], event["rawPath"]) == (route, route, path)
    assert event.get("pathParameters") == (rest and {"proxy": rest})


async def test_a_body_over_10_mb_is_413(api: Api) -> None:
    body = BytesIO(b"x" * (10 * 1024**2 + 1))
    async with api.http.post("/whole", data=body) as response:
        assert (response.status, await response.json()) == (413, {"message": "Request Entity Too Large"})


async def test_an_authorizer_receives_format_2_without_the_body(api: Api) -> None:
    async with api.http.get("/echo", headers={"x-webhook-secret": "event"}) as response:
        event = (await response.json())["requestContext"]["authorizer"]["lambda"]
    assert event["type"] == "REQUEST"
    assert event["version"] == "2.0"
    assert event["routeKey"] == "GET /echo"
    assert event["identitySource"] == ["event"]
    assert event["routeArn"].endswith("/$default/GET/echo")
    assert event["headers"]["x-webhook-secret"] == "event"
    assert "body" not in event


async def test_a_function_receives_format_2(api: Api) -> None:
    headers = {"Cookie": "a=1; b=2", "Content-Type": "application/json", "User-Agent": "test"}
    async with api.http.post("/echo?x=1&x=2&y=%20", data=b'{"a": 1}', headers=headers) as response:
        event = await response.json()
    assert event["version"] == "2.0"
    assert event["routeKey"] == "POST /echo"
    assert event["rawPath"] == "/echo"
    assert event["rawQueryString"] == "x=1&x=2&y=%20"
    assert event["queryStringParameters"] == {"x": "1,2", "y": " "}
    assert event["cookies"] == ["a=1", "b=2"]
    assert "cookie" not in event["headers"]
    assert event["headers"]["content-type"] == "application/json"
    assert event["body"] == '{"a": 1}'
    assert event["isBase64Encoded"] is False
    assert event["requestContext"]["http"]["method"] == "POST"
    assert event["requestContext"]["http"]["sourceIp"] == "127.0.0.1"
    assert "authorizer" not in event["requestContext"]


async def test_a_function_receives_a_binary_body_in_base64(api: Api) -> None:
    async with api.http.post("/echo", data=b"\x00\x01", headers={"Content-Type": "image/png"}) as response:
        event = await response.json()
    assert (event["body"], event["isBase64Encoded"]) == ("AAE=", True)


async def test_an_answer_in_format_2_becomes_the_response(api: Api) -> None:
    async with api.http.post("/echo", data="created") as response:
        assert response.status == 201
        assert await response.text() == "made"
        assert response.headers["X-Id"] == "7"
        assert response.headers.getall("Set-Cookie") == ["a=1", "b=2"]


async def test_an_answer_without_a_body_becomes_an_empty_response(api: Api) -> None:
    async with api.http.post("/echo", data="empty") as response:
        assert (response.status, await response.read()) == (204, b"")


async def test_a_base64_answer_is_decoded(api: Api) -> None:
    async with api.http.post("/echo", data="binary") as response:
        assert await response.read() == b"\x00\x01"


async def test_an_error_of_the_function_is_500_without_details(api: Api) -> None:
    async with api.http.post("/echo", data="raise") as response:
        assert response.status == 500
        assert await response.json() == {"message": "Internal Server Error"}
