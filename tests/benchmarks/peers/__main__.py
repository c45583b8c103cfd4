"""The same set of calls on this package and on its peers, by turns, and a table of rates.

Each round runs everyone once, in processes that start for it and end with it. The ratios are those
of rates that were measured in the same round; shown is their median.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
# Not this directory, which Python put there: its modules are in the package.
sys.path[0:1] = [str(ROOT), str(ROOT / "testproject")]

from tests.benchmarks import lab
from tests.benchmarks.peers.contenders import CONTENDERS, REFERENCES, Contender
from tests.benchmarks.peers.outcomes import Outcomes, table, versions
from tests.benchmarks.peers.running import NotRun, run


def main() -> int:
    """0 if everyone who was asked for has run."""
    # Told to end, it still gives back what it has taken on the servers, and ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    options = parse()
    chosen = [c for c in CONTENDERS if not options.only or c.name in options.only]
    outcomes = {contender: Outcomes() for contender in chosen}
    for number in range(options.rounds):
        lab.say(f"== round {number + 1} of {options.rounds}")
        for contender in chosen:
            compete(contender, outcomes[contender], options.count)
    print(versions(), end="\n\n")
    print(table(outcomes, REFERENCES))
    return int(any(found.reason for found in outcomes.values()))


def compete(contender: Contender, found: Outcomes, count: int) -> None:
    """One run, and what came of it; none after one that failed."""
    if found.reason:
        return
    count = min(count, contender.at_most or count)
    try:
        timing = run(contender, count)
    except NotRun as reason:
        found.reason = str(reason)
        lab.say(f"{contender.name}: not run: {reason}")
        return
    found.add(count, timing)
    lab.say(f"{contender.name}: {count:,} in {timing.whole:.2f} s: {count / timing.whole:,.0f}/s")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python tests/benchmarks/peers", description=__doc__)
    names = [contender.name for contender in CONTENDERS]
    parser.add_argument("--count", type=int, default=10_000, help="calls; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--only", nargs="+", choices=names, help="these; default: all")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
