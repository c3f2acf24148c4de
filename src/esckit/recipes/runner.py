"""The newcomer's file: how a recipe becomes a report, top to bottom.

A run lives in one folder. Each stage reads what earlier stages made, writes into a folder of its own name, and leaves
a record ``stages/<name>.json``; a stage that is done and unchanged is skipped, so the same command continues after a
stop.
"""

import json
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, assert_never

from esckit.conversation import Conversation, iterate_conversations, read_conversations, write_conversations
from esckit.decoding import Decoding
from esckit.errors import CorpusError
from esckit.files import write_json
from esckit.language_models.backbone import Backbone, default_device, seed_everything
from esckit.language_models.pocket import make_pocket_model, train_tokenizer
from esckit.measures import compare, read_predictions
from esckit.mining.inferential import Miner, draw_dialogues, fold_of, mine, mining_counts, reply_pool
from esckit.mining.pair_statistics import pair_statistics
from esckit.mining.pairs import check_pairs, kind_of, length_matched, lint_pairs, pairs_of, render_pairs
from esckit.progress import progress
from esckit.recipes.baselines import ask_baseline
from esckit.recipes.before import load_checked, split_of
from esckit.recipes.drift import moved
from esckit.recipes.folder import Run
from esckit.recipes.judged import SAMPLED, judge_pairs, judged_facts, no_pairs
from esckit.recipes.judges import judge_predictions
from esckit.recipes.planners import calibrate, read_calibration, store_replies, train_encoder_planner
from esckit.recipes.recipe import Recipe
from esckit.recipes.stages import (
    BaselineStage,
    CalibrateStage,
    EvaluateStage,
    JudgeStage,
    MineStage,
    PlannerStage,
    PredictStage,
    PreferenceStage,
    PretrainStage,
    RepliesStage,
    ReportStage,
    SftStage,
    Stage,
    SupporterStage,
)
from esckit.rendering import Example, past_strategies
from esckit.report import write_report
from esckit.strategy import TAXONOMIES
from esckit.supporters import Supporter, predict
from esckit.supporters.supporter import SupporterCard, save_supporter
from esckit.training.adapters import fresh_adapter, load_policy, open_adapter, save_adapter, save_policy
from esckit.training.preferences import PairDataset, PreferenceObjective, make_item, store_reference
from esckit.training.processes import from_main, is_main, join_processes, wait
from esckit.training.trainer import Trained
from esckit.training.training_options import TrainingOptions

__all__ = ["PAIRS", "TREES", "run"]

TREES: Final = "trees.jsonl"
"""What a mine stage writes: the training part's trees, grown."""

PAIRS: Final = "pairs.json"
"""What a mine stage says of its pairs (`mining.pair_statistics`)."""


def run(recipe: Recipe, out: Path, *, fresh: bool = False) -> "Run":
    """Carry out a recipe in a folder; continue where an earlier run of the same recipe stopped.

    Where a launcher started several processes, all train, and the first one does the rest and all writing.

    Args:
        recipe: the experiment.
        out: the run's folder.
        fresh: run changed stages (and all that read them) again instead of refusing.

    Raises:
        RunError: the folder holds a stage that was run with other settings, and ``fresh`` is not set.
        EsckitError: another run is at work in the folder; any stage's own.
    """
    join_processes()
    this = Run(recipe, out, load_checked(recipe))
    with this.alone():
        if not fresh:
            from_main(this.refuse_outdated)
        this.describe()
        for stage in recipe.stages:
            if not from_main(this.is_done, stage):
                started = time.monotonic()
                from_main(this.begin, stage)
                # All processes train; whatever else there is to do, the main one does while the others wait.
                takes_part = is_main() or isinstance(stage, TrainingOptions | MineStage)
                facts = carry_out(this, stage) if takes_part else {}
                wait()
                this.record(stage, state="done", facts=facts, seconds=round(time.monotonic() - started, 1))
            from_main(this.remove_checkpoints, stage)
    return this


