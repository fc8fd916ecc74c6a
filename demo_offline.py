"""Train a population on recorded data alone; the environment is there to evaluate.

    python demo_offline.py                      CQN agents on random CartPole data
    python demo_offline.py --env Pendulum-v1    DDPG agents, chosen by the kind of action
    python demo_offline.py --resume runs/NAME   go on with a run

Data that is not there is recorded first. At the end ``runs/NAME/`` holds the training curve, the
history and the best agent; ``agilerl report runs/NAME`` shows what evolution did.
"""

from __future__ import annotations

import argparse
import secrets
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.components.spaces import agent_shape
from agilerl.data.collect import record
from agilerl.data.offline_dataset import OfflineDataset
from agilerl.errors import AgileRLError
from agilerl.hpo.mutation import Mutations
from agilerl.hpo.tournament import TournamentSelection
from agilerl.runs.evaluation import evaluate
from agilerl.runs.run_folder import SETTINGS, RunFolder, load_elite, read_yaml
from agilerl.seeding import derive
from agilerl.signals import exit_code
from agilerl.training.train_offline import train
from agilerl.utils.utils import initialPopulation, makeVectEnvs, printHyperparams

INIT_HP = {
    "DOUBLE": True,  # Use double Q-learning (CQN)
    "ALPHA": 3.0,  # weight of the conservative penalty (CQN)
    "GAMMA": 0.99,
    "LEARN_STEP": 1,
    "TAU": 1e-2,
    "POLICY_FREQ": 2,  # DDPG
    "TOURN_SIZE": 2,
    "ELITISM": True,
    "EVO_EPOCHS": 1,  # episodes between evaluations
}
#: Learning rates: where evolution starts, and how far it goes.  Random CartPole data says nothing
#: of the edges of the track, so that CQN agents which balance equally well by the data drift or
#: don't: large steps and noise on weights make different ones, and evaluation finds the steady one.
LR = {"CQN": 3e-3, "DDPG": 1e-3}
LR_RANGE = {"CQN": (1e-3, 6e-3), "DDPG": (1e-4, 3e-3)}
BATCH_SIZES = (128, 256, 512)  # the smallest, the first, the largest
NET_CONFIG = {"arch": "mlp", "h_size": [32, 32]}
EVAL_ENVS = 10  # evaluation episodes of each agent
MAX_STEPS = 250  # learn calls in an episode
LONGEST_EVALUATION = 1000  # steps, where the environment has no time limit
DATA_STEPS = 100_000
DATASETS = {"CartPole-v1": "data/cartpole/cartpole_random_v1.1.0.h5"}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="CartPole-v1", help="gymnasium id (%(default)s)")
    parser.add_argument("--dataset", default=None, help="HDF5 file; recorded if it is not there")
    parser.add_argument(
        "--episodes",
        type=int,
        default=200,
        help=f"of {MAX_STEPS} learn calls at most, for each agent (%(default)s)",
    )
    parser.add_argument("--seed", type=int, default=None, help="one integer reproduces the run")
    parser.add_argument("--pop-size", type=int, default=6, help="number of agents (%(default)s)")
    parser.add_argument("--out", default="runs", help="folder of run folders (%(default)s)")
    parser.add_argument("--resume", metavar="RUN", help="folder of a run to go on with")
    parser.add_argument("--wandb", action="store_true", help="log to Weights & Biases")
    return parser.parse_args(arguments)


