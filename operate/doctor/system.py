"""The system that the doctor examines: URLs, secrets and AWS services of a deployed stack or of the local cloud."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import httpx
from chat_push.backend import DirectUrls, direct_senders
from chat_push.delivery import Sender
from chat_push.expo import Expo
from chat_push.models import Provider
from chat_push.secrets import BackendSecret, WebhookSecret
from chat_push.validation import describe
from pydantic import BaseModel, ValidationError

from operate.doctor.diagnosis import Diagnosis, read_diagnosis
from operate.doctor.results import LATE, NOTHING_SENT, Finding, Unhealthy
from operate.stack import NotReachable, aws_of, local_aws, local_environment, stack_outputs

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient


# Longer than the timeouts of API Gateway and Expo.
ANSWER_SECONDS = 20.0


@dataclass(frozen=True)
class Resource:
    """A resource of a stack: its type and its physical id, such as a name or a URL."""

    type: str
    id: str


@dataclass(frozen=True)
class Stack:
    """What only a deployed system has. `resources` are by logical id."""

    name: str
    parameters: Mapping[str, str]
    resources: Mapping[str, Resource]
    alarm_topic: str

    def of_type(self, type: str) -> dict[str, str]:
        """The physical ids of all resources of a type, by logical id."""
        return {name: resource.id for name, resource in self.resources.items() if resource.type == type}


@dataclass(frozen=True)
class System:
    """A deployed stack, or the local cloud (`stack` is None)."""

    option: str  # of ./dev, that selects this system
    supabase_url: str
    expo_url: str
    webhook_url: str
    webhook_secret_id: str
    backend_secret_id: str
    queue_url: str
    dead_letters_url: str
    stack: Stack | None
    aws: boto3.Session
    endpoint_url: str | None  # of AWS's services; None: AWS itself
    transport: httpx.HTTPTransport  # of all other requests; the caller closes it
    direct_urls: DirectUrls = field(default_factory=DirectUrls)

    @cached_property
    def http(self) -> httpx.Client:
        """A client for Supabase and for the webhook."""
        return httpx.Client(transport=self.transport, timeout=ANSWER_SECONDS)

    @cached_property
    def expo(self) -> Expo:
        """The functions' own client of Expo. Raises Unhealthy."""
        return Expo(self.expo_url, self.backend_secret.token, self.transport)

    @cached_property
    def direct(self) -> Mapping[Provider, Sender]:
        """The functions' own clients of FCM and APNs, each if BackendSecret holds its credentials. Raises Unhealthy."""
        return direct_senders(self.backend_secret, self.direct_urls)

    @cached_property
    def webhook_secret(self) -> WebhookSecret:
        """The secrets of the webhook. Raises Unhealthy."""
        return self._read_secret(
            "WebhookSecret", self.webhook_secret_id, WebhookSecret, f"The webhook rejects every call. {LATE}"
        )

    @cached_property
    def backend_secret(self) -> BackendSecret:
        """The keys of the workers. Raises Unhealthy."""
        return self._read_secret("BackendSecret", self.backend_secret_id, BackendSecret, NOTHING_SENT)

    @cached_property
    def diagnosis(self) -> Diagnosis:
        """What the database reports about itself. Raises Unhealthy."""
        key = self.backend_secret.supabase_secret_key
        return read_diagnosis(self.http, self.supabase_url, key, f"./dev secrets put {self.option}")

    def log_of(self, function: str) -> str:
        """The remedy that shows how to read the log of a function."""
        if self.stack:
            return f"sam logs --stack-name {self.stack.name} --name {function} --start-time '30min ago'"
        return f"read {function}.log in the folder that ./dev up prints"

    def _read_secret[Secret: BaseModel](self, name: str, id: str, model: type[Secret], consequence: str) -> Secret:
        def unhealthy(fault: str) -> Unhealthy:
            finding = Finding(
                f"the secret {name} {fault}",
                consequence,
                f"./dev secrets put {self.option}",
            )
            return Unhealthy(finding)

        client: SecretsManagerClient = self.aws.client("secretsmanager", endpoint_url=self.endpoint_url)
        try:
            value = client.get_secret_value(SecretId=id)["SecretString"]
        except client.exceptions.ResourceNotFoundException:
            raise unhealthy("is empty or does not exist") from None
        try:
            return model.model_validate_json(value)
        except ValidationError as error:
            raise unhealthy(f"is incomplete: {describe(error)}") from None


def deployed(stack: str) -> System:
    """A deployed stack, in the account of the AWS configuration. Raises NotReachable."""
    outputs = stack_outputs(stack)
    aws = aws_of(stack)
    cloudformation = aws.client("cloudformation")
    (described,) = cloudformation.describe_stacks(StackName=stack)["Stacks"]
    parameters = {p["ParameterKey"]: p["ParameterValue"] for p in described.get("Parameters", [])}
    resources = {
        summary["LogicalResourceId"]: Resource(summary["ResourceType"], summary.get("PhysicalResourceId", ""))
        for page in cloudformation.get_paginator("list_stack_resources").paginate(StackName=stack)
        for summary in page["StackResourceSummaries"]
    }
    try:
        return System(
            option=f"--stack {stack}",
            supabase_url=parameters["SupabaseUrl"],
            expo_url=parameters["ExpoUrl"],
            webhook_url=outputs["WebhookUrl"],
            webhook_secret_id=outputs["WebhookSecret"],
            backend_secret_id=outputs["BackendSecret"],
            queue_url=resources["PushQueue"].id,
            dead_letters_url=resources["PushDeadLetters"].id,
            stack=Stack(stack, parameters, resources, outputs["AlarmTopic"]),
            aws=aws,
            endpoint_url=None,
            transport=httpx.HTTPTransport(retries=1),
        )
    except KeyError as error:
        raise NotReachable(
            f"--stack {stack}: the stack has no {error}. Name a stack of this template; if it is one: sam deploy"
        ) from None


def local_cloud(env_file: Path) -> System:
    """The local cloud of `./dev up --env FILE`. Raises NotReachable."""
    environment = local_environment(env_file)
    try:
        session, endpoint_url = local_aws(environment)
        return System(
            option=f"--env {env_file}",
            supabase_url=environment["SUPABASE_URL"],
            expo_url=environment["EXPO_URL"],
            webhook_url=f"{environment['API_URL']}/api/push/chat-message",
            webhook_secret_id="WebhookSecret",  # its name  # nosec B106
            backend_secret_id="BackendSecret",
            queue_url=environment["SQS_URL"],
            dead_letters_url=environment["DEAD_LETTERS_URL"],
            stack=None,
            aws=session,
            endpoint_url=endpoint_url,
            transport=httpx.HTTPTransport(retries=1),
            direct_urls=DirectUrls.model_validate({name.lower(): url for name, url in environment.items()}),
        )
    except KeyError as error:
        raise NotReachable(
            f"--env {env_file}: the file has no line {error}. Start the cloud again: ./dev up --env {env_file}"
        ) from None
