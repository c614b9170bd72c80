"""The columns of a run log, an episode table and a plan, as data.

One row of a run log is one evaluated checkpoint of one training run. The reader, the writer, the
importers and the documentation all take names, units and rules from the tables below.
"""

from dataclasses import dataclass
from math import inf
from typing import Literal

SCHEMA_VERSION = 1

STATUSES = ("ok", "diverged", "preempted", "excluded", "duplicate")
"""States of a row; only "ok" rows are fitted, the others stay, with a reason in `note`."""

COUNTS = ("params", "samples", "flops")
"""N, D and C: two of the three are needed, the third only follows from a stated cost constant."""

RUN_KEY = ("run_id", "samples", "budget")
"""What identifies a row: two budgets may share the first snapshot that reaches both."""

EPISODE_KEY = ("run_id", "samples", "budget", "episode")

MAX_COLUMNS = 10_000
MAX_MAGNITUDE = 1e60
"""Larger magnitudes are placeholders of an exporter: their squares and ratios overflow in a fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of a table: what it is called, what it holds, and which values it accepts."""

    name: str
    kind: Literal["text", "number", "whole"]
    """"number" and "whole" are float64 in memory, "whole" holds integers; "text" is a string."""
    meaning: str
    symbol: str = "-"
    unit: str = "-"
    detail: str = ""
    """How it is counted, where that is not obvious."""
    required: str = "no"
    """When the column has to be there, in words."""
    above: float = -inf
    """Values lie strictly above this bound."""
    at_least: float = -inf
    """Values are this bound or larger."""
    content: bool = False
    """Whether the column belongs to the measurement, and so to the content hash of a row."""
    aliases: tuple[str, ...] = ()
    """Names that other tools use for it: guesses to confirm, never taken silently."""


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_TWO_OF_THREE = "two of params, samples, flops"
_RUN_ID = Column(
    name="run_id",
    kind="text",
    meaning="one training run; the unit that is resampled",
    required="no: without it every row is a run of its own",
    content=True,
    aliases=_names("run id name run_name wandb_id experiment exp_name"),
)
_AGENT = Column(
    name="agent",
    kind="text",
    meaning="model family; a fit refuses a mixture of them",
    content=True,
    aliases=_names("model architecture arch algo algorithm model_family method"),
)
_TASK = Column(
    name="task",
    kind="text",
    meaning="game or data set; a fit refuses a mixture of them",
    content=True,
    aliases=_names("game env env_name env_id environment dataset"),
)
_SEED = Column(
    name="seed",
    kind="whole",
    meaning="seed of the run",
    content=True,
    aliases=("random_seed", "rng_seed"),
)
_PARAMS = Column(
    name="params",
    kind="number",
    symbol="N",
    unit="count",
    meaning="all trainable parameters",
    required=_TWO_OF_THREE,
    above=0,
    content=True,
    aliases=_names(
        "n n_params num_params nparams parameters num_parameters "
        "n_parameters model_size model_params total_params param_count "
        "size"
    ),
)
_SAMPLES = Column(
    name="samples",
    kind="number",
    symbol="D",
    unit="count",
    meaning="(observation, action) pairs consumed",
    detail="environment interactions for RL, tokens for text",
    required=_TWO_OF_THREE,
    above=0,
    content=True,
    aliases=_names(
        "d n_samples num_samples tokens n_tokens num_tokens "
        "train_tokens frames env_steps environment_steps interactions "
        "transitions examples data"
    ),
)
_BUDGET = Column(
    name="budget",
    kind="number",
    symbol="C",
    unit="FLOP",
    meaning="nominal budget that the checkpoint stands for",
    required="for isoFLOP profiles",
    above=0,
    content=True,
    aliases=("flop_budget", "flops_budget", "compute_budget", "nominal_flops", "isoflop"),
)
_PROTOCOL = Column(
    name="protocol",
    kind="text",
    meaning="named, versioned evaluation protocol; returns of two protocols are never compared",
    required="with mean_return",
    content=True,
    aliases=("eval_protocol", "evaluation_protocol", "evaluation"),
)
_LEARNING_RATE = Column(
    name="learning_rate",
    kind="number",
    meaning="peak learning rate",
    above=0,
    aliases=("lr", "peak_lr", "max_lr"),
)
_BATCH_SIZE = Column(
    name="batch_size",
    kind="number",
    unit="samples",
    meaning="samples in an optimiser step",
    above=0,
    aliases=("batch", "bs", "global_batch_size"),
)
_EPOCHS = Column(
    name="epochs",
    kind="number",
    meaning="passes over the distinct samples",
    at_least=0,
    aliases=("epoch", "n_epochs", "num_epochs"),
)