def carry_out(this: "Run", stage: Stage) -> dict[str, Any]:
    """Carry out one stage; return what its record tells about it."""
    match stage:
        case PretrainStage():
            return pretrain(this, stage)
        case SftStage():
            return fine_tune(this, stage)
        case MineStage():
            return mine_preferences(this, stage)
        case PreferenceStage():
            return align(this, stage)
        case PlannerStage():
            return train_encoder_planner(this, stage)
        case CalibrateStage():
            return calibrate(this, stage)
        case RepliesStage():
            return store_replies(this, stage)
        case SupporterStage():
            return assemble(this, stage)
        case PredictStage():
            return predict_split(this, stage)
        case BaselineStage():
            return ask_baseline(this, stage, split_of(stage, this.corpus))
        case EvaluateStage():
            return measure(this, stage)
        case JudgeStage():
            return judge_predictions(this, stage)
        case ReportStage():
            return report(this)
        case _:
            assert_never(stage)


# -------------------------------------------------------------------------------------------------------------- stages


def pretrain(this: "Run", stage: PretrainStage) -> dict[str, Any]:
    """Make a tokenizer and a pocket backbone from the training part, and train every weight on both speakers' texts."""
    if this.recipe.model.path:
        this.count(stage, "skipped: model.path is used as it is")
        return {}
    tokenizer = train_tokenizer(this.corpus.train, this.recipe.model.vocabulary)
    seed_everything(this.seed(stage))
    model = make_pocket_model(this.recipe.model.pocket, tokenizer).to(default_device())
    renderer = this.renderer(Backbone(model, tokenizer, "pocket"))
    folder = this.folder / stage.name

    def examples(conversation: Conversation) -> list[Example]:
        return renderer.dialogue(conversation, past_strategies(conversation, stage.past_strategies))

    def save() -> None:
        model.save_pretrained(folder / "model")
        tokenizer.save_pretrained(folder / "model")

    dataset = this.tries(stage, stage, map(examples, this.corpus.train))
    valid = this.tries(stage, stage, map(examples, this.corpus.valid), count=False)
    trained = this.train(stage, stage, model, dataset, folder, save, valid=valid)
    return {"parameters": model.num_parameters(), "vocabulary": len(tokenizer), **_training_facts(trained)}


def fine_tune(this: "Run", stage: SftStage) -> dict[str, Any]:
    """Train a fresh LoRA adapter for one part on every labelled supporter turn of the training part's trunks."""
    return _fine_tune(this, stage, stage, this.corpus.train, this.folder / stage.name)


def _fine_tune(
    this: "Run", stage: SftStage | MineStage, sft: SftStage, conversations: list[Conversation], folder: Path
) -> dict[str, Any]:
    """Train as ``sft`` says on these conversations, on behalf of ``stage``, into ``folder/<part>``."""
    backbone = this.load_backbone()
    renderer = this.renderer(backbone)
    seed_everything(this.seed(stage))
    model = fresh_adapter(backbone.model, sft.lora, sft.part)

    def examples(conversation: Conversation) -> list[Example]:
        shown = past_strategies(conversation, sft.past_strategies)
        return renderer.examples(conversation, sft.part, shown, label_weight=sft.label_weight)

    dataset = this.tries(stage, sft, map(examples, conversations))
    valid = this.tries(stage, sft, map(examples, this.corpus.valid), count=False)
    trained = this.train(stage, sft, model, dataset, folder, lambda: save_adapter(model, folder, sft.part), valid=valid)
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {"trained_parameters": parameters, **_training_facts(trained)}


