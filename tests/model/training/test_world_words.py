"""Words of the world: vocabulary, captions, scripts."""

import random

import pytest
import torch

from model.training.world import (
    BANKS,
    KEYS,
    NAMES,
    caption,
    held_out,
    lexicon,
    sample_scripts,
    short_caption,
    vocabulary,
    wording,
)
from model.training.world.script import block_picture_counts


def _says(text: str, key: str, name: str) -> bool:
    value = next(v for v in BANKS[key] if v.name == name)
    wide = [p for form in lexicon.FORMS for p in lexicon.phrases().get((key, name, form), ())]
    wide += [phrase for phrase, told in lexicon.all_combined() if told.get(key) == name]
    if any(all(part in text for part in p.split("{}")) for p in (*value.phrases, value.name, *wide)):
        return True
    # Something may stand between the article and the rest: 'a red sailboat'.
    return any(all(w in text for w in p.split()[1:]) for p in (*value.phrases, *wide) if len(p.split()) > 1)


def _start(**changes: str) -> dict[str, str]:
    return {
        "scene": "sea",
        "time of day": "night",
        "weather": "storm",
        "subject": "whale",
        "colour": "red",
        "camera": "drift left",
    } | changes


def test_vocabulary_covers_the_brief() -> None:
    words = vocabulary()
    assert tuple(words) == KEYS
    counts = {key: len(bank) for key, bank in words.items()}
    least = {"scene": 8, "time of day": 4, "weather": 5, "subject": 9, "colour": 8, "camera": 3}
    assert all(counts[key] >= n for key, n in least.items())
    for key, bank in words.items():
        for entry in bank:
            synonyms = entry["synonyms"]
            assert isinstance(synonyms, list)
            assert 4 <= len(synonyms) <= 8, (key, entry["name"])
            assert all(s == s.lower() for s in [entry["name"], entry["prompt"], *synonyms])


def test_no_phrase_means_two_values() -> None:
    for bank in BANKS.values():
        phrases = [p for value in bank for p in {*value.phrases, value.name}]
        assert len(phrases) == len(set(phrases))


@pytest.mark.parametrize("key", KEYS)
def test_caption_names_what_it_must(key: str) -> None:
    rng = random.Random(3)
    for name in NAMES[key]:
        for _ in range(8):
            text = caption(_start(**{key: name}), rng, mention=[key])
            assert _says(text, key, name), (name, text)
            assert text == text.lower()


def test_captions_leave_things_out_and_vary() -> None:
    rng = random.Random(0)
    texts = {caption(_start(), rng) for _ in range(200)}
    assert len(texts) > 150
    said = sum(_says(t, "camera", "drift left") for t in texts)
    assert 0 < said < len(texts) // 2


@pytest.mark.parametrize("key", KEYS)
def test_short_caption_is_deterministic_and_short(key: str) -> None:
    for name in NAMES[key]:
        changes = {key: name}
        texts = {short_caption(changes, torch.Generator().manual_seed(5), before=_start()) for _ in range(3)}
        assert len(texts) == 1
        assert len(texts.pop().split()) <= 24


def test_short_caption_of_a_new_subject_names_it() -> None:
    rng = random.Random(1)
    for name in NAMES["subject"][1:]:
        assert _says(short_caption({"subject": name}, rng, before=_start(subject="none")), "subject", name)


def test_block_picture_counts() -> None:
    assert block_picture_counts(3, 12) == (9, 12, 12)
    assert block_picture_counts(2, [5, 8]) == (5, 8)
    for bad in (0, 6, [4]):
        with pytest.raises(ValueError, match="block_pictures"):
            block_picture_counts(2, bad)


