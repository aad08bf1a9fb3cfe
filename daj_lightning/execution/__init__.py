"""Run one untrusted program against tests and say what happened.

worker.py is the process of the program (isolation.py shuts it in), sandbox.py starts it, talks to it
and ends it, compare.py decides whether an output is right, grader.py makes verdicts.
"""

from daj_lightning.execution.grader import Rules, grade, grade_all
from daj_lightning.execution.limits import Limits
from daj_lightning.execution.sandbox import Mode, Program, Sandbox, SandboxError

__all__ = ["Limits", "Mode", "Program", "Rules", "Sandbox", "SandboxError", "grade", "grade_all"]
