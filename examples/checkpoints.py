"""Checkpoints of a run, one an epoch, each with the settings that it belongs to."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

FOLDER = "checkpoints"  # in the folder of the run
KEPT = 3


class CheckpointError(Exception):
    """There is no checkpoint, or it does not fit; the message is one line that says which."""


class Checkpoints:
    """The checkpoints of a run: the last few, by epoch.

    A checkpoint is there as a whole or not at all, also where the program is killed.

    Args:
      run: the folder of the run, or one of its checkpoints, which is then the only one.
    """

    def __init__(self, run: Path) -> None:
        run = run.resolve()
        single = run.parent.name == FOLDER and run.name.isdecimal()
        self.folder = run.parent if single else run / FOLDER
        self._only = int(run.name) if single else None
        self._manager: ocp.CheckpointManager | None = None

    @property
    def run(self) -> Path:
        """The folder of the run."""
        return self.folder.parent

    def latest(self) -> int | None:
        """The epoch of the checkpoint to go on from; None: there is none."""
        if self._only is not None:
            return self._only if (self.folder / str(self._only)).is_dir() else None
        return self._open().latest_step() if self.folder.is_dir() else None

    def save(self, epoch: int, state: Any, settings: dict[str, Any]) -> None:
        """Writes a checkpoint, and removes the oldest."""
        arguments = {"state": ocp.args.StandardSave(state), "settings": ocp.args.JsonSave(settings)}
        self._open().save(epoch, args=ocp.args.Composite(**arguments))
        self._open().wait_until_finished()

    def settings(self) -> dict[str, Any]:
        """The settings in the latest checkpoint."""
        return self._restore(settings=ocp.args.JsonRestore())["settings"]

    def restore(self, like: Any) -> Any:
        """The state in the latest checkpoint.

        Args:
          like: a state of the same structure, with the shapes, types and places of its arrays.
        """
        self._compare(like)
        wanted = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        return self._restore(state=ocp.args.StandardRestore(wanted))["state"]

    def close(self) -> None:
        """Ends the manager's threads."""
        if self._manager is not None:
            self._manager.close()
            self._manager = None

    def _open(self) -> ocp.CheckpointManager:
        if self._manager is None:
            options = ocp.CheckpointManagerOptions(
                max_to_keep=KEPT, enable_async_checkpointing=False, cleanup_tmp_directories=True
            )
            handlers = {
                "state": ocp.StandardCheckpointHandler(),
                "settings": ocp.JsonCheckpointHandler(),
            }
            self._manager = ocp.CheckpointManager(
                self.folder, options=options, item_handlers=handlers
            )
        return self._manager

    def _compare(self, like: Any) -> None:
        """Refuses a checkpoint with other arrays than a state has."""
        epoch = self._epoch()
        own, other = _arrays(like), _arrays(self._open().item_metadata(epoch)["state"])
        for name in [*own, *other]:
            if own.get(name) != other.get(name):
                raise CheckpointError(
                    f"{self.folder / str(epoch)}: not a checkpoint of this model: {name} is "
                    f"{other.get(name, 'not in it')}, and should be {own.get(name, 'in none')}"
                )

    def _restore(self, **items: Any) -> Any:
        epoch = self._epoch()
        try:
            return self._open().restore(epoch, args=ocp.args.Composite(**items))
        except (ValueError, KeyError, OSError) as error:
            words = str(error).strip().splitlines() or [type(error).__name__]
            raise CheckpointError(
                f"{self.folder / str(epoch)}: the checkpoint cannot be read: {words[0]}"
            ) from error

    def _epoch(self) -> int:
        epoch = self.latest()
        if epoch is None:
            raise CheckpointError(f"{self.folder}: there is no checkpoint")
        return epoch


def _arrays(tree: Any) -> dict[str, str]:
    """Types and shapes by the names of a tree's arrays."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        found[name] = f"{np.dtype(leaf.dtype).name}{[*leaf.shape]}"
    return found
