"""Runs one command line in a process group of its own, and ends the whole group when the lifeline is cut.

A script of the standard library alone: `guard.py LIFELINE GRACE`, and on standard input, to its end, the order: a line with the number of
bytes that follow it and that of arguments, then the arguments and the environment's `NAME=VALUE`, each with a NUL after it. So a guard may
be started before there is a command. One that gets no whole order ends.

LIFELINE is the reading end of a pipe whose other end the worker holds: the worker closes it to end the command, and when the worker is
killed the kernel does. Either way the group gets SIGTERM and, GRACE seconds later, SIGKILL. The guard ends as the command ended: with its
exit status, or by its signal.
"""

# The module under `signal`, which would load enum and what that needs: a third of the time in which this script starts, once a trial.
import _signal as signal  # type: ignore[import-not-found]
import os
import select
import sys
import time

POLL = 0.02
PR_SET_CHILD_SUBREAPER = 36
CANNOT_START = 127
"""Exit status when the program cannot be started, as a shell's."""


def main(lifeline: int, grace: float) -> int:
    """Run the command; return its exit status, or end by its signal."""
    os.set_inheritable(lifeline, False)  # noqa: FBT003 - takes it so.
    wakeup = _catch_signals()
    _adopt_orphans()
    arguments = _take_order()
    if not arguments:
        return 0
    try:
        # The command leads a new group; caught signals are back to their defaults in it.
        leader = os.posix_spawnp(arguments[0], arguments, os.environ, setpgroup=0)
    except OSError as error:
        print(f"cannot start {arguments[0]!r}: {error.strerror}", file=sys.stderr)
        return CANNOT_START
    _let_go(lifeline, *wakeup)
    status = _wait(leader, lifeline, wakeup[0])
    return _mirror(_end(leader, status, grace))


def _take_order() -> list[str]:
    """Read the arguments of the command, and have its environment; none if the order breaks off, as when the worker is killed."""
    read = b"".join(iter(lambda: os.read(0, 1 << 16), b""))
    null = os.open(os.devnull, os.O_RDWR)
    # The command's own.
    os.dup2(null, 0)
    os.close(null)
    header, _, body = read.partition(b"\n")
    size, _, count = header.partition(b" ")
    if not count or len(body) != int(size):
        return []
    words = body.split(b"\0")[:-1]
    os.environb.clear()
    for variable in words[int(count) :]:
        name, _, value = variable.partition(b"=")
        os.environb[name] = value
    return [os.fsdecode(word) for word in words[: int(count)]]


def _catch_signals() -> tuple[int, int]:
    """Stay alive whatever the scheduler sends: the worker decides. Return a pipe that has something to read after each signal."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: None)
    return reading, writing


def _adopt_orphans() -> None:
    """Become the parent of grandchildren whose parent has ended, so that they are not left as zombies where nobody reaps them."""
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - loaded only where it serves.

        try:
            ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        except (OSError, AttributeError):
            return


def _let_go(*kept: int) -> None:
    """Close what only the command needs, so that its readers see it end."""
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    for name in os.listdir("/dev/fd"):  # noqa: PTH208 - pathlib takes long to import.
        if int(name) > 2 and int(name) not in kept:
            try:
                os.close(int(name))
            except OSError:
                # The listing's own, closed by now.
                continue


def _wait(leader: int, lifeline: int, wakeup: int) -> int | None:
    """Return the command's wait status, or None once the lifeline is cut."""
    poll = select.poll()
    poll.register(lifeline, select.POLLIN)
    poll.register(wakeup, select.POLLIN)
    while (status := _reap(leader)) is None:
        ready = [descriptor for descriptor, _ in poll.poll()]
        if lifeline in ready:
            return _reap(leader)
        os.read(wakeup, 1024)
    return status


def _reap(leader: int) -> int | None:
    """Reap whatever has ended; return the wait status of the leader if it was among them."""
    found = None
    try:
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            found = ended[1] if ended[0] == leader else found
    except ChildProcessError:
        return found
    return found


def _end(leader: int, status: int | None, grace: float) -> int:
    """End what is left of the group, gently at first; return the leader's wait status."""
    deadline = time.monotonic() + grace
    remains = _signal(leader, signal.SIGTERM) and _signal(leader, signal.SIGCONT)
    while remains and time.monotonic() < deadline:
        time.sleep(POLL)
        ended = _reap(leader)
        status = ended if status is None else status
        remains = _signal(leader, 0)
    if remains:
        _signal(leader, signal.SIGKILL)
    return os.waitpid(leader, 0)[1] if status is None else status


def _signal(group: int, number: int) -> bool:
    """Signal the group; return whether it still has members."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _mirror(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return code
    import resource  # noqa: PLC0415 - for a rare end only.

    # The core, if any, was the command's to dump.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if -code not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
    return 128 - code


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2])))
