"""The stop rule: of two policies whose replies stand on the disk, which is kept; no model takes part."""

import json
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from esckit.conversation import Conversation, write_conversations
from esckit.errors import CorpusError, RecipeError, RunError
from esckit.files import write_jsonl
from esckit.recipes.folder import RunFolder
from esckit.recipes.recipe import Recipe
from esckit.recipes.recipe_files import load_recipe
from esckit.recipes.runner import load_checked
from esckit.recipes.stages.keep import KeepStage
from tests.mining.self_refinement.players import judge
from tests.tiny import talk

DIALOGUES: Final = 8
GOLD: Final = "you could rest and then talk to them"
RECIPE: Final = """
format: 1
corpus: {{name: tree, train: {folder}/train.jsonl, valid: {folder}/valid.jsonl, test: {folder}/test.jsonl}}
model: {{pocket: 2m}}
stages:
  - {{stage: pretrain, name: pretrain}}
  - {{stage: sft, name: sft, part: {part}, past_strategies: hidden}}
  - {{stage: sft, name: other, part: planner, past_strategies: hidden}}
  - {{stage: refine, name: refined, model: sft, refined_by: people}}
  - {{stage: preference, name: dpo, start: sft, pairs: refined}}
  - {{stage: keep, name: kept, start: dpo, before: sft, {keys}}}
  - {{stage: supporter, name: evolved, {part}: kept{planner}}}
  - {{stage: predict, name: predict, supporter: evolved, split: test}}
"""


def dialogue(name: str, replies: int) -> Conversation:
    """With replies 1, 3, ..."""
    both: list[tuple[str, str] | tuple[str, str, str]] = [("seeker", "I failed."), ("supporter", GOLD, "Question")]
    return talk(*both * replies, conversation_id=name)


def recipe(folder: Path, keys: str, part: str = "coupled", *settings: str, replies: int = 1) -> Recipe:
    for part_of in ("train", "valid", "test"):
        talks = [dialogue(f"{part_of}-{number}", replies) for number in range(DIALOGUES)]
        write_conversations(folder / f"{part_of}.jsonl", talks)
    planner = ", planner: other" if part == "generator" else ""
    text = RECIPE.format(folder=folder, keys=keys, part=part, planner=planner)
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    return load_recipe(str(folder / "recipe.yaml"), settings)


class Case(NamedTuple):
    """Replies of both policies, a dialogue each; the words that they share with gold decide, of eight."""

    keys: str
    candidate: list[str]
    before: list[str]
    better: bool
    difference: float


def shares(*words: int) -> list[str]:
    """Replies of eight words, so many of them gold's: its F1 is that share."""
    return [" ".join([*GOLD.split()[:count], *"abcdefgh"[count:]]) for count in words]


F1: Final = "metric: f1_utterance"
SOME: Final = shares(*[4] * DIALOGUES)
MORE: Final = shares(6, 6, 6, 6, 5, 5, 5, 5)  # a quarter and an eighth more
LESS: Final = shares(2, 2, 2, 2, 3, 3, 3, 3)
MIXED: Final = shares(8, 8, 8, 0, 4, 4, 4, 5)  # three gain a half, one loses it, one gains an eighth

CASES: Final = {
    "better": Case(F1, MORE, SOME, better=True, difference=0.1875),
    "better by a bit": Case(f"{F1}, bar: point", MIXED, SOME, better=True, difference=0.140625),
    "not surely better": Case(F1, MIXED, SOME, better=False, difference=0.140625),
    "equal": Case(F1, SOME, SOME, better=False, difference=0),
    "equal is not above": Case(f"{F1}, bar: point", SOME, SOME, better=False, difference=0),
    "worse": Case(F1, LESS, SOME, better=False, difference=-0.1875),
    "two dialogues": Case(f"{F1}, dialogues: 2", shares(*[6] * DIALOGUES), SOME, better=True, difference=0.25),
}


def rows(said: list[str], strategy: str = "Question", replies: int = 1) -> list[dict[str, Any]]:
    """Predictions: a dialogue's replies are all the same."""
    return [
        {
            "conversation_id": f"valid-{number}",
            "turn_id": str(2 * place + 1),
            "gold_strategy": "Question",
            "predicted_strategy": strategy,
            "gold_text": GOLD,
            "predicted_text": reply,
        }
        for number, reply in enumerate(said)
        for place in range(replies)
    ]


