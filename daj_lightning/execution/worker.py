"""The process in which one candidate runs: a script that sandbox.py starts, never imported.

It isolates itself first, then answers one test after the other. Each test runs in a fork of its own,
so no test can poison the next; the fork becomes the program (`__name__ == "__main__"`, interpreter
shutdown included). Inputs come in and outputs go out; expected outputs never enter this process.

stdin and stdout carry the protocol: frames of 8 bytes of length and the payload. A fork replaces both by
files before any foreign code runs, so it holds no end of the protocol. Standard output, standard
error and the return value of a method are files in memory (memfd): there is no end of file to wait
for, RLIMIT_FSIZE caps them, and they are read after every process of the test is dead.

A hostile program shares its process with our wrapper: it can forge its own return value, hide its
exit status or end early. That forges an answer which it could have given honestly, nothing more.

Only modules that load fast are imported: this start is paid for every candidate.
"""

import ctypes
import gc
import marshal
import os
import resource
import select
import sys
import time

CLONE_ALL = 0x00020000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
"""Mount, UTS, IPC, user, PID and network namespace (linux/sched.h)."""
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 36, 38
SIGKILL = 9
NR_MOUNT_SETATTR = 442
AT_RECURSIVE, MOUNT_ATTR_RDONLY = 0x8000, 1
MS_NOSUID_NODEV, MNT_DETACH = 2 | 4, 2
SCRATCH = ("/tmp", "/var/tmp", "/dev/shm")
"""Writable inside, empty, gone with the namespace; everything else is read-only."""
HIDDEN = ("/root", "/home")
FIRST_OWN_UID = 0x70000000
"""Root gives every worker the user id FIRST_OWN_UID + its process id: no other process has it."""
STDERR_TAIL = 4096

# LiveCodeBench's functional problems rely on this (lcb_runner/evaluation/testing_util.py @ 28fef95).
PRELUDE = (
    "".join(
        f"from {name} import *\nimport {name}\n"
        for name in (
            "string re datetime collections heapq bisect copy math random statistics itertools functools "
            "operator io sys json builtins typing"
        ).split()
    )
    + "sys.setrecursionlimit(50000)\nsys.set_int_max_str_digits(50000)\n"
)

libc = ctypes.CDLL(None, use_errno=True)


def call(function, *args):
    """A libc function that returns -1 on failure, as an exception."""
    if getattr(libc, function)(*args) == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")


# ---- protocol


