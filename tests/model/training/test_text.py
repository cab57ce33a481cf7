"""The text encoder's training: it learns to name attributes, with a teacher and without words of the benchmark."""

import random
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.training import teacher as teachers
from model.training import text
from model.training.world import NAMES

SMALL = {"hidden_size": 64, "head_dim": 16, "num_hidden_layers": 1, "intermediate_size": 64}


class SpellingTeacher(teachers.Teacher):
    """Embeds by spelling: words with the same letters are near. Stands where the real one is not installed."""

    def words(self) -> list[str]:
        return [
            "oceans",
            "seas",
            "meadows",
            "cities",
            "snowing",
            "table",
            "quickly",
            "seven",
            "because",
            "dragons",
        ] * 3

    def embed(self, texts: list[str], batch: int = 256) -> Tensor:
        found = torch.zeros(len(texts), teachers.WIDTH)
        for row, said in zip(found, texts, strict=True):
            for a, b in pairwise(said):
                row[(ord(a) * 31 + ord(b)) % teachers.WIDTH] += 1
        return torch.nn.functional.normalize(found + 1e-3, dim=-1)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "Teacher", SpellingTeacher)
    monkeypatch.setattr(text, "VOCABULARY_SIZE", 600)
    monkeypatch.setattr(text, "CAPTIONS", 300)
    monkeypatch.setattr(text, "CONFIG", text.CONFIG | SMALL)


def test_training_learns_saves_and_loads(small: None, tmp_path: Path) -> None:
    run = text.Training(60.0, 16, tmp_path / "cache")
    told = [text.sample_caption(random.Random(i)) for i in range(60)]
    before = sum(run.namer.accuracy(told).values())
    embeddings = run.encoder.get_input_embeddings().weight.clone()
    for _ in range(90):
        run.step()
    run.finish()
    assert torch.equal(embeddings, run.encoder.get_input_embeddings().weight)
    after = run.namer.accuracy(told)
    assert sum(after.values()) > before + 0.3
    run.save(tmp_path / "out")
    again = text.Namer.load(tmp_path / "out").accuracy(told)
    assert again == pytest.approx(after, abs=0.05)


def test_a_caption_tells_what_its_labels_say() -> None:
    keys = list(NAMES)
    assert text.label({"scene": "sea"}) == [0, *(len(NAMES[key]) for key in keys[1:])]
    places = text.label({"subject": "whale"})
    assert places[keys.index("subject")] == NAMES["subject"].index("whale")
    assert places[keys.index("colour")] == text.UNKNOWN


def test_teacher_keeps_what_it_said_and_places_near_words(tmp_path: Path) -> None:
    taught = teachers.taught_words(SpellingTeacher(tmp_path), SpellingTeacher(tmp_path).words())
    assert all(name in NAMES[key] for key, name in taught)
    kept = teachers.Teacher(tmp_path)
    (tmp_path / "words.txt").write_text("one\ntwo")
    assert kept.words() == ["one", "two"]


def test_token_embeddings_put_words_where_the_teacher_has_them(tmp_path: Path) -> None:
    table = teachers.token_embeddings(SpellingTeacher(tmp_path), ["<pad>", " seas", " oceans", "sea"], 4, 0.06)
    assert table.shape == (4, 4)
    assert torch.allclose(table.pow(2).mean(-1).sqrt(), torch.tensor(0.06))
