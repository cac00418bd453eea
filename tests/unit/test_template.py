"""Rules of AWS that no linter checks, tested on the output of SAM for template.yaml; and how template.py reads it."""

import inspect
import json
import re
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from local.aws.cloudformation import TemplateError, translate
from local.aws.template import LambdaIntegration, Schedule, SqsIntegration, Template, read_template
from local.packages import PROJECT
from operate.doctor.services import OTHER_EXECUTIONS
from tests.stack import ENDPOINT, PARAMETERS, TEMPLATE, Resources, assert_broken, changed
from tests.stack import properties as properties_by_name


@pytest.fixture(scope="module")
def template() -> Template:
    return read_template(TEMPLATE, PARAMETERS, ENDPOINT)


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return translate(TEMPLATE)


@pytest.fixture(scope="module")
def resources(document: dict[str, Any]) -> Resources:
    resources: Resources = document["Resources"]
    return resources


def properties(resources: Resources, kind: str) -> list[dict[str, Any]]:
    return list(properties_by_name(resources, kind).values())


# Rules of AWS. The comments in the template give the reasons


def test_the_visibility_timeout_is_at_least_six_times_the_timeout_of_the_function(template: Template) -> None:
    for mapping in template.event_source_mappings.values():
        function, queue = template.functions[mapping.function], template.queues[mapping.queue]
        assert queue.visibility_timeout >= 6 * function.timeout


def test_the_function_timeout_is_shorter_than_the_lease_of_a_job(template: Template) -> None:
    """Otherwise another invocation claims the job while the first one still sends."""
    settings = (PROJECT / "supabase" / "migrations" / "20261122100000_settings.sql").read_text()
    lease = re.search(r"lease_for interval not null default '(\d+) seconds'", settings)
    assert lease
    assert template.functions["SendChatPush"].timeout < timedelta(seconds=int(lease[1]))


def test_a_batch_size_above_ten_has_a_batching_window(resources: Resources) -> None:
    for mapping in properties(resources, "Lambda::EventSourceMapping"):
        assert mapping["BatchSize"] <= 10 or mapping["MaximumBatchingWindowInSeconds"] >= 1


def test_only_the_failed_records_of_a_batch_return_to_the_queue(template: Template) -> None:
    assert template.event_source_mappings
    assert all(mapping.reports_item_failures for mapping in template.event_source_mappings.values())


def test_the_queue_leaves_half_of_a_new_accounts_concurrency_to_other_invocations(document: dict[str, Any]) -> None:
    """A new account allows ten concurrent executions of all its functions together."""
    assert document["Parameters"]["MaximumConcurrency"]["Default"] + OTHER_EXECUTIONS <= 10


def test_the_event_source_mapping_limits_concurrency_and_no_function_reserves_any(resources: Resources) -> None:
    """Reserved concurrency would throttle the pollers, and each throttled poll counts as a receive."""
    for mapping in properties(resources, "Lambda::EventSourceMapping"):
        assert mapping["ScalingConfig"] == {"MaximumConcurrency": {"Ref": "MaximumConcurrency"}}
    for function in properties(resources, "Lambda::Function"):
        assert "ReservedConcurrentExecutions" not in function


def test_all_concurrent_batches_together_stay_below_the_rate_limit_of_expo(document: dict[str, Any]) -> None:
    allowed = document["Parameters"]["MaximumConcurrency"]
    [mapping] = properties(document["Resources"], "Lambda::EventSourceMapping")
    assert allowed["MaxValue"] * mapping["BatchSize"] < 600
    assert 2 <= allowed["MinValue"] <= allowed["Default"] <= allowed["MaxValue"]  # Lambda allows no less than 2


def test_a_message_becomes_a_dead_letter_after_five_attempts_and_is_kept_longer_than_in_its_queue(
    template: Template,
) -> None:
    redriven = [queue for queue in template.queues.values() if queue.redrive]
    assert {queue.name for queue in redriven} == {m.queue for m in template.event_source_mappings.values()}
    for queue in redriven:
        assert queue.redrive
        assert queue.redrive.max_receive_count >= 5
        assert template.queues[queue.redrive.queue].retention == timedelta(days=14)
        assert queue.retention < timedelta(days=14)


