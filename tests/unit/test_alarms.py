"""Alarms, dashboard and access log: they use metrics that exist, notify the operator, and reveal no secret."""

import json
import operator
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chat_push.observability import DIMENSIONS, UNITS

from local.aws.cloudformation import translate
from tests.stack import TEMPLATE, Resources, assert_broken, changed, properties
from tests.vocabulary import COUNTED, DIVIDED_METRICS, METRICS

NAMESPACE = {"Fn::Sub": "ChatPush/${AWS::StackName}"}

# Rows that were deleted for their age: they do not show whether pushes are healthy.
NOT_SHOWN = {
    *("PrunedDecisionsDeleted", "PrunedDevicesDeleted", "PrunedDevicesDeactivated"),
    *("PrunedJobsDeleted", "PrunedPresenceOffline"),
}

# Of AWS: name of the metric, and the dimension whose value is a resource of this template.
OF_AWS = {
    "AWS/ApiGateway": ({"Count", "Latency", "4xx", "5xx"}, "ApiId"),
    "AWS/Lambda": ({"Errors", "Throttles", "Duration"}, "FunctionName"),
    "AWS/SQS": (
        {
            "ApproximateAgeOfOldestMessage",
            "ApproximateNumberOfMessagesNotVisible",
            "ApproximateNumberOfMessagesVisible",
        },
        "QueueName",
    ),
}


# https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-logging-variables.html, without those that
# identify a person.
HTTP_API_VARIABLES = {
    "authorizer.error",
    "awsEndpointRequestId",
    "dataProcessed",
    "error.message",
    "error.responseType",
    "integration.error",
    "integration.integrationStatus",
    "integration.latency",
    "integration.requestId",
    "integration.status",
    "integrationErrorMessage",
    "integrationLatency",
    "integrationStatus",
    "requestId",
    "requestTime",
    "requestTimeEpoch",
    "responseLatency",
    "responseLength",
    "routeKey",
    "status",
}


@pytest.fixture(scope="module")
def resources() -> Resources:
    resources: Resources = translate(TEMPLATE)["Resources"]
    return resources


def alarms(resources: Resources) -> dict[str, dict[str, Any]]:
    return properties(resources, "CloudWatch::Alarm")


def metrics_of(alarm: dict[str, Any]) -> Iterator[tuple[Any, str, dict[str, Any]]]:
    """Namespace, name and dimensions of each metric of an alarm."""
    metrics = [query["MetricStat"]["Metric"] for query in alarm.get("Metrics", []) if "MetricStat" in query]
    for metric in metrics or [alarm]:
        dimensions = {dimension["Name"]: dimension["Value"] for dimension in metric["Dimensions"]}
        yield metric["Namespace"], metric["MetricName"], dimensions


def dashboard(resources: Resources) -> list[dict[str, Any]]:
    """The widgets; values that CloudFormation fills in are ${name}."""
    [board] = properties(resources, "CloudWatch::Dashboard").values()
    widgets: list[dict[str, Any]] = json.loads(board["DashboardBody"]["Fn::Sub"])["widgets"]
    return widgets


def rows(widget: dict[str, Any]) -> Iterator[list[str]]:
    """Namespace, name, dimension and value of each metric; "." is that of the row above, "..." are all of them."""
    above: list[str] = []
    for row in widget["properties"]["metrics"]:
        names = [name for name in row if isinstance(name, str)]
        if names == ["..."]:
            names = above
        if names:
            above = [old if new == "." else new for new, old in zip(names, above or names, strict=True)]
            yield above


# The vocabulary


def test_every_declared_metric_is_counted_by_a_function(resources: Resources) -> None:
    services = {
        function["Environment"]["Variables"]["POWERTOOLS_SERVICE_NAME"]
        for function in properties(resources, "Lambda::Function").values()
    }
    assert COUNTED.keys() == services
    assert frozenset[str]().union(*COUNTED.values()) == METRICS | DIVIDED_METRICS
    assert DIMENSIONS.keys() == DIVIDED_METRICS


