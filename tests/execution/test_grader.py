"""Programs run as real processes do, and each ending has its outcome."""

import os
import platform
import subprocess
import sys
import time

import pytest

from daj_lightning.execution import Limits, grade, grade_all
from daj_lightning.execution.sandbox import Session
from daj_lightning.records import Candidate, DajError, Outcome
from execution.programs import ADD, candidate, graded, problem, start

SUM = "a, b = map(int, input().split())\nprint(a + b)\n"
METHOD = "class Solution:\n    def f(self, a, b):\n        return {}\n"


def test_a_right_program_passes_all_tests_and_the_verdict_says_how_it_ran(sandbox):
    verdict = graded(sandbox, SUM)
    assert (verdict.outcome, verdict.num_passed, verdict.num_tests) == (Outcome.PASSED, 3, 3)
    assert (verdict.candidate_id, verdict.detail, verdict.grader) == ("c", "", "process")
    assert (verdict.sandbox, verdict.python) == (sandbox.description, platform.python_version())
    assert 0 < verdict.cpu_s < 5


def test_grading_stops_at_the_first_failure(sandbox, monkeypatch):
    inputs = []
    run = Session.run
    monkeypatch.setattr(Session, "run", lambda self, text: inputs.append(text) or run(self, text))
    verdict = graded(sandbox, "a, b = map(int, input().split())\nprint(3)\n")
    assert (verdict.outcome, verdict.num_passed) == (Outcome.WRONG_ANSWER, 1)
    assert verdict.detail == r"test 2 of 3: wrong answer '3\n'"
    assert inputs == ["1 2\n", "10 5\n"]


@pytest.mark.parametrize(
    ("code", "outcome", "word"),
    [
        ("1 / 0", Outcome.CRASHED, "ZeroDivisionError: division by zero"),
        ("def f(:", Outcome.CRASHED, "SyntaxError"),
        ("x = '\0'", Outcome.CRASHED, "null bytes"),
        ("x = '\udcff'", Outcome.CRASHED, "SyntaxError"),
        (SUM + "import sys; sys.exit(3)", Outcome.CRASHED, "exit status 3"),
        (SUM + "raise SystemExit('sorry')", Outcome.CRASHED, "sorry"),
        (SUM + "import atexit, os; atexit.register(os._exit, 3)", Outcome.CRASHED, "exit status 3"),
        (SUM + "import os; os.close(1)", Outcome.CRASHED, "exit status 120"),
        ("import os; os.kill(os.getpid(), 11)", Outcome.CRASHED, "killed by signal 11"),
        ("x = bytearray(1 << 30)", Outcome.OUT_OF_MEMORY, "MemoryError"),
        ("while True: print('x' * 999)", Outcome.OUTPUT_LIMIT, "output limit"),
        ("import sys\nwhile True: sys.stderr.write('x' * 999)", Outcome.OUTPUT_LIMIT, "output limit"),
        ("import sys\nsys.stdout.buffer.write(bytes(range(256)))", Outcome.WRONG_ANSWER, r"\x00\x01"),
        ("print(end='')", Outcome.WRONG_ANSWER, "''"),
    ],
)
def test_each_failure_has_its_outcome_and_one_line_of_detail(sandbox, code, outcome, word):
    verdict = graded(sandbox, code)
    assert (verdict.outcome, verdict.num_passed) == (outcome, 0)
    assert word in verdict.detail
    assert verdict.detail.isascii()
    assert verdict.detail.isprintable()


def test_a_sleeper_is_stopped_after_the_wall_limit_and_not_before(mode):
    sandbox = start(mode, test_wall_s=1)
    begin = time.monotonic()
    assert graded(sandbox, "import time; time.sleep(60)").outcome is Outcome.TIMED_OUT
    assert 1 <= time.monotonic() - begin < 8


def test_a_loop_that_ignores_every_signal_is_stopped_by_the_cpu_limit(mode):
    sandbox = start(mode, test_wall_s=30, test_cpu_s=1)
    code = "import signal\nfor s in {1, 2, 14, 15, 24}: signal.signal(s, signal.SIG_IGN)\nwhile True: pass"
    begin = time.monotonic()
    verdict = graded(sandbox, code)
    assert verdict.outcome is Outcome.TIMED_OUT
    assert verdict.cpu_s > 0.9
    assert time.monotonic() - begin < 25


