"""A worker process that does errands instead of music."""

from __future__ import annotations

import os
import time


def work(pipe):
    os.setsid()
    try:
        while True:
            job, task = pipe.recv()
            if task is not None:
                pipe.send((job, *do(pipe, job, *task)))
    except (EOFError, OSError):
        return


def do(pipe, job, what, value=None):
    if what == "say":
        return "done", value
    if what == "fail":
        return "failed", value
    if what == "die":
        os._exit(1)
    if what == "tell":
        for share in value:
            pipe.send((job, "progress", ("counting", share)))
        return "done", os.getpid()
    if what == "wait":  # until it is cancelled
        pipe.send((job, "progress", ("waiting", 0.1)))
        assert pipe.recv() == (job, None)
        return "cancelled", ""
    assert what == "hang"
    pipe.send((job, "progress", ("hanging", 0.1)))
    time.sleep(600)
    return "done", None
