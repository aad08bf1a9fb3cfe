"""What the worker does to shut itself in, and to clean up between tests.

Part of worker.py's script, which imports it by its bare name; the host takes some constants. Linux calls that
Python 3.11 lacks go through ctypes.

In mode "namespaces" the worker makes its own world: a root directory of its own that holds the
system's libraries, the interpreter and nothing else, everything read-only but three empty scratch
directories, then user, network, PID, IPC, UTS, cgroup and mount namespaces. In mode "bubblewrap"
bwrap has made the same world before the worker started (layout.py gives both the same paths). In mode
"unsafe-local" there is none.
"""

import _signal  # the signal module takes 4 ms to import
import ctypes
import os
import resource
import sys

NEW_USER, NEW_MOUNTS = 0x10000000, 0x00020000
NEW_REST = 0x02000000 | 0x04000000 | 0x08000000 | 0x20000000 | 0x40000000
"""Cgroup, UTS, IPC, PID and network namespace (linux/sched.h)."""
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 36, 38
SIGKILL, SIGINT = 9, 2
NR_MOUNT_SETATTR, AT_RECURSIVE, MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID = 442, 0x8000, 1, 2
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND = 1, 2, 4, 8, 32, 4096
MS_REC, MS_PRIVATE, MNT_DETACH = 16384, 1 << 18, 2
CAPABILITY_VERSION_3 = 0x20080522

SCRATCH = ("/tmp", "/var/tmp", "/dev/shm")
"""Writable inside, empty, gone with the namespace; everything else is read-only."""
SCRATCH_MODE = 0o1777
FRESH: "dict[str, int]" = {}
"""Scratch directory -> its time of change when it was made."""
DEVICES = ("null", "zero", "full", "random", "urandom")
DEVICE_LINKS = {"fd": "", "stdin": "/0", "stdout": "/1", "stderr": "/2"}
OWN_ID = 1000
"""User and group inside."""
FIRST_OWN_UID = 0x70000000
"""Root gives every worker the user id FIRST_OWN_UID + its process id: no other process has it."""
NOBODY = 65534

PATIENCE = 4
"""Times the wall limit: the end of all waiting for a test, however busy the machine is."""
PER_MACHINE = {"x86_64": 0, "aarch64": 1}
AUDIT_ARCH, NR_SECCOMP, SECCOMP_SET_FILTER, SECCOMP_ALLOW_SPECULATION = (0xC000003E, 0xC00000B7), (317, 277), 1, 4
NEVER = (
    *((250, 219), (248, 217), (249, 218)),  # keyctl, add_key, request_key: keys of the host's user
    *((29, 194), (68, 186), (64, 190), (240, 180)),  # shmget, msgget, semget, mq_open: what they make outlives a test
    *(
        (425, 425),
        (321, 280),
        (298, 241),
        (323, 282),
    ),  # io_uring_setup (would pass this filter by), bpf, perf, userfaultfd
    (103, 116),  # syslog: the host's
    # Scheduling, a program's own and its worker's: setpriority, sched_setparam, sched_setscheduler,
    # sched_setaffinity, sched_setattr, ioprio_set. Who makes itself lowly could claim that it got no core.
    *((141, 140), (142, 118), (144, 119), (203, 122), (314, 274), (251, 30)),
)
"""System calls that no namespace contains, on x86_64 and aarch64."""
ONLY_WITH = (
    ((41, 198), (1, 2, 10, 16), 97),  # socket: Unix, IPv4, IPv6, netlink; a vsock leaves every network namespace
    ((302, 261), (0,), 1),  # prlimit: of oneself, not of the worker
)
"""System calls, what their first argument may be, the error for others."""

STDOUT, RETURNED = 1, 3
"""Which file of a test holds its answer."""

libc = ctypes.CDLL(None, use_errno=True)


def call(function: str, *args: object) -> None:
    """A libc function that returns -1 on failure, as an exception."""
    if getattr(libc, function)(*args) == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")


def keep_the_standard_library() -> None:
    """Find modules through open directories: their paths may be unreadable once root is dropped."""
    moved = {}
    for path in sys.path:
        if os.path.isdir(path):
            moved[path] = f"/proc/self/fd/{os.open(path, os.O_PATH | os.O_DIRECTORY)}"
    sys.path[:] = moved.values()
    sys.path_importer_cache.clear()
    for module in list(sys.modules.values()):  # packages that are loaded, submodules that are not
        for path in list(getattr(module, "__path__", ())):
            parent, name = os.path.split(path)
            module.__path__[:] = [os.path.join(moved.get(parent, parent), name)]


