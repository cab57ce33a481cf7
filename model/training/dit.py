"""Train the starter's transformer: `python -m model.training.dit --stages short,long,distill --run RUN --out OUT`.

*short*: clips of two blocks, nearly half with a steer, so that the text is what counts. *long*: clips of many blocks,
often with a past that the net has made itself, rate to zero: this is what keeps an endless stream from drifting; part
of the steps stay short ones, since a subject that the past does not show is what is hard to draw. *distill*: few
Euler steps that land where many did. A piece may be one stage or several. RUN keeps the resumable state of all
stages, OUT gets the averaged weights of each in half precision. VAE and text encoder are read from --vae and --text.

With --gpus N each of so many processes has its own clips and GPU; the batch grows by as much.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.training import depthwise
from model.training.clips import PORTRAIT_SHARE, ClipKind, Encoder, Pool, latent_pool
from model.training.distill import Student, Teacher, Walks
from model.training.flow import Batch, BlockFlow, Net
from model.training.optim import Average, Optimisers, warm_flat_linear
from model.training.ranks import Ranks, spawn
from model.training.rollout import RollOut
from model.training.rows import initialise
from model.training.runs import Clock, load_state, pick_device, read_shards, save_state, say, write_shards
from model.training.text import MAX_TOKENS
from model.training.vae_parallel import VaeParallel

CONFIG: dict[str, Any] = {
    "in_channels": 16, "out_channels": 16, "num_attention_heads": 9, "attention_head_dim": 32, "num_layers": 8,
    "num_cross_attention_heads": 9, "cross_attention_head_dim": 32, "cross_attention_dim": 288,
    "caption_channels": 256, "mlp_ratio": 2.5, "patch_size": (1, 2, 2), "qk_norm": "rms_norm_across_heads",
}  # fmt: skip
BLOCK_FRAMES = 3
STATE = "dit.pt"


@dataclass(frozen=True)
class Part:
    """Clips of one kind in a stage.

    Attributes:
        kind: the clips.
        clips: clips a step, for 800 rows.
        start_clips: clips made before the first step.
        share: of the stage's steps.
        self_made: share of these steps whose past the net has made itself.
    """

    kind: ClipKind
    clips: int
    start_clips: int
    share: float = 1.0
    self_made: float = 0.0


@dataclass(frozen=True)
class Stage:
    """How one stage trains.

    Attributes:
        parts: what it draws from.
        copies: noisy copies of each clip (distillation: the passes).
        flat_until: progress at which the rate begins to fall.
        start: factor of the base rates; `end` is what the rate falls to.
    """

    parts: tuple[Part, ...]
    copies: int
    flat_until: float
    start: float
    end: float


SHORT = ClipKind(2, 2 * BLOCK_FRAMES, 0.5)
STAGES = {
    "short": Stage((Part(SHORT, 51, 768),), 2, 0.8, 1.0, 0.5),
    "long": Stage(
        (Part(ClipKind(9, 9 * BLOCK_FRAMES, 0.2), 10, 160, 0.55, self_made=0.5), Part(SHORT, 51, 768, 0.45)),
        2, 0.3, 0.8, 0.01,
    ),
    "distill": Stage((Part(ClipKind(8, 8 * BLOCK_FRAMES, 0.3), 6, 96),), 4, 0.3, 0.25, 0.01),
}  # fmt: skip
ROWS = 800
MOST_ROUNDS = 3
"""Of a self-made past, see `model.training.rollout`."""
APART = 7919
"""Between the seeds of ranks."""


def build_transformer(start: Path | None) -> Any:
    """Return a transformer of the starter's size: that of the diffusers folder `start`, or a fresh one, started near
    the identity."""
    from diffusers import SanaVideoTransformer3DModel

    if start is not None:
        return SanaVideoTransformer3DModel.from_pretrained(start, subfolder="transformer")
    net = SanaVideoTransformer3DModel(**CONFIG)
    initialise(net)
    return net


def load_encoder(
    vae_folder: Path, text_folder: Path, device: torch.device, dtype: torch.dtype, window: int | None
) -> Encoder:
    """Return the frozen VAE and tokenizer as an encoder of clips."""
    from diffusers import AutoencoderKLWan
    from transformers import AutoTokenizer

    config = json.loads((vae_folder / "vae.json").read_text())["config"]
    vae = AutoencoderKLWan(**config)
    vae.load_state_dict({name: tensor.float() for name, tensor in read_shards(vae_folder, "vae").items()})
    vae.to(device).requires_grad_(False)
    mean, std = (torch.tensor(config[key], device=device) for key in ("latents_mean", "latents_std"))
    tokenizer = AutoTokenizer.from_pretrained(text_folder / "tokenizer")
    return Encoder(VaeParallel(vae), mean, std, tokenizer, MAX_TOKENS, dtype, window)


class Training:
    """One stage of training: its net, optimisers, average, clips and clock."""

    def __init__(self, args: argparse.Namespace, ranks: Ranks, name: str, seconds: float) -> None:
        from transformers import Gemma2Model

        self.ranks, self.args, self.name, self.stage = ranks, args, name, STAGES[name]
        self.device = pick_device()
        cuda = self.device.type == "cuda"
        torch._dynamo.config.cache_size_limit = 64
        torch.backends.cudnn.benchmark = True
        self.net = Net(build_transformer(args.start), Gemma2Model.from_pretrained(args.text / "text_encoder"), cuda)
        self.net.to(self.device, torch.float32)
        self.step, self.steps_total, spent = 0, 0, 0.0
        self._named: dict[str, Tensor] = dict(self.net.named_parameters())
        ranks.share(self._named.values())
        self.average = Average(self._named, 0.997)
        self.optimisers = Optimisers(*self.net.split_parameters(), muon_lr=2e-3, adam_lr=1e-3)
        state = load_state(args.run / STATE, self.device)
        if state is not None:
            spent = self._restore(state)
        torch.manual_seed(1000 + self.steps_total + APART * ranks.rank)
        dtype = torch.bfloat16 if cuda else torch.float32
        encoder = load_encoder(args.vae, args.text, self.device, dtype, args.encoder_window)
        begin = time.monotonic()
        self._pools = {
            (part, portrait): self._pool(encoder, part, portrait)
            for part in self.stage.parts
            for portrait in (False, True)
        }
        took = time.monotonic() - begin
        made = sum(pool.made * part.kind.pictures for (part, _), pool in self._pools.items())
        self._say(f"dit: {self.clips_made} clips made in {took:.1f} s, {made / took:.0f} pictures/s")
        self._dice = random.Random(self.steps_total)  # the same for all ranks, so that none waits for another
        self.clock = Clock(seconds, args.stage_seconds, spent)

    def _pool(self, encoder: Encoder, part: Part, portrait: bool) -> Pool:
        args, turned = self.args, PORTRAIT_SHARE if portrait else 1 - PORTRAIT_SHARE
        start, share = int(part.start_clips * args.scale * turned), part.share * turned
        return latent_pool(
            part.kind, encoder, self.net.encode_text, chunk=args.pool_chunk, capacity=int(args.pool * share),
            start=max(args.pool_chunk, start), share=args.share * share,
            seed=1000 + self.steps_total + portrait + 2 * self.stage.parts.index(part) + APART * self.ranks.rank,
            device=self.device, portrait=portrait,
        )  # fmt: skip

    @property
    def clips_made(self) -> int:
        """Clips in the pools and those that have left them."""
        return sum(pool.made for pool in self._pools.values())

    def _restore(self, state: dict[str, Any]) -> float:
        """Take over the weights; counts and spent seconds only when the stage is the same."""
        same = state["stage"] == self.name
        self.steps_total = state["steps_total"]
        if same:
            self.net.load_state_dict(state["net"])
            self.average.tensors, self.average.steps = state["average"], state["steps_total"]
            self.optimisers.load_state_dict(state["optimisers"])
            self.step = state["step"]
            return float(state["spent"])
        # A new stage starts from the average, whose noise is lower.
        self.net.load_state_dict(state["average"], strict=True)
        self.average.tensors = {name: tensor.clone() for name, tensor in state["average"].items()}
        self._say(f"dit: from stage {state['stage']} after {self.steps_total} steps")
        return 0.0

    def _say(self, text: str) -> None:
        if self.ranks.first:
            say(text)

    def keep(self) -> None:
        """Save and export, by rank 0 alone."""
        if self.ranks.first:
            self.save()
            self.export()

    def save(self) -> None:
        """Write the resumable state."""
        state = {
            "net": self.net.state_dict(), "average": self.average.tensors, "stage": self.name,
            "optimisers": self.optimisers.state_dict(), "step": self.step, "steps_total": self.steps_total,
            "spent": self.clock.spent,
        }  # fmt: skip
        save_state(self.args.run / STATE, state)

    def export(self) -> None:
        """Write the averaged weights to --out."""
        groups: dict[str, dict[str, Tensor]] = {"transformer": {}, "text_encoder": {}}
        for name, tensor in self.average.tensors.items():
            group, _, rest = name.partition(".")
            groups[group][rest] = tensor
        for group, tensors in groups.items():
            write_shards(self.args.out / self.name, group, tensors)
        kept = {"stage": self.name, "steps": self.steps_total, "config": CONFIG}
        (self.args.out / self.name / "dit.json").write_text(json.dumps(kept))

    def draw(self, part: Part, clips: int) -> Batch:
        """Return random clips of a part, all of them upright or none."""
        return Batch(*self._pools[part, self._dice.random() < PORTRAIT_SHARE].draw(clips))

    def clips(self, part: Part) -> int:
        """Clips a step."""
        return max(1, int(part.clips * self.args.scale))

    def run(self) -> None:
        """Train until the clock is over, then save and export."""
        losses = self._distill_losses() if self.name == "distill" else self._flow_losses()
        stage, clock, pools = self.stage, self.clock, self._pools.values()
        next_save, shown = 60.0, [0.0, 0.0, 0.0]
        while True:
            over, progress, *due = self.ranks.agree([clock.over, clock.progress, *(pool.due for pool in pools)])
            if over:
                break
            loss = next(losses)
            loss.backward()
            self.ranks.mean_gradients(self.optimisers.parameters)
            factor = stage.start * warm_flat_linear(
                self.step, progress, warm_steps=80, flat_until=stage.flat_until, end=stage.end / stage.start
            )
            self.optimisers.step(factor)
            self.average.update(self._named)
            self.step, self.steps_total = self.step + 1, self.steps_total + 1
            shown = [shown[0] + 1, shown[1] + loss.detach(), shown[2]]
            if self.step % self.args.report == 0:
                now = clock.elapsed
                per_step = (now - shown[2]) / shown[0]
                self._say(f"dit {self.name}: step {self.step} {now:.0f} s, loss {float(shown[1]) / shown[0]:.4f}, "
                    f"{per_step * 1e3:.0f} ms a step, {self._tflops() / per_step:.0f} TFLOP/s, rate {factor:.3f}, "
                    f"clips {self.clips_made}")  # fmt: skip
                shown = [0.0, 0.0, now]
            for pool, wanted in zip(pools, due, strict=True):
                if wanted:
                    pool.add()
            if clock.elapsed > next_save:
                self.keep()
                next_save += 120.0
        self.keep()
        self.ranks.agree([0.0])  # The next stage begins with what rank 0 has saved.

    def _tflops(self) -> float:
        """TFLOP of a step of all ranks by its weights: 6 a weight and token."""
        weights = sum(p.numel() for p in self.net.transformer.transformer_blocks.parameters())
        return 6e-12 * weights * self.args.rows * 9 * 16 * self.ranks.count

    def _flow_losses(self) -> Any:
        flow = BlockFlow(self.net, self.stage.copies, self.args.rows, self.device)
        parts, shares = self.stage.parts, [part.share for part in self.stage.parts]
        while True:
            (part,) = self._dice.choices(parts, shares)
            batch = self.draw(part, self.clips(part))
            rounds = self._dice.randint(1, MOST_ROUNDS) if self._dice.random() < part.self_made else 0
            yield flow.loss(batch, self._roll_out(part)(batch, rounds) if rounds else None)

    def _roll_out(self, part: Part) -> RollOut:
        rows = self.clips(part) * (part.kind.frames - 1)
        return RollOut(self.net, rows + -rows % 8, self.device)

    def _distill_losses(self) -> Any:
        args, copies = self.args, 2 if self.args.guidance != 1.0 else 1
        (part,) = self.stage.parts
        frozen = copy.deepcopy(self.net)
        frozen.load_state_dict(self._teacher_weights())
        frozen.requires_grad_(False)
        walkers = max(1, args.rows // (copies * part.kind.frames))
        teacher = Teacher(frozen, args.passes, args.guidance, args.rows, self.device)
        student = Student(self.net, self.clips(part), args.passes, args.rows, self.device)
        self._say(f"dit distill: {walkers} clips a walk, {self.clips(part)} a step, guidance {args.guidance}, "
            f"{args.passes} passes")  # fmt: skip
        while True:
            batch = self.draw(part, walkers)
            walks: Walks | None = None
            for _ in range(2):
                walks = teacher.walk(batch, None if walks is None else walks.points[-1])
                for _ in range(args.student_steps):
                    yield student.loss(walks)

    def _teacher_weights(self) -> dict[str, Tensor]:
        """The average with which the stage began, kept beside the state so that a resumed piece has it too."""
        path = self.args.run / "teacher.pt"
        if self.ranks.first and (self.step == 0 or not path.exists()):
            save_state(path, {"net": self.average.tensors})
        self.ranks.agree([0.0])
        state = load_state(path, self.device)
        assert state is not None
        weights: dict[str, Tensor] = state["net"]
        return weights


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stages", required=True, help="comma-separated, of short, long, distill")
    parser.add_argument("--run", type=Path, required=True, help="folder of the resumable state")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights")
    parser.add_argument("--vae", type=Path, required=True, help="folder with vae.json and its shards")
    parser.add_argument("--text", type=Path, required=True, help="folder with tokenizer/ and text_encoder/")
    parser.add_argument("--start", type=Path, help="diffusers folder whose transformer to go on from")
    parser.add_argument("--seconds", default="400", help="limit of this piece, comma-separated, one a stage")
    parser.add_argument("--stage-seconds", type=float, help="planned length of all pieces of a single stage")
    parser.add_argument("--encoder-window", type=int, help="latent frames of the VAE's window, see clips.Encoder")
    parser.add_argument("--rows", type=int, default=ROWS, help="rows (latent frames) of a pass")
    parser.add_argument("--scale", type=float, default=1.0, help="factor of the clips a step, for small trials")
    parser.add_argument("--pool", type=int, default=6144, help="clips kept")
    parser.add_argument("--pool-chunk", type=int, default=32, help="clips rendered at a time")
    parser.add_argument("--share", type=float, default=0.18, help="share of the time spent on rendering")
    parser.add_argument("--passes", type=int, default=4, help="distill: passes of the sampler")
    parser.add_argument("--guidance", type=float, default=1.0, help="distill: the teacher's guidance")
    parser.add_argument("--student-steps", type=int, default=6, help="distill: steps a walk")
    parser.add_argument("--gpus", type=int, default=1, help="GPUs of this host")
    parser.add_argument("--plain", action="store_true", help="no Triton kernel, see model.training.depthwise")
    parser.add_argument("--report", type=int, default=50, help="steps between progress lines")
    args = parser.parse_args()
    stages, seconds = args.stages.split(","), args.seconds.split(",")
    if unknown := [name for name in stages if name not in STAGES]:
        parser.error(f"--stages: {', '.join(unknown)} is none of {', '.join(STAGES)}")
    if len(seconds) != len(stages):
        parser.error(f"--seconds: {len(seconds)} for {len(stages)} stages")
    args.plan = [(name, float(limit)) for name, limit in zip(stages, seconds, strict=True)]
    spawn(args.gpus, train, args)


def train(args: argparse.Namespace) -> None:
    """Train all stages as one rank."""
    depthwise.enable(not args.plain)
    args.out.mkdir(parents=True, exist_ok=True)
    ranks = Ranks()
    for name, seconds in args.plan:
        Training(args, ranks, name, seconds).run()
    ranks.close()


if __name__ == "__main__":
    main()
