"""What training leaves behind: checkpoints to go on from, and which data mattered."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from lightning import LightningModule, Trainer
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from daj_lightning.data import BilevelLoader
from daj_lightning.data.jsonl import written_whole
from daj_lightning.records import DajError, Stopped
from daj_lightning.rollout import RolloutError
from daj_lightning.training.checkpoint import (
    NO_ROOM,
    UnwrittenError,
    checkpoint_path,
    checkpoints,
    is_whole,
    remove_checkpoint,
    remove_leftovers,
)
from daj_lightning.training.failures import is_lost_peer, lost_peer
from daj_lightning.training.module import DataReweightedJudge
from daj_lightning.training.peers import end_with_a_line
from daj_lightning.training.preemption import StopRequests, requeue, requeue_signal


class WindowCheckpoint(Checkpoint):
    """Saves every `every_n_windows` bi-level steps, at the end, when the rollouts fail a run, and when it is to stop.

    Lightning's ModelCheckpoint counts optimizer steps, of which a window has one or two. Lightning calls a
    `Checkpoint` after all other callbacks, so that their state is of the same window.

    A fresh run moves what an earlier one left there out of its way, so that "last" always means this run.

    A signal that asks the process to stop is answered between two windows, in all processes of a run at the same one.

    Where a checkpoint does not fit on the disk, the oldest makes room for it, unless it is the only whole one. If that
    is not enough, the run goes on to the next that is due: to stop would lose the windows since the last one for
    certain, to go on loses no more, and a disk may be emptied in the meantime. The second in a row stops the run, as a
    whole night without one is what checkpoints are there to prevent; so does one that has no next.

    Args:
        dirpath: directory of the checkpoints.
        every_n_windows: distance between two.
        keep: newest ones kept, >= 2: if the newest is damaged, the one before it is used.
    """

    def __init__(self, dirpath: str, every_n_windows: int = 100, keep: int = 2) -> None:
        if every_n_windows < 1 or keep < 2:
            raise DajError(
                f"WindowCheckpoint needs every_n_windows >= 1 and keep >= 2, got {every_n_windows} and {keep}."
            )
        self.dirpath = Path(dirpath)
        self.every_n_windows = every_n_windows
        self.keep = keep
        self.stop_requests = StopRequests("No checkpoint is written yet: start anew.")
        self._is_unwritten = False
        """The last checkpoint that was due could not be written."""
        self._is_stopping = False
        self._is_ending = threading.Event()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        environment = trainer._accelerator_connector.cluster_environment
        # Lightning's handlers would save, and send messages to the other processes, in the middle of a window.
        trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
        self.stop_requests.listen()
        if (wanted := requeue_signal(environment)) is not None:
            self.stop_requests.listen([wanted])
        end_with_a_line(lambda: _peer_line(pl_module, self.dirpath), self._is_ending)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.stop_requests.release()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, DataReweightedJudge)
        if trainer.is_global_zero:
            if trainer.ckpt_path is None and checkpoints(self.dirpath):
                number = 1
                while (aside := self.dirpath.with_name(f"{self.dirpath.name}.{number}")).exists():
                    number += 1
                self.dirpath.rename(aside)
                rank_zero_info(f"moved the checkpoints of an earlier run to {aside}")
            remove_leftovers(self.dirpath)
        if trainer.ckpt_path is not None:
            self.stop_requests.standing = _stands(trainer.ckpt_path)
        self.stop_requests.holds = pl_module.num_windows < pl_module.data.max_windows

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._stop_if_asked()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, DataReweightedJudge)
        done, end = pl_module.num_windows, pl_module.data.max_windows
        self._is_stopping = self.stop_requests.agree(trainer.strategy)
        ends = done == end or trainer.should_stop or self._is_stopping
        if ends or done % self.every_n_windows == 0 or _validation_follows(trainer, batch_idx):
            self._save(trainer, done, must=ends)
        if ends and not self._is_stopping:
            self._let_go(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """It may take longer than a scheduler waits; the window before it is saved."""
        self._stop_if_asked()
        self._let_go(trainer)
        self._stop_if_asked()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, DataReweightedJudge)
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self.stop_requests.holds = pl_module.num_windows < pl_module.data.max_windows

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop_if_asked()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """No rollouts, so no window: what stands is the state between two, and nothing of it is lost."""
        assert isinstance(pl_module, DataReweightedJudge)
        self._is_ending.set()
        if isinstance(exception, RolloutError) and trainer.training and trainer.train_dataloader is not None:
            assert isinstance(trainer.train_dataloader, BilevelLoader)
            trainer.train_dataloader.next_window = pl_module.num_windows  # the batch in hand was not trained on
            path = checkpoint_path(self.dirpath, pl_module.num_windows)
            if (problem := write_checkpoint(trainer, path)) is None:
                rank_zero_info(f"saved {path}: go on with --ckpt_path last")
            else:
                rank_zero_warn(f"{problem}. {self.stop_requests.standing}", stacklevel=2)
        wanted = requeue_signal(trainer._accelerator_connector.cluster_environment)
        if "Timed out" in str(exception) and is_lost_peer(exception) and trainer.strategy.launcher is not None:
            trainer.strategy.launcher.kill(signal.SIGKILL)  # it may never hear of anything again
        if not isinstance(exception, Stopped):
            self.stop_requests.release()
        elif trainer.is_global_zero:
            if not self._is_stopping and trainer.strategy.launcher is not None:  # the others have not heard of it
                trainer.strategy.launcher.kill(signal.SIGTERM)
            if wanted is not None and wanted == self.stop_requests.received:
                exception.told += f" {requeue()}"

    def _let_go(self, trainer: Trainer) -> None:
        """From now on a signal ends the process at once; one that came while the state was saved is heard as well."""
        self.stop_requests.holds = False
        self._is_stopping = self.stop_requests.agree(trainer.strategy)

    def _stop_if_asked(self) -> None:
        """After the window's rows are logged, which the end of its batch is too early for."""
        if self._is_stopping:
            raise self.stop_requests.stopped()

    def _save(self, trainer: Trainer, num_windows: int, must: bool) -> None:
        """Of all processes together.

        Args:
            must: no later checkpoint will make up for this one.
        Raises:
            UnwrittenError: it is not written, and must be, or the one before it was not either.
        """
        path = checkpoint_path(self.dirpath, num_windows)
        self.stop_requests.is_saving = True
        problem = write_checkpoint(trainer, path)
        if problem is not None and problem.no_room and trainer.strategy.broadcast(self._make_room(trainer)):
            problem = write_checkpoint(trainer, path)
        self.stop_requests.is_saving = False
        if problem is None:
            self._is_unwritten = False
            self.stop_requests.standing = _stands(path)
            for old in checkpoints(self.dirpath)[self.keep :] if trainer.is_global_zero else ():
                remove_checkpoint(old)
            return
        if must or self._is_unwritten:
            raise UnwrittenError(f"{problem}. {self.stop_requests.standing}", problem.no_room) from problem
        self._is_unwritten = True
        rank_zero_warn(f"{problem}; the run goes on, and stops if the next checkpoint fails too.", stacklevel=2)

    def _make_room(self, trainer: Trainer) -> bool:
        """Remove the oldest checkpoint, unless a newer whole one is not there; whether it went."""
        found = checkpoints(self.dirpath)
        if not trainer.is_global_zero or len(found) < 2 or not is_whole(found[0]):
            return False
        remove_checkpoint(found[-1])
        return True


