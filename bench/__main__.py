"""./dev bench [NAME ...]: runs benchmarks, and prints and publishes their results."""

import argparse
import asyncio
import importlib
import inspect
import signal
import sys
import time

# The imports are inside bench(), because ./dev calls parser() before any package is installed.

# Each is a module bench/<name>.py with `async def run() -> Result`. Its docstring says what it measures, and how.
NAMES = (
    *("latency", "drain", "providers", "round_trips", "cold", "memory", "rate"),
    *("database", "insert", "bulk", "register", "fairness", "lateness", "cost", "package_size"),
)


async def bench(names: list[str]) -> int:
    """Runs the benchmarks one after the other. Returns 0 if every target is met, otherwise 1."""
    from bench.publish import Publication, machine
    from bench.report import table, verdict

    publication = Publication(NAMES)
    measured_on = machine()
    missed = 0
    for name in names:
        module = importlib.import_module(f"bench.{name}")
        description = inspect.getdoc(module) or ""
        print(f"\n== {name}: {description.splitlines()[0]}", flush=True)
        began = time.monotonic()
        result = await module.run()
        print("", table(result), "", *map(verdict, result.targets), *result.notes, sep="\n")
        print(f"({name}: {time.monotonic() - began:.0f} s)", flush=True)
        publication.add(name, description, result, measured_on)
        missed += sum(not target.ok for target in result.targets)
    print(f"\n{missed} target(s) missed" if missed else "\nall targets met")
    return 1 if missed else 0


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the options, which needs the standard library only."""
    description = "Runs benchmarks, and writes their results into bench/results.json and docs/performance.md."
    options = argparse.ArgumentParser(prog="./dev bench", description=description)
    which = f"a benchmark: {', '.join(NAMES)}; without a name, all of them"
    options.add_argument("names", nargs="*", type=_name, metavar="NAME", help=which)
    return options


def _name(text: str) -> str:
    if text not in NAMES:
        raise argparse.ArgumentTypeError(f"no such benchmark: {text}; choose from {', '.join(NAMES)}")
    return text


def main() -> int:
    """Runs the command and returns the exit code. On a signal it stops all child processes first."""
    names = parser().parse_args().names or list(NAMES)

    async def until_signal() -> int:
        task = asyncio.ensure_future(bench(names))
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        return await task

    try:
        return asyncio.run(until_signal())
    except asyncio.CancelledError:
        return 130


if __name__ == "__main__":
    sys.exit(main())
