"""Any video encoder as a frozen reader of features.

`open_encoder(name)` takes a folder of ours, `RUN@STEP`, `random:SIZE`, `random:NAME`, `hf:NAME-OR-FOLDER`,
`4ds:FILE.npz`, or a file of the authors of VideoMAE, V-JEPA or V-JEPA 2.
"""

from layerlock.encoders.naming import at_hand, open_encoder
from layerlock.encoders.protocol import AttentionEncoder, FrozenEncoder, Summary
from layerlock.encoders.untrained import random_like

__all__ = ["AttentionEncoder", "FrozenEncoder", "Summary", "at_hand", "open_encoder", "random_like"]
