"""Rollouts by vLLM on this process's own devices, which its engine shares with the training."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from functools import partial
from typing import Any, TypeVar

import torch
from peft import PeftModel

from daj_lightning.records import DajError
from daj_lightning.rollout import reaper
from daj_lightning.rollout.adapters import Adapter, AdapterStore, needed_rank
from daj_lightning.rollout.completions import Wanted, believe, check_request, has_logps, request_fields
from daj_lightning.rollout.engine import Policy, Rollout, RolloutEngine, RolloutError, Sampling
from daj_lightning.rollout.vllm_settings import ON_CPU, QUIET, Dtype, base_dtype, common_arguments, embedding

T = TypeVar("T")
_BASE = "base"
_POLL_S = 1.0
_SPAWN = {"VLLM_WORKER_MULTIPROC_METHOD": "spawn"}  # a fork of a process that has trained may hang in its threads


class VllmColocated(RolloutEngine):
    """Rolls out by `vllm.LLM`, in this interpreter's environment; use VllmServer where vllm is in another.

    It is not started again when it dies: use VllmServer for long runs. Log-probabilities are NaN where VllmServer's
    are, and the draws of one seed do not repeat either.

    Args:
        dtype: of the base in vLLM; None: as in this process.
        max_model_len: tokens of prompt and rollout; None: what the base can.
        gpu_memory_utilization: share of the GPU that vLLM takes, beside the judge that trains there; without a GPU it
            is not used.
        max_lora_rank: None: what the policy needs.
        max_loras: adapters at once; >= 2: the new version is loaded before the old one goes.
        arguments: more arguments of vllm.LLM.
        directory: where adapters are written; None: a temporary one.
        request_timeout_s: of one call for rollouts.
        sync_timeout_s: of loading an adapter.
    """

    needs_adapters = True

    def __init__(
        self,
        dtype: Dtype | None = None,
        max_model_len: int | None = None,
        gpu_memory_utilization: float = 0.3,
        max_lora_rank: int | None = None,
        max_loras: int = 2,
        arguments: dict[str, Any] | None = None,
        directory: str | None = None,
        request_timeout_s: float = 1800.0,
        sync_timeout_s: float = 120.0,
    ) -> None:
        if max_loras < 2:
            raise DajError(f"VllmColocated needs max_loras >= 2, for old and new version at once; got {max_loras}.")
        self.dtype = dtype
        self.max_model_len = max_model_len
        self.gpu_memory_utilization = gpu_memory_utilization
        self.max_lora_rank = max_lora_rank
        self.max_loras = max_loras
        self.arguments = dict(arguments or {})
        self.directory = directory
        self.request_timeout_s = request_timeout_s
        self.sync_timeout_s = sync_timeout_s
        self.is_lost = False
        self.llm: Any = None
        """A vllm.LLM, between `connect` and `close`."""
        self.store: AdapterStore | None = None
        self.current: Adapter | None = None
        self.request: Any = None
        """LoRARequest of the current adapter; None: the base."""
        self.loads = 0
        self.processes: list[multiprocessing.process.BaseProcess] = []
        """Of vLLM's engine; they would outlive this one if it were killed."""
        self.reaper: subprocess.Popen[bytes] | None = None

    def connect(self, policy: Policy) -> None:
        if importlib.util.find_spec("vllm") is None:
            raise RolloutError(
                f"vllm is not installed in {sys.executable}. Run pip install 'daj-lightning[vllm]', or use VllmServer "
                f"with the python of an environment that has it."
            )
        self.policy, self.is_lost = policy, False
        self.vocab_size = embedding(policy.model).size(0)
        on_cpu = not torch.cuda.is_available()
        os.environ.update(
            {**(ON_CPU if on_cpu else QUIET), **_SPAWN, **os.environ}
        )  # vllm reads them as it is imported
        arguments = common_arguments(
            self.max_lora_rank or needed_rank(policy.model), self.max_loras, self.max_model_len, on_cpu
        )
        if not on_cpu:
            arguments["gpu_memory_utilization"] = self.gpu_memory_utilization
        dtype = self.dtype or base_dtype(policy.model)
        from vllm import LLM

        before = multiprocessing.active_children()
        try:
            self.llm = LLM(policy.base, dtype=dtype, **{**arguments, **self.arguments})
        except (RuntimeError, ValueError, OSError) as error:
            raise RolloutError(f"vLLM did not start: {error}. What it printed above says why.") from error
        self.processes = [child for child in multiprocessing.active_children() if child not in before]
        pids = [str(process.pid) for process in self.processes]
        self.reaper = subprocess.Popen(
            [sys.executable, reaper.__file__, str(os.getpid()), *pids], stdin=subprocess.DEVNULL, start_new_session=True
        )
        self.store = AdapterStore(self.directory)
        self.served_length = int(self.llm.model_config.max_model_len)

    def sync(self, version: int) -> None:
        store = self._connected()
        model = self.policy.model
        if isinstance(model, PeftModel):
            old, old_request = self.current, self.request
            self.current = None  # until the new one is in, there is nothing to roll out
            fresh = store.write(model, version)
            self.request = self._load(fresh)
            self.current = fresh
            if old is not None:
                self._call(self.sync_timeout_s, self.llm.llm_engine.remove_lora, old_request.lora_int_id)
                store.delete(old)
        elif version == 0:
            self.current = Adapter(_BASE, store.directory, 0)
        else:
            raise RolloutError(
                f"vLLM cannot take version {version} of a policy without adapters, for it does not reload all weights "
                f"reliably. Let model.judge train adapters, or use TransformersEngine."
            )

    def generate(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[list[Rollout]]:
        self._connected()
        if self.current is None:
            raise RolloutError("VllmColocated has no policy to roll out; sync comes first.")
        check_request(prompts, sampling, self.served_length, self.vocab_size)
        from vllm import SamplingParams

        wanted = Wanted(self.current.name, self.current.version, self.vocab_size, self.policy.eos_token_id, sampling)
        outputs = self._call(
            self.request_timeout_s,
            self.llm.generate,
            [{"prompt_token_ids": list(prompt)} for prompt in prompts],
            SamplingParams(**request_fields(sampling, wanted.eos_token_id), detokenize=False),
            use_tqdm=False,
            lora_request=self.request,
        )
        if len(outputs) != len(prompts):
            raise RolloutError(f"asked for rollouts of {len(prompts)} prompts, vLLM answered {len(outputs)}.")
        return [_read(prompt, output, wanted) for prompt, output in zip(prompts, outputs, strict=True)]

    def health(self) -> bool:
        return self.llm is not None and all(process.is_alive() for process in self.processes)

    def close(self) -> None:
        if self.llm is not None:
            self.llm.llm_engine.engine_core.shutdown()
            self.llm = None
        if self.reaper is not None:
            self.reaper.kill()
            self.reaper.wait()
            self.reaper = None
        if self.store is not None:
            self.store.close()

    def _connected(self) -> AdapterStore:
        if self.llm is None or self.store is None:
            raise RolloutError("VllmColocated is not connected; connect comes first, and nothing comes after close.")
        return self.store

    def _load(self, adapter: Adapter) -> Any:
        from vllm.lora.request import LoRARequest

        self.loads += 1
        request = LoRARequest(adapter.name, self.loads, str(adapter.path))
        if not self._call(self.sync_timeout_s, self.llm.llm_engine.add_lora, request):
            raise RolloutError(f"vLLM did not load version {adapter.version} from {str(adapter.path)!r}.")
        return request

    def _call(self, limit_s: float, function: Callable[..., T], *args: Any, **options: Any) -> T:
        """Of vLLM, in a thread that is left behind where its engine died or takes too long: vLLM may wait forever."""
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        if self.is_lost:
            raise RolloutError("vLLM's engine was lost before. Resume; that starts another.")
        future: Future[T] = Future()
        threading.Thread(target=_fulfil, args=(future, partial(function, *args, **options)), daemon=True).start()
        end = time.monotonic() + limit_s
        while not wait([future], _POLL_S).done:
            if self.health() and time.monotonic() < end:
                continue
            self.is_lost = True
            problem = f"did not answer within {limit_s:g} s" if self.health() else "died"
            raise RolloutError(f"vLLM's engine {problem}. What it printed above may say why; resume starts another.")
        try:
            return future.result()
        except (EngineDeadError, EngineGenerateError, RuntimeError, ValueError, OSError) as error:
            raise RolloutError(
                f"vLLM failed: {error} What it printed above says why; resume starts another."
            ) from error


def _fulfil(future: Future[T], call: Callable[[], T]) -> None:
    try:
        future.set_result(call())
    except BaseException as error:  # for the thread that asked
        future.set_exception(error)


def _read(prompt: Sequence[int], output: Any, wanted: Wanted) -> list[Rollout]:
    """The rollouts of one RequestOutput."""
    name = output.lora_request.lora_name if output.lora_request else _BASE
    if name != wanted.name or list(output.prompt_token_ids) != list(prompt):
        raise RolloutError(f"asked for rollouts of {wanted.name!r}, vLLM answered for {name!r} or another prompt.")
    if len(output.outputs) != wanted.sampling.num_samples:
        raise RolloutError(f"asked for {wanted.sampling.num_samples} rollouts, vLLM answered {len(output.outputs)}.")
    return [_believe(completion, wanted) for completion in output.outputs]


def _believe(completion: Any, wanted: Wanted) -> Rollout:
    ids = list(completion.token_ids)
    logps = None
    if has_logps(wanted.sampling) and completion.logprobs is not None and len(completion.logprobs) == len(ids):
        logps = [drawn[token].logprob for token, drawn in zip(ids, completion.logprobs, strict=True)]
    return believe(ids, logps, completion.finish_reason, wanted)
