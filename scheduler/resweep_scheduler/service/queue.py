from resweep_scheduler.store import Store


def hand_over(store: Store, sweep_id: str, next_index: int) -> None: ...
