"""Who is there, and what the server can."""

from __future__ import annotations

from typing import Any

from resweep_scheduler.gateway.graphql import Call, Handler


def viewer(call: Call) -> dict[str, Any]:
    """Who the key belongs to; the client shows it, and takes an answer as proof that the key is valid."""
    entity = call.access.entity
    return {
        "viewer": {
            "id": entity, "entity": entity, "username": entity, "name": entity, "email": "", "admin": False,
            "flags": "{}", "deletedAt": None, "accountType": None, "apiKeys": {"edges": []},
            "teams": {"edges": [{"node": {"name": entity}}]},
        },
        **server_info(call),
    }  # fmt: skip


def server_info(call: Call) -> dict[str, Any]:
    """No features beyond what every server has, but compressed bodies."""
    return {
        "serverInfo": {
            "cliVersionInfo": {"min_cli_version": "0.19.0", "max_cli_version": "99.0.0"},
            "latestLocalVersionInfo": None,
            "features": [{"name": "FILESTREAM_GZIP", "isEnabled": True}],
        }
    }


def organization(call: Call) -> dict[str, Any]:
    """There are none."""
    return {"entity": {"organization": None}}


def probe_capabilities(call: Call) -> dict[str, Any]:
    """What clients up to 0.22 choose their questions by."""
    fields = {
        "QueryType": ("viewer", "serverInfo"),
        "MutationType": ("createRunFiles", "upsertBucket", "upsertSweep", "createAgent", "agentHeartbeat"),
        "ServerInfoType": ("cliVersionInfo", "latestLocalVersionInfo"),
    }
    return {kind: {"fields": [{"name": name} for name in names]} for kind, names in fields.items()}


def probe_reads(call: Call) -> dict[str, Any]:
    """What `wandb.Api()` up to 0.22 looks for before it reads runs."""
    return {
        "RunType": {"fields": [{"name": "projectId"}]},
        "ProjectType": {"fields": [{"name": "internalId"}]},
    }


def probe_settings(call: Call) -> dict[str, Any]:
    """Asked by children of `wandb agent` 0.19."""
    return {"ServerSettingsType": {"fields": []}}


OPERATIONS: dict[str, Handler] = {
    "Viewer": viewer,
    "viewer": viewer,  # has no name when old clients check a key
    "GetViewer": viewer,
    "GetDefaultEntity": viewer,
    "ServerFeaturesQuery": server_info,
    "ServerInfo": server_info,
    "GetServerInfo": server_info,
    "OrganizationCoreWeaveOrganizationID": organization,
    "ProbeServerCapabilities": probe_capabilities,
    "ProbeServerSettings": probe_settings,
    "ProbeRunInput": probe_reads,
    "ProbeProjectInput": probe_reads,
}