# Alarms


# Series of one metric, one value per period of the alarm; a period without a value has None.
type Series = list[float | None]
type Data = dict[tuple[str, str], Series]  # by name of the metric, and value of its dimension

HEALTHY: Data = {("SweepCompleted", "send_chat_push"): [5] * 24, ("CleanupCompleted", "cleanup_receipts"): [1] * 24}

FUNCTIONS = ("AuthorizeWebhook", "CleanupReceipts", "RegisterDevice", "SendChatPush")

# Each way to fail: alarm, metric, dimension, a series that raises the alarm, and the worst one that does not.
WAYS_TO_FAIL: list[tuple[str, str, str, Series, Series]] = [
    ("DeadLettersAlarm", "ApproximateNumberOfMessagesVisible", "PushDeadLetters", [1], [0]),
    ("ScheduleDeadLettersAlarm", "ApproximateNumberOfMessagesVisible", "ScheduleDeadLetters", [1], [0]),
    ("QueueAgeAlarm", "ApproximateAgeOfOldestMessage", "PushQueue", [301] * 3, [300, 301, 301]),
    ("InsertToAcceptAlarm", "InsertToAccept", "send_chat_push", [120_001] * 3, [120_000, 120_001, 120_001]),
    ("ConfigurationFaultAlarm", "ConfigurationFault", "send_chat_push", [1], [None]),
    ("ConfigurationFaultAlarm", "ConfigurationFault", "cleanup_receipts", [1], [None]),
    ("ConfigurationFaultAlarm", "SecretUnavailable", "send_chat_push", [1], [None]),
    ("ConfigurationFaultAlarm", "SecretUnavailable", "cleanup_receipts", [1], [None]),
    ("ConfigurationFaultAlarm", "SecretUnavailable", "register_device", [1], [None]),
    ("ConfigurationFaultAlarm", "SecretUnavailable", "authorize_webhook", [1], [None]),
    # The doctor is rejected once in each examination; API Gateway caches a rejection for one period.
    ("WebhookRefusedAlarm", "WebhookRefused", "authorize_webhook", [1] * 3, [1, None, 1]),
    ("DeviceDeactivationHeldAlarm", "DeviceDeactivationHeld", "send_chat_push", [1] + [None] * 23, [1] + [None] * 24),
    ("DeviceDeactivationHeldAlarm", "DeviceDeactivationHeld", "cleanup_receipts", [1] + [None] * 23, [None]),
    ("SweepMissedAlarm", "SweepCompleted", "send_chat_push", [None], [1]),
    ("CleanupMissedAlarm", "CleanupCompleted", "cleanup_receipts", [None] * 3, [None, 1, None]),
    *(
        ("FunctionErrorsAlarm", metric, function, list[float | None]([3]), list[float | None]([2]))
        for metric in ("Errors", "Throttles")
        for function in FUNCTIONS
    ),
    ("GatewayErrorsAlarm", "5xx", "Api", [5], [4]),
]


def raised(resources: Resources, data: Data) -> set[str]:
    """The alarms that CloudWatch raises for this data."""
    return {name for name, alarm in alarms(resources).items() if _is_raised(alarm, data)}


def _is_raised(alarm: dict[str, Any], data: Data) -> bool:
    """https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-evaluation.html"""
    periods = alarm["EvaluationPeriods"]
    series = [_last(data.get((name, _dimension_value(dimensions)), []), periods) for name, dimensions in _names(alarm)]
    if "Metrics" in alarm:
        [expression] = [query["Expression"] for query in alarm["Metrics"] if query.get("ReturnData", True)]
        assert expression == "SUM(FILL(METRICS(), 0))"
        values: Series = [sum(value or 0 for value in period) for period in zip(*series, strict=True)]
    else:
        [values] = series
    compare = {
        "GreaterThanThreshold": operator.gt,
        "GreaterThanOrEqualToThreshold": operator.ge,
        "LessThanThreshold": operator.lt,
    }[alarm["ComparisonOperator"]]
    missing = {"breaching": True, "notBreaching": False}[alarm["TreatMissingData"]]
    breaching = sum(missing if value is None else compare(value, alarm["Threshold"]) for value in values)
    return bool(breaching >= alarm.get("DatapointsToAlarm", periods))


