"""The settings of a run: defaults for a blind start, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from agilerl.algorithms import AGENTS
from agilerl.algorithms.settings import hyperparameters_of
from agilerl.components.make_env import make_env
from agilerl.components.spaces import agent_shape
from agilerl.errors import ConfigError, DatasetError, check_choice, check_keys
from agilerl.hpo.mutation import Mutations
from agilerl.hpo.selection import TruncationSelection
from agilerl.runs.evaluation import LONGEST, is_maker
from agilerl.utils.utils import initialPopulation, makeVectEnvs

#: The start of every run that names nothing: each agent draws its own values.  A range is written
#: ``{"low": ..., "high": ...}``, as in YAML; ``(low, high)`` is the same.
INIT_HP: dict[str, Any] = {
    "POP_SIZE": 4,
    "LR": {"low": 1e-5, "high": 1e-2},
    "BATCH_SIZE": {"low": 16, "high": 256},
    "LEARN_STEP": {"low": 1, "high": 4},
    "TAU": {"low": 1e-3, "high": 3e-2},
    "DOUBLE": [True, False],
    "HUBER": [True, False],
    "AVERAGED_POLICY": True,
    "SCALE_OBSERVATIONS": True,
    "GAMMA": 0.99,
    "MEMORY_SIZE": 200_000,
}
#: Likewise of the networks: each agent draws the width of its hidden layers.
NET_CONFIG: dict[str, dict[str, Any]] = {
    "mlp": {"arch": "mlp", "h_size": {"layers": 2, "units": {"low": 32, "high": 128}}},
    "cnn": {"arch": "cnn", "h_size": {"layers": 1, "units": {"low": 64, "high": 256}}},
}
#: Relative probabilities of mutations, with the README's names.
MUTATION_PARAMS: dict[str, Any] = {
    "NO_MUT": 0.0,
    "ARCH_MUT": 0.2,
    "NEW_LAYER": 0.2,
    "PARAMS_MUT": 0.0,
    "ACT_MUT": 0.0,
    "RL_HP_MUT": 0.8,
    "RL_HP_SELECTION": ["lr", "batch_size", "learn_step", "tau"],
    "MUT_SD": 0.1,
    "RESAMPLE": 0.25,
    "PERTURB_ALL": True,
    "RESTART": 0.6,
}
#: How a run goes on; see ``train()``.
SCHEDULE: dict[str, Any] = {
    "max_steps": 500,
    "evo_epochs": "auto",
    "select_every": 2,
    "race": 2,
    "gradient_steps": 3,
    "eps_start": 1.0,
    "eps_end": 0.05,
    "eps_decay": 0.7,
}
#: What differs where agents learn from recorded data: an episode is so many learn calls.
OFFLINE_HP: dict[str, Any] = {
    "LR": {"low": 1e-4, "high": 1e-2},
    "BATCH_SIZE": {"low": 64, "high": 512},
    "LEARN_STEP": 1,
    "ALPHA": {"low": 0.3, "high": 10.0},
    "SCALE_OBSERVATIONS": False,
}
OFFLINE_MUTATION: dict[str, Any] = {
    "RL_HP_SELECTION": ["lr", "batch_size", "tau", "alpha"],
    "RESTART": 0.3,
}
OFFLINE_SCHEDULE: dict[str, Any] = {
    "max_steps": 250,
    "evo_epochs": 1,
    "select_every": 2,
    "race": 2,
}
#: Sub-environments of each agent to train in, and to evaluate in.
ENVS = {"train": 1, "evaluate": 2}
OFFLINE_ENVS = {"train": 1, "evaluate": 5}
#: Share of a population's places whose agents are replaced at a selection.
FRACTION = 0.25
#: Keys of INIT_HP that ``evolve`` has arguments or rules for.
NOT_HERE = (
    "ENV_NAME",
    "DATASET",
    "ALGO",
    "EPISODES",
    "TARGET_SCORE",
    "TOURN_SIZE",
    "ELITISM",
    "EVO_EPOCHS",
)


def settings_of(
    env: Any,
    algo: str | None = None,
    init_hp: Mapping[str, Any] | None = None,
    net_config: Mapping[str, Any] | None = None,
    mutation_params: Mapping[str, Any] | None = None,
    dataset: str | Path | None = None,
) -> dict[str, Any]:
    """Return the settings of a run as plain values: what ``settings.yaml`` holds."""
    vector = environments_of(env)
    try:
        shape, spec = agent_shape(vector), getattr(vector, "spec", None)
    finally:
        vector.close()
    check_given(init_hp or {}, mutation_params or {})
    offline = dataset is not None
    natural = "CQN" if offline and shape.algo == "DQN" else shape.algo
    algo = check_choice("algo", algo or natural, AGENTS)
    mutation = {**MUTATION_PARAMS, **(OFFLINE_MUTATION if offline else {})}
    own = hyperparameters_of(AGENTS[algo])
    mutation["RL_HP_SELECTION"] = [name for name in mutation["RL_HP_SELECTION"] if name in own]
    settings: dict[str, Any] = plain_ranges(
        {
            "env": name_of(env),
            "algo": algo,
            **({} if dataset is None else {"dataset": str(found_data(dataset))}),
            "reward_threshold": getattr(spec, "reward_threshold", None),
            "eval_max_steps": getattr(spec, "max_episode_steps", None) or LONGEST,
            "init_hp": {**INIT_HP, **(OFFLINE_HP if offline else {}), **(init_hp or {})},
            "net_config": dict(net_config or NET_CONFIG[shape.arch]),
            "mutation_params": {**mutation, **(mutation_params or {})},
            "envs": OFFLINE_ENVS if offline else ENVS,
            "schedule": OFFLINE_SCHEDULE if offline else SCHEDULE,
        }
    )
    return settings


def found_data(dataset: str | Path) -> Path:
    """Return the whole path of a data set; raise ``DatasetError`` if there is no such file."""
    path = Path(dataset).absolute()
    if not path.is_file():
        raise DatasetError(
            f"dataset: no file {path}; `python -m agilerl.data.collect` records one, and"
            " `python demo_offline.py` one of random actions."
        )
    return path


def environments_of(env: Any) -> Any:
    """Return a vector environment of one, to look at; raise if a run can't make several."""
    if not is_maker(env):
        raise ConfigError(
            "env: expected a gymnasium id, or a class or function that makes an environment (a run"
            f" needs several); got an instance of {type(env).__name__}, pass the class."
        )
    return makeVectEnvs(env, num_envs=1)