def test_scripts_agree_with_themselves() -> None:
    scripts = sample_scripts(60, 4, 12, torch.Generator().manual_seed(2), 0.6)
    assert scripts == sample_scripts(60, 4, 12, torch.Generator().manual_seed(2), 0.6)
    assert scripts != sample_scripts(60, 4, 12, torch.Generator().manual_seed(3), 0.6)
    assert any(s.changes for s in scripts)
    for s in scripts:
        assert len(s.captions) == len(s.attributes) == 4
        assert set(s.start) == set(KEYS)
        assert s.attributes[0] == s.start
        now, changes = dict(s.start), dict(s.changes)
        for block in range(4):
            change = changes.get(block, {})
            assert all(now[k] != v for k, v in change.items())
            now |= change
            assert s.attributes[block] == now
            if not change and block:
                assert s.captions[block] == s.captions[block - 1]


def test_start_can_be_held() -> None:
    scripts = sample_scripts(20, 2, 8, random.Random(0), 0.0, start={"subject": "train"})
    assert {s.start["subject"] for s in scripts} == {"train"}
    assert len({s.start["scene"] for s in scripts}) > 3
    assert not any(s.changes for s in scripts)


def test_no_block_shows_a_held_out_combination() -> None:
    scripts = sample_scripts(300, 6, 12, random.Random(4), 0.9, max_changes=5)
    shown = [attributes for script in scripts for attributes in script.attributes]
    assert len({tuple(a.items()) for a in shown}) > 800
    assert not any(map(held_out, shown))


def test_a_held_out_start_is_refused() -> None:
    rng = random.Random(0)
    start = _start()
    while not held_out(start):
        start["scene"], start["colour"] = rng.choice(NAMES["scene"]), rng.choice(NAMES["colour"])
    with pytest.raises(ValueError, match=r"start: .*held-out"):
        sample_scripts(1, 2, 12, rng, start=start)


def test_the_lexicon_covers_every_value_and_means_one_thing() -> None:
    bank = lexicon.all_phrases()
    for key, names in NAMES.items():
        for name in names:
            assert len(bank[key, name, "phrase"]) >= 25
            assert len(lexicon.phrases()[key, name, "phrase"]) >= 20
    owners: dict[tuple[str, str], str] = {}
    for (key, name, _), phrases in bank.items():
        for phrase in phrases:
            assert phrase == phrase.lower()
            assert owners.setdefault((key, phrase), name) == name, phrase


def test_training_uses_no_phrase_that_is_kept_from_it() -> None:
    used = {p for phrases in lexicon.phrases().values() for p in phrases}
    kept = {p for phrases in lexicon.phrases(unseen=True).values() for p in phrases}
    assert not used & kept
    assert not any(lexicon.held_out(p) or lexicon.reserved(p) for p in used)
    assert len(kept) / (len(used) + len(kept)) == pytest.approx(0.1, abs=0.04)


def test_what_the_benchmark_asks_freely_is_reserved() -> None:
    from benchmarks.quality.prompts import FREE
    from benchmarks.quality.reserve import FILE, hashes

    lines = FILE.read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == hashes(), (
        "run python -m benchmarks.quality.reserve"
    )
    phrase = FREE["scene"]["sea"][0]
    assert lexicon.reserved(phrase)
    assert lexicon.reserved(f"oh, {phrase.upper()}!")
    assert not lexicon.reserved("qwertz")


@pytest.mark.parametrize("key", KEYS)
def test_wide_descriptions_and_orders_say_what_they_must(key: str) -> None:
    rng, wide = random.Random(8), wording.training()
    for name in NAMES[key]:
        for _ in range(12):
            start = _start(**{key: name})
            told = {key, "scene", "subject"}
            text = wide.describe(start, told, rng)
            assert all(_says(text, k, start[k]) for k in told), (text, start)
            order = wide.order({key: name}, _start(), rng)
            assert order
            assert "{" not in text + order
            assert "<" not in text + order


def test_templates_fill_and_drop() -> None:
    assert (
        wording.fill("{subject} at<, {hour}><; {weather}>", {"subject": "a dog", "weather": "rain"})
        == "a dog at; rain"
    )
    assert wording.insert("a sailboat", "orange") == "an orange sailboat"
    assert wording.insert("a few birds", "red") == "a few red birds"
    assert wording.definite("a few birds") == "the birds"