def write_checkpoint(trainer: Trainer, path: Path) -> UnwrittenError | None:
    """What kept the checkpoint from being written; on every process the same."""
    problem = None
    try:
        trainer.save_checkpoint(path, weights_only=False)
    except UnwrittenError as error:
        problem = error
        trainer.strategy.barrier()  # the end of save_checkpoint, where the other processes wait
    return trainer.strategy.broadcast(problem)


def _validation_follows(trainer: Trainer, batch_idx: int) -> bool:
    every = trainer.val_check_batch
    return trainer.enable_validation and isinstance(every, int) and (batch_idx + 1) % every == 0


def _peer_line(module: LightningModule, directory: Path) -> str:
    assert isinstance(module, DataReweightedJudge)
    return lost_peer("one of the run's other processes ended", module.num_windows, directory)


def _stands(path: str | Path) -> str:
    return f"{path} stands: go on with --ckpt_path last."


class InfluenceRecorder(Callback):
    """Writes every sample's loss, weight and hypergradient, window by window.

    `influence.parquet` is a directory of part files that any parquet reader opens as one table, with
    columns window, sample, domain, loss, weight, hypergradient (null where no credit was due, or where the engine
    credits whole domains). A part is written every `every_n_windows`; parts that a resumed run will write again
    are removed.

    Args:
        path: of the directory.
        every_n_windows: rows of so many windows go into one part.
    """

    def __init__(self, path: str, every_n_windows: int = 100) -> None:
        if every_n_windows < 1:
            raise DajError(f"InfluenceRecorder needs every_n_windows >= 1, got {every_n_windows}.")
        self.path = Path(path)
        self.every_n_windows = every_n_windows
        self._rows: list[dict[str, Any]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, DataReweightedJudge)
        if not trainer.is_global_zero:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        for part in self.path.glob("part-*.parquet"):
            if int(part.stem.removeprefix("part-")) > pl_module.num_windows:
                part.unlink()
        for leftover in self.path.glob("*.part"):  # of a process that was killed
            leftover.unlink()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, DataReweightedJudge)
        assert pl_module.report is not None
        report, names = pl_module.report, pl_module.data.domains
        unknown = [None] * len(report.losses)
        columns = zip(
            report.sample_ids.tolist(),
            report.domains.tolist(),
            report.losses.tolist(),
            report.weights.tolist(),
            unknown if report.hypergradient is None else report.hypergradient.tolist(),
            strict=True,
        )
        window = pl_module.num_windows
        self._rows += [
            {"window": window, "sample": i, "domain": names[k], "loss": loss, "weight": weight, "hypergradient": d}
            for i, k, loss, weight, d in columns
        ]
        if window % self.every_n_windows == 0:
            try:
                self._flush(trainer, window)
            except OSError as error:  # the rows stay, in the checkpoints too, until a later part takes them
                if error.errno not in NO_ROOM:
                    raise
                rank_zero_warn(f"{error}; its rows go into the next part.", stacklevel=2)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, DataReweightedJudge)
        self._flush(trainer, pl_module.num_windows)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self._rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._rows = list(state_dict["rows"])

    def _flush(self, trainer: Trainer, window: int) -> None:
        if self._rows and trainer.is_global_zero:
            with written_whole(self.path / f"part-{window:06d}.parquet") as beside:
                pq.write_table(pa.Table.from_pylist(self._rows, _SCHEMA), beside)
        self._rows = []


_SCHEMA = pa.schema(
    [
        ("window", pa.int64()),
        ("sample", pa.int64()),
        ("domain", pa.string()),
        ("loss", pa.float64()),
        ("weight", pa.float64()),
        ("hypergradient", pa.float64()),
    ]
)
