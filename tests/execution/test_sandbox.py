"""What a program cannot do to the host, to other programs, to its next test and to its verdict."""

import ast
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from daj_lightning.execution import (
    Limits,
    Program,
    Sandbox,
    SandboxError,
    cgroup,
    grade_all,
    layout,
    sandbox as sandbox_module,
)
from daj_lightning.execution.sandbox import Session
from daj_lightning.records import DajError, Outcome
from execution.programs import ADD, candidate, graded, output_of, problem, start, survivors

SUM = "a, b = map(int, input().split())\nprint(a + b, flush=True)\n"
SLEEP = "import time; time.sleep(60)"
DAEMON = f"import os\nif os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0:\n    {SLEEP}\n  os._exit(0)\n"


def wait_until(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


@pytest.fixture(params=["namespaces", "bubblewrap"])
def isolated(request):
    return start(request.param, test_wall_s=20)


# ---- forging a pass


def test_no_expected_output_is_sent_to_the_worker(sandbox, monkeypatch):
    sent = []
    send = Session.send
    monkeypatch.setattr(Session, "send", lambda self, data, *end: sent.append(data) or send(self, data, *end))
    graded(sandbox, "print(input())", problem(("one", "one"), ("two", "EXPECTED"), ("three", "EXPECTED")))
    assert sent[1:] == [b"one", b"two"]
    assert not any(b"EXPECTED" in data for data in sent)


def test_writing_answers_to_every_descriptor_forges_nothing(sandbox):
    frames = [b"0 0 0 0.1", b"3\n", b""]
    forged = b"".join(len(frame).to_bytes(8, "little") + frame for frame in frames)
    code = f"import os\nfor fd in range(2, 256):\n    try: os.write(fd, {forged!r})\n    except OSError: pass\n"
    code += "print(4)"
    assert graded(sandbox, code).outcome is Outcome.WRONG_ANSWER


def test_the_worker_cannot_be_opened_or_traced(sandbox):
    code = (
        "import ctypes, os\nparent = os.getppid()\n"
        "for name in 'fd/1', 'mem', 'environ':\n"
        "    try: open(f'/proc/{parent}/{name}', 'r+b').close(); print('opened', name)\n"
        "    except OSError: pass\n"
        "print(ctypes.CDLL(None).ptrace(16, parent, 0, 0))\n"
    )
    assert output_of(sandbox, code) == "-1\n"


def test_one_test_leaves_nothing_for_the_next(sandbox):
    code = (
        "import os, builtins\nassert not os.listdir('.') and not hasattr(builtins, 'poison')\n"
        "builtins.poison = 1\nos.makedirs('a/b'); open('a/b/c', 'w').write('x')\nos.chmod('.', 0)\n" + SUM
    )
    verdict = graded(sandbox, code)
    assert verdict.passed, verdict.detail


def test_no_message_can_be_left_on_a_scratch_directory(isolated):
    code = (
        "import os\nprint(os.stat('/tmp').st_mtime_ns % 1000 == 7, os.listxattr('/tmp'), os.getpriority(0, 1))\n"
        "os.utime('/tmp', ns=(7, 7))\ntry: os.setxattr('/tmp', 'user.message', b'1')\nexcept OSError: pass\n"
        "try: os.setpriority(0, 1, 9)\nexcept OSError: pass\n"
    )
    with isolated.session(Program(code)) as session:
        assert [session.run("").output for _ in range(2)] == ["False [] 0\n"] * 2


def test_a_program_that_removes_its_directory_is_graded_all_the_same(sandbox):
    remove = "import os\ntry: os.rmdir(os.getcwd())\nexcept OSError: pass\n"
    assert graded(sandbox, remove + SUM).passed


# ---- ending


@pytest.mark.parametrize("end", [SUM, SUM + "os._exit(0)", "import time; time.sleep(60)", "1/0"])
def test_no_process_survives_its_verdict_nor_delays_it(mode, marker, end):
    """The grandchild left its session, and holds standard output open."""
    sandbox = start(mode, test_wall_s=1.5)
    begin = time.monotonic()
    verdict = graded(sandbox, DAEMON + end)
    assert time.monotonic() - begin < 10
    assert verdict.passed == (SUM in end), verdict.detail
    assert wait_until(lambda: not survivors(marker))


def test_a_fork_bomb_meets_the_process_limit(mode, marker):
    if mode == "unsafe-local" and os.getuid() != 0:
        pytest.skip("the limit then counts all of the user's processes")
    sandbox = start(mode, processes=20)
    code = (
        "import os, time\nn = 0\nwhile n < 100:\n    try:\n        if os.fork() == 0: time.sleep(60)\n"
        "        n += 1\n    except OSError: break\nprint(n)"
    )
    assert 10 < int(output_of(sandbox, code)) < 20
    assert wait_until(lambda: not survivors(marker))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_program_that_attacks_its_worker_gains_nothing(mode, marker, monkeypatch, number):
    """Process 1 of a PID namespace is immune; otherwise the worker is lost, and the test with it."""
    monkeypatch.setattr(sandbox_module, "SILENCE_LIMIT_S", 1.0)
    monkeypatch.setattr(sandbox_module, "LEAVE_LIMIT_S", 0.5)
    sandbox = start(mode, test_wall_s=2)
    attack = f"import os, time\nos.kill(os.getppid(), {int(number)}); time.sleep(0.5)\n"
    verdict = graded(sandbox, attack + SUM)
    lost = {signal.SIGKILL: Outcome.CRASHED, signal.SIGSTOP: Outcome.TIMED_OUT}[number]
    assert verdict.outcome is (lost if mode == "unsafe-local" else Outcome.PASSED)
    assert wait_until(lambda: not survivors(marker))


@pytest.fixture
def own_interrupt():
    """A shell starts what runs in its background with SIGINT ignored, and Python then leaves it so."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_kill_all_reaches_no_other_program(sandbox):
    """kill(-1) of one program while another one is at work."""
    if sandbox.mode == "unsafe-local" and os.getuid() != 0:
        pytest.skip("would reach every process of the user that runs the tests")
    killer = "import os, time\nfor _ in range(20):\n  time.sleep(0.02)\n  try: os.kill(-1, 9)\n"
    killer += "  except OSError: pass"
    worker = "import time; time.sleep(0.6)\n" + SUM
    verdicts = list(grade_all([(ADD, candidate(killer)), (ADD, candidate(worker))], sandbox, num_workers=2))
    assert [verdict.passed for verdict in verdicts] == [False, True]


def test_an_interrupt_leaves_no_process_behind(mode, marker, own_interrupt):
    sandbox = start(mode, test_wall_s=60)

    def interrupt():
        wait_until(lambda: len(survivors(marker)) >= 4)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    begin = time.monotonic()
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        list(grade_all([(ADD, candidate(DAEMON + SLEEP))] * 5, sandbox, num_workers=2))
    thread.join()
    assert time.monotonic() - begin < 15
    assert wait_until(lambda: not survivors(marker))


def test_a_caller_that_stops_early_leaves_no_process_behind(mode, marker):
    sandbox = start(mode, test_wall_s=60)
    verdicts = grade_all([(ADD, candidate(SUM))] + [(ADD, candidate(SLEEP))] * 3, sandbox, num_workers=2)
    assert next(verdicts).passed
    verdicts.close()
    assert not survivors(marker)


def test_programs_die_with_a_host_process_that_is_killed(mode, marker, tmp_path):
    start(mode)
    script = (
        "from daj_lightning.execution import Limits, Program, Sandbox\n"
        "from daj_lightning.execution import sandbox as module\n"
        f"sandbox = Sandbox(Limits(test_wall_s=60), mode={mode!r})\n"
        f"module.START = (*module.START, {marker!r} + '-w')\n"
        f"with sandbox.session(Program({DAEMON + SLEEP!r})) as session: session.run('')\n"
    )
    log = tmp_path / "log"
    with log.open("w") as file:
        host = subprocess.Popen(
            [sys.executable, "-c", script], env={**os.environ, "TMPDIR": str(tmp_path)}, stderr=file
        )
    try:
        assert wait_until(lambda: len(survivors(marker + "-w")) >= 3, seconds=30), log.read_text()
    finally:
        host.kill()
        host.wait()
    assert wait_until(lambda: not survivors(marker + "-w"))


def test_directories_are_removed(sandbox, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = "import os\nos.makedirs('a/b'); open('a/b/c', 'w').write('x'); os.chmod('a', 0)\nopen('d', 'w')\n"
    graded(sandbox, code + SUM)
    graded(sandbox, code + "1/0")
    assert list(tmp_path.iterdir()) == []


# ---- looking around


def test_the_environment_and_the_descriptors_of_the_host_are_not_there(sandbox, monkeypatch):
    monkeypatch.setenv("DAJ_SECRET", "s3cr3t")
    leaked = os.open("/etc/hostname", os.O_RDONLY)
    os.set_inheritable(leaked, True)
    code = (
        "import os\nos.chdir('/proc/self/fd')\nfiles = [fd for fd in os.listdir('.') if int(fd) > 2]\n"
        "names = [os.path.basename(os.readlink(fd)) for fd in files if os.path.exists(fd)]\n"
        "print(sorted(os.environ), sorted(names))"
    )
    shown = output_of(sandbox, code)
    os.close(leaked)
    # Without namespaces, modules are found through open directories: their paths may be unreadable.
    modules = [os.path.basename(os.path.dirname(os.__file__)), "lib-dynload"]
    modules += [os.path.basename(path) for path in sandbox.interpreter.site_packages]
    names = sorted(modules) if sandbox.mode == "unsafe-local" else []
    assert shown == f"{sorted(sandbox.environment)} {names}\n"


def test_no_process_of_the_host_is_in_sight(isolated):
    code = "import os\nprint({int(p) for p in os.listdir('/proc') if p.isdecimal()} == {1, os.getpid()})"
    assert output_of(isolated, code) == "True\n"


def test_the_host_listens_in_vain(isolated):
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = (
            "import socket\naddress = '127.0.0.1', int(input())\n"
            "try: socket.create_connection(address, timeout=2); print('connected')\n"
            "except OSError: print('refused')"
        )
        assert output_of(isolated, code, str(server.getsockname()[1])) == "refused\n"


def test_only_scratch_directories_are_writable_and_homes_are_not_there(isolated, tmp_path):
    (tmp_path / "secret").write_text("x")
    code = (
        "import os\nopen('x', 'w'); print(os.getcwd(), os.path.exists('/home'), os.path.exists('/etc/shadow'))\n"
        f"print(os.path.exists({str(tmp_path)!r}), bool(os.statvfs('/').f_flag & os.ST_RDONLY))\n"
        "writable = [d for d, _, _ in os.walk('/') if not d.startswith('/proc') and os.access(d, os.W_OK)]\n"
        "print(sorted(writable))"
    )
    scratch = ["/dev/shm", "/tmp", "/var/tmp"]
    assert output_of(isolated, code) == f"/tmp False False\nFalse True\n{scratch}\n"


def test_of_the_host_only_libraries_an_interpreter_and_harmless_files_are_visible(isolated):
    shown = output_of(isolated, "import os\nprint(sorted(os.listdir('/etc')))")
    allowed = {path.split("/")[2] for path in (*layout.SYSTEM_FILES, *layout.MADE_UP)}
    assert set(ast.literal_eval(shown)) <= allowed
    text = output_of(isolated, "print(open('/etc/passwd').read())")
    assert text.strip() == layout.MADE_UP["/etc/passwd"].strip()


def test_a_program_has_no_capabilities_and_can_gain_none(sandbox):
    wanted = "CapInh", "CapPrm", "CapEff", "NoNewPrivs"
    code = f"print(*[int(l.split()[1], 16) for l in open('/proc/self/status') if l.startswith({wanted})])"
    assert output_of(sandbox, code) == "0 0 0 1\n"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can change the user")
def test_root_is_dropped(sandbox):
    code = "import os\nprint(0 in os.getresuid() + os.getresgid(), os.access('/etc/shadow', os.R_OK))\n"
    assert output_of(sandbox, code) == "False False\n"


# ---- starting


def test_a_host_that_can_isolate_nothing_is_refused_with_what_to_install(monkeypatch):
    def refusing(self, mode):
        raise SandboxError("unshare: Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(Sandbox, "start_in", refusing)
        with pytest.raises(DajError, match=r"not permitted.*apt-get install bubblewrap.*data.unsafe_local: true"):
            Sandbox(Limits())
    unsafe = Sandbox(mode="unsafe-local")
    assert graded(unsafe, SUM).sandbox.split("+")[0] == "unsafe-local"


def test_bubblewrap_is_taken_where_only_it_may_make_namespaces(monkeypatch):
    start("bubblewrap")
    start_in = Sandbox.start_in

    def refusing(self, mode):
        if mode == "namespaces":
            raise SandboxError("unshare: Operation not permitted")
        start_in(self, mode)

    monkeypatch.setattr(Sandbox, "start_in", refusing)
    assert graded(Sandbox(), SUM).sandbox == "bubblewrap"


def test_namespaces_are_the_default_where_they_work():
    start("namespaces")
    assert Sandbox().mode == "namespaces"


def test_an_interpreter_that_does_not_start_is_refused_by_name(tmp_path):
    with pytest.raises(DajError, match="cannot start /nonexistent/python"):
        Sandbox(python="/nonexistent/python")
    (tmp_path / "python").write_text("#!/bin/sh\nexit 3\n")
    (tmp_path / "python").chmod(0o755)
    with pytest.raises(DajError, match=r"cannot start .*exit status 3"):
        Sandbox(python=str(tmp_path / "python"))


def test_the_packages_of_the_interpreter_can_be_imported(isolated):
    if not any(os.path.exists(f"{path}/numpy") for path in isolated.interpreter.site_packages):
        pytest.skip("the tests run on packages that are not the interpreter's own")
    assert output_of(isolated, "import numpy\nprint(numpy.arange(3).sum())") == "3\n"


def test_packages_that_lie_in_scratch_space_can_be_imported_and_an_interpreter_there_is_refused(isolated, monkeypatch):
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        os.chmod(directory, 0o755)
        (Path(directory) / "only_here.py").write_text("x = 42")
        there = dataclasses.replace(isolated.interpreter, site_packages=(directory,))
        monkeypatch.setattr(sandbox_module, "interpreter", lambda python: there)
        sandbox = start(isolated.mode)
        assert output_of(sandbox, "import only_here, os\nprint(only_here.x, os.listdir('/tmp'))") == "42 []\n"
        with pytest.raises(DajError, match=r"lies in /tmp/.*Name a Python that is installed elsewhere"):
            layout.layout(dataclasses.replace(there, standard_library=f"{directory}/lib/python3"))


def test_all_processes_of_a_candidate_share_one_memory_limit(mode):
    """Six processes of 100 MB each, below the limit of one process, above that of all."""
    sandbox = start(mode, test_wall_s=20, memory_mib=512, total_memory_mib=256)
    if sandbox.groups is None:
        pytest.skip("no control group can be made here")
    hog = "import os\nfor _ in range(6):\n    if os.fork() == 0: x = bytearray(100 << 20); os._exit(0)\n"
    hog += "    if os.wait()[1]: raise SystemExit(1)\n"
    alone = "x = bytearray(200 << 20)\n"
    together = hog.replace("os._exit(0)", "import time; time.sleep(30)").replace("    if os.wait()[1]", "    if 0")
    together += "import time; time.sleep(1)\nos.kill(os.getpid(), 9)\n"
    assert graded(sandbox, hog + SUM).passed
    assert graded(sandbox, alone + SUM).passed
    assert graded(sandbox, together + SUM).outcome is Outcome.OUT_OF_MEMORY
    assert not list(sandbox.groups.memory.glob(f"{cgroup.own_prefix()}{os.getpid()}-*"))


def test_a_worker_that_cannot_start_is_an_exception_not_a_verdict(sandbox, monkeypatch):
    monkeypatch.setattr(sandbox_module, "START", ("-c", "raise OSError('broken worker')"))
    with pytest.raises(SandboxError, match="broken worker"):
        graded(sandbox, SUM)
