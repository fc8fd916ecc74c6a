"""Is it the settings, or the schedule?  Single agents, trained again with what evolution found.

On fresh seeds, one agent follows the elite's schedule of hyper-parameters and network edits, and
another has the elite's final settings from the beginning.  Both see as many transitions a vector
step as the whole population did, make as many vector steps as the elite's line, and are evaluated
on 100 fresh episodes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

from agilerl.checkpoint import write_bytes
from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.components.spaces import agent_shape
from agilerl.errors import CheckpointError, check_int
from agilerl.runs.analysis import mean_interval
from agilerl.runs.evaluation import evaluate
from agilerl.runs.run_folder import SETTINGS, SUMMARY, environment_of, read_rows, read_yaml
from agilerl.seeding import derive
from agilerl.signals import Stopped, exit_code
from agilerl.training.train import train
from agilerl.utils.utils import initialPopulation, makeVectEnvs

#: How often an agent's settings may change while it trains.
CHANGES = 40
#: The two ways to train an agent again.
SCHEDULE, FINAL = "schedule", "final settings"


@dataclass(frozen=True)
class Retrained:
    """The mean return of each agent over 100 fresh episodes, by seed.

    Attributes:
        seeds: of the agents.
        schedule: of those that followed the elite's schedule, [seeds].
        final: of those that had its final settings all along, [seeds].
    """

    seeds: list[int]
    schedule: list[float]
    final: list[float]

    def __str__(self) -> str:
        """Return a Markdown table."""
        lines = [f"| seed | {SCHEDULE} | {FINAL} |", "| --- | ---: | ---: |"]
        for seed, one, other in zip(self.seeds, self.schedule, self.final, strict=True):
            lines.append(f"| {seed} | {one:.1f} | {other:.1f} |")
        cells = []
        for values in (self.schedule, self.final):
            mean, low, high = mean_interval(values)
            cells.append(f"{mean:.1f} ({low:.1f} to {high:.1f})" if low == low else f"{mean:.1f}")
        lines.append(f"| mean (95 % interval) | {cells[0]} | {cells[1]} |")
        return "\n".join(lines)


class Follow:
    """Stands for selection and mutation of one agent: sets what its schedule says, when it is due.

    Args:
        points: of the schedule, oldest first; the agent begins as the first says.
        episode_steps: environment steps of one of the agent's episodes.
    """

    def __init__(self, points: Sequence[Mapping[str, Any]], episode_steps: int) -> None:
        self.points = list(points[1:])
        self.episode_steps = episode_steps

    def select(self, pop: Sequence[Any]) -> tuple[Any, list[Any]]:
        """Return the agents as they are."""
        return pop[0], list(pop)

    def mutation(self, pop: Sequence[Any]) -> list[Any]:
        """Set what is due on the one agent."""
        (agent,) = pop
        while self.points and self.points[0]["episode"] <= agent.steps[-1] // self.episode_steps:
            point = self.points.pop(0)
            for name in agent.hyperparameters:
                setattr(agent, name, point[name])
            if point.get("edit"):
                edit_networks(agent, point["edit"])
        return list(pop)


def edit_networks(agent: Any, label: str) -> None:
    """Make the edit that a mutation's label names, ``add_node(0, 16)`` say, on every network."""
    match = re.fullmatch(r"(\w+)\((.*)\)", label)
    if match is None:
        raise CheckpointError(f"schedule: {label!r} is no edit of a network.")
    values = [text.strip() for text in match[2].split(",") if text.strip()]
    for owned in agent.networks.values():
        for network in owned.evolvables:
            method = getattr(type(network), match[1], None)
            if method is None or not hasattr(method, "__wrapped__"):
                raise CheckpointError(f"schedule: networks have no edit {match[1]!r}.")
            names = [
                n for n in signature(method.__wrapped__).parameters if n not in ("self", "rng")
            ]
            choice = {n: int(v) if v.isdigit() else v for n, v in zip(names, values, strict=False)}
            network.apply_edit(network.plan(match[1], None, **choice))
        owned.sync()


