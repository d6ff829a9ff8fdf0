"""`python -m bench`: load, measure, print. The server has one core; Postgres, OpenBao and the load share the other."""

import argparse
import pstats
import tempfile
from collections.abc import Mapping
from pathlib import Path

import orjson
import uvloop

from api.app import Api
from bench import spine
from bench.cases import Case, cases, floor, unrecorded
from bench.cores import OTHER_CORE, SERVER_CORE, on_core
from bench.costs import CRYPTO, DATABASE, JSON, PATH, RECORD, REST
from bench.house import House, house
from bench.load import Measured, ask, drive, message
from bench.server import Kind, serving
from telemetry import logs

_TURNS = 5
_WARM_UP = 0.3  # of the seconds of a case; keyrings are opened and plans cached in it


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="customers of all 20 tenants")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each case")
    parser.add_argument("--concurrency", type=int, default=8, help="connections")
    parser.add_argument("--folder", type=Path, default=Path(".coffer-bench"), help="where loaded data is kept")
    parser.add_argument("--profile", action="store_true", help="print what case (a) spends its time on by cProfile")
    asked = parser.parse_args()
    logs.configure("WARNING")
    with on_core(OTHER_CORE):
        uvloop.run(_profile(asked) if asked.profile else _bench(asked))


async def _bench(asked: argparse.Namespace) -> None:
    async with house(asked.folder.resolve(), asked.rows) as built:
        print(
            f"{built.rows_each * len(built.tenants):,} customers of {len(built.tenants)} tenants;"
            f" {asked.concurrency} connections, {asked.seconds:g} s a case; server on core {SERVER_CORE},"
            f" Postgres and load on core {OTHER_CORE}"
        )
        wanted = await _cases(built)
        static = {f"static-{number}": tenant.tenant for number, tenant in enumerate(built.tenants)}
        with serving(built.settings, Kind(floor=static)) as port:
            case = floor(built, list(static))
            lowest = await _measured(port, case, asked)
        print(f"\n{'':34}{'requests/s':>10}{'p50 ms':>9}{'p99 ms':>9}{'of floor':>10}")
        with serving(built.settings, Kind()) as port:
            for each in wanted:
                _print_rate(each, await _measured(port, each, asked), lowest)
            cost = await _compared(port, wanted[0], wanted[-1], asked)
        _print_rate(case, lowest, lowest)
        with serving(built.settings, Kind(is_unrecorded=True)) as port:
            _print_rate(unrecorded(wanted[0]), await _measured(port, wanted[0], asked), lowest)
        print(f"({wanted[-1].letter}) costs {cost:.2f} of (a), both asked by turns")
        print(f"\nms of a request alone{'':13}" + "".join(f"{part:>10}" for part in (*_PARTS, "all")))
        with serving(built.settings, Kind(is_timed=True)) as port:
            for each in wanted:
                _print_split(each, await _split(port, each, asked.seconds))
        await spine.measure(built, asked.seconds, asked.rows)


_PARTS = (DATABASE, RECORD, CRYPTO, REST, JSON)


async def _cases(built: House) -> list[Case]:
    api = Api(built.settings)
    try:
        issue = api.tokens.issue
        managers = [await issue(tenant.credential(tenant.manager)) for tenant in built.tenants]
        agents = [await issue(tenant.credential(tenant.agent)) for tenant in built.tenants]
        keepers = [await issue(tenant.credential(tenant.keeper)) for tenant in built.tenants]
        return cases(built, managers, agents, keepers, await issue(built.spare.credential(built.spare.manager)))
    finally:
        await api.close()


async def _measured(port: int, case: Case, asked: argparse.Namespace) -> Measured:
    """After a warm-up that is checked as well but does not count."""
    for seconds in (asked.seconds * _WARM_UP, asked.seconds):
        measured = await drive(port, case.requests, case.expected, seconds=seconds, concurrency=asked.concurrency)
    return measured


async def _compared(port: int, one: Case, other: Case, asked: argparse.Namespace) -> float:
    """How often as long the other takes: by turns, so that whatever else the machine does slows both."""
    taken = {one.letter: 0.0, other.letter: 0.0}
    for _ in range(_TURNS):
        for case in (one, other):
            seconds = asked.seconds / _TURNS
            measured = await drive(port, case.requests, case.expected, seconds=seconds, concurrency=asked.concurrency)
            taken[case.letter] += 1 / measured.rate
    return taken[other.letter] / taken[one.letter]


async def _split(port: int, case: Case, seconds: float) -> Mapping[str, float]:
    """Milliseconds of each part of a request, asked one at a time."""
    for length in (seconds * _WARM_UP, seconds / 2):
        await ask(port, message(PATH, b"", ""))
        await drive(port, case.requests, case.expected, seconds=length, concurrency=1)
    told = orjson.loads(await ask(port, message(PATH, b"", "")))
    return {part: told.get(part, 0.0) * 1000 / told["requests"] for part in _PARTS}


def _print_rate(case: Case, measured: Measured, lowest: Measured) -> None:
    times = f"{measured.percentile(50):9.2f}{measured.percentile(99):9.2f}{measured.rate / lowest.rate:10.3f}"
    print(f"({case.letter}) {case.name:30}{measured.rate:10.1f}{times}", flush=True)


def _print_split(case: Case, split: Mapping[str, float]) -> None:
    parts = "".join(f"{split[part]:10.2f}" for part in _PARTS)
    print(f"({case.letter}) {case.name:30}{parts}{sum(split.values()):10.2f}", flush=True)


async def _profile(asked: argparse.Namespace) -> None:
    async with house(asked.folder.resolve(), asked.rows) as built:
        page = (await _cases(built))[0]
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder, "profile"))
            with serving(built.settings, Kind(profile=path)) as port:
                await drive(port, page.requests, page.expected, seconds=asked.seconds, concurrency=1)
            stats = pstats.Stats(path)
        for order in ("tottime", "cumulative"):
            stats.sort_stats(order).print_stats(45)


if __name__ == "__main__":
    main()
