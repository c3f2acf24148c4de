"""A mixture of experts as plain LoRA folders, one for each pair of a role and a strategy, for other tools.

Gates depend on role and strategy alone, so under one pair the mixture is exactly one LoRA: all experts side by side, B
times their gates (Empath, equations 4 to 6). vLLM, transformers and llama.cpp's converter read the folders; a server
takes one a request. What is exact about it: docs/experts.md.
"""

import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from torch import Tensor

from esckit.errors import ModelError
from esckit.files import atomic, read_text, write_json
from esckit.hub import is_smollm2
from esckit.planning.matcher_options import BANK
from esckit.rendering.gates import AND, STRATEGY, Gates
from esckit.rendering.layouts import system_text
from esckit.rendering.told import told_of
from esckit.roles import read_bank
from esckit.strategy import TAXONOMIES
from esckit.supporters.supporter_folder import ROLES, SupporterCard, read_card

if TYPE_CHECKING:
    from esckit.language_models.experts_config import ExpertsConfig

__all__ = ["RECORD", "Adapters", "Members", "export_adapters"]

RECORD: Final = "adapters.json"
Members = Mapping[str, str]
"""A pair: a member by what it is one of, such as role and strategy."""

_CONFIG: Final = "adapter_config.json"
_WEIGHTS: Final = "adapter_model.safetensors"
_SERVED_RANKS: Final = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as its largest rank, as far as we know: it was not run."""


class Adapters(NamedTuple):
    """What was written: the folders' names, the largest rank, the base, and how vLLM serves them."""

    names: tuple[str, ...]
    rank: int
    base: str
    serve: str


class _Mixture(NamedTuple):
    """A saved mixture, as it lies in its folder; weights by the names of PEFT's file."""

    config: "ExpertsConfig"
    weights: dict[str, Tensor]
    base: str

    @property
    def gates(self) -> Gates:
        return self.config.as_gates

    @property
    def layers(self) -> list[str]:
        """The adapted layers, as PEFT's file names them."""
        return [name.removesuffix(".experts_A") for name in sorted(self.weights) if name.endswith(".experts_A")]


def export_adapters(
    source: Path | str,
    out: Path | str,
    pairs: Sequence[Members] = (),
    *,
    every: bool = False,
    base: str | None = None,
) -> Adapters:
    """Write a PEFT LoRA folder for each pair, and ``adapters.json`` beside them: what each is, and how to serve it.

    The base's weights are not read.

    Args:
        source: the folder of a supporter whose generator has experts, or of such an adapter itself.
        out: the folder to write anew.
        pairs: a member each of some or all groups; under none of a group its experts are left out.
        every: all pairs of a member of each group, too.
        base: of an adapter, in place of the one that it names.

    Raises:
        ModelError: there are no experts, or none for a pair; no pair is named, or one twice.
        EsckitError: the folder cannot be written.
    """
    source, out = Path(source), Path(out)
    card = read_card(source) if (source / "supporter.json").exists() else None
    mixture = _read(source, card, base)
    chosen = [*(_all(mixture.gates) if every else []), *pairs]
    named = _named(mixture.gates, chosen)
    ranks = {name: _rank(mixture.config, members) for name, members in named.items()}
    serve = _serve(mixture.base, [*named], max(ranks.values()), out)
    record: dict[str, Any] = {"format": 1, "base": mixture.base, "base_hash": card and card.base_hash}
    record |= {"layout": card and card.layout, "taxonomy": card and card.taxonomy}
    record |= {"past_strategies": card and card.past_strategies, "max_context": card and card.max_context}
    record |= {"gate_scope": mixture.config.gate_scope, "bank": mixture.config.bank, "vllm": serve}
    with atomic(out) as folder:
        for name, members in named.items():
            _write(mixture, members, folder / name)
        systems = _systems(source, card)
        each = [
            {"name": name, **members, "rank": ranks[name], "system": systems(members)}
            for name, members in named.items()
        ]
        write_json(folder / RECORD, {**record, "adapters": each})
    return Adapters(tuple(named), max(ranks.values()), mixture.base, serve)


def _systems(source: Path, card: SupporterCard | None) -> Callable[[Members], dict[str, str]]:
    """The system text that a pair was trained with, by language; nothing of a bare adapter, which tells none."""
    place = source / ROLES / BANK
    bank = read_bank(place) if place.exists() else None

    def told(members: Members) -> dict[str, str]:
        if card is None:
            return {}
        strategy, taxonomy, found = members.get(STRATEGY, ""), TAXONOMIES[card.taxonomy], {}
        for language in bank.languages if bank else ("en",):
            text = system_text(card.layout, "generator", taxonomy, strategy or taxonomy.labels[0], language)
            role = told_of(bank, members["role"], None, language).role if bank and "role" in members else ""
            found[language] = "\n\n".join(filter(None, (text, role)))
        return found

    return told