def read_exactly(size):
    parts = []
    while size:
        part = os.read(0, min(size, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def read_frame():
    return read_exactly(int.from_bytes(read_exactly(8), "little"))


def write_all(fd, data):
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def write_frame(payload):
    write_all(1, len(payload).to_bytes(8, "little") + payload)


# ---- isolation


def keep_the_standard_library():
    """Find modules through open directories: their paths may be unreadable or hidden later."""
    moved = {}
    for path in sys.path:
        if os.path.isdir(path):
            moved[path] = f"/proc/self/fd/{os.open(path, os.O_PATH | os.O_DIRECTORY)}"
    sys.path[:] = moved.values()
    sys.path_importer_cache.clear()
    for module in list(sys.modules.values()):
        for path in list(getattr(module, "__path__", ())):
            parent, name = os.path.split(path)
            module.__path__[:] = [os.path.join(moved.get(parent, parent), name)]


def drop_root(mode):
    """Become a user that owns nothing; True if no other process has that user id."""
    if os.getuid() != 0:
        return False
    os.setgroups([])
    uid = FIRST_OWN_UID + os.getpid()
    try:
        os.setresgid(uid, uid, uid)
    except OSError:  # a container that maps few ids: share "nobody"
        uid = 65534
        os.setresgid(uid, uid, uid)
    if mode == "rlimits":
        os.chown(".", uid, uid)
    os.setresuid(uid, uid, uid)
    return uid != 65534


def enter_namespaces():
    """Continue as process 1 of fresh namespaces; the caller's process stays behind and waits."""
    uid, gid = os.getuid(), os.getgid()
    call("prctl", PR_SET_DUMPABLE, 1, 0, 0, 0)  # else /proc/self belongs to root after the change of user
    call("unshare", CLONE_ALL)
    call("prctl", PR_SET_DUMPABLE, 1, 0, 0, 0)
    for name, text in ("setgroups", "deny"), ("uid_map", f"1000 {uid} 1"), ("gid_map", f"1000 {gid} 1"):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    call("prctl", PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    init = os.fork()
    if init:
        os.close(0)
        os.close(1)
        code = os.waitstatus_to_exitcode(os.waitpid(init, 0)[1])
        if code < 0:
            os.kill(os.getpid(), -code)
        os._exit(code)
    call("prctl", PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    read_only = (ctypes.c_uint64 * 4)(MOUNT_ATTR_RDONLY, 0, 0, 0)
    call("syscall", NR_MOUNT_SETATTR, -1, b"/", AT_RECURSIVE, read_only, ctypes.sizeof(read_only))
    call("mount", b"proc", b"/proc", b"proc", MS_NOSUID_NODEV, None)
    for path in SCRATCH + HIDDEN:
        if os.path.isdir(path):
            mount_empty(path)
    os.chdir("/tmp")


def mount_empty(path):
    options = b"size=64m,nr_inodes=4096,mode=1777" if path in SCRATCH else b"size=4k,nr_inodes=2,mode=555"
    call("mount", b"tmpfs", path.encode(), b"tmpfs", MS_NOSUID_NODEV, options)


def drop_capabilities():
    """Give up what process 1 of a user namespace may do inside it (capset, version 3, all zero)."""
    call("capset", (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())


def empty_scratch(mode):
    """Remove what the last test left behind."""
    if mode == "namespaces":
        for path in SCRATCH:
            if os.path.isdir(path) and os.listdir(path):
                call("umount2", path.encode(), MNT_DETACH)
                mount_empty(path)
        os.chdir("/tmp")
    elif os.listdir("."):
        import shutil

        for entry in os.scandir("."):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                os.unlink(entry.path)


# ---- one test


def kill_everything_else(alone):
    """Kill all processes of the test and return the CPU seconds of those nobody waited for.

    `alone`: every process that kill(-1) reaches is ours, by PID namespace or by user id. Otherwise
    go through the children until none is left: orphans become children, this being a subreaper.
    """
    cpu_s = 0.0
    while True:
        try:
            if alone:
                os.kill(-1, SIGKILL)
            else:
                with open(f"/proc/self/task/{os.getpid()}/children") as file:
                    for pid in file.read().split():
                        os.kill(int(pid), SIGKILL)
        except ProcessLookupError:
            pass
        try:
            _, _, usage = os.wait4(-1, 0)
        except ChildProcessError:
            return cpu_s
        cpu_s += usage.ru_utime + usage.ru_stime


def become_test(limits, files, mode):
    """In the fork: swap the protocol for the test's files and accept the limits for good."""
    os.setsid()
    for target, fd in enumerate(files[:3]):
        os.dup2(fd, target)
    for fd in files[:3]:
        os.close(fd)
    for name, amount in limits.items():
        resource.setrlimit(getattr(resource, name), tuple(amount))
    if mode == "namespaces":
        drop_capabilities()
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    call("prctl", PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    call("prctl", PR_SET_DUMPABLE, 1, 0, 0, 0)  # else a program could not open /dev/stdin


def run_test(job, test_input):
    """Answer one test with a frame; returns the file for the return value in the fork, else None."""
    functional = job["function_name"] is not None
    files = [os.memfd_create(name) for name in ("stdin", "stdout", "stderr", "returned")]
    write_all(files[0], b"" if functional else test_input)
    os.lseek(files[0], 0, os.SEEK_SET)
    child = os.fork()
    if child == 0:
        become_test(job["limits"], files, job["mode"])
        return files[3]
    pidfd = os.pidfd_open(child)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(0, 0)  # reports only that the host has gone
    events = poll.poll(job["wall_s"] * 1000)
    os.close(pidfd)
    timed_out = not events
    if events != [(pidfd, select.POLLIN)]:
        os.kill(child, SIGKILL)
    _, status, usage = os.wait4(child, 0)
    cpu_s = usage.ru_utime + usage.ru_stime + kill_everything_else(job["alone"])
    if any(fd == 0 for fd, _ in events):
        os._exit(0)
    sizes = [os.fstat(fd).st_size for fd in files]
    too_long = max(sizes[1:]) > job["output_bytes"]
    answer = 3 if functional else 1
    output = b"" if too_long else os.pread(files[answer], sizes[answer], 0)
    errors = os.pread(files[2], STDERR_TAIL, max(0, sizes[2] - STDERR_TAIL))
    for fd in files:
        os.close(fd)
    empty_scratch(job["mode"])
    # The host must not unmarshal what comes out of here: plain ASCII numbers.
    write_frame(b"%d %d %d %.6f" % (timed_out, too_long, os.waitstatus_to_exitcode(status), cpu_s))
    write_frame(output)
    write_frame(errors)
    return None


def serve(job):
    """Answer tests until the host closes the pipe; returns (input, fd) in each fork."""
    while True:
        try:
            test_input = read_frame()
        except EOFError:
            os._exit(0)
        fd = run_test(job, test_input)
        if fd is not None:
            return test_input, fd


def main():
    """Isolate, then serve; returns what a fork needs to run its test."""
    job = marshal.loads(read_frame())
    keep_the_standard_library()
    own_uid = drop_root(job["mode"])
    if job["mode"] == "namespaces":
        enter_namespaces()
    else:
        # No death signal here: a worker that finds its host gone still has to kill the grandchildren.
        call("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    job["alone"] = own_uid or job["mode"] == "namespaces"
    call("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0)  # tests may not look into this process, nor trace it
    names = {}
    if job["function_name"] is not None:
        exec(PRELUDE, names)
    import site

    site.setquit()  # `exit` and `quit`, which -S leaves out
    compile("", "", "exec")  # the first call builds the compiler's types: 0.8 ms that each fork would pay
    gc.freeze()  # what exists now is not traversed again when a fork collects or shuts down: 1-3 ms a test
    write_frame(b"ready")
    return job, names, *serve(job)


def call_method(module, job, test_input, fd):
    from json import dumps, loads

    args = [loads(line) for line in test_input.decode().split("\n")]
    exec(compile(job["code"], "<candidate>", "exec", dont_inherit=True), module.__dict__)
    answer = getattr(module.Solution(), job["function_name"])(*args)
    write_all(fd, dumps(answer).encode())
    os._exit(0)  # a call has no interpreter shutdown of its own, and 2 ms are saved


if __name__ == "__main__":
    job, names, test_input, fd = main()
    this_module = sys.modules["__main__"]  # kept alive: its functions are still running
    module = type(sys)("__main__")
    sys.modules["__main__"] = module
    sys.argv[:] = ["main.py"]
    if job["function_name"] is None:
        os.close(fd)
        exec(compile(job["code"], "<candidate>", "exec", dont_inherit=True), module.__dict__)
    else:
        names["__name__"] = "__main__"
        module.__dict__.update(names)
        call_method(module, job, test_input, fd)
