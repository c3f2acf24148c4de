"""The loop: planned batches, a loss that does not care how they are grouped, checkpoints that continue exactly."""

import os
import shutil
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import TrainingArguments

from esckit.errors import EsckitError
from esckit.files import write_json
from esckit.language_models.token_tree import build_tries
from esckit.rendering import Example, Part
from esckit.training.batches import TrieDataset, in_passes, plan_batches
from esckit.training.checkpoints import latest_checkpoint
from esckit.training.trainer import Likelihood, Trained, TrieTrainer, _say_slow, mean_loss, train
from esckit.training.training_options import TrainingOptions
from tests.tiny import starter_dialogues, tiny_model, tiny_renderer, with_lora
from tests.tolerance import tolerance
from tests.training.step import Step, one_step

MakeModel = Callable[[], Any]


@cache
def rendered(part: Part = "generator", count: int = 4) -> tuple[tuple[Example, ...], ...]:
    """The targets of the first dialogues of the starter corpus, two each."""
    renderer = tiny_renderer()
    return tuple(tuple(renderer.examples(c, part, {})[:2]) for c in starter_dialogues(count, 6))


def dataset(conversations: Sequence[Sequence[Example]]) -> TrieDataset:
    return TrieDataset(build_tries(list(examples)) for examples in conversations)


def options(**changes: Any) -> TrainingOptions:
    return TrainingOptions(**{"epochs": 2, "batch_size": 2, "learning_rate": 1e-2, "warmup": 0.2, **changes})


def full() -> Any:
    return tiny_model(seed=1)


def planner_adapter() -> Any:
    return with_lora(tiny_model(seed=1), "planner", seed=2)


MODELS: Final[dict[str, MakeModel]] = {"every weight": full, "an adapter": planner_adapter}


# ------------------------------------------------------------------------------------------------------------- batches


@settings(deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=30), st.integers(1, 40), st.integers(1, 3), st.integers(0, 99))
def test_batches_take_every_conversation_once_an_epoch(counts: list[int], size: int, epochs: int, seed: int) -> None:
    plan = plan_batches(counts, size, epochs, seed)
    assert len(plan) == epochs
    for batches in plan:
        assert sorted(index for batch in batches for index in batch) == list(range(len(counts)))
        for number, batch in enumerate(batches):
            targets = [counts[index] for index in batch]
            assert sum(targets[:-1]) < size, "one conversation too many at most"
            assert sum(targets) >= size or number == len(batches) - 1, "only the last may fall short"
    assert plan == plan_batches(counts, size, epochs, seed)
    assert plan_batches(counts, size, epochs + 1, seed)[:epochs] == plan, "an epoch does not depend on how many follow"


def test_epochs_and_seeds_shuffle_differently() -> None:
    one, other = plan_batches([1] * 50, 7, 2, 0)
    assert one != other
    assert plan_batches([1] * 50, 7, 1, 1) != [one]


def test_a_conversation_without_targets_is_left_out() -> None:
    conversations = dataset([rendered()[0], (), rendered()[1]])
    assert len(conversations) == 2
    assert conversations.counts() == [2, 2]


# ---------------------------------------------------------------------------------------------------------------- loss


