"""Write the starter as a diffusers folder: `python -m model.training.export --vae V --dit D --text T`.

The folder opens with diffusers' own `SanaVideoPipeline.from_pretrained` (sizes divisible by 32 there). Weights are
half precision. `stream.json` says how the weights want to be streamed. README.md, the model card, is left alone.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from model.training.clips import HEIGHT, LENGTH_WEIGHTS, RATE_HZ, WIDTH
from model.training.distill import SUBSTEPS, euler_sigmas, opening_points
from model.training.dit import BLOCK_FRAMES
from model.training.flow import PLAIN_TIMESTEPS, SHIFT, WINDOW_BLOCKS
from model.training.runs import read_shards, say
from model.training.text import MAX_TOKENS

LIMIT_BYTES = 40 * 2**20


def timesteps(passes: int) -> list[int]:
    """Return the timesteps of `passes` Euler steps, evenly spaced before the shift."""
    return [round(1000 * sigma) for sigma in euler_sigmas(passes)[:-1]]


def first_timesteps(passes: int) -> list[int]:
    """Return those of a stream's first block after distillation to `passes`, see `model.training.distill`."""
    sigmas = euler_sigmas(passes * SUBSTEPS)
    return [round(1000 * sigmas[i]) for i in opening_points(passes)[:-1]]


def stream_settings(passes: int, distilled: bool) -> dict[str, Any]:
    """Return the content of `stream.json`: what was distilled wants Euler's steps, what was not a higher order."""
    from model.training.world import lexicon, vocabulary

    return {
        "format": 1,
        "height": HEIGHT,
        "width": WIDTH,
        "portrait": True,
        "rate_hz": RATE_HZ,
        "block_latent_frames": sorted(LENGTH_WEIGHTS, key=LENGTH_WEIGHTS.__getitem__, reverse=True),
        "first_block_latent_frames": BLOCK_FRAMES,
        "steer_block_latent_frames": 2,
        "cut_blocks": True,
        "sampler": "euler" if distilled else "adams-bashforth",
        "timesteps": timesteps(passes) if distilled else PLAIN_TIMESTEPS,
        "shift": SHIFT,
        "first_block_timesteps": first_timesteps(passes),
        "window_blocks": WINDOW_BLOCKS,
        "sink_blocks": 0,
        "decay": 1.0,
        "recache": True,
        "guidance_scale": 1.0,
        "max_tokens": MAX_TOKENS,
        "lowercase": True,
        "motion_score": None,
        "complex_human_instruction": False,
        "prompt": "a red sailboat on the sea at sunset, clear sky",
        "vocabulary": vocabulary(),
        "known_words": [*lexicon.words()],
    }


def build_pipeline(vae_folder: Path, dit_folder: Path, text_folder: Path) -> Any:
    """Return diffusers' pipeline with the trained weights in half precision."""
    from diffusers import (
        AutoencoderKLWan,
        FlowMatchEulerDiscreteScheduler,
        SanaVideoPipeline,
        SanaVideoTransformer3DModel,
    )
    from transformers import AutoTokenizer, Gemma2Model

    vae = AutoencoderKLWan(**json.loads((vae_folder / "vae.json").read_text())["config"])
    vae.load_state_dict(read_shards(vae_folder, "vae"))
    transformer = SanaVideoTransformer3DModel(**json.loads((dit_folder / "dit.json").read_text())["config"])
    transformer.load_state_dict(read_shards(dit_folder, "transformer"))
    encoder = Gemma2Model.from_pretrained(text_folder / "text_encoder")
    encoder.load_state_dict(read_shards(dit_folder, "text_encoder"))
    return SanaVideoPipeline(
        tokenizer=AutoTokenizer.from_pretrained(text_folder / "tokenizer"),
        text_encoder=encoder.half(),
        vae=vae.half(),
        transformer=transformer.half(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=SHIFT),
    )


def export(vae_folder: Path, dit_folder: Path, text_folder: Path, to: Path, passes: int) -> None:
    """Write the folder `to`.

    Raises:
        ValueError: the folder is larger than 40 MiB.
    """
    with torch.no_grad():
        build_pipeline(vae_folder, dit_folder, text_folder).save_pretrained(to)
    settings = json.dumps(
        stream_settings(passes, json.loads((dit_folder / "dit.json").read_text())["stage"] == "distill"),
        indent=1,
        ensure_ascii=False,
    )
    (to / "stream.json").write_text(settings + "\n", encoding="utf-8")
    size = sum(file.stat().st_size for file in to.rglob("*") if file.is_file())
    say(f"export: {to}, {size / 2**20:.1f} MiB")
    if size > LIMIT_BYTES:
        raise ValueError(f"{to} holds {size / 2**20:.1f} MiB, the limit is 40")


def main() -> None:
    """Parse the command line and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vae", type=Path, required=True, help="folder with vae.json and its shards")
    parser.add_argument("--dit", type=Path, required=True, help="folder with dit.json and its shards")
    parser.add_argument("--text", type=Path, required=True, help="folder with tokenizer/ and text_encoder/")
    parser.add_argument("--to", type=Path, default=Path("model/starter"))
    parser.add_argument("--passes", type=int, default=4, help="Euler passes of a block")
    args = parser.parse_args()
    export(args.vae, args.dit, args.text, args.to, args.passes)


if __name__ == "__main__":
    main()
