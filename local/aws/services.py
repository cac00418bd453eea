"""SQS and Secrets Manager of the local cloud: a moto server that boto3 calls over HTTP."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from boto3.session import Session
from botocore.config import Config

from local.aws.account import REGION
from local.aws.template import Queue, Secret, Template
from local.processes import answers, child, free_port

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.literals import QueueAttributeNameType


class Aws:
    """Clients of the local AWS services, and what else a program needs to use them."""

    def __init__(self, endpoint_url: str) -> None:
        session = Session("local", "local", region_name=REGION)
        self.endpoint_url = endpoint_url
        self.environment: Mapping[str, str] = {
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL": endpoint_url,
            "AWS_REGION": REGION,
            "AWS_SECRET_ACCESS_KEY": "local",
        }
        # No retries: the server is on this machine, and a retry would only delay the error.
        once = Config(retries={"total_max_attempts": 1})
        self.sqs: SQSClient = session.client("sqs", endpoint_url=endpoint_url, config=once)
        self.secrets_manager: SecretsManagerClient = session.client(
            "secretsmanager", endpoint_url=endpoint_url, config=once
        )

    async def create(self, template: Template) -> None:
        """Creates the queues and secrets of the template, as CloudFormation would."""
        for queue in sorted(template.queues.values(), key=lambda queue: queue.redrive is not None):
            dead_letters = template.queues[queue.redrive.queue] if queue.redrive else None
            await asyncio.to_thread(self._create_queue, queue, dead_letters)
        for secret in template.secrets.values():
            await asyncio.to_thread(self._create_secret, secret)

    async def secret(self, name: str) -> dict[str, str | None]:
        """The value of a secret."""
        answer = await asyncio.to_thread(self.secrets_manager.get_secret_value, SecretId=name)
        value: dict[str, str | None] = json.loads(answer["SecretString"])
        return value

    async def put_secret(self, name: str, value: Mapping[str, str | None]) -> None:
        """Gives a secret a new value."""
        await asyncio.to_thread(self.secrets_manager.put_secret_value, SecretId=name, SecretString=json.dumps(value))

    def _create_queue(self, queue: Queue, dead_letters: Queue | None) -> None:
        attributes: dict[QueueAttributeNameType, str] = {
            "MessageRetentionPeriod": str(int(queue.retention.total_seconds())),
            "VisibilityTimeout": str(int(queue.visibility_timeout.total_seconds())),
        }
        if queue.redrive and dead_letters:
            policy = {"deadLetterTargetArn": dead_letters.arn, "maxReceiveCount": queue.redrive.max_receive_count}
            attributes["RedrivePolicy"] = json.dumps(policy)
        url = self.sqs.create_queue(QueueName=queue.name, Attributes=attributes)["QueueUrl"]
        assert url == queue.url, f"the queue has the URL {url}, but the template's references have {queue.url}"

    def _create_secret(self, secret: Secret) -> None:
        self.secrets_manager.create_secret(Name=secret.name)
        if generated := secret.generated:
            password = self.secrets_manager.get_random_password(
                PasswordLength=generated.length, ExcludePunctuation=generated.exclude_punctuation
            )
            value = {**generated.template, generated.key: password["RandomPassword"]}
            self.secrets_manager.put_secret_value(SecretId=secret.name, SecretString=json.dumps(value))


@asynccontextmanager
async def aws(folder: Path) -> AsyncIterator[Aws]:
    """Runs the AWS services while the context is open; the server logs to `folder/aws.log`."""
    port = free_port()
    argv = (sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port))
    # It has no state to save, and takes 4 s to end on SIGTERM.
    async with child("aws", *argv, folder=folder, stop_signal=signal.SIGKILL) as server:
        endpoint_url = f"http://127.0.0.1:{port}"
        clients = await asyncio.to_thread(Aws, endpoint_url)  # half a second, in which the server starts
        await answers(server, f"{endpoint_url}/moto-api/")
        yield clients
