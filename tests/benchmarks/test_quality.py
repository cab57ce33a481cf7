"""The measures of `benchmarks.quality` on clips whose answer is known."""

from __future__ import annotations

import random
import re
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks.quality import __main__ as quality
from benchmarks.quality import blocks, card, classifier, frechet, judge, look, prompts, report, sharpness, steering
from benchmarks.quality.generate import Roll
from benchmarks.quality.noise import NoiseAhead
from benchmarks.quality.results import Results, read
from model.checkpoint import Checkpoint, load_checkpoint
from model.noise import philox_normal
from model.stream import LatentStream
from model.training import world
from model.training.world import BANKS, KEYS, NAMES, held_out, make_script
from tests.tiny import save_tiny_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return load_checkpoint(save_tiny_model(tmp_path_factory.mktemp("quality") / "tiny"), dtype=torch.float32)


def noise_picture(width: int = 128) -> Tensor:
    return torch.randint(0, 256, (3, 72, width), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


@pytest.mark.parametrize("shift", [-5, 0, 4])
def test_the_cameras_way_is_the_shift_that_fits(shift: int) -> None:
    wide = noise_picture(160)
    first, second = wide[:, :, 16:144], wide[:, :, 16 - shift : 144 - shift]
    cost = classifier.way(classifier.unit(torch.stack((first, second)))[None])
    bands = cost.unflatten(1, (classifier.BANDS, -1))
    assert (bands.argmin(-1) == classifier.REACH + shift).all()


def test_training_learns_and_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def paint(clips: int, seed: int, workers: int, width: int) -> tuple[Tensor, Tensor]:
        """Plain pictures whose brightness tells the hour; everything else is always the first value."""
        dice = torch.Generator().manual_seed(seed)
        labels = torch.zeros(clips, len(KEYS), dtype=torch.long)
        hour = torch.randint(4, (clips,), generator=dice)
        labels[:, KEYS.index("time of day")] = hour
        level = (40 + 60 * hour).to(torch.uint8).view(-1, 1, 1, 1, 1)
        return level.expand(clips, 2, 3, 72, 48), labels

    monkeypatch.setattr(classifier, "_renders", paint)
    monkeypatch.setattr(classifier, "BATCH", 16)
    made = judge.load_judge(tmp_path, clips=32, steps=60)
    assert made.accuracy["time of day"] > 0.7
    monkeypatch.setattr(classifier, "_renders", None)
    kept = judge.load_judge(tmp_path)
    assert kept.accuracy == made.accuracy
    views = paint(3, 9, 1, 256)[0][:, None]
    assert kept.names(views) == made.names(views)


def test_a_nothing_has_no_colour() -> None:
    start = dict.fromkeys(KEYS, "") | {"subject": "none", "colour": "red"}
    assert classifier.label(start, "colour") == classifier.UNKNOWN
    assert classifier.label(start | {"subject": "whale"}, "colour") == NAMES["colour"].index("red")


def test_one_combination_in_five_is_held_out_whatever_the_camera_does() -> None:
    rng = random.Random(3)
    drawn = [classifier.random_attributes(rng) for _ in range(2000)]
    assert sum(map(held_out, drawn)) / len(drawn) == pytest.approx(0.2, abs=0.03)
    assert all(held_out(a) == held_out(a | {"camera": "still"}) for a in drawn[:200])
    empty = [a | {"subject": "none"} for a in drawn[:200]]
    assert all(held_out(a) == held_out(a | {"colour": "red"}) for a in empty)


def test_training_draws_nothing_that_is_held_out() -> None:
    assert prompts.held_out_share() == 0


def test_each_kind_of_prompt_keeps_its_rule() -> None:
    known = {phrase for bank in BANKS.values() for value in bank for phrase in value.phrases}
    free = [phrase for bank in prompts.FREE.values() for phrases in bank.values() for phrase in phrases]
    assert not known & set(free)
    assert all(set(bank) == set(NAMES[key]) for key, bank in prompts.FREE.items())
    assert set(prompts.SHADES) == set(NAMES["colour"])
    made = prompts.wishes(60, seed=4)
    assert [w.kind for w in made[::20]] == list(prompts.KINDS)
    assert all(held_out(w.attributes) == (w.kind == "unseen") for w in made)
    assert made == prompts.wishes(60, seed=4)


def test_a_turn_changes_one_attribute() -> None:
    start = prompts.wishes(24, seed=1)
    made = list(prompts.turns(start, seed=2))
    changed = [{k for k in KEYS if t.after[k] != w.attributes[k]} for w, t in zip(start, made, strict=True)]
    assert changed == [{t.key} for t in made]
    assert {t.key for t in made} == set(KEYS)


def test_steering_counts_what_came_and_what_stayed() -> None:
    before = {key: NAMES[key][1] for key in KEYS}
    after = before | {"weather": "fog"}
    turn = prompts.Turn("fog rolls in", "weather", after)
    score = steering.Score()
    score.count([turn], [before], [before], [after | {"scene": "city"}])
    assert score.soon["weather"] == [False]
    assert score.later["weather"] == [True]
    assert score.kept == {key: [] if key == "weather" else [key != "scene"] for key in KEYS}


def test_flicker_and_freeze() -> None:
    steps = torch.tensor([0, 2, 2, 2, 6, 2, 2, 2]).cumsum(0)
    clip = steps.view(1, -1, 1, 1, 1).expand(1, -1, 3, 8, 8).to(torch.uint8)
    assert look.flicker(clip, [4]) == pytest.approx(3.0)
    assert float(look.changes(clip[:, :1].expand(1, 4, 3, 8, 8)).max()) == 0.0


def test_blocks_begin_where_their_lengths_say() -> None:
    assert look.borders([2, 3, 2]) == [8, 20]
    lengths = blocks.drawn((2, 5), 24, random.Random(0))
    assert set(lengths) == {2, 5}
    assert 24 <= sum(lengths) < 29


def test_a_kept_judge_tells_what_has_changed_since(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = classifier.Classifier().state_dict()
    known = judge.painters() | {"sky": "another"}
    for width in (256, 81):
        path = tmp_path / judge.file_name(width)
        torch.save({"net": net, "accuracy": {"scene": width / 256}, "painters": known}, path)
    monkeypatch.setattr(judge, "train", None)
    found = judge.load_judge(tmp_path)
    assert (found.stale, found.accuracy) == (["sky"], {"scene": 1.0})
    assert judge.load_judge(tmp_path, size=(256, 144)).accuracy == {"scene": 81 / 256}


def test_whoever_paints_makes_a_judge_stale() -> None:
    wanted, seen = ["render"], {"NAMES"}
    folder = Path(str(world.__file__)).parent
    while wanted:
        name = wanted.pop()
        if name not in seen | judge.SPEAKERS:
            seen.add(name)
            wanted += re.findall(r"^from model\.training\.world\.(\w+)", (folder / f"{name}.py").read_text(), re.M)
    assert seen == judge.painters().keys()


def test_without_parts_only_the_classifier_is_made(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def train(*_: object, width: int, **__: object) -> tuple[classifier.Classifier, Tensor, Tensor]:
        return classifier.Classifier().eval(), torch.zeros(1, 2, 3, 72, width // 2), torch.zeros(1, len(KEYS))

    monkeypatch.setattr(judge, "train", train)
    cache, out = tmp_path / "cache", tmp_path / "out"
    arguments = ["--model", str(tiny_model), "--train-classifier", "--parts", "", "--size", "64x128", "--quick"]
    monkeypatch.setattr(sys, "argv", ["quality", *arguments, "--cache", str(cache), "--out", str(out)])
    try:
        quality.main()
    finally:
        torch.set_grad_enabled(True)
    assert [path.name for path in tmp_path.rglob("*.*")] == ["classifier-72x144.pt"]
    assert "classifier on renders of 64x128" in capsys.readouterr().out


def test_sharpness_is_the_mean_step_between_neighbours() -> None:
    columns = (torch.arange(16) % 2 * 10).to(torch.uint8).expand(1, 3, 16, 16)
    assert look.sharpness(columns) == pytest.approx(10.0)


def test_timesteps_of_four_passes_are_the_starters() -> None:
    assert sharpness.timesteps(4, 3.0) == pytest.approx([1000, 900, 750, 500])


def test_frechet_distance_of_known_normals() -> None:
    features = torch.randn(400, 5, generator=torch.Generator().manual_seed(0))
    assert frechet.distance(features, features) == pytest.approx(0.0, abs=1e-9)
    assert frechet.distance(features, features + 2.0) == pytest.approx(20.0)
    spread = float(torch.cov(features.double().T).trace())
    assert frechet.distance(features, 3 * (features - features.mean(0)) + features.mean(0)) == pytest.approx(
        4 * spread
    )


def test_a_render_without_changes_moves_with_its_camera() -> None:
    start = {key: NAMES[key][0] for key in KEYS} | {"scene": "city", "camera": "drift right", "time of day": "day"}
    still = make_script(start | {"camera": "still"}, [], 1, 12, random.Random(1))
    moving = make_script(start, [], 1, 12, random.Random(1))
    views = classifier.shrink(classifier.render_pairs([still, moving]))
    low = classifier.way(classifier.unit(views)).unflatten(1, (classifier.BANDS, -1))[:, 4].argmin(-1)
    assert low[0] == classifier.REACH
    assert low[1] != classifier.REACH


def test_a_roll_skips_to_the_same_pictures(tiny: Checkpoint) -> None:
    words = ["the sea at night", "snowy mountains by day"]
    whole = Roll(tiny, words, seed=5).pictures(7)
    jumped = Roll(tiny, words, seed=5)
    for _ in range(5):
        jumped.skip()
    begin = jumped.next_picture
    assert whole.shape[1] == begin + 24
    shown = jumped.pictures(2)
    assert (shown.int() - whole[:, begin:].int()).abs().max() <= 1
    assert not torch.equal(shown[0], shown[1])


def test_side_by_side_is_one_at_a_time(tiny: Checkpoint) -> None:
    words = ["the sea at night", "snowy mountains by day", "a forest at dawn"]
    roll = Roll(tiny, words, seed=2**64 - 1)
    together = [roll.latents(), roll.latents(), roll.latents(2)]
    for i, prompt in enumerate(words):
        text, mask = tiny.text.encode(prompt)
        alone = LatentStream(
            tiny.transformer, text=text, text_mask=mask, height=8, width=8, seed=2**64 - 1 + i, config=tiny.config
        )
        for number, block in enumerate(together):
            alone.block = 2 if number == 2 else 3
            torch.testing.assert_close(next(alone)[0], block[i], rtol=1e-4, atol=1e-4)


def test_a_roll_goes_on_from_pictures(tiny: Checkpoint) -> None:
    given = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    roll = Roll(tiny, ["the sea"] * 2, seed=1, images=given)
    pictures = roll.pictures(2)
    assert pictures.shape == (2, 13, 3, 64, 64)
    expected = tiny.vae.decode(tiny.vae.encode(given[1].permute(1, 2, 0)[None]), tiny.vae.new_state())
    assert (pictures[1, 0].permute(1, 2, 0).int() - expected[0].int()).abs().max() <= 1


def test_noise_drawn_ahead_is_the_streams_own() -> None:
    ahead = NoiseAhead(7, (2, 3, 5), torch.device("cpu"))
    for frame in (0, 1, 30, 31, 2):
        torch.testing.assert_close(ahead(frame, 1), philox_normal(7, frame, 1, (2, 3, 5)))


def test_results_are_on_disk_part_by_part_and_make_a_card(tmp_path: Path) -> None:
    about = {"command": "it", "weights": "abc", "size": "64×64", "device": "cpu", "classifier": {"scene": 0.995}}
    found, beside = Results(tmp_path, about), Results(tmp_path / "endurance", about)
    adherence = report.Table("", [*KEYS, "all named"], name="adherence")
    adherence.add("seen (2)", *[95.0] * len(KEYS), 95.0)
    adherence.add("free (2)", 50.0, *[60.0] * (len(KEYS) - 2), None, 58.0)
    sheet = report.Sheet()
    sheet.row(["a"], [noise_picture()])
    found.add("adherence", [adherence], sheet, 1.0)
    scores = report.Table("", [*KEYS, "all named"], name="endurance scores")
    for minute, value in ((1, 90.0), (5, 88.0), (30, 84.0)):
        scores.add(f"minute {minute}", *[value] * len(KEYS), value)
    beside.add("endurance", [scores], sheet, 2.0)
    found.take(tmp_path / "endurance")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adherence.jpg", "endurance.jpg", "results.json"]
    content = read(tmp_path)
    assert content["seconds"] == {"adherence": 1.0, "endurance": 2.0}
    again = Results(tmp_path, about)
    again.add("adherence", [adherence], sheet, 3.0)
    assert [table["name"] for table in read(tmp_path)["tables"]] == ["endurance scores", "adherence"]
    assert Results(tmp_path, about | {"weights": "other"}).tables == []
    text = card.markdown(content)
    assert "2 prompts: attributes recognised | 95% (least: scene 95%) | ≥ 90 |" in text
    assert "58% (least: scene 50%) | ≥ 75 (not met) |" in text
    assert "minute 1, 5, 30 | 90%, 88%, 84% | last ≥ 85 (not met) |" in text


def test_the_sheet_starts_rows_anew(tmp_path: Path) -> None:
    sheet = report.Sheet(columns=3)
    sheet.row(["a"], [noise_picture()])
    sheet.row(["b", "c"], [noise_picture(), noise_picture()])
    assert [label for label, _ in sheet.cells] == ["a", "", "", "b", "c"]
    sheet.save(tmp_path / "made" / "sheet.png")
    assert (tmp_path / "made" / "sheet.png").stat().st_size > 1000
