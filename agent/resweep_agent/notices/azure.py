"""Azure: evictions of spot VMs and terminations, from the scheduled events of the instance metadata service.

https://learn.microsoft.com/azure/virtual-machines/linux/scheduled-events: the events name the VMs that they are
about, and those of others in the same scale set are told, too. `Preempt` (a spot VM is deleted or deallocated) comes
30 seconds ahead, `Terminate` (of a scale set's VM) as long as the set says. After `Reboot` and `Redeploy` the VM is
there again: they are hints. `Freeze` is a pause of seconds.

An event may be acknowledged, which lets it begin at once, before its time. So an agent does it at its own end, when its
runs are on the run queue, and only if it is the last agent of its user on the machine: others may still be saving.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from pathlib import Path
from typing import Any

from resweep_agent.notices.base import Notice
from resweep_agent.notices.deadlines import deadline_at, http_time
from resweep_agent.notices.metadata import TIMEOUT, Answer, MetadataService, OddAnswerError
from resweep_agent.notices.polling import Provider

ADDRESS = "http://169.254.169.254"
EVENTS = "/metadata/scheduledevents?api-version=2020-07-01"
MACHINE = "/metadata/instance/compute?api-version=2020-12-01"
"""The oldest version that tells the priority; later ones repeat the user data, which may be longer than an answer."""
FIRST_ANSWER = 130.0
"""Seconds: the first question switches the events on for the VM, which may take two minutes."""
ENDS = {"Preempt", "Terminate"}
HINTS = {"Reboot", "Redeploy"}


class Azure(Provider):
    """A virtual machine of Azure.

    Args:
        folder: Where agents of one user on one machine see each other.
    """

    name = "azure"
    interval = 1.0

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._service = MetadataService(ADDRESS)
        self._machine = ""
        self._lock: int | None = None
        self._timeout = FIRST_ANSWER
        self._event_id = ""

    def recognise(self) -> bool:
        """Whether the VM is a spot VM."""
        compute = _object(self._get(MACHINE))
        name = compute.get("name")
        if not isinstance(name, str) or not name:
            raise OddAnswerError("the metadata of an Azure VM have its name, these have not")
        self._machine = name.lower()
        return compute.get("priority") in ("Spot", "Low")

    def ask(self) -> Notice | None:
        """The end that is scheduled for this VM; else a restart."""
        self._be_seen()
        answer = self._get(EVENTS, timeout=self._timeout)
        self._timeout = TIMEOUT
        events = _object(answer).get("Events")
        if not isinstance(events, list):
            raise OddAnswerError(f"{answer.asked} should have a list of events, got {answer.text[:80]!r}")
        ours = [event for event in events if isinstance(event, dict) and self._is_ours(event)]
        for event in sorted(ours, key=lambda event: event.get("EventType") not in ENDS):
            kind = event.get("EventType")
            if kind in ENDS:
                self._event_id = str(event.get("EventId", ""))
            if kind in ENDS or kind in HINTS:
                # Empty once it has begun.
                begin = str(event.get("NotBefore") or "")
                deadline = deadline_at(http_time(begin) if begin else answer.now, answer.now)
                return Notice(self.name, deadline, str(kind), hint=kind in HINTS)
        return None

    def close(self, *, obeyed: bool) -> None:
        """Let the event begin, if no other agent of this user is left on the machine."""
        is_last = self._leave()
        if not (obeyed and is_last and self._event_id):
            return
        body = json.dumps({"StartRequests": [{"EventId": self._event_id}]})
        headers = {"Metadata": "true", "Content-Type": "application/json"}
        self._service.ask(EVENTS, headers, method="POST", body=body).found()

    def _is_ours(self, event: dict[str, Any]) -> bool:
        resources = event.get("Resources")
        return isinstance(resources, list) and self._machine in [str(name).lower() for name in resources]

    def _get(self, path: str, *, timeout: float = TIMEOUT) -> Answer:
        answer = self._service.ask(path, {"Metadata": "true"}, timeout=timeout)
        answer.found()
        return answer

    def _be_seen(self) -> None:
        """Share a lock with the other agents; it ends with this process."""
        if self._lock is None:
            with contextlib.suppress(OSError):
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._lock = os.open(self._folder / "azure", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
                fcntl.flock(self._lock, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def _leave(self) -> bool:
        """Give up the share; True when nobody else has one."""
        if self._lock is None:
            return False
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            return False
        finally:
            os.close(self._lock)
            self._lock = None


def _object(answer: Answer) -> dict[str, Any]:
    try:
        told = json.loads(answer.text)
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise OddAnswerError(f"{answer.asked} should be answered with a JSON object, got {answer.text[:80]!r}")
    return told
