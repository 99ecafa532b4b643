"""Whether a run that something larger needs is there already and has come to its end."""

from __future__ import annotations

from layerlock.config import Config
from layerlock.data import open_source
from layerlock.encoders.run import checkpoints_of, facts_of
from layerlock.errors import LayerlockError
from layerlock.train.folder import RunFolder


def is_finished(config: Config) -> bool:
    """Whether the run of `config` is at `config.out` and has come to its end.

    Raises ConfigError where a run of other settings is there, LayerlockError where a finished one is of other videos:
    one that is not finished refuses these itself, when it is resumed.
    """
    folder = RunFolder(config.out)
    if not folder.exists:
        return False
    folder.check(config, resume=True, overwrite=False)
    if not folder.is_done(config.steps):
        return False
    trained = facts_of(checkpoints_of(folder.checkpoints)[config.steps]).get("data")
    root, workers = config.data_root, config.run.workers
    source = open_source(config.data, config.clip, config.seed, root=root, workers=workers, saved=folder.index)
    if source.fingerprint != trained:
        raise LayerlockError(
            f"{config.data}: its videos are not those that {folder.path} was trained on; name another --out"
        )
    return True