def find_data(env_name: str, path: str | None) -> Path:
    """Return the path of the data set, after recording random actions if it is not there."""
    name = env_name.replace("/", "-")
    file = Path(path or DATASETS.get(env_name, f"data/{name}/{name}_random.h5"))
    if not file.exists():
        print(f"{file}: not there; recording {DATA_STEPS:,} random steps", flush=True)
        record(env_name, "random", DATA_STEPS, seed=0).save(file)
    return file


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Train, write the run folder, say what was found, and return its summary."""
    seed = secrets.randbelow(2**31) if options.seed is None else options.seed
    if options.resume is not None:
        earlier = read_yaml(options.resume, SETTINGS)
        seed, options.env = earlier["seed"], earlier["env"]
    env = makeVectEnvs(options.env, num_envs=EVAL_ENVS, seed=seed)
    dataset = OfflineDataset.from_hdf5(find_data(options.env, options.dataset), env)

    shape = agent_shape(env)
    algo = "CQN" if shape.algo == "DQN" else shape.algo
    net_config = {"arch": "cnn", "h_size": [128]} if shape.arch == "cnn" else NET_CONFIG
    target = env.spec.reward_threshold
    batches = [min(size, len(dataset)) for size in BATCH_SIZES]

    pop = initialPopulation(
        algo=algo,
        **shape.arguments,
        net_config=net_config,
        INIT_HP={**INIT_HP, "LR": LR[algo], "BATCH_SIZE": batches[1]},
        population_size=options.pop_size,
        seed=seed,
    )
    memory = ReplayBuffer(
        action_dim=shape.arguments["action_dim"],
        memory_size=len(dataset),
        field_names=["state", "action", "reward", "next_state", "done"],
        seed=seed,
    )
    tournament = TournamentSelection(
        tournament_size=min(INIT_HP["TOURN_SIZE"], options.pop_size),
        elitism=INIT_HP["ELITISM"],
        population_size=options.pop_size,
        evo_step=1,
        seed=seed,
    )
    mutations = Mutations(
        algo=algo,
        no_mutation=0.3,
        architecture=0.2,
        new_layer_prob=0.2,
        parameters=0.3,
        activation=0,
        rl_hp=0.2,
        rl_hp_selection=["lr", "batch_size"],
        mutation_sd=0.5,
        arch=net_config["arch"],
        rand_seed=seed,
        ranges={"lr": LR_RANGE[algo], "batch_size": (batches[0], batches[2])},
    )

    settings = {
        "env": options.env,
        "algo": algo,
        "seed": seed,
        "target": target,
        "episodes": options.episodes,
        "population_size": options.pop_size,
        "dataset": dataset.report.where,
        "dataset_return": dataset.report.mean_return,
        "policy_return": dataset.policy_mean_return,
        "command": command_of(options, seed),
    }
    name = f"{options.env.replace('/', '-')}-{algo}-{time.strftime('%Y%m%d-%H%M%S')}-seed{seed}"
    path = Path(options.resume or Path(options.out) / name)
    folder = RunFolder(path, settings)
    print(f"{algo} on data of {options.env}: {options.pop_size} agents, seed {seed}", flush=True)
    trained_pop, pop_fitnesses = train(
        env=env,
        env_name=options.env,
        dataset=dataset,
        algo=algo,
        pop=pop,
        memory=memory,
        swap_channels=shape.channels_last,
        n_episodes=options.episodes,
        max_steps=MAX_STEPS,
        evo_epochs=INIT_HP["EVO_EPOCHS"],
        evo_loop=1,
        target=target,
        tournament=tournament,
        mutation=mutations,
        wb=options.wandb,
        seed=seed,
        callbacks=[folder],
        checkpoint=INIT_HP["EVO_EPOCHS"],
        checkpoint_path=path,
        resume=options.resume is not None,
        eval_max_steps=env.spec.max_episode_steps or LONGEST_EVALUATION,
    )
    printHyperparams(trained_pop)
    elite = load_elite(path) if pop_fitnesses else trained_pop[0]
    found = evaluate(elite, options.env, seed=derive(seed, "report"))
    settings["elite_return"] = folder.settings["elite_return"] = found.mean
    if folder.best_ever is not None:
        folder.save_elite({"mean": found.mean, "ci95": list(found.ci95), "episodes": 100})
    folder.close(target)
    print(f"written    {path}/")
    print(f"replay     {sys.executable} -m agilerl evaluate {path}")
    print(compared(settings))
    return settings


def command_of(options: argparse.Namespace, seed: int) -> str:
    """Return the command that repeats this run."""
    words = [sys.executable, "demo_offline.py", "--env", options.env, "--seed", str(seed)]
    words += ["--episodes", str(options.episodes), "--pop-size", str(options.pop_size)]
    return shlex.join([*words, *(["--dataset", options.dataset] if options.dataset else [])])


def compared(settings: dict[str, Any]) -> str:
    """Return how the elite compares with the data that it learnt from."""
    parts = [f"elite {settings['elite_return']:.1f} (100 fresh episodes)"]
    for key, label in (("dataset_return", "data set"), ("policy_return", "the policy behind it")):
        if settings[key] is not None:
            parts.append(f"{label} {settings[key]:.1f}")
    return f"mean return   {', '.join(parts)}"


def main() -> int:
    """Run the demo; errors that a user can mend are one line."""
    try:
        run(parse())
    except AgileRLError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return exit_code()


if __name__ == "__main__":
    sys.exit(main())
