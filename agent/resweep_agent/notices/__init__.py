"""Words from outside that this machine, or this agent, is to go.

A source is one module of the contract `NoticeSource`; signals are the source that is always there. Sources that ask a
cloud's metadata service or SLURM are more modules of the same contract.
"""

from resweep_agent.notices.base import Notice, NoticeSource
from resweep_agent.notices.signals import NOTICE_SIGNALS, SignalSource

__all__ = ["NOTICE_SIGNALS", "Notice", "NoticeSource", "SignalSource"]