def mine_preferences(this: "Run", stage: MineStage) -> dict[str, Any]:
    """Sample a trained part on the training part's contexts, and keep preferences for gold in the trees.

    Under the rule ``judged`` all is sampled first, then judged (`recipes.judged`).
    """
    sft = this.recipe.sft_of(stage.model)
    drawn = draw_dialogues(this.corpus.train, stage.dialogues, this.recipe.seed)
    source = "random" if stage.rule == "random" else stage.model  # then no model said what is mined

    def folder_of(fold: int) -> Path:
        return this.folder / stage.name / f"fold-{fold}" if stage.folds > 1 else this.folder / stage.model

    for fold in range(stage.folds if stage.folds > 1 else 0):  # all first: here, other processes take part
        held_out = {each.id for i, each in enumerate(drawn) if fold_of(i, len(drawn), stage.folds) == fold}
        others = [conversation for conversation in this.corpus.train if conversation.id not in held_out]
        if not from_main((folder_of(fold) / "events.json").exists):
            _fine_tune(this, stage, sft, others, folder_of(fold))
            if is_main():  # of folds before a stop too
                write_json(folder_of(fold) / "events.json", this.events.pop(stage.name, {}))
    if not is_main():
        return {}

    trees = this.folder / stage.name / TREES
    judged = stage.rule == "judged"
    mined = trees.with_name(SAMPLED) if judged else trees
    if not mined.exists():  # a stop may have come after it
        _sample(this, stage, drawn, sft, source, folder_of, mined)
    counts = judge_pairs(this, stage, mined, trees) if judged else mining_counts(read_conversations(mined), source)
    for event in ("equal to gold", "sampled twice", "empty", "cut at max_new_tokens"):
        this.count(stage, event, counts[event])
    for path in sorted((this.folder / stage.name).glob("fold-*/events.json")):
        for event, number in json.loads(path.read_text(encoding="utf-8")).items():
            this.count(stage, event, number)
    write_json(trees.with_name(PAIRS), pair_statistics(iterate_conversations(trees)))
    kept = counts["pairs"] / counts["sampled"] if counts["sampled"] else 0.0
    facts = {"turns": counts["turns"], "sampled": counts["sampled"], "pairs": counts["pairs"], "kept": round(kept, 4)}
    return {**facts, **judged_facts(counts)} if judged else facts


def _sample(
    this: "Run",
    stage: MineStage,
    drawn: list[Conversation],
    sft: SftStage,
    source: str,
    folder_of: Callable[[int], Path],
    out: Path,
) -> None:
    """Mine with the model of each fold, in whose folder its adapter is; a planner that is judged is worded, too."""

    @lru_cache(maxsize=1)  # folds come in order
    def miner_of(fold: int) -> Miner:
        backbone = this.load_backbone()
        model = open_adapter(backbone, folder_of(fold), sft.part)
        if stage.wording:
            model.load_adapter(this.folder / stage.wording / "generator", adapter_name="generator")
        pool = reply_pool(this.corpus.train)
        return Miner(sft.part, model.eval(), this.renderer(backbone), source, stage, pool, stage.wording)

    mine(
        miner_of,
        drawn,
        out,
        source=source,
        folds=stage.folds,
        shown=lambda conversation: past_strategies(conversation, sft.past_strategies),
        seed=this.seed(stage),
        key=this.fingerprint(stage),
        title=stage.name,
    )


def align(this: "Run", stage: PreferenceStage) -> dict[str, Any]:
    """Train a part on its preferences, starting from the model after SFT, which is the reference."""
    sft, folder, start = this.recipe.sft_of(stage.start), this.folder / stage.name, this.folder / stage.start
    mined = pairs_of(read_conversations(this.folder / stage.pairs / TREES), sft.part)
    wanted = [pair for pair in mined if stage.kinds is None or kind_of(pair) in stage.kinds]
    if not wanted:
        raise CorpusError(no_pairs(this.recipe, stage, len(mined)))
    pairs = check_pairs(wanted, drop=stage.drop_faulty)
    pairs = length_matched(pairs, this.seed(stage)) if stage.length_matched else pairs
    this.count(stage, "pairs left out", len(mined) - len(pairs))

    seed_everything(this.seed(stage))
    quantisation = this.recipe.model.quantisation
    backbone, policy = load_policy(this.backbone_source, start, sft.part, stage.reference, stage.lora, quantisation)
    renderer = this.renderer(backbone)

    def shown(conversation: Conversation) -> dict[str, str]:
        return past_strategies(conversation, sft.past_strategies)

    rendered = render_pairs(pairs, renderer, sft.part, shown)
    items = [make_item(own, stage.max_tokens_per_row, mismatched=stage.loss == "kto") for own in rendered]
    this.count_cuts(stage, (side for own in rendered for pair in own for side in pair), (i.tries for i in items))
    dataset = PairDataset(items)
    if stage.reference == "stored" and stage.needs_reference:
        with progress(f"{stage.name} reference", len(items)) as bar:
            dataset = store_reference(policy.model, dataset, stage, bar.advance)
    trained = this.train(
        stage,
        stage,
        policy.model,
        dataset,
        folder,
        lambda: save_policy(policy, this.backbone_source, start, folder, sft.part, stage),
        objective=PreferenceObjective(stage, policy.reference),
    )
    report = lint_pairs(pairs)
    return {**report._asdict(), **_training_facts(trained), **moved(policy, renderer, sft, this.corpus.valid)}


