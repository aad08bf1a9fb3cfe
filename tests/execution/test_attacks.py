"""Attacks on the sandbox, one property each; on verdicts: test_forgeries.py.

Each program runs in a sandbox of its own and aims at nothing but that sandbox, a listener or a key that the test
made, and files under tmp_path. Ends of programs, forks that outlive their parent and what is in sight:
test_sandbox.py. What is promised: docs/security.md.
"""

import ctypes
import os
import socket
import subprocess
import sys
import threading

import pytest

from daj_lightning.execution import Program, grade_all
from daj_lightning.records import Outcome
from execution.programs import ADD, candidate, graded, output_of, problem, start, survivors

SUM = "a, b = map(int, input().split())\nprint(a + b, flush=True)\n"
LIBC = (
    "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
    "def refused(name, *args): return getattr(libc, name)(*args) == -1\n"
)


@pytest.fixture(params=["namespaces", "bubblewrap"], scope="module")
def isolated(request):
    return start(request.param, test_wall_s=20, test_cpu_s=10, memory_mib=512)


@pytest.fixture(scope="module")
def namespaces():
    return start("namespaces", test_wall_s=20, test_cpu_s=10, memory_mib=512)


# ---- looking at the host


def test_nothing_behind_the_worker_can_be_opened(sandbox):
    code = (
        "import os\nfor name in 'root cwd exe fd fdinfo mem environ maps map_files task/1/mem ns/mnt'.split():\n"
        "    path = f'/proc/{os.getppid()}/{name}'\n"
        "    for attempt in os.listdir, open, os.readlink:\n"
        "        try: attempt(path); print(name)\n"
        "        except OSError: pass\n"
    )
    assert output_of(sandbox, code) == ""


def test_the_memory_and_the_descriptors_of_the_worker_cannot_be_taken(sandbox):
    code = LIBC + (
        "there, here = (ctypes.c_size_t * 2)(0x400000, 8), (ctypes.c_size_t * 2)(id(libc), 8)\n"
        "print(refused('process_vm_readv', os.getppid(), here, 1, there, 1, 0))\n"
        "print(refused('process_vm_writev', os.getppid(), here, 1, there, 1, 0))\n"
        "print(refused('syscall', 438, os.pidfd_open(os.getppid()), 1, 0))\n"  # pidfd_getfd
    )
    assert output_of(sandbox, code) == "True\n" * 3


def test_no_environment_in_sight_holds_the_hosts_secret(isolated, monkeypatch):
    monkeypatch.setenv("DAJ_SECRET_TOKEN", "s3cr3t")
    code = (
        "import glob, os\nfound = os.environ.get('DAJ_SECRET_TOKEN')\n"
        "for path in glob.glob('/proc/*/environ') + glob.glob('/proc/*/task/*/environ'):\n"
        "    try: found = found or b's3cr3t' in open(path, 'rb').read()\n"
        "    except OSError: pass\n"
        "print(found)"
    )
    assert output_of(isolated, code) in ("None\n", "False\n")


def test_neither_the_session_directory_nor_the_callers_directory_is_there(isolated, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").write_text("x")
    with isolated.session(
        Program("import os\nprint([os.path.exists(path) for path in input().split('|')])")
    ) as session:
        run = session.run(f"{session.directory.name}|{tmp_path}|{tmp_path}/secret|secret|{__file__}")
    assert run.output == f"{[False] * 5}\n"


def test_candidates_side_by_side_do_not_see_each_others_files(isolated):
    writer = "for d in '/tmp', '/var/tmp', '/dev/shm': open(d + '/mine', 'w')\nimport time; time.sleep(0.6)\n" + SUM
    reader = "import os, time\nfor _ in range(10):\n    time.sleep(0.05)\n"
    reader += "    for d in '/tmp', '/var/tmp', '/dev/shm': assert os.listdir(d) == []\n" + SUM
    verdicts = list(grade_all([(ADD, candidate(writer)), (ADD, candidate(reader))], isolated, num_workers=2))
    assert [verdict.detail for verdict in verdicts] == ["", ""]


def test_candidates_side_by_side_do_not_reach_each_others_sockets(isolated):
    name = f"daj-{os.urandom(8).hex()}"
    server = f"import socket, time\ns = socket.socket(socket.AF_UNIX); s.bind('\\0{name}'); s.listen()\n"
    server += "time.sleep(0.6)\n" + SUM
    client = "import socket, time\nfor _ in range(10):\n    time.sleep(0.05)\n"
    client += f"    assert socket.socket(socket.AF_UNIX).connect_ex('\\0{name}') != 0\n" + SUM
    verdicts = list(grade_all([(ADD, candidate(server)), (ADD, candidate(client))], isolated, num_workers=2))
    assert [verdict.detail for verdict in verdicts] == ["", ""]


def test_abstract_unix_sockets_of_the_host_are_out_of_reach(isolated):
    name = f"daj-{os.urandom(8).hex()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0{name}")
        server.listen()
        code = f"import socket\nprint(socket.socket(socket.AF_UNIX).connect_ex('\\0{name}') != 0)"
        assert output_of(isolated, code) == "True\n"