def test_the_dead_letters_of_schedules_are_kept_for_the_longest_time_that_sqs_allows(
    template: Template, resources: Resources
) -> None:
    for schedule in properties(resources, "Scheduler::Schedule"):
        assert schedule["Target"]["DeadLetterConfig"] == {"Arn": {"Fn::GetAtt": ["ScheduleDeadLetters", "Arn"]}}
    assert template.queues["ScheduleDeadLetters"].retention == timedelta(days=14)


def test_every_queue_is_encrypted(resources: Resources) -> None:
    assert all(queue["SqsManagedSseEnabled"] is True for queue in properties(resources, "SQS::Queue"))


def test_a_failed_run_of_a_schedule_is_not_retried(resources: Resources) -> None:
    """EventBridge Scheduler invokes asynchronously: it retries the delivery, and Lambda retries the invocation."""
    schedules = properties(resources, "Scheduler::Schedule")
    assert [schedule["Target"]["RetryPolicy"]["MaximumRetryAttempts"] for schedule in schedules] == [0, 0]
    scheduled = {
        resources[schedule["Target"]["Arn"]["Ref"]]["Properties"]["FunctionName"]["Ref"] for schedule in schedules
    }
    invocations = properties(resources, "Lambda::EventInvokeConfig")
    assert {config["FunctionName"]["Ref"] for config in invocations} == scheduled
    for config in invocations:
        assert config["MaximumRetryAttempts"] == 0
        assert resources[f"{config['FunctionName']['Ref']}Alias{config['Qualifier']}"]["Type"] == "AWS::Lambda::Alias"


def test_no_resource_has_a_fixed_name_so_that_two_stacks_fit_into_one_account(resources: Resources) -> None:
    names = ("Name", "FunctionName", "QueueName", "RoleName")
    for kind in ("Lambda::Function", "SQS::Queue", "IAM::Role", "Logs::LogGroup", "Scheduler::Schedule"):
        for resource in properties(resources, kind):
            assert not any(name in resource for name in names), "a fixed name"
    for secret in properties(resources, "SecretsManager::Secret"):
        assert "Name" not in secret
    for group in properties(resources, "Logs::LogGroup"):
        assert "${AWS::StackName}" in str(group.get("LogGroupName", "${AWS::StackName}"))


def test_the_access_log_group_needs_no_entry_in_the_log_delivery_policy_of_the_account(resources: Resources) -> None:
    """That policy has room for 5120 characters. One entry covers all log groups below /aws/vendedlogs/."""
    [stage] = properties(resources, "ApiGatewayV2::Stage")
    group = resources[stage["AccessLogSettings"]["DestinationArn"]["Fn::GetAtt"][0]]
    assert group["Properties"]["LogGroupName"]["Fn::Sub"].startswith("/aws/vendedlogs/")


def test_every_caller_of_a_function_invokes_the_alias(resources: Resources) -> None:
    """Otherwise they would invoke $LATEST, which has no SnapStart."""
    aliases = {name for name, resource in resources.items() if resource["Type"] == "AWS::Lambda::Alias"}
    callers = [mapping["FunctionName"] for mapping in properties(resources, "Lambda::EventSourceMapping")]
    callers += [schedule["Target"]["Arn"] for schedule in properties(resources, "Scheduler::Schedule")]
    callers += [permission["FunctionName"] for permission in properties(resources, "Lambda::Permission")]
    [api] = properties(resources, "ApiGatewayV2::Api")
    for scheme in api["Body"]["components"]["securitySchemes"].values():
        _, variables = scheme["x-amazon-apigateway-authorizer"]["authorizerUri"]["Fn::Sub"]
        callers += variables.values()
    assert len(callers) == 10
    assert all(caller["Ref"] in aliases for caller in callers)
    uris = re.findall(r"functions/\${(\w+)}/invocations", json.dumps(api["Body"]["paths"]))
    assert len(uris) == 5
    assert set(uris) <= aliases


def test_functions_run_on_arm64_and_start_from_snapshots(document: dict[str, Any]) -> None:
    for function in properties(document["Resources"], "Lambda::Function"):
        assert function["Runtime"] == "python3.13"
        assert function["Architectures"] == ["arm64"]
        assert function["SnapStart"] == {"ApplyOn": {"Fn::If": ["StartsFromSnapshots", "PublishedVersions", "None"]}}
    assert document["Conditions"]["StartsFromSnapshots"] == {"Fn::Equals": [{"Ref": "SnapStart"}, "on"]}


