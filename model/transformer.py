"""The block linear diffusion transformer of SANA-Video / LongSANA, with or without carried state.

Same parameter names and config fields as `diffusers.SanaVideoTransformer3DModel`, so its checkpoints, LoRAs and
quantizer configs work unchanged; without a state also the same function.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, cast

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.attention import AttentionMixin
from diffusers.models.embeddings import PixArtAlphaTextProjection
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.modeling_utils import ModelMixin, load_state_dict
from diffusers.models.normalization import AdaLayerNormSingle, RMSNorm
from diffusers.models.transformers.transformer_sana_video import SanaCombinedTimestepGuidanceEmbeddings
from diffusers.utils.peft_utils import apply_lora_scale
from torch import Tensor, nn

from model.layers import Past, TextCache, TransformerBlock, modulated
from model.linear_attention import rotation
from model.packed import plain
from model.state import StateView

# Fields that diffusers' class lacks, with the values that make this class equal to it.
# LongSANA's authors compute with 1e-6 and 1e-8.
OWN_FIELDS = {"cross_attention_norm_eps": 1e-5, "linear_attention_eps": 1e-15}
POINTWISE = ("ff.conv_inverted", "ff.conv_point")
MASKED = -10000.0


class ModulatedNorm(nn.Module):
    """The last norm, modulated by time."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, elementwise_affine=False, eps=eps)

    def forward(self, x: Tensor, time: Tensor, table: Tensor) -> Tensor:
        """x (batch, tokens, channels), time (batch, 1 or tokens, channels), table (2, channels)."""
        shift, scale = (table + time.unsqueeze(2)).unbind(2)
        return modulated(self.norm, x, shift, scale)