def assemble(this: "Run", stage: SupporterStage) -> dict[str, Any]:
    """Put the parts and their base into one folder that `Supporter.load` reads; a pocket base travels along."""
    adapters = this.recipe.adapters_of(stage)
    parts = {part: this.folder / name / (part if part in adapters else "") for part, name in stage.parts.items()}
    about: dict[str, Any] = {"past_strategies": stage.past_strategies, "taxonomy": this.taxonomy}
    base = None
    if adapters:
        backbone = this.load_backbone()
        about |= {"base": this.backbone_source, "base_hash": backbone.weights_hash}
        about |= {"max_context": this.max_context(backbone), "layout": this.recipe.model.layout}
        about |= {"quantisation": this.recipe.model.quantisation}
        base = None if this.recipe.model.path else Path(this.backbone_source)
    if "generator" not in adapters and stage.generator:
        about["generator"] = "retrieval"
    elif not stage.generator and not stage.coupled:
        about["generator"] = "none"
    if stage.planner and "planner" not in adapters:
        about |= {"planner": "encoder", "calibrated": stage.calibrated}
    else:
        about["past_strategies"] = this.recipe.sft_of(next(iter(adapters.values()))).past_strategies
    card = SupporterCard(kind="coupled" if stage.coupled else "decoupled", **about)
    save_supporter(this.folder / stage.name, card, parts, base)
    return {"kind": card.kind, "past_strategies": card.past_strategies}


def predict_split(this: "Run", stage: PredictStage) -> dict[str, Any]:
    """Predict every labelled supporter turn of a split."""
    split = split_of(stage, this.corpus)
    conversations: list[Conversation] = getattr(this.corpus, split)
    folder = this.folder / stage.name
    rows = predict(
        Supporter.load(this.folder / stage.supporter),
        conversations,
        folder / "predictions.jsonl",
        seed=this.seed(stage),
        planning=Decoding(**stage.planning.model_dump()),
        wording=Decoding(**stage.wording.model_dump()),
        past=stage.past_strategies,
        given_gold=stage.strategies == "gold",
        calibration=read_calibration(this, stage),
        title=stage.name,
    )
    write_conversations(folder / "conversations.jsonl", conversations)
    predictions = read_predictions(folder / "predictions.jsonl", TAXONOMIES[this.taxonomy])
    this.count(stage, "replies cut at max_new_tokens", sum(row.finish == "length" for row in predictions))
    return {"split": split, "turns": rows, "dialogues": len(conversations)}


def measure(this: "Run", stage: EvaluateStage) -> dict[str, Any]:
    """Evaluate predictions files and test every pair of them; definitions in docs/measures.md."""
    taxonomy = TAXONOMIES[this.taxonomy]
    files = {name: read_predictions(this.folder / name / "predictions.jsonl", taxonomy) for name in stage.predictions}
    for name, rows in files.items():
        unparsed = [row for row in rows if row.predicted_strategy is None and "strategy_given" not in row.extra]
        this.count(stage, f"{name}: unparsed strategies", len(unparsed))
    evaluation = compare(files, taxonomy, seed=this.seed(stage), resamples=stage.resamples)
    write_json(this.folder / stage.name / "evaluation.json", evaluation)
    return {}


def report(this: "Run") -> dict[str, Any]:
    """Write report.html from the folder."""
    write_report(this.folder)
    return {}


def _training_facts(trained: Trained) -> dict[str, Any]:
    return {"steps": trained.steps, "scored_tokens": trained.scored_tokens, "tokens_read": trained.nodes}
