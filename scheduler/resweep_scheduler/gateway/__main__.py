"""A gateway on a socket that whoever starts it holds, and that ends with it: python -m … LISTENER LIFELINE.

The address of Redis is in RESWEEP_URL, because the words of a command line can be read by every user of the machine.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys

from resweep_scheduler.gateway.serve import serve


def main() -> None:
    """Serve until the lifeline ends."""
    listener, lifeline = (int(word) for word in sys.argv[1:])
    # Ctrl-C reaches the whole group; who holds the lifeline decides when this is over.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(format="gateway: %(message)s", level=logging.WARNING)
    serve(os.environ["RESWEEP_URL"], socket.socket(fileno=listener), lifeline=lifeline)


if __name__ == "__main__":
    main()