def _last(series: Series, periods: int) -> Series:
    return ([None] * periods + series)[-periods:]


def _names(alarm: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(name, dimensions) for _, name, dimensions in metrics_of(alarm)]


def _dimension_value(dimensions: dict[str, Any]) -> str:
    match list(dimensions.values()):
        case [{"Ref": resource}] | [{"Fn::GetAtt": [resource, _]}] | [str(resource)]:
            return str(resource)
        case other:
            raise AssertionError(f"unexpected dimensions: {other}")


def test_a_healthy_system_raises_no_alarm(resources: Resources) -> None:
    assert raised(resources, HEALTHY) == set()


def test_each_way_to_fail_raises_its_alarm_and_no_other(resources: Resources) -> None:
    for alarm, metric, dimension, failing, _ in WAYS_TO_FAIL:
        assert raised(resources, {**HEALTHY, (metric, dimension): failing}) == {alarm}, (metric, dimension)


def test_a_value_just_within_its_limit_raises_no_alarm(resources: Resources) -> None:
    for _, metric, dimension, _, passing in WAYS_TO_FAIL:
        assert raised(resources, {**HEALTHY, (metric, dimension): passing}) == set(), (metric, dimension)


def test_the_tests_try_every_metric_of_every_alarm(resources: Resources) -> None:
    assert {(alarm, metric, dimension) for alarm, metric, dimension, *_ in WAYS_TO_FAIL} == {
        (alarm, metric, _dimension_value(dimensions))
        for alarm, body in alarms(resources).items()
        for metric, dimensions in _names(body)
    }


def test_the_description_of_an_alarm_is_a_sentence_and_a_link_to_the_runbook(resources: Resources) -> None:
    for name, alarm in alarms(resources).items():
        meaning, where = alarm["AlarmDescription"].rsplit(" ", 1)
        assert meaning.endswith(".")
        assert where == f"docs/operate.md#{name.lower()}"


def test_every_alarm_notifies_the_topic_at_its_start_and_at_its_end_except_for_held_deactivations(
    resources: Resources,
) -> None:
    """The alarm for held deactivations ends after a day, whether or not an operator has reviewed them."""
    for name, alarm in alarms(resources).items():
        assert alarm["AlarmActions"] == [{"Ref": "AlarmTopic"}]
        assert alarm.get("OKActions", []) == ([] if name == "DeviceDeactivationHeldAlarm" else alarm["AlarmActions"])
        assert alarm.get("ActionsEnabled", True)


def test_cloudwatch_may_publish_to_the_encrypted_topic(resources: Resources) -> None:
    """CloudWatch may not use the key alias/aws/sns. Only the history of an alarm would record it."""
    [topic] = properties(resources, "SNS::Topic").values()
    assert topic["KmsMasterKeyId"] == {"Ref": "AlarmKey"}
    key = resources["AlarmKey"]["Properties"]
    [policy] = properties(resources, "SNS::TopicPolicy").values()
    assert policy["Topics"] == [{"Ref": "AlarmTopic"}]
    [publish] = policy["PolicyDocument"]["Statement"]
    [use_of_key] = [
        statement
        for statement in key["KeyPolicy"]["Statement"]
        if statement["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
    ]
    assert publish["Principal"] == use_of_key["Principal"]
    assert publish["Action"] == "sns:Publish"
    assert publish["Resource"] == {"Ref": "AlarmTopic"}
    assert set(use_of_key["Action"]) == {"kms:Decrypt", "kms:GenerateDataKey*"}
    for statement in (publish, use_of_key):
        assert statement["Effect"] == "Allow"
        assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}


