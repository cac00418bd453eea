"""A deployment takes effect: each change of code, layers or parameters publishes a version, and `live` points to it.

SAM names a version after a hash of the template, in which parameters are still references. CloudFormation makes another
version if its name changes, or the value of a property that it can only replace. But Lambda publishes no version of a
function that has not changed: it answers "A version for this Lambda function exists", and the deployment fails.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from local.aws.account import REGION
from local.aws.cloudformation import Stack, translate
from tests.stack import ENDPOINT, PARAMETERS, TEMPLATE, assert_broken, changed

FUNCTIONS = {"AuthorizeWebhook", "CleanupReceipts", "RegisterDevice", "SendChatPush"}

# The parameters that functions use, with another value for each.
MATTER = {"SupabaseUrl": "https://other.supabase.co", "ExpoUrl": "https://push.example.com", "SnapStart": "off"}
OTHERS = {
    "AlarmEmail": "on-call@example.com",
    "CertificateArn": "arn:aws:acm:eu-central-1:123456789012:certificate/0a1b",
    "MaximumConcurrency": "20",
}

# What is built, by where its source is in the template, and the functions that run it.
ARTIFACTS = {
    "layers/dependencies": FUNCTIONS,
    "layers/shared": FUNCTIONS,
    "functions/authorize_webhook": {"AuthorizeWebhook"},
    "functions/cleanup_receipts": {"CleanupReceipts"},
    "functions/register_device": {"RegisterDevice"},
    "functions/send_chat_push": {"SendChatPush"},
}


@dataclass(frozen=True)
class Published:
    """The properties by which CloudFormation sees a version, and the function that Lambda would publish."""

    version: str
    function: str


def published(template: Path, parameters: Mapping[str, str] = PARAMETERS) -> dict[str, Published]:
    """What a deployment with these parameters publishes, by function."""
    document = translate(template, parameters)
    stack = Stack(document, parameters, ENDPOINT)
    environments = {name: p.take("Environment", dict) for name, p in stack.of_type("AWS::Lambda::Function")}
    found = {}
    for name, version in stack.of_type("AWS::Lambda::Version"):
        function = version.take("FunctionName", str)
        replaced = {key: version.take(key, str) for key in sorted(_replaced()) if key in version}
        found[function] = Published(
            version=json.dumps([name, replaced]),
            function=json.dumps([document["Resources"][function], environments[function]], sort_keys=True),
        )
    return found


def _schema_of_a_version() -> Any:
    from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER  # slow, and each worker of pytest imports all tests

    return PROVIDER_SCHEMA_MANAGER.get_resource_schema(REGION, "AWS::Lambda::Version").schema


def _replaced() -> set[str]:
    """The properties of a version that CloudFormation cannot change without publishing another one."""
    pointers = _schema_of_a_version()["createOnlyProperties"]
    return {pointer.removeprefix("/properties/") for pointer in pointers}


def new_versions(before: Mapping[str, Published], after: Mapping[str, Published]) -> set[str]:
    """The functions of which a second deployment makes a version; AssertionError if Lambda would not publish it."""
    assert before.keys() == after.keys() == FUNCTIONS
    new = {name for name in FUNCTIONS if before[name].version != after[name].version}
    assert all(before[name].function != after[name].function for name in new), "A version for this function exists"
    return new


def check_parameters(template: Path) -> None:
    """Each parameter that functions run with publishes all four, and no other does any."""
    for name, value in (MATTER | OTHERS).items():
        new = new_versions(published(template), published(template, PARAMETERS | {name: value}))
        assert new == (FUNCTIONS if name in MATTER else set()), name


def check_artifacts(template: Path) -> None:
    """Each artifact publishes the functions that run it, and no other does."""
    before = published(template)
    for artifact, functions in ARTIFACTS.items():
        text = template.read_text()
        assert text.count(f"Uri: {artifact}\n") == 1
        newer = template.with_name("newer.yaml")
        newer.write_text(text.replace(f"Uri: {artifact}\n", f"Uri: {artifact}-newer\n"))
        assert new_versions(before, published(newer)) == functions, artifact


def test_a_changed_parameter_publishes_new_versions_of_the_functions_that_use_it() -> None:
    check_parameters(TEMPLATE)


def test_a_changed_layer_or_function_publishes_new_versions_of_the_functions_that_run_it(tmp_path: Path) -> None:
    check_artifacts(changed(tmp_path, "", ""))


@pytest.mark.parametrize("setting", [("Timeout: 20", "Timeout: 15"), ("MemorySize: 512", "MemorySize: 1024")])
def test_a_changed_timeout_or_memory_size_publishes_a_new_version(tmp_path: Path, setting: tuple[str, str]) -> None:
    before = published(changed(tmp_path, "", ""))
    assert "SendChatPush" in new_versions(before, published(changed(tmp_path, *setting)))


def test_a_deployment_without_a_change_publishes_nothing() -> None:
    """Otherwise each deployment would leave a version with a snapshot that costs money."""
    assert new_versions(published(TEMPLATE), published(TEMPLATE)) == set()


def test_a_version_is_deleted_when_a_new_one_replaces_it() -> None:
    """A version with another logical id is deleted; one with the same logical id is replaced."""
    for resource in translate(TEMPLATE)["Resources"].values():
        if resource["Type"] == "AWS::Lambda::Version":
            assert (resource["DeletionPolicy"], resource.get("UpdateReplacePolicy", "Delete")) == ("Delete", "Delete")


def test_every_parameter_that_functions_use_is_among_those_that_publish_versions() -> None:
    document = translate(TEMPLATE, PARAMETERS)
    functions = [r for r in document["Resources"].values() if r["Type"] == "AWS::Lambda::Function"]
    used = _named_in(functions, document["Parameters"]) | {
        parameter
        for condition, value in document["Conditions"].items()
        if condition in json.dumps(functions)
        for parameter in _named_in(value, document["Parameters"])
    }
    assert used == MATTER.keys()
    assert MATTER.keys() | OTHERS.keys() | {"DomainName"} == document["Parameters"].keys()


def _named_in(part: Any, parameters: Mapping[str, Any]) -> set[str]:
    text = json.dumps(part)
    named = set(re.findall(r'"Ref": "(\w+)"', text)) | set(re.findall(r"\${(\w+)}", text))
    return named & parameters.keys()


def test_the_longest_parameters_fit_into_a_version_description() -> None:
    longest = PARAMETERS | dict.fromkeys(("SupabaseUrl", "ExpoUrl"), "https://xx" + 45 * ".x")
    stack = Stack(translate(TEMPLATE), longest, ENDPOINT)
    schema = _schema_of_a_version()
    for _, version in stack.of_type("AWS::Lambda::Version"):
        assert len(version.take("Description", str)) <= schema["properties"]["Description"]["maxLength"]


@pytest.mark.parametrize(
    ("correct", "wrong", "check"),
    [
        ("PublishLambdaVersion: true", "PublishLambdaVersion: false", check_artifacts),
        ("      VersionDescription: !Sub ${SupabaseUrl}", "      VersionDescription: !Sub x", check_parameters),
        ("DEPLOYED_WITH: !Sub ${SupabaseUrl}", "DEPLOYED_WITH: !Sub x", check_parameters),
        ("${ExpoUrl} SnapStart ${SnapStart}", "${ExpoUrl}", check_parameters),
        ("${ExpoUrl} SnapStart ${SnapStart}", "${ExpoUrl} ${SnapStart} ${AlarmEmail}", check_parameters),
    ],
)
def test_a_template_that_would_not_publish_a_change_fails_the_checks(
    tmp_path: Path, correct: str, wrong: str, check: Any
) -> None:
    assert_broken(check, template=changed(tmp_path, correct, wrong))
