"""Worker processes that do not outlive the process that started them."""

import multiprocessing
import os
import signal
import threading


def end_with_parent() -> None:
    """End this process as soon as the one that started it is gone, however that ended.

    A killed parent tells nobody: its workers would wait for work for ever, or do work that the
    resumed parent does too.
    """
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def work_for_parent() -> None:
    """As `end_with_parent`, and leave Ctrl-C, which a terminal sends to all, to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