def retrain(
    path: str | Path, seeds: int = 5, *, env: Any = None, verbose: bool = True
) -> Retrained:
    """Train single agents along the elite's schedule, and with its final settings; see above.

    The table is also written into the folder, as ``retrain.md`` and ``retrain.json``.

    Args:
        path: folder of a run that ``evolve`` made.
        seeds: how many agents of each kind.
        env: the class or function that made the environment, where that was no id.
        verbose: print each result as it comes.

    Raises:
        CheckpointError: if the folder has no elite with a schedule.
    """
    folder, count = Path(path), check_int("seeds", seeds)
    settings, elite = read_yaml(folder, SETTINGS), read_yaml(folder, SUMMARY)
    points = elite.get("schedule")
    if not points or "schedule" not in settings:
        raise CheckpointError(
            f"{folder}: no schedule of an elite there; retrain needs a run of evolve()."
        )
    if "dataset" in settings:
        raise CheckpointError(
            f"{folder}: a run on recorded data; retrain follows a schedule in an environment."
        )
    given = environment_of(folder) if env is None else env
    rows = [row for row in read_rows(folder) if row["fitness"] >= elite["fitness"]]
    episodes = int(rows[0]["episode"]) if rows else int(points[-1]["episode"]) + 1
    numbers = [derive(settings["seed"], "retrain", number) for number in range(count)]
    found: dict[str, list[float]] = {SCHEDULE: [], FINAL: []}
    for seed in numbers:
        for kind, own in ((SCHEDULE, points), (FINAL, points[-1:])):
            mean = trained_again(given, settings, elite, own, episodes, seed)
            found[kind].append(mean)
            if verbose:
                print(f"seed {seed:>10}  {kind:<15} {mean:9.1f}", flush=True)
    result = Retrained(numbers, found[SCHEDULE], found[FINAL])
    write_bytes(folder / "retrain.md", f"{result}\n".encode())
    write_bytes(folder / "retrain.json", json.dumps(vars(result), indent=1).encode())
    return result


def trained_again(
    env: Any,
    settings: Mapping[str, Any],
    elite: Mapping[str, Any],
    points: Sequence[Mapping[str, Any]],
    episodes: int,
    seed: int,
) -> float:
    """Return the mean return of a single agent that was trained along ``points``."""
    pop_size = settings["init_hp"]["POP_SIZE"]
    vector = makeVectEnvs(env, num_envs=settings["envs"]["train"] * pop_size)
    eval_env = makeVectEnvs(env, num_envs=settings["envs"]["evaluate"])
    plan, agent = settings["schedule"], agent_at(points[0], elite, seed)
    follow = Follow(points, plan["max_steps"] * vector.num_envs)
    try:
        train(
            env=vector,
            env_name=settings["env"],
            algo=settings["algo"],
            pop=[agent],
            memory=ReplayBuffer(
                elite["initialPopulation"]["action_dim"],
                settings["init_hp"]["MEMORY_SIZE"],
                ["state", "action", "reward", "next_state", "done"],
                seed=seed,
            ),
            swap_channels=agent_shape(vector).channels_last,
            n_episodes=episodes,
            max_steps=plan["max_steps"],
            evo_epochs=max(1, episodes // CHANGES),
            eps_start=plan["eps_start"],
            eps_end=plan["eps_end"],
            eps_decay=plan["eps_decay"],
            target=None,
            tournament=follow,
            mutation=follow,
            seed=seed,
            eval_env=eval_env,
            eval_max_steps=1,  # what such an evaluation gives is not looked at
            verbose=False,
        )
        if exit_code():  # a signal has ended the training: this is no agent of the whole schedule
            raise Stopped
        return float(evaluate(agent, env, seed=derive(seed, "retrained")).mean)
    finally:
        vector.close()
        eval_env.close()


def agent_at(point: Mapping[str, Any], elite: Mapping[str, Any], seed: int) -> Any:
    """Return a new agent with the settings and networks that a point of a schedule says."""
    again = elite["initialPopulation"]
    named = {name.upper(): value for name, value in point.items()}
    start = {key: named.get(key, value) for key, value in again["INIT_HP"].items()}
    net_config = {**again["net_config"], **shape_of(point["architecture"], again["net_config"])}
    (agent,) = initialPopulation(**{**again, "INIT_HP": start, "net_config": net_config}, seed=seed)
    return agent


def shape_of(architecture: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hidden sizes that the summary of a multi-layer perceptron names."""
    if config.get("arch") != "mlp":
        return {}
    sizes = [int(n) for n in re.findall(r"\d+", architecture.split()[0])]
    return {"h_size": sizes, "activation": architecture.split()[1]} if sizes else {}


__all__ = ["Retrained", "retrain"]