def plain_step(model: Any) -> Step:
    """The same step by hand: mean over all target tokens of all conversations, every sequence read alone."""
    examples = [example for examples in rendered() for example in examples]
    total = torch.zeros(())
    for example in examples:
        ids = torch.tensor([[*example.context, *example.given, *example.scored]])
        start = ids.shape[1] - len(example.scored)
        logits = model(input_ids=ids).logits[0, start - 1 : -1]
        total = total + torch.nn.functional.cross_entropy(logits, ids[0, start:], reduction="sum")
    loss = total / sum(len(example.scored) for example in examples)
    torch.autograd.backward(loss)
    return Step(
        {"loss": float(loss.detach())}, {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    )


@pytest.mark.parametrize("passes", [1, 2, 3, 4, 32])
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
def test_loss_and_gradients_do_not_depend_on_grouping_or_accumulation(
    make: MakeModel, passes: int, tmp_path: Path
) -> None:
    step = one_step(make(), dataset(rendered()), Likelihood(), [2, 0, 3, 1], tmp_path, passes=passes)
    wanted = plain_step(make())
    assert step.logged == pytest.approx(wanted.logged, rel=tolerance())
    assert step.gradients.keys() == wanted.gradients.keys()
    for name, gradient in wanted.gradients.items():
        assert float((step.gradients[name] - gradient).norm() / gradient.norm()) < 1e-4, name


def test_a_batch_in_several_forward_passes_is_the_same_step(tmp_path: Path) -> None:
    step = one_step(full(), dataset(rendered()), Likelihood(), [0, 1, 2, 3], tmp_path, max_tokens=300)
    wanted = plain_step(full())
    assert step.logged == pytest.approx(wanted.logged, rel=tolerance())
    for name, gradient in wanted.gradients.items():
        assert float((step.gradients[name] - gradient).norm() / gradient.norm()) < 1e-4, name


def test_the_mean_loss_is_over_tokens_and_leaves_the_model_as_it_was() -> None:
    model = full().train()
    wanted = plain_step(full()).logged["loss"]
    for batch_size in (1, 4, 100):
        assert mean_loss(model, dataset(rendered()), batch_size) == pytest.approx(wanted, rel=tolerance())
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_divided_rows_change_no_loss() -> None:
    together, divided = (
        TrieDataset(build_tries(list(examples), most) for examples in rendered()) for most in (None, 180)
    )
    assert max(map(len, divided.items)) > 1
    assert divided.counts() == together.counts()
    assert mean_loss(full(), divided) == pytest.approx(mean_loss(full(), together), rel=tolerance())


def test_a_loss_that_is_not_finite_stops_at_its_step(tmp_path: Path) -> None:
    model = full()
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    with pytest.raises(EsckitError) as error:
        train(model, dataset(rendered()), options(), folder=tmp_path, title="test", seed=0)
    assert str(error.value) == (
        "test stopped, its loss is nan at step 1: lower its learning_rate, or check the weights that it starts from."
    )
    with pytest.raises(EsckitError, match=r"^test stopped, its loss is (nan|inf) at step [2-8]: lower its learning_r"):
        train(full(), dataset(rendered()), options(learning_rate=1e30), folder=tmp_path, title="test", seed=0)


@pytest.mark.parametrize(
    ("valid", "told"),
    [(False, "its model is ruined after step 1, the last"), (True, "its valid_loss is nan after ste")],
)
def test_a_last_step_that_ruins_the_model_is_noticed(valid: bool, told: str, tmp_path: Path) -> None:
    once, rows = options(learning_rate=1e30, epochs=1, batch_size=10**6, warmup=0), dataset(rendered())
    with pytest.raises(EsckitError, match=f"^test stopped, {told}"):
        train(full(), rows, once, folder=tmp_path, title="test", seed=0, valid=rows if valid else None)


def test_no_checkpoint_is_made_of_a_ruined_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrieTrainer, "compute_loss", ruin)
    with pytest.raises(EsckitError, match="stopped"):
        train(full(), dataset(rendered()), options(checkpoint_seconds=0), folder=tmp_path, title="test", seed=0)
    assert latest_checkpoint(tmp_path) is None


def ruin(trainer: TrieTrainer, model: Any, inputs: dict[str, Any], *_: Any, **__: Any) -> Tensor:
    """A finite loss whose gradient is not: weights that are none after one step."""
    weight = model.model.norm.weight[0]
    loss: Tensor = (weight - weight.detach()).sqrt()
    return loss


# ----------------------------------------------------------------------------------------------------------------- run


