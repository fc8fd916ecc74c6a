"""The command ``agilerl``: train, resume, evaluate, report, play, retrain, check-env, runs.

What a command needs is loaded when it is used, so that ``--help`` and errors are there at once.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agilerl import __version__
from agilerl.errors import AgileRLError, ConfigError, suggest
from agilerl.signals import exit_code

EXAMPLES = """examples:
  agilerl train CartPole-v1                        until it is solved, 10 minutes at most
  agilerl train LunarLander-v3 --budget 30min --seed 1
  agilerl train CartPole-v1 --dataset cartpole.h5  learns from recorded data
  agilerl train dqn.yaml ENV_NAME=Acrobot-v1 LR=1e-3 BATCH_SIZE='{low: 32, high: 128}'
  agilerl resume runs/CartPole-v1-DQN-20260101-120000-1 --steps 500000
  agilerl evaluate runs/NAME        agilerl report runs/NAME        agilerl play runs/NAME
"""
#: The parts of a configuration, and the argument of ``evolve`` that each becomes.
SECTIONS = {
    "INIT_HP": "init_hp",
    "NET_CONFIG": "net_config",
    "MUTATION_PARAMS": "mutation_params",
}
#: Likewise of what stands beside them.
RUN_KEYS = {"ENV_NAME": "env", "ALGO": "algo", "DATASET": "dataset"}
#: Exit code where Ctrl-C stopped something else than training.
INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, with a suggestion for a command that is misspelt."""

    def error(self, message: str) -> Any:
        """Say what is wrong, and exit with 2."""
        words = message.split("'")
        hint = suggest(words[1], COMMANDS) if "invalid choice" in message else ""
        message = f"{message.split(' (choose')[0]}{hint}"
        print(f"error: {message}; see {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = Parser(
        prog="agilerl",
        description="Evolutionary hyper-parameter optimisation for deep RL.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"agilerl {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (function, fill, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(function=function)
        fill(command)
    return top


def add_limits(command: argparse.ArgumentParser) -> None:
    """Add what says how long a run goes on."""
    command.add_argument("--budget", help="wall time: 90s, 10min, 2h")
    command.add_argument("--steps", type=int, help="environment steps of all agents")
    command.add_argument("--target", type=float, help="mean return that ends the run")
    command.add_argument("--workers", default="auto", help="processes, or auto (%(default)s)")
    command.add_argument("--quiet", action="store_true", help="show no progress")


def add_train(command: argparse.ArgumentParser) -> None:
    """Add the arguments of ``train``."""
    command.add_argument("config", metavar="ENV|CONFIG.yaml", help="gymnasium id, or a file")
    command.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="LR=1e-3, POP_SIZE=8")
    command.add_argument("--algo", help="DQN, DDPG, TD3 or CQN; by default as the actions ask")
    command.add_argument("--dataset", help="learn from this HDF5 file alone")
    command.add_argument("--seed", type=int, help="one integer repeats the run")
    command.add_argument("--out", default="runs", help="folder of run folders (%(default)s)")
    add_limits(command)


def add_run(command: argparse.ArgumentParser) -> None:
    """Add the folder of a run."""
    command.add_argument("run", metavar="RUN", help="folder of a run, runs/NAME")


def add_resume(command: argparse.ArgumentParser) -> None:
    """Add the arguments of ``resume``."""
    add_run(command)
    add_limits(command)


def add_evaluate(command: argparse.ArgumentParser) -> None:
    """Add the arguments of ``evaluate``."""
    add_run(command)
    command.add_argument("--episodes", type=int, default=100, help="(%(default)s)")
    command.add_argument("--seed", type=int, help="of the episodes")


def add_play(command: argparse.ArgumentParser) -> None:
    """Add the arguments of ``play``."""
    add_run(command)
    command.add_argument("--out", help="film, .gif or .mp4 (RUN/elite/elite.gif)")
    command.add_argument("--seed", type=int, help="of the episode")


def add_retrain(command: argparse.ArgumentParser) -> None:
    """Add the arguments of ``retrain``."""
    add_run(command)
    command.add_argument("--seeds", type=int, default=5, help="agents of each kind (%(default)s)")


def add_env(command: argparse.ArgumentParser) -> None:
    """Add the environment."""
    command.add_argument("env", metavar="ENV", help="gymnasium id")


def add_runs(command: argparse.ArgumentParser) -> None:
    """Add the arguments of ``runs``."""
    command.add_argument("--out", default="runs", help="folder of run folders (%(default)s)")


# -------------------------------------------------------------------------------------- commands


def workers_of(text: str) -> Any:
    """Return a number of workers, or "auto"."""
    if text == "auto":
        return text
    try:
        return int(text)
    except ValueError as error:
        raise ConfigError(f"workers: expected a number or auto, got {text!r}.") from error


def train(options: argparse.Namespace) -> int:
    """Train in an environment, or as a file says."""
    from agilerl.runs.evolve import evolve

    arguments = configured(options.config, options.overrides)
    for name in ("algo", "dataset"):
        arguments[name] = getattr(options, name) or arguments[name]
    run = evolve(
        arguments.pop("env"),
        budget=options.budget,
        steps=options.steps,
        target=options.target,
        seed=options.seed,
        workers=workers_of(options.workers),
        out=options.out,
        verbose=not options.quiet,
        **arguments,
    )
    return told(run)


def resume(options: argparse.Namespace) -> int:
    """Go on with a run."""
    from agilerl.runs.evolve import resume as go_on

    run = go_on(
        options.run,
        budget=options.budget,
        steps=options.steps,
        target=options.target,
        workers=workers_of(options.workers),
        verbose=not options.quiet,
    )
    return told(run)


def told(run: Any) -> int:
    """Say what a run came to."""
    settings = "  ".join(f"{k} {v:.4g}" for k, v in run.elite.hyperparameters.items())
    print(f"{'solved' if run.solved else 'elite':<10} {run.evaluation}")
    print(f"{'settings':<10} {settings}")
    print(f"{'network':<10} {run.elite.architecture}")
    print(f"{'folder':<10} {run.path}")
    print(f"{'next':<10} agilerl report {run.path}")
    return exit_code()


def evaluate(options: argparse.Namespace) -> int:
    """Evaluate the elite of a run on fresh episodes."""
    from agilerl.runs.evaluation import evaluate as measure
    from agilerl.runs.run_folder import environment_of, load_elite

    found = measure(
        load_elite(options.run), environment_of(options.run), options.episodes, options.seed
    )
    print(f"mean return  {found}")
    print(f"standard deviation {found.std:.1f}, mean length {found.lengths.mean():.1f} steps")
    return 0


def report(options: argparse.Namespace) -> int:
    """Write the page that shows what evolution did."""
    from agilerl.runs.report import write_report

    print(write_report(options.run))
    return 0


def play(options: argparse.Namespace) -> int:
    """Film an episode of the elite."""
    from agilerl.runs.film import film

    print(film(options.run, options.out, seed=options.seed))
    return 0


def retrain(options: argparse.Namespace) -> int:
    """Train single agents along the elite's schedule, and with its final settings."""
    from agilerl.runs.retrain import retrain as again

    print(again(options.run, options.seeds))
    return 0


def check_env(options: argparse.Namespace) -> int:
    """Say what in an environment will not work, and the cure."""
    from agilerl.runs.evaluation import check_env as check

    found = check(options.env)
    for message in found:
        print(f"- {message}")
    if not found:
        print(f"{options.env}: all is well")
    return 2 if found else 0


def runs(options: argparse.Namespace) -> int:
    """Show a table of the runs in a folder."""
    from agilerl.runs.run_folder import SETTINGS, SUMMARY, read_rows, read_yaml

    lines = []
    for folder in sorted(Path(options.out).glob(f"*/{SETTINGS}"), key=os.path.getmtime):
        path = folder.parent
        try:
            settings, rows = read_yaml(path, SETTINGS), read_rows(path)
            elite = read_yaml(path, SUMMARY)
        except AgileRLError:
            lines.append((path.name, "-", "-", "not evaluated yet"))
            continue
        found = elite.get("evaluation") or {}
        mean = f"{found['mean']:.1f}" if found else "-"
        steps = f"{rows[-1]['global_steps']:,}"
        lines.append((path.name, steps, mean, str(settings.get("target"))))
    if not lines:
        print(f"no runs in {options.out}/; begin one: agilerl train CartPole-v1")
        return 0
    width = max(len(line[0]) for line in lines)
    print(f"{'run':<{width}}  {'steps':>12}  {'elite':>8}  target")
    for name, steps, mean, target in lines:
        print(f"{name:<{width}}  {steps:>12}  {mean:>8}  {target}")
    return 0


# -------------------------------------------------------------------------------- configuration


def configured(name: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Return the arguments of ``evolve`` that an id or a file, and ``key=value`` words, give.

    Raises:
        ConfigError: on a file that can't be read, or a key that is not known.
    """
    config: dict[str, Any] = {"ENV_NAME": name}
    if name.endswith((".yaml", ".yml")):
        config = read_config(name)
    for text in overrides:
        override(config, text)
    known = (*RUN_KEYS, *SECTIONS)
    for key in sorted(set(config) - set(known)):
        raise ConfigError(f"{name}: unknown key {key!r}.{suggest(key, known)}")
    if "ENV_NAME" not in config:
        raise ConfigError(f"{name}: no ENV_NAME; add it, or ENV_NAME=CartPole-v1 to the command.")
    arguments = {SECTIONS[key]: value for key, value in config.items() if key in SECTIONS}
    return {argument: config.get(key) for key, argument in RUN_KEYS.items()} | arguments


def read_config(path: str) -> dict[str, Any]:
    """Return the contents of a YAML file; raise ``ConfigError`` if it can't be read."""
    from agilerl.training.yaml_config import UNREADABLE, parse

    try:
        found = parse(Path(path).read_text("utf-8"))
    except UNREADABLE as error:
        raise ConfigError(f"{path}: can't be read as YAML ({error}).") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: expected keys such as ENV_NAME and INIT_HP, got {found!r}.")
    return found


def override(config: dict[str, Any], text: str) -> None:
    """Set ``key=value``, value as YAML, in the part of the configuration that has the key."""
    from agilerl.runs.run_settings import MUTATION_PARAMS
    from agilerl.training.yaml_config import UNREADABLE, parse
    from agilerl.utils.utils import AGENT_KEYS

    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"{text!r}: expected KEY=VALUE, LR=1e-3 say.")
    try:
        parsed = number(parse(value))
    except UNREADABLE as error:
        raise ConfigError(f"{text!r}: {value!r} can't be read as YAML.") from error
    known: dict[str, str | None] = {
        **dict.fromkeys(RUN_KEYS, None),
        **dict.fromkeys((*AGENT_KEYS, "POP_SIZE", "MEMORY_SIZE"), "INIT_HP"),
        **dict.fromkeys(MUTATION_PARAMS, "MUTATION_PARAMS"),
        **dict.fromkeys(("arch", "h_size", "activation", "layer_norm"), "NET_CONFIG"),
    }
    section, _, inner = key.rpartition(".")
    if section in SECTIONS:
        config.setdefault(section, {})[inner] = parsed
    elif key not in known:
        raise ConfigError(f"{key!r}: not a key of a configuration.{suggest(key, known)}")
    elif known[key] is None:
        config[key] = parsed
    else:
        config.setdefault(str(known[key]), {})[key] = parsed


def number(value: Any) -> Any:
    """Return a value of YAML, in which 1e-3 is text, with such numbers as numbers."""
    if isinstance(value, dict):
        return {key: number(item) for key, item in value.items()}
    if isinstance(value, list):
        return [number(item) for item in value]
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


COMMANDS: dict[str, tuple[Callable[[Any], int], Callable[[Any], None], str]] = {
    "train": (train, add_train, "train a population from a blind start"),
    "resume": (resume, add_resume, "go on with a run"),
    "evaluate": (evaluate, add_evaluate, "evaluate the elite of a run on fresh episodes"),
    "report": (report, add_run, "write the page that shows what evolution did"),
    "play": (play, add_play, "film an episode of the elite"),
    "retrain": (retrain, add_retrain, "train single agents along the elite's schedule"),
    "check-env": (check_env, add_env, "say what in an environment will not work"),
    "runs": (runs, add_runs, "show a table of the runs in a folder"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; errors that a user can mend are one line."""
    options = parser().parse_args(arguments)
    try:
        return int(options.function(options))
    except AgileRLError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return exit_code() or INTERRUPTED
    except BrokenPipeError:  # whoever read the output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


if __name__ == "__main__":
    sys.exit(main())
