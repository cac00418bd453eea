"""The whole system on one machine: the deployed functions and the services that they use."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import LiteralString
from uuid import UUID

import aiohttp
import psycopg

from local.aws.build import built
from local.aws.gateway import gateway
from local.aws.lambda_runtime import ACCOUNT_CONCURRENCY, Account, LambdaFunction, lambda_function
from local.aws.queue_poller import QueuePoller, queue_poller
from local.aws.scheduler import Scheduler, scheduler
from local.aws.services import Aws, aws
from local.aws.template import Template, read_template
from local.processes import temporary_folder
from local.providers.apns.service import apns_service
from local.providers.apns.state import TOPIC, ApnsService
from local.providers.expo.service import expo_service
from local.providers.expo.state import ExpoService
from local.providers.fcm.service import fcm_service
from local.providers.fcm.state import FcmService
from local.providers.phones import Phone
from local.supabase.pg_net import PgNet, pg_net
from local.supabase.postgres import Postgres, postgres
from local.supabase.project import Supabase, supabase
from local.supabase.realtime.server import Realtime, realtime
from local.types import Json


def _is_done(job: Json) -> bool:
    return bool(job["state"] == "done")


@dataclass(frozen=True)
class LocalCloud:
    """A running local cloud; its parts by their names in template.yaml where they have one."""

    folder: Path  # logs of the child processes
    template: Template
    api_url: str
    webhook_secret: str
    postgres: Postgres
    supabase: Supabase
    realtime: Realtime
    pg_net: PgNet
    expo: ExpoService
    fcm: FcmService
    apns: ApnsService
    aws: Aws
    account: Account
    functions: Mapping[str, LambdaFunction]
    poller: QueuePoller
    scheduler: Scheduler

    @property
    def database_url(self) -> str:
        """The URL of the database as its owner, for settings and for reading push.jobs."""
        return self.postgres.dsn()

    @property
    def phones(self) -> dict[str, Phone]:
        """The phones of all push services, by token."""
        return {**self.expo.phones, **self.fcm.phones, **self.apns.phones}

    def service_of(self, phone: Phone) -> ExpoService | FcmService | ApnsService:
        """The push service that reaches a phone."""
        match phone.provider:
            case "expo":
                return self.expo
            case "fcm":
                return self.fcm
            case "apns":
                return self.apns

    def environment(self) -> dict[str, str]:
        """What another program needs to use the cloud."""
        return {
            "API_URL": self.api_url,
            "WEBHOOK_SECRET": self.webhook_secret,
            "SUPABASE_URL": self.realtime.url,
            "SUPABASE_PUBLISHABLE_KEY": self.supabase.publishable_key,
            "SUPABASE_SECRET_KEY": self.supabase.secret_key,
            "DATABASE_URL": self.database_url,
            "EXPO_URL": self.expo.url,
            "EXPO_CONTROL_URL": self.expo.control_url,
            "SQS_URL": self.template.queues["PushQueue"].url,
            "DEAD_LETTERS_URL": self.template.queues["PushDeadLetters"].url,
            **self.aws.environment,
            "FOLDER": str(self.folder),
        }

    async def sweep(self) -> None:
        """Sweeps once now. Unlike the run of the schedule, it wakes no further sweeps for the rest of a minute."""
        await self.scheduler.fire("SendChatPushSweep", {"sweep": True})

    async def explain_push(self, message_id: UUID) -> Json:
        """The push of a message: state, outcome, reason, attempts and deliveries, as docs/operate.md describes them.

        None: the message has no push job.
        """
        async with (
            aiohttp.ClientSession(headers={"apikey": self.supabase.secret_key}, raise_for_status=True) as session,
            session.post(
                f"{self.supabase.url}/rest/v1/rpc/explain_push", json={"p_message_id": str(message_id)}
            ) as answer,
        ):
            return await answer.json()

    async def until_push(
        self,
        message_id: UUID,
        reached: Callable[[Json], bool] = _is_done,
        *,
        sweep: bool = False,
        seconds: float = 90,
    ) -> Json:
        """Waits until the push of a message is done, or until `reached` holds for it. Returns explain_push.

        `sweep`: sweeps run meanwhile, so that later retries need no wait. Raises TimeoutError with
        the last explain_push, and LookupError if the message has no push job.
        """
        job: Json = None
        try:
            async with asyncio.timeout(seconds):
                while (job := await self.explain_push(message_id)) and not reached(job):
                    if sweep:
                        await self.sweep()
                    await asyncio.sleep(0.05)  # The database sends no event when a job changes.
        except TimeoutError:
            raise TimeoutError(f"the push of {message_id} did not get there within {seconds:g} s: {job}") from None
        if job is None:
            raise LookupError(f"the message {message_id} has no push job")
        return job

    async def collect_receipts(self) -> None:
        """Makes every receipt due, and runs CleanupReceipts once. A receipt is otherwise due 15 minutes after its send.

        CleanupReceipts also deactivates the devices whose tokens are dead.
        """
        async with await psycopg.AsyncConnection.connect(self.database_url) as connection:
            await connection.execute(
                "update push.deliveries set receipt_due_at = clock_timestamp() where receipt_due_at is not null"
            )
        await self.scheduler.fire("CleanupReceiptsRun")


@asynccontextmanager
async def local_cloud(
    *, schedules: bool = False, concurrency: int = ACCOUNT_CONCURRENCY, direct: bool = False
) -> AsyncIterator[LocalCloud]:
    """Starts a new cloud on free ports. Its state is in a folder that is removed at the end.

    `schedules`: whether schedules fire at their times; otherwise only Scheduler.fire fires them. `concurrency`: how
    many invocations of all functions together the account allows at a time. `direct`: whether the backend secret has
    the credentials of FCM and APNs, so that pushes go to them directly. Their fakes run in either case.
    """
    async with AsyncExitStack() as parts:
        folder = parts.enter_context(temporary_folder())
        enter = parts.enter_async_context
        _starting("functions and layers, built by sam build")
        build = await enter(built())
        _starting("PostgreSQL")
        database = await enter(postgres(folder))
        _starting("Supabase Data API and Auth, and the migrations")
        project = await enter(supabase(folder, database))
        realtime_server = await enter(realtime(database, project))
        _starting("SQS and Secrets Manager")
        services = await enter(aws(folder))
        _starting("Expo, FCM, APNs, functions, queue, schedule, HTTP API, webhook")
        fcm, apns = await enter(fcm_service()), await enter(apns_service())
        expo = await enter(expo_service(fcm=fcm, apns=apns))
        parameters = {"SupabaseUrl": project.url, "ExpoUrl": expo.url}
        template = read_template(build.template, parameters, services.endpoint_url)
        await services.create(template)
        backend_secret = {"supabase_secret_key": project.secret_key}
        if direct:
            backend_secret |= direct_credentials(fcm, apns)
        await services.put_secret(template.secrets["BackendSecret"].name, backend_secret)
        app_secret = {"supabase_publishable_key": project.publishable_key}
        await services.put_secret(template.secrets["AppSecret"].name, app_secret)
        webhook_secret = (await services.secret(template.secrets["WebhookSecret"].name))["current"]
        assert webhook_secret
        account = Account(concurrency)
        functions = {
            name: await enter(
                lambda_function(
                    function,
                    runtime=build.runtime,
                    environment={**services.environment, **direct_urls(fcm, apns)},
                    folder=folder,
                    account=account,
                )
            )
            for name, function in template.functions.items()
        }
        (mapping,) = template.event_source_mappings.values()
        poller = await enter(
            queue_poller(mapping, template.queues[mapping.queue], functions[mapping.function], services.sqs)
        )
        scheduling = await enter(scheduler(template.schedules, functions, automatic=schedules))
        api_url = await enter(gateway(template, functions, services.sqs))
        net = await enter(pg_net(database.dsn()))
        await _execute(
            database.dsn(), "select push.configure_webhook(%s, %s)", f"{api_url}/api/push/chat-message", webhook_secret
        )
        if direct:
            # As the first claim of a worker does. Until then, no phone of FCM or APNs could be registered.
            await _execute(database.dsn(), "select push.note_providers(%s)", ["fcm", "apns"])
        yield LocalCloud(
            folder,
            template,
            api_url,
            webhook_secret,
            database,
            project,
            realtime_server,
            net,
            expo,
            fcm,
            apns,
            services,
            account,
            functions,
            poller,
            scheduling,
        )


def direct_credentials(fcm: FcmService, apns: ApnsService) -> dict[str, str]:
    """The fields of the backend secret that let the functions send to these services."""
    return {
        "fcm_service_account": json.dumps(fcm.service_account()),
        "apns_key": apns.key.private_key,
        "apns_key_id": apns.key.id,
        "apns_team_id": apns.key.team_id,
        "apns_topic": TOPIC,
    }


def direct_urls(fcm: FcmService, apns: ApnsService) -> dict[str, str]:
    """The environment variables that make the functions use these services in place of Google's and Apple's."""
    return {
        "FCM_URL": fcm.url,
        "APNS_URL": apns.url,
        "APNS_SANDBOX_URL": apns.sandbox_url,
        "SSL_CERT_FILE": apns.authority,
    }


def _starting(part: str) -> None:
    print(f"start: {part}", flush=True)


async def _execute(dsn: str, statement: LiteralString, *parameters: object) -> None:
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await connection.execute(statement, parameters)
