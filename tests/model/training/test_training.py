"""The pieces of the starter's training: optimiser, distillation, windows of the encoder."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from words import Words

from model.training.clips import ClipKind, Encoder, draw_lengths
from model.training.distill import Student, Teacher, euler_sigmas, opening_points, usual_points
from model.training.flow import ASKED_SHARE, PLAIN_TIMESTEPS, Batch, BlockFlow, Net, Placed, sample_sigma
from model.training.layout import clip_layout
from model.training.optim import Average, Muon, orthogonalise, warm_flat_linear
from model.training.rows import initialise

SIZE = 4
LENGTHS = [[1, 3, 2], [2, 2, 2], [3, 1, 2]]


@pytest.fixture
def net() -> Net:
    """A tiny net near the identity."""
    from diffusers import SanaVideoTransformer3DModel

    torch.manual_seed(0)
    transformer = SanaVideoTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, num_layers=2, num_cross_attention_heads=2,
        cross_attention_head_dim=12, cross_attention_dim=24, caption_channels=16,
    )  # fmt: skip
    initialise(transformer)
    return Net(transformer, Words(), compiled=False)


def _batch() -> Batch:
    mask = torch.ones(3, 3, 5, dtype=torch.long)
    return Batch(torch.randn(3, 16, 6, SIZE, SIZE), torch.randn(3, 3, 5, 16), mask, torch.tensor(LENGTHS))


def test_orthogonalise_brings_singular_values_near_one() -> None:
    torch.manual_seed(0)
    for shape in ((3, 8, 20), (2, 20, 8)):
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
        assert values.min() > 0.6
        assert values.max() < 1.3


def test_muon_fits_a_matrix() -> None:
    torch.manual_seed(0)
    target = torch.randn(6, 9)
    weight = nn.Parameter(torch.zeros(6, 9))
    muon = Muon([weight], lr=0.1)
    for _ in range(200):
        muon.zero_grad()
        (weight - target).square().sum().backward()
        muon.step()
    assert (weight - target).abs().max() < 0.2


def test_average_follows_at_once_and_then_slowly() -> None:
    tensor = torch.zeros(1)
    average = Average({"x": tensor}, decay=0.9)
    tensor.fill_(1.0)
    average.update({"x": tensor})
    assert average.tensors["x"].item() == pytest.approx(1 - 1 / 11)


def test_rate_curve() -> None:
    def at(step: int, progress: float) -> float:
        return warm_flat_linear(step, progress, warm_steps=10, flat_until=0.5, end=0.1)

    assert [at(0, 0.0), at(9, 0.0), at(100, 0.5)] == pytest.approx([0.1, 1.0, 1.0])
    assert [at(100, 0.75), at(100, 1.0)] == pytest.approx([0.55, 0.1])


def test_flow_loss_reaches_every_parameter(net: Net) -> None:
    for parameter in net.transformer.parameters():
        nn.init.normal_(parameter, std=0.2)
    BlockFlow(net, 2, 50, torch.device("cpu")).loss(_batch(), torch.randn(3, 6, 16, SIZE, SIZE)).backward()
    silent = [name for name, p in net.transformer.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_too_few_rows_are_refused(net: Net) -> None:
    with pytest.raises(ValueError, match="48 rows, more than 40"):
        BlockFlow(net, 2, 40, torch.device("cpu")).loss(_batch())


def test_rows_share_noise_by_block_and_know_their_caption() -> None:
    at = Placed(clip_layout(LENGTHS, 2, None), torch.tensor(LENGTHS), 50, torch.device("cpu"))
    assert (at.clean, at.used, at.groups) == (12, 48, 27)
    # Clip 0: one clean row of block 0 and three of block 1, written under the captions of blocks 1 and 2.
    assert at.caption[:4].tolist() == [1, 2, 2, 2]
    assert at.caption[12:18].tolist() == [0, 1, 1, 1, 2, 2]
    assert at.caption[48:].tolist() == [9, 9]
    assert at.group[12:18].tolist() == [9, 10, 10, 10, 11, 11]
    assert len(set(at.group[:12].tolist())) == 6
    assert at.past.tolist() == [0, 1, 2, 3, 6, 7, 8, 9, 12, 13, 14, 15]


def test_noise_levels_are_mostly_those_at_which_a_stream_asks() -> None:
    torch.manual_seed(0)
    sigma = sample_sigma(20_000, torch.device("cpu"))
    assert sigma.min() > 0
    assert sigma.max() == 1.0
    near = (sigma[:, None] * 1000 - torch.tensor(PLAIN_TIMESTEPS)).abs() <= 30
    by_level = near.float().mean(0)
    assert (by_level > ASKED_SHARE / 3).all(), "each of them gets its part"
    assert near.any(1).float().mean() < 0.7, "and the levels between are not forgotten"
    assert (sigma < 0.4).float().mean() > 0.05


def test_drawn_lengths_fill_the_clip_and_start_like_a_picture_sometimes() -> None:
    rng = random.Random(0)
    drawn = [draw_lengths(ClipKind(9, 27, 0.2), rng) for _ in range(300)]
    assert {sum(lengths) for lengths in drawn} == {27}
    assert {length for lengths in drawn for length in lengths} == {1, 2, 3, 4, 5}
    assert sum(lengths[0] == 1 for lengths in drawn) > 50


def test_euler_sigmas_are_the_recipe_s() -> None:
    assert euler_sigmas(4) == pytest.approx([1.0, 0.9, 0.75, 0.5, 0.0])


@pytest.mark.parametrize("guidance", [1.0, 1.5])
def test_a_constant_velocity_is_distilled_already(net: Net, guidance: float) -> None:
    """Then many steps and few land in the same place: the student's loss is nothing."""
    nn.init.normal_(net.transformer.proj_out.bias)
    device = torch.device("cpu")
    teacher, student = Teacher(net, 3, guidance, 40, device), Student(net, 2, 3, 80, device)
    batch = _batch()
    walks = teacher.walk(batch, None)
    walks = teacher.walk(batch, walks.points[-1])
    assert walks.points.shape == (13, 3, 6, 16, SIZE, SIZE)
    assert (walks.points[0] - walks.points[-1]).abs().mean() > 0.5
    assert student.loss(walks).item() < 1e-8