@pytest.mark.parametrize(
    "code",
    [
        "import sys\nprint(sum(map(int, sys.stdin.read().split())))",
        "import sys\nprint(sum(map(int, sys.stdin.buffer.read().split())))",
        "import sys\nfor line in sys.stdin: print(sum(map(int, line.split())))",
        "import sys\nfirst = sys.stdin.readline(); print(sum(map(int, (first + sys.stdin.read()).split())))",
        "print(sum(map(int, open(0).read().split())))",
        "print(sum(map(int, open('/dev/stdin').read().split())))",
        "import os\nos.write(1, b'%d' % sum(map(int, os.read(0, 99).split())))",
        f"if __name__ == '__main__':\n    {SUM.replace(chr(10), chr(10) + '    ')}",
        "from threading import Thread\ndef f():\n print(sum(map(int, input().split())))\nThread(target=f).start()",
        "import atexit\natexit.register(lambda: print(sum(map(int, input().split()))))",
        "out = open(1, 'w')\nout.write(str(sum(map(int, input().split()))))",
        "class Last:\n def __del__(self): print(sum(map(int, input().split())))\nx = Last()",
        "class Ring:\n def __del__(self): print(sum(map(int, input().split())))\nx = Ring(); x.me = x; del x",
        "import sys, io\nsys.stdout = io.TextIOWrapper(open(1, 'wb', buffering=999))\n"
        + SUM.replace(", flush=True", ""),
        SUM + "import sys, io\nsys.stdout = io.StringIO()",
        SUM + "import sys\nsys.stdout = None",
        SUM + "import sys\ndel sys.stdout",
        "import sys, io\nout = sys.stdout\nsys.stdout = io.StringIO()\n"
        "out.write(str(sum(map(int, input().split()))) + '\\n')",
        "import sys\nclass A:\n def __del__(self): sys.stdout.write(str(sum(map(int, input().split()))))\na = A()",
        "import io, os\nclass W(io.IOBase):\n def __init__(self): self.parts = []\n"
        " def close(self):\n  while self.parts: os.write(1, self.parts.pop())\n"
        "w = W(); w.parts.append(b'%d' % sum(map(int, input().split())))",
        "import os.path\nassert os.path.dirname(__file__) == ''\n" + SUM,
        SUM + "import sys; sys.exit(0)",
        SUM + "exit()",
        "import os, signal\nsignal.signal(15, signal.SIG_IGN)\nos.kill(0, 15)\n" + SUM,
        SUM + "import os, sys; sys.stdout.flush(); os._exit(0)",
        "import sys\nsys.setrecursionlimit(10**6)\ndef f(n): return n and 1 + f(n - 1)\nx = f(20000)\n" + SUM,
        "from dataclasses import dataclass\nimport numbers, ctypes.util, encodings.idna\n"
        "@dataclass\nclass A:\n    x: 'int'\n" + SUM,
        "import multiprocessing as m\ndef f(x, q): q.put(x)\nif __name__ == '__main__':\n"
        " q = m.SimpleQueue(); p = m.Process(target=f, args=(sum(map(int, input().split())), q)); p.start()\n"
        " print(q.get()); p.join()",
    ],
)
def test_whatever_works_in_a_real_process_works(sandbox, code):
    verdict = graded(sandbox, code)
    assert verdict.passed, verdict.detail


def test_a_program_that_ignores_a_large_input_is_no_deadlock(sandbox):
    assert graded(sandbox, "print(1)", problem(("1 " * 2_500_000, "1"))).passed


