"""A dry run: recipe, corpus and chat template are checked, memory is estimated; nothing is loaded or written."""

from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import torch

from esckit.corpora import Corpus
from esckit.errors import ModelError
from esckit.hub import code_allowed
from esckit.language_models.attention import TRIE_ERRORS, takes_no_attention, takes_no_trie
from esckit.language_models.backbone import check_source
from esckit.language_models.folders import adapter_base, check_folder
from esckit.language_models.pocket import make_pocket_model, train_tokenizer
from esckit.language_models.pretrained import is_empty, read_config, read_tokenizer
from esckit.recipes.folder import stage_seed
from esckit.recipes.memory_estimate import Kept, Memory, MetaModel
from esckit.recipes.recipe import Recipe
from esckit.recipes.runner import load_checked
from esckit.recipes.stage import TrainingStage
from esckit.rendering import Example, Renderer, supporter_turns
from esckit.strategy import ESCONV, TAXONOMIES
from esckit.training.batches import divide, in_passes, plan_batches
from esckit.training.training_options import LoraOptions, usual_rates

_TRIED: Final = 8
"""Longest batches whose forward passes are made: passes share prefixes, so the longest is not always the largest."""


def check(recipe: Recipe) -> list[str]:
    """Check everything that can be checked without weights; return what was found, in lines.

    Raises:
        EsckitError: what would stop the run: a corpus, a config, a chat template, a turn that does not fit.
    """
    with code_allowed(recipe.model.trust_remote_code):
        return _check(recipe)


def _check(recipe: Recipe) -> list[str]:
    corpus = load_checked(recipe)
    lines = [f"recipe: {recipe.title or 'untitled'}, {len(recipe.stages)} stages", _corpus_line(corpus)]
    trained = [stage for stage in recipe.stages if isinstance(stage, TrainingStage) and stage.trains(recipe)]
    if not trained:
        return [*lines, "model: no stage trains a language model, so there is no memory to estimate"]
    config, tokenizer = _read_backbone(recipe, corpus)
    if recipe.model.path:
        _try_trie(config, recipe.model.path)
    limit = min(recipe.model.max_context or 10**9, config.max_position_embeddings)
    renderer = None
    if tokenizer is not None:
        taxonomy = TAXONOMIES[str(corpus.train[0].taxonomy or ESCONV.name)]
        renderer = Renderer(tokenizer, taxonomy, max_context=limit, layout=recipe.model.layout)
    lines.append(_template_line(recipe, renderer))
    return [*lines, *_memory_lines(recipe, corpus, config, renderer, limit, trained)]


def _corpus_line(corpus: Corpus) -> str:
    told = (
        f"{name} {len(part):,} dialogues, {sum(len(supporter_turns(c)) for c in part):,} turns"
        for name, part in corpus.parts.items()
    )
    return f"corpus: {corpus.name}: {'; '.join(told)}"


def _template_line(recipe: Recipe, renderer: Renderer | None) -> str:
    if renderer is None:
        return (
            f"chat template: not checked, {recipe.model.path} has no tokenizer that can be read here; "
            "every token of a row counts as scored below, which is an upper bound"
        )
    return f"chat template: every context is the whole template up to the answer, layout {renderer.layout}"


def _read_backbone(recipe: Recipe, corpus: Corpus) -> tuple[Any, Any | None]:
    """The backbone's config, and its tokenizer where it can be had; a pocket one's is trained as the run would."""
    if recipe.model.path is None:
        tokenizer = train_tokenizer(corpus.train, recipe.model.vocabulary)
        with torch.device("meta"):
            return make_pocket_model(recipe.model.pocket, tokenizer).config, tokenizer
    source = recipe.model.path
    if Path(source).is_dir() and not adapter_base(source):
        check_folder(Path(source), weights=False)
    else:
        check_source(source)
    try:
        config, _ = read_config(source)
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")
        raise ModelError(
            f"the config of {source} cannot be read ({reason}): where the Hub cannot be reached, copy the model's "
            "folder (its config.json is enough for --check) and give it with --set model.path=FOLDER."
        ) from error
    try:
        tokenizer = read_tokenizer(source)
    except (OSError, ValueError):
        return config, None
    return config, None if is_empty(tokenizer) else tokenizer


def _try_trie(config: Any, source: str) -> None:
    """Give the model, without its weights, a mask and positions; loading it tries whether it heeds them."""
    try:
        MetaModel(config, torch.float32, None).activations(tokens=8)
    except KeyError as error:
        raise takes_no_attention(source, config) from error
    except TRIE_ERRORS as error:
        raise takes_no_trie(source, error) from error


