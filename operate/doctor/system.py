"""What is examined: the addresses, secrets and AWS services of a deployed stack or of the local cloud."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import httpx
from chat_push.backend import BackendSecret
from chat_push.expo import Expo
from pydantic import BaseModel, SecretStr, ValidationError

from operate.doctor.diagnosis import Diagnosis, read_diagnosis
from operate.doctor.results import Finding, Unhealthy
from operate.stack import NotReachable, aws_of, local_aws, local_environment, stack_outputs

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient


# Longer than API Gateway and Expo take to give up.
ANSWER_SECONDS = 20.0


class WebhookSecret(BaseModel):
    """What the authorizer lets in."""

    current: SecretStr
    previous: SecretStr | None = None


@dataclass(frozen=True)
class Resource:
    """A resource of a stack: its type, and the name or URL by which AWS knows it."""

    type: str
    id: str


@dataclass(frozen=True)
class Stack:
    """What only a deployed system has. `resources` by logical id."""

    name: str
    parameters: Mapping[str, str]
    resources: Mapping[str, Resource]
    alarm_topic: str

    def of_type(self, type: str) -> dict[str, str]:
        """The resources of a type: AWS's name of each, by logical id."""
        return {name: resource.id for name, resource in self.resources.items() if resource.type == type}


@dataclass(frozen=True)
class System:
    """A deployed stack, or the local cloud (`stack` is None)."""

    option: str  # that names it to ./dev
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
    transport: httpx.HTTPTransport  # of everything else; whoever examines closes it

    @cached_property
    def http(self) -> httpx.Client:
        """Asks Supabase and the webhook."""
        return httpx.Client(transport=self.transport, timeout=ANSWER_SECONDS)

    @cached_property
    def expo(self) -> Expo:
        """The functions' own client, as they make it. Raises Unhealthy."""
        return Expo(self.expo_url, self.backend_secret.token, self.transport)

    @cached_property
    def webhook_secret(self) -> WebhookSecret:
        """The secret of the webhook. Raises Unhealthy."""
        return self._read_secret("WebhookSecret", self.webhook_secret_id, WebhookSecret, "the webhook lets nobody in")

    @cached_property
    def backend_secret(self) -> BackendSecret:
        """The keys of the workers. Raises Unhealthy."""
        return self._read_secret("BackendSecret", self.backend_secret_id, BackendSecret, "no push is sent")

    @cached_property
    def diagnosis(self) -> Diagnosis:
        """What the database says of itself. Raises Unhealthy."""
        key = self.backend_secret.supabase_secret_key
        return read_diagnosis(self.http, self.supabase_url, key, f"./dev secrets put {self.option}")

    def log_of(self, function: str) -> str:
        """How to read what a function logs."""
        if self.stack:
            return f"what it logs: sam logs --stack-name {self.stack.name} --name {function} --start-time '30min ago'"
        return f"what it logs: {function}.log in the folder that ./dev up prints"

    def _read_secret[Secret: BaseModel](self, name: str, id: str, model: type[Secret], consequence: str) -> Secret:
        def unhealthy(fault: str) -> Unhealthy:
            finding = Finding(
                f"the secret {name} {fault}",
                f"{consequence}: its function reads it too. Jobs wait in the database and go out once it is mended.",
                f"./dev secrets put {self.option}",
            )
            return Unhealthy(finding)

        client: SecretsManagerClient = self.aws.client("secretsmanager", endpoint_url=self.endpoint_url)
        try:
            value = client.get_secret_value(SecretId=id)["SecretString"]
        except client.exceptions.ResourceNotFoundException:
            raise unhealthy("is empty or gone") from None
        try:
            return model.model_validate_json(value)
        except ValidationError as error:
            faults = "; ".join(f"{'.'.join(map(str, fault['loc']))} {fault['msg']}".strip() for fault in error.errors())
            raise unhealthy(f"is incomplete: {faults}") from None


def deployed(stack: str) -> System:
    """A deployed stack, as whoever the AWS configuration says. Raises NotReachable."""
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
            f"--stack {stack}: has no {error}. Is it a stack of this template, as it is now? If it is: sam deploy"
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
        )
    except KeyError as error:
        raise NotReachable(
            f"--env {env_file}: has no line {error}. Start the cloud anew: ./dev up --env FILE"
        ) from None
