"""The process in which one candidate runs: a script that sandbox.py starts, never imported.

It isolates itself first, then answers one test after the other. Each test runs in a fork of its own,
so no test can poison the next; the fork becomes the program (`__name__ == "__main__"`, and what a
program can notice of the interpreter's end). Inputs come in and outputs go out; expected outputs never
enter this process.

stdin and stdout carry the protocol: frames of 8 bytes of length, then the payload. A fork replaces
both by files before any foreign code runs, so it holds no end of the protocol. Standard output,
standard error and the return value of a method are files in memory (memfd): there is no end of file to
wait for, RLIMIT_FSIZE caps them, and they are read when every process of the test is dead.

A hostile program shares its process with our wrapper: it can forge its own return value, hide its
exit status or end early. That forges an answer which it could have given honestly, nothing more.

Only modules that load fast are imported: this start is paid for every candidate.
"""

import gc
import marshal
import os
import select
import site
import sys
from time import monotonic

from isolation import (
    PATIENCE,
    SIGKILL,
    STDOUT,
    confine_test,
    empty_directory,
    empty_scratch,
    isolate,
    kill_everything_else,
)

STDERR_TAIL = 4096


def main() -> "tuple[dict, object, bytes, int]":
    """Isolate, then serve; what it returns, in a fork, is needed to run the fork's test."""
    own_directory = sys.path[0]
    job = marshal.loads(read_frame())
    runner = __import__(job["runner"])  # one of the scripts beside this one
    sys.path.remove(own_directory)
    sys.path += job["site_packages"]
    job["alone"] = isolate(job)
    job["directory"] = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    site.setquit()  # `exit` and `quit`, which -S leaves out
    prepared = runner.prepare(job)
    gc.freeze()  # what exists now is not traversed again when a fork collects or shuts down: 1-3 ms a test
    write_frame(b"ready")
    return job, prepared, *serve(job)


def serve(job: dict) -> tuple[bytes, int]:
    """Answer tests until the host closes the pipe; returns (input, descriptor) in each fork."""
    while True:
        try:
            test_input = read_frame()
        except EOFError:
            os._exit(0)
        returned = run_test(job, test_input)
        if returned is not None:
            return test_input, returned


def run_test(job: dict, test_input: bytes) -> int | None:
    """Answer one test with three frames; in the fork, return the descriptor for the method's value."""
    files = [os.memfd_create(name) for name in ("stdin", "stdout", "stderr", "returned")]
    write_all(files[0], test_input if job["answer"] == STDOUT else b"")
    os.lseek(files[0], 0, os.SEEK_SET)
    child = os.fork()
    if child == 0:
        for target, fd in enumerate(files[:3]):
            os.dup2(fd, target)
            os.close(fd)
        os.close(job["directory"])
        confine_test(job)
        return files[3]
    status, timed_out, cpu_s = wait_for_test(child, job)
    sizes = [os.fstat(fd).st_size for fd in files]
    too_long = max(sizes[1:]) > job["output_bytes"]
    answer = job["answer"]
    output = b"" if too_long else os.pread(files[answer], sizes[answer], 0)
    errors = os.pread(files[2], STDERR_TAIL, max(0, sizes[2] - STDERR_TAIL))
    for fd in files:
        os.close(fd)
    if job["mode"] == "unsafe-local":
        empty_directory(job["directory"])
    else:
        empty_scratch(job)
    # The host must not unmarshal what comes out of here: plain ASCII numbers.
    write_frame(b"%d %d %d %.6f" % (timed_out, too_long, os.waitstatus_to_exitcode(status), cpu_s))
    write_frame(output)
    write_frame(errors)
    return None


def wait_for_test(child: int, job: dict) -> tuple[int, bool, float]:
    """Wait for its end, its wall limit or the end of the host; then leave no process of the test.

    Time in which the program was ready to run and another process had the core does not count, so that a
    busy machine fails no honest program; sleeping and running do.

    Returns:
        Wait status, whether the time was over, CPU seconds of all its processes.
    """
    pidfd = os.pidfd_open(child)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(0, 0)  # reports only that the host has gone
    begin, left = monotonic(), job["wall_s"]
    while left > 0:
        events = poll.poll(left * 1000)
        if events:
            break
        elapsed = monotonic() - begin
        left = min(
            job["wall_s"] - (elapsed - starved_s(child, job["mode"] != "unsafe-local")),
            PATIENCE * job["wall_s"] - elapsed,
        )
    os.close(pidfd)
    if events != [(pidfd, select.POLLIN)]:
        os.kill(child, SIGKILL)
    _, status, usage = os.wait4(child, 0)
    cpu_s = usage.ru_utime + usage.ru_stime + kill_everything_else(job["alone"])
    if any(fd == 0 for fd, _ in events):
        os._exit(0)
    return status, not events, cpu_s


def starved_s(pid: int, alone: bool) -> float:
    """Seconds that a process waited for a core that others had (Documentation/scheduler/sched-stats).

    Of its threads the most starved one counts, less the time that its own children had; these are only
    known where no other process is in sight.
    """
    waits, own_s = [0.0], 0.0
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/schedstat") as file:
                waits.append(int(file.read().split()[1]) / 1e9)
        own_s = cpu_time_s(pid, ended_children=True)
        others = [name for name in os.listdir("/proc") if name.isdecimal()] if alone else []
        own_s += sum(cpu_time_s(int(name), ended_children=False) for name in others if int(name) not in (1, pid))
    except (OSError, IndexError):  # something has just ended; a kernel without the figure
        pass
    return max(0.0, max(waits) - own_s)


def cpu_time_s(pid: int, ended_children: bool) -> float:
    """CPU seconds of a process, or of those of its children that have ended (proc(5), stat)."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return sum(map(int, fields[13:15] if ended_children else fields[11:13])) / os.sysconf("SC_CLK_TCK")


def read_exactly(size: int) -> bytes:
    parts = []
    while size:
        part = os.read(0, min(size, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def read_frame() -> bytes:
    return read_exactly(int.from_bytes(read_exactly(8), "little"))


def write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def write_frame(payload: bytes) -> None:
    write_all(1, len(payload).to_bytes(8, "little") + payload)


if __name__ == "__main__":
    job, prepared, test_input, returned = main()
    worker = sys.modules["__main__"]  # kept alive: its functions still run
    program = type(sys)("__main__")
    program.__file__ = "main.py"
    sys.modules["__main__"] = program
    sys.argv[:] = ["main.py"]
    sys.modules[job["runner"]].run(job, prepared, program, test_input, returned)
