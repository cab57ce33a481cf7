"""The rendered world: scripts, their captions, and pictures of them. Training data for the starter.

scripts = sample_scripts(8, blocks=4, block_pictures=12, generator=torch.Generator().manual_seed(0))
pictures = render(scripts, 45, device="cuda")   # uint8 (8, 45, 3, 144, 256)
"""

from model.training.world.attributes import BANKS, KEYS, NAMES, Attributes, vocabulary
from model.training.world.captions import caption, short_caption
from model.training.world.heldout import held_out
from model.training.world.render import render
from model.training.world.script import Script, make_script, sample_scripts

__all__ = [
    "BANKS",
    "KEYS",
    "NAMES",
    "Attributes",
    "Script",
    "caption",
    "held_out",
    "make_script",
    "render",
    "sample_scripts",
    "short_caption",
    "vocabulary",
]
