"""Commands find a stack by name and Region, and a local cloud by its env file."""

import asyncio
import json
import sys
from pathlib import Path
from uuid import uuid4

import boto3
import pytest
from botocore.exceptions import ClientError, NoCredentialsError, NoRegionError

import operate.stack
from local.aws.services import Aws
from local.processes import free_port
from operate.__main__ import main
from operate.stack import NotReachable, aws_of, local_environment, not_reachable_on_error, stack_outputs, stack_resource


@pytest.fixture
def account(services: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    """Points boto3 to the local services."""
    for name, value in services.environment.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("account")
async def test_resources_and_outputs_of_a_stack_are_found_by_their_names_in_the_template() -> None:
    name = f"chat-push-{uuid4().hex}"
    template = {
        "Resources": {"PushQueue": {"Type": "AWS::SQS::Queue"}},
        "Outputs": {"QueueUrl": {"Value": {"Ref": "PushQueue"}}},
    }

    def look() -> tuple[str, dict[str, str]]:
        boto3.client("cloudformation").create_stack(StackName=name, TemplateBody=json.dumps(template))
        return stack_resource(name, "PushQueue"), stack_outputs(name)

    queue_url, outputs = await asyncio.to_thread(look)
    assert queue_url.startswith("https://sqs.")
    assert outputs == {"QueueUrl": queue_url}


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize("look", [stack_outputs, lambda stack: stack_resource(stack, "PushQueue")])
async def test_the_error_for_a_missing_stack_names_the_stack_and_the_settings(look: object) -> None:
    assert callable(look)
    with pytest.raises(NotReachable, match=r"--stack nowhere: .*does not exist.*AWS_DEFAULT_REGION"):
        await asyncio.to_thread(look, "nowhere")


def test_an_error_names_the_missing_region(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(NotReachable, match="You must specify a region"):
        stack_outputs("chat-push")


@pytest.fixture
def deployed_in_ireland(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A samconfig.toml as `sam deploy --guided --config-env prod` writes it."""
    path = tmp_path / "samconfig.toml"
    prod = '[prod.deploy.parameters]\nstack_name = "chat-push-prod"\n'
    path.write_text(operate.stack.SAMCONFIG.read_text().replace(prod, prod + 'region = "eu-west-1"\n'))
    assert "eu-west-1" in path.read_text()
    monkeypatch.setattr(operate.stack, "SAMCONFIG", path)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")


@pytest.mark.usefixtures("deployed_in_ireland")
def test_the_region_of_a_stack_is_that_of_its_deployment() -> None:
    assert aws_of("chat-push-prod").region_name == "eu-west-1"
    assert aws_of("chat-push-dev").region_name == "eu-central-1"


@pytest.mark.parametrize("command", ["doctor", "redrive"])
def test_a_command_names_a_samconfig_toml_that_it_cannot_read(
    command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(operate.stack, "SAMCONFIG", tmp_path / "samconfig.toml")
    monkeypatch.setattr(sys, "argv", ["./dev", command, "--stack", "chat-push"])
    for text in (None, '[prod.deploy.parameters]\nregion = "eu-west-1\n'):
        if text:
            operate.stack.SAMCONFIG.write_text(text)
        assert main() == (2 if command == "doctor" else 1)
        assert capsys.readouterr().err.startswith(
            f"./dev {command}: --stack chat-push: samconfig.toml cannot be read: "
        )


@pytest.mark.usefixtures("deployed_in_ireland")
def test_a_command_prints_the_region_of_the_stack_if_it_differs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["./dev", "secrets", "put", "--stack", "chat-push-prod"])
    assert main() == 1
    printed = capsys.readouterr().err
    assert "the Region eu-west-1 for this stack. Before you run aws: export AWS_DEFAULT_REGION=" in printed
    assert "run it in a terminal" in printed


@pytest.mark.parametrize(
    "error",
    [NoRegionError(), NoCredentialsError(), ClientError({"Error": {"Code": "X", "Message": "Not you."}}, "Look")],
    ids=lambda error: type(error).__name__,
)
def test_no_error_message_has_two_full_stops_in_a_row(error: Exception) -> None:
    with pytest.raises(NotReachable) as refused, not_reachable_on_error("--stack chat-push"):
        raise error
    assert ".." not in str(refused.value)


@pytest.mark.parametrize("command", ["doctor", "redrive"])
def test_a_command_names_a_stopped_local_cloud_in_one_sentence(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    env_file = tmp_path / "env"
    env_file.write_text(f"AWS_ENDPOINT_URL=http://127.0.0.1:{free_port()}\nSUPABASE_URL=http://x\n")
    monkeypatch.setattr(sys, "argv", ["./dev", command, "--env", str(env_file)])
    assert main() == (2 if command == "doctor" else 1)
    printed = capsys.readouterr()
    fault = f"./dev {command}: --env {env_file}: its local cloud does not run any more"
    assert printed.err.strip() == f"{fault}; start it again: ./dev up --env {env_file}"
    assert printed.out == ""


@pytest.mark.parametrize("command", ["doctor", "redrive"])
def test_a_command_names_a_profile_that_does_not_exist(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    monkeypatch.setattr(sys, "argv", ["./dev", command, "--stack", "chat-push"])
    assert main() == (2 if command == "doctor" else 1)
    fault = f"./dev {command}: --stack chat-push: The config profile (nobody) could not be found. Set the account by"
    assert capsys.readouterr().err.startswith(fault)


def test_the_name_of_a_stack_may_not_be_empty(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["./dev", "doctor", "--stack", ""])
    with pytest.raises(SystemExit):
        main()
    assert "argument --stack: the name of the stack is empty" in capsys.readouterr().err


def test_an_env_file_that_dev_up_did_not_write_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotReachable, match="--env"):
        local_environment(tmp_path / "nothing")
    for other in ("no name and no value\n", "NAME=value\n", "AWS_ENDPOINT_URL=http://127.0.0.1:99999\n"):
        (tmp_path / "other").write_text(other)
        with pytest.raises(NotReachable, match=r"--env .*: not a file that \./dev up"):
            local_environment(tmp_path / "other")
