"""A function runs here as it does in Lambda, with each kind of execution environment."""

import asyncio
import os
import re
import signal
import sys
from pathlib import Path

import pytest

from local.aws.lambda_runtime import Account, FunctionError, TooManyRequests
from local.packages import PROJECT
from tests.local.aws.conftest import StartFunction, is_running
from tests.waiting import eventually

ECHO = """
    import os, time

    def lambda_handler(event, context):
        match event:
            case {"raise": message}:
                raise LookupError(message)
            case {"sleep": seconds, **rest}:
                open(os.environ["LAMBDA_TASK_ROOT"] + "/asleep", "w").write(str(os.getpid()))
                time.sleep(seconds)
                print("awake")
                return rest
            case {"allocate": megabytes}:
                touched = bytearray(b"x") * (megabytes * 1024**2)
                del touched
            case {"answer": answer}:
                return answer
            case {"answer_bytes": count}:
                return "x" * (count - 2)  # and two quotes
            case {"exit": status}:
                os._exit(status)
        return {"pid": os.getpid(), "event": event, "left": context.get_remaining_time_in_millis()}
"""


@pytest.fixture(params=["emulator", "process"] if sys.platform == "linux" else ["process"], autouse=True)
def kind_of_environment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAT_PUSH_LAMBDA_RUNTIME", request.param)


async def read_when_written(path: Path) -> str:
    await eventually(lambda: path.exists() and path.read_text() != "")
    return await asyncio.to_thread(path.read_text)


async def process_ends(pid: int) -> None:
    await eventually(lambda: not is_running(pid))


async def test_a_handler_receives_the_event_and_its_remaining_time(start_function: StartFunction) -> None:
    function = await start_function(ECHO, seconds=5)
    answer = await function.invoke({"id": "é"})
    assert answer["event"] == {"id": "é"}
    assert 3000 < answer["left"] <= 5000


async def test_one_environment_serves_invocations_that_follow_each_other(start_function: StartFunction) -> None:
    function = await start_function(ECHO)
    answers = [await function.invoke({"number": number}) for number in range(3)]
    assert [answer["event"]["number"] for answer in answers] == list(range(3))
    assert len({answer["pid"] for answer in answers}) == 1


async def test_each_concurrent_invocation_has_its_own_environment_and_environments_are_reused(
    start_function: StartFunction,
) -> None:
    function = await start_function(ECHO)
    pids = []
    for _ in range(2):
        answers = await asyncio.gather(*(function.invoke({"number": number}) for number in range(3)))
        assert [answer["event"]["number"] for answer in answers] == list(range(3))
        pids.append({answer["pid"] for answer in answers})
    assert len(pids[0]) == 3
    assert pids[1] == pids[0]


async def test_log_lines_of_concurrent_invocations_are_never_mixed(start_function: StartFunction) -> None:
    """Lambda's client writes a line and its line end separately, so each environment needs a log stream of its own."""
    source = """
        import time

        def lambda_handler(event, context):
            print(event["line"], end="")
            time.sleep(event["sleep"])
            print(flush=True)
    """
    function = await start_function(source)
    slow = asyncio.create_task(function.invoke({"line": "slow", "sleep": 1}))
    await eventually(lambda: any(line == "slow" for line in function.log_lines()))
    await function.invoke({"line": "quick", "sleep": 0})
    await slow
    assert [[line for line in stream if line in ("slow", "quick")] for stream in function.log_streams()] == [
        ["slow"],
        ["quick"],
    ]


async def test_functions_share_the_concurrency_of_their_account_and_an_invocation_above_it_is_rejected_at_once(
    start_function: StartFunction, tmp_path: Path
) -> None:
    account = Account(concurrency=1)
    busy, other = [await start_function(ECHO, name=name, account=account) for name in ("Busy", "Other")]
    invocation = asyncio.create_task(busy.invoke({"sleep": 1}))
    await read_when_written(tmp_path / "Busy" / "asleep")
    for function in (busy, other):
        with pytest.raises(TooManyRequests) as caught:
            await function.invoke({})
        assert caught.value.error_type == "TooManyRequestsException"
    await invocation
    assert (await other.invoke({"id": 1}))["event"] == {"id": 1}
    assert account.throttled == 2


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps a high-water mark of another process")
async def test_a_function_that_exceeds_its_memory_for_a_moment_is_killed(start_function: StartFunction) -> None:
    function = await start_function(ECHO, megabytes=128)
    before = await function.invoke({"allocate": 32})
    with pytest.raises(FunctionError) as caught:
        await function.invoke({"allocate": 160})
    assert caught.value.error_type == "Runtime.ExitError"
    assert caught.value.message == "Error: Runtime exited with error: signal: killed"
    assert (await function.invoke({}))["pid"] != before["pid"]


