"""A function runs here as it does in Lambda."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from local.aws.lambda_runtime import Account, FunctionError, TooManyRequests
from local.packages import PROJECT
from tests.local.aws.conftest import StartFunction, eventually

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
        return {"pid": os.getpid(), "event": event, "left": context.get_remaining_time_in_millis()}
"""


async def read_when_written(path: Path) -> str:
    await eventually(lambda: path.exists() and path.read_text() != "")
    return await asyncio.to_thread(path.read_text)


async def process_ends(pid: int) -> None:
    await eventually(lambda: not Path(f"/proc/{pid}/exe").exists())


async def test_a_handler_gets_the_event_and_its_remaining_time(start_function: StartFunction) -> None:
    function = await start_function(ECHO, seconds=5)
    answer = await function.invoke({"id": "é"})
    assert answer["event"] == {"id": "é"}
    assert 3000 < answer["left"] <= 5000


async def test_invocations_after_each_other_are_served_by_one_environment(start_function: StartFunction) -> None:
    function = await start_function(ECHO)
    answers = [await function.invoke({"number": number}) for number in range(3)]
    assert [answer["event"]["number"] for answer in answers] == list(range(3))
    assert len({answer["pid"] for answer in answers}) == 1


async def test_invocations_at_the_same_time_run_in_environments_of_their_own_which_are_kept(
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


async def test_lines_of_invocations_at_the_same_time_are_never_torn(start_function: StartFunction) -> None:
    """Lambda's client writes a printed line and its end apart: each environment has a log stream of its own."""
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


async def test_all_functions_of_an_account_share_its_concurrency_and_what_exceeds_it_is_refused_at_once(
    start_function: StartFunction, tmp_path: Path
) -> None:
    account = Account(concurrency=1)
    busy, refused = [await start_function(ECHO, name=name, account=account) for name in ("Busy", "Refused")]
    invocation = asyncio.create_task(busy.invoke({"sleep": 1}))
    await read_when_written(tmp_path / "Busy" / "asleep")
    for function in (busy, refused):
        with pytest.raises(TooManyRequests) as caught:
            await function.invoke({})
        assert caught.value.error_type == "TooManyRequestsException"
    await invocation
    assert (await refused.invoke({"id": 1}))["event"] == {"id": 1}
    assert account.throttled == 2


async def test_a_function_that_exceeds_its_memory_is_killed_however_short_the_peak(
    start_function: StartFunction,
) -> None:
    function = await start_function(ECHO, megabytes=128)
    before = await function.invoke({"allocate": 32})
    with pytest.raises(FunctionError) as caught:
        await function.invoke({"allocate": 160})
    assert caught.value.error_type == "Runtime.ExitError"
    assert caught.value.message == "Error: Runtime exited with error: signal: killed"
    assert (await function.invoke({}))["pid"] != before["pid"]


async def test_a_function_sees_its_code_its_layers_and_the_runtime_and_nothing_else(
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


async def test_a_function_sees_the_variables_of_the_template_and_of_lambda_alone(
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


async def test_an_exception_of_the_handler_is_a_function_error(start_function: StartFunction) -> None:
    function = await start_function(ECHO)
    with pytest.raises(FunctionError) as caught:
        await function.invoke({"raise": "no such room"})
    assert (caught.value.error_type, caught.value.message) == ("LookupError", "no such room")
    assert any("LookupError: no such room" in line for line in function.log_lines())


async def test_a_timeout_is_a_function_error_and_the_next_invocation_starts_anew(
    start_function: StartFunction,
) -> None:
    function = await start_function(ECHO, seconds=1)
    before = await function.invoke({})
    with pytest.raises(FunctionError) as caught:
        await function.invoke({"sleep": 5})
    assert caught.value.error_type == "Sandbox.Timedout"
    assert (await function.invoke({}))["pid"] != before["pid"]


@pytest.mark.parametrize(
    "answer",
    ["Task timed out after 2.00 seconds", None, {}, [], {"errorType": "x", "errorMessage": "y"}],
)
async def test_an_answer_that_resembles_an_error_is_an_answer(start_function: StartFunction, answer: object) -> None:
    function = await start_function(ECHO)
    assert await function.invoke({"answer": answer}) == answer


async def test_a_function_that_cannot_start_says_why(start_function: StartFunction) -> None:
    function = await start_function("import no_such_package")
    for _ in range(2):
        with pytest.raises(FunctionError, match="No module named 'no_such_package'") as caught:
            await function.invoke({})
        assert caught.value.error_type == "Runtime.ImportModuleError"


async def test_a_wrong_handler_says_so(start_function: StartFunction) -> None:
    function = await start_function("def another_name(event, context): ...")
    with pytest.raises(FunctionError, match="Handler 'lambda_handler' missing on module 'app'"):
        await function.invoke({})


async def test_a_killed_function_does_not_answer_and_the_next_invocation_starts_anew(
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


async def test_a_function_killed_between_two_invocations_fails_neither(start_function: StartFunction) -> None:
    function = await start_function(ECHO)
    before = await function.invoke({})
    await function.kill()
    assert (await function.invoke({}))["pid"] != before["pid"]


async def test_an_invocation_goes_on_when_its_caller_has_gone(start_function: StartFunction, tmp_path: Path) -> None:
    function = await start_function(ECHO)
    caller = asyncio.create_task(function.invoke({"sleep": 0.3}))
    await read_when_written(tmp_path / "Echo" / "asleep")
    caller.cancel()
    await eventually(lambda: "awake" in function.log_lines())


async def test_a_function_dies_with_the_supervisor(tmp_path: Path, runtime: Path) -> None:
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
        "from local.lambda_runtime import lambda_function\n"
        "from local.template import Function\n"
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