def test_each_function_has_a_log_group_with_a_retention_period(resources: Resources) -> None:
    groups = [function["LoggingConfig"]["LogGroup"]["Ref"] for function in properties(resources, "Lambda::Function")]
    assert len(set(groups)) == len(groups)
    assert all(resources[group]["Properties"]["RetentionInDays"] for group in groups)


def test_functions_behind_the_api_time_out_before_the_api_does(template: Template) -> None:
    for route in template.routes:
        if route.authorizer:
            assert template.functions[route.authorizer.function].timeout < timedelta(seconds=10)
        if isinstance(route.integration, LambdaIntegration):
            assert template.functions[route.integration.function].timeout < timedelta(seconds=30)


def test_only_the_webhook_route_has_the_webhook_authorizer(template: Template) -> None:
    """The routes for apps have no authorizer: register_device checks the access token itself."""
    assert {route.key: route.authorizer and route.authorizer.name for route in template.routes} == {
        "POST /api/push/chat-message": "WebhookAuthorizer",
        "POST /api/push/register": None,
        "DELETE /api/push/unregister": None,
        "GET /api/push/devices": None,
        "OPTIONS /api/push/{proxy+}": None,
        "ANY /api/push/{proxy+}": None,
    }


def test_every_route_is_throttled_and_there_is_a_default_limit_for_new_routes(
    template: Template, resources: Resources
) -> None:
    """The webhook's, too: each wrong secret that is not in the authorizer's cache costs an execution."""
    [stage] = properties(resources, "ApiGatewayV2::Stage")
    assert stage["RouteSettings"].keys() == {route.key for route in template.routes}
    for limits in [stage["DefaultRouteSettings"], *stage["RouteSettings"].values()]:
        assert 0 < limits["ThrottlingRateLimit"] <= limits["ThrottlingBurstLimit"] < 5000  # the account's


def test_the_rate_limit_of_the_webhook_is_above_the_rate_of_pg_net(resources: Resources) -> None:
    [stage] = properties(resources, "ApiGatewayV2::Stage")
    assert stage["RouteSettings"]["POST /api/push/chat-message"]["ThrottlingRateLimit"] > 200


def test_register_device_has_no_secret_but_the_publishable_key(template: Template) -> None:
    environment = template.functions["RegisterDevice"].environment
    assert environment.keys() - {name for name in environment if name.startswith("POWERTOOLS_")} == {
        "SUPABASE_URL",
        "APP_SECRET_ID",
        "DEPLOYED_WITH",
    }
    assert environment["APP_SECRET_ID"] == "AppSecret"


def test_each_role_allows_exactly_the_actions_that_its_owner_needs(resources: Resources) -> None:
    """tests/system/test_permissions.py compares these with the calls that the functions make."""
    granted: dict[str, set[tuple[str, str]]] = {}
    for name, role in properties_by_name(resources, "IAM::Role").items():
        assert "ManagedPolicyArns" not in role, "a managed policy is for all resources"
        granted[name] = {
            (action, statement["Resource"] if statement["Resource"] == "*" else _names(statement["Resource"]))
            for policy in role["Policies"]
            for statement in policy["PolicyDocument"]["Statement"]
            for action in [*statement["Action"]] * isinstance(statement["Action"], list) or [statement["Action"]]
            if statement["Effect"] == "Allow"
        }
    assert granted == {
        "ApiRole": {("sqs:SendMessage", "PushQueue.Arn")},
        "AuthorizeWebhookRole": {
            *_of_every_function("AuthorizeWebhook"),
            ("secretsmanager:GetSecretValue", "WebhookSecret"),
        },
        "RegisterDeviceRole": {
            *_of_every_function("RegisterDevice"),
            ("secretsmanager:GetSecretValue", "AppSecret"),
        },
        "CleanupReceiptsRole": {
            *_of_every_function("CleanupReceipts"),
            ("secretsmanager:GetSecretValue", "BackendSecret"),
        },
        "CleanupReceiptsRunRole": _of_schedule("CleanupReceipts"),
        "SendChatPushRole": {
            *_of_every_function("SendChatPush"),
            ("secretsmanager:GetSecretValue", "BackendSecret"),
            ("sqs:DeleteMessage", "PushQueue.Arn"),
            ("sqs:GetQueueAttributes", "PushQueue.Arn"),
            ("sqs:ReceiveMessage", "PushQueue.Arn"),
            ("sqs:SendMessage", "PushQueue.Arn"),
        },
        "SendChatPushSweepRole": _of_schedule("SendChatPush"),
    }