def test_shared_memory_of_the_host_is_out_of_reach(isolated):
    libc, key = ctypes.CDLL(None), int.from_bytes(os.urandom(3), "little") + 1
    segment = libc.shmget(key, 4096, 0o1666)
    assert segment >= 0
    try:
        assert output_of(isolated, LIBC + f"print(refused('shmget', {key}, 0, 0))") == "True\n"
    finally:
        libc.shmctl(segment, 0, None)


def test_keys_in_the_hosts_keyring_are_out_of_reach(sandbox):
    """A thread plays the host: a session keyring belongs to the thread that joined it, and to its children."""
    libc, shown = ctypes.CDLL(None), []
    keyctl, add_key = {"x86_64": (250, 248), "aarch64": (219, 217)}[os.uname().machine]
    join, search, session_keyring = 1, 10, -3
    look = f"import ctypes\nprint(ctypes.CDLL(None).syscall({keyctl}, {search}, {session_keyring}, b'user', b'daj', 0))"

    def host():
        if libc.syscall(keyctl, join, None) > 0 and libc.syscall(add_key, b"user", b"daj", b"s3cr3t", 6, -3) > 0:
            shown.append(subprocess.check_output([sys.executable, "-c", look], text=True))
            shown.append(output_of(sandbox, look))

    thread = threading.Thread(target=host)
    thread.start()
    thread.join()
    if not shown:
        pytest.skip("this host has no keyrings")
    assert shown[0] != "-1\n"
    assert shown[1] == "-1\n"


def test_no_socket_leaves_the_network_namespace(sandbox):
    """AF_VSOCK reaches the machine's host whatever the network namespace; none is connected here."""
    code = (
        "import socket\nmade = []\nfor family in range(1, 64):\n    for kind in 1, 2, 3, 5:\n"
        "        try: socket.socket(family, kind).close(); made.append(family)\n        except OSError: pass\n"
        "print(set(made) <= {1, 2, 10, 16}, 1 in made)"
    )
    assert output_of(sandbox, code) == "True True\n"


def test_nothing_of_system_v_can_be_left_for_the_next_test(sandbox):
    code = LIBC + (
        "print(refused('shmget', 7, 4096, 0o1600), refused('semget', 7, 1, 0o1600), refused('msgget', 7, 0o1600))\n"
        "print(ctypes.CDLL('librt.so.1').mq_open(b'/daj', os.O_CREAT | os.O_RDWR, 0o600, None))"
    )
    assert output_of(sandbox, code) == "True True True\n-1\n"


def test_of_dev_there_is_only_what_any_program_may_have(isolated):
    shown = set(output_of(isolated, "import os\nprint(*os.listdir('/dev'))").split())
    assert shown == {"null", "zero", "full", "random", "urandom", "fd", "stdin", "stdout", "stderr", "shm"}


def test_no_setting_of_the_kernel_can_be_written(isolated):
    code = (
        "import os\nassert not os.path.exists('/sys')\ndef write(path):\n    try: text = open(path, 'rb').read()\n"
        "    except OSError: text = b'0'\n    try: open(path, 'wb', 0).write(text); print(path)\n"
        "    except OSError: pass\n"
        "for base, _, names in os.walk('/proc/sys'):\n    for name in names: write(os.path.join(base, name))\n"
        "for name in 'sysrq-trigger', '1/oom_score_adj', 'mtrr', '1/uid_map', '1/setgroups': write('/proc/' + name)\n"
    )
    assert output_of(isolated, code) == ""


# ---- breaking out


def test_no_new_namespace_can_be_made(isolated):
    """User, mount, network, PID and IPC namespace, each alone and with a user namespace."""
    code = LIBC + (
        "for flag in 0x10000000, 0x00020000, 0x40000000, 0x20000000, 0x08000000:\n"
        "    print(refused('unshare', flag), refused('unshare', flag | 0x10000000))"
    )
    assert output_of(isolated, code) == "True True\n" * 5


def test_the_root_directory_cannot_be_changed(sandbox):
    code = LIBC + (
        "print(refused('chroot', b'/tmp'), refused('mount', b'none', b'/tmp', b'tmpfs', 0, None))\n"
        "print(refused('umount2', b'/tmp', 2), refused('syscall', 155, b'.', b'.'))\n"  # pivot_root
        "print(refused('mount', b'/', b'/tmp', None, 4096, None), refused('mount', None, b'/', None, 32, None))\n"
        "print(refused('syscall', 428, -100, b'/', 1), refused('syscall', 430, b'tmpfs', 0))\n"  # open_tree, fsopen
    )
    assert output_of(sandbox, code) == "True True\n" * 4