def test_a_rejected_webhook_call_raises_an_alarm_only_if_it_repeats_for_three_periods(resources: Resources) -> None:
    """Each run of the doctor is rejected once. API Gateway caches a rejection for 300 s, so one secret counts once."""
    alarm = alarms(resources)["WebhookRefusedAlarm"]
    assert (alarm["MetricName"], alarm["Dimensions"][0]["Value"]) == ("WebhookRefused", "authorize_webhook")
    [api] = properties(resources, "ApiGatewayV2::Api").values()
    [scheme] = api["Body"]["components"]["securitySchemes"].values()
    assert alarm["Period"] >= scheme["x-amazon-apigateway-authorizer"]["authorizerResultTtlInSeconds"]
    assert (alarm["Threshold"], alarm["ComparisonOperator"]) == (0, "GreaterThanThreshold")
    assert alarm["EvaluationPeriods"] == alarm.get("DatapointsToAlarm", alarm["EvaluationPeriods"]) == 3


def test_the_alarm_of_a_missed_schedule_waits_for_three_periods_of_the_schedule(resources: Resources) -> None:
    for name, seconds in (("SweepMissedAlarm", 60), ("CleanupMissedAlarm", 900)):
        alarm = alarms(resources)[name]
        assert alarm["Period"] * alarm["EvaluationPeriods"] >= 3 * seconds


def test_every_dead_letter_queue_has_an_alarm(resources: Resources) -> None:
    watched = {
        alarm["Dimensions"][0]["Value"]["Fn::GetAtt"][0]
        for alarm in alarms(resources).values()
        if alarm.get("MetricName") == "ApproximateNumberOfMessagesVisible"
        and (alarm["Statistic"], alarm["Threshold"]) == ("Maximum", 0)
    }
    assert watched == {name for name in properties(resources, "SQS::Queue") if name.endswith("DeadLetters")}


def test_errors_and_throttles_of_every_function_raise_an_alarm(resources: Resources) -> None:
    watched = {
        (name, dimensions["FunctionName"]["Ref"])
        for _, name, dimensions in metrics_of(alarms(resources)["FunctionErrorsAlarm"])
    }
    functions = properties(resources, "Lambda::Function")
    assert watched == {(name, function) for name in ("Errors", "Throttles") for function in functions}


def test_configuration_faults_of_every_function_that_counts_them_raise_an_alarm(resources: Resources) -> None:
    watched = {
        (name, dimensions["service"])
        for _, name, dimensions in metrics_of(alarms(resources)["ConfigurationFaultAlarm"])
    }
    faults = ("ConfigurationFault", "SecretUnavailable")
    assert watched == {(name, service) for service in COUNTED for name in faults if name in COUNTED[service]}


def test_alarms_use_only_metrics_that_exist(resources: Resources) -> None:
    for alarm in alarms(resources).values():
        for namespace, name, dimensions in metrics_of(alarm):
            if namespace == NAMESPACE:
                assert dimensions.keys() == {"service"}
                assert name in COUNTED[dimensions["service"]] & METRICS
            else:
                names, dimension = OF_AWS[namespace]
                assert name in names
                assert dimensions.keys() == {dimension}


# The dashboard


def test_the_dashboard_uses_only_metrics_that_exist(resources: Resources) -> None:
    for widget in dashboard(resources):
        for namespace, name, dimension, value in rows(widget) if widget["type"] == "metric" else ():
            if namespace == NAMESPACE["Fn::Sub"]:
                assert dimension == "service"
                assert name in COUNTED[value] & METRICS
            else:
                names, expected = OF_AWS[namespace]
                assert name in names
                assert dimension == expected
                assert re.fullmatch(r"\${(\w+)(\.QueueName)?}", value)
    searched = re.findall(
        r"SEARCH\('{\"([^\"]+)\",service,(\w+)} MetricName=\"(\w+)\"', 'Sum', 300\)",
        "\n".join(str(row[0].get("expression")) for row in _expressions(resources)),
    )
    assert set(searched) == {(NAMESPACE["Fn::Sub"], dimension, name) for name, dimension in DIMENSIONS.items()}
    assert len(searched) == len(_expressions(resources))


