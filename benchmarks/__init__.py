"""Scripts that print tables; nothing here asserts on time."""

import os

# As the model worker sets it (`streamer.engine.worker` says why), before torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
