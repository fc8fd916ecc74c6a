"""What an optimiser remembers, carried from one set of parameters to the next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from agilerl.networks.base import Edit, Params

Held = Mapping[str, nn.Parameter]


def moments_of(optimizer: torch.optim.Optimizer, held: Held) -> dict[str, Params]:
    """Return, by parameter name, what is remembered of each entry (Adam's moments, say).

    It is empty before the first step; after it, a parameter that has not moved has zeros.
    """
    found = {
        name: {
            key: value
            for key, value in optimizer.state[p].items()
            if torch.is_tensor(value) and value.shape == p.shape and key != "step"
        }
        for name, p in held.items()
        if optimizer.state.get(p)
    }
    keys = {key for entry in found.values() for key in entry}
    return {
        name: {key: found.get(name, {}).get(key, torch.zeros_like(p)) for key in keys}
        for name, p in (held.items() if keys else ())
    }


def carry_moments(moments: dict[str, Params], edit: Edit, head: str) -> None:
    """Carry the moments of the parameters whose names begin with ``head`` along with an edit."""
    own = {name[len(head) :]: moments.pop(name) for name in list(moments) if name.startswith(head)}
    for key in {key for entry in own.values() for key in entry}:
        before = {name: entry[key] for name, entry in own.items()}
        for name, value in edit.transfer(before, True).items():
            moments.setdefault(head + name, {})[key] = value


def fits(optimizer: torch.optim.Optimizer, p: nn.Parameter) -> bool:
    """Return whether what is remembered of ``p`` has its dtype and device."""
    moments = moments_of(optimizer, {"p": p}).get("p", {}).values()
    return all((m.dtype, m.device) == (p.dtype, p.device) for m in moments)


def rest_of(optimizer: torch.optim.Optimizer, held: Held) -> dict[str, Any]:
    """Return what is remembered of the parameters as wholes: the number of steps.

    Where some have made fewer steps, being frozen for a time, it is that of the others.
    """
    wholes: list[dict[str, Any]] = []
    for p in held.values():
        state = optimizer.state.get(p)
        if state:
            moments = moments_of(optimizer, {"p": p})["p"]
            wholes.append({key: value for key, value in state.items() if key not in moments})
    return max(wholes, key=lambda whole: float(whole.get("step", 0)), default={})


def homes_of(optimizer: torch.optim.Optimizer, held: Held, live: Held) -> dict[str, int | None]:
    """Return, by name of a live parameter, the number of the group that it belongs to.

    It is that of the parameter of this name; a new one joins those of its kind (weight or bias).
    """
    groups = {id(p): i for i, group in enumerate(optimizer.param_groups) for p in group["params"]}
    homes = {name: groups.get(id(p)) for name, p in held.items()}
    known = [(name.rpartition(".")[2], home) for name, home in homes.items() if home is not None]
    kinds = dict(reversed(known))
    first = known[0][1] if known else None
    return {name: homes.get(name, kinds.get(name.rpartition(".")[2], first)) for name in live}


def adopt(
    optimizer: torch.optim.Optimizer,
    held: Held,
    live: Held,
    moments: Mapping[str, Params],
    rest: Mapping[str, Any],
) -> None:
    """Make ``optimizer`` hold ``live`` in place of ``held``, in the same parameter groups.

    Args:
        optimizer: changed in place; parameters of others in it stay.
        held: the parameters that it holds now.
        live: those that it shall hold.
        moments: by name of a live parameter; what is missing is zero.
        rest: what is remembered of parameters as wholes.
    """
    homes = homes_of(optimizer, held, live)
    old = {id(p) for p in held.values()}
    for p in held.values():
        optimizer.state.pop(p, None)
    for number, group in enumerate(optimizer.param_groups):
        place = next((i for i, p in enumerate(group["params"]) if id(p) in old), 0)
        others = [p for p in group["params"] if id(p) not in old]
        mine = [p for name, p in live.items() if homes[name] == number]
        group["params"] = [*others[:place], *mine, *others[place:]]
    keys = {key for entry in moments.values() for key in entry}
    for name, p in live.items() if keys else ():
        entry = moments.get(name, {})
        kept = {key: entry[key].to(p) if key in entry else torch.zeros_like(p) for key in keys}
        whole = {k: v.clone() if torch.is_tensor(v) else v for k, v in rest.items()}
        optimizer.state[p] = {**whole, **kept}