async def test_a_function_can_import_only_its_code_its_layers_and_the_runtime(
    start_function: StartFunction, tmp_path: Path
) -> None:
    (tmp_path / "layer" / "python").mkdir(parents=True)
    (tmp_path / "layer" / "python" / "in_layer.py").touch()
    source = """
        import importlib.util

        def lambda_handler(event, context):
            return [name for name in event if importlib.util.find_spec(name)]
    """
    function = await start_function(source, layers=(tmp_path / "layer",))
    visible = ["app", "in_layer", "boto3", "awslambdaric", "snapshot_restore_py", "json"]
    assert await function.invoke([*visible, "pytest", "aiohttp", "local", "pip"]) == visible


async def test_a_function_has_only_the_variables_of_the_template_and_of_lambda(
    start_function: StartFunction, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THIS_MACHINE", "x")
    function = await start_function("""
        import os

        def lambda_handler(event, context):
            return dict(os.environ)
    """)
    environment = await function.invoke({})
    assert environment["SETTING"] == "of the template"
    assert environment["AWS_LAMBDA_FUNCTION_NAME"] == "Echo"
    assert environment["AWS_REGION"] == "us-east-1"
    assert "SECRET_OF_THIS_MACHINE" not in environment


async def test_an_exception_of_the_handler_becomes_a_function_error(start_function: StartFunction) -> None:
    function = await start_function(ECHO)
    with pytest.raises(FunctionError) as caught:
        await function.invoke({"raise": "no such conversation"})
    assert (caught.value.error_type, caught.value.message) == ("LookupError", "no such conversation")
    assert any("LookupError: no such conversation" in line for line in function.log_lines())


async def test_after_a_timeout_the_next_invocation_starts_a_new_process(
    start_function: StartFunction,
) -> None:
    function = await start_function(ECHO, seconds=1)
    before = await function.invoke({})
    with pytest.raises(FunctionError) as caught:
        await function.invoke({"sleep": 5})
    assert caught.value.error_type == "Sandbox.Timedout"
    assert (await function.invoke({}))["pid"] != before["pid"]


async def test_after_the_process_exits_the_next_invocation_starts_a_new_one(start_function: StartFunction) -> None:
    function = await start_function(ECHO)
    before = await function.invoke({})
    with pytest.raises(FunctionError) as caught:
        await function.invoke({"exit": 3})
    assert caught.value.error_type == "Runtime.ExitError"
    assert caught.value.message.endswith("Error: Runtime exited with error: exit status 3")
    assert (await function.invoke({}))["pid"] != before["pid"]


async def test_an_answer_may_have_up_to_6291556_bytes(start_function: StartFunction) -> None:
    function = await start_function(ECHO)
    assert len(await function.invoke({"answer_bytes": 6_291_556})) == 6_291_554
    with pytest.raises(FunctionError) as caught:
        await function.invoke({"answer_bytes": 6_291_557})
    assert caught.value.error_type == "Function.ResponseSizeTooLarge"


async def test_the_log_frames_each_invocation_and_reports_its_duration_and_a_cold_start(
    start_function: StartFunction,
) -> None:
    function = await start_function(ECHO)
    for _ in range(2):
        await function.invoke({"sleep": 0.1})
    await eventually(lambda: sum(line.startswith("REPORT ") for line in function.log_lines()) == 2)
    lines = function.log_lines()
    assert [line.split()[0] for line in lines] == ["START", "awake", "END", "REPORT"] * 2
    ids = [re.findall(r"RequestId: (\S+)", line) for line in lines if line != "awake"]
    assert ids[0] == ids[1] == ids[2] != ids[3] == ids[4] == ids[5]
    reports = [line for line in lines if line.startswith("REPORT")]
    assert ["Init Duration: " in report for report in reports] == [True, False]
    durations = [float(*re.findall(r"\tDuration: ([\d.]+) ms", report)) for report in reports]
    assert min(durations) >= 100


async def test_an_unknown_kind_of_environment_is_rejected_with_the_names_of_the_known_ones(
    start_function: StartFunction, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHAT_PUSH_LAMBDA_RUNTIME", "docker")
    with pytest.raises(ValueError, match="'docker'; set it to emulator or process"):
        await start_function(ECHO)


@pytest.mark.parametrize(
    "answer",
    ["Task timed out after 2.00 seconds", None, {}, [], {"errorType": "x", "errorMessage": "y"}],
)
async def test_an_answer_that_looks_like_an_error_is_returned_as_an_answer(
    start_function: StartFunction, answer: object
) -> None:
    function = await start_function(ECHO)
    assert await function.invoke({"answer": answer}) == answer


async def test_the_error_of_a_function_that_cannot_start_names_the_reason_each_time(
    start_function: StartFunction,
) -> None:
    function = await start_function("import no_such_package")
    for _ in range(2):
        with pytest.raises(FunctionError, match="No module named 'no_such_package'") as caught:
            await function.invoke({})
        assert caught.value.error_type == "Runtime.ImportModuleError"


async def test_the_error_of_a_wrong_handler_names_handler_and_module(start_function: StartFunction) -> None:
    function = await start_function("def another_name(event, context): ...")
    with pytest.raises(FunctionError, match="Handler 'lambda_handler' missing on module 'app'"):
        await function.invoke({})


async def test_after_a_kill_during_an_invocation_the_next_one_starts_a_new_process(
    start_function: StartFunction, tmp_path: Path
) -> None:
    function = await start_function(ECHO)
    invocation = asyncio.create_task(function.invoke({"sleep": 4}))
    pid = int(await read_when_written(tmp_path / "Echo" / "asleep"))
    await function.kill()
    with pytest.raises(FunctionError) as caught:
        await invocation
    assert caught.value.error_type == "Sandbox.Killed"
    await process_ends(pid)
    assert (await function.invoke({}))["pid"] != pid


async def test_a_kill_between_two_invocations_fails_neither_of_them(start_function: StartFunction) -> None:
    function = await start_function(ECHO)
    before = await function.invoke({})
    await function.kill()
    assert (await function.invoke({}))["pid"] != before["pid"]


async def test_an_invocation_continues_after_its_caller_was_cancelled(
    start_function: StartFunction, tmp_path: Path
) -> None:
    function = await start_function(ECHO)
    caller = asyncio.create_task(function.invoke({"sleep": 0.3}))
    await read_when_written(tmp_path / "Echo" / "asleep")
    caller.cancel()
    await eventually(lambda: "awake" in function.log_lines())


async def test_a_function_at_work_is_killed_when_the_supervisor_is_killed(tmp_path: Path, runtime: Path) -> None:
    (tmp_path / "app.py").write_text(
        "import os, time\n"
        "def lambda_handler(event, context):\n"
        "    open('pid', 'w').write(str(os.getpid()))\n"
        "    time.sleep(60)\n"
    )
    supervisor = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c"),
        "import asyncio, sys\n"
        "from datetime import timedelta\n"
        "from pathlib import Path\n"
        "from local.aws.lambda_runtime import lambda_function\n"
        "from local.aws.template import Function\n"
        "async def main(folder, runtime):\n"
        "    function = Function('F', folder, 'app.lambda_handler', timedelta(minutes=1), 512, {}, ())\n"
        "    async with lambda_function(function, runtime=runtime, environment={}, folder=folder) as running:\n"
        "        await running.invoke({})\n"
        "asyncio.run(main(*map(Path, sys.argv[1:])))\n",
        *(tmp_path, runtime),
        cwd=PROJECT,
    )
    pid = int(await read_when_written(tmp_path / "pid"))
    os.kill(supervisor.pid, signal.SIGKILL)
    await supervisor.wait()
    await process_ends(pid)
