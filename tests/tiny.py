"""A whole checkpoint folder with random weights, small enough to load and run in a blink."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

CORPUS = [
    "a red sailboat on the sea at sunset",
    "the sea at night, a blue balloon, falling snow",
    "snowy mountains by day with clouds and rain",
    "a forest at dawn, fog rolls in, birds appear",
]
STREAM: dict[str, Any] = {
    "format": 1,
    "height": 64,
    "width": 64,
    "rate_hz": 16,
    "block_latent_frames": [3],
    "first_block_latent_frames": 3,
    "sampler": "euler",
    "timesteps": [1000, 750],
    "shift": 3.0,
    "first_block_timesteps": [1000, 900, 750, 500],
    "window_blocks": 2,
    "sink_blocks": 0,
    "decay": 1.0,
    "recache": True,
    "guidance_scale": 1.0,
    "max_tokens": 24,
    "lowercase": True,
    "motion_score": None,
    "complex_human_instruction": False,
    "prompt": "the sea by day",
    "vocabulary": {
        "scene": [
            {"name": "sea", "prompt": "the sea", "synonyms": ["ocean"]},
            {"name": "mountains", "prompt": "snowy mountains", "synonyms": []},
        ],
        "time of day": [
            {"name": "day", "prompt": "by day", "synonyms": []},
            {"name": "night", "prompt": "at night", "synonyms": ["night falls"]},
        ],
    },
}


def save_tiny_model(folder: Path, **stream: Any) -> Path:
    """Save a diffusers folder with `stream.json` under `folder`; `stream` overrides fields of the latter.

    Deterministic: the same call writes the same weights. Pictures are 64x64, latents (1, 16, n, 8, 8).
    """
    import torch
    from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, SanaVideoTransformer3DModel
    from transformers import Gemma2Config, Gemma2Model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        transformer = SanaVideoTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=24,
            num_layers=2,
            num_cross_attention_heads=2,
            cross_attention_head_dim=24,
            cross_attention_dim=48,
            caption_channels=32,
            sample_size=8,
        )
        vae = AutoencoderKLWan(
            base_dim=8,
            dim_mult=[1, 2, 2],
            num_res_blocks=1,
            temperal_downsample=[True, True],
            is_residual=True,
            in_channels=12,
            out_channels=12,
            patch_size=2,
            latents_mean=[0.0] * 16,
            latents_std=[1.0] * 16,
        )
        tokenizer = _tokenizer()
        text_encoder = Gemma2Model(
            Gemma2Config(
                vocab_size=len(tokenizer),
                hidden_size=32,
                intermediate_size=48,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=1,
                head_dim=16,
                query_pre_attn_scalar=16,
                max_position_embeddings=64,
                pad_token_id=0,
                bos_token_id=1,
                eos_token_id=2,
            )
        )
    folder.mkdir(parents=True, exist_ok=True)
    transformer.save_pretrained(folder / "transformer")
    vae.save_pretrained(folder / "vae")
    tokenizer.save_pretrained(folder / "tokenizer")
    text_encoder.save_pretrained(folder / "text_encoder")
    FlowMatchEulerDiscreteScheduler(shift=3.0).save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "SanaVideoPipeline",
        "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "text_encoder": ["transformers", "Gemma2Model"],
        "vae": ["diffusers", "AutoencoderKLWan"],
        "transformer": ["diffusers", "SanaVideoTransformer3DModel"],
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=1))
    (folder / "stream.json").write_text(json.dumps(STREAM | stream, indent=1))
    return folder


def save_tiny_720p(folder: Path, tiny_model: Path) -> Path:
    """Save a checkpoint of the 720p form under `folder`; text and scheduler are those of `tiny_model`.

    Its own size is 64x128 (width 128), latents (1, 128, n, 2, 4), 8 pictures a latent frame.
    """
    import torch
    from diffusers import AutoencoderKLLTX2Video, SanaVideoTransformer3DModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        transformer = SanaVideoTransformer3DModel(
            in_channels=128,
            out_channels=128,
            patch_size=(1, 1, 1),
            num_attention_heads=2,
            attention_head_dim=24,
            num_layers=2,
            num_cross_attention_heads=2,
            cross_attention_head_dim=24,
            cross_attention_dim=48,
            caption_channels=32,
            sample_size=2,
        )
        vae = AutoencoderKLLTX2Video(
            block_out_channels=(8, 16, 32, 64),
            decoder_block_out_channels=(8, 16, 32),
            layers_per_block=(1,) * 5,
            decoder_layers_per_block=(1,) * 4,
            decoder_causal=False,
            spatial_compression_ratio=32,
            temporal_compression_ratio=8,
        )
        vae.latents_mean.uniform_(-0.5, 0.5)
        vae.latents_std.uniform_(0.5, 1.5)
    shutil.copytree(tiny_model, folder, ignore=shutil.ignore_patterns("stream.json", "transformer", "vae"))
    transformer.save_pretrained(folder / "transformer")
    vae.save_pretrained(folder / "vae")
    file = folder / "model_index.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"vae": ["diffusers", "AutoencoderKLLTX2Video"]}))
    return folder


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["<pad>", "<bos>", "<eos>", "<unk>"]
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=256, special_tokens=special))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", tokenizer.token_to_id("<bos>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        padding_side="right",
        model_max_length=24,
    )