class SanaVideoTransformer3DModel(ModelMixin, ConfigMixin, PeftAdapterMixin, AttentionMixin):
    """Predicts the flow of a block of latent frames.

    Config fields as in diffusers, and two more:
        cross_attention_norm_eps: eps of the text attention's query and key norms.
        linear_attention_eps: added to the linear attention's denominator.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["TransformerBlock", "ModulatedNorm"]  # noqa: RUF012
    _skip_layerwise_casting_patterns = ["patch_embedding", "norm"]  # noqa: RUF012

    @register_to_config
    def __init__(
        self,
        in_channels: int = 16,
        out_channels: int | None = 16,
        num_attention_heads: int = 20,
        attention_head_dim: int = 112,
        num_layers: int = 20,
        num_cross_attention_heads: int | None = 20,
        cross_attention_head_dim: int | None = 112,
        cross_attention_dim: int | None = 2240,
        caption_channels: int = 2304,
        mlp_ratio: float = 2.5,
        dropout: float = 0.0,
        attention_bias: bool = False,
        sample_size: int = 30,
        patch_size: tuple[int, int, int] = (1, 2, 2),
        norm_elementwise_affine: bool = False,
        norm_eps: float = 1e-6,
        interpolation_scale: int | None = None,
        guidance_embeds: bool = False,
        guidance_embeds_scale: float = 0.1,
        qk_norm: str | None = "rms_norm_across_heads",
        rope_max_seq_len: int = 1024,
        cross_attention_norm_eps: float = 1e-5,
        linear_attention_eps: float = 1e-15,
    ) -> None:
        super().__init__()
        out_channels = out_channels or in_channels
        dim = num_attention_heads * attention_head_dim
        self.patch_embedding = nn.Conv3d(in_channels, dim, kernel_size=patch_size, stride=patch_size)
        self.time_embed = SanaCombinedTimestepGuidanceEmbeddings(dim) if guidance_embeds else AdaLayerNormSingle(dim)
        self.caption_projection = PixArtAlphaTextProjection(in_features=caption_channels, hidden_size=dim)
        self.caption_norm = RMSNorm(dim, eps=1e-5, elementwise_affine=True)
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(
                dim,
                num_attention_heads,
                attention_head_dim,
                cross_heads=num_cross_attention_heads or num_attention_heads,
                cross_head_dim=cross_attention_head_dim or attention_head_dim,
                cross_dim=cross_attention_dim,
                attention_bias=attention_bias,
                norm_affine=norm_elementwise_affine,
                norm_eps=norm_eps,
                qk_norm=qk_norm,
                qk_norm_eps=(1e-5, cross_attention_norm_eps),
                mlp_ratio=mlp_ratio,
                dropout=dropout,
                attention_eps=linear_attention_eps,
            )
            for _ in range(num_layers)
        )
        self.scale_shift_table = nn.Parameter(torch.randn(2, dim) / dim**0.5)
        self.norm_out = ModulatedNorm(dim, eps=1e-6)
        self.proj_out = nn.Linear(dim, math.prod(patch_size) * out_channels)
        self.gradient_checkpointing = False
        self.register_load_state_dict_pre_hook(_flatten_on_load)

    # -- computing ---------------------------------------------------------------------------------------------

    def encode_text(self, embeds: Tensor, mask: Tensor | None = None) -> TextCache:
        """Project text once, for as many passes as it is in force.

        Args:
            embeds: (batch, text tokens, caption_channels).
            mask: (batch, text tokens), 1 = read, 0 = padding.
        """
        embeds = embeds.to(self.dtype)
        text = self.caption_norm(self.caption_projection(embeds))
        pairs = [block.attn2.text(text) for block in self._blocks() if block.attn2 is not None]
        dtype = pairs[0][0].dtype if pairs else text.dtype
        bias = None if mask is None else ((1 - mask.to(dtype)) * MASKED)[:, None, None]
        return TextCache(tuple(key for key, _ in pairs), tuple(value for _, value in pairs), bias)

    @apply_lora_scale("attention_kwargs")
    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | TextCache,
        timestep: Tensor,
        guidance: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        attention_kwargs: dict[str, Any] | None = None,
        return_dict: bool = True,
        state: StateView | None = None,
    ) -> tuple[Tensor] | Transformer2DModelOutput:
        """One pass.

        Args:
            hidden_states: (batch, in_channels, frames, height, width) latents.
            encoder_hidden_states: (batch, text tokens, caption_channels), or what `encode_text` made of it.
            timestep: (batch,) or one a token, (batch, 1, frames, height, width) after patching.
            guidance: (batch,), with `guidance_embeds` only.
            encoder_attention_mask: (batch, text tokens), 1 = read; in a `TextCache` already.
            attention_kwargs: `scale` of LoRA layers.
            return_dict: False for a plain tuple.
            state: the past to read and where to commit; None for a clip of its own. Rows that commit write their
                sums and tails after the pass.

        Returns:
            The flow (batch, out_channels, frames, height, width).
        """
        batch, _, frames, height, width = hidden_states.shape
        p_t, p_h, p_w = self.config.patch_size
        grid = (frames // p_t, height // p_h, width // p_w)
        x = self._patchify(hidden_states, grid)
        time, embedded = self._time(timestep, guidance, batch, x.dtype)
        if not isinstance(encoder_hidden_states, TextCache):
            encoder_hidden_states = self.encode_text(encoder_hidden_states, encoder_attention_mask)
        text = encoder_hidden_states
        turn = self._turn(grid, state, x.device)
        pasts = self._pasts(state)
        for index, block in enumerate(self._blocks()):
            pair = (text.keys[index], text.values[index]) if text.keys else None
            arguments = (x, time, turn, pair, text.bias, grid, pasts[index])
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                x = self._gradient_checkpointing_func(block, *arguments)
            else:
                x = block(*arguments)
        x = self.proj_out(self.norm_out(x, embedded, self.scale_shift_table))
        output = self._unpatchify(x, grid)
        if state is not None and state.commits:
            done = [past for past in pasts if past is not None]
            state.write(
                [past.own for past in done if past.own is not None],
                [past.last for past in done if past.last is not None],
            )
        return Transformer2DModelOutput(sample=output) if return_dict else (output,)

    def _blocks(self) -> Iterator[TransformerBlock]:
        return cast("Iterator[TransformerBlock]", iter(self.transformer_blocks))

    def _patchify(self, latents: Tensor, grid: tuple[int, int, int]) -> Tensor:
        # (B, C, F, H, W) -> (B, tokens, channels): the patch convolution does not overlap, so it is a linear layer.
        if not plain(self.patch_embedding, nn.Conv3d):
            return self.patch_embedding(latents).flatten(2).transpose(1, 2)
        patch = self.config.patch_size
        pieces = latents.unflatten(4, (grid[2], patch[2])).unflatten(3, (grid[1], patch[1]))
        pieces = pieces.unflatten(2, (grid[0], patch[0])).permute(0, 2, 4, 6, 1, 3, 5, 7)
        weight = self.patch_embedding.weight.flatten(1)
        return F.linear(pieces.flatten(4).flatten(1, 3).to(weight.dtype), weight, self.patch_embedding.bias)

    def _unpatchify(self, x: Tensor, grid: tuple[int, int, int]) -> Tensor:
        # The last axis is (p_t, p_h, p_w, channel), channel fastest.
        x = x.unflatten(2, (*self.config.patch_size, -1)).unflatten(1, grid)
        return x.permute(0, 7, 1, 4, 2, 5, 3, 6).flatten(6, 7).flatten(4, 5).flatten(2, 3)

    def _time(
        self, timestep: Tensor, guidance: Tensor | None, batch: int, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        # -> (batch, 1 or tokens, 6, channels) and (batch, 1 or tokens, channels)
        if guidance is not None:
            time, embedded = self.time_embed(timestep.flatten(), guidance=guidance, hidden_dtype=dtype)
        else:
            time, embedded = self.time_embed(timestep.flatten(), batch_size=batch, hidden_dtype=dtype)
        channels = embedded.shape[-1]
        return time.view(batch, -1, 6, channels), embedded.view(batch, -1, channels)

    def _turn(self, grid: tuple[int, int, int], state: StateView | None, device: torch.device) -> Tensor:
        frames = [0] if state is None else state.frames
        turns = [rotation(frame, *grid, self.config.attention_head_dim, device) for frame in frames]
        return torch.stack(turns).unsqueeze(2) if len(turns) > 1 else turns[0][None, :, None]

    def _pasts(self, state: StateView | None) -> list[Past | None]:
        layers = len(self.transformer_blocks)
        if state is None:
            return [None] * layers
        sums, tails, commits = state.sums(), state.tails(), state.commits
        key_dtype = state.pool.layout.key_dtype
        return [Past(sums[:, layer], tails[:, layer], commits, key_dtype) for layer in range(layers)]

    # -- diffusers' files --------------------------------------------------------------------------------------

    def diffusers_state_dict(self) -> dict[str, Tensor]:
        """The parameters in diffusers' shapes: 1x1 convolutions are 4-D there."""
        return _unflatten(super().state_dict())

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """As in diffusers, in diffusers' shapes."""
        # `ModelMixin` asks `self.state_dict()` in the middle of a long method: answer in diffusers' shapes.
        self.state_dict = self.diffusers_state_dict
        try:
            super().save_pretrained(*args, **kwargs)
        finally:
            del self.state_dict

    def to_json_string(self) -> str:
        """The config; this class's own fields only where they differ from diffusers' behaviour."""
        fields = json.loads(super().to_json_string())
        kept = {k: v for k, v in fields.items() if k not in OWN_FIELDS or v != OWN_FIELDS[k]}
        return json.dumps(kept, indent=2, sort_keys=True) + "\n"

    def load_lora_adapter(self, pretrained_model_name_or_path_or_dict: Any, *args: Any, **kwargs: Any) -> Any:
        """As in diffusers; LoRAs of 1x1 convolutions are brought to linear shape first."""
        adapter = pretrained_model_name_or_path_or_dict
        if isinstance(adapter, dict):
            adapter = _flatten(adapter)
        return super().load_lora_adapter(adapter, *args, **kwargs)

    def _fix_state_dict_keys_on_load(self, state_dict: dict[str, Tensor]) -> None:
        super()._fix_state_dict_keys_on_load(state_dict)
        state_dict.update(_flatten(state_dict))

    @classmethod
    def _load_pretrained_model(
        cls, model: Any, state_dict: dict[str, Tensor] | None, resolved_model_file: Any, *args: Any, **kwargs: Any
    ) -> Any:
        if state_dict is None:
            # Shards pass by `_fix_state_dict_keys_on_load`; they are memory-mapped, so joining them costs nothing.
            joined: dict[str, Tensor] = {}
            for shard in resolved_model_file:
                joined.update(load_state_dict(shard))
            state_dict = _flatten(joined)
        return super()._load_pretrained_model(model, state_dict, resolved_model_file, *args, **kwargs)


def _is_pointwise(name: str) -> bool:
    return any(f"{part}." in name for part in POINTWISE)


def _flatten(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: value.flatten(1) if _is_pointwise(name) and value.ndim == 4 and value.shape[2:] == (1, 1) else value
        for name, value in state.items()
    }


def _unflatten(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: value[:, :, None, None] if _is_pointwise(name) and value.ndim == 2 else value
        for name, value in state.items()
    }


def _flatten_on_load(_: nn.Module, state: dict[str, Tensor], *__: Any) -> None:
    state.update(_flatten(state))


def parameter_shapes(transformer: SanaVideoTransformer3DModel) -> Iterator[tuple[str, torch.Size]]:
    """Name and shape, as diffusers has them, of every parameter."""
    for name, value in transformer.diffusers_state_dict().items():
        yield name, value.shape
