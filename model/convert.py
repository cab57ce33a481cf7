"""Any checkpoint to a diffusers folder that pip's diffusers opens too."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from diffusers import FlowMatchEulerDiscreteScheduler

from model.schedule import clip_scheduler
from model.source import INDEX, TRANSFORMER, CheckpointError, Source, one_line, read_json, resolve
from model.stream_config import FILE_NAME, StreamConfig
from model.weights import Kind, kind_of, read_transformer

SHARD_SIZE = "5GB"


def convert(src: str | Path | Source, dst: str | Path, num_attention_heads: int | None = None) -> Path:
    """Write a checkpoint as a diffusers folder: transformer, scheduler, `model_index.json`, and the parts beside it.

    The weights keep their dtype. A `.pth` gets its config from its weights' shapes; a folder of the authors' causal
    class becomes one of diffusers' own. A LongSANA checkpoint gets a `stream.json`, so that it stays known as such.
    `dst` appears only when it is whole.

    Args:
        src: a `.pth`, folder or hub id.
        dst: the folder to write; must not exist, or be empty.
        num_attention_heads: of a `.pth`; None takes width / 112.

    Returns:
        `dst`.

    Raises:
        CheckpointError: what is wrong with `src`, or `dst` is taken or can't be written.
    """
    source, target = resolve(src), Path(dst)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CheckpointError(f"{target}: is there already")
    transformer, tensors = read_transformer(source, num_attention_heads)
    transformer.load_state_dict(tensors, assign=True)
    kind = kind_of(source)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
            whole = Path(scratch) / target.name
            transformer.save_pretrained(whole / TRANSFORMER, max_shard_size=SHARD_SIZE)
            _write_rest(source, whole, kind)
            if target.exists():
                target.rmdir()
            whole.rename(target)
    except OSError as error:
        raise CheckpointError(f"{target}: {one_line(error)}") from error
    return target


def _write_rest(source: Source, target: Path, kind: Kind) -> None:
    for part in source.parts:
        shutil.copytree(source.folder / part, target / part)
    if (source.folder / FILE_NAME).is_file():
        shutil.copy2(source.folder / FILE_NAME, target / FILE_NAME)
    elif kind is Kind.LONGSANA:
        (target / FILE_NAME).write_text(json.dumps(StreamConfig().to_dict(), indent=1) + "\n", encoding="utf-8")
    if (source.folder / "scheduler").is_dir():
        shutil.copytree(source.folder / "scheduler", target / "scheduler")
    elif kind is Kind.CLIP:
        clip_scheduler().save_pretrained(target / "scheduler")
    else:
        FlowMatchEulerDiscreteScheduler(shift=StreamConfig.load(target).shift).save_pretrained(target / "scheduler")
    named = read_json(source.folder / INDEX) if (source.folder / INDEX).is_file() else {}
    index = {part: named.get(part) or _class_of(target, part) for part in source.parts}
    index[TRANSFORMER] = ["diffusers", "SanaVideoTransformer3DModel"]
    index["scheduler"] = _class_of(target, "scheduler")
    index = {"_class_name": "SanaVideoPipeline", **index}
    (target / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _class_of(folder: Path, part: str) -> list[str]:
    """Library and class of a part, as `model_index.json` names them."""
    if part == "tokenizer":
        return ["transformers", "PreTrainedTokenizerFast"]
    if part == "text_encoder":
        return ["transformers", "Gemma2Model"]
    file = "scheduler_config.json" if part == "scheduler" else "config.json"
    return ["diffusers", str(read_json(folder / part / file).get("_class_name"))]