def _read(source: Path, card: SupporterCard | None, base: str | None) -> _Mixture:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from esckit.language_models.experts import ExpertsConfig

    if card is not None and base is not None:
        raise ModelError(f"{source} is a supporter and has its base: leave the base out.")
    folder = source if card is None else source / "generator"
    told = read_text(folder / _CONFIG, what=f"{source}'s adapter of experts", error=ModelError)
    try:
        fields = json.loads(told)
        if fields["peft_type"] != ExpertsConfig(groups={"role": {"members": ["any"], "experts": 1}}).peft_type.value:
            raise ModelError(f"{folder} has no experts: it is one adapter, which other tools load as it is.")
        config = ExpertsConfig.from_pretrained(folder)
        weights = load_file(folder / _WEIGHTS)
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise ModelError(f"{folder} is no adapter of experts, or broken ({error}): train it again.") from error
    named = base or (config.base_model_name_or_path if card is None else _base_of(source, card))
    if not named:
        raise ModelError(f"{folder} names no base: say which model it stands on, with --base.")
    return _Mixture(config, weights, named)


def _base_of(source: Path, card: SupporterCard) -> str:
    """The base as others find it."""
    assert card.base is not None
    return str((source / card.base).resolve()) if card.base.startswith(".") else card.base


def _all(gates: Gates) -> list[dict[str, str]]:
    """A member of each group, in every way that there is."""
    found = []
    for members in product(*gates.groups.values()):
        kinds = [kind for group in gates.groups for kind in group.split(AND)]
        own = [member for group, joined in zip(gates.groups, members, strict=True) for member in _apart(group, joined)]
        found.append(dict(zip(kinds, own, strict=True)))
    return found


def _apart(group: str, member: str) -> list[str]:
    return member.split(AND) if AND in group else [member]


def _named(gates: Gates, pairs: Sequence[Members]) -> dict[str, Members]:
    """Pairs under the names of their folders, such as ``wukong--question``."""
    kinds = [kind for group in gates.groups for kind in group.split(AND)]
    if not pairs:
        raise ModelError(f"no pair is named: name a {' and a '.join(kinds)}, or take all.")
    found: dict[str, Members] = {}
    for members in pairs:
        if unknown := sorted(members.keys() - {*kinds}):
            raise ModelError(f"there are no experts of {unknown[0]!r}: there are some of {' and '.join(kinds)}.")
        if not gates.pair(members):
            raise ModelError(f"a pair of {' and '.join(kinds)} is not whole: name both, or all of them.")
        name = "--".join(_slug(members[kind]) for kind in kinds if kind in members)
        if name in found:
            raise ModelError(f"the pair {name} is named twice: name it once.")
        found[name] = members
    return found


def _slug(member: str) -> str:
    """A member's name as a part of a file's, of letters, digits and hyphens."""
    return re.sub(r"[\W_]+", "-", member.casefold()).strip("-") or member.encode().hex()


def _columns(config: "ExpertsConfig", members: Members) -> list[int]:
    """Which columns of the low-rank side the experts of a pair have: those of groups that it has a member of."""
    layout, found, first = config.layout, list[int](), 0
    for name, group, rank in zip(config.as_groups, layout.groups, layout.ranks, strict=True):
        width = group.experts * rank
        if all(kind in members for kind in name.split(AND)):
            found += range(first, first + width)
        first += width
    return found


def _rank(config: "ExpertsConfig", members: Members) -> int:
    return len(_columns(config, members))


def _write(mixture: _Mixture, members: Members, folder: Path) -> None:
    """One pair's LoRA, with scale 1."""
    from peft import LoraConfig
    from safetensors.torch import save_file

    config, weights = mixture.config, mixture.weights
    pair, columns = mixture.gates.pair(members), _columns(config, members)
    (embedding,) = (value for name, value in weights.items() if name.endswith(".experts_embedding"))
    shared = [value for name, value in weights.items() if name.endswith(".experts_gate")]
    found = {}
    for layer in mixture.layers:
        gate = weights[f"{layer}.experts_gate"] if config.gates == "per_module" else shared[0]
        row = config.layout.table(embedding.double(), gate.double())[pair].float()
        b = (weights[f"{layer}.experts_B"].float() * row)[:, columns]
        found[f"{layer}.lora_A.weight"] = weights[f"{layer}.experts_A"].float()[columns].contiguous()
        found[f"{layer}.lora_B.weight"] = b.contiguous()
    written = LoraConfig(
        r=len(columns),
        lora_alpha=len(columns),
        target_modules=[layer.removeprefix("base_model.model.") for layer in mixture.layers],
        task_type="CAUSAL_LM",
        base_model_name_or_path=mixture.base,
        inference_mode=True,
    )
    folder.mkdir(parents=True)
    written.save_pretrained(str(folder))
    save_file(found, folder / _WEIGHTS, metadata={"format": "pt"})


def _serve(base: str, names: Sequence[str], rank: int, out: Path) -> str:
    """The command that serves the folders with vLLM, a name each."""
    largest = next((each for each in _SERVED_RANKS if each >= rank), rank)
    modules = " ".join(shlex.quote(f"{name}={out / name}") for name in names)
    base = "BASE" if is_smollm2(base) else shlex.quote(base)  # embedded: export it as a folder first
    return f"vllm serve {base} --enable-lora --max-lora-rank {largest} --lora-modules {modules}"
