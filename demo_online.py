"""Train a population in a gymnasium environment until it is solved, with evolution on.

    python demo_online.py                       DQN agents on LunarLander
    python demo_online.py --env Pendulum-v1     DDPG agents, chosen by the kind of action

At the end ``runs/NAME/`` holds the training curve, the history and the elite.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from pathlib import Path

from gymnasium import spaces

from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.errors import AgileRLError
from agilerl.hpo.mutation import Mutations
from agilerl.hpo.tournament import TournamentSelection
from agilerl.training.report import RunFolder
from agilerl.training.train import train
from agilerl.utils.utils import initialPopulation, makeVectEnvs, printHyperparams

INIT_HP = {
    "DOUBLE": True,  # Use double Q-learning (DQN)
    "HUBER": True,  # Clip the gradient of large TD errors (DQN)
    "BATCH_SIZE": 64,
    "LR": 1e-3,  # where evolution starts
    "GAMMA": 0.99,
    "LEARN_STEP": 1,  # one learn step for each vector step
    "TAU": 5e-3,
    "POLICY_FREQ": 2,  # DDPG
    "MEMORY_SIZE": 200_000,
    "TOURN_SIZE": 2,
    "ELITISM": True,
    "EVO_EPOCHS": 6,  # episodes between evaluations
}
NUM_ENVS = 4
EVAL_ENVS = 8  # evaluation episodes of each agent
MAX_STEPS = 500  # vector steps in an episode
LONGEST_EVALUATION = 1000  # vector steps, where the environment has no time limit


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="LunarLander-v3", help="gymnasium id (%(default)s)")
    parser.add_argument(
        "--episodes", type=int, default=400, help="at most, for each agent (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=None, help="one integer reproduces the run")
    parser.add_argument("--pop-size", type=int, default=6, help="number of agents (%(default)s)")
    parser.add_argument("--out", default="runs", help="folder of run folders (%(default)s)")
    parser.add_argument("--wandb", action="store_true", help="log to Weights & Biases")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> None:
    """Train, write the run folder, and say what was found."""
    seed = secrets.randbelow(2**31) if options.seed is None else options.seed
    env = makeVectEnvs(options.env, num_envs=NUM_ENVS, seed=seed)
    eval_env = makeVectEnvs(options.env, num_envs=EVAL_ENVS, seed=seed + 1)
    observation, action = env.single_observation_space, env.single_action_space

    one_hot = isinstance(observation, spaces.Discrete)
    images = len(observation.shape) == 3
    channels_last = images and observation.shape[2] < observation.shape[0]
    state_dim = int(observation.n) if one_hot else observation.shape
    if channels_last:
        state_dim = (state_dim[2], state_dim[0], state_dim[1])
    discrete = isinstance(action, spaces.Discrete)
    action_dim = int(action.n) if discrete else action.shape[0]
    algo = "DQN" if discrete else "DDPG"
    arch = "cnn" if images else "mlp"
    net_config = {"arch": arch, "h_size": [128] if images else [128, 128]}
    target = env.spec.reward_threshold

    pop = initialPopulation(
        algo=algo,
        state_dim=state_dim,
        action_dim=action_dim,
        one_hot=one_hot,
        net_config=net_config,
        INIT_HP=INIT_HP,
        population_size=options.pop_size,
        seed=seed,
    )
    memory = ReplayBuffer(
        action_dim=action_dim,
        memory_size=INIT_HP["MEMORY_SIZE"],
        field_names=["state", "action", "reward", "next_state", "done"],
        seed=seed,
    )
    tournament = TournamentSelection(
        tournament_size=min(INIT_HP["TOURN_SIZE"], options.pop_size),
        elitism=INIT_HP["ELITISM"],
        population_size=options.pop_size,
        evo_step=2,  # fitness over two generations: one is noisy
        seed=seed,
    )
    mutations = Mutations(
        algo=algo,
        no_mutation=0.5,
        architecture=0.2,
        new_layer_prob=0.2,
        parameters=0,
        activation=0,
        rl_hp=0.3,
        rl_hp_selection=["lr", "batch_size"],
        mutation_sd=0.1,
        arch=arch,
        rand_seed=seed,
        ranges={"lr": (2e-4, 2e-3), "batch_size": (32, 256)},
    )

    name = f"{options.env.replace('/', '-')}-{algo}-{time.strftime('%Y%m%d-%H%M%S')}-seed{seed}"
    folder = RunFolder(Path(options.out) / name, options.env, channels_last)
    print(f"{algo} on {options.env}: {options.pop_size} agents, seed {seed}", flush=True)
    trained_pop, pop_fitnesses = train(
        env=env,
        env_name=options.env,
        algo=algo,
        pop=pop,
        memory=memory,
        swap_channels=channels_last,
        n_episodes=options.episodes,
        max_steps=MAX_STEPS,
        evo_epochs=INIT_HP["EVO_EPOCHS"],
        evo_loop=1,
        eps_start=1.0,
        eps_end=0.05,
        eps_decay=0.7,
        target=target,
        tournament=tournament,
        mutation=mutations,
        wb=options.wandb,
        seed=seed,
        callbacks=[folder.history],
        eval_env=eval_env,
        eval_max_steps=env.spec.max_episode_steps or LONGEST_EVALUATION,
    )
    printHyperparams(trained_pop)
    settings = {"seed": seed, "episodes": options.episodes, "population_size": options.pop_size}
    print(folder.describe(folder.write(trained_pop, target, settings)))
    if not pop_fitnesses:
        print("stopped before the first evaluation: the elite is an untrained agent")


def main() -> int:
    """Run the demo; errors that a user can mend are one line."""
    try:
        run(parse())
    except AgileRLError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
