"""Lightning's strategies as Algorithm 1 uses them. DDP needs nothing but `Ranks.no_sync`; FSDP2 needs this."""

from __future__ import annotations

from lightning.pytorch.strategies import ModelParallelStrategy, Strategy

from daj_lightning.judge import Judge, shard_base


class ShardedBase(ModelParallelStrategy):
    """FSDP2 with the frozen base split over the processes of a node, and all that trains whole in each of them.

    What trains is whole, so a checkpoint is the one file that every other strategy writes and reads.

    Args:
        process_group_backend: "nccl" or "gloo"; by the device if absent.
    """

    def __init__(self, process_group_backend: str | None = None) -> None:
        super().__init__(save_distributed_checkpoint=False, process_group_backend=process_group_backend)

    def shard(self, judge: Judge) -> None:
        # Lightning's mesh is (nodes, processes of a node). It calls the second dimension tensor-parallel, which is
        # up to the module: here it is the one that layers are split over, and nodes repeat each other.
        shard_base(judge, self.device_mesh)

    restore_checkpoint_after_setup = Strategy.restore_checkpoint_after_setup
    lightning_restore_optimizer = Strategy.lightning_restore_optimizer
    lightning_module_state_dict = Strategy.lightning_module_state_dict
    optimizer_state = Strategy.optimizer_state
    load_checkpoint = Strategy.load_checkpoint
    load_model_state_dict = Strategy.load_model_state_dict
    load_optimizer_state_dict = Strategy.load_optimizer_state_dict
