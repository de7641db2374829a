"""Many clients of the gateway at once: each row is there, and once."""

from __future__ import annotations

import threading
from contextlib import closing

from support.gateways import Gateway
from support.wire import HttpSender, Wire

from resweep_scheduler.store import RunState, Scope, open_store

CLIENTS = 200
POSTS = 4
ROWS = 5


def test_two_hundred_clients_that_log_at_once_lose_no_row(gateway: Gateway) -> None:
    """Each has a connection of its own; every second answer is treated as lost, so its rows are sent again."""
    together = threading.Barrier(CLIENTS)
    faults: list[BaseException] = []

    def work(index: int) -> None:
        try:
            with closing(HttpSender(gateway.url)) as sender:
                run = Wire(sender, project="p").begin(f"crowd{index}")
                together.wait(60)
                for post in range(POSTS):
                    body = run.rows(*({"value": index * 1000 + post * ROWS + row} for row in range(ROWS)))
                    for _ in range(1 + post % 2):
                        run.send(body)
                run.finish(0)
        except BaseException as error:
            together.abort()
            faults.append(error)

    workers = [threading.Thread(target=work, args=(index,)) for index in range(CLIENTS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert not faults, faults[0]
    store = open_store(gateway.redis_url, Scope("local", "p"))
    for index in range(CLIENTS):
        run_id = f"crowd{index}"
        assert store.run(run_id).state is RunState.FINISHED
        rows = [(row.step, row.values["value"]) for row in store.history(run_id)]
        assert rows == [(step, index * 1000 + step) for step in range(POSTS * ROWS)]
        assert store.client.xlen(store.keys.run(run_id, "history")) == POSTS * ROWS
    store.client.close()