def _of_every_function(name: str) -> set[tuple[str, str]]:
    return {
        ("logs:CreateLogStream", f"{name}Logs.Arn"),
        ("logs:PutLogEvents", f"{name}Logs.Arn"),
        ("xray:PutTelemetryRecords", "*"),  # X-Ray has no resources.
        ("xray:PutTraceSegments", "*"),
    }


def _of_schedule(function: str) -> set[tuple[str, str]]:
    return {("lambda:InvokeFunction", f"{function}Aliaslive"), ("sqs:SendMessage", "ScheduleDeadLetters.Arn")}


def _names(reference: dict[str, Any]) -> str:
    """The resource of a Ref, or resource and attribute of a GetAtt."""
    return reference["Ref"] if "Ref" in reference else ".".join(reference["Fn::GetAtt"])


def test_only_its_owner_can_assume_a_role(resources: Resources) -> None:
    roles = properties_by_name(resources, "IAM::Role")
    functions = properties_by_name(resources, "Lambda::Function")
    assert {f"{name}Role": function["Role"]["Fn::GetAtt"] for name, function in functions.items()} == {
        f"{name}Role": [f"{name}Role", "Arn"] for name in functions
    }
    owners = dict.fromkeys(functions, "lambda") | {"Api": "apigateway"}
    owners |= dict.fromkeys(properties_by_name(resources, "Scheduler::Schedule"), "scheduler")
    for owner, service in owners.items():
        [trust] = roles.pop(f"{owner}Role")["AssumeRolePolicyDocument"]["Statement"]
        assert "".join(trust["Principal"]["Service"]) == f"{service}.amazonaws.com"
    assert not roles


def test_no_secret_value_is_in_the_template(resources: Resources) -> None:
    assert all("SecretString" not in secret for secret in properties(resources, "SecretsManager::Secret"))


def test_the_properties_that_generate_the_webhook_secret_never_change(resources: Resources) -> None:
    """If one changes, CloudFormation generates a new secret and overwrites one that was rotated by hand."""
    [generated] = [s for s in properties(resources, "SecretsManager::Secret") if "GenerateSecretString" in s]
    assert generated["GenerateSecretString"] == {
        "SecretStringTemplate": '{"previous": null}',
        "GenerateStringKey": "current",
        "PasswordLength": 48,
        "ExcludePunctuation": True,
    }


def test_the_api_puts_only_the_message_id_into_the_queue(template: Template) -> None:
    [route] = [route for route in template.routes if isinstance(route.integration, SqsIntegration)]
    assert route.key == "POST /api/push/chat-message"
    assert route.integration == SqsIntegration("PushQueue", "$request.body.record.id", 202)


def test_the_urls_in_the_outputs_use_the_domain_name_if_one_is_given(document: dict[str, Any]) -> None:
    of_aws = "https://${Api}.execute-api.${AWS::Region}.${AWS::URLSuffix}"
    for output, path in (("ApiUrl", ""), ("WebhookUrl", "/api/push/chat-message")):
        condition, own, given = document["Outputs"][output]["Value"]["Fn::If"]
        assert condition == "HasDomainName"
        assert (own, given) == ({"Fn::Sub": "https://${DomainName}" + path}, {"Fn::Sub": of_aws + path})
    assert "/api/push/chat-message" in document["Resources"]["Api"]["Properties"]["Body"]["paths"]


