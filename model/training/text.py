"""Make the starter's tokenizer and text encoder: `python -m model.training.text --out runs/text --seconds 300`.

The encoder is a small Gemma-2. Alone on the CPU it first learns to name a caption's attributes from its states;
the transformer's training then goes on from there. Without this start the transformer takes most of its time to
find out that the text matters. A bigger encoder teaches it words that the captions lack, see `teacher.py`.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.training.optim import Average, Optimisers, warm_flat_linear
from model.training.runs import Clock, pick_device, say
from model.training.teacher import WIDTH, Teacher, framed, lexicon_texts, taught_words, token_embeddings
from model.training.world.attributes import NAMES
from model.training.world.captions import choose_told, compose, short_caption
from model.training.world.script import draw_attributes, draw_changes
from model.training.world.wording import Wording, training

MAX_TOKENS = 40
VOCABULARY_SIZE = 6144
CAPTIONS = 30_000  # of which the tokenizer is made
WORDS = 9000  # the teacher's most frequent words, whole in the tokenizer as far as it goes
CONFIG: dict[str, Any] = {
    "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64,
    "intermediate_size": 512, "query_pre_attn_scalar": 64, "sliding_window": 512, "max_position_embeddings": 512,
    "attn_logit_softcapping": None, "final_logit_softcapping": None, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
EMBEDDING_RMS = 0.06  # Gemma-2 multiplies by 16
UNKNOWN = -100  # label of an attribute of which the caption may or may not tell
Told = dict[str, str]


def sample_caption(rng: random.Random) -> tuple[str, Told]:
    """Return a full description or a short order, with the attributes that it tells."""
    attributes = draw_attributes(rng)
    if rng.random() < 0.6:
        told = choose_told(attributes, rng)
        return compose(attributes, told, rng), {key: attributes[key] for key in told}
    changes = draw_changes(attributes, rng)
    return short_caption(changes, rng, before=attributes), changes


def sample_wide(wording: Wording, rng: random.Random) -> tuple[str, Told]:
    """As `sample_caption`, always worded by `wording`, without removals and colours of what was there."""
    attributes = draw_attributes(rng)
    told = choose_told(attributes, rng)
    return wording.describe(attributes, told, rng), {key: attributes[key] for key in told}


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
    """Names each attribute, and imitates the teacher, from the last and the mean state; used in training only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = nn.ModuleDict(
            {key.replace(" ", "_"): nn.Linear(2 * width, len(names) + 1) for key, names in NAMES.items()}
        )
        self.teacher = nn.Linear(2 * width, WIDTH)

    def forward(self, states: Tensor, mask: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return logits `(captions, values + 1)` for each attribute, the last for untold, and `(captions, 384)`.

        states: `(captions, tokens, width)`; mask: `(captions, tokens)`.
        """
        last = states[torch.arange(len(states), device=states.device), mask.sum(1) - 1]
        mean = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        summary = torch.cat([last, mean], dim=-1)
        return [head(summary) for head in self.heads.values()], self.teacher(summary)


def tokenise(tokenizer: Any, captions: list[str]) -> tuple[Tensor, Tensor]:
    """Return ids and mask `(captions, tokens)`, padded on the right, at most `MAX_TOKENS`."""
    out = tokenizer(captions, padding="longest", max_length=MAX_TOKENS, truncation=True, return_tensors="pt")
    return out["input_ids"], out["attention_mask"]


def label(told: Told) -> list[int]:
    """The place of each attribute's value in its bank; of those not told the place behind the last."""
    places = [NAMES[key].index(told[key]) if key in told else len(NAMES[key]) for key in NAMES]
    if "subject" in told and "colour" not in told:
        places[list(NAMES).index("colour")] = UNKNOWN  # an order may say the colour that it had
    return places


@dataclass(frozen=True)
class Namer:
    """Tokenizer, encoder and heads together: what the encoder makes of a text."""

    tokenizer: Any
    encoder: Any
    heads: AttributeHeads

    @classmethod
    def load(cls, folder: Path) -> Namer:
        """Read what `Training.save` wrote."""
        from transformers import AutoTokenizer, Gemma2Model

        heads = AttributeHeads(CONFIG["hidden_size"])
        heads.load_state_dict(torch.load(folder / "heads.pt", weights_only=True))
        encoder = Gemma2Model.from_pretrained(folder / "text_encoder", dtype=torch.float32)
        return cls(AutoTokenizer.from_pretrained(folder / "tokenizer"), encoder, heads)

    def __call__(self, texts: list[str]) -> tuple[list[Tensor], Tensor]:
        """Logits of each attribute and the guess of the teacher's embedding, as `AttributeHeads`."""
        device = self.encoder.device
        ids, mask = (part.to(device) for part in tokenise(self.tokenizer, texts))
        with torch.autocast(device.type, torch.bfloat16):
            states = self.encoder(ids, attention_mask=mask, use_cache=False).last_hidden_state
        return self.heads(states.float(), mask)

    @torch.no_grad()
    def accuracy(self, told: list[tuple[str, Told]]) -> dict[str, float]:
        """Share of the told attributes that are named rightly, by attribute."""
        right: dict[str, list[bool]] = {key: [] for key in NAMES}
        for start in range(0, len(told), 200):
            some = told[start : start + 200]
            logits, _ = self([text for text, _ in some])
            for key, guesses in zip(NAMES, logits, strict=True):
                best = guesses[:, :-1].argmax(-1).tolist()
                right[key] += [
                    NAMES[key][b] == said[key] for b, (_, said) in zip(best, some, strict=True) if key in said
                ]
        return {key: sum(hits) / max(1, len(hits)) for key, hits in right.items()}


class Training:
    """Tokenizer, encoder and what teaches it."""

    def __init__(self, seconds: float, batch: int, cache: Path, start: Path | None = None) -> None:
        """`cache`: the teacher's; `start`: a folder of `save` to go on from, with its tokenizer."""
        self.rng, self.batch, self.device = random.Random(0), batch, pick_device()
        torch.manual_seed(0)
        teacher = Teacher(cache)
        words = teacher.words()
        self.texts = [*words, *lexicon_texts()[0]]
        self.vectors = torch.cat([teacher.embed(words), teacher.embed(lexicon_texts()[0])]).to(self.device)
        self.taught = Wording()
        self.taught.phrases = training().phrases | framed(taught_words(teacher, words))
        self.namer = Namer.load(start) if start else self._fresh(teacher, words)
        self.tokenizer, self.encoder, self.heads = self.namer.tokenizer, self.namer.encoder, self.namer.heads
        self.encoder.to(self.device)
        self.heads.to(self.device)
        # A word that no caption has stays where its neighbours are.
        self.encoder.get_input_embeddings().requires_grad_(False)
        layers = [p for p in self.encoder.parameters() if p.requires_grad]
        matrices = [p for p in layers if p.dim() == 2]
        rest = [p for p in layers if p.dim() != 2]
        self.optimisers = Optimisers(matrices, [*rest, *self.heads.parameters()], muon_lr=4e-3, adam_lr=2e-3)
        self.average = Average(self._named(), 0.98)
        self.clock, self.steps = Clock(seconds), 0

    def _fresh(self, teacher: Teacher, words: list[str]) -> Namer:
        """A tokenizer of captions and the teacher's frequent words; an encoder that begins with its embeddings."""
        from transformers import Gemma2Config, Gemma2Model

        captions = [sample_caption(self.rng)[0] for _ in range(CAPTIONS)]
        captions += [word for rank, word in enumerate(words[:WORDS]) for _ in range(2 if rank < 4000 else 1)] * 10
        tokenizer = train_tokenizer(captions)
        encoder = Gemma2Model(Gemma2Config(vocab_size=len(tokenizer), **CONFIG))
        spellings = [tokenizer.decode([i]) for i in range(len(tokenizer))]
        table = token_embeddings(teacher, spellings, CONFIG["hidden_size"], EMBEDDING_RMS)
        with torch.no_grad():
            encoder.get_input_embeddings().weight.copy_(table)
        return Namer(tokenizer, encoder, AttributeHeads(CONFIG["hidden_size"]))

    def _named(self) -> dict[str, Tensor]:
        return {n: p for part in (self.encoder, self.heads) for n, p in part.named_parameters() if p.requires_grad}

    def run(self) -> None:
        """Train until the clock is over and take over the average."""
        while not self.clock.over:
            loss = self.step()
            if self.steps % 25 == 0:
                say(f"text: step {self.steps} {self.clock.elapsed:.0f} s, loss {loss:.3f}")
        self.finish()

    def step(self) -> float:
        """One step; return the loss."""
        # Rarer splittings too, so that a typo is not all noise.
        self.tokenizer.backend_tokenizer.model.dropout = 0.1 if self.steps % 3 == 1 else None
        loss = self._loss()
        loss.backward()
        factor = warm_flat_linear(self.steps, self.clock.progress, warm_steps=20, flat_until=0.4, end=0.05)
        self.optimisers.step(factor)
        self.average.update(self._named())
        self.steps += 1
        return loss.item()

    def finish(self) -> None:
        """Take over the average."""
        self.tokenizer.backend_tokenizer.model.dropout = None
        with torch.no_grad():
            for name, parameter in self._named().items():
                parameter.copy_(self.average.tensors[name])

    def _loss(self) -> Tensor:
        captions, labels = [], []
        for i in range(self.batch):
            text, told = sample_caption(self.rng) if i % 4 else sample_wide(self.taught, self.rng)
            captions.append(text)
            labels.append(label(told))
        logits, _ = self.namer(captions)
        truth = torch.tensor(labels, device=self.device).T
        losses = [F.cross_entropy(x, y, ignore_index=UNKNOWN) for x, y in zip(logits, truth, strict=True)]
        some = [self.rng.randrange(len(self.texts)) for _ in range(self.batch)]
        _, guess = self.namer([self.texts[i] for i in some])
        apart = 1 - F.cosine_similarity(guess, self.vectors[some]).mean()
        return torch.stack(losses).mean() + 0.5 * apart

    def save(self, out: Path) -> None:
        """Write `tokenizer/` and `text_encoder/` under `out`, and the heads for measuring."""
        self.encoder.half().save_pretrained(out / "text_encoder")
        self.encoder.float()
        self.tokenizer.save_pretrained(out / "tokenizer")
        torch.save(self.heads.state_dict(), out / "heads.pt")

    def report(self, count: int = 1000) -> None:
        """Print the accuracy on captions, on trained wide phrases and on phrases kept from training."""
        kinds = {"captions": sample_caption, "wide": lambda rng: sample_wide(training(), rng)}
        unseen = Wording(unseen=True)
        kinds["held-out phrases"] = lambda rng: sample_wide(unseen, rng)
        for kind, sample in kinds.items():
            rng = random.Random(1)
            scores = self.namer.accuracy([sample(rng) for _ in range(count)])
            each = ", ".join(f"{key} {score:.1%}" for key, score in scores.items())
            say(f"text: {kind}: {each}; mean {sum(scores.values()) / len(scores):.1%}")


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for tokenizer/ and text_encoder/")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--batch", type=int, default=96, help="captions a step")
    parser.add_argument("--cache", type=Path, default=Path("runs/teacher"), help="folder for what the teacher said")
    parser.add_argument("--start", type=Path, help="folder of an earlier run to go on from")
    args = parser.parse_args()
    run = Training(args.seconds, args.batch, args.cache, args.start)
    run.run()
    run.report()
    run.save(args.out)


if __name__ == "__main__":
    main()
