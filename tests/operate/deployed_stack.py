"""A stack that moto's CloudFormation has deployed. Its API, database and push service are those of the local cloud."""

import asyncio
import io
import json
import zipfile
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import boto3
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from moto.core.botocore_stubber import MockRawResponse

from local.aws.account import ACCOUNT, REGION
from operate.doctor.command import CHECKS, examine, report
from operate.doctor.results import Finding, Result
from operate.doctor.system import deployed
from tests.operate.conftest import BreakableCloud

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient


ARN = "arn:aws"


class Made:
    """A resource type that moto's CloudFormation cannot create. The test creates it, with the name in the template.

    Without this class, moto leaves the resource out of the stack.
    """

    def __init__(self, name: str) -> None:
        self.physical_resource_id = name

    def is_created(self) -> bool:
        return True

    @classmethod
    def create_from_cloudformation_json(cls, name: str, resource: Any, *account: str, **stack: str) -> "Made":
        return cls(resource["Properties"]["Name"])


class Stack:
    """The stack, its clients, and ways to break it."""

    def __init__(self, breakable: BreakableCloud) -> None:
        self.name = f"chat-push-{uuid4().hex[:8]}"
        self.sqs = boto3.client("sqs")
        self.cloudwatch: CloudWatchClient = boto3.client("cloudwatch")
        self.scheduler = boto3.client("scheduler")
        self.sns = boto3.client("sns")
        self.topic: str = self.sns.create_topic(Name=self.name)["TopicArn"]
        self.schedule = f"{self.name}-Sweep"
        self.scheduler.create_schedule(
            Name=self.schedule,
            ScheduleExpression="rate(1 minute)",
            FlexibleTimeWindow={"Mode": "OFF"},
            Target={"Arn": f"{ARN}:lambda:{REGION}:{ACCOUNT}:function:f", "RoleArn": f"{ARN}:iam::{ACCOUNT}:role/r"},
        )
        self.lambda_ = boto3.client("lambda")
        self.function = f"{self.name}-SendChatPush"
        self._publish_function()
        self.alarm = f"{self.name}-DeadLetters"
        self.raise_alarm("OK")
        cloud = breakable.cloud
        for name, value in {
            "WebhookSecret": {"current": cloud.webhook_secret},
            "BackendSecret": {"supabase_secret_key": cloud.supabase.secret_key},
        }.items():
            secret = json.dumps(value)
            boto3.client("secretsmanager").create_secret(Name=f"{self.name}-{name}", SecretString=secret)
        boto3.client("cloudformation").create_stack(
            StackName=self.name,
            TemplateBody=json.dumps(self._template(f"{cloud.api_url}/api/push/chat-message")),
            Parameters=[
                {"ParameterKey": "SupabaseUrl", "ParameterValue": cloud.supabase.url},
                {"ParameterKey": "ExpoUrl", "ParameterValue": cloud.expo.url},
                {"ParameterKey": "MaximumConcurrency", "ParameterValue": "5"},
            ],
        )

    def _publish_function(self) -> None:
        """Creates a function and points the alias live at its version 1."""
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("app.py", "")
        trust = {"Version": "2012-10-17", "Statement": []}
        role = boto3.client("iam").create_role(RoleName=self.function, AssumeRolePolicyDocument=json.dumps(trust))
        self.lambda_.create_function(
            FunctionName=self.function,
            Runtime="python3.13",
            Role=role["Role"]["Arn"],
            Handler="app.lambda_handler",
            Code={"ZipFile": archive.getvalue()},
            Environment={"Variables": {"EXPO_URL": "https://exp.host"}},
            Publish=True,
        )
        self.lambda_.create_alias(FunctionName=self.function, Name="live", FunctionVersion="1")

    def _template(self, webhook_url: str) -> Any:
        queue = {"Type": "AWS::SQS::Queue"}
        secrets = {
            name: {"Type": "AWS::SecretsManager::Secret", "Properties": {"Name": f"{self.name}-{name}"}}
            for name in ("WebhookSecret", "BackendSecret")
        }
        return {
            "Parameters": {name: {"Type": "String"} for name in ("SupabaseUrl", "ExpoUrl", "MaximumConcurrency")},
            "Resources": {
                "PushQueue": queue,
                "PushDeadLetters": queue,
                "ScheduleDeadLetters": queue,
                "SendChatPush": {"Type": "AWS::Lambda::Function", "Properties": {"Name": self.function}},
                "SendChatPushSweep": {"Type": "AWS::Scheduler::Schedule", "Properties": {"Name": self.schedule}},
                "DeadLettersAlarm": {"Type": "AWS::CloudWatch::Alarm", "Properties": {"Name": self.alarm}},
                **secrets,
            },
            "Outputs": {
                "WebhookUrl": {"Value": webhook_url},
                "AlarmTopic": {"Value": self.topic},
                **{name: {"Value": {"Ref": name}} for name in secrets},
            },
        }

    def raise_alarm(self, state: Any, *, notify: bool = True) -> None:
        """Creates the alarm as it is deployed, and sets its state."""
        self.cloudwatch.put_metric_alarm(
            AlarmName=self.alarm,
            Namespace="AWS/SQS",
            MetricName="ApproximateNumberOfMessagesVisible",
            ComparisonOperator="GreaterThanThreshold",
            EvaluationPeriods=1,
            Period=60,
            Statistic="Maximum",
            Threshold=0,
            AlarmActions=[self.topic] if notify else [],
        )
        self.cloudwatch.set_alarm_state(AlarmName=self.alarm, StateValue=state, StateReason="Threshold crossed")

    def subscribe(self) -> None:
        """Adds a confirmed subscription to the alarm topic."""
        self.sns.subscribe(TopicArn=self.topic, Protocol="email", Endpoint="on-call@example.com")

    def url(self, queue: str) -> str:
        """The URL of a queue of the stack."""
        found = boto3.client("cloudformation").describe_stack_resource(StackName=self.name, LogicalResourceId=queue)
        return found["StackResourceDetail"]["PhysicalResourceId"]

    async def examination(self) -> list[Result]:
        """The results of all checks."""

        def run() -> list[Result]:
            system = deployed(self.name)
            with system.transport:
                return list(examine(system, CHECKS))

        return await asyncio.to_thread(run)

    async def finding(self, what: str) -> Finding:
        """The only finding, which contains this text."""
        results = await self.examination()
        assert report(results) == 1
        findings = [result for result in results if isinstance(result, Finding)]
        assert [what in finding.what for finding in findings] == [True], findings
        return findings[0]

    async def is_healthy(self) -> None:
        """Asserts that there is no finding and that all checks were made."""
        results = await self.examination()
        assert report(results) == 0, results


class Account:
    """Answers GetAccountSettings of Lambda, which moto does not implement."""

    concurrency = 1000

    def __call__(self, request: AWSPreparedRequest, **event: Any) -> AWSResponse:
        limit = {"AccountLimit": {"UnreservedConcurrentExecutions": self.concurrency}}
        return AWSResponse(request.url, 200, {}, MockRawResponse(json.dumps(limit)))  # type: ignore[arg-type]
