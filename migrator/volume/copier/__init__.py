"""Copies one NBD export to another: checkpointed, throttled, sparse; or compares the two. A program of its own, run by the volume agent.

    python3 copier copy SOURCE DESTINATION CHECKPOINT --identity TEXT [--zeroed] [--rate BYTES] [--record SECONDS]
    python3 copier verify SOURCE DESTINATION [--samples N --seed TEXT] [--rate BYTES]

It runs under the system's Python, which has libnbd's binding, and imports nothing of the rest of migrator. It does not outlive the process
that began it: the kernel kills it with its parent, it ends when its standard input does, and a lock beside the checkpoint lets one
copier at a time work on a copy. Lines of JSON go both ways. In: {"rate": bytes a second, 0 is unlimited}. Out: {"done", "total", "moved",
"rate"} twice a second, at last one of {"ended": "complete", ...} (exit code 0), {"ended": "different", "offset"} (3) or {"ended":
"error", "end": "source", "destination" or "", "errno", "error", "lost": whether it is its connection that failed} (1).

The checkpoint says up to where the destination was *flushed*; what lies behind it is copied again. Zeros are not written where the
destination says that it reads as zeros already, or where the caller says so (--zeroed); elsewhere they are written, so that a
dirty destination reads right.
"""
