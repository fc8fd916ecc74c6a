"""Adam, and what it remembers: carried over edits of the parameters, saved, and loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from inspect import unwrap
from typing import Any

import torch
from torch import nn

from agilerl.errors import CheckpointError, check_float
from agilerl.networks.base import Edit, Params

Held = Mapping[str, nn.Parameter]

#: Settings of Adam that a user may have changed.
OPTIONS = ("lr", "betas", "eps", "weight_decay", "amsgrad", "maximize")
#: What Adam remembers of a parameter.
MOMENTS = {"step", "exp_avg", "exp_avg_sq"}


class _Uncompiled(torch.optim.Adam):
    """Adam, made without torch's compiler: loading that takes a second, and nothing here uses it.

    The first call of ``add_param_group``, which is wrapped to be left out of compilation, loads it.
    """

    add_param_group = unwrap(torch.optim.Adam.add_param_group)


def make_adam(parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Adam:
    """Return an Adam of torch's own class."""
    optimizer = _Uncompiled(parameters, lr=lr, fused=True)
    optimizer.__class__ = torch.optim.Adam  # type: ignore[assignment]
    optimizer.__setstate__({})  # type: ignore[no-untyped-call]  # steps are hooked by class
    return optimizer


# ------------------------------------------------------------------------------------ over an edit


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
    keys = dict.fromkeys(key for entry in found.values() for key in entry)
    for name, p in held.items():
        entry = found.setdefault(name, {}) if keys else {}
        for key in [key for key in keys if key not in entry]:
            entry[key] = torch.zeros_like(p)
    return found


def transfer_moments(moments: dict[str, Params], edit: Edit, head: str) -> None:
    """Map the moments of the parameters whose names begin with ``head`` to the edited shape."""
    own = {name[len(head) :]: moments.pop(name) for name in list(moments) if name.startswith(head)}
    for key in dict.fromkeys(key for entry in own.values() for key in entry):
        before = {name: entry[key] for name, entry in own.items()}
        for name, value in edit.transfer(before, True).items():
            moments.setdefault(head + name, {})[key] = value


def fits(optimizer: torch.optim.Optimizer, p: nn.Parameter) -> bool:
    """Return whether what is remembered of ``p`` has its dtype and device."""
    moments = moments_of(optimizer, {"p": p}).get("p", {}).values()
    return all((m.dtype, m.device) == (p.dtype, p.device) for m in moments)


def step_state(optimizer: torch.optim.Optimizer, held: Held) -> dict[str, Any]:
    """Return what is remembered of a parameter as a whole: the number of steps.

    Where some have made fewer steps, being frozen for a time, it is that of the others.
    """
    wholes: list[dict[str, Any]] = []
    for p in held.values():
        state = optimizer.state.get(p)
        if state:
            moments = moments_of(optimizer, {"p": p})["p"]
            wholes.append({key: value for key, value in state.items() if key not in moments})
    return max(wholes, key=lambda whole: float(whole.get("step", 0)), default={})


def group_of(optimizer: torch.optim.Optimizer, held: Held, live: Held) -> dict[str, int | None]:
    """Return, by name of a live parameter, the number of its parameter group.

    It is that of the parameter of this name; a new one joins those of its kind (weight or bias).
    """
    groups = {id(p): i for i, group in enumerate(optimizer.param_groups) for p in group["params"]}
    numbers = {name: groups.get(id(p)) for name, p in held.items()}
    known = [(name.rpartition(".")[2], i) for name, i in numbers.items() if i is not None]
    of_kind = dict(reversed(known))
    first = known[0][1] if known else None
    return {name: numbers.get(name, of_kind.get(name.rpartition(".")[2], first)) for name in live}


