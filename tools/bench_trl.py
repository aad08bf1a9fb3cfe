"""Plain training beside TRL's DPOTrainer: the same tokens in the same order, the same adapters, clipping and optimizer.

Called by tools/bench_bilevel.py. Times are user CPU seconds from the first optimizer step to the last.
"""

from __future__ import annotations

import io
import os
import statistics
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any, cast

import datasets
import lightning
import torch
import transformers
import trl
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

import daj_lightning.bilevel as bilevel
from daj_lightning.data import JudgeData, PairDataset
from daj_lightning.judge import Judge
from daj_lightning.records import Pair, Unit
from daj_lightning.training import DataReweightedJudge, Level
from measure import (
    FLOAT32,
    INNER_LR,
    LENGTH,
    OBJECTIVE,
    VOCABULARY,
    Claim,
    K,
    Problem,
    print_table,
    random_base,
    ratios,
    span,
)


def word_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """A token is a word, so that text and token ids say the same."""
    words = ["<eos>", "<pad>", *(f"w{i}" for i in range(2, VOCABULARY))]
    model = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    model.pre_tokenizer = WhitespaceSplit()  # type: ignore[assignment]
    special = {"eos_token": "<eos>", "pad_token": "<pad>", "chat_template": "{{ messages[0]['content'] }}"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=model, **special)


class RandomData(JudgeData):
    """Random pairs instead of prepared files; loader, collation and reference cache are the real ones."""

    def __init__(self, num_windows: int, prompt: int, root: str) -> None:
        nothing = cast(Any, None)  # sources are for `prepare`
        super().__init__(nothing, nothing, root, "none", domains=["any"], num_inner=K, max_windows=num_windows)
        generator = torch.Generator().manual_seed(1)

        def words(count: int) -> str:
            return " ".join(f"w{i}" for i in torch.randint(2, VOCABULARY, (count,), generator=generator).tolist())

        rest = LENGTH - prompt - 1  # both tokenizers append <eos>
        self.pairs = [
            Pair("", "any", (), words(prompt) + " ", words(rest), words(rest)) for _ in range(K * num_windows)
        ]
        self.tokenizer = word_tokenizer()

    def load_samples(self, unit: Unit, max_new_tokens: int = 0) -> None:
        train, meta = (
            PairDataset(pairs, self.tokenizer, self.domains, self.max_length) for pairs in (self.pairs, self.pairs[:1])
        )
        self.take_in(train, meta)

    def prepare_data(self) -> None:
        pass

    def setup(self, stage: str) -> None:
        pass


def train_ours(problem: Problem, data: RandomData) -> list[nn.Parameter]:
    judge, levels = problem.judge(FLOAT32), (Level(lr=INNER_LR), Level(lr=1e-4))
    module = DataReweightedJudge(judge, *levels, objective=OBJECTIVE, reweighter=bilevel.Uniform(), max_norm=1.0)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = lightning.Trainer(accelerator="cpu", max_epochs=1, limit_val_batches=0, **quiet)  # type: ignore[arg-type]
    trainer.fit(module, datamodule=data)
    return judge.trained_parameters()


def train_trl(problem: Problem, data: RandomData) -> list[nn.Parameter]:
    """The same pairs in the order in which our loader draws them."""
    data.load_samples("pair")
    drawn = [data.pairs[i] for i in data.train_stream.take(0, len(data.pairs))]
    rows = [{"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected} for pair in drawn]
    base = random_base(torch.float32)
    base.load_state_dict(problem.base)
    steps: dict[str, Any] = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": K, "num_train_epochs": 1}
    steps |= {"learning_rate": INNER_LR, "lr_scheduler_type": "constant", "max_grad_norm": 1.0, "beta": OBJECTIVE.beta}
    steps |= {"gradient_checkpointing": False, "bf16": False, "use_cpu": True, "dataloader_pin_memory": False}
    steps |= {"precompute_ref_log_probs": True, "max_length": None, "train_sampling_strategy": "sequential"}
    quiet: dict[str, Any] = {"logging_strategy": "no", "save_strategy": "no", "report_to": "none", "disable_tqdm": True}
    trainer = trl.DPOTrainer(
        base,
        args=trl.DPOConfig(str(data.root), **steps, **quiet),
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=data.tokenizer,
        peft_config=Judge("random", lora_r=8, lora_alpha=16).lora,
    )
    trainer.remove_callback(transformers.PrinterCallback)
    adapters = [p for p in cast(nn.Module, trainer.model).parameters() if p.requires_grad]
    for parameter, value in zip(adapters, problem.adapters, strict=True):
        parameter.data = value.clone()
    trainer.train()
    return adapters


def run_of(train: Callable[[Problem, RandomData], list[nn.Parameter]], *args: Any) -> tuple[float, Tensor]:
    """Samples a user CPU second from the first optimizer step to the last, and the adapters (P,) at the end."""
    ends: list[float] = []
    hook = register_optimizer_step_post_hook(lambda *_: ends.append(os.times().user))
    with redirect_stdout(io.StringIO()):  # rich's progress bar leaves blank lines
        adapters = train(*args)
    hook.remove()
    return K * (len(ends) - 1) / (ends[-1] - ends[0]), torch.cat([p.detach().flatten() for p in adapters])


def plain(problem: Problem, rounds: int, quick: bool) -> list[Claim]:
    rows, worst, num_windows = [], [float("inf")], 3 if quick else 7
    start = torch.cat([value.flatten() for value in problem.adapters])
    for prompt in (8,) if quick else (LENGTH // 2, 8):
        sides: dict[str, list[float]] = {"TRL": [], "ours": []}
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as directory:
                data = RandomData(num_windows, prompt, directory)
                (theirs, their_end), (mine, my_end) = (
                    run_of(train, problem, data) for train in (train_trl, train_ours)
                )
            sides["TRL"].append(theirs)
            sides["ours"].append(mine)
        over = ratios(sides["ours"], sides["TRL"])
        worst = min(worst, over, key=statistics.median)
        apart = float((my_end - their_end).norm() / (their_end - start).norm())
        cells = span(sides["TRL"], 1), span(sides["ours"], 1), span(over), f"{apart:.1e}"
        rows.append([f"{prompt} + {LENGTH - prompt}", *cells])
    title = f"DPO without weights: samples a user CPU second over {num_windows - 1} steps of {K}, set-up left out"
    header = [
        "tokens, prompt + response",
        "TRL's DPOTrainer",
        "ours, Uniform",
        "ratio",
        "adapters' movements differ by",
    ]
    print_table(title, header, rows)
    print(
        "\nTRL's head saves memory by computing in chunks, again in the backward; on a CPU it also scores the prompt's"
    )
    print("positions, hence the short prompt. The head is 40 % of this model's work, and less in larger ones.")
    return [Claim("samples/s without weights >= 0.9x TRL's", f"{span(worst)}x", statistics.median(worst) >= 0.9)]
