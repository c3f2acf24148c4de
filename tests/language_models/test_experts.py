"""Groups of experts compute equation 6, in value and in gradient, alone, on the trie, and while replies are written.

The reference is equation 6 as it is printed: a token and an expert at a time, softmax of a linear map of an embedding.
"""

import copy
from collections.abc import Sequence
from itertools import product
from typing import Any, Final

import pytest
import torch
from peft import get_peft_model
from torch import Tensor, nn

from esckit.decoding import Decoding
from esckit.errors import ModelError
from esckit.language_models import generation
from esckit.language_models.experts import ExpertsConfig, ExpertsLinear
from esckit.language_models.generation import generate_ids
from esckit.language_models.token_tree import TokenTrie, build_tries
from esckit.rendering import Example, PastStrategies
from esckit.training.adapters import fresh_experts
from esckit.training.training_options import ExpertsOptions, LoraOptions
from tests.language_models.test_exactness import ARCHITECTURES, check
from tests.mixtures import GROUPS, MEMBERS, ROLES, dialogues, layers_of, renderer_of, tuner_of, with_experts
from tests.tiny import Architecture, strategies_shown, tiny_model

IDS: Final = torch.arange(2 * 12).mul(7).add(3).remainder(600).view(2, 12)
UNDER: Final[list[dict[str, str | None]]] = [
    {"role": "baker", "strategy": "Question"},
    {"role": "weaver", "strategy": None},
    {"role": None, "strategy": "Others"},
    {"role": None, "strategy": None},
]
"""What tokens are read under, in turn."""


class Printed(nn.Module):
    """A linear layer under equation 6, with the weights of an adapted one: eqs. 4 and 5 give its gates."""

    def __init__(self, adapted: ExpertsLinear, lead: ExpertsLinear, name: str, under: list[list[dict[str, Any]]]):
        super().__init__()
        self.base = adapted.base_layer
        self.a, self.b = adapted.experts_A[name], adapted.experts_B[name]
        self.gate = adapted.experts_gate[name] if name in adapted.experts_gate else lead.experts_gate[name]
        self.embedding = lead.experts_embedding[name]
        self.config, self.under = adapted.experts_config[name], under

    def forward(self, x: Tensor) -> Tensor:
        rows = []
        for row, members in zip(x, self.under, strict=True):
            rows.append(torch.stack([self._token(one, own) for one, own in zip(row, members, strict=True)]))
        return torch.stack(rows)

    def _token(self, x: Tensor, under: dict[str, Any]) -> Tensor:
        config, found = self.config, torch.as_tensor(self.base(x))
        first_member = first_expert = first_rank = 0
        for name in sorted(config.groups):
            members, count = config.groups[name]["members"], config.groups[name]["experts"]
            rank = config.r // count if config.rank == "total" else config.r
            scale = config.alpha / config.r * (count if config.scaling == "alpha/(r/n)" else 1)
            if under[name] is not None:
                e = self.embedding[first_member + members.index(under[name])]
                weights = (self.gate[first_expert : first_expert + count] @ e).softmax(0)
                for k in range(count):
                    part = slice(first_rank + k * rank, first_rank + (k + 1) * rank)
                    found = found + scale * weights[k] * (self.b[:, part] @ (self.a[part] @ x))
            first_member, first_expert = first_member + len(members), first_expert + count
            first_rank += count * rank
        return found


def printed(model: Any, name: str, under: list[list[dict[str, Any]]]) -> Any:
    """A copy of the base, its adapted layers as equation 6 is printed, which share the weights of the mixture."""
    lead, plain = tuner_of(model).reading.leads[name], tuner_of(model).model
    for path, layer in [(path, m) for path, m in plain.named_modules() if isinstance(m, ExpertsLinear)]:
        parent, _, own = path.rpartition(".")
        setattr(plain.get_submodule(parent), own, Printed(layer, lead, name, under))
    return plain


def of(model: Any, **given: Any) -> dict[str, Tensor]:
    """Logits, and the gradient of each weight that is trained, by its number among all of them."""
    model.zero_grad()
    logits = model(input_ids=IDS, use_cache=False, **given).logits
    torch.autograd.backward((logits * torch.linspace(-1, 1, logits.shape[-1], dtype=logits.dtype)).sum())
    weights = [p for p in model.parameters() if p.grad is not None]
    return {"logits": logits.detach()} | {f"{i} {tuple(p.shape)}": p.grad.clone() for i, p in enumerate(weights)}


