"""Calls between processes, take-overs and hand-overs: ``python -m benchmarks.cluster``.

    calls     calls forwarded to another process, beside local ones and a bare framed socket
    local     calls of objects that are here, in a cluster beside a runtime without one
    workers   four processes on one SQLite file, beside one process alone
    peers     request and reply by NATS and gRPC, beside a forwarded call
    deaths    the longest silence for callers when the process with their objects dies or stops
    moves     the longest wait of a caller while another process gets half of the objects, and
              while it leaves
    rolling   the longest wait of a caller, and the moves of objects, while four processes give
              way to four of the next release
    nodes     memory of a node and of a link, and the database's work for idle nodes
    all       these one after the other

All processes are on this machine. Ratios are of runs that alternate: the median of the rounds'
ratios, the least and the greatest, and whether the median keeps its bound.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import get_args

from .. import loops
from . import calls, deaths, local, moves, nodes, peers, rolling, workers
from .rounds import Effort


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cluster",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = ["all", "calls", "local", "workers", "peers", "deaths", "moves", "rolling", "nodes"]
    parser.add_argument("part", nargs="?", default="all", choices=names)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.4, help="of each rate in each round")
    parser.add_argument("--loop", choices=get_args(loops.LoopName), help="the one to measure")
    parser.add_argument("--deaths", type=int, default=20, help="of each kind")
    parser.add_argument("--objects", type=int, default=100_000, help="that are in memory")
    parser.add_argument(
        "--nodes", type=int, nargs="+", default=[10, 100], help="numbers of nodes, ascending"
    )
    parser.add_argument("--idle", type=float, default=20, help="seconds of idle nodes")
    parser.add_argument("--ttl", type=float, default=5, help="of these nodes")
    arguments = parser.parse_args()
    effort = Effort(rounds=arguments.rounds, seconds=arguments.seconds, only=arguments.loop)
    parts: dict[str, Callable[[], None]] = {
        "calls": partial(calls.measure, effort),
        "local": partial(local.measure, effort),
        "workers": partial(workers.measure, effort),
        "peers": partial(peers.measure, effort),
        "deaths": partial(deaths.measure, arguments.deaths),
        "moves": partial(moves.measure, arguments.objects),
        "rolling": rolling.measure,
        "nodes": partial(nodes.measure, arguments.nodes, arguments.idle, arguments.ttl),
    }
    for name, part in parts.items():
        if arguments.part in ("all", name):
            part()


if __name__ == "__main__":
    main()