def _expressions(resources: Resources) -> list[list[dict[str, str]]]:
    return [
        row
        for widget in dashboard(resources)
        for row in widget["properties"].get("metrics", [])
        if isinstance(row[0], dict) and "expression" in row[0]
    ]


def test_the_dashboard_shows_every_metric_that_is_counted(resources: Resources) -> None:
    shown = {
        (value, name)
        for widget in dashboard(resources)
        if widget["type"] == "metric"
        for namespace, name, _, value in rows(widget)
        if namespace == NAMESPACE["Fn::Sub"]
    }
    assert shown == {(service, name) for service, names in COUNTED.items() for name in names & METRICS - NOT_SHOWN}


def test_the_dashboard_starts_with_results_and_alarms(resources: Resources) -> None:
    titles = [widget["properties"]["title"] for widget in dashboard(resources)]
    assert titles[:5] == [
        "Sent",
        "Not sent: skipped, by reason",
        "Not sent: failed, by code",
        "Insert to accept, ms",
        "Alarms",
    ]
    shown = set(re.findall(r"\${(\w+)\.Arn}", json.dumps(dashboard(resources)[4])))
    assert shown == alarms(resources).keys()


def test_latencies_are_percentiles_and_counts_are_sums(resources: Resources) -> None:
    for alarm in alarms(resources).values():
        statistic = {query["MetricStat"]["Stat"] for query in alarm.get("Metrics", []) if "MetricStat" in query}
        statistic = statistic or {alarm.get("ExtendedStatistic", alarm.get("Statistic"))}
        for namespace, name, _ in metrics_of(alarm):
            if namespace == NAMESPACE:
                assert statistic == ({"p99"} if name in UNITS else {"Sum"})
    for widget in dashboard(resources):
        for namespace, name, *_ in rows(widget) if widget["type"] == "metric" else ():
            if namespace == NAMESPACE["Fn::Sub"]:
                assert widget["properties"]["title"].endswith(", ms") == (name in UNITS)
                assert widget["properties"]["stat"] == ("p50" if name in UNITS else "Sum")


# The access log of the API


def test_the_access_log_holds_the_route_and_nothing_else_that_the_caller_sent(resources: Resources) -> None:
    """It holds no address and no user agent. The function's log has the user for the same request id."""
    [stage] = properties(resources, "ApiGatewayV2::Stage").values()
    fields = json.loads(stage["AccessLogSettings"]["Format"])
    assert {value.removeprefix("$context.") for value in fields.values()} == {
        "authorizer.error",
        "error.message",
        "integrationErrorMessage",
        "integrationLatency",
        "integrationStatus",
        "requestId",
        "requestTimeEpoch",
        "responseLatency",
        "routeKey",
        "status",
    }
    group = stage["AccessLogSettings"]["DestinationArn"]["Fn::GetAtt"][0]
    assert resources[group]["Properties"]["RetentionInDays"] == 30


def test_the_access_log_uses_only_variables_that_http_apis_have(resources: Resources) -> None:
    """Variables of REST and WebSocket APIs only, such as authorizer.status, are logged as "-"."""
    [stage] = properties(resources, "ApiGatewayV2::Stage").values()
    asked = re.findall(r"\$context\.([\w.]+)", stage["AccessLogSettings"]["Format"])
    assert set(asked) <= HTTP_API_VARIABLES


# Each rule, broken once


