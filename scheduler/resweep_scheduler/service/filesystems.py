"""What kind of disk a folder is on."""

from __future__ import annotations

import os
from pathlib import Path

# Where flock is local or missing, sockets reach one host only, or fsync means little (mount(8)). Not 9p: sandboxes have
# it as their local root; where it cannot hold a socket, the server says so at its start.
NETWORK = frozenset(
    [
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "glusterfs",
        "gpfs",
        "lustre",
        "nfs",
        "nfs4",
        "orangefs",
        "pvfs2",
        "smb3",
        "smbfs",
    ]
)
NETWORK_FUSE = ("sshfs", "glusterfs", "ceph", "s3fs", "gcsfuse", "juicefs", "goofys", "beegfs", "moosefs")


def network_filesystem(directory: Path, mountinfo: str | None = None) -> str | None:
    """Return the kind of network filesystem that `directory` is on; None for a local one, or where nobody can tell.

    Args:
        directory: A resolved path.
        mountinfo: The text of /proc/self/mountinfo (proc(5)); None to read it. Only Linux has it.
    """
    if mountinfo is None:
        try:
            mountinfo = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
        except OSError:
            return None
    best, kind = "", None
    for line in mountinfo.splitlines():
        place, _, device = line.partition(" - ")
        fields, types = place.split(" "), device.split(" ")
        if len(fields) < 5 or not types[0]:
            continue
        point = _unescape(fields[4])
        # Of two mounts on one point the later one hides the other.
        if len(point) >= len(best) and os.path.commonpath([point, directory]) == point:
            best, kind = point, types[0]
    if kind is None:
        return None
    program = kind.removeprefix("fuse.")
    is_network = kind in NETWORK or (kind.startswith("fuse.") and program.startswith(NETWORK_FUSE))
    return kind if is_network else None


def _unescape(text: str) -> str:
    """Space, tab, newline and backslash stand as octal numbers in mountinfo."""
    for octal, character in ((r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", "\\")):
        text = text.replace(octal, character)
    return text