def isolate(job: dict) -> bool:
    """Shut this process in; True if kill(-1) reaches the processes of the tests and no others."""
    # Of a program: process 1 is immune to signals without a handler, and Python has given this one a handler.
    _signal.signal(SIGINT, _signal.SIG_IGN)
    mode = job["mode"]
    if mode == "namespaces":
        enter_namespaces(job)
        own = True
    elif mode == "bubblewrap":
        if os.getpid() != 1:
            raise OSError("bubblewrap has not made the worker process 1 of a PID namespace")
        os.chdir("/tmp")
        os.environ.pop("PWD", None)  # of bwrap's making
        own = True
    else:
        keep_the_standard_library()
        own = os.getuid() == 0 and drop_root(".")
        # No death signal here: a worker that finds its host gone still has to kill the grandchildren.
        call("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    call("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0)  # tests may not look into this process, nor trace it
    return own


def drop_root(directory: "str | None" = None) -> bool:
    """Become a user that owns `directory` and nothing else; True if no other process has that user id."""
    os.setgroups([])
    uid = FIRST_OWN_UID + os.getpid()
    try:
        os.setresgid(uid, uid, uid)
    except OSError:  # a container that maps few ids
        uid = NOBODY
        os.setresgid(uid, uid, uid)
    if directory is not None:
        os.chown(directory, uid, uid)
    os.setresuid(uid, uid, uid)
    return uid != NOBODY


def enter_namespaces(job: dict) -> None:
    """Continue as process 1 of fresh namespaces; the caller's process stays behind and waits.

    Root makes the new root directory before it drops its rights: the interpreter may lie where
    nobody else may look, and what root has mounted the program's user namespace cannot undo.
    """
    if os.getuid() == 0:
        call("unshare", NEW_MOUNTS)
        change_root(job)
        drop_root()
        become_own_user(NEW_REST | NEW_MOUNTS)
    else:
        become_own_user(NEW_REST | NEW_MOUNTS)
        change_root(job)
    call("prctl", PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    init = os.fork()
    if init:
        os.close(0)  # the host shall see the end of the pipes when process 1 ends
        os.close(1)
        code = os.waitstatus_to_exitcode(os.waitpid(init, 0)[1])
        if code < 0:
            os.kill(os.getpid(), -code)
        os._exit(code)
    call("prctl", PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    locked = (ctypes.c_uint64 * 4)(MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID, 0, 0, 0)
    call("syscall", NR_MOUNT_SETATTR, -1, b"/", AT_RECURSIVE, locked, ctypes.sizeof(locked))
    call("mount", b"proc", b"/proc", b"proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, None)
    with open("/proc/sys/user/max_user_namespaces", "w") as file:
        file.write("0")  # a program could gain capabilities in a namespace of its own
    call("mount", None, b"/proc", None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, None)
    for path in SCRATCH:
        mount_scratch(path, job["scratch_mib"])
    os.chdir("/tmp")


def become_own_user(also: int) -> None:
    """A user namespace, in which this process is user OWN_ID with every capability, and others with it."""
    uid, gid = os.getuid(), os.getgid()
    call("prctl", PR_SET_DUMPABLE, 1, 0, 0, 0)  # else /proc/self belongs to root after a change of user
    call("unshare", NEW_USER | also)
    call("prctl", PR_SET_DUMPABLE, 1, 0, 0, 0)
    for name, text in ("setgroups", "deny"), ("uid_map", f"{OWN_ID} {uid} 1"), ("gid_map", f"{OWN_ID} {gid} 1"):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def change_root(job: dict) -> None:
    """Make the working directory's tree the root directory: what the job names, and nothing else of the host."""
    call("mount", None, b"/", None, MS_REC | MS_PRIVATE, None)
    root = os.getcwd()
    call("mount", b"tmpfs", root.encode(), b"tmpfs", MS_NOSUID, b"size=1m,nr_inodes=1k,mode=755")
    for path, target in job["links"].items():
        os.makedirs(root + os.path.dirname(path), exist_ok=True)
        os.symlink(target, root + path)
    for path, inside in job["packages"]:
        bind(path, root + inside)
    for path in (*job["paths"], "/proc", *(f"/dev/{name}" for name in DEVICES)):
        bind(path, root + path)
    for path, text in job["files"].items():
        os.makedirs(root + os.path.dirname(path), exist_ok=True)
        with open(root + path, "w") as file:
            file.write(text)
    for name, target in DEVICE_LINKS.items():
        os.symlink(f"/proc/self/fd{target}", f"{root}/dev/{name}")
    for path in SCRATCH:
        os.makedirs(root + path, exist_ok=True)
    os.chdir(root)
    call("pivot_root", b".", b".")
    call("umount2", b".", MNT_DETACH)
    os.chdir("/")


def bind(path: str, target: str) -> None:
    if os.path.isdir(path):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT, 0o644))
    call("mount", path.encode(), target.encode(), None, MS_BIND | MS_REC, None)


def mount_scratch(path: str, size_mib: int) -> None:
    options = f"size={size_mib}m,nr_inodes=4k,mode={SCRATCH_MODE:o}"
    call("mount", b"tmpfs", path.encode(), b"tmpfs", MS_NOSUID | MS_NODEV, options.encode())
    FRESH[path] = os.stat(path).st_ctime_ns


def raise_loopback() -> None:
    """Let the programs of this sandbox reach each other on 127.0.0.1, as unit tests with servers do."""
    import fcntl
    import socket
    import struct

    get_flags, set_flags, up = 0x8913, 0x8914, 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(any_socket, get_flags, request))[1]
        fcntl.ioctl(any_socket, set_flags, struct.pack("16sh14x", b"lo", flags | up))


