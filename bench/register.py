"""Cost of a registration, compared with the one database call that it must make.

Ten users register their phones, one after the other, through the local HTTP API and RegisterDevice, which is warm under
Lambda's Runtime Interface Emulator. The same database call alone alternates with the registrations.
A proxy in front of Supabase Lite, which supports shared secrets only, adds the key set with an ES256 key that hosted
projects have. The proxy also counts the requests to the database and to Auth. The times include the HTTP API, the
emulator and the proxy. On Lambda, as many registrations run in parallel as there are callers, so the one call is their
limit.
"""

import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

import aiohttp
import httpx
import jwt
import psycopg
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec

from bench.report import Plot, Result, Target, percentiles
from local.app import chat_app
from local.aws.build import built
from local.aws.gateway import gateway
from local.aws.lambda_runtime import lambda_function
from local.cloud import LocalCloud, local_cloud
from local.http_server import serving
from local.processes import free_port
from local.supabase.project import Supabase

PEOPLE, WARM_UP, REGISTRATIONS = 10, 20, 500
DATABASE_CALL = "/rest/v1/rpc/register_device"


class Project:
    """A proxy that adds an ES256 key to a Supabase project, forwards calls to its Data API, and counts requests."""

    def __init__(self, supabase: Supabase) -> None:
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self.requests: Counter[str] = Counter()
        self._supabase = supabase
        self._key = ec.generate_private_key(ec.SECP256R1())

    def access_token(self, person: UUID) -> str:
        """A token as Auth issues it."""
        claims = {
            "iss": f"{self.url}/auth/v1",
            "sub": str(person),
            "aud": "authenticated",
            "role": "authenticated",
            "exp": int(time.time()) + 3600,
        }
        return jwt.encode(claims, self._key, "ES256", {"kid": "key"})

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Runs the proxy while the context is open."""
        async with httpx.AsyncClient() as self._http:
            application = web.Application()
            application.router.add_get("/auth/v1/.well-known/jwks.json", self._keys)
            application.router.add_post(DATABASE_CALL, self._forward)
            async with serving(application, self._port):
                yield

    async def _keys(self, request: web.Request) -> web.Response:
        self.requests["Auth"] += 1
        algorithm: Any = jwt.get_algorithm_by_name("ES256")
        listed = algorithm.to_jwk(self._key.public_key(), as_dict=True) | {"kid": "key", "alg": "ES256"}
        return web.json_response({"keys": [listed]})

    async def _forward(self, request: web.Request) -> web.Response:
        self.requests["database"] += 1
        token = request.headers["Authorization"].removeprefix("Bearer ")
        claims = jwt.decode(token, options={"verify_signature": False})
        headers = {
            "apikey": request.headers["apikey"],
            "Authorization": f"Bearer {jwt.encode(claims, self._supabase.jwt_secret)}",
            "Content-Type": "application/json",
        }
        answer = await self._http.post(self._supabase.url + request.path, content=await request.read(), headers=headers)
        return web.Response(status=answer.status_code, body=answer.content, content_type="application/json")


async def run() -> Result:
    """Registrations per second, latencies of registration and of the call alone, and requests of each."""
    async with local_cloud() as cloud:
        project = Project(cloud.supabase)
        async with project.serving(), api_of(cloud, project) as api_url, chat_app(cloud.supabase, api_url) as app:
            people = [await app.sign_up(f"Person{number}", "tourist") for number in range(PEOPLE)]
            async with await psycopg.AsyncConnection.connect(cloud.database_url) as connection:
                await connection.execute("update push.settings set registration_limit = 1000000")
            tokens = [project.access_token(person.id) for person in people]
            return await _measure(project, api_url, cloud.supabase.publishable_key, tokens)


@asynccontextmanager
async def api_of(cloud: LocalCloud, project: Project) -> AsyncIterator[str]:
    """The URL of an HTTP API whose RegisterDevice belongs to `project`."""
    function = cloud.template.functions["RegisterDevice"]
    function = replace(function, environment={**function.environment, "SUPABASE_URL": project.url})
    folder = cloud.folder / "bench"
    folder.mkdir()
    async with (
        built() as build,
        lambda_function(function, runtime=build.runtime, environment=cloud.aws.environment, folder=folder) as running,
        gateway(cloud.template, {"RegisterDevice": running}, cloud.aws.sqs) as url,
    ):
        yield url


async def _measure(project: Project, api_url: str, publishable_key: str, tokens: list[str]) -> Result:
    registrations: list[float] = []
    calls: list[float] = []
    requests: Counter[str] = Counter()
    async with aiohttp.ClientSession(raise_for_status=True) as http:

        async def took(url: str, headers: dict[str, str], body: dict[str, str]) -> float:
            """Makes a request and returns its milliseconds."""
            began = time.perf_counter()
            async with http.post(url, headers=headers, json=body) as answer:
                await answer.read()
            return (time.perf_counter() - began) * 1000

        for number in range(WARM_UP + REGISTRATIONS):
            if number == WARM_UP:
                for figures in (registrations, calls, requests):
                    figures.clear()
            headers = {"Authorization": f"Bearer {tokens[number % PEOPLE]}"}
            phone = {
                "device_id": f"phone {number % 100}",
                "platform": "ios",
                "push_token": f"ExponentPushToken[{number % 100}]",
            }
            project.requests.clear()
            registrations.append(await took(f"{api_url}/api/push/register", headers, phone))
            requests += project.requests
            arguments = {f"p_{name}": value for name, value in phone.items()}
            headers["apikey"] = publishable_key
            calls.append(await took(project.url + DATABASE_CALL, headers, arguments))
    return Result(
        columns=("what", "a second", "p50 ms", "p95 ms", "p99 ms", "database requests", "Auth requests"),
        rows=[
            ("the database call alone", 1000 * len(calls) / sum(calls), *percentiles(calls), 1, 0),
            (
                "registration",
                1000 * len(registrations) / sum(registrations),
                *percentiles(registrations),
                *(requests[what] / REGISTRATIONS for what in ("database", "Auth")),
            ),
        ],
        targets=[
            Target("database requests per registration", requests["database"] / REGISTRATIONS, 1),
            Target("Auth requests per registration, warm", requests["Auth"] / REGISTRATIONS, 0),
        ],
        plot=Plot("what", ("p50 ms", "p99 ms"), "milliseconds"),
    )