def test_a_custom_domain_is_mapped_to_the_stage_and_exists_only_if_a_domain_name_is_given(
    document: dict[str, Any],
) -> None:
    parts = {name: document["Resources"][name] for name in ("ApiDomain", "ApiDomainMapping")}
    assert {part["Condition"] for part in parts.values()} == {"HasDomainName"}
    assert document["Conditions"]["HasDomainName"] == {"Fn::Not": [{"Fn::Equals": [{"Ref": "DomainName"}, ""]}]}
    mapping = parts["ApiDomainMapping"]["Properties"]
    assert (mapping["ApiId"], mapping["DomainName"]) == ({"Ref": "Api"}, {"Ref": "ApiDomain"})
    assert document["Resources"][mapping["Stage"]["Ref"]]["Properties"]["ApiId"] == {"Ref": "Api"}
    assert document["Outputs"]["DomainTarget"]["Condition"] == "HasDomainName"


def test_the_outputs_of_the_stack_name_urls_secrets_alarm_topic_and_dashboard(document: dict[str, Any]) -> None:
    outputs = {"ApiUrl", "WebhookUrl", "BackendSecret", "WebhookSecret", "AlarmTopic", "Dashboard"}
    assert document["Outputs"].keys() >= outputs
    assert all(len(output["Description"]) > 30 for output in document["Outputs"].values())


