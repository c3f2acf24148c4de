"""Exported adapters are plain LoRA: a process without esckit reads from each what the mixture says under its pair."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM

from esckit.decoding import Decoding
from esckit.errors import CorpusError, EsckitError, ModelError
from esckit.language_models import experts  # noqa: F401 - PEFT knows the tuner once it is imported
from esckit.language_models.generation import generate_ids
from esckit.strategy import ESCONV
from esckit.supporters.export_adapters import export_adapters
from esckit.supporters.export_model import export_model
from esckit.training.adapters import fresh_experts
from esckit.training.training_options import ExpertsOptions, LoraOptions
from tests.mixtures import (
    GROUPS,
    MEMBERS,
    ROLES,
    dialogues,
    randomise_experts,
    renderer_of,
    save_mixture,
    tuner_of,
    with_experts,
    write_empath,
)
from tests.supporters.test_export_model import call
from tests.tiny import save_base, strategies_shown, tiny_model, write_supporter

IDS: Final = torch.arange(36).mul(7).add(3).remainder(600)[None]
PROMPT: Final = [*range(40, 60)]
SMALL: Final = {"role": ("judge", "nurse", "pilot"), "strategy": ESCONV.labels[:3]}
SWITCHES: Final[dict[str, dict[str, Any]]] = {
    "shared gates": {},
    "a gate a layer, rank in total": {
        "members": SMALL,
        "gates": "per_module",
        "rank": "total",
        "r": 6,
        "scaling": "alpha/(r/n)",
    },
}
PLAIN: Final = """
import json, sys, torch
from pathlib import Path
from peft import PeftModel
from transformers import AutoModelForCausalLM

base, out, ids, prompt = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3]), json.loads(sys.argv[4])
found, model = {}, None
names = [each["name"] for each in json.loads((out / "adapters.json").read_text())["adapters"]]
for name in names:
    if model is None:
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), out / name, adapter_name=name)
    else:
        model.load_adapter(out / name, adapter_name=name)
    model.set_adapter(name)
    text = torch.tensor([prompt])
    settings = {"do_sample": False, "max_new_tokens": 8, "eos_token_id": None, "pad_token_id": 0}
    with torch.no_grad():
        logits = model.eval()(torch.tensor(ids)).logits
        said = model.generate(input_ids=text, attention_mask=torch.ones_like(text), **settings)
    found[name] = (logits, said[0, len(prompt):].tolist())