def check_given(init_hp: Mapping[str, Any], mutation_params: Mapping[str, Any]) -> None:
    """Raise ``ConfigError`` on keys that ``evolve`` does not know, or has arguments for."""
    check_keys("mutation_params", mutation_params, (*MUTATION_PARAMS, "RAND_SEED"))
    for key in NOT_HERE:
        if key in init_hp:
            raise ConfigError(
                f"init_hp: {key!r} is for loops of one's own; evolve() has arguments for the"
                " environment, the data set, the algorithm and the limits, and selects by"
                " truncation."
            )


def plain_ranges(value: Any) -> Any:
    """Return settings with every pair ``(low, high)`` as a dict, as YAML writes a range."""
    if isinstance(value, Mapping):
        return {key: plain_ranges(item) for key, item in value.items()}
    if isinstance(value, tuple) and len(value) == 2:
        return {"low": value[0], "high": value[1]}
    return value


def name_of(env: Any) -> str:
    """Return the id of an environment, or the name of what makes it."""
    if not isinstance(env, str):
        return str(getattr(env, "__qualname__", type(env).__name__))
    made = make_env(env)  # the id of today, where the one that was given has retired
    try:
        return made.spec.id if made.spec is not None else env
    finally:
        made.close()


def evolution_of(settings: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the selection and the mutations of a run; a single agent has none."""
    count, seed = settings["init_hp"]["POP_SIZE"], settings["seed"]
    if count == 1:
        return None, None
    return TruncationSelection(count, FRACTION, seed=seed), mutations_of(settings, seed)


def mutations_of(settings: Mapping[str, Any], seed: int) -> Mutations:
    """Return the mutations of a run; they move within the ranges of its start."""
    given, hp = settings["mutation_params"], settings["init_hp"]
    names = list(given["RL_HP_SELECTION"])
    ranges = {name: hp.get(name.upper()) for name in names}
    moving: dict[str, Any] = {k: v for k, v in ranges.items() if isinstance(v, Mapping)}
    return Mutations(
        algo=settings["algo"],
        no_mutation=given["NO_MUT"],
        architecture=given["ARCH_MUT"],
        new_layer_prob=given["NEW_LAYER"],
        parameters=given["PARAMS_MUT"],
        activation=given["ACT_MUT"],
        rl_hp=given["RL_HP_MUT"],
        rl_hp_selection=names,
        mutation_sd=given["MUT_SD"],
        arch=settings["net_config"]["arch"],
        rand_seed=given.get("RAND_SEED", seed),
        ranges=moving,
        resample=given["RESAMPLE"],
        perturb_all=given.get("PERTURB_ALL", False),
        restart=given.get("RESTART", 0.0),
        newcomer=partial(newcomer, settings),
    )


def newcomer(settings: Mapping[str, Any], agent: Any, seed: int) -> Any:
    """Return a new agent in the place of ``agent``, drawn as those of the first population."""
    bounds = {name: getattr(agent, name, None) for name in ("min_action", "max_action")}
    (new,) = initialPopulation(
        settings["algo"],
        agent.state_dim,
        agent.action_dim,
        agent.one_hot,
        settings["net_config"],
        settings["init_hp"],
        seed=seed,
        **bounds,  # type: ignore[arg-type]
    )
    return new