def confine_test(job: dict) -> None:
    """In the fork of a test, for good: limits by their names in `resource`, no privilege, an own session."""
    os.setsid()
    _signal.signal(SIGINT, _signal.default_int_handler)
    for name, soft_and_hard in job["limits"].items():
        resource.setrlimit(getattr(resource, name), soft_and_hard)
    if job["mode"] == "namespaces":  # process 1 of a user namespace holds every capability inside it
        call("capset", (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)())
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    call("prctl", PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    call("prctl", PR_SET_DUMPABLE, 1, 0, 0, 0)  # else a program could not open /dev/stdin
    forbid_system_calls()


def system_call_filter(machine: int) -> bytes:
    """What the kernel asks at every system call, in its own machine code (seccomp, classic BPF)."""
    load, if_equal, if_at_least, end = 0x20, 0x15, 0x35, 0x06
    allow, kill, error = 0x7FFF0000, 0x80000000, 0x00050000
    number_at, machine_at, argument_at = 0, 4, 16
    code = [(load, 0, 0, machine_at), (if_equal, 1, 0, AUDIT_ARCH[machine]), (end, 0, 0, kill)]
    code += [(load, 0, 0, number_at), (if_at_least, 0, 1, 0x40000000), (end, 0, 0, error | 38)]  # x32 on x86_64
    for numbers in NEVER:
        code += [(if_equal, 0, 1, numbers[machine]), (end, 0, 0, error | 1)]
    for numbers, arguments, otherwise in ONLY_WITH:
        code += [(if_equal, 0, 2 + 2 * len(arguments), numbers[machine]), (load, 0, 0, argument_at)]
        for argument in arguments:
            code += [(if_equal, 0, 1, argument), (end, 0, 0, allow)]
        code.append((end, 0, 0, error | otherwise))
    code.append((end, 0, 0, allow))
    return b"".join(op.to_bytes(2, "little") + bytes((yes, no)) + k.to_bytes(4, "little") for op, yes, no, k in code)


FILTERS = system_call_filter(0), system_call_filter(1)


class FilterProgram(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def forbid_system_calls() -> None:
    """For good, in this process and its children; not on machines whose numbers are not listed here."""
    machine = PER_MACHINE.get(os.uname().machine)
    if machine is not None:
        code = FILTERS[machine]
        program = ctypes.byref(FilterProgram(len(code) // 8, code))
        call("syscall", NR_SECCOMP[machine], SECCOMP_SET_FILTER, SECCOMP_ALLOW_SPECULATION, program)


def kill_everything_else(alone: bool) -> float:
    """Kill all processes of the test and return the CPU seconds of those nobody waited for.

    alone: kill(-1) reaches nobody else's. Otherwise go through the children until none is left:
    orphans become children, this process being a subreaper.
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


def empty_scratch(job: dict) -> None:
    """Fresh scratch directories, where the last test used them."""
    for path in SCRATCH:
        if job["mode"] == "bubblewrap":  # it leaves no right to mount
            empty_directory(path)
            os.chmod(path, SCRATCH_MODE)
            for name in os.listxattr(path):
                os.removexattr(path, name)
            os.utime(path, (0, 0))
        elif os.stat(path).st_ctime_ns != FRESH[path]:  # changes with whatever is changed: a name, a mode, an attribute
            call("umount2", path.encode(), MNT_DETACH)
            mount_scratch(path, job["scratch_mib"])
    os.chdir("/tmp")


def empty_directory(directory: "int | str") -> None:
    """Remove what the last test left in a directory, given by its path or its open descriptor."""
    os.chmod(directory, 0o700)
    try:
        left = os.listdir(directory)
    except FileNotFoundError:  # the program removed the directory: its next test has none
        return
    parent = f"/proc/self/fd/{directory}" if isinstance(directory, int) else directory
    unique = os.urandom(8).hex()
    number = 0
    todo = [os.path.join(parent, name) for name in left]
    while todo:  # directories inside move up: a tree may be deeper than a path is long, or than recursion goes
        path = todo.pop()
        if os.path.islink(path) or not os.path.isdir(path):
            os.unlink(path)
            continue
        os.chmod(path, 0o700)
        for name in os.listdir(path):
            inner = os.path.join(path, name)
            if os.path.isdir(inner) and not os.path.islink(inner):
                os.chmod(inner, 0o700)
                number += 1
                todo.append(os.path.join(parent, f"{unique}-{number}"))
                os.rename(inner, todo[-1])
            else:
                os.unlink(inner)
        os.rmdir(path)
