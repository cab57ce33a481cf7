"""Make the starter's tokenizer and text encoder: `python -m model.training.text --out runs/text --seconds 120`.

The encoder is a small Gemma-2. Alone on the CPU it first learns to name a caption's attributes from its states;
the transformer's training then goes on from there. Without this start the transformer takes most of its time to
find out that the text matters.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.training.optim import Optimisers, warm_flat_linear
from model.training.runs import Clock, say

MAX_TOKENS = 40
VOCABULARY_SIZE = 1024
CONFIG: dict[str, Any] = {
    "hidden_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64,
    "intermediate_size": 384, "query_pre_attn_scalar": 64, "sliding_window": 512, "max_position_embeddings": 512,
    "attn_logit_softcapping": None, "final_logit_softcapping": None, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
UNKNOWN = -100  # label of an attribute that the caption does not tell


def sample_caption(rng: random.Random) -> tuple[str, dict[str, str]]:
    """Return a full description with all attributes, or a short order with those that it changes."""
    from model.training.world.captions import caption, short_caption
    from model.training.world.script import draw_attributes, draw_changes

    attributes = draw_attributes(rng)
    if rng.random() < 0.6:
        return caption(attributes, rng), attributes
    changes = draw_changes(attributes, rng)
    return short_caption(changes, rng, before=attributes), changes


def train_tokenizer(captions: list[str]) -> Any:
    """Return a fast BPE tokenizer of lower-cased bytes, so that any text has tokens; `<bos>` goes first."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=["<pad>", "<bos>", "<eos>", "<unk>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>",
        model_max_length=MAX_TOKENS, padding_side="right",
    )  # fmt: skip


class AttributeHeads(nn.Module):
    """Names each attribute from the last state and the mean state; used in training only."""

    def __init__(self, width: int, sizes: dict[str, int]) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({key.replace(" ", "_"): nn.Linear(2 * width, size) for key, size in sizes.items()})

    def forward(self, states: Tensor, mask: Tensor) -> list[Tensor]:
        """Return logits `(captions, values)` for each attribute, from `(captions, tokens, width)` states."""
        last = states[torch.arange(len(states)), mask.sum(1) - 1]
        mean = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        summary = torch.cat([last, mean], dim=-1)
        return [head(summary) for head in self.heads.values()]


def tokenise(tokenizer: Any, captions: list[str]) -> tuple[Tensor, Tensor]:
    """Return ids and mask `(captions, MAX_TOKENS)`, padded on the right."""
    out = tokenizer(captions, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt")
    return out["input_ids"], out["attention_mask"]


def labelled_batch(tokenizer: Any, count: int, rng: random.Random) -> tuple[Tensor, Tensor, Tensor]:
    """Return ids, mask and labels `(captions, attributes)`; an attribute that is not told is `UNKNOWN`."""
    from model.training.world.attributes import NAMES

    captions, labels = [], []
    for _ in range(count):
        text, told = sample_caption(rng)
        captions.append(text)
        labels.append([NAMES[key].index(told[key]) if key in told else UNKNOWN for key in NAMES])
    ids, mask = tokenise(tokenizer, captions)
    longest = int(mask.sum(1).max())
    return ids[:, :longest], mask[:, :longest], torch.tensor(labels)


def split_parameters(encoder: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Matrices inside layers for Muon; embeddings and norms for AdamW."""
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in encoder.named_parameters():
        (matrices if parameter.dim() == 2 and "embed" not in name else rest).append(parameter)
    return matrices, rest


def train(out: Path, seconds: float, batch: int) -> None:
    """Train tokenizer and encoder for a number of seconds and save both under `out`."""
    from transformers import Gemma2Config, Gemma2Model

    from model.training.world.attributes import NAMES

    rng = random.Random(0)
    torch.manual_seed(0)
    tokenizer = train_tokenizer([sample_caption(rng)[0] for _ in range(30_000)])
    say(f"text: {len(tokenizer)} tokens")
    encoder = Gemma2Model(Gemma2Config(vocab_size=len(tokenizer), **CONFIG))
    heads = AttributeHeads(CONFIG["hidden_size"], {key: len(names) for key, names in NAMES.items()})
    matrices, rest = split_parameters(encoder)
    optimisers = Optimisers(matrices, [*rest, *heads.parameters()], muon_lr=4e-3, adam_lr=2e-3)
    bpe = tokenizer.backend_tokenizer.model
    clock, step = Clock(seconds), 0
    while not clock.over:
        bpe.dropout = 0.1 if step % 2 else None  # rarer splittings too, so that an unseen word is not all noise
        ids, mask, labels = labelled_batch(tokenizer, batch, rng)
        states = encoder(ids, attention_mask=mask).last_hidden_state
        logits = heads(states, mask)
        loss = torch.stack(
            [F.cross_entropy(x, y, ignore_index=UNKNOWN) for x, y in zip(logits, labels.T, strict=True)]
        ).mean()
        loss.backward()
        optimisers.step(warm_flat_linear(step, clock.progress, warm_steps=20, flat_until=0.4, end=0.05))
        step += 1
        if step % 50 == 0:
            say(f"text: step {step} {clock.elapsed:.0f} s, loss {loss.item():.3f}")
    bpe.dropout = None
    report(tokenizer, encoder, heads, random.Random(1))
    encoder.save_pretrained(out / "text_encoder")
    tokenizer.save_pretrained(out / "tokenizer")


@torch.no_grad()
def report(tokenizer: Any, encoder: Any, heads: AttributeHeads, rng: random.Random) -> None:
    """Print the share of told attributes that are named rightly on unseen captions."""
    from model.training.world.attributes import NAMES

    ids, mask, labels = labelled_batch(tokenizer, 1000, rng)
    logits = heads(encoder(ids, attention_mask=mask).last_hidden_state, mask)
    for key, guess, label in zip(NAMES, logits, labels.T, strict=True):
        told = label != UNKNOWN
        say(f"text: {key} named rightly {(guess.argmax(-1) == label)[told].float().mean().item():.1%}")


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for tokenizer/ and text_encoder/")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--batch", type=int, default=96, help="captions a step")
    args = parser.parse_args()
    train(args.out, args.seconds, args.batch)


if __name__ == "__main__":
    main()