class Run(NamedTuple):
    """A finished run: what it told, its trained weights, and how often the model read a batch."""

    trained: Trained
    weights: dict[str, Tensor]
    passes: int


class Stopped(BaseException):
    """Stands for Ctrl-C; KeyboardInterrupt itself would end the test session if it got away."""


class Counter:
    """Counts the calls of compute_loss, and stops the run at one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.passes, self.stop_at = 0, 0
        compute_loss = TrieTrainer.compute_loss

        def counted(trainer: TrieTrainer, *given: Any, **more: Any) -> Tensor:
            self.passes += 1
            if self.passes == self.stop_at:
                raise Stopped
            return compute_loss(trainer, *given, **more)

        monkeypatch.setattr(TrieTrainer, "compute_loss", counted)

    def start(self, stop_at: int = 0) -> None:
        self.passes, self.stop_at = 0, stop_at


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Counter:
    return Counter(monkeypatch)


def run(model: Any, folder: Path, counter: Counter, *, stop_at: int = 0, **changes: Any) -> Run:
    """Train four conversations for two epochs, a step each."""
    counter.start(stop_at)
    trained = train(
        model,
        dataset(rendered()),
        options(**{"checkpoint_seconds": 0, **changes}),
        folder=folder,
        title="test",
        seed=5,
        valid=dataset(rendered("planner", 1)),
    )
    weights = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    return Run(trained, weights, counter.passes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """A run of each model that nothing stopped."""
    place = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patched:
        counter = Counter(patched)
        return {name: run(make(), place / name, counter) for name, make in MODELS.items()}


def assert_same(one: Run, other: Run) -> None:
    """To the last bit."""
    assert one.trained == other.trained
    assert one.weights.keys() == other.weights.keys()
    assert [name for name, weight in one.weights.items() if not torch.equal(weight, other.weights[name])] == []


def test_a_run_tells_its_curve_and_counts(tmp_path: Path, counter: Counter) -> None:
    model = full()
    before = mean_loss(model, dataset(rendered()))
    trained = run(model, tmp_path, counter, learning_rate=3e-3).trained
    assert trained.steps == counter.passes == 8
    assert trained.scored_tokens == sum(len(example.scored) for examples in rendered() for example in examples)
    assert trained.nodes == sum(len(trie) for tries in dataset(rendered()).items for trie in tries)
    losses = [row for row in trained.curve if "loss" in row]
    assert [(row["step"], row["epoch"]) for row in losses] == [(step, step / 4) for step in range(1, 9)]
    assert losses[0].keys() == {"step", "epoch", "loss", "learning_rate", "grad_norm"}
    assert losses[2]["learning_rate"] == pytest.approx(3e-3), "two of eight steps of warm-up"
    rates = [row["learning_rate"] for row in losses]
    assert rates[0] < rates[1] < max(rates) == rates[2]
    assert rates[2:] == sorted(rates[2:], reverse=True)
    valid = [row for row in trained.curve if "valid_loss" in row]
    assert [(row["step"], row["epoch"]) for row in valid] == [(4, 1), (8, 2)]
    assert valid[-1]["valid_loss"] == pytest.approx(mean_loss(model, dataset(rendered("planner", 1))), rel=tolerance())
    assert mean_loss(model, dataset(rendered())) < before
    assert not model.training


@pytest.mark.parametrize(("batch_size", "accumulation", "steps"), [(2, 2, 8), (3, 2, 4), (3, 32, 4), (6, 3, 4)])
def test_accumulation_divides_a_batch_and_changes_nothing_else(
    batch_size: int, accumulation: int, steps: int, tmp_path: Path, counter: Counter
) -> None:
    """Four conversations of two targets, twice."""
    once, divided = (
        run(full(), tmp_path / str(passes), counter, batch_size=batch_size, accumulation=passes, learning_rate=1e-3)
        for passes in (1, accumulation)
    )
    assert once.trained.steps == divided.trained.steps == steps
    assert (once.passes, divided.passes) == (steps, 8), "a conversation is not divided"
    assert [row.keys() for row in once.trained.curve] == [row.keys() for row in divided.trained.curve]
    assert [row["step"] for row in once.trained.curve] == [row["step"] for row in divided.trained.curve]
    for one, other in zip(once.trained.curve, divided.trained.curve, strict=True):
        assert one == pytest.approx(other, rel=2e-3)
    assert once.trained.curve[0] == pytest.approx(divided.trained.curve[0], rel=tolerance()), (
        "before rounding is amplified"
    )


@settings(deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=12), st.integers(1, 9))
def test_a_batch_is_divided_into_passes_as_even_as_its_conversations_are(sizes: list[int], passes: int) -> None:
    shares = [len(tensors["items"]) for tensors in in_passes(Lengths(sizes), range(len(sizes)), passes, None)]
    assert len(shares) == min(passes, len(sizes))
    assert sum(shares) == len(sizes)


class Lengths(TrieDataset):
    """Conversations of which only the length is known."""

    def __init__(self, lengths: Sequence[int]) -> None:
        super().__init__([])
        self.lengths = lengths

    def size(self, item: int) -> int:  # type: ignore[override]
        return self.lengths[item]

    @staticmethod
    def forwards(items: Sequence[Any], max_tokens: int | None) -> list[dict[str, Any]]:
        return [{"items": items}]


def test_only_what_requires_gradients_is_trained(tmp_path: Path, counter: Counter) -> None:
    model = planner_adapter()
    fixed = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    trained = {name: p.clone() for name, p in model.named_parameters() if p.requires_grad}
    run(model, tmp_path, counter)
    after = dict(model.named_parameters())
    assert all("lora_" in name for name in trained)
    assert all(torch.equal(after[name], weight) for name, weight in fixed.items())
    assert not any(torch.equal(after[name], weight) for name, weight in trained.items())


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
def test_gradient_checkpointing_changes_nothing(make: MakeModel, tmp_path: Path, counter: Counter) -> None:
    read: list[int] = []

    def counted_run(name: str, **changes: Any) -> Run:
        model = make()
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        read.append(0)

        def count(*_: object) -> None:
            read[-1] += 1

        base.model.layers[0].self_attn.register_forward_hook(count)
        return run(model, tmp_path / name, counter, **changes)

    plain, saving = counted_run("plain"), counted_run("saving", gradient_checkpointing=True)
    for row, other in zip(plain.trained.curve, saving.trained.curve, strict=True):
        assert row == pytest.approx(other, rel=1e-3)
    assert read[1] == read[0] + plain.passes, "the layer is read again in every backward pass"


def test_bfloat16_trains_under_autocast_and_keeps_float32_weights(
    whole: dict[str, Run], tmp_path: Path, counter: Counter
) -> None:
    model = full()
    half = run(model, tmp_path / "half", counter, precision="bfloat16")
    exact = whole["every weight"]
    assert {weight.dtype for weight in half.weights.values()} == {torch.float32}
    assert half.trained.curve[0]["loss"] != exact.trained.curve[0]["loss"]
    assert half.trained.curve[0]["loss"] == pytest.approx(exact.trained.curve[0]["loss"], rel=0.02)


@pytest.mark.skipif(torch.cuda.is_available(), reason="models are trained on the CUDA device")
@pytest.mark.parametrize("fast", [True, False])
def test_bfloat16_on_a_cpu_without_its_instructions_is_said_to_be_slow(
    fast: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("esckit.training.trainer.fast_bfloat16", lambda: fast)
    for precision, said in (("auto", ""), ("float32", ""), ("bfloat16", "" if fast else "many times slower")):
        _say_slow(TrainingOptions(precision=precision))
        assert said in (told := capsys.readouterr().err)
        assert bool(said) == bool(told)


# -------------------------------------------------------------------------------------------------------------- resume


@pytest.mark.parametrize("stop_at", [2, 5, 8])
@pytest.mark.parametrize("name", MODELS)
def test_a_stopped_run_continues_as_if_it_had_not_been_stopped(
    name: str, stop_at: int, whole: dict[str, Run], tmp_path: Path, counter: Counter
) -> None:
    make = MODELS[name]
    with pytest.raises(Stopped):
        run(make(), tmp_path / "stopped", counter, stop_at=stop_at)
    checkpoint = latest_checkpoint(tmp_path / "stopped")
    assert checkpoint == tmp_path / "stopped" / f"checkpoint-{stop_at - 1}"
    continued = run(make(), tmp_path / "stopped", counter)
    assert continued.passes == 8 - (stop_at - 1), "what was done is not done again"
    assert_same(continued, whole[name])


def test_what_continues_is_the_checkpoint_and_not_the_model_given(
    whole: dict[str, Run], tmp_path: Path, counter: Counter
) -> None:
    with pytest.raises(Stopped):
        run(planner_adapter(), tmp_path / "stopped", counter, stop_at=5)
    other_adapter = with_lora(tiny_model(seed=1), "planner", seed=77)
    assert_same(run(other_adapter, tmp_path / "stopped", counter), whole["an adapter"])


def test_a_run_under_accumulation_continues_too(tmp_path: Path, counter: Counter) -> None:
    """Two passes a step: the sixth is the third step's second."""
    settings = {"batch_size": 4, "accumulation": 2}
    wanted = run(full(), tmp_path / "whole", counter, **settings)
    assert (wanted.trained.steps, wanted.passes) == (4, 8)
    with pytest.raises(Stopped):
        run(full(), tmp_path / "stopped", counter, stop_at=6, **settings)
    assert latest_checkpoint(tmp_path / "stopped") == tmp_path / "stopped/checkpoint-2"
    continued = run(full(), tmp_path / "stopped", counter, **settings)
    assert continued.passes == 4
    assert_same(continued, wanted)