def test_no_namespace_can_be_entered(sandbox):
    code = LIBC + (
        "entered = []\nfor pid in 'self', '1', str(os.getppid()):\n"
        "    for name in os.listdir('/proc/self/ns'):\n"
        "        try: fd = os.open(f'/proc/{pid}/ns/{name}', os.O_RDONLY)\n"
        "        except OSError: continue\n"
        "        if not refused('setns', fd, 0): entered.append((pid, name))\n"
        "print(entered)"
    )
    assert output_of(sandbox, code) == "[]\n"


def test_no_device_can_be_made(sandbox):
    code = "import os, stat\ntry: os.mknod('disk', stat.S_IFBLK | 0o600, os.makedev(8, 0)); print('made')\n"
    assert output_of(sandbox, code + "except PermissionError: print('refused')") == "refused\n"


def test_a_setuid_program_runs_as_its_caller(sandbox):
    """The status of a process stays readable after its end, until somebody waits for it."""
    code = (
        "import glob, os, stat, subprocess\n"
        "found = [f for f in glob.glob('/usr/bin/*') if os.stat(f).st_mode & stat.S_ISUID and os.access(f, os.X_OK)]\n"
        "for path in found[:3]:\n"
        "    child = subprocess.Popen([path, '--help'], stdin=-3, stdout=-3, stderr=-3)\n"
        "    line = next(l for l in open(f'/proc/{child.pid}/status') if l.startswith('Uid'))\n"
        "    assert set(line.split()[1:]) == {str(os.getuid())} != {'0'}, (path, line)\n"
        "print(len(found))"
    )
    if output_of(sandbox, code) == "0\n":
        pytest.skip("this host has no setuid program")


def test_limits_cannot_be_raised(sandbox):
    code = (
        "import resource as r\nfor name in 'CPU', 'AS', 'FSIZE', 'NPROC', 'NOFILE', 'CORE':\n"
        "    soft, hard = r.getrlimit(getattr(r, 'RLIMIT_' + name))\n"
        "    assert hard != r.RLIM_INFINITY, name\n"
        "    try: r.setrlimit(getattr(r, 'RLIMIT_' + name), (hard + 1, hard + 1)); print(name)\n"
        "    except ValueError: pass\n"
    )
    assert output_of(sandbox, code) == ""


