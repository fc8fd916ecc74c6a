"""How cost grows with the size of the work: ``python -m benchmarks.scaling``.

The whole ``train()`` of ``benchmarks.online`` on CartPole with one thing changed at a time: the
population, the hidden size, the number of environments.  Draws ``results/scaling.png``.
"""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks import timing

POPULATION, HIDDEN, NUM_ENVS = "population", "hidden", "num-envs"
SIZES = {
    POPULATION: (2, 4, 8, 16, 32),
    HIDDEN: (16, 32, 64, 128, 256),
    NUM_ENVS: (1, 4, 16, 64, 256),
}
AXES = {POPULATION: "agents", HIDDEN: "units in each of two layers", NUM_ENVS: "environments"}
PARTS = ("env", "act", "insert", "sample", "learn", "rest")
#: Sequential blues and greys would blur: one hue for each part, readable without colour vision.
COLOURS = ("#4477AA", "#66CCEE", "#CCBB44", "#228833", "#EE6677", "#BBBBBB")

Points = dict[str, dict[int, timing.Report]]


def measure_all(flags: argparse.Namespace) -> Points:
    """Return, for each thing that is changed and each size, the median report of the turns."""
    reports: dict[tuple[str, int], list[timing.Report]] = {}
    for _ in range(flags.rounds):
        for thing, sizes in SIZES.items():
            for size in sizes:
                own = ["--measure", "--env", flags.env, "--seconds", flags.seconds]
                values = [size, size] if thing == HIDDEN else [size]
                report = timing.run_module("benchmarks.online", [*own, f"--{thing}", *values])
                reports.setdefault((thing, size), []).append(report)
    return {
        thing: {size: timing.median_of(reports[thing, size]) for size in sizes}
        for thing, sizes in SIZES.items()
    }


def microseconds(report: timing.Report) -> dict[str, float]:
    """Return the processor time of each part of a vector step."""
    step = 1e6 * report["processor_seconds"] * report["num_envs"] / report["env_steps"]
    return {part: step * report["share"][part] for part in PARTS}


def draw(points: Points, env_name: str) -> Any:
    """Return a figure: the cost of a vector step by part above, the rate below."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(12, 6.5), layout="constrained")
    for column, (thing, by_size) in enumerate(points.items()):
        upper, lower = axes[:, column]
        places, labels = range(len(by_size)), list(map(str, by_size))
        costs = [microseconds(report) for report in by_size.values()]
        base = [0.0] * len(by_size)
        for part, colour in zip(PARTS, COLOURS, strict=True):
            heights = [cost[part] for cost in costs]
            upper.bar(places, heights, 0.7, base, color=colour, label=part)
            base = [b + h for b, h in zip(base, heights, strict=True)]
        rates = [report["env_steps_per_processor_s"] for report in by_size.values()]
        lower.plot(places, rates, "o-", color="#333333")
        lower.set_ylim(bottom=0, top=1.15 * max(rates))
        lower.set_xlabel(AXES[thing])
        for axis in (upper, lower):
            axis.set_xticks(places, labels)
            axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("microseconds of a vector step")
    axes[1, 0].set_ylabel("env-steps per processor second")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(PARTS), frameon=False)
    figure.suptitle(
        f"train() on {env_name}: 6 agents, [32, 32] units, 16 environments,"
        " batches of 256; one of them changed"
    )
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    timing.add_flags(parser, rounds=1, seconds=4.0)
    parser.add_argument("--env", default="CartPole-v1")
    flags = parser.parse_args()
    points = measure_all(flags)
    path = timing.RESULTS / "scaling.png"
    path.parent.mkdir(exist_ok=True)
    draw(points, flags.env).savefig(path, dpi=110)
    lines = []
    for thing, by_size in points.items():
        for size, report in by_size.items():
            cost = microseconds(report)
            shown = [f"{cost[part]:.0f}" for part in PARTS]
            rate = f"{report['env_steps_per_processor_s']:,.0f}"
            lines.append([f"{size} {AXES[thing]}", rate, *shown])
    head = ["train()", "env-steps/processor s", *(f"{part}, us" for part in PARTS)]
    note = (
        f"{flags.env}, one thread, processor time; medians of {flags.rounds} turns. The parts are"
        f" microseconds of a vector step.\n\n![Cost by size]({path.name})"
    )
    timing.publish("Scaling", f"{note}\n\n{timing.table(head, lines)}", flags.write)


if __name__ == "__main__":
    main()