@pytest.mark.parametrize(
    ("correct", "wrong", "rule"),
    [
        (
            "POWERTOOLS_SERVICE_NAME: send_chat_push",
            "POWERTOOLS_SERVICE_NAME: sender",
            test_every_declared_metric_is_counted_by_a_function,
        ),
        ("MetricName: SweepCompleted", "MetricName: LeaseLost", test_each_way_to_fail_raises_its_alarm_and_no_other),
        ("Threshold: 300 #", "Threshold: 600 #", test_each_way_to_fail_raises_its_alarm_and_no_other),
        ("Threshold: 300 #", "Threshold: 200 #", test_a_value_just_within_its_limit_raises_no_alarm),
        ("DatapointsToAlarm: 1", "DatapointsToAlarm: 2", test_each_way_to_fail_raises_its_alarm_and_no_other),
        (
            "TreatMissingData: breaching",
            "TreatMissingData: notBreaching",
            test_each_way_to_fail_raises_its_alarm_and_no_other,
        ),
        ("TreatMissingData: notBreaching", "TreatMissingData: breaching", test_a_healthy_system_raises_no_alarm),
        ("{MetricName: Throttles,", "{MetricName: Invocations,", test_the_tests_try_every_metric_of_every_alarm),
        ("#queueagealarm", "#queue-age", test_the_description_of_an_alarm_is_a_sentence_and_a_link_to_the_runbook),
        (
            "AlarmActions: [!Ref AlarmTopic]",
            "AlarmActions: []",
            test_every_alarm_notifies_the_topic_at_its_start_and_at_its_end_except_for_held_deactivations,
        ),
        ("!Ref AlarmKey", "alias/aws/sns", test_cloudwatch_may_publish_to_the_encrypted_topic),
        ("kms:GenerateDataKey*", "kms:Encrypt", test_cloudwatch_may_publish_to_the_encrypted_topic),
        ("Period: 900", "Period: 600", test_the_alarm_of_a_missed_schedule_waits_for_three_periods_of_the_schedule),
        (
            "MetricName: ApproximateNumberOfMessagesVisible",
            "MetricName: NumberOfMessagesSent",
            test_every_dead_letter_queue_has_an_alarm,
        ),
        ("{MetricName: Throttles,", "{MetricName: Errors,", test_errors_and_throttles_of_every_function_raise_an_alarm),
        (
            "Value: authorize_webhook}",
            "Value: send_chat_push}",
            test_configuration_faults_of_every_function_that_counts_them_raise_an_alarm,
        ),
        ("MetricName: InsertToAccept", "MetricName: Latency", test_alarms_use_only_metrics_that_exist),
        (
            "MetricName: DeviceDeactivationHeld",
            "MetricName: LeaseLost",  # which another function counts
            test_alarms_use_only_metrics_that_exist,
        ),
        (
            "MetricName: DeviceDeactivationHeld",
            "MetricName: PushFailed",  # which is counted by code only
            test_alarms_use_only_metrics_that_exist,
        ),
        ('"LeaseLost"', '"LostLease"', test_the_dashboard_uses_only_metrics_that_exist),
        (",service,code}", ",service,reason}", test_the_dashboard_uses_only_metrics_that_exist),
        ("ExtendedStatistic: p99", "Statistic: Sum", test_latencies_are_percentiles_and_counts_are_sums),
        ("Insert to accept, ms", "Insert to accept", test_latencies_are_percentiles_and_counts_are_sums),
        ('"LeaseLost"', '"LeaseExpired"', test_the_dashboard_shows_every_metric_that_is_counted),
        ('"${SweepMissedAlarm.Arn}", ', "", test_the_dashboard_starts_with_results_and_alarms),
        (
            "EvaluationPeriods: 3\n      Threshold: 0",
            "EvaluationPeriods: 1\n      Threshold: 0",
            test_a_rejected_webhook_call_raises_an_alarm_only_if_it_repeats_for_three_periods,
        ),
        (
            "$context.integrationStatus",
            "$context.authorizer.status",
            test_the_access_log_uses_only_variables_that_http_apis_have,
        ),
        (
            "$context.responseLatency",
            "$context.identity.sourceIp",
            test_the_access_log_holds_the_route_and_nothing_else_that_the_caller_sent,
        ),
    ],
    ids=lambda value: getattr(value, "__name__", str(value))[:40],
)
def test_a_template_that_breaks_a_rule_fails_the_test_of_that_rule(
    tmp_path: Path, correct: str, wrong: str, rule: Any
) -> None:
    assert_broken(rule, resources=translate(changed(tmp_path, correct, wrong))["Resources"])
