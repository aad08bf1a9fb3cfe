"""What the worker does to shut itself in, and to clean up between tests.

Part of worker.py's script, which imports it by its bare name; nothing else does. Linux calls that
Python 3.11 lacks go through ctypes.
"""

import ctypes
import os
import resource
import sys

CLONE_ALL = 0x00020000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
"""Mount, UTS, IPC, user, PID and network namespace (linux/sched.h)."""
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 36, 38
SIGKILL = 9  # the signal module takes 4 ms to import
NR_MOUNT_SETATTR, AT_RECURSIVE, MOUNT_ATTR_RDONLY = 442, 0x8000, 1
MS_NOSUID_NODEV, MNT_DETACH = 2 | 4, 2
CAPABILITY_VERSION_3 = 0x20080522

SCRATCH = ("/tmp", "/var/tmp", "/dev/shm")
"""Writable inside, empty, gone with the namespace; everything else is read-only."""
SCRATCH_MODE = 0o1777
HIDDEN = ("/root", "/home")
FIRST_OWN_UID = 0x70000000
"""Root gives every worker the user id FIRST_OWN_UID + its process id: no other process has it."""
NOBODY = 65534

libc = ctypes.CDLL(None, use_errno=True)


def call(function: str, *args: object) -> None:
    """A libc function that returns -1 on failure, as an exception."""
    if getattr(libc, function)(*args) == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")


def keep_the_standard_library() -> None:
    """Find modules through open directories: their paths may be unreadable or hidden later."""
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


def isolate(mode: str) -> bool:
    """Shut this process in; True if kill(-1) reaches the processes of the tests and no others."""
    own_uid = drop_root(mode)
    if mode == "namespaces":
        enter_namespaces()
    else:
        # No death signal here: a worker that finds its host gone still has to kill the grandchildren.
        call("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    call("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0)  # tests may not look into this process, nor trace it
    return own_uid or mode == "namespaces"


def drop_root(mode: str) -> bool:
    """Become a user that owns nothing; True if no other process has that user id."""
    if os.getuid() != 0:
        return False
    os.setgroups([])
    uid = FIRST_OWN_UID + os.getpid()
    try:
        os.setresgid(uid, uid, uid)
    except OSError:  # a container that maps few ids
        uid = NOBODY
        os.setresgid(uid, uid, uid)
    if mode == "rlimits":
        os.chown(".", uid, uid)
    os.setresuid(uid, uid, uid)
    return uid != NOBODY


def enter_namespaces() -> None:
    """Continue as process 1 of fresh namespaces; the caller's process stays behind and waits."""
    uid, gid = os.getuid(), os.getgid()
    call("prctl", PR_SET_DUMPABLE, 1, 0, 0, 0)  # else /proc/self belongs to root after a change of user
    call("unshare", CLONE_ALL)
    call("prctl", PR_SET_DUMPABLE, 1, 0, 0, 0)
    for name, text in ("setgroups", "deny"), ("uid_map", f"1000 {uid} 1"), ("gid_map", f"1000 {gid} 1"):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
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
    read_only = (ctypes.c_uint64 * 4)(MOUNT_ATTR_RDONLY, 0, 0, 0)
    call("syscall", NR_MOUNT_SETATTR, -1, b"/", AT_RECURSIVE, read_only, ctypes.sizeof(read_only))
    call("mount", b"proc", b"/proc", b"proc", MS_NOSUID_NODEV, None)
    for path in SCRATCH + HIDDEN:
        if os.path.isdir(path):
            mount_empty(path)
    os.chdir("/tmp")


def mount_empty(path: str) -> None:
    options = f"size=64m,nr_inodes=4096,mode={SCRATCH_MODE:o}" if path in SCRATCH else "size=4k,nr_inodes=2,mode=555"
    call("mount", b"tmpfs", path.encode(), b"tmpfs", MS_NOSUID_NODEV, options.encode())


def confine_test(mode: str, limits: dict) -> None:
    """In the fork of a test, for good: limits by their names in `resource`, no privilege, an own session."""
    os.setsid()
    for name, soft_and_hard in limits.items():
        resource.setrlimit(getattr(resource, name), soft_and_hard)
    if mode == "namespaces":  # process 1 of a user namespace holds every capability inside it
        call("capset", (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)())
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    call("prctl", PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    call("prctl", PR_SET_DUMPABLE, 1, 0, 0, 0)  # else a program could not open /dev/stdin


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


def empty_scratch() -> None:
    """In namespaces: fresh scratch directories, where the last test used them."""
    for path in SCRATCH:
        if os.path.isdir(path) and (os.listdir(path) or os.stat(path).st_mode & 0o7777 != SCRATCH_MODE):
            call("umount2", path.encode(), MNT_DETACH)
            mount_empty(path)
    os.chdir("/tmp")


def empty_directory(fd: int) -> None:
    """Without namespaces: remove what the last test left in the current directory, open as `fd`."""
    os.fchmod(fd, 0o700)
    try:
        left = os.listdir(".")
    except FileNotFoundError:  # the program removed the directory: its next test has none
        return
    if left:
        import shutil  # slow, and most programs write no file

        for name in left:
            if os.path.isdir(name) and not os.path.islink(name):
                shutil.rmtree(name, ignore_errors=True)
            else:
                os.unlink(name)
