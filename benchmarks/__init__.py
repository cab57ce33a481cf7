"""Scripts that print tables; nothing here asserts on time."""

import os

# As the model worker sets it, before torch is imported: threads that spin while they wait take the cores from others.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
