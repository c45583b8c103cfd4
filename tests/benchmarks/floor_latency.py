"""The floor of how soon a call starts: two processes, bare psycopg, this package's own statements.

One inserts a row and sends NOTIFY, the other one hears it and claims the row. Nothing else happens,
so that what it measures is the server, its disk, and how soon this machine wakes up.
"""

from __future__ import annotations

import datetime
import select
import subprocess
import sys
import time
from pathlib import Path

import psycopg

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def starts(count: int) -> list[float]:
    """Milliseconds from the beginning of the insertion to the end of the claim, on an idle machine;
    on the default database of the Django project."""
    from django.db import connection

    from django_tasksets.ids import new_id
    from django_tasksets.store.contract import NewSubtask
    from django_tasksets.store.postgresqlstatements import insert_few
    from tests.benchmarks import lab

    address = lab.postgresql_address(str(connection.settings_dict["NAME"]))
    session = psycopg.connect(address, autocommit=True)
    command = [sys.executable, "-m", "tests.benchmarks.floor_latency", address]
    found: list[float] = []
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as peer:
        assert peer.stdout is not None
        assert peer.stdin is not None
        assert peer.stdout.readline() == "listens\n"
        for _ in range(count):
            lab.rest()
            row = NewSubtask(
                id=new_id().hex, taskset_id=None, role="MEMBER", position=None, generation=1,
                weight=1, task_name="floor", args="[]", kwargs="{}", options="", links="",
                queue_name="floor", priority=0, claim_order=time.time_ns() // 1000, run_after=None,
                expires_at=None, status="READY", enqueued_at=datetime.datetime.now(datetime.UTC),
            )  # fmt: skip
            began = time.time()
            session.execute(insert_few(1).encode(), row, prepare=True)
            session.execute("NOTIFY floor")
            found.append((float(peer.stdout.readline()) - began) * 1000)
        peer.stdin.close()
    session.execute("DELETE FROM tasksets_subtaskrecord WHERE queue_name = 'floor'")
    session.close()
    return found


def listen(address: str) -> None:
    """Claim one row each time NOTIFY comes, and say when that was done."""
    from tests.benchmarks.floor_postgresql import Floor

    session = psycopg.connect(address, autocommit=True)
    session.execute("LISTEN floor")
    worker = "00000000000000000000000000000001"
    claim = Floor.CLAIM.replace("'default'", "'floor'").encode()
    print("listens", flush=True)
    while True:
        readable = select.select([session, sys.stdin], [], [])[0]
        if sys.stdin in readable:
            return
        if list(session.notifies(timeout=0)):
            session.execute(claim, (1, worker), prepare=True).fetchall()
            print(time.time(), flush=True)


if __name__ == "__main__":
    listen(sys.argv[1])
