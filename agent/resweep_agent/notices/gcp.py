"""GCP: preemption of preemptible and spot VMs, and maintenance that ends a VM, from the metadata server.

https://cloud.google.com/compute/docs/instances/preemptible: `instance/preempted` becomes TRUE when the VM has up to 30
seconds left. https://cloud.google.com/compute/docs/metadata/querying-metadata: a question may wait for a change.
https://cloud.google.com/compute/docs/metadata/getting-live-migration-notice: `instance/maintenance-event` says a
minute or more ahead that the VM is terminated, or moved while it runs (which is no notice).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from urllib.parse import quote

from resweep_agent.notices.base import Notice
from resweep_agent.notices.metadata import TIMEOUT, Answer, MetadataService, OddAnswerError
from resweep_agent.notices.polling import Provider

ADDRESS = "169.254.169.254"
HOST = "metadata.google.internal"
LEAD_PREEMPTED = 30.0
LEAD_MAINTENANCE = 60.0
WAIT = 20
"""Seconds for which a question waits for a change; after each one the maintenance is asked for, which is announced to
those alone who asked before."""


class Gcp(Provider):
    """A VM of Compute Engine.

    Args:
        environ: May name another server: GCE_METADATA_HOST (once GCE_METADATA_ROOT), GCE_METADATA_IP; or none:
            NO_GCE_CHECK.
    """

    name = "gcp"
    interval = 1.0

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._service: MetadataService | None = None
        self._etag = ""

    def recognise(self) -> bool:
        """Whether the VM is preemptible (spot VMs are)."""
        answer = self._get("scheduling/preemptible")
        if answer.headers.get("metadata-flavor") != "Google":
            raise OddAnswerError(f"{answer.asked} was answered without `Metadata-Flavor: Google`")
        return answer.text == "TRUE"

    def ask(self) -> Notice | None:
        """Wait for a preemption, then look for maintenance."""
        if self._etag:
            waiting = f"?wait_for_change=true&timeout_sec={WAIT}&last_etag={quote(self._etag)}"
            answer = self._get(f"preempted{waiting}", timeout=WAIT + 5)
        else:
            answer = self._get("preempted")
        self._etag = answer.headers.get("etag", "")
        if answer.text == "TRUE":
            return Notice(self.name, time.monotonic() + LEAD_PREEMPTED, "preempted")
        if answer.text != "FALSE":
            raise OddAnswerError(f"{answer.asked} should be TRUE or FALSE, got {answer.text[:80]!r}")
        if self._get("maintenance-event").text == "TERMINATE_ON_HOST_MAINTENANCE":
            return Notice(self.name, time.monotonic() + LEAD_MAINTENANCE, "host maintenance")
        return None

    def _get(self, path: str, *, timeout: float = TIMEOUT) -> Answer:
        if self._service is None:
            self._service = self._find_service()
        answer = self._service.ask(
            f"/computeMetadata/v1/instance/{path}", {"Metadata-Flavor": "Google"}, timeout=timeout
        )
        answer.found()
        return answer

    def _find_service(self) -> MetadataService:
        environ = self._environ
        if environ.get("NO_GCE_CHECK", "").lower() == "true":
            raise OddAnswerError("NO_GCE_CHECK is true")
        other = environ.get("GCE_METADATA_HOST") or environ.get("GCE_METADATA_ROOT")
        # Asked by its number: looking a name up may take long where there is no such name.
        return MetadataService(other or environ.get("GCE_METADATA_IP") or ADDRESS, name=None if other else HOST)