def _memory_lines(
    recipe: Recipe, corpus: Corpus, config: Any, renderer: Renderer | None, limit: int, stages: list[TrainingStage]
) -> list[str]:
    """A line a training stage: what it needs on a GPU (bfloat16), part by part, and in all on the CPU (float32)."""
    four_bits = recipe.model.quantisation == "4bit"

    @lru_cache
    def model(lora: LoraOptions | None, dtype: torch.dtype) -> MetaModel:
        return MetaModel(config, dtype, lora, four_bits=four_bits)

    @lru_cache
    def targets_of(root: str) -> list[list[Example]]:
        stage = recipe.named(root)
        assert isinstance(stage, TrainingStage)
        assert renderer is not None
        return [row for row in (stage.targets(conversation, renderer) for conversation in corpus.train) if row]

    rows, trained = [], {}
    for stage in stages:
        lora = stage.trained_lora(recipe)
        bound = min(stage.max_tokens_per_row or limit, limit)
        kept = Kept(bound, bound)
        if renderer is not None and (own := targets_of(stage.root(recipe).name)):  # none where they are derived first
            kept = _largest(recipe, stage, own)
        gpu, cpu = (
            model(lora, dtype).memory(
                kept, checkpointing=stage.gradient_checkpointing, frozen_reference=stage.frozen_copy(recipe)
            )
            for dtype in (torch.bfloat16, torch.float32)
        )
        trained[stage.name] = model(lora, torch.bfloat16).trained
        rows.append(_row(stage.name, kept, gpu, None if four_bits else cpu))
    return [
        f"model: {config.architectures[0] if config.architectures else config.model_type}, "
        f"{model(None, torch.bfloat16).parameters:,} parameters{', 4-bit weights' if four_bits else ''}; "
        f"trained: {', '.join(f'{name} {count:,}' for name, count in trained.items())}",
        _rate_line(recipe, stages, model(None, torch.bfloat16).parameters),
        "memory of the largest forward and backward pass, GiB a process (docs/training.md says what is counted):",
        _row_of("stage", "tokens", "scored", "weights", "trained", "logits", "activ. *", "kept whole", "GPU", "CPU"),
        *rows,
        "trained: adapter, gradients, AdamW and a frozen reference; * with gradient checkpointing; GPU: bfloat16, "
        "CPU: float32, both as the stage says",
    ]


def _rate_line(recipe: Recipe, stages: list[TrainingStage], parameters: int) -> str:
    """The rate of each stage, and the usual one where another one is set."""
    rates, told = usual_rates(parameters), []
    for stage in stages:
        aligned = stage.root(recipe) is not stage
        usual = rates.whole if stage.trained_lora(recipe) is None else rates.preference if aligned else rates.sft
        rate = stage.learning_rate
        told.append(f"{stage.name} {rate or usual:g}{f' (set; usual {usual:g})' if rate not in (None, usual) else ''}")
    return f"learning rates, on a {rates.kind} backbone: {', '.join(told)}"


def _row(name: str, kept: Kept, gpu: Memory, cpu: Memory | None) -> str:
    figures = (gpu.weights, gpu.trained + gpu.reference, gpu.logits, gpu.checkpointed, gpu.whole, gpu.total)
    in_gib = [f"{value / 2**30:.2f}" for value in (*figures, *([cpu.total] if cpu else []))]
    return _row_of(name, f"{kept.tokens:,}", f"{kept.positions:,}", *in_gib, *([] if cpu else ["-"]))


def _row_of(name: str, *cells: str) -> str:
    return f"  {name:<16}" + "".join(f"{cell:>11}" for cell in cells)


def _largest(recipe: Recipe, stage: TrainingStage, rows: list[list[Example]]) -> Kept:
    """The largest forward pass among the longest batches that training will plan; ``rows`` are a conversation each."""
    counts = [len(targets) * max(1, stage.rejected_sides(recipe)) for targets in rows]
    lengths = [sum(len(e.context) + len(e.scored) for e in targets) for targets in rows]
    seed = stage_seed(recipe.seed, stage)
    batches = [batch for epoch in plan_batches(counts, stage.batch_size, stage.epochs, seed) for batch in epoch]

    def longest_pass(batch: list[int]) -> int:
        own = [lengths[index] for index in batch]
        return max(sum(own[i] for i in part) for part in divide(own, stage.accumulation))

    kept = []
    for batch in sorted(batches, key=longest_pass, reverse=True)[:_TRIED]:
        data: Any = stage.as_dataset(recipe, [rows[index] for index in batch])
        passes = in_passes(data, data.items, stage.accumulation, stage.max_tokens_per_row)
        kept += [Kept(tensors["input_ids"].numel(), int(tensors["keep"].sum())) for tensors in passes]
    return max(kept)