def test_every_parameter_has_a_description_a_constraint_description_and_a_group(document: dict[str, Any]) -> None:
    parameters = document["Parameters"]
    groups = document["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    assert sorted(name for group in groups for name in group["Parameters"]) == sorted(parameters)
    for parameter in parameters.values():
        assert parameter["Description"]
        assert parameter["ConstraintDescription"].startswith("must be ")


def test_each_environment_has_its_own_stack_name_and_tags() -> None:
    """CloudFormation gives the tags of a stack to every resource that supports tags."""
    config = tomllib.loads((PROJECT / "samconfig.toml").read_text())
    for environment in ("dev", "prod"):
        deploy = config[environment]["deploy"]["parameters"]
        assert deploy["stack_name"] == f"chat-push-{environment}"
        assert deploy["tags"] == f"application=chat-push environment={environment}"
        assert deploy["capabilities"] == "CAPABILITY_IAM"
    assert config["prod"]["deploy"]["parameters"]["confirm_changeset"] is True


def test_the_makefile_has_one_target_for_each_function_and_layer(resources: Resources) -> None:
    built = {name for name, resource in resources.items() if resource["Type"] == "AWS::Lambda::Function"}
    built |= {layer["LayerName"] for layer in properties(resources, "Lambda::LayerVersion")}
    targets = re.findall(r"build-(\w+)(?=.*:$)", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    assert sorted(targets) == sorted(built)


# How it is read


def test_references_in_the_template_become_values_of_the_local_cloud(template: Template) -> None:
    sender = template.functions["SendChatPush"]
    assert sender.environment["SUPABASE_URL"] == PARAMETERS["SupabaseUrl"]
    assert sender.environment["EXPO_URL"] == "https://exp.host"
    assert sender.environment["BACKEND_SECRET_ID"] == "BackendSecret"
    assert sender.environment["POWERTOOLS_METRICS_NAMESPACE"] == "ChatPush/local"  # of Globals
    assert sender.layers == (PROJECT / "layers" / "dependencies", PROJECT / "layers" / "shared")
    assert template.queues["PushQueue"].url == f"{ENDPOINT}/123456789012/PushQueue"
    [mapping] = template.event_source_mappings.values()
    assert mapping.maximum_concurrency == 5
    assert template.schedules == {
        "SendChatPushSweep": Schedule(
            "SendChatPushSweep",
            "SendChatPush",
            timedelta(minutes=1),
            {"sweep": True, "again_after_seconds": [15, 30, 45]},
            timedelta(minutes=1),
        ),
        "CleanupReceiptsRun": Schedule(
            "CleanupReceiptsRun", "CleanupReceipts", timedelta(minutes=15), {}, timedelta(minutes=10)
        ),
    }


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "parameter SupabaseUrl is missing"),
        ({"SupabaseUrl": "https://x.supabase.co/"}, "SupabaseUrl must be an https URL"),
        ({"SupabaseUrl": "http://x.supabase.co"}, "SupabaseUrl must be an https URL"),
        ({"SupabaseUrl": "https://x..supabase.co"}, "SupabaseUrl must be an https URL"),
        (PARAMETERS | {"ExpoUrl": "exp.host"}, "ExpoUrl must be an https URL"),
        (PARAMETERS | {"ExpoUrl": f"https://{'x.' * 46}x"}, "ExpoUrl must be an https URL of at most 100 characters"),
        (PARAMETERS | {"DomainName": "https://push.example.com"}, "DomainName must be a host name"),
        (PARAMETERS | {"CertificateArn": "push.example.com"}, "CertificateArn must be the ARN of a certificate"),
        (PARAMETERS | {"DomainName": "push.example.com"}, "DomainName needs CertificateArn"),
        (PARAMETERS | {"MaximumConcurrency": "60"}, "MaximumConcurrency must be a number from 2 to 59"),
        (PARAMETERS | {"MaximumConcurrency": "ten"}, "MaximumConcurrency must be a number from 2 to 59"),
        (PARAMETERS | {"SnapStart": "true"}, "SnapStart must be on or off"),
        (PARAMETERS | {"AlarmEmail": "on call"}, "AlarmEmail must be one mail address, or empty"),
        (PARAMETERS | {"Supabase": "x"}, "no such parameter: Supabase"),
    ],
)
def test_a_wrong_parameter_raises_an_error_with_the_constraint(parameters: dict[str, str], message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        read_template(TEMPLATE, parameters, ENDPOINT)


@pytest.mark.parametrize(
    ("correct", "wrong", "message"),
    [
        ("Timeout: 20", "TimeOut: 20", "TimeOut"),
        ("Timeout: 20", "Timeout: twenty", "SendChatPush.Timeout: expected int"),
        ("Timeout: 20", "Timeout: 20\n      VpcConfig: {SubnetIds: [a]}", "SendChatPush.VpcConfig: not supported"),
        ("!Ref ExpoUrl", "!Ref ExpoUri", "SendChatPush.Environment: refers to ExpoUri"),
        ("!Ref ExpoUrl", "!ImportValue x", "SendChatPush.Environment: Fn::ImportValue is not supported"),
        ("python3.13\n    Arch", "nodejs24.x\n    Arch", "Runtime: the local cloud supports only 'python3.13'"),
        ("QueueUrl: !Ref PushQueue", "QueueUrl: !Ref Api", "requestParameters.QueueUrl: refers to Api"),
        ("QueueUrl: !Ref PushQueue", "QueueUrl: !Ref WebhookSecret", "WebhookSecret is no queue"),
        ("QueueUrl: !Ref", "DelaySeconds: 9\n                  QueueUrl: !Ref", "DelaySeconds: not supported"),
        ("$request.body.record.id", "$request.header.x-id", "only paths in the body"),
        ("SQS-SendMessage", "Kinesis-PutRecord", "supports only 'SQS-SendMessage'"),
        ("security: [{WebhookAuthorizer", "security: [{Nobody", "'Nobody'"),
        ("/api/push/chat-message:", "/api/{proxy}:", "supports only plain paths"),
        ("POST /api/push/register:", "POST /api/push/registre:", "POST /api/push/registre: is no route"),
        (
            "20, ThrottlingRateLimit: 10}\n      Auth",
            "20, Throttling: 10}\n      Auth",
            "{proxy+}.Throttling: not supported",
        ),
        ("10} # of a route", "10, Logs: 1} # of a route", "DefaultRouteSettings.Logs: not supported"),
        ("RuleCondition: !Not [", "RuleCondition: !Or [", "DomainNameNeedsCertificate: the local cloud supports no"),
        ("rate(1 minute)", "cron(0 * * * ? *)", r"SendChatPushSweep: the local cloud supports only rate"),
        ("EventInvokeConfig: {MaximumRetryAttempts: 0,", "EventInvokeConfig: {", "supports no retries"),
        ("WindowInSeconds: 0", "WindowInSeconds: 5", "MaximumBatchingWindowInSeconds: the local cloud supports only"),
        ("Queue: !GetAtt PushQueue.Arn", "Queue: !GetAtt Pushqueue.Arn", "Pushqueue.Arn"),
        ("Type: AWS::Logs::LogGroup", "Type: AWS::DynamoDB::Table", "the local cloud has no AWS::DynamoDB::Table"),
        ("Type: AWS::SNS::Subscription", "Type: AWS::SQS::Queue", "AWS::SQS::Queue on a condition is not supported"),
        ("{Arn: !GetAtt ScheduleDeadLetters.Arn}", "{Arn: !GetAtt Api.Arn}", "DeadLetterConfig.Arn: refers to Api.Arn"),
        ("    Type: Number", "    Type: CommaDelimitedList", "supports no parameter such as"),
        ("maxReceiveCount: 5", "maxReceives: 5", "maxReceiveCount: expected int"),
    ],
    ids=lambda text: text[:30],
)
def test_what_the_local_cloud_does_not_support_raises_an_error_that_names_the_place(
    tmp_path: Path, correct: str, wrong: str, message: str
) -> None:
    path = changed(tmp_path, correct, wrong)
    with pytest.raises(TemplateError, match=re.escape(message)):
        read_template(path, PARAMETERS, ENDPOINT)


def test_a_route_to_a_function_becomes_a_lambda_integration(tmp_path: Path) -> None:
    text = TEMPLATE.read_text()
    event = {"Type": "HttpApi", "Properties": {"ApiId": {"Ref": "Api"}, "Method": "get", "Path": "/sent"}}
    text = text.replace("      Events:\n", f"      Events:\n        Sent: {json.dumps(event)}\n", 1)
    (tmp_path / "template.yaml").write_text(text)
    template = read_template(tmp_path / "template.yaml", PARAMETERS, ENDPOINT)
    routes = {(route.method, route.path): route for route in template.routes}
    assert routes["GET", "/sent"].integration == LambdaIntegration("SendChatPush")
    assert routes["GET", "/sent"].authorizer is None


# Each rule, broken once


@pytest.mark.parametrize(
    ("correct", "wrong", "rule"),
    [
        (
            "VisibilityTimeout: 120",
            "VisibilityTimeout: 60",
            test_the_visibility_timeout_is_at_least_six_times_the_timeout_of_the_function,
        ),
        ("Timeout: 20", "Timeout: 30", test_the_function_timeout_is_shorter_than_the_lease_of_a_job),
        ("BatchSize: 10", "BatchSize: 100", test_a_batch_size_above_ten_has_a_batching_window),
        ("BatchSize: 10", "BatchSize: 20", test_all_concurrent_batches_together_stay_below_the_rate_limit_of_expo),
        ("[ReportBatchItemFailures]", "[]", test_only_the_failed_records_of_a_batch_return_to_the_queue),
        (
            "ScalingConfig: {MaximumConcurrency: !Ref MaximumConcurrency}",
            "Enabled: true",
            test_the_event_source_mapping_limits_concurrency_and_no_function_reserves_any,
        ),
        (
            "      Timeout: 20",
            "      ReservedConcurrentExecutions: 5\n      Timeout: 20",
            test_the_event_source_mapping_limits_concurrency_and_no_function_reserves_any,
        ),
        (
            "maxReceiveCount: 5",
            "maxReceiveCount: 3",
            test_a_message_becomes_a_dead_letter_after_five_attempts_and_is_kept_longer_than_in_its_queue,
        ),
        (
            "MessageRetentionPeriod: 1209600",
            "MessageRetentionPeriod: 345600",
            test_a_message_becomes_a_dead_letter_after_five_attempts_and_is_kept_longer_than_in_its_queue,
        ),
        (
            "            DeadLetterConfig: {Arn: !GetAtt ScheduleDeadLetters.Arn}\n",
            "",
            test_the_dead_letters_of_schedules_are_kept_for_the_longest_time_that_sqs_allows,
        ),
        ("SqsManagedSseEnabled: true", "SqsManagedSseEnabled: false", test_every_queue_is_encrypted),
        (
            "RetryPolicy: {MaximumRetryAttempts: 0}",
            "RetryPolicy: {MaximumRetryAttempts: 5}",
            test_a_failed_run_of_a_schedule_is_not_retried,
        ),
        (
            "      EventInvokeConfig: {MaximumRetryAttempts: 0, MaximumEventAgeInSeconds: 600}\n",
            "",
            test_a_failed_run_of_a_schedule_is_not_retried,
        ),
        ("            OmitName: true\n", "", test_no_resource_has_a_fixed_name_so_that_two_stacks_fit_into_one_account),
        (
            "FunctionArn: !Ref AuthorizeWebhook.Alias",
            "FunctionArn: !GetAtt AuthorizeWebhook.Arn",
            test_every_caller_of_a_function_invokes_the_alias,
        ),
        (
            "[arm64]\n    Handler",
            "[x86_64]\n    Handler",
            test_functions_run_on_arm64_and_start_from_snapshots,
        ),
        ("RetentionInDays: 30", "LogGroupClass: STANDARD", test_each_function_has_a_log_group_with_a_retention_period),
        ("Timeout: 9 ", "Timeout: 12 ", test_functions_behind_the_api_time_out_before_the_api_does),
        ("security: [{WebhookAuthorizer: []}]", "security: []", test_only_the_webhook_route_has_the_webhook_authorizer),
        (
            "https://${DomainName}/api/push/chat-message",
            "https://${DomainName}/api/push/message",
            test_the_urls_in_the_outputs_use_the_domain_name_if_one_is_given,
        ),
        (
            "    Condition: HasDomainName\n    Properties: {ApiId",
            "    Properties: {ApiId",
            test_a_custom_domain_is_mapped_to_the_stage_and_exists_only_if_a_domain_name_is_given,
        ),
        (
            "    Default: 5 ",
            "    Default: 10 ",
            test_the_queue_leaves_half_of_a_new_accounts_concurrency_to_other_invocations,
        ),
        (
            "        GET /api/push/devices: {ThrottlingBurstLimit: 200, ThrottlingRateLimit: 100}\n",
            "",
            test_every_route_is_throttled_and_there_is_a_default_limit_for_new_routes,
        ),
        (
            "500, ThrottlingRateLimit: 300",
            "200, ThrottlingRateLimit: 100",
            test_the_rate_limit_of_the_webhook_is_above_the_rate_of_pg_net,
        ),
        (
            "/aws/vendedlogs/apis/",
            "/apis/",
            test_the_access_log_group_needs_no_entry_in_the_log_delivery_policy_of_the_account,
        ),
        (
            "apis/${AWS::StackName}",
            "apis/chat-push",
            test_no_resource_has_a_fixed_name_so_that_two_stacks_fit_into_one_account,
        ),
        ("PasswordLength: 48", "PasswordLength: 64", test_the_properties_that_generate_the_webhook_secret_never_change),
        (
            "Action: secretsmanager:GetSecretValue",
            'Action: "secretsmanager:*"',
            test_each_role_allows_exactly_the_actions_that_its_owner_needs,
        ),
        (
            "Resource: !GetAtt SendChatPushLogs.Arn",
            'Resource: "*"',
            test_each_role_allows_exactly_the_actions_that_its_owner_needs,
        ),
        (
            "      AssumeRolePolicyDocument:",
            "      ManagedPolicyArns: [arn:aws:iam::aws:policy/ReadOnlyAccess]\n      AssumeRolePolicyDocument:",
            test_each_role_allows_exactly_the_actions_that_its_owner_needs,
        ),
        (
            "Role: !GetAtt CleanupReceiptsRole.Arn",
            "Role: !GetAtt SendChatPushRole.Arn",
            test_only_its_owner_can_assume_a_role,
        ),
        (
            "      GenerateSecretString:",
            "      SecretString: x\n      GenerateSecretString:",
            test_no_secret_value_is_in_the_template,
        ),
        ("$request.body.record.id", "$request.body.record", test_the_api_puts_only_the_message_id_into_the_queue),
        (
            "  Dashboard:\n    Description",
            "  Board:\n    Description",
            test_the_outputs_of_the_stack_name_urls_secrets_alarm_topic_and_dashboard,
        ),
        (
            "Parameters: [SnapStart]",
            "Parameters: []",
            test_every_parameter_has_a_description_a_constraint_description_and_a_group,
        ),
    ],
    ids=lambda value: getattr(value, "__name__", str(value).strip())[:40],
)
def test_a_template_that_breaks_a_rule_fails_the_test_of_that_rule(
    tmp_path: Path, correct: str, wrong: str, rule: Any
) -> None:
    path = changed(tmp_path, correct, wrong)
    document = translate(path)
    parts: dict[str, Any] = {"document": document, "resources": document["Resources"]}
    if "template" in inspect.signature(rule).parameters:
        parts["template"] = read_template(path, PARAMETERS, ENDPOINT)
    assert_broken(rule, **parts)
