"""One peer in a process of its own, told what to do over standard input.

    python -m benchmarks.peers.worker '{"tool": "boto3", "mode": "warm", ...}'

Each line in is a size in bytes; each line out is JSON: {"ready": true} after setup, then per put {"seconds": s} or {"error":
"..."}.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
import time

from benchmarks.peers import ENVIRONMENT, Target, load


def main() -> None:
    """Serve puts until standard input closes."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a tool prints must not look like an answer
    os.environ.update(ENVIRONMENT)
    peer = load(Target(**json.loads(sys.argv[1])))
    peer.setup()
    print(json.dumps({"ready": True}), file=answers)
    for line in sys.stdin:
        gc.collect()
        start = time.monotonic()
        try:
            answer: dict[str, object] = {**peer.put(int(line))}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}", "seconds": time.monotonic() - start}
        print(json.dumps(answer), file=answers)
    with contextlib.suppress(Exception):
        peer.close()


if __name__ == "__main__":
    main()
