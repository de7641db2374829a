"""The part of W&B's HTTP protocol that runs and sweeps of the unmodified `wandb` client need, over the store.

    app.py       HTTP: routes, keys, limits, errors          writers.py   who may write to a run
    graphql.py   operations by name                          stream.py    rows, output, marks, ends
    account.py   who is there, what the server can           files.py     small files
    runs.py      how a run begins, its config                reads.py     wandb.Api()
    sweeps.py    sweeps and what people ask of them          agents.py    `wandb agent`
    filters.py   which runs, in which order                  histories.py rows, from page to page
    listings.py  runs, from page to page

A gateway keeps nothing that counts: everything is in the store, so several may run side by side and any may die.
"""