def test_links_that_a_program_leaves_lead_the_clean_up_nowhere(sandbox, tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir(mode=0o751)
    (kept / "file").write_text("x")
    tmp_path.chmod(0o755)
    code = f"import os\nos.mkdir('a'); os.symlink({str(kept)!r}, 'b'); os.symlink({str(kept)!r}, 'a/b')\n"
    code += f"os.symlink({str(kept / 'file')!r}, 'a/c'); os.chmod('a', 0)\n"
    assert graded(sandbox, code + SUM).passed
    assert (kept / "file").read_text() == "x"
    assert kept.stat().st_mode & 0o777 == 0o751


# ---- taking the worker down


def test_no_signal_takes_the_worker_down(isolated):
    """Process 1 has no handler for any of them, and the kernel then spares it."""
    code = "import os, signal\nfor number in signal.valid_signals(): os.kill(os.getppid(), number)\n"
    verdict = graded(isolated, code + SUM)
    assert verdict.passed, verdict.detail


def test_the_limits_of_the_worker_cannot_be_lowered(sandbox):
    """It has the programs' user id, which is all that prlimit asks for."""
    code = "import os, resource as r\nfor name in 'CPU', 'AS', 'FSIZE', 'NPROC', 'NOFILE':\n"
    code += "    try: r.prlimit(os.getppid(), getattr(r, 'RLIMIT_' + name), (0, 0)); print(name)\n"
    code += "    except PermissionError: pass\n"
    verdict = graded(sandbox, code + SUM)
    assert verdict.passed, verdict.detail


def test_an_interrupt_still_reaches_a_program(sandbox):
    code = "import os\ntry: os.kill(os.getpid(), 2); input()\nexcept KeyboardInterrupt: print('interrupted')"
    assert output_of(sandbox, code) == "interrupted\n"


def test_a_program_that_stops_itself_is_timed_out(mode):
    sandbox = start(mode, test_wall_s=1)
    assert graded(sandbox, "import os, signal\nos.kill(0, signal.SIGSTOP)").outcome is Outcome.TIMED_OUT


@pytest.mark.parametrize(("depth", "length"), [(30, 200), (1100, 3)], ids=["longer than a path", "for recursion"])
def test_a_deep_tree_is_cleaned_up(sandbox, depth, length):
    if sandbox.mode == "unsafe-local" and depth > 1000:
        pytest.skip("takes seconds on a disk")
    code = "import os\nassert os.listdir() == []\n"
    code += f"for _ in range({depth}): os.mkdir('d' * {length}); os.chdir('d' * {length})\n"
    code += "open('file', 'w'); os.chmod('.', 0)\n"
    verdict = graded(sandbox, code + SUM)
    assert verdict.passed, verdict.detail


def test_closing_the_standard_descriptors_harms_nobody_else(sandbox):
    assert not graded(
        sandbox, "import os\nfor fd in range(256):\n    try: os.close(fd)\n    except OSError: pass\n"
    ).passed
    assert graded(sandbox, SUM).passed


def test_a_flood_of_zombies_is_swept(sandbox, marker):
    code = "import os\nfor _ in range(40):\n    if os.fork() == 0: os._exit(0)\n"
    verdict = graded(sandbox, code + SUM)
    assert verdict.passed, verdict.detail
    assert survivors(marker) == []


def test_a_process_that_hops_from_fork_to_fork_does_not_outlive_its_test(isolated, marker):
    hop = "import os\nif os.fork() == 0:\n    while True:\n        if os.fork(): os._exit(0)\n"
    assert graded(isolated, hop + SUM).passed
    assert survivors(marker) == []


# ---- memory and disk


@pytest.mark.parametrize("path", ["/tmp", "/var/tmp", "/dev/shm"])
@pytest.mark.parametrize("mode", ["namespaces", "bubblewrap"])
def test_a_scratch_directory_holds_its_size_and_no_more(mode, path):
    sandbox = start(mode, scratch_mib=4, test_wall_s=20)
    code = f"n = 0\ntry:\n    while n < 9: open(f'{path}/{{n}}', 'wb', 0).write(b'x' * (1 << 20)); n += 1\n"
    code += "except OSError as error: print(n, error.errno)"
    assert output_of(sandbox, code) in ("4 28\n", "3 28\n")


def test_a_scratch_directory_holds_few_files(namespaces):
    code = "import os\nn = 0\ntry:\n    while n < 9000: os.close(os.open(str(n), os.O_CREAT)); n += 1\n"
    assert output_of(namespaces, code + "except OSError as error: print(error.errno)") == "28\n"


HOGS = {
    "files in memory": "k = [os.memfd_create('x') for _ in range(40)]; [os.write(fd, b'x' * (1 << 20)) for fd in k]",
    "heap": "x = b'x' * (40 << 20)",
    "files": "[open(f'/dev/shm/{os.getpid()}-{k}', 'wb', 0).write(b'x' * (1 << 20)) for k in range(40)]",
}


@pytest.mark.parametrize("hog", HOGS)
def test_memory_of_every_kind_counts_for_a_candidate(hog):
    """40 MiB in each of six processes: none of them has more than its own limit allows."""
    sandbox = start("namespaces", total_memory_mib=96, scratch_mib=512, test_wall_s=20)
    if sandbox.groups is None:
        pytest.skip("no control group can be made here")
    code = f"import os, time\nfor _ in range(6):\n    if os.fork() == 0: {HOGS[hog]}; time.sleep(20)\n"
    assert graded(sandbox, code + "os.wait(); os.kill(os.getpid(), 9)").outcome is Outcome.OUT_OF_MEMORY
    assert graded(sandbox, SUM).passed


def test_a_thread_bomb_meets_a_limit(sandbox):
    code = "import threading, time\nn = 0\ntry:\n    while n < 500:\n"
    code += "        threading.Thread(target=time.sleep, args=(60,), daemon=True).start(); n += 1\n"
    code += "except RuntimeError: print(n < 64)"
    assert output_of(sandbox, code) == "True\n"


def test_standard_output_cannot_be_made_longer_than_its_limit_by_any_call(sandbox):
    code = LIBC + (
        "for size in 2 << 20, 1 << 40:\n"
        "    try: os.ftruncate(1, size); print('truncate', size)\n    except OSError: pass\n"
        "    try: os.posix_fallocate(1, 0, size); print('allocate', size)\n    except OSError: pass\n"
    )
    assert output_of(sandbox, code) == ""


@pytest.mark.parametrize(("extra", "outcome"), [(0, Outcome.PASSED), (1, Outcome.OUTPUT_LIMIT)])
def test_output_of_the_limit_passes_and_one_byte_more_does_not(sandbox, extra, outcome):
    size = sandbox.limits.output_kib << 10
    code = f"import os\ndata = b'x' * {size + extra}\nwhile data: data = data[os.write(1, data):]\n"
    assert graded(sandbox, code, problem(("", "x" * (size + extra)))).outcome is outcome
