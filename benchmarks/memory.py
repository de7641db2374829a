"""Redis memory per finished run with 10 parameters, through the real transitions, and where it lies.

Runs are added, claimed, confirmed by a heartbeat and ended; in the second half of the figures a script has also
called init and logged one row and a summary. Logged rows and printed output are counted apart: how much of them there
is, the script decides. The totals come from the server's own count of what it allocated, before and after; the
breakdown is MEMORY USAGE of every key, which counts each key alone.

The baseline is Optuna's JournalRedisBackend with trials of as many parameters, measured in the same run on the same
server: what it keeps for a finished trial, without its snapshots. Nothing here depends on how busy the machine is.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections import Counter

import harness
from harness import Figure, Report, Server, Spread, StoreAgent
from redis import Redis

from resweep_scheduler.store import EndRequest, Store

TARGET = 1536.0  # bytes
_OF_A_RUN = ("config", "meta", "summary", "checkpoint", "history", "output")
_OF_THE_SCRIPT = ("history", "output")


def used_memory(client: Redis) -> int:
    """Bytes the server allocated. What does not belong to the data is the same before and after, but for some KB."""
    return int(client.info("memory")["used_memory"])


def finish_runs(store: Store, sweep_id: str, first: int, count: int, *, sdk: bool) -> None:
    """Brings runs through their whole life."""
    agent = StoreAgent(store, sweep_id, f"node17.cluster-{first}")
    for index in range(first, first + count):
        store.add_runs(sweep_id, harness.offer_for(sweep_id, index))
        run = agent.claim().run
        if run is None:
            raise RuntimeError("a run that was just added must be claimed")
        store.heartbeat(sweep_id, agent=agent.name, token=run.token, lease_ms=harness.LEASE_MS)
        if sdk:
            token = run.token
            store.init_run(run_id=token.run_id, resume="allow", nonce=token.nonce, attempt=token.attempt, config={})
            values = {"loss": 0.1234567 + index, "accuracy": 0.9876543, "epoch": 9}
            store.log(
                token, first_seq=1, rows=[(9, json.dumps(values))], summary=json.dumps(values), metric=values["loss"]
            )
        store.end_attempt(EndRequest(run.token, exit_code=0))


def kind_of(key: str, store: Store) -> str:
    """What kind of key it is: one of a run, or of a sweep, by its last part."""
    name = key.removeprefix(store.keys.prefix)
    area, _, rest = name.partition(":")
    _, _, part = rest.partition(":")
    if area == "run":
        return f"run:<id>:{part}" if part in _OF_A_RUN else "run:<id>"
    return f"sweep:<id>:{part.partition(':')[0]}" if part else "sweep:<id>"


def memory_by_kind(client: Redis, store: Store) -> Counter[str]:
    kinds: Counter[str] = Counter()
    for key in client.scan_iter(match=f"{store.keys.prefix}*", count=1000):
        kinds[kind_of(str(key), store)] += int(client.memory_usage(key, samples=0) or 0)
    return kinds


def per_run(server: Server, runs: int, *, sdk: bool) -> tuple[float, dict[str, float]]:
    """Bytes a run by the server's count without rows and output, and by kind of key."""
    store = server.store()
    client = server.client()
    client.flushall()
    sweep_id = harness.new_sweep(store)
    finish_runs(store, sweep_id, 0, 100, sdk=sdk)  # so that what a sweep costs once is there
    before, kinds_before = used_memory(client), memory_by_kind(client, store)
    finish_runs(store, sweep_id, 100, runs, sdk=sdk)
    after, kinds_after = used_memory(client), memory_by_kind(client, store)
    kinds = {kind: (kinds_after[kind] - kinds_before[kind]) / runs for kind in kinds_after}
    script = sum(kinds.get(f"run:<id>:{part}", 0.0) for part in _OF_THE_SCRIPT)
    return (after - before) / runs - script, kinds


def per_trial(server: Server, trials: int) -> float:
    """Bytes per finished trial of Optuna's Redis journal, without snapshots."""
    import optuna
    from optuna.storages.journal import JournalRedisBackend

    optuna.logging.set_verbosity(logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    client = server.client()
    client.flushall()
    storage = optuna.storages.JournalStorage(JournalRedisBackend(server.url))
    study = optuna.create_study(storage=storage, sampler=optuna.samplers.RandomSampler(seed=1))

    def objective(trial: optuna.Trial) -> float:
        floats = ("learning_rate", "weight_decay", "momentum", "dropout")
        total = sum(trial.suggest_float(name, 0.0, 1.0) for name in floats)
        total += sum(trial.suggest_int(name, 1, 512) for name in ("batch_size", "layers", "width", "seed"))
        trial.suggest_categorical("optimizer", ["adam", "sgd", "adamw"])
        trial.suggest_categorical("activation", ["relu", "gelu"])
        return total

    study.optimize(objective, n_trials=50)
    _drop_snapshots(client)
    before = used_memory(client)
    study.optimize(objective, n_trials=trials)
    _drop_snapshots(client)
    return (used_memory(client) - before) / trials


def _drop_snapshots(client: Redis) -> None:
    for key in client.scan_iter(match="*:snapshot*"):
        client.delete(key)


def measure(quick: bool) -> Report:
    """Both kinds of runs, and Optuna's trials."""
    runs, trials = (1000, 50) if quick else (5000, 300)
    report = Report("Memory: Redis bytes per finished run with 10 parameters")
    with harness.private_server("") as server:
        harness.say("memory: Optuna's journal")
        theirs = per_trial(server, trials)
        for name, sdk in (("transitions only", False), ("and a script with init and summary", True)):
            harness.say(f"memory: {name}")
            ours, kinds = per_run(server, runs, sdk=sdk)
            report.figures.append(
                Figure(
                    f"bytes per run, {name}",
                    "B",
                    Spread.of([ours]),
                    "Optuna JournalRedis, a trial",
                    Spread.of([theirs]),
                    f"x {ours / theirs:.2f}",
                    f"{TARGET:,.0f} B",
                    ours <= TARGET,
                )
            )
            parts = ", ".join(f"{kind} {size:,.0f}" for kind, size in sorted(kinds.items(), key=_largest) if size >= 1)
            report.remarks.append(f"{name}, MEMORY USAGE in bytes per run: {parts}")
    return report


def _largest(item: tuple[str, float]) -> float:
    return -item[1]


if __name__ == "__main__":
    harness.main(measure, __doc__)