def test_a_run_stopped_twice_continues_twice(whole: dict[str, Run], tmp_path: Path, counter: Counter) -> None:
    for stop_at in (3, 4):
        with pytest.raises(Stopped):
            run(full(), tmp_path / "stopped", counter, stop_at=stop_at)
    assert_same(run(full(), tmp_path / "stopped", counter), whole["every weight"])


def test_the_curve_of_a_long_run_does_not_tell_where_it_was_stopped(
    tmp_path: Path, counter: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From 200 steps on, a point of the curve is a mean over several steps, and must not be cut by a checkpoint."""

    def every_third_step(**given: Any) -> TrainingArguments:
        return TrainingArguments(**{**given, "logging_steps": 3})

    monkeypatch.setattr("esckit.training.trainer.TrainingArguments", every_third_step)
    wanted = run(full(), tmp_path / "whole", counter)
    assert [row["step"] for row in wanted.trained.curve if "loss" in row] == [1, 3, 4, 6, 8]
    with pytest.raises(Stopped):
        run(full(), tmp_path / "stopped", counter, stop_at=6)
    continued = run(full(), tmp_path / "stopped", counter)
    assert continued.passes == 4
    assert_same(continued, wanted)


def test_a_checkpoint_without_its_mark_is_not_taken(whole: dict[str, Run], tmp_path: Path, counter: Counter) -> None:
    folder = tmp_path / "stopped"
    with pytest.raises(Stopped):
        run(full(), folder, counter, stop_at=5)
    assert sorted(path.name for path in folder.glob("checkpoint-*")) == ["checkpoint-3", "checkpoint-4"]
    (folder / "checkpoint-4/complete").unlink()
    assert latest_checkpoint(folder) == folder / "checkpoint-3"
    (folder / "checkpoint-4/model.safetensors").write_bytes(b"half a file")
    continued = run(full(), folder, counter)
    assert continued.passes == 5
    assert_same(continued, whole["every weight"])


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was stopped behind its fourth step: real checkpoints of the steps 3 and 4."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.MonkeyPatch.context() as patched, pytest.raises(Stopped):
        run(full(), folder, Counter(patched), stop_at=5)
    return folder


def files_of(checkpoint: Path) -> list[str]:
    return sorted(path.name for path in checkpoint.iterdir())


def test_a_checkpoint_that_lacks_anything_is_not_taken(stopped: Path, tmp_path: Path) -> None:
    names = files_of(stopped / "checkpoint-4")
    assert {"complete", "model.safetensors", "optimizer.pt", "rng_state.pth", "scheduler.pt"} < set(names)
    for name in names:
        for spoil in (Path.unlink, lambda path: os.truncate(path, path.stat().st_size // 2)):
            folder = shutil.copytree(stopped, tmp_path / "copy", dirs_exist_ok=True)
            assert latest_checkpoint(folder) == folder / "checkpoint-4"
            spoil(folder / "checkpoint-4" / name)
            assert latest_checkpoint(folder) == folder / "checkpoint-3", name


def test_what_is_left_of_a_checkpoint_goes_with_the_next_one(
    stopped: Path, whole: dict[str, Run], tmp_path: Path, counter: Counter
) -> None:
    folder = shutil.copytree(stopped, tmp_path / "run")
    (folder / "checkpoint-4/optimizer.pt").unlink()
    (folder / "checkpoint-4").rename(folder / "checkpoint-900")
    assert_same(run(full(), folder, counter), whole["every weight"])
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint-6", "checkpoint-7"]


def test_a_disk_that_fills_while_a_checkpoint_is_written_is_said_and_the_one_before_stands(
    whole: dict[str, Run], tmp_path: Path, counter: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is the system's own: whoever writes more into a file, in whatever language, is refused."""
    resource = pytest.importorskip("resource")
    save = TrieTrainer._save_optimizer_and_scheduler
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(trainer: TrieTrainer, output_dir: str) -> None:
        if trainer.state.global_step == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
        save(trainer, output_dir)

    with monkeypatch.context() as patched:
        patched.setattr(TrieTrainer, "_save_optimizer_and_scheduler", fill)
        try:
            with pytest.raises(EsckitError) as error:
                run(full(), tmp_path / "run", counter)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(error.value).startswith(f"{tmp_path / 'run/checkpoint-3'} cannot be written (")
    assert latest_checkpoint(tmp_path / "run") == tmp_path / "run/checkpoint-2"
    assert_same(run(full(), tmp_path / "run", counter), whole["every weight"])


def test_a_run_stopped_while_it_saves_continues_from_the_checkpoint_before(
    whole: dict[str, Run], tmp_path: Path, counter: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = TrieTrainer._save_optimizer_and_scheduler

    def stop_at_step_3(trainer: TrieTrainer, output_dir: str) -> None:
        if trainer.state.global_step == 3:
            raise Stopped
        save(trainer, output_dir)

    with monkeypatch.context() as patched:
        patched.setattr(TrieTrainer, "_save_optimizer_and_scheduler", stop_at_step_3)
        with pytest.raises(Stopped):
            run(full(), tmp_path / "stopped", counter)
    assert (tmp_path / "stopped/checkpoint-3/model.safetensors").exists()
    assert latest_checkpoint(tmp_path / "stopped") == tmp_path / "stopped/checkpoint-2"
    assert_same(run(full(), tmp_path / "stopped", counter), whole["every weight"])


def test_checkpoints_are_compared_by_number(tmp_path: Path) -> None:
    for name in ("checkpoint-9", "checkpoint-10", "checkpoint-100", "other-200"):
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / "complete", {})
    (tmp_path / "checkpoint-100/complete").unlink()
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    assert latest_checkpoint(tmp_path / "none") is None
