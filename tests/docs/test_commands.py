"""Each command of the guides runs against the local cloud. If it needs an account, its options are checked."""

import argparse
import asyncio
import importlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from itertools import chain, pairwise
from pathlib import Path
from types import ModuleType
from uuid import uuid4

import botocore.session
import click
import pytest
from botocore import xform_name
from samcli.cli.context import Context
from samcli.cli.main import cli as sam

from local.app import chat_app
from local.cloud import LocalCloud
from local.demo.first_steps import commands
from local.packages import NODE_MODULES, NPM_PLATFORM
from tests.docs.guides import PROJECT, Block, blocks, dev_commands

SHELL = blocks("sh")
NEED_ACCOUNTS = [block for block in SHELL if block.needs]
ACCOUNTS = {"aws": "AWS", "sam": "AWS", "supabase": "Supabase", "eas": "Expo", "npx": "Expo"}


class Parsed(Exception):
    """The command line was accepted. The test does not run the command."""


@cache
def dev() -> ModuleType:
    return loaded(PROJECT / "dev")


def loaded(file: Path) -> ModuleType:
    loader = SourceFileLoader("dev", str(file))
    spec = spec_from_loader("dev", loader)
    assert spec
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.mark.parametrize("command", dev_commands(), ids=str)
def test_each_dev_command_of_the_guides_exists_and_has_its_options(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_brackets = command.replace("[", "").replace("]", "")  # as in [--env FILE]
    _, *arguments = shlex.split(without_brackets)
    if arguments in ([], ["--version"]):
        assert without_packages(*arguments).returncode == 0
        return
    name, *options = arguments
    if name in dev().GROUPS["operate"] and not {"--stack", "--env"} & set(options):
        options += ["--stack", "NAME"]  # a sentence may leave it out
    check_dev([name, *options], monkeypatch)


def check_dev(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    name, *options = arguments
    assert name in dev().COMMANDS, f"no such command: ./dev {name}"
    for command in dev().COMMANDS[name][1]:
        ours = re.fullmatch(r"python -m (local|operate|bench)(.*)", command)
        if ours:
            understood(ours[1], [*ours[2].split(), *options], monkeypatch)
        elif name == "test":
            if not options:
                continue  # This run collects all tests.
            pytest_collect = [sys.executable, "-m", "pytest", "--collect-only", "--quiet", *options]
            subprocess.run(pytest_collect, cwd=PROJECT, check=True, stdout=subprocess.DEVNULL)
        else:
            assert not options, f"./dev {name} passes its options to another program"


def understood(package: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails unless the package's command line takes the arguments. The command itself is not run."""
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(parser: argparse.ArgumentParser) -> None:
        parse(parser)
        raise Parsed

    examples = {"$USER_ID": str(uuid4()), "USER": str(uuid4())}
    if package == "bench":
        examples |= {"NAME": "cold", "...": "rate"}
    values = [examples.get(argument, argument) for argument in arguments]
    with monkeypatch.context() as patched:
        patched.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
        patched.setattr(sys, "argv", [package, *values])
        with pytest.raises(Parsed):
            importlib.import_module(f"{package}.__main__").main()


@pytest.mark.parametrize("block", NEED_ACCOUNTS, ids=str)
def test_a_quoted_command_that_needs_an_account_names_it_and_has_only_options_that_exist(
    block: Block, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert block.needs
    for command in block.commands:
        program, *arguments = shlex.split(command)
        assert ACCOUNTS.get(program, "") in block.needs, f"{program}: say which account it needs"
        match program:
            case "./dev":
                check_dev(arguments, monkeypatch)
            case "aws":
                check_aws(arguments)
            case "sam":
                check_sam(arguments)
            case "supabase":
                check_supabase(arguments)
            case "cp":
                assert all(list(PROJECT.glob(source)) for source in arguments[:-1]), f"there is no {arguments[0]}"
            case _:
                assert program in ("cd", "git", "npm", "npx", "eas"), f"how is {program} checked?"


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_the_text_of_a_guide_explains_each_variable_of_its_commands(block: Block) -> None:
    for name in re.findall(r"\$([A-Z_]+)", block.text):
        assert f"`{name}`" in block.file.read_text(), f"say what ${name} is"


def check_aws(arguments: list[str]) -> None:
    """Check the options against the service models that the AWS CLI uses."""
    service, operation, *options = arguments
    model = botocore.session.get_session().get_service_model(service)
    [name] = [name for name in model.operation_names if xform_name(name, "-") == operation]
    shape = model.operation_model(name).input_shape
    members = {f"--{xform_name(member, '-')}": member for member in (shape.members if shape else {})}
    asked = {re.sub("^--no-", "--", option) for option in options if option.startswith("--")}
    assert asked <= members.keys() | {"--query", "--output"}
    required = set(shape.required_members if shape else ())
    assert required <= {members.get(option) for option in asked}, f"{operation} wants {required}"


def check_sam(arguments: list[str]) -> None:
    """Check the options with the parser of the SAM CLI."""
    command: click.Command = sam
    context = click.Context(command, obj=Context())
    rest = arguments
    while isinstance(command, click.Group):
        found = command.get_command(context, rest[0])
        assert found, f"sam has no command {rest[0]}"
        command, rest = found, rest[1:]
    known = set(chain.from_iterable(option.opts for option in command.params))
    assert {option for option in rest if option.startswith("--")} <= known
    for option, value in pairwise(rest):
        if option == "--config-env":
            assert f"[{value}.deploy.parameters]" in (PROJECT / "samconfig.toml").read_text()


def check_supabase(arguments: list[str]) -> None:
    """Check the options against the help of the Supabase CLI."""
    words = [argument for argument in arguments if re.fullmatch("[a-z]+", argument)]
    cli = NODE_MODULES / "@supabase" / f"cli-{NPM_PLATFORM}" / "bin" / "supabase"
    environment = {**os.environ, "DO_NOT_TRACK": "1", "SUPABASE_TELEMETRY_DISABLED": "1"}
    usage = subprocess.run([cli, *words, "--help"], capture_output=True, text=True, check=True, env=environment).stdout
    assert f"supabase {' '.join(words)} " in usage, f"there is no supabase {' '.join(words)}"
    for option in arguments:
        if option.startswith("--"):
            assert re.search(rf"^ *{option}\b", usage, re.MULTILINE), f"no option {option}"


@pytest.mark.parametrize("block", [block for block in SHELL if not block.needs], ids=str)
async def test_each_quoted_command_that_needs_no_account_succeeds(
    block: Block, cloud: LocalCloud, tmp_path: Path
) -> None:
    async with chat_app(cloud.supabase, cloud.api_url) as app:
        person = await app.sign_up("Gus", "guide")
    environment = {
        **os.environ,
        "ACCESS_TOKEN": person.access_token,
        "API_URL": cloud.api_url,
        "MESSAGE_ID": str(uuid4()),
        "WEBHOOK_SECRET": cloud.webhook_secret,
        "WEBHOOK_URL": f"{cloud.api_url}/api/push/chat-message",
    }
    process = await asyncio.create_subprocess_exec(
        *("bash", "-euc", block.text),
        cwd=tmp_path,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()


async def test_the_commands_that_dev_up_prints_bring_a_push_to_a_fake_phone(cloud: LocalCloud, tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *("bash", "-euo", "pipefail", "-c", commands(cloud)),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    phone = cloud.expo.phones["ExponentPushToken[phone-of-gus]"]
    await cloud.expo.until(lambda: phone.shown, seconds=60)
    assert [(arrival.message["title"], arrival.message["body"]) for arrival in phone.shown] == [("Tina", "Hello Gus")]


WITHOUT_PACKAGES = [getattr(sys, "_base_executable", sys.executable), "-I", "-S", PROJECT / "dev"]


def without_packages(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ./dev in another folder, with a Python that has only its standard library."""
    return subprocess.run([*WITHOUT_PACKAGES, *arguments], capture_output=True, text=True, cwd="/", check=False)


def test_dev_without_arguments_lists_each_command_in_a_line_of_its_group() -> None:
    shown = without_packages()
    assert (shown.returncode, shown.stderr) == (0, "")
    assert re.findall(r"^(\w+):$|^  (\w+) +\S", shown.stdout, re.MULTILINE) == [
        row for group, names in dev().GROUPS.items() for row in ((group, ""), *(("", name) for name in names))
    ]
    assert max(map(len, shown.stdout.splitlines())) <= 100


def test_dev_prints_the_version_of_the_project() -> None:
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    assert without_packages("--version").stdout == f"{version}\n"


def test_dev_finds_its_folder_if_it_is_called_by_a_symbolic_link(tmp_path: Path) -> None:
    link = tmp_path / "dev"
    link.symlink_to(PROJECT / "dev")
    shown = subprocess.run([*WITHOUT_PACKAGES[:-1], link, "--version"], capture_output=True, text=True, check=False)
    assert (shown.returncode, shown.stderr) == (0, "")


def test_dev_names_the_systems_that_it_runs_on_if_it_is_started_on_windows() -> None:
    windows = "import runpy, sys; sys.modules['fcntl'] = None; runpy.run_path(sys.argv[1])"
    command = [*WITHOUT_PACKAGES[:-1], "-c", windows, PROJECT / "dev"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.stderr.startswith("./dev needs Linux or macOS. On Windows, run it in WSL")


def test_dev_names_a_folder_that_it_cannot_write(tmp_path: Path) -> None:
    copy = Path(shutil.copy(PROJECT / "dev", tmp_path))
    (tmp_path / ".dev.lock").mkdir()
    refused = subprocess.run([*WITHOUT_PACKAGES[:-1], copy, "lock"], capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert refused.stderr.startswith(
        "./dev lock needs a folder that you can write, for the packages that it installs: "
    )
    assert "Traceback" not in refused.stderr


def test_relative_names_of_files_begin_in_the_folder_where_dev_is_called(tmp_path: Path) -> None:
    """In a project whose path has a space and a letter that is not ASCII, and whose packages are installed."""
    project, caller = tmp_path / "a prøject", tmp_path / "caller"
    packages = project / ".venv-operate"
    for folder in (packages / "bin", caller):
        folder.mkdir(parents=True)
    for name in ("operate", "layers", "requirements", "samconfig.toml"):
        (project / name).symlink_to(PROJECT / name)
    copy = Path(shutil.copy(PROJECT / "dev", project))
    (packages / ".stamp").write_text(loaded(copy).stamp(("requirements/operate.txt",)))
    (packages / "bin" / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (packages / "bin" / "python").chmod(0o700)
    command: list[str | Path] = [sys.executable, copy, "doctor", "--env", "up.env"]
    refused = subprocess.run(command, capture_output=True, text=True, cwd=caller, check=False)
    assert refused.stderr.startswith(
        f"./dev doctor: --env {caller / 'up.env'}: not a file that ./dev up --env FILE wrote"
    )
    assert refused.stdout == ""


@pytest.mark.parametrize("name", dev().COMMANDS)
def test_each_command_of_dev_shows_its_usage_without_any_package(name: str) -> None:
    for command in (name, "secrets put") if name == "secrets" else (name,):
        shown = without_packages(*command.split(), "--help")
        assert (shown.returncode, shown.stderr) == (0, "")
        assert shown.stdout.startswith(f"usage: ./dev {command}")
        assert "setup:" not in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("nonsense", "there is no command nonsense\n"),
        ("dmeo", "there is no command dmeo; did you mean ./dev demo?"),
        ("DEMO", "there is no command DEMO; did you mean ./dev demo?"),
        ("secret put", "there is no command secret; did you mean ./dev secrets?"),
        ("doctor", "one of the arguments --stack --env is required"),
        ("doctor --stack x --send me", "argument --send: invalid UUID value: 'me'"),
        (
            "chaos --messages 99",
            "argument --messages: use 100 or more: with fewer messages some faults find no push to strike",
        ),
        ("lint --fix", "usage: ./dev lint\n./dev lint: there is no option --fix"),
        ("lock --upgade", "usage: ./dev lock [--upgrade]\n./dev lock: there is no option --upgade"),
        ("bench latnecy", "no such benchmark: latnecy; choose from latency"),
        ("up --env /", "argument --env: no file can be written at /"),
        ("demo --json /nowhere/demo.json", "argument --json: no file can be written at /nowhere/demo.json"),
        ("chaos --json x/y/z", "argument --json: no file can be written at x/y/z"),
    ],
)
def test_dev_rejects_a_wrong_command_line_before_it_installs_anything(arguments: str, said: str) -> None:
    refused = without_packages(*arguments.split())
    assert refused.returncode == 2
    assert said in refused.stderr
    assert "usage: ./dev" in refused.stderr
    assert refused.stdout == ""


@pytest.mark.parametrize(
    ("system", "processor", "only_for_stacks", "not_here"),
    [
        ("linux", "x86_64", False, set()),
        ("linux", "aarch64", False, set()),
        ("darwin", "arm64", False, {"bench"}),
        ("darwin", "x86_64", True, set()),
        ("linux", "riscv64", True, set()),
    ],
)
def test_a_command_that_cannot_run_on_a_system_is_rejected_with_those_that_can(
    monkeypatch: pytest.MonkeyPatch, system: str, processor: str, only_for_stacks: bool, not_here: set[str]
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: processor)
    for name in dev().COMMANDS:
        if name in not_here:
            with pytest.raises(SystemExit, match=f"./dev {name} needs Linux: "):
                dev().check_machine(name)
        elif only_for_stacks and name not in ("doctor", "redrive", "secrets"):
            with pytest.raises(SystemExit, match=f"./dev {name} needs .* run here: doctor, secrets, redrive"):
                dev().check_machine(name)
        else:
            dev().check_machine(name)


# It runs in a process of its own, in which only the packages of requirements/operate.txt can be imported.
ON_ANY_SYSTEM = """
import importlib.metadata, re, sys
from pathlib import Path

installed = set(re.findall(r"^([\\w-]+)==", Path("requirements/operate.txt").read_text(), re.MULTILINE))
others = {
    module
    for module, distributions in importlib.metadata.packages_distributions().items()
    if not installed & {distribution.lower().replace("_", "-") for distribution in distributions}
}


class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in others:
            raise ModuleNotFoundError(name, name=name)


sys.meta_path.insert(0, Missing())
sys.argv = ["./dev", "doctor", "--env", "/nowhere"]
import operate.doctor, operate.redrive, operate.secrets
print(sorted(module for module in sys.modules if module.split(".")[0] == "local"))
from operate.__main__ import main
sys.exit(main())
"""


def test_the_commands_for_a_stack_import_only_the_packages_of_their_lock_file() -> None:
    """Some of the other packages are binaries for Linux only."""
    command = [sys.executable, "-c", ON_ANY_SYSTEM]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, check=False)
    assert ended.stdout == "[]\n", ended.stderr
    assert ended.stderr.startswith("./dev doctor: --env /nowhere: ")
