"""A model behind an OpenAI-compatible endpoint (vLLM, SGLang, a hosted service): a chat message in, text out.

No tokens and no log-probabilities, so this is no `RolloutEngine`: for text that is judged or executed,
not for training rollouts.
"""

from __future__ import annotations

import email.message
import http.client
import json
import os
import random
import socket
import sys
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from daj_lightning.records import DajError
from daj_lightning.rollout.engine import Sampling

KEY_VARIABLE = "OPENAI_API_KEY"
BUSY = (408, 409, 425, 429)
"""Answers that ask for patience, as every 5xx does."""
LONGEST_WAIT_S = 60.0
SHOWN_CHARS = 300


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model wrote."""

    text: str
    finish_reason: str
    """"stop" or "length"; whatever else the endpoint says."""


class ChatEndpoint:
    """Asks one model; threads may share it. The key, if one is needed, is in the variable OPENAI_API_KEY.

    An address that nothing has answered at yet, and that refuses the connection, is a mistake and not tried again.
    Every other further attempt is told on stderr.

    Args:
        url: up to and with its version, e.g. "http://localhost:8000/v1".
        model: name that the endpoint knows it by.
        timeout_s: of one attempt.
        num_attempts: at one reply; only overload, failures of the server and of the connection are tried again.
        backoff_s: before the second attempt; doubles with each. A longer Retry-After of the server counts.
    """

    def __init__(
        self, url: str, model: str, timeout_s: float = 1800.0, num_attempts: int = 8, backoff_s: float = 1.0
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise DajError(f"endpoint {url!r} is no address; wanted e.g. http://localhost:8000/v1.")
        self.url = url.rstrip("/") + "/chat/completions"
        self.model = model
        self.timeout_s = timeout_s
        self.num_attempts = num_attempts
        self.backoff_s = backoff_s
        self.answered = False

    def reply(self, prompt: str, sampling: Sampling, stop: threading.Event | None = None) -> Reply:
        """One answer to one user message; of `sampling`, num_samples does not count.

        Args:
            stop: once set, nothing is tried again.
        Raises:
            DajError: the endpoint refuses, answers something else, is not there, or fails at every attempt.
        """
        stop = stop or threading.Event()
        body = json.dumps(self.body(prompt, sampling)).encode()
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(KEY_VARIABLE):
            headers["Authorization"] = f"Bearer {key}"
        for attempt in range(1, self.num_attempts + 1):
            asked_wait = 0.0
            try:
                request = urllib.request.Request(self.url, body, headers)
                with urllib.request.urlopen(request, timeout=self.timeout_s) as response:
                    self.answered = True
                    return self.parse(response.read())
            except urllib.error.HTTPError as error:
                self.answered = True
                with error:
                    said = error.read(SHOWN_CHARS).decode("utf-8", "replace").strip()
                if error.code not in BUSY and error.code < 500:
                    raise DajError(
                        f"{self.url} refused model {self.model!r} with {error.code}: {said or error.reason}. Check the "
                        f"address, the model's name, {KEY_VARIABLE}, and whether it takes these sampling settings."
                    ) from error
                problem = f"{error.code} {said or error.reason}"
                asked_wait = retry_after(error.headers)
            except (OSError, http.client.HTTPException) as error:  # URLError and time-outs are OSErrors
                problem = str(getattr(error, "reason", error)) or type(error).__name__
                if not self.answered and is_nobody(error):
                    raise DajError(
                        f"{self.url} cannot be reached: {problem}. Is the server up, and the address right?"
                    ) from error
            if attempt < self.num_attempts:
                drawn = self.backoff_s * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)
                wait = min(max(drawn, asked_wait), LONGEST_WAIT_S)
                print(
                    f"{self.url}: attempt {attempt} of {self.num_attempts} failed ({problem}); again in {wait:.1f} s",
                    file=sys.stderr,
                    flush=True,
                )
                if stop.wait(wait):
                    raise DajError(f"{self.url}: given up after {attempt} attempts, since the run ends: {problem}.")
        raise DajError(f"{self.url} failed {self.num_attempts} times, last: {problem}. Is the server up?")

    def body(self, prompt: str, sampling: Sampling) -> dict[str, Any]:
        """The request; what OpenAI's own service does not know is left out where it would change nothing."""
        extra: dict[str, Any] = {}
        if sampling.top_k:
            extra["top_k"] = sampling.top_k
        if sampling.repetition_penalty != 1:
            extra["repetition_penalty"] = sampling.repetition_penalty
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_new_tokens,
            "seed": sampling.seed,
            **extra,
        }

    def parse(self, answer: bytes) -> Reply:
        try:
            choice = json.loads(answer)["choices"][0]
            text, reason = choice["message"]["content"], choice.get("finish_reason")
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            shown = answer[:SHOWN_CHARS].decode("utf-8", "replace")
            raise DajError(f"{self.url} answered {shown!r}; wanted choices[0].message.content.") from error
        if not isinstance(text, str | None):
            raise DajError(f"{self.url} answered content of type {type(text).__name__}; wanted text.")
        return Reply(text or "", str(reason or "unknown"))  # no content: all tokens went into hidden reasoning


def is_nobody(error: BaseException) -> bool:
    """Whether no server was there: no such name, or a connection that was refused."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return isinstance(reason, ConnectionRefusedError | socket.gaierror)


def retry_after(headers: email.message.Message) -> float:
    """Seconds that the server asks for; 0 if it does not, or gives a date."""
    try:
        return max(0.0, float(headers.get("Retry-After", "0")))
    except ValueError:
        return 0.0
