"""Settings of language runs; ``yaml_config`` reads them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class DataConfig:
    """Which games to learn from; they are made on the first run if the file is missing.

    Attributes:
        path: HDF5 file; "auto" is a name made of the settings below, under ``data/wordle``.
        words: number of answers (and no other guesses); null is the full list.
        vocabulary: text file of your own answers.
        guesses: text file of further words that may be guessed.
        policy: who plays, see ``agilerl.wordle.policies``.
        games: number of games to make.
        seed: of the games.
        format: of the tokens, see ``agilerl.wordle.tokenizer``.
    """

    path: str = "auto"
    words: int | None = 100
    vocabulary: str | None = None
    guesses: str | None = None
    policy: str = "mixture"
    games: int = 50_000
    seed: int = 0
    format: str = "slots"


@dataclass(frozen=True)
class ModelConfig:
    """The language model.

    Attributes:
        load: where to start: a checkpoint of this library (``*.pt``), a directory with a
            Hugging Face GPT-2, or the name of one on the hub; null draws the weights.  The sizes
            below are then those of what is loaded; one that is given must agree.
        n_layer: number of blocks.
        n_embd: width.
        n_head: attention heads of a block.
        dim_feedfwd: width of the feed-forward layers; null is ``4 * n_embd``.
        dropout: probability.
        activation: of the feed-forward layers.
        min_layers: mutations leave no fewer blocks.
        max_layers: nor more.
    """

    load: str | None = None
    n_layer: int | None = None
    n_embd: int | None = None
    n_head: int | None = None
    dim_feedfwd: int | None = None
    dropout: float | None = None
    activation: str | None = None
    min_layers: int = 1
    max_layers: int = 16


@dataclass(frozen=True)
class BCConfig:
    """Settings of ``BC_LM``; see there."""

    batch_size: int = 64
    lr: float = 1e-3
    accumulate: int = 1
    clip: float = 1.0
    bf16: bool = False


@dataclass(frozen=True)
class ILQLConfig(BCConfig):
    """Settings of ``ILQL``; see there."""

    gamma: float = 0.99
    tau: float = 5e-3
    expectile: float = 0.7
    beta: float = 4.0
    min_p: float = 0.01
    cql: float = 0.01
    policy_weight: float = 1.0
    sharpness: float = 0.0
    monte_carlo: int = 0


@dataclass(frozen=True)
class TrainConfig:
    """How long, and how the learning rate goes.

    Attributes:
        updates: learn steps of each agent.
        eval_every: learn steps between evaluations (a generation); checkpoints are made there.
        report_every: learn steps between two looks at the progress line.
        warm_up: learn steps over which the learning rate rises from 0.
        final_lr: what a cosine brings it down to at the end, as a share of its height.
        target: the run ends when the best agent's mean reward reaches this; null never.
        threads: of torch; null is one for networks below two million parameters, and beyond what
            torch has set.  Workers use as many each.
        workers: processes on this machine that train and evaluate the agents side by side; 0 does
            it in one, "auto" takes one for each core that is there, as far as there are agents.
            The numbers are the same for any of them.
    """

    updates: int = 2000
    eval_every: int = 250
    report_every: int = 25
    warm_up: int = 100
    final_lr: float = 0.05
    target: float | None = None
    threads: int | None = None
    workers: int | str = 0


@dataclass(frozen=True)
class EvaluateConfig:
    """Games played to measure.

    Attributes:
        games: at each evaluation, greedily; the same words for all agents.
        final_games: for the table at the end.  The hidden words of both are dealt from the whole
            list in turn: with a list no longer than that, every word is in both.
        temperatures: of the sampled policies in the table.
        betas: of the perturbed policies in the table (ILQL).
    """

    games: int = 200
    final_games: int = 1000
    temperatures: tuple[float, ...] = (0.5, 1.0)
    betas: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0)


@dataclass(frozen=True)
class PopulationConfig:
    """Evolution; with ``size`` 1 there is none.

    Attributes:
        size: number of agents.
        lr: learning rates that they start with, in turn; empty starts all with ``agent.lr``.
        tournament: agents that compete for each slot.
        elitism: the best one goes on unchanged.
        no_mutation: relative probability that a child stays as it is.
        architecture: that its shape changes.
        new_layer: within architecture, the probability of blocks (else heads and units).
        parameters: that noise is put on the weights.
        activation: that the activation changes.
        rl_hp: that a hyper-parameter changes.
        rl_hp_selection: those to choose from; empty takes all that the algorithm has.
        mutation_sd: size of the noise.
    """

    size: int = 1
    lr: tuple[float, ...] = ()
    tournament: int = 2
    elitism: bool = True
    no_mutation: float = 0.3
    architecture: float = 0.2
    new_layer: float = 0.3
    parameters: float = 0.0
    activation: float = 0.0
    rl_hp: float = 0.5
    rl_hp_selection: tuple[str, ...] = ()
    mutation_sd: float = 0.05


@dataclass(frozen=True)
class RunConfig:
    """What both algorithms' runs have in common.

    Attributes:
        name: of the run; its files are in ``<out>/<name>``.
        out: directory of runs.
        seed: of everything that is drawn, data aside.
        device: where the networks live.
        resume: true goes on from the last evaluation of the run of this name, auto begins one where
            there is none, force goes on though settings differ.
        wandb: log to Weights & Biases.
    """

    name: str = "run"
    out: str = "runs"
    seed: int = 0
    device: str = "cpu"
    resume: bool | str = False
    wandb: bool = False
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    population: PopulationConfig = field(default_factory=PopulationConfig)

    @property
    def directory(self) -> Path:
        """Where the files of the run go."""
        return Path(self.out) / self.name


@dataclass(frozen=True)
class BCRunConfig(RunConfig):
    """A run of behavioural cloning."""

    agent: BCConfig = field(default_factory=BCConfig)


@dataclass(frozen=True)
class ILQLRunConfig(RunConfig):
    """A run of implicit language Q-learning."""

    agent: ILQLConfig = field(default_factory=ILQLConfig)
