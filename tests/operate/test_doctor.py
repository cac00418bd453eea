"""./dev doctor on the local cloud: its output, its exit code, and wrong usage."""

import asyncio
import sys
from pathlib import Path

import pytest

from operate.__main__ import main
from operate.doctor.results import Healthy, NotLocal
from tests.operate.conftest import BreakableCloud, vault_update

PROJECT = Path(__file__).parents[2]


async def test_a_healthy_local_cloud_has_no_finding(breakable: BreakableCloud) -> None:
    results = await breakable.examination()
    assert [result.what for result in results if isinstance(result, NotLocal)] == [
        "versions",
        "concurrency",
        "schedules",
        "alarms",
    ]
    assert all(isinstance(result, Healthy | NotLocal) for result in results)


async def test_the_doctor_prints_fault_effect_and_remedy_and_exits_with_1(breakable: BreakableCloud) -> None:
    await breakable.execute("alter table public.user_devices disable row level security")
    argv = (sys.executable, "-m", "operate", "doctor", "--env", breakable.env_file)
    process = await asyncio.create_subprocess_exec(*argv, cwd=PROJECT, stdout=asyncio.subprocess.PIPE)
    output = (await process.communicate())[0].decode()
    assert process.returncode == 1
    assert (
        "FINDING   row level security of user_devices is off\n"
        "  effect  Every signed-in user can read and write the rows of all users, within the grants of the table.\n"
        "  remedy  alter table public.user_devices enable row level security;\n"
    ) in output
    assert output.splitlines()[-1] == "1 findings, 0 unknown"
    await breakable.recover()
    code, output = await breakable.run(f"./dev doctor --env {breakable.env_file}")
    assert (code, output.splitlines()[-1]) == (0, "healthy")


@pytest.mark.parametrize("options", ["", "--env missing", "--env x --stack y", "--env missing --send me"])
def test_wrong_usage_exits_with_2_and_prints_no_result(
    options: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["./dev", "doctor", *options.split()])
    with pytest.raises(SystemExit) as ended:
        sys.exit(main())
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "./dev doctor: " in printed.err


async def test_the_doctor_prints_no_secret_and_no_push_token(
    breakable: BreakableCloud, capsys: pytest.CaptureFixture[str]
) -> None:
    phone = await breakable.phone(breakable.gus, "phone")
    await breakable.execute(vault_update("push_webhook_secret", "an unknown secret"))
    await breakable.examination(
        backend_secret_id=breakable.secret({"supabase_secret_key": "sb_secret_of_another_project"}),
        webhook_secret_id=breakable.secret('{"current": "a secret that is cut off'),
    )
    await breakable.examination()
    output = capsys.readouterr().out
    secrets = ("an unknown secret", "sb_secret_of", "cut off", breakable.cloud.webhook_secret)
    for secret in (*secrets, breakable.cloud.supabase.secret_key, phone.token):
        assert secret not in output
