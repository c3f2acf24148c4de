"""What a recipe can say about training, apart from what is trained; it needs no torch."""

from typing import Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["ExpertsOptions", "LoraOptions", "PreferenceOptions", "Rates", "TrainingOptions", "usual_rates"]


class Rates(NamedTuple):
    """Usual peak rates of AdamW on a kind of backbone.

    Attributes:
        kind: of backbone.
        below: it has fewer parameters than this.
        whole: where every weight is trained.
        sft, preference: of an adapter.
    """

    kind: str
    below: float
    whole: float
    sft: float
    preference: float


_RATES: Final = (
    Rates("pocket", 30e6, 2e-3, 1e-3, 1e-4),
    Rates("small", 1e9, 1e-4, 2e-4, 5e-6),
    Rates("large", float("inf"), 1e-5, 1e-5, 7e-7),  # DecoupledESC, section 5.1 and table 9: of 7B
)


def usual_rates(parameters: int) -> Rates:
    """The rates of a backbone with so many parameters, where a stage gives none."""
    return next(rates for rates in _RATES if parameters < rates.below)


class LoraOptions(BaseModel):
    """Low-rank adaptation of all linear layers but the head (Hu et al. 2021); defaults of DecoupledESC, section 5.1.

    Attributes:
        r, alpha: rank, and scale times rank.
        dropout: share of each layer's input that the adapter does not see in a step.
        layers: adapts the last so many layers only, all by default; a step then costs less, as what is below needs no
            gradient.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    r: int = Field(16, ge=1)
    alpha: float = Field(16, gt=0)
    dropout: float = Field(0.05, ge=0, lt=1)
    layers: int | None = Field(None, ge=1)


class ExpertsOptions(BaseModel):
    """Groups of LoRA experts in place of one LoRA (Group MoELoRA; Empath, section 5.1 and table 6).

    Attributes:
        groups: how many experts each group has. ``strategy``'s members are the strategies, ``role``'s the bank's roles,
            another group's the values of the dialogues' label of its name. ``role+strategy`` is one mixture without
            groups, whose members are both at once.
        gates, scaling, rank, embeddings, embedding_size: see `language_models.experts.ExpertsConfig`.
        gate_scope: what is trained on, and read at inference: see `rendering.gates.Gates`.
        encoder: of described members: ``embedded``, a folder, or a Hub id; its width is the embeddings' size then.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    groups: dict[str, int] = Field({"role": 8, "strategy": 8}, min_length=1)
    gates: Literal["shared", "per_module"] = "shared"
    scaling: Literal["alpha/r", "alpha/(r/n)"] = "alpha/r"
    rank: Literal["per_expert", "total"] = "per_expert"
    embeddings: Literal["learned", "described"] = "learned"
    embedding_size: int = Field(64, ge=1)
    gate_scope: Literal["token", "sequence"] = "token"
    encoder: str = "embedded"


class TrainingOptions(BaseModel):
    """How a stage trains; a batch is one optimiser step.

    Attributes:
        epochs: passes over the training part.
        batch_size: targets (supporter turns, or utterances when pretraining) an optimiser step; whole conversations are
            added until it is reached, so a step overshoots by at most one conversation.
        accumulation: parts that a step's conversations are divided into, a forward pass each: less memory, same step.
        learning_rate: peak rate of AdamW; None is the usual one for the size of the backbone (`usual_rates`).
        schedule: of the rate after warm-up.
        warmup: share of the steps over which the rate rises, 0 to 1.
        weight_decay: of AdamW.
        max_grad_norm: gradients are clipped to this norm.
        max_tokens_per_row: a trie longer than this is divided over rows, each with the prefix it needs (exact), and no
            forward pass reads more, but for a single target that is longer: the limit of memory.
        precision: ``auto`` is float32 on the CPU and bfloat16 on CUDA; ``bfloat16`` trains under autocast, which a CPU
            without instructions for it does slowly.
        gradient_checkpointing: trade time for memory.
        evaluations: how often an epoch the loss is measured on what is not trained on, at even distances, the last time
            at the epoch's end (at most once a step).
        patience: training stops after so many evaluations in a row that did not improve on the best one, by however
            little; the weights of the best one are kept, whether it stops or not. None: it trains to the end and
            keeps the last weights. Self-evolution (section 3.2) stops with patience 3 and says neither what it
            measured, on what, nor how often: `evaluations` and the loss on held-out data are ours.
        checkpoint_seconds: a checkpoint is written when this time has passed since the last one, at the next
            point of the curve (at most a hundredth of the run later).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(3, ge=1)
    batch_size: int = Field(32, ge=1)
    accumulation: int = Field(1, ge=1)
    learning_rate: float | None = Field(None, gt=0)
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    warmup: float = Field(0.03, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    max_tokens_per_row: int | None = Field(None, ge=64)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    gradient_checkpointing: bool = False
    evaluations: int = Field(1, ge=1)
    patience: int | None = Field(None, ge=1)
    checkpoint_seconds: float = Field(300, ge=0)

    def in_bfloat16(self, device: str) -> bool:
        """Whether forward passes on this type of device are under bfloat16's autocast."""
        return self.precision == "bfloat16" or (self.precision == "auto" and device == "cuda")


class PreferenceOptions(BaseModel):
    """What is minimised over preference pairs (`training.preferences`).

    Attributes:
        loss: ``dpo``, ``ipo`` and ``kto`` pull to a reference, ``simpo`` and ``orpo`` have none.
        beta: strength of that pull; SimPO's scale, ORPO's lambda, IPO's tau.
        margin: SimPO's gamma.
        sft_weight: adds this times the mean token loss of the chosen replies, and of what is replayed (self-evolution's
            gamma, equation 8); ORPO's is 1, whatever is said here.
        desirable_weight, undesirable_weight: KTO's, of the losses of chosen and of rejected replies.
        length_normalised: IPO's log ratios are divided by each reply's tokens, as in TRL; false is the paper's.
        reference: where the reference's log-probabilities come from, the model after SFT in each case. ``frozen``: the
            SFT adapter is loaded a second time; ``merged``: it is merged into the base under a fresh adapter (saved
            together, with the sum of their ranks); ``stored``: they are computed once, before training.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    loss: Literal["dpo", "ipo", "simpo", "kto", "orpo"] = "dpo"
    beta: float = Field(0.1, gt=0)
    margin: float = Field(0.5, ge=0)
    sft_weight: float = Field(0.0, ge=0)
    desirable_weight: float = Field(1.0, gt=0)
    undesirable_weight: float = Field(1.0, gt=0)
    length_normalised: bool = True
    reference: Literal["frozen", "merged", "stored"] = "frozen"

    @property
    def needs_reference(self) -> bool:
        """True where the loss compares with a reference."""
        return self.loss in ("dpo", "ipo", "kto")

    @property
    def likelihood_weight(self) -> float:
        """Weight of the chosen replies' mean token loss."""
        return 1.0 if self.loss == "orpo" else self.sft_weight