RUN_COLUMNS: tuple[Column, ...] = (
    _RUN_ID,
    _AGENT,
    _TASK,
    _SEED,
    _PARAMS,
    Column(
        name="params_core",
        kind="number",
        symbol="N",
        unit="count",
        meaning="trainable parameters without embeddings",
        above=0,
        content=True,
        aliases=("non_embedding_params", "params_non_embedding", "core_params", "n_params_core"),
    ),
    _SAMPLES,
    Column(
        name="unique_samples",
        kind="number",
        symbol="U",
        unit="count",
        meaning="distinct samples among those consumed, when data are repeated",
        above=0,
        content=True,
        aliases=("unique_tokens", "dataset_size", "n_unique"),
    ),
    _EPOCHS,
    Column(
        name="flops",
        kind="number",
        symbol="C",
        unit="FLOP",
        meaning="compute spent so far, counted",
        detail="3 x the forward count of a step (+ rollouts for RL), multiply-add = 2, "
        "embeddings 0",
        required=_TWO_OF_THREE,
        above=0,
        content=True,
        aliases=_names("c flop compute train_flops training_flop training_flops total_flops"),
    ),
    _BUDGET,
    Column(
        name="loss",
        kind="number",
        symbol="L",
        unit="nats/action",
        meaning="held-out cross-entropy",
        required="loss or mean_return",
        content=True,
        aliases=_names(
            "eval_loss val_loss valid_loss validation_loss test_loss "
            "heldout_loss held_out_loss cross_entropy nll final_loss"
        ),
    ),
    Column(
        name="loss_se",
        kind="number",
        unit="nats/action",
        meaning="standard error of the loss",
        at_least=0,
        content=True,
        aliases=("loss_stderr", "loss_sem", "loss_std_error"),
    ),
    Column(
        name="mean_return",
        kind="number",
        symbol="R",
        unit="points",
        meaning="mean undiscounted return of the evaluation episodes",
        required="loss or mean_return",
        content=True,
        aliases=_names(
            "return returns reward mean_reward episode_return "
            "episode_reward eval_return eval_reward avg_return score "
            "mean_score"
        ),
    ),
    Column(
        name="return_se",
        kind="number",
        unit="points",
        meaning="standard error of the mean return",
        at_least=0,
        content=True,
        aliases=("return_stderr", "return_sem", "reward_se", "score_se"),
    ),
    Column(
        name="episodes",
        kind="whole",
        unit="count",
        meaning="evaluation episodes behind mean_return",
        at_least=1,
        content=True,
        aliases=("n_episodes", "num_episodes", "eval_episodes"),
    ),
    _PROTOCOL,
    Column(name="status", kind="text", meaning=f"one of {', '.join(STATUSES)}; empty means ok"),
    Column(name="note", kind="text", meaning="the reason of the status", aliases=("comment",)),
    Column(
        name="derived",
        kind="text",
        meaning="which of params, samples, flops was computed from the other two",
    ),
    _LEARNING_RATE,
    _BATCH_SIZE,
    Column(
        name="wall_seconds",
        kind="number",
        unit="s",
        meaning="wall-clock time of the run so far",
        at_least=0,
        aliases=("runtime", "wall_time", "duration", "_runtime", "elapsed"),
    ),
    Column(name="device", kind="text", meaning="what it ran on", aliases=("gpu", "hardware")),
    Column(name="git_commit", kind="text", meaning="commit of the trainer", aliases=("commit",)),
    Column(
        name="time_utc",
        kind="text",
        meaning="when the checkpoint was evaluated, ISO 8601 in UTC",
        aliases=("timestamp", "_timestamp", "created_at", "date"),
    ),
    Column(
        name="schema_version",
        kind="whole",
        meaning=f"version of this schema, {SCHEMA_VERSION}; last, so that a torn line shows",
        at_least=1,
    ),
)

EPISODE_COLUMNS: tuple[Column, ...] = (
    Column(name="run_id", kind="text", meaning="run of the evaluated checkpoint", required="yes"),
    Column(
        name="samples",
        kind="number",
        symbol="D",
        unit="count",
        meaning="samples of the evaluated checkpoint",
        required="yes",
        above=0,
    ),
    Column(
        name="budget",
        kind="number",
        symbol="C",
        unit="FLOP",
        meaning="budget of the evaluated checkpoint; needed where two budgets share its samples",
        above=0,
    ),
    Column(
        name="episode", kind="whole", meaning="number of the episode", required="yes", at_least=0
    ),
    Column(
        name="return",
        kind="number",
        symbol="R",
        unit="points",
        meaning="undiscounted return of the episode",
        required="yes",
        aliases=("reward", "score", "episode_return"),
    ),
    Column(
        name="length",
        kind="number",
        unit="steps",
        meaning="steps of the episode",
        at_least=0,
        aliases=("steps", "episode_length"),
    ),
)

PLAN_COLUMNS: tuple[Column, ...] = (
    Column(name="run_id", kind="text", meaning="name of the planned run", required="yes"),
    _AGENT,
    _TASK,
    Column(
        name="params",
        kind="number",
        symbol="N",
        unit="count",
        meaning="target size",
        required="yes",
        above=0,
    ),
    Column(
        name="samples",
        kind="number",
        symbol="D",
        unit="count",
        meaning="samples that the run is expected to consume",
        above=0,
    ),
    Column(
        name="budget",
        kind="number",
        symbol="C",
        unit="FLOP",
        meaning="compute at which the run ends",
        required="yes",
        above=0,
    ),
    Column(
        name="snapshots",
        kind="text",
        unit="FLOP",
        meaning='budgets at which a checkpoint is evaluated, joined by ";"',
    ),
    _SEED,
    _LEARNING_RATE,
    _BATCH_SIZE,
    _EPOCHS,
    _PROTOCOL,
    Column(
        name="forecast_hash", kind="text", meaning="content hash of the forecast that is tested"
    ),
)
