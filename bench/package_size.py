"""Kilobytes that the package for Expo apps adds to an app, minified and gzipped, without its peers.

esbuild bundles each entry of the package, and all of them together, as an app that uses all of it. An app that cannot
have expo-sqlite also has `async-storage`. Supabase, Expo, sql.js, React and React Native are not counted. A part that
imports another one contains it.
"""

import asyncio
import json
from pathlib import Path

from bench.report import Plot, Result, Target
from local.packages import node

LIMIT = 25


async def run() -> Result:
    """Kilobytes (1,000 bytes) by entry."""
    command = (node(), Path(__file__).with_suffix(".mjs"))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"esbuild ended with {process.returncode}")
    sizes: dict[str, tuple[int, int]] = json.loads(output)
    rows = [(name, minified / 1000, gzipped / 1000) for name, (minified, gzipped) in sizes.items()]
    return Result(
        columns=("what is imported", "kB minified", "kB gzipped"),
        rows=list(rows),
        targets=[Target(f"{name}, kB gzipped", gzipped, LIMIT) for name, _, gzipped in rows[-2:]],
        plot=Plot("what is imported", ("kB gzipped",), "kB gzipped"),
    )