def replace_parameters(
    optimizer: torch.optim.Optimizer,
    held: Held,
    live: Held,
    moments: Mapping[str, Params],
    steps: Mapping[str, Any],
) -> None:
    """Make ``optimizer`` hold ``live`` in place of ``held``, in the same parameter groups.

    Args:
        optimizer: changed in place; parameters of others in it stay.
        held: the parameters that it holds now.
        live: those that it shall hold.
        moments: by name of a live parameter; what is missing is zero.
        steps: the ``step_state`` of all of them.
    """
    numbers = group_of(optimizer, held, live)
    old = {id(p) for p in held.values()}
    for p in held.values():
        optimizer.state.pop(p, None)
    for number, group in enumerate(optimizer.param_groups):
        start = next((i for i, p in enumerate(group["params"]) if id(p) in old), 0)
        others = [p for p in group["params"] if id(p) not in old]
        mine = [p for name, p in live.items() if numbers[name] == number]
        group["params"] = [*others[:start], *mine, *others[start:]]
    keys = dict.fromkeys(key for entry in moments.values() for key in entry)
    for name, p in live.items() if keys else ():
        entry = moments.get(name, {})
        kept = {key: entry[key].to(p) if key in entry else torch.zeros_like(p) for key in keys}
        whole = {k: v.clone() if torch.is_tensor(v) else v for k, v in steps.items()}
        optimizer.state[p] = {**whole, **kept}


# ----------------------------------------------------------------------------------- Adam's state


def adam_state(optimizer: torch.optim.Adam, held: Held) -> dict[str, Any]:
    """Return how Adam is set and what it remembers, as tensors and plain values."""
    group = optimizer.param_groups[0]
    return {
        "options": {name: group[name] for name in OPTIONS},
        "moments": {
            name: {key: value.detach().clone() for key, value in optimizer.state[p].items()}
            for name, p in held.items()
            if optimizer.state.get(p)
        },
    }


def check_adam_state(state: Mapping[str, Any], held: Held) -> None:
    """Raise if ``state`` is not that of an Adam on parameters of the shapes of ``held``.

    Raises:
        CheckpointError: on entries that are missing, of another shape, or of no meaning to Adam.
        ConfigError: on a number out of its range.
    """
    options = state["options"]
    if options.keys() != set(OPTIONS) or len(options["betas"]) != 2:
        raise CheckpointError(f"options: expected {', '.join(OPTIONS)}, got {dict(options)}.")
    for name in ("lr", "eps", "weight_decay"):
        check_float(name, options[name], low=0.0)
    for beta in options["betas"]:
        if check_float("betas", beta, 0.0, 1.0) == 1.0:
            raise CheckpointError(f"betas: expected numbers below 1, got {options['betas']}.")
    if options["maximize"] is not False or not isinstance(options["amsgrad"], bool):
        raise CheckpointError(
            "maximize, amsgrad: expected False and a bool, got"
            f" {options['maximize']!r} and {options['amsgrad']!r}; a loss is minimised."
        )
    largest = {"max_exp_avg_sq"}
    needed = MOMENTS | largest if options["amsgrad"] else MOMENTS
    for name, entry in state["moments"].items():
        if not needed <= entry.keys() <= MOMENTS | largest:
            raise CheckpointError(f"moments of {name}: expected {needed}, got {set(entry)}.")
        for key, value in entry.items():
            expected = torch.Size() if key == "step" else held[name].shape
            if value.shape != expected or not value.is_floating_point():
                raise CheckpointError(f"the optimiser's {key} of {name} has another shape or type.")
        check_float(f"step of {name}", float(entry["step"]), low=0.0)


def load_adam_state(optimizer: torch.optim.Adam, held: Held, state: Mapping[str, Any]) -> None:
    """Take over a state that was checked; tensors that are there already are written in place."""
    for group in optimizer.param_groups:
        group.update(state["options"])
    for name, p in held.items():
        given = state["moments"].get(name, {})
        kept = optimizer.state.get(p, {})
        for key, value in given.items():
            if key in kept:
                kept[key].copy_(value)
            else:
                dtype = torch.float32 if key == "step" else p.dtype
                kept[key] = value.detach().to(p.device, dtype, copy=True)
        for key in kept.keys() - given.keys():
            del kept[key]
        if kept:
            optimizer.state[p] = kept
        else:
            optimizer.state.pop(p, None)
