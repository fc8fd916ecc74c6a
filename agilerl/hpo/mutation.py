"""How agents change from one generation to the next."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch

from agilerl.algorithms import ALGORITHMS
from agilerl.devices import check_device
from agilerl.errors import ConfigError, check_bool, check_choice, check_float, refusing, suggest
from agilerl.hpo.foreign import ForeignAgent, check_layout
from agilerl.hpo.hyperparameters import Range, ranges_for
from agilerl.networks.base import EditRefused, EvolvableNetwork
from agilerl.networks.build import NET_CONFIG_KEYS
from agilerl.seeding import generator, load_stream_state, stream_state

#: Fraction of each weight matrix that a parameter mutation changes.
NOISY_FRACTION = 0.1
#: The label of an agent that should have got another shape, and whose networks have no other.
FIXED = "none (no network that can change its shape)"


def check_probability(field: str, value: object) -> float:
    """Return a relative probability: a finite number >= 0."""
    return check_float(field, value, low=0.0)


class Mutations:
    """Changes each agent of a population in one way, drawn anew each time.

    The five kinds have relative probabilities, which need not add up to 1.

    Args:
        algo: name of the algorithm, or a dict that names a foreign agent's networks:
            ``{"actor": {"eval": "actor", "target": "actor_target", "optimizer": "optimizer"},
            "critics": [{...}]}`` with the names of its attributes.
        no_mutation: relative probability that nothing changes.
        architecture: that the shape of the networks changes.
        new_layer_prob: within architecture, the probability that layers change and not units.
        parameters: that noise is put on the weights.
        activation: that the activation changes.
        rl_hp: that a learning hyper-parameter changes.
        rl_hp_selection: the hyper-parameters to choose from.
        mutation_sd: standard deviation of the relative noise on weights.
        arch: the networks' ``arch``, "mlp", "cnn" or "gpt"; a label.
        rand_seed: of all draws.
        device: checked, and otherwise the networks' own device counts.
        accelerator: must be None.
        ranges: of hyper-parameters, ``{"lr": (1e-5, 1e-2)}`` or ``{"lr": {"low": 1e-5, "high":
            1e-2}}``; see ``hpo.hyperparameters``.  For an agent that is outside of a range, it
            reaches to where that agent is.
        seed: another name for ``rand_seed``, which goes first.
        resample: probability that a hyper-parameter which changes is drawn anew from its range, as
            in population based training, and not moved.
        perturb_all: ``rl_hp`` changes all of ``rl_hp_selection``, as population based training
            does, and not one of them.
        restart: probability that an agent begins anew, in place of any mutation: ``newcomer``
            makes the agent that takes its place.  It learns from the experience that is shared
            (random immigrants, Grefenstette 1992; resets, Nikishin et al. 2022).
        newcomer: makes a new agent in the place of the one that it is given, from a seed.
    """

    def __init__(
        self,
        algo: str | Mapping[str, Any],
        no_mutation: float,
        architecture: float,
        new_layer_prob: float,
        parameters: float,
        activation: float,
        rl_hp: float,
        rl_hp_selection: Sequence[str],
        mutation_sd: float,
        arch: str = "mlp",
        rand_seed: int | None = None,
        device: str | torch.device = "cpu",
        accelerator: None = None,
        ranges: Mapping[str, tuple[float, float] | Range] | None = None,
        seed: int | None = None,
        resample: float = 0.0,
        perturb_all: bool = False,
        restart: float = 0.0,
        newcomer: Callable[[Any, int], Any] | None = None,
    ) -> None:
        if accelerator is not None:
            raise ConfigError("accelerator: only None is supported; pass device= to use a GPU.")
        self._layout = check_layout(algo) if isinstance(algo, Mapping) else None
        self.algo = algo if self._layout else check_choice("algo", algo, ALGORITHMS)
        kinds: dict[str, tuple[float, Callable[[Any], str]]] = {
            "no_mutation": (no_mutation, self._nothing),
            "architecture": (architecture, self._architecture),
            "parameters": (parameters, self._parameters),
            "activation": (activation, self._activation),
            "rl_hp": (rl_hp, self._hyperparameter),
        }
        weights = np.array([check_probability(name, p) for name, (p, _) in kinds.items()])
        if weights.sum() == 0:
            raise ConfigError(
                f"probabilities: {', '.join(kinds)} are all 0; no_mutation=1 leaves agents as they"
                " are."
            )
        self._kinds = [kind for _, kind in kinds.values()]
        self._weights = weights / weights.sum()
        self.new_layer_prob = check_float("new_layer_prob", new_layer_prob, 0.0, 1.0)
        self.mutation_sd = check_float("mutation_sd", mutation_sd, low=0.0)
        self.resample = check_float("resample", resample, 0.0, 1.0)
        self.perturb_all = check_bool("perturb_all", perturb_all)
        self.restart = check_float("restart", restart, 0.0, 1.0)
        if restart and newcomer is None:
            raise ConfigError("newcomer: restart > 0 needs a function that makes new agents.")
        self.newcomer = newcomer
        self.rl_hp_selection = list(rl_hp_selection)
        if rl_hp > 0 and not self.rl_hp_selection:
            raise ConfigError("rl_hp_selection: empty, while rl_hp > 0; name some, ['lr'] say.")
        name = self.algo if isinstance(self.algo, str) else None
        self.ranges = ranges_for(self.rl_hp_selection, ranges or {}, name)
        check_choice("arch", arch, (*NET_CONFIG_KEYS, "gpt"))
        self.arch = arch
        self.device = check_device(device)
        self.rng = generator(seed if rand_seed is None else rand_seed, "mutations")

    def state_dict(self) -> dict[str, Any]:
        """Return where the draws and the ranges stand, and the settings."""
        names = (
            "algo",
            "new_layer_prob",
            "rl_hp_selection",
            "mutation_sd",
            "arch",
            "resample",
            "perturb_all",
            "restart",
        )
        return {
            "settings": {
                **{name: copy.deepcopy(getattr(self, name)) for name in names},
                "probabilities": self._weights.tolist(),
            },
            "ranges": {name: asdict(found) for name, found in self.ranges.items()},
            "stream": stream_state(self.rng),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where the state was taken; the settings stay.

        Raises:
            CheckpointError: if the state is malformed; nothing has changed then.
        """
        with refusing("mutations"):
            ranges = {name: Range(**state["ranges"][name]) for name in self.ranges}
            for name, found in ranges.items():
                check_float(f"ranges[{name!r}]", found.low, high=check_float(name, found.high))
            rng = generator(0)
            load_stream_state(rng, state["stream"])
        self.ranges, self.rng = ranges, rng

    def mutation(self, pop: Sequence[Any]) -> list[Any]:
        """Mutate every agent of ``pop`` in place, but for marked elites, and return them.

        Where an agent begins anew, another stands in its place in the list that is returned.
        ``agent.mut`` says what changed; of those that stay as they are the first is the "elite",
        the others are each a "survivor".
        """
        agents = [self._present(agent) for agent in pop]
        for name in self.rl_hp_selection:
            for agent in agents:
                self._value(agent, name)  # raises before anything has changed
        mutated = [self._mutated(*pair) for pair in zip(pop, agents, strict=True)]
        kept = [agent for agent in mutated if getattr(agent, "elite", False)]
        for number, agent in enumerate(kept):
            agent.mut = "survivor" if number else "elite"
        return mutated

    def _mutated(self, agent: Any, presented: Any) -> Any:
        """Return the agent, mutated where it is no elite, or the one that takes its place."""
        if getattr(agent, "elite", False):
            return agent
        if self.restart and self.rng.random() < self.restart:
            return self._replaced(agent)
        kind = self._kinds[int(self.rng.choice(len(self._kinds), p=self._weights))]
        agent.mut = kind(presented)
        return agent

    def _replaced(self, agent: Any) -> Any:
        """Return a new agent that takes the place of ``agent``, and has no parent."""
        assert self.newcomer is not None
        new = self.newcomer(agent, int(self.rng.integers(2**31)))
        new.index, new.parent, new.elite, new.mut = agent.index, None, False, "restart"
        new.steps = list(agent.steps)
        return new

    def limit(self, name: str, high: float) -> None:
        """Let the hyper-parameter ``name`` grow no further than ``high``."""
        if name in self.ranges:
            old = self.ranges[name]
            self.ranges[name] = replace(old, low=min(old.low, high), high=min(old.high, high))

    def _present(self, agent: Any) -> Any:
        return agent if self._layout is None else ForeignAgent(agent, self._layout)

    @staticmethod
    def _value(agent: Any, name: str) -> float:
        try:
            value: float = getattr(agent, name)
        except AttributeError:
            known = [key for key in vars(agent) if not key.startswith("_")]
            raise ConfigError(
                f"rl_hp_selection: the agents have no {name!r}.{suggest(name, known)}"
            ) from None
        return value

    # ---------------------------------------------------------------------------------- the kinds

    def _nothing(self, agent: Any) -> str:
        return "none"

    def _hyperparameter(self, agent: Any) -> str:
        if self.perturb_all:
            return ", ".join(self._moved(agent, name) for name in self.rl_hp_selection)
        return self._moved(agent, str(self.rng.choice(self.rl_hp_selection)))

    def _moved(self, agent: Any, name: str) -> str:
        """Move a hyper-parameter of an agent, and say how."""
        old = self._value(agent, name)
        if self.resample and self.rng.random() < self.resample:
            new = self.ranges[name].at(self.rng.random())
        else:
            new = self.ranges[name].widened(old).mutate(old, self.rng)
        setattr(agent, name, new)
        return f"{name} {old:.3g} -> {new:.3g}"

    def _parameters(self, agent: Any) -> str:
        for network in agent.networks.values():
            for parameter in network.module.parameters():
                if parameter.dim() > 1:
                    self._add_noise(parameter)
        return "weights"

    def _add_noise(self, weight: torch.nn.Parameter) -> None:
        """Scale a random tenth of ``weight`` by 1 + Normal(0, mutation_sd)."""
        count = max(1, round(weight.numel() * NOISY_FRACTION))
        rows = self.rng.choice(weight.numel(), count, replace=False)
        noise = 1 + self.mutation_sd * self.rng.standard_normal(count)
        factor = np.ones(weight.numel(), np.float32)
        factor[rows] = noise
        with torch.no_grad():
            weight.mul_(torch.from_numpy(factor).to(weight).view(weight.shape))

    def _activation(self, agent: Any) -> str:
        networks = self._evolvables(agent)
        return self._edit(agent, networks, ("change_activation",)) if networks else FIXED

    def _architecture(self, agent: Any) -> str:
        networks = self._evolvables(agent)
        if not networks:
            return FIXED
        layers = self.rng.random() < self.new_layer_prob
        methods = networks[0].LAYER_EDITS if layers else networks[0].NODE_EDITS
        return self._edit(agent, networks, methods)

    @staticmethod
    def _evolvables(agent: Any) -> list[EvolvableNetwork]:
        """Return the networks that an edit changes together, the policy first.

        Modules of the user's own are not among them.
        """
        return [network for owned in agent.networks.values() for network in owned.evolvables]

    def _edit(self, agent: Any, networks: list[EvolvableNetwork], methods: Sequence[str]) -> str:
        """Make one edit, drawn for the policy, on every network, or on none."""
        method = str(self.rng.choice(list(methods)))
        try:
            first = networks[0].plan(method, self.rng)
            edits = [first, *(net.plan(method, self.rng, **first.choice) for net in networks[1:])]
        except EditRefused as refusal:
            return f"none ({method}: {refusal})"
        for network, edit in zip(networks, edits, strict=True):
            network.apply_edit(edit)
        for owned in agent.networks.values():
            owned.sync()
        choice = ", ".join(f"{value}" for value in first.choice.values())
        return f"{method}({choice})"
