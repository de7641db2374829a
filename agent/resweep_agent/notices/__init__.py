"""Words from outside that this machine, or this agent, is to go.

A source keeps to the contract `NoticeSource`. Signals are the source that is always there; the others ask a provider
(SLURM, or a cloud's metadata service), each of which is one module, in a thread of their own: see polling.py.
"""

from resweep_agent.notices.base import Notice, NoticeSource
from resweep_agent.notices.choice import NoticeChoice
from resweep_agent.notices.signals import NOTICE_SIGNALS, SignalSource

__all__ = ["NOTICE_SIGNALS", "Notice", "NoticeChoice", "NoticeSource", "SignalSource"]
