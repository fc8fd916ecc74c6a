"""An episode of an agent as a film: GIF, or MP4 where ``imageio-ffmpeg`` is installed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from agilerl.components.make_env import env_maker
from agilerl.components.vector_env import InProcessVectorEnv
from agilerl.errors import ConfigError, EnvError, check_int
from agilerl.runs.evaluation import LONGEST, channels_last
from agilerl.runs.run_folder import environment_of, load_elite

Array = np.ndarray[Any, np.dtype[Any]]

#: Widest picture in pixels; larger ones are made smaller.
WIDEST = 480


def film(
    run: str | Path,
    path: str | Path | None = None,
    *,
    env: Any = None,
    agent: Any = None,
    seed: int | None = None,
    max_frames: int = 1000,
) -> Path:
    """Film one greedy episode of the elite of a run; return the path of the film.

    Args:
        run: folder of the run.
        path: of the film, ``.gif`` or ``.mp4``; ``elite/elite.gif`` in the folder by default.
        env: a gymnasium id, or the class or function that made the environment; the run's own by
            default.  It has to support ``render_mode="rgb_array"``.
        agent: in place of the elite.
        seed: of the episode.
        max_frames: the film is cut there.

    Raises:
        ConfigError: if the suffix is not known, or MP4 can't be written here.
        EnvError: if the environment gives no pictures.
        CheckpointError: if there is no elite.
    """
    folder = Path(run)
    target = Path(path) if path is not None else folder / "elite" / "elite.gif"
    if target.suffix not in (".gif", ".mp4"):
        raise ConfigError(f"path: expected a film's name ending in .gif or .mp4, got {target}.")
    check_int("max_frames", max_frames)
    agent = load_elite(folder) if agent is None else agent
    given = environment_of(folder) if env is None else env
    frames, fps = episode(agent, given, seed, max_frames)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix == ".gif":
        write_gif(target, frames, fps)
    else:
        write_mp4(target, frames, fps)
    return target


def episode(agent: Any, env: Any, seed: int | None, max_frames: int) -> tuple[list[Array], float]:
    """Return the pictures [H, W, 3] of one episode, and how many make a second."""
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame draws to memory, where no screen is
    try:
        vector = InProcessVectorEnv([env_maker(env, render_mode="rgb_array")()], seed=seed)
    except TypeError as error:
        raise EnvError(
            f"env: {env!r} takes no render_mode, so it can't be filmed ({error}); accept"
            " render_mode='rgb_array' and return pictures from render()."
        ) from error
    (single,) = vector.envs
    if hasattr(agent, "adapt_to_env"):
        agent.adapt_to_env(vector)
    swap = channels_last(agent, vector.single_observation_space)
    frames: list[Array] = []
    try:
        observation, _ = vector.reset()
        while len(frames) < min(max_frames, LONGEST):
            picture = single.render()
            if not isinstance(picture, np.ndarray) or picture.ndim != 3:
                raise EnvError(f"env: render() gave {type(picture).__name__}, expected a picture.")
            frames.append(picture)
            states = np.moveaxis(observation, 3, 1) if swap else observation
            observation, _, terminated, truncated, _ = vector.step(agent.getAction(states, 0))
            if terminated[0] or truncated[0]:
                break
    finally:
        vector.close()
    return frames, float(single.metadata.get("render_fps") or 30)


def write_gif(path: Path, frames: list[Array], fps: float) -> None:
    """Write an animated GIF, every second picture where it would be too fast for a GIF."""
    from PIL import Image

    every = 2 if fps > 30 else 1
    pictures = []
    for frame in frames[::every]:
        picture = Image.fromarray(np.ascontiguousarray(frame))
        picture.thumbnail((WIDEST, WIDEST))
        pictures.append(picture.quantize(64))
    first, *rest = pictures
    first.save(path, save_all=True, append_images=rest, duration=1000 * every / fps, loop=0)


def write_mp4(path: Path, frames: list[Array], fps: float) -> None:
    """Write an MP4 film; raise ``ConfigError`` where imageio-ffmpeg is not installed."""
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise ConfigError(
            "path: .mp4 needs imageio-ffmpeg; pip install imageio-ffmpeg, or name a .gif."
        ) from error
    height, width = frames[0].shape[:2]
    writer = imageio_ffmpeg.write_frames(str(path), (width, height), fps=fps, macro_block_size=1)
    writer.send(None)
    for frame in frames:
        writer.send(np.ascontiguousarray(frame))
    writer.close()
