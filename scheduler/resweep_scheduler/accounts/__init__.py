"""What a run and a sweep cost, and what of it preemption took: attempts, waits, time lost, goodput.

Everything is computed from the events of the sweep, the run records and the steps that were logged; nothing is stored.
All times are milliseconds on the Redis clock.

*attempt*
    From its claim to the event that ended it. Nobody can tell when a machine that vanished stood still, so an attempt
    without a reported end lasts until its lease ran out. An owner that was given up and came back (event ``adopted``)
    goes on with the same attempt. An attempt that is not over lasts until now.
*queue wait*
    From the moment at which the run was put on the run queue until it was claimed, or killed, or now. What an attempt
    that was adopted "waited" is none.
*notice*
    The event ``preempting``: where the word came from, and the lead time, that is how long before the machine's end it
    came. Not every source knows it.
*useful time*
    The part of an attempt that ended in finished steps: up to the moment to which its work was *kept*. An attempt that
    finished its run is useful as a whole. Of any other, what was kept is told by the next attempts: the first step that
    one of them logged is the *restart step*, and the last step before it, or the last checkpoint before it, is the last
    thing kept. While no later attempt has logged anything, the restart step is the one after the last checkpoint. When
    there will be no later attempt (the run failed, crashed or was killed), all its steps stay, and the last one, or the
    last checkpoint, is the last thing kept.
*time lost*
    The rest of an attempt that is over: what was done after the last thing kept. *Steps lost* are those logged in it.
*open time*
    The part of a running attempt after its last checkpoint: it is not known yet whether it will be kept.
*unknown time*
    Attempts of which nothing says how much was kept (neither checkpoints nor logged steps), and what the record of the
    run counted of attempts whose events are gone.
*goodput*
    useful / (useful + lost): time that ended in finished steps / time spent, as far as either is known. Open and
    unknown time is in neither. None when nothing is known.

What these rules cannot see: a script that restores nothing and lets resweep number its steps looks as if it had gone
on where it was; starting again (interpreter, imports, reading the checkpoint) counts as part of the first step; steps
count when they reach Redis, up to half a second after ``log``, or later after an outage.
"""

from resweep_scheduler.accounts.attempts import Attempt, Life, Mark, Notice, Wait, lives_of
from resweep_scheduler.accounts.costs import AttemptCost, Logged, RunCost, account_run, restart_steps
from resweep_scheduler.accounts.reading import read_run_cost, read_sweep_costs
from resweep_scheduler.accounts.sweeps import SweepCost, add_up

__all__ = [
    "Attempt",
    "AttemptCost",
    "Life",
    "Logged",
    "Mark",
    "Notice",
    "RunCost",
    "SweepCost",
    "Wait",
    "account_run",
    "add_up",
    "lives_of",
    "read_run_cost",
    "read_sweep_costs",
    "restart_steps",
]