SWITCHES: Final = {
    "the paper": {},
    "Neeko": {"gates": "per_module", "scaling": "alpha/(r/n)", "rank": "total", "r": 6},
    "shared gates, rank in total": {"rank": "total", "r": 12},
    "a gate a layer, embeddings described": {"gates": "per_module", "embeddings": "described"},
}


def mixture(architecture: Architecture = "llama", **switches: Any) -> Any:
    described = torch.randn(len(ROLES) + 8, 7, generator=torch.Generator().manual_seed(3))
    more: dict[str, Any] = {"described": described} if switches.get("embeddings") == "described" else {}
    return with_experts(tiny_model(architecture), seed=1, **switches, **more).double()


def pairs_of(model: Any) -> tuple[Tensor, list[list[dict[str, Any]]]]:
    under = [[UNDER[(row + token) % 4] for token in range(IDS.shape[1])] for row in range(len(IDS))]
    gates = tuner_of(model).gates_of("generator")
    return torch.tensor([[gates.pair(own) for own in row] for row in under]), under


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES)
def test_values_and_gradients_are_those_of_equation_6(
    switches: dict[str, Any], quick: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = mixture(**switches)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert any("embedding" in name for name in trained) == (switches.get("embeddings") != "described")
    if not quick:
        monkeypatch.setattr(ExpertsLinear, "_is_plain", lambda *_: False)
    pairs, under = pairs_of(model)
    ours = of(model, pairs=pairs)
    wanted = of(printed(model, "generator", under))
    assert len(ours) == 1 + len(trained)
    assert sorted(map(str, (v.shape for v in ours.values()))) == sorted(map(str, (v.shape for v in wanted.values())))
    torch.testing.assert_close(ours["logits"], wanted["logits"], rtol=1e-9, atol=1e-9)
    left = [*wanted.values()][1:]
    for name, gradient in [*ours.items()][1:]:  # a lead's weights stand elsewhere in the other model: find each one's
        assert float(gradient.norm()) > 0, f"{name} is not tried"
        match = [i for i, one in enumerate(left) if one.shape == gradient.shape and torch.allclose(one, gradient, 1e-9)]
        assert match, name
        left.pop(match[0])
    assert not left


def test_both_ways_drop_what_they_should(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean over many draws is the layer without dropout, and in evaluation nothing is dropped."""
    model = with_experts(tiny_model("llama"), seed=1, dropout=0.25).double()
    (layer, *_), pairs = layers_of(model), torch.full((1, 4000), 13)
    x = torch.ones(1, 4000, 32, dtype=torch.float64)
    layer._reading.pairs = pairs
    base, wanted = layer.base_layer(x), layer(x)
    for quick in (True, False):
        if not quick:
            monkeypatch.setattr(ExpertsLinear, "_is_plain", lambda *_: False)
        torch.manual_seed(0)
        found = layer.train()(x)
        assert not torch.allclose(found, wanted), "something is dropped"
        added = (found - base)[0]
        torch.testing.assert_close(
            added.mean(0), (wanted - base)[0, 0], rtol=0, atol=float(5 * added.detach().std() / 4000**0.5)
        )
        torch.testing.assert_close(layer.eval()(x), wanted)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_fresh_mixture_is_the_base(architecture: Architecture) -> None:
    base = tiny_model(architecture)
    wanted = base(input_ids=IDS).logits
    model = with_experts(copy.deepcopy(base), random=False)
    pairs, _ = pairs_of(model)
    assert torch.equal(model(input_ids=IDS, pairs=pairs).logits, wanted)
    assert torch.equal(model(input_ids=IDS).logits, wanted)


def test_under_none_of_any_group_the_model_is_the_base() -> None:
    wanted, model = tiny_model()(input_ids=IDS).logits, with_experts(tiny_model())
    assert torch.equal(model(input_ids=IDS).logits, wanted)
    assert torch.allclose(model(input_ids=IDS, pairs=torch.zeros_like(IDS)).logits, wanted, atol=1e-5)
    assert not torch.allclose(model(input_ids=IDS, pairs=torch.ones_like(IDS)).logits, wanted, atol=1e-2)


def test_gates_and_embeddings_learn_from_the_second_step_on() -> None:
    """The first step moves B alone, as B is zero."""
    model = with_experts(tiny_model(), random=False).train()
    pairs, _ = pairs_of(model)
    moved = []
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    for _ in range(2):
        before = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
        model(input_ids=IDS, labels=IDS, pairs=pairs).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        changed = {name for name, p in model.named_parameters() if name in before and not torch.equal(p, before[name])}
        moved.append({name.split(".")[-2] for name in changed})
    assert moved == [{"experts_B"}, {"experts_A", "experts_B", "experts_gate", "experts_embedding"}]


# ------------------------------------------------------------------------------------------------------------- the trie


@pytest.mark.parametrize("scope", ["token", "sequence"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_tries_are_exact_under_experts(architecture: Architecture, scope: str) -> None:
    model = with_experts(tiny_model(architecture), seed=3, gate_scope=scope)
    renderer = renderer_of(model)
    mode: PastStrategies = "gold" if architecture in ("qwen2", "gemma2") else "hidden"
    rows = [renderer.examples(c, "generator", strategies_shown(c, mode)) for c in dialogues()]
    if scope == "sequence":  # a dialogue's replies share what stands under one pair
        rows = [examples * 2 for examples in rows]
    check(model, rows)


@pytest.mark.parametrize("scope", ["token", "sequence"])
def test_tries_of_the_layout_paper_and_divided_ones_are_exact_too(scope: str) -> None:
    model = with_experts(tiny_model("llama"), seed=3, gate_scope=scope, gates="per_module")
    renderer = renderer_of(model, layout="paper")
    rows = [[e for e in renderer.examples(c, "generator", {}) for _ in range(2)] for c in dialogues(2, 9)]
    most = max(len(e.context) + len(e.given) + len(e.scored) for examples in rows for e in examples) - 50
    assert all(len(build_tries(examples, most)) > 1 for examples in rows)
    check(model, rows, most)


def nodes(scope: str | None) -> int:
    """Of the trie of a dialogue in one role."""
    (conversation,) = dialogues(2, 10)[1:]
    model = with_experts(tiny_model(), gate_scope=scope or "token")
    renderer = renderer_of(model)
    if scope is None:
        renderer.gates = None
    examples = renderer.examples(conversation, "generator", strategies_shown(conversation, "gold"))
    assert len(examples) > 2
    return len(TokenTrie.merge(examples))


def test_per_token_gates_share_all_prefixes_and_gates_of_a_sequence_none() -> None:
    assert nodes("token") == nodes(None)
    assert nodes("sequence") > 1.5 * nodes(None)


def test_a_token_under_two_pairs_is_two_nodes() -> None:
    one = Example("a", (5, 6), (), (7,), pairs=(1, 1, 1))
    other = Example("b", (5, 6), (), (8,), pairs=(1, 2, 2))
    assert len(TokenTrie.merge([one, one])) == 3
    assert len(TokenTrie.merge([one, other])) == 5


# -------------------------------------------------------------------------------------------------------------- writing


def argmax_loop(model: Any, prompt: Sequence[int], pairs: Sequence[int], steps: int) -> list[int]:
    """The most likely continuation, every step read from the start, the reply under the last pair."""
    ids, under = list(prompt), list(pairs)
    with torch.no_grad():
        for _ in range(steps):
            read = {"input_ids": torch.tensor([ids]), "pairs": torch.tensor([under])}
            ids.append(int(model(use_cache=False, **read).logits[0, -1].argmax()))
            under.append(under[-1])
    return ids[len(prompt) :]


def asked(model: Any, layout: Any = "shared-prefix") -> list[Example]:
    """Prompts of two dialogues, each turn under two strategies."""
    renderer = renderer_of(model, layout=layout)
    return [
        renderer.asked(c, turn, "generator", strategies_shown(c, "gold"), 12)
        for c in dialogues(2, 6)
        for turn in [t for t in c.turns if t.strategy][:2]
    ]


GREEDY: Final = Decoding(greedy=True, max_new_tokens=10)


@pytest.mark.parametrize("scope", ["token", "sequence"])
@pytest.mark.parametrize("architecture", ["qwen2", "qwen2-window", "gemma2"])
def test_replies_side_by_side_are_those_written_alone(architecture: Architecture, scope: str) -> None:
    model = with_experts(tiny_model(architecture, seed=2), seed=3, gate_scope=scope)
    prompts = asked(model)
    texts = [[*one.context, *one.given] for one in prompts]
    pairs = [list(one.pairs) for one in prompts]
    wanted = [argmax_loop(model, text, under, 10) for text, under in zip(texts, pairs, strict=True)]
    assert generate_ids(model, texts, -1, GREEDY, range(len(texts)), pairs=pairs) == wanted
    plain = generate_ids(model, texts, -1, GREEDY, range(len(texts)))
    assert plain != wanted, "experts change what is written"


def test_a_model_that_takes_no_steps_writes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = with_experts(tiny_model("llama", seed=2), seed=3)
    prompts = asked(model)[:2]
    texts, pairs = [[*p.context, *p.given] for p in prompts], [list(p.pairs) for p in prompts]
    wanted = generate_ids(model, texts, -1, GREEDY, range(2), pairs=pairs)
    monkeypatch.setattr(generation, "takes_steps", lambda _: False)
    assert generate_ids(model, texts, -1, GREEDY, range(2), pairs=pairs) == wanted


@pytest.mark.parametrize(("layout", "scope"), [*product(["shared-prefix", "paper"], ["token", "sequence"])])
def test_a_reply_is_written_under_the_pair_that_it_was_trained_under(layout: Any, scope: str) -> None:
    model = with_experts(tiny_model(), gate_scope=scope)
    renderer = renderer_of(model, layout=layout)
    for conversation in dialogues(2, 6):
        shown = strategies_shown(conversation, "hidden")
        for turn in [t for t in conversation.turns if t.strategy]:
            trained = renderer.example(conversation, turn, "generator", shown)
            asked = renderer.asked(conversation, turn, "generator", shown, len(trained.scored))
            before = len(asked.context) + len(asked.given)
            assert asked.pairs == trained.pairs[:before]
            assert (
                asked.pairs[-1]
                == trained.pairs[-1]
                == tuner_of(model).gates_of("generator").of_turn(conversation, turn)
            )


def test_transformers_own_generate_under_a_fixed_pair_writes_what_we_do() -> None:
    model = with_experts(tiny_model("llama", seed=2), seed=3, gate_scope="sequence")
    pair = tuner_of(model).fix(role="doctor", strategy="Question")
    prompt = [*range(40, 60)]
    settings = {"do_sample": False, "max_new_tokens": 10, "eos_token_id": None, "pad_token_id": 0}
    ids = torch.tensor([prompt])
    wanted = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **settings)[0, len(prompt) :].tolist()
    assert generate_ids(model, [prompt], -1, GREEDY, [0], pairs=[[pair] * len(prompt)]) == [wanted]


# ------------------------------------------------------------------------------------------------------ what it refuses


def config(**changes: Any) -> ExpertsConfig:
    groups = {name: {"members": list(MEMBERS[name]), "experts": count} for name, count in GROUPS.items()}
    return ExpertsConfig(**{"groups": groups, **changes})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"groups": {}}, "has no group: name at least one"),
        ({"groups": {"role": {"members": ["a", "b"], "experts": 3}}}, "the group role has 3 experts for 2 members"),
        ({"groups": {"role": {"members": ["a", "b"], "experts": 0}}}, "give it 1 to 2"),
        ({"rank": "total", "r": 4}, "the 3 experts of role cannot share rank 4 evenly"),
    ],
)
def test_a_mixture_that_cannot_be_is_refused_in_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        config(**changes)


def test_layers_that_read_other_tokens_than_were_told_are_named() -> None:
    model = with_experts(tiny_model())
    with pytest.raises(ModelError, match=r"told the pairs of 3 tokens, and a layer reads 24"):
        model(input_ids=IDS, pairs=torch.ones(1, 3, dtype=torch.long))


def test_what_is_no_linear_layer_is_refused() -> None:
    experts = ExpertsOptions(groups=GROUPS)
    model = tiny_model()
    with pytest.raises(ModelError, match=r"linear layers, and model\.embed_tokens is none: leave it out\."):
        get_peft_model(model, config(target_modules=["embed_tokens"]))
    with pytest.raises(ModelError, match="the group role has 10 experts"):
        fresh_experts(model, LoraOptions(), experts.model_copy(update={"groups": {"role": 10}}), MEMBERS, "generator")


def test_the_gates_report_tells_entropy_and_use() -> None:
    model = with_experts(tiny_model(), gates="per_module")
    told = tuner_of(model).gate_use("generator")
    assert set(told) == {"role", "strategy"}
    assert set(told["role"]["entropy_bits"]) == set(ROLES)
    assert sum(told["role"]["use"]) == pytest.approx(1, abs=1e-3)
    assert all(0 < bits < 1.585 for bits in told["role"]["entropy_bits"].values())
    with torch.no_grad():
        for layer in layers_of(model):
            layer.experts_gate["generator"].zero_()
    assert set(tuner_of(model).gate_use("generator")["strategy"]["entropy_bits"].values()) == {1.0}