def test_an_input_arrives_unchanged(sandbox):
    text = "é\r\n\tx\x00y 😀"
    code = "import sys\nprint(sys.stdin.buffer.read())"
    assert graded(sandbox, code, problem((text, repr(text.encode())))).passed


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        ("a + b", Outcome.PASSED),
        ("float(a + b)", Outcome.PASSED),
        ("print('noise') or a + b", Outcome.PASSED),
        ("a - b", Outcome.WRONG_ANSWER),
        ("exit(0)", Outcome.WRONG_ANSWER),
        ("__import__('os')._exit(0)", Outcome.WRONG_ANSWER),
        ("a + b + c", Outcome.CRASHED),
        ("{a}", Outcome.CRASHED),
        ("[0] * 10**7", Outcome.OUTPUT_LIMIT),
        ("bytearray(10**9)", Outcome.OUT_OF_MEMORY),
        ("type('E', (int,), {'__eq__': lambda s, o: True})(0)", Outcome.WRONG_ANSWER),
    ],
)
def test_a_method_is_judged_by_its_return_value(sandbox, body, outcome):
    add = problem(("1\n2", "3"), ("10\n5", "15"), function_name="f")
    assert graded(sandbox, METHOD.format(body), add).outcome is outcome


def test_a_tuple_is_a_list_and_the_customary_imports_are_there(sandbox):
    code = "class Solution:\n    def f(self, a: List[int], s: str): return max(a), Counter(s)['x'], gcd(4, 6)"
    assert graded(sandbox, code, problem(('[1, 5]\n"xx"', "[5, 2, 2]"), function_name="f")).passed


def test_a_missing_method_is_not_found_among_the_customary_imports(sandbox):
    verdict = graded(sandbox, "x = 1", problem(("1\n2", "3"), function_name="add"))
    assert verdict.outcome is Outcome.CRASHED


def test_nothing_to_grade_is_an_error_and_never_a_pass(sandbox):
    with pytest.raises(DajError, match="no tests"):
        graded(sandbox, SUM, problem())
    with pytest.raises(DajError, match="empty"):
        graded(sandbox, " \n")
    with pytest.raises(DajError, match="written for problem q "):
        grade(ADD, Candidate("c", "q", "", SUM), sandbox)
    with pytest.raises(DajError, match="num_workers"):
        list(grade_all([(ADD, candidate(SUM))], sandbox, num_workers=0))


@pytest.fixture
def one_busy_core():
    """This process and all that it starts share one core with three others that never sleep."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    rivals = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(3)]
    yield
    for rival in rivals:
        rival.kill()
        rival.wait()
    os.sched_setaffinity(0, before)


@pytest.mark.parametrize("start_it", ["work()", "import threading; threading.Thread(target=work).start()"])
def test_a_program_that_got_no_core_has_not_timed_out(mode, one_busy_core, start_it):
    """It needs half the wall limit of CPU time, and gets a quarter of a core."""
    code = "import time\ndef work():\n    while time.thread_time() < 0.5: pass\n    print(3)\n" + start_it
    one = problem(("1 2", "3"))
    assert graded(start(mode, test_wall_s=1), code, one).passed
    begin = time.monotonic()
    assert graded(start(mode, test_wall_s=1), "import time; time.sleep(30)", one).outcome is Outcome.TIMED_OUT
    assert time.monotonic() - begin < 8


def test_a_program_cannot_buy_time_by_starving_itself(mode):
    """Six children of its own take the cores, and it asks to come last: a second of wall time stays about one."""
    if mode == "unsafe-local":
        pytest.skip("its children cannot be told from other processes of the host")
    lowly = "import os\ntry: os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\nexcept OSError: pass\n"
    code = lowly + "for _ in range(6):\n    if os.fork() == 0:\n        while True: pass\nwhile True: pass"
    begin = time.monotonic()
    assert graded(start(mode, test_wall_s=1), code).outcome is Outcome.TIMED_OUT
    assert time.monotonic() - begin < 3


@pytest.mark.parametrize("wrong", [{"test_wall_s": 0}, {"memory_mib": -1}, {"output_kib": 1.5}, {"processes": True}])
def test_limits_are_checked_at_the_door(wrong):
    with pytest.raises(DajError, match=next(iter(wrong))):
        Limits(**wrong)


def test_verdicts_come_in_the_order_of_the_jobs(sandbox):
    codes = [f"import time; time.sleep({seconds})\n{SUM}" for seconds in (0.5, 0, 0.2, 0, 0)]
    jobs = [(ADD, candidate(code, name=str(i))) for i, code in enumerate(codes)]
    verdicts = list(grade_all(jobs, sandbox, num_workers=3))
    assert [verdict.candidate_id for verdict in verdicts] == ["0", "1", "2", "3", "4"]
    assert all(verdict.passed for verdict in verdicts)
