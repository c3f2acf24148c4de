"""What a stage's result depends on: change any of it, and the run is refused as outdated."""

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from esckit.corpora import Corpus, load_corpus
from esckit.errors import RunError
from esckit.files import hash_file
from esckit.prompts import shipped_prompts
from esckit.recipes import folder as folder_module
from esckit.recipes import identity as identity_module
from esckit.recipes.folder import RunFolder
from esckit.recipes.identity import source_identity
from esckit.recipes.recipe_files import load_recipe
from esckit.recipes.runner import run
from esckit.recipes.stages.sft import SftStage
from tests.recipes.tiny import write_tiny
from tests.tiny import save_base

RECIPE: Final = """
format: 1
model: {{path: {folder}/base}}
annotator: {{model: {folder}/annotator, concurrency: 3}}
stages:
  - {{stage: sft, name: sft, part: generator, past_strategies: hidden}}
  - {{stage: mine, name: pairs, model: sft, rule: judged}}
  - {{stage: planner, name: planner, encoder: {folder}/encoder}}
  - {{stage: planner, name: linear, encoder: {folder}/encoder, model: linear}}
  - {{stage: replies, name: replies, encoder: {folder}/encoder}}
  - {{stage: supporter, name: supporter, planner: planner, generator: replies}}
  - {{stage: predict, name: predict, supporter: supporter}}
  - {{stage: baseline, name: named, method: base, model: {folder}/chat}}
  - {{stage: baseline, name: own, method: base}}
  - {{stage: evaluate, name: evaluate, predictions: [predict]}}
  - {{stage: judge, name: judge, predictions: [predict], model: {folder}/chat, failed: {folder}/failed.json,
      known_groups: true}}
  - {{stage: report, name: report}}
"""
EVERY: Final = {*("sft", "pairs", "planner", "linear", "replies", "supporter", "predict", "named", "own")} | {
    *("evaluate", "judge", "report")
}
BACKBONE: Final = {"sft", "pairs", "own", "report"}
ENCODER: Final = {"planner", "replies", "supporter", "predict", "evaluate", "judge", "report"}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Folders that look like models: nothing is loaded here."""
    for name in ("base", "chat", "annotator", "encoder"):
        (tmp_path / name).mkdir()
        for file in ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "README.md"):
            (tmp_path / name / file).write_text(f"{name} {file}", encoding="utf-8")
    (tmp_path / "failed.json").write_text("[]", encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(folder=tmp_path), encoding="utf-8")
    return tmp_path


def identities(place: Path, *settings: str, corpus: Corpus | None = None) -> dict[str, str]:
    recipe = load_recipe(str(place / "recipe.yaml"), settings)
    folder = RunFolder(recipe, place / "run", corpus or load_corpus("starter"))
    return {stage.name: folder.identity(stage) for stage in recipe.stages}


def changed(place: Path, change: Callable[[], Any]) -> set[str]:
    before = identities(place)
    assert before == identities(place)
    change()
    after = identities(place)
    return {name for name in before if before[name] != after[name]}


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"])
@pytest.mark.parametrize(
    ("folder", "stages"),
    [
        ("base", BACKBONE),
        ("chat", {"named", "judge", "report"}),
        ("annotator", {"pairs", "report"}),
        ("encoder", ENCODER),
    ],
)
def test_what_is_in_a_model_s_folder(folder: str, stages: set[str], file: str, place: Path) -> None:
    assert changed(place, lambda: (place / folder / file).write_text("another")) == stages
    assert changed(place, lambda: (place / folder / "README.md").write_text("another")) == set()


def test_the_dialogues(place: Path) -> None:
    corpus = load_corpus("starter")
    first = corpus.valid[0]
    other = replace(first, turns=[replace(first.turns[0], text="Another word."), *first.turns[1:]])
    before = identities(place, corpus=corpus)
    after = identities(place, corpus=replace(corpus, valid=[other, *corpus.valid[1:]]))
    assert {name for name in before if before[name] != after[name]} == EVERY


def test_a_file_that_a_stage_names(place: Path) -> None:
    assert changed(place, lambda: (place / "failed.json").write_text("[1]")) == {"judge", "report"}


@pytest.mark.parametrize(
    ("method", "module", "stages"),
    [
        ("support", folder_module, BACKBONE),
        ("decoupled_esc", folder_module, BACKBONE),
        ("baselines", identity_module, {"named", "own", "report"}),
        ("judge", identity_module, {"judge", "report"}),
        ("psychological_errors", identity_module, {"pairs", "report"}),
    ],
)
def test_the_shipped_prompts(
    method: str, module: Any, stages: set[str], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = module.shipped_prompts

    def other(wanted: str, languages: Collection[str]) -> dict[str, str]:
        texts = dict(shipped(wanted, languages))
        return {**texts, min(texts): "Another."} if wanted == method else texts

    assert changed(place, lambda: monkeypatch.setattr(module, "shipped_prompts", other)) == stages


def in_chinese(corpus: Corpus) -> Corpus:
    train, valid, test = ([replace(tree, language="zh") for tree in part] for part in corpus.parts.values())
    return replace(corpus, train=train, valid=valid, test=test)


@pytest.mark.parametrize(("method", "stages"), [("support", BACKBONE), ("judge", {"judge", "report"})])
def test_a_translation_counts_where_dialogues_are_in_its_language(
    method: str, stages: set[str], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    english = load_corpus("starter")
    chinese = in_chinese(english)
    before = [identities(place, corpus=corpus) for corpus in (english, chinese)]
    shipped = shipped_prompts

    def other(wanted: str, languages: Collection[str]) -> dict[str, str]:
        texts = shipped(wanted, languages)
        return {name: "另一种" if name.endswith(".zh") and wanted == method else text for name, text in texts.items()}

    for module in (folder_module, identity_module):
        monkeypatch.setattr(module, "shipped_prompts", other)
    after = [identities(place, corpus=corpus) for corpus in (english, chinese)]
    assert after[0] == before[0]
    assert {name for name in stages | EVERY if before[1][name] != after[1][name]} == stages


def test_a_kind_s_version(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raised = SftStage.version + 1
    assert changed(place, lambda: monkeypatch.setattr(SftStage, "version", raised)) == {"sft", "pairs", "report"}


def test_keys_and_seed(place: Path) -> None:
    before = identities(place)
    for setting, stages in {
        "seed=1": EVERY,
        "model.max_context=512": BACKBONE,
        "predict.past_strategies=hidden": {"predict", "evaluate", "judge", "report"},
        "annotator.concurrency=4": set[str](),
        "sft.checkpoint_seconds=1": set[str](),
        "named.budget_calls=4": set[str](),
        "named.concurrency=4": set[str](),
        "title=another": set[str](),
    }.items():
        after = identities(place, setting)
        assert {name for name in before if before[name] != after[name]} == stages, setting


def test_options_of_decoding_that_are_younger_count_where_they_are_set(place: Path) -> None:
    before = identities(place)
    recipe = load_recipe(str(place / "recipe.yaml"), [])
    for name in ("pairs", "predict", "named"):
        assert not {"top_k_tokens", "repetition_penalty"} & recipe.named(name).counting_keys.keys()
        assert "repetition_penalty" not in str(recipe.named(name).counting_keys)
    for setting, stages in {
        "pairs.top_k_tokens=50": {"pairs", "report"},
        "pairs.repetition_penalty=1.2": {"pairs", "report"},
        "predict.wording.top_k=50": {"predict", "evaluate", "judge", "report"},
        "predict.planning.top_k=2": {"predict", "evaluate", "judge", "report"},
        "named.decoding.repetition_penalty=1.2": {"named", "report"},
    }.items():
        after = identities(place, setting)
        assert {name for name in before if before[name] != after[name]} == stages, setting


def test_a_hub_s_revision_is_told_by_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    cache = tmp_path / "models--owner--name"
    (cache / "refs").mkdir(parents=True)
    for revision in ("a" * 40, "b" * 40):
        (cache / "snapshots" / revision).mkdir(parents=True)
        (cache / "snapshots" / revision / "config.json").write_text("{}")
        (cache / "refs/main").write_text(revision)
        assert source_identity("owner/name") == revision


def test_what_is_not_in_the_cache_is_asked_of_the_hub_and_a_url_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    asked = []

    def away(_: Any, name: str, **__: Any) -> None:
        asked.append(name)
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", away)
    assert [source_identity(each) for each in ("owner/name", "embedded", "remote:model")] == [None] * 3
    assert asked == ["owner/name"]


def test_a_folder_that_several_stages_name_is_read_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def hashed(path: Path) -> str:
        read.append(path)
        return hash_file(path)

    monkeypatch.setattr(identity_module, "hash_file", hashed)
    identities(place)
    assert len(read) == len(set(read)) > 0


def test_a_new_chat_template_is_another_run(tmp_path: Path) -> None:
    """It changes what is read, hence every score, and nothing else tells."""
    path = write_tiny(tmp_path)
    stage = "{stage: sft, name: sft, part: planner, past_strategies: hidden, epochs: 1, batch_size: 8, lora: {r: 2}}"
    head = path.read_text(encoding="utf-8").split("stages:")[0]
    path.write_text(f"{head}stages:\n  - {stage}\n", encoding="utf-8")
    recipe = load_recipe(str(path), [f"model.path={save_base(tmp_path / 'base')}"])
    run(recipe, tmp_path / "run")
    run(recipe, tmp_path / "run")
    template = tmp_path / "base/chat_template.jinja"
    template.write_text(template.read_text(encoding="utf-8").replace("<|im_end|>", " <|im_end|>"), encoding="utf-8")
    with pytest.raises(RunError, match=r"stage 'sft' in .* was run with other settings, inputs, models or dialogues"):
        run(recipe, tmp_path / "run")