def keep(folder: Path, loaded: Recipe, candidate: list[dict[str, Any]], before: list[dict[str, Any]]) -> dict[str, Any]:
    """The stage's work on replies that are there already, and adapters of a file each."""
    stage = loaded.named("kept")
    assert isinstance(stage, KeepStage)
    run = RunFolder(loaded, folder / "run", loaded.corpus.load())
    held_out = {tree.id for tree in stage._held_out(run)}
    for name, said in (("dpo", candidate), ("sft", before)):
        (run.folder / name / "coupled").mkdir(parents=True)
        (run.folder / name / "coupled/adapter.bin").write_text(name)
        write_jsonl(run.folder / f"kept/by-{name}.jsonl", [row for row in said if row["conversation_id"] in held_out])
    facts = stage.work(run)
    assert (run.folder / "kept/coupled/adapter.bin").read_text() == facts["kept"], "its adapter, to the byte"
    record = json.loads((run.folder / "kept/keep.json").read_text())
    assert (record["candidate"], record["before"], record["kept"]) == ("dpo", "sft", facts["kept"])
    assert record["dialogues"] == len(held_out)
    return {**record, "why": facts["why"]}


@pytest.mark.parametrize("name", CASES)
def test_which_policy_is_kept(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    loaded = recipe(tmp_path, case.keys)
    record = keep(tmp_path, loaded, rows(case.candidate), rows(case.before))
    low, high = record["interval"]
    assert record["better"] == case.better
    assert record["stopped"] == (not case.better)
    assert record["kept"] == ("dpo" if case.better else "sft")
    assert record["difference"] == pytest.approx(case.difference, abs=1e-6)
    assert record["values"]["candidate"] - record["values"]["before"] == pytest.approx(case.difference, abs=1e-5)
    assert low <= record["difference"] <= high
    assert case.better == ((record["difference"] if "point" in case.keys else low) > 0)
    assert record["why"].startswith(
        f"dpo {'is' if case.better else 'is not'} above sft by {record['measure']} (difference"
    )


def test_what_only_tells_keeps_the_candidate(tmp_path: Path) -> None:
    record = keep(tmp_path, recipe(tmp_path, f"{F1}, stops: false"), rows(LESS), rows(SOME))
    assert (record["better"], record["stops"], record["stopped"], record["kept"]) == (False, False, False, "dpo")


@pytest.mark.parametrize("metric", ["meteor", "bleu1", "rouge_l"])
def test_each_figure_of_text_decides(metric: str, tmp_path: Path) -> None:
    record = keep(tmp_path, recipe(tmp_path, f"metric: {metric}_utterance"), rows(MORE), rows(SOME))
    assert record["better"]


@pytest.mark.parametrize(
    ("metric", "candidate", "before", "better"),
    [
        ("accuracy", "Question", "Others", True),
        ("accuracy", "Others", "Question", False),
        ("q", "Question", "Others", True),
    ],
)
def test_strategies_decide(metric: str, candidate: str, before: str, *, better: bool, tmp_path: Path) -> None:
    record = keep(tmp_path, recipe(tmp_path, f"metric: {metric}"), rows(SOME, candidate), rows(SOME, before))
    assert (record["better"], record["measure"]) == (better, metric)


def test_of_patterns_less_is_better(tmp_path: Path) -> None:
    loaded = recipe(tmp_path, "metric: question_run", replies=3)
    telling, asking = (rows([said] * DIALOGUES, replies=3) for said in ("So it is.", "What now?"))
    record = keep(tmp_path, loaded, telling, asking)
    assert (record["better"], record["contexts"]) == (True, 3 * DIALOGUES)
    assert record["values"] == {"candidate": 0, "before": 1}
    assert (record["difference"], record["interval"]) == (1, [1, 1])


JUDGE: Final = "judge: {model: 'remote:a-judge', base_url: 'http://127.0.0.1:9/v1'}"


@pytest.mark.parametrize(
    ("bar", "words", "better", "values", "difference"),
    [
        ("lower", (8, 8, 8, 8, 8, 8, 8, 4), True, [0.875, 0], 0.875),
        ("lower", (8, 8, 8, 8, 4, 4, 2, 2), False, [0.5, 0.25], 0.25),
        ("point", (8, 8, 8, 8, 4, 4, 2, 2), True, [0.5, 0.25], 0.25),
        ("point", (8, 4, 4, 4, 4, 4, 4, 2), False, [0.125, 0.125], 0),
    ],
)
def test_a_judge_decides(
    bar: str,
    words: tuple[int, ...],
    better: bool,
    values: list[float],
    difference: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It likes words of gold's; equal replies are not asked about."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    by_rule = judge(lambda one, other: "A" if gold_words(one) > gold_words(other) else "B")
    monkeypatch.setattr("esckit.supporters.open_model.open_model", lambda options: by_rule)
    loaded = recipe(tmp_path, f"{JUDGE}, bar: {bar}")
    record = keep(tmp_path, loaded, rows(shares(*words)), rows(SOME))
    assert record["measure"] == "win rate by remote:a-judge"
    assert (record["better"], record["difference"]) == (better, difference)
    assert record["values"] == dict(zip(("candidate", "before"), values, strict=True))
    assert by_rule.asked.total() == 2 * len({*words} - {4}), "the same question is asked once"


def gold_words(reply: str) -> int:
    return len({*reply.split()} & {*GOLD.split()})


def test_an_annotator_decides(tmp_path: Path) -> None:
    record = keep(tmp_path, recipe(tmp_path, "judge: {model: embedded}"), rows(MORE), rows(SOME))
    assert record["measure"] == "no error, by annotator embedded"
    assert record["values"] is None
    assert -1 <= record["interval"][0] <= record["difference"] <= record["interval"][1] <= 1


# ------------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ("stops: true", "kept: needs one of metric (a figure of evaluate) and judge (a chat model, or embedded)"),
        (f"{F1}, judge: {{model: embedded}}", "kept: needs one of metric"),
        ("metric: rouge", "kept: there is no figure 'rouge' that is tested: use one of q, q_w, accuracy, b, bleu1_utt"),
        ("metric: bertscore_f1_utterance", "there is no figure 'bertscore_f1_utterance' that is tested"),
        (f"{F1}, bar: upper", "kept.bar: input should be 'lower' or 'point'"),
        (f"{F1}, dialogues: 0", "kept.dialogues: input should be greater than or equal to 1"),
        (f"{F1}, before: other", "stage 'kept' compares policies that began with different sft stages"),
        (f"{F1}, start: other, before: other", "stage 'kept' compares replies, and a planner has none"),
        (f"{F1}, start: sft", "stage 'kept' compares 'sft' with itself: name two stages"),
        (f"{F1}, start: refined", "stage 'kept' needs an earlier sft or preference or keep stage named 'refined'"),
        (f"{F1}, start: dpo-3", "'kept' needs an earlier sft or preference or keep stage named 'dpo-3'"),
        (f"{F1}, wording: {{beams: 2}}", "kept.wording"),
    ],
)
def test_wrong_keys_get_one_sentence(keys: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as error:
        recipe(tmp_path, keys)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_generators_are_compared_by_text(tmp_path: Path) -> None:
    assert recipe(tmp_path, F1, "generator")
    for metric in ("q", "one_strategy"):
        with pytest.raises(RecipeError, match=r"'kept' compares generators, which choose no strategies: take a figure"):
            recipe(tmp_path, f"metric: {metric}", "generator")


@pytest.mark.parametrize(
    ("setting", "error", "sentence"),
    [
        ("predict.split=valid", RunError, "stage 'predict' predicts valid, which keep stage 'kept' is fitted to"),
        ("kept.split=test", RunError, "stage 'predict' predicts test, which keep stage 'kept' is fitted to"),
        ("corpus.valid=null", CorpusError, "stage 'kept' decides on valid, which the corpus lacks: give it a file."),
    ],
)
def test_what_is_decided_on_is_not_measured(
    setting: str, error: type[Exception], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(error) as raised:
        load_checked(recipe(tmp_path, F1, "coupled", setting))
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_only_tells_fits_nothing(tmp_path: Path) -> None:
    load_checked(recipe(tmp_path, f"{F1}, stops: false", "coupled", "predict.split=valid"))