assert not [name for name in sys.modules if name.startswith("esckit")]
torch.save(found, out / "found.pt")
"""


@pytest.fixture(scope="module", params=[*SWITCHES.values()], ids=[*SWITCHES])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A supporter, its adapters of all pairs, and what a process without esckit read from them."""
    place = tmp_path_factory.mktemp("exported")
    supporter = write_empath(place / "empath", members=SMALL, **request.param)
    alone = [{"role": "judge"}, {"strategy": "Question"}]
    export_adapters(supporter, place / "out", alone, every=True)
    given = (supporter / "base", place / "out", json.dumps(IDS.tolist()), json.dumps(PROMPT))
    done = subprocess.run([sys.executable, "-c", PLAIN, *map(str, given)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return (
        supporter,
        place / "out",
        torch.load(place / "out/found.pt"),
        with_experts(tiny_model(), seed=2, members=SMALL, **request.param),
    )


def told_under(model: Any, pair: int) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(input_ids=IDS, pairs=torch.full_like(IDS, pair)).logits
    return found


def test_every_pair_is_one_plain_lora(exported: Any) -> None:
    """Logits of a fixed pair, and of all tokens told it; greedy text by transformers' generate and by ours."""
    _, out, found, model = exported
    record = json.loads((out / "adapters.json").read_text(encoding="utf-8"))
    assert len(found) == len(record["adapters"]) == 3 * 3 + 2
    gates, texts = tuner_of(model).gates_of("generator"), set()
    for each in record["adapters"]:
        logits, said = found[each["name"]]
        pair = tuner_of(model).fix(role=each.get("role"), strategy=each.get("strategy"))
        assert gates.pair(each) == pair
        with torch.no_grad():
            torch.testing.assert_close(logits, model(input_ids=IDS).logits, rtol=0, atol=2e-5)
        torch.testing.assert_close(logits, told_under(model, pair), rtol=0, atol=2e-5)
        decoding = Decoding(greedy=True, max_new_tokens=8)
        assert generate_ids(model, [PROMPT], -1, decoding, [0], pairs=[[pair] * len(PROMPT)]) == [said]
        texts.add(tuple(said))
    assert len(texts) > 5, "pairs say different things"


def test_what_is_written_beside_them(exported: Any) -> None:
    supporter, out, *_ = exported
    record = json.loads((out / "adapters.json").read_text(encoding="utf-8"))
    card = json.loads((supporter / "supporter.json").read_text(encoding="utf-8"))
    assert {key: record[key] for key in ("base_hash", "layout", "max_context")} == {
        key: card[key] for key in ("base_hash", "layout", "max_context")
    }
    assert (record["format"], record["gate_scope"], record["base"]) == (1, "token", str((supporter / "base").resolve()))
    one = next(each for each in record["adapters"] if each["name"] == "pilot--restatement-or-paraphrasing")
    assert (one["role"], one["strategy"]) == ("pilot", "Restatement or Paraphrasing")
    config = json.loads((out / one["name"] / "adapter_config.json").read_text(encoding="utf-8"))
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", one["rank"], one["rank"])
    assert len(config["target_modules"]) == 2 * 7
    assert "model.layers.1.self_attn.q_proj" in config["target_modules"]
    assert config["base_model_name_or_path"] == record["base"]
    ranks = {each["name"]: each["rank"] for each in record["adapters"]}
    assert ranks["judge"] + ranks["question"] == ranks["judge--question"], "and no more"
    assert record["vllm"].startswith(f"vllm serve {record['base']} --enable-lora --max-lora-rank ")
    assert f"judge--question={out / 'judge--question'}" in record["vllm"]


def test_an_adapter_s_folder_is_exported_on_its_base(tmp_path: Path) -> None:
    """Of the last layer alone, on its own; the base need not be there."""
    save_mixture(tmp_path)
    with pytest.raises(ModelError, match=r"generator names no base: say which model it stands on, with --base\."):
        export_adapters(tmp_path / "generator", tmp_path / "out", [{"role": "judge"}])
    found = export_adapters(tmp_path / "generator", tmp_path / "out", [{"role": "judge"}], base="org/model")
    assert (found.names, found.base) == (("judge",), "org/model")
    assert found.serve == (
        f"vllm serve org/model --enable-lora --max-lora-rank 16 --lora-modules judge={tmp_path / 'out/judge'}"
    )


def test_layers_that_are_chosen_are_named_one_by_one(tmp_path: Path) -> None:
    options = ExpertsOptions(groups=GROUPS)
    model = fresh_experts(tiny_model(), LoraOptions(layers=1), options, MEMBERS, "generator").eval()
    randomise_experts(model)
    model.save_pretrained(str(tmp_path))
    export_adapters(tmp_path / "generator", tmp_path / "out", [{"role": "judge", "strategy": "Others"}], base="x")
    plain = PeftModel.from_pretrained(tiny_model(), tmp_path / "out/judge--others").eval()
    pair = tuner_of(model).gates_of("generator").pair({"role": "judge", "strategy": "Others"})
    with torch.no_grad():
        torch.testing.assert_close(plain(IDS).logits, told_under(model, pair), rtol=0, atol=2e-5)
    assert all(".layers.1." in name for name in plain.peft_config["default"].target_modules)


def test_one_mixture_of_both_has_an_adapter_a_combination(tmp_path: Path) -> None:
    save_mixture(tmp_path, groups={"role+strategy": 3})
    found = export_adapters(tmp_path / "generator", tmp_path / "out", every=True, base="x")
    assert found.names == (
        *("baker--question", "baker--restatement-or-paraphrasing"),
        *("captain--question", "captain--restatement-or-paraphrasing"),
    )
    with pytest.raises(ModelError, match=r"a pair of role and strategy is not whole: name both, or all of them\."):
        export_adapters(tmp_path / "generator", tmp_path / "other", [{"role": "baker"}], base="x")


def test_where_gates_per_token_differ_from_an_exported_adapter(tmp_path: Path) -> None:
    """A history of replies stands under their own pairs in the one, and under the reply's in the other.

    Even the first reply differs, as what stands before it is read without a strategy there; under the scope of a
    sequence nothing differs.
    """
    for scope in ("token", "sequence"):
        model = with_experts(tiny_model(), seed=2, gate_scope=scope)
        renderer, (conversation, *_) = renderer_of(model), dialogues(1, 6)
        model.save_pretrained(str(tmp_path / scope))
        worst = []
        for turn in [turn for turn in conversation.turns if turn.strategy]:
            example = renderer.example(conversation, turn, "generator", strategies_shown(conversation, "gold"))
            gates = tuner_of(model).gates_of("generator")
            members = {"role": str(gates.members(example.pairs[-1])["role"]), "strategy": str(turn.strategy)}
            out = tmp_path / f"{scope}-{turn.id}"
            (name,) = export_adapters(tmp_path / scope / "generator", out, [members], base="x").names
            plain = PeftModel.from_pretrained(tiny_model(), out / name).eval()
            ids = torch.tensor([[*example.context, *example.given, *example.scored]])
            with torch.no_grad():
                one = model(input_ids=ids, pairs=torch.tensor([example.pairs])).logits[0, -len(example.scored) :]
                worst.append(float((plain(ids).logits[0, -len(example.scored) :] - one).abs().max()))
        assert all(w > 0.05 if scope == "token" else w < 2e-5 for w in worst), worst


# ----------------------------------------------------------------------------------------------------- a merged model


def test_a_pair_is_merged_into_the_base(tmp_path: Path) -> None:
    supporter = write_empath(tmp_path / "empath")
    members = {"role": "judge", "strategy": "Question"}
    assert export_model(supporter, tmp_path / "whole", members=members).part == "generator"
    model = with_experts(tiny_model(), seed=2)
    wanted = told_under(model, tuner_of(model).gates_of("generator").pair(members))
    with torch.no_grad():
        found = AutoModelForCausalLM.from_pretrained(tmp_path / "whole", dtype=torch.float32)(IDS).logits
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-5)
    record = json.loads((tmp_path / "whole/esckit.json").read_text(encoding="utf-8"))
    assert (record["role"], record["strategy"]) == ("judge", "Question")


# ------------------------------------------------------------------------------------------------------- the commands


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    supporter, out = write_empath(tmp_path / "empath"), tmp_path / "out"
    pair = ("--pair", "role=judge,strategy=Question")
    for _ in range(2):  # it is written anew
        assert call(monkeypatch, "export", "adapters", supporter, out, *pair, "--pair", "strategy=Others") == 0
    said = capsys.readouterr().out
    assert said.startswith("2 adapters of rank 20 at most on ")
    assert "\nvllm serve " in said
    assert sorted(path.name for path in out.iterdir()) == ["adapters.json", "judge--question", "others"]
    assert call(monkeypatch, "export", "model", supporter, tmp_path / "whole", "--strategy", "Question") == 0
    refused = {
        ("adapters", supporter, out): "no pair is named: name a role and a strategy, or take all.",
        (
            "adapters",
            supporter,
            out,
            "--pair",
            "role=clown",
        ): "there are no experts for the role 'clown': choose",
        ("adapters", supporter, out, "--pair", "strategy=Shout"): "there are no experts for the strategy 'Shout'",
        (
            "adapters",
            supporter,
            out,
            "--pair",
            "mood=sad",
        ): "there are no experts of 'mood': there are some of",
        ("adapters", supporter, out, "--pair", "judge"): "--pair 'judge' is no pair: write role=NAME,strategy=LABEL",
        ("adapters", supporter, out, "--pair", "role=a,role=b"): "--pair 'role=a,role=b' is no pair",
        ("adapters", supporter, out, *pair, *pair): "the pair judge--question is named twice: name it once.",
        ("adapters", supporter, out, "--all", "--base", "x"): "is a supporter and has its base: leave the base out.",
        ("adapters", supporter / "planner", out, "--all"): "planner has no experts: it is one adapter, which other",
        ("adapters", tmp_path / "nothing", out, "--all"): "nothing's adapter of experts",
        ("adapters", supporter, supporter, "--all"): "empath holds something else than exported adapters: choose",
        ("model", supporter, tmp_path / "new"): "merged under one pair: say a role, a strategy or both first",
        ("model", supporter, tmp_path / "new", "--role", "clown"): "there are no experts for the role 'clown'",
        ("model", supporter, tmp_path / "new", "--part", "planner", "--role", "judge"): "has no experts to choose from",
        ("model", supporter / "base", tmp_path / "new", "--role", "judge"): "has no experts to choose from: leave role",
    }
    for arguments, sentence in refused.items():
        assert call(monkeypatch, "export", *arguments) == 2, arguments
        assert sentence in capsys.readouterr().err.replace("\n", " "), arguments
    assert not (tmp_path / "new").exists()
    assert (out / "judge--question").exists(), "what was there is left"


def test_a_bare_adapter_is_merged_on_the_base_that_it_names(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    save_mixture(tmp_path)
    config = tmp_path / "generator/adapter_config.json"
    told = json.loads(config.read_text(encoding="utf-8")) | {"base_model_name_or_path": str(base)}
    config.write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(ModelError, match="merged under one pair: say a role, a strategy or both first"):
        export_model(tmp_path / "generator", tmp_path / "whole")
    assert export_model(tmp_path / "generator", tmp_path / "whole", members={"role": "judge"}).part is None
    with pytest.raises(CorpusError, match="there are no experts for the role"):
        export_model(tmp_path / "generator", tmp_path / "other", members={"role": "clown"})


def test_a_folder_that_cannot_be_written_or_read_is_said(tmp_path: Path) -> None:
    supporter = write_empath(tmp_path / "empath")
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises((EsckitError, OSError)) as told:
        export_adapters(supporter, tmp_path / "file/out", [{"role": "judge"}])
    assert "file" in str(told.value)
    (supporter / "generator/adapter_model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"is no adapter of experts, or broken"):
        export_adapters(supporter, tmp_path / "out", [{"role": "judge"}])
    plain = write_supporter(tmp_path / "plain")
    with pytest.raises(ModelError, match=r"generator has no experts: it is one adapter"):
        export_adapters(plain, tmp_path / "out", [{"role": ROLES[0]}])
    assert not (tmp_path / "out").exists()