def test_first_block_visits_noise_levels_of_its_own() -> None:
    usual, opening = usual_points(4), opening_points(4)
    assert (usual[0], usual[-1]) == (opening[0], opening[-1]) == (0, 16)
    assert set(usual) & set(opening) == {0, 16}


def test_encoder_windows_begin_at_whole_latent_frames() -> None:
    """Each later window gives what encoding from the last picture of its first latent frame gives."""

    class Causal:
        """Latent frame f is the sum of all pictures up to its last one."""

        def encode(self, pictures: Tensor) -> Tensor:
            latents = pictures.mean(dim=(1, 3, 4)).cumsum(1)[:, ::4]
            return torch.stack([latents, latents], dim=1)[..., None, None]

    zero, one = torch.zeros(1), torch.ones(1)
    causal: Any = Causal()
    whole = Encoder(causal, zero, one, None, 0, torch.float32)
    cut = Encoder(causal, zero, one, None, 0, torch.float32, window=6)
    pictures = torch.randint(0, 255, (2, 45, 3, 2, 2), dtype=torch.uint8)
    made = cut.latents(pictures)
    assert made.shape[2] == 12
    assert torch.allclose(made[:, :, :6], whole.latents(pictures[:, :21]))
    assert torch.allclose(made[:, :, 6:9], whole.latents(pictures[:, 12:33])[:, :, 3:])
    assert torch.allclose(made[:, :, 9:], whole.latents(pictures[:, 24:45])[:, :, 3:])
