"""Which Redis: the one that is named, else the embedded server of this machine."""

from __future__ import annotations

from collections.abc import Mapping

from resweep_agent.exitcodes import AgentError, ExitCode
from resweep_scheduler.store import resolve_url


def find_url(explicit: str | None, environ: Mapping[str, str]) -> str:
    """Return the address of the store: `explicit`, RESWEEP_URL, REDIS_URL, else that of the embedded server.

    The embedded server is started if it does not run.

    Raises:
        AgentError: There is no embedded server on this machine.
    """
    url = resolve_url(explicit, environ)
    if url is not None:
        return url
    from resweep_scheduler.service.server import ServerError, ensure_server

    try:
        return ensure_server()
    except ServerError as error:
        raise AgentError(str(error), ExitCode.REDIS_LOST) from None
