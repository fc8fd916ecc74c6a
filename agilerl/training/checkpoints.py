"""Checkpoints of whole runs: a run that was killed at any moment goes on, bit for bit.

A checkpoint is a directory with ``state.json`` (plain values), ``tensors.safetensors`` and
``manifest.json``, which is written last and holds the size and the SHA-256 of every file.  The rows
of the replay buffer are kept beside the checkpoints in segments that are never changed: a
checkpoint writes the rows since the one before, and its manifest names all that it needs.  Nothing
in these files is unpickled or run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import socket
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from agilerl import __version__
from agilerl.algorithms import AGENTS
from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.errors import AgileRLError, CheckpointError, ConfigError
from agilerl.networks import mlp_kernel
from agilerl.training.run import Generation, RunObserver
from agilerl.training.run_state import RunState

logger = logging.getLogger("agilerl")

FORMAT = 1
MANIFEST, STATE, TENSORS = "manifest.json", "state.json", "tensors.safetensors"
#: What stands for a tensor in ``state.json``: its number among the tensors.
TENSOR = "tensor"
#: Bytes read at a time to compute a digest.
CHUNK = 1 << 20


class CheckpointStore:
    """The checkpoints of one run, in ``<path>/checkpoints`` and ``<path>/buffer``.

    One process at a time may write there; it holds the lock from ``open`` to ``close``.

    Args:
        path: directory of the run.
        keep: checkpoints to keep, the newest ones.
    """

    def __init__(self, path: str | os.PathLike[str], keep: int = 2) -> None:
        self.path = Path(path)
        self.keep = keep
        self._folder = self.path / "checkpoints"
        self._buffer = self.path / "buffer"
        self._lock = filelock.FileLock(self.path / ".lock")
        #: the segments of the newest checkpoint, oldest rows first
        self._segments: list[dict[str, Any]] = []

    # ------------------------------------------------------------------------------------ the lock

    def open(self) -> None:
        """Take the lock, and clear away what a killed process left half written.

        Raises:
            ConfigError: if another process has it, or the directory can't be written to.
        """
        owner = self.path / ".owner"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
            owner.write_text(f"process {os.getpid()} on {socket.gethostname()}")
            self._folder.mkdir(exist_ok=True)
            self._buffer.mkdir(exist_ok=True)
        except filelock.Timeout:
            holder = owner.read_text() if owner.is_file() else "another process"
            raise ConfigError(
                f"checkpoint_path: {self.path} is in use by {holder}; wait for it, or choose"
                " another directory."
            ) from None
        except OSError as error:
            self._lock.release()
            raise ConfigError(
                f"checkpoint_path: {self.path} can't be written to ({error}); choose another"
                " directory."
            ) from error
        for left in (*self.path.glob(".*.tmp"), *self.path.glob("*/.*.tmp")):
            shutil.rmtree(left) if left.is_dir() else left.unlink()

    def close(self) -> None:
        """Give the lock back."""
        self._lock.release()

    # ------------------------------------------------------------------------------------- reading

    def checkpoints(self) -> list[Path]:
        """Return the checkpoints, oldest first."""
        return sorted(self._folder.glob("episode_*"))

    def read(self) -> dict[str, Any] | None:
        """Return the newest state that is whole, or None if there is no checkpoint at all.

        A checkpoint that is damaged is named in a warning, and the one before is used.

        Raises:
            CheckpointError: if all are damaged.
        """
        found = self.checkpoints()
        for folder in reversed(found):
            try:
                state, self._segments = self._read(folder)
            except CheckpointError as error:
                warnings.warn(f"{error} The checkpoint before it is used.", stacklevel=2)
            else:
                return state
        if found:
            raise CheckpointError(
                f"{self.path}: all {len(found)} checkpoints are damaged; begin anew in another"
                " directory."
            )
        return None

    def _read(self, folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        manifest = read_json(folder / MANIFEST)
        try:
            if manifest.pop("sha256") != digest_of(manifest):
                raise CheckpointError(f"{folder / MANIFEST}: damaged, its own SHA-256 is another.")
            if manifest["format"] != FORMAT:
                raise CheckpointError(
                    f"{folder}: format {manifest['format']!r} of agilerl"
                    f" {manifest.get('agilerl')!r}, expected {FORMAT}; use that version."
                )
            for name in (STATE, TENSORS):
                check_member(folder / name, manifest["members"][name])
            segments = [dict(segment) for segment in manifest["segments"]]
            for segment in segments:
                check_member(self._buffer / Path(segment["name"]).name, segment)
            state = unpacked(read_json(folder / STATE), read_tensors(folder / TENSORS))
            if segments:
                state["memory"]["rows"] = self._rows(segments, state["memory"])
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, AgileRLError):
                raise
            raise CheckpointError(f"{folder}: incomplete or inconsistent ({error!r}).") from error
        return state, segments

    def _rows(
        self, segments: Sequence[Mapping[str, Any]], memory: Mapping[str, Any]
    ) -> list[torch.Tensor]:
        """Return the rows that a buffer of this state still holds, oldest first."""
        parts = [read_tensors(self._buffer / Path(segment["name"]).name) for segment in segments]
        held = min(int(memory["counter"]), int(memory["settings"]["memory_size"]))
        return [
            torch.cat([part[str(column)] for part in parts])[-held:]
            for column in range(len(parts[0]))
        ]

    # ------------------------------------------------------------------------------------- writing

    def write(self, state: RunState, settings: Mapping[str, Any]) -> None:
        """Write a checkpoint of ``state``, and delete those that are not kept.

        Raises:
            OSError: if the disk does not take it; earlier checkpoints stay as they are.
        """
        about = {"settings": dict(settings), "versions": versions()}
        plain, tensors = packed({**state.state_dict(rows=False), **about})
        segments = self._write_segments(state)
        folder = self._folder / f"episode_{state.episode:09d}"
        temporary = self._folder / f".{folder.name}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir()
            (temporary / STATE).write_text(json.dumps(plain))
            save_file(tensors, temporary / TENSORS)
            manifest = {
                "format": FORMAT,
                "agilerl": __version__,
                "members": {name: member(temporary / name) for name in (STATE, TENSORS)},
                "segments": segments,
            }
            manifest["sha256"] = digest_of(manifest)
            (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1))
            for name in (STATE, TENSORS, MANIFEST):
                flush(temporary / name)
            replace_folder(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        self._segments = segments
        self._delete_old()

    def _write_segments(self, state: RunState) -> list[dict[str, Any]]:
        """Write the rows that are not on the disk yet; return the segments that are needed."""
        memory = state.memory
        if type(memory) is not ReplayBuffer or state.memory_is_data:
            return []
        first = memory.counter - len(memory)
        kept = [s for s in self._segments if first < s["stop"] <= memory.counter]
        start = max(kept[-1]["stop"] if kept else 0, first)
        if start < memory.counter:
            name = f"rows_{start:015d}_{memory.counter:015d}.safetensors"
            temporary = self._buffer / f".{name}.tmp"
            rows = memory.rows(start, memory.counter)
            try:
                save_file({str(i): torch.from_numpy(x) for i, x in enumerate(rows)}, temporary)
                flush(temporary)
                temporary.replace(self._buffer / name)
            finally:
                temporary.unlink(missing_ok=True)
            flush(self._buffer)
            path = self._buffer / name
            kept.append({"name": name, "start": start, "stop": memory.counter, **member(path)})
        return kept

    def _delete_old(self) -> None:
        """Delete checkpoints beyond ``keep``, and segments that none of the others names."""
        folders = self.checkpoints()
        for folder in folders[: -self.keep]:
            shutil.rmtree(folder, ignore_errors=True)
        needed: set[str] = set()
        for folder in folders[-self.keep :]:
            with contextlib.suppress(CheckpointError, LookupError, TypeError):
                needed |= {s["name"] for s in read_json(folder / MANIFEST)["segments"]}
        for path in self._buffer.glob("rows_*"):
            if path.name not in needed:
                path.unlink(missing_ok=True)


class RunCheckpoints(RunObserver):
    """Saves a run every few episodes, when it ends, and when it is stopped.

    A disk that does not take a checkpoint is no reason to stop training: each failed save is a
    warning, and the run ends with an error if the last one failed.

    Args:
        store: where to; it is open.
        every: episodes between checkpoints.
        settings: of the run, compared when it goes on.
        elite: file of the best agent so far, within the directory of the run.
    """

    def __init__(
        self,
        store: CheckpointStore,
        every: int,
        settings: Mapping[str, Any],
        elite: str = "elite/agent.pt",
    ) -> None:
        self.store, self.every, self.settings = store, every, settings
        self.elite = store.path / elite
        self.best_ever: Any = None
        self.saved = -1
        self.failure: OSError | None = None

    def begin(self, state: RunState) -> None:
        """See where the run goes on."""
        if state.episode:
            self.saved = state.episode
        self._save_elite(state.best_ever)

    def after_episode(self, state: RunState, ending: bool) -> None:
        """Save the state, if it is time."""
        if ending or state.episode % self.every == 0:
            self._save(state)

    def __call__(self, generation: Generation) -> None:
        """Save the best agent so far, if it is a new one."""
        self._save_elite(generation.best_ever)

    def _save_elite(self, best: Any) -> None:
        if best is not None and best is not self.best_ever and hasattr(best, "saveCheckpoint"):
            self.best_ever = best
            with self._failures("the best agent"):
                best.saveCheckpoint(self.elite)

    def close(self, state: RunState, message: str) -> None:
        """Save the last state, if it was not; give the directory free."""
        try:
            if state.episode > self.saved and not state.changing:
                self._save(state)
        finally:
            self.store.close()
        if self.failure is not None:
            raise CheckpointError(
                f"{self.store.path}: the run is not saved beyond episode {max(self.saved, 0)}"
                f" ({self.failure}); make room, and save the agents of this exception's"
                " .population with saveCheckpoint()."
            ) from self.failure

    def _save(self, state: RunState) -> None:
        with self._failures(f"episode {state.episode}"):
            self.store.write(state, self.settings)
            self.saved = state.episode

    @contextlib.contextmanager
    def _failures(self, what: str) -> Iterator[None]:
        """Turn the failure of a save into a warning."""
        try:
            yield
        except OSError as error:
            self.failure = error
            free = shutil.disk_usage(self.store.path).free if self.store.path.exists() else 0
            print(
                f"warning: {what} was not saved in {self.store.path} ({error}; {free:,} bytes"
                " free); training goes on.",
                file=sys.stderr,
            )
        else:
            self.failure = None


def open_checkpoints(
    store: CheckpointStore,
    state: RunState,
    every: int,
    resume: bool | str,
    settings: Mapping[str, Any],
    elite: str = "elite/agent.pt",
) -> RunCheckpoints:
    """Return what saves a run, and put ``state`` to where it goes on, if it does.

    Args:
        store: of the checkpoints.
        state: of the run as it was set up; changed in place.
        every: episodes between checkpoints.
        resume: True must find a run, "auto" begins one where there is none, "force" goes on though
            settings differ, False must not find one.
        settings: of the run, which must be those of the one that is found; a seed of None is any.
        elite: file of the best agent so far, within the directory of the run.

    Raises:
        ConfigError: if ``resume`` is False and there is a run, or the directory can't be used.
        CheckpointError: if there is none to go on with, it was of other settings, or is damaged.
    """
    if resume not in (False, True, "auto", "force"):
        raise ConfigError(f"resume: expected False, True, 'auto' or 'force', got {resume!r}.")
    store.open()
    try:
        restore(store, state, resume, settings)
    except BaseException:
        store.close()
        raise
    return RunCheckpoints(store, every, {**settings, "seed": state.seed}, elite)


def restore(
    store: CheckpointStore, state: RunState, resume: bool | str, settings: Mapping[str, Any]
) -> None:
    """Put ``state`` where the newest checkpoint left it; see ``open_checkpoints``."""
    if resume is False:
        if store.checkpoints():
            raise ConfigError(
                f"checkpoint_path: {store.path} holds a run; resume=True (or 'auto') goes on with"
                " it, resume='force' does so though settings differ, and another directory begins"
                " a new one."
            )
        return
    saved = store.read()
    if saved is None:
        if resume == "auto":
            return
        raise CheckpointError(
            f"{store.path}: there is no run to go on with; leave resume out to begin, or pass"
            " resume='auto'."
        )
    different = differences(saved.get("settings", {}), settings)
    if different and resume != "force":
        raise CheckpointError(
            f"{store.path}: this is not the run that was saved: {'; '.join(different)}. Pass what"
            " it had, or resume='force'."
        )
    changed = differences(saved.get("versions", {}), versions())
    if changed:
        warnings.warn(
            f"{store.path}: the run may go on with other numbers: {'; '.join(changed)}.",
            stacklevel=2,
        )
    state.load_state_dict(saved)


def versions() -> dict[str, str]:
    """Return the versions of what computes."""
    return {
        "agilerl": __version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "MLP passes": mlp_kernel.kind(),
    }


def differences(saved: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Return the settings that differ, in words."""
    plain = json.loads(json.dumps({k: v for k, v in given.items() if (k, v) != ("seed", None)}))
    saved = {k: v for k, v in saved.items() if k in plain or k != "seed"}
    return [
        f"{name} was {saved.get(name)!r}, is {plain.get(name)!r}"
        for name in sorted({*saved, *plain})
        if saved.get(name) != plain.get(name)
    ]


def load_population(path: str | os.PathLike[str], device: str = "cpu") -> list[Any]:
    """Return the agents of the newest checkpoint of a run.

    Args:
        path: directory of the run.
        device: where the networks go.

    Raises:
        CheckpointError: if there is none, it is damaged, or its agents are of another library.
    """
    saved = CheckpointStore(path).read()
    if saved is None:
        raise CheckpointError(f"{path}: there is no checkpoint of a run in it.")
    agents = []
    for state in saved["population"]:
        if state.get("algo") not in AGENTS:
            raise CheckpointError(f"{path}: agents of the unknown algorithm {state.get('algo')!r}.")
        agents.append(AGENTS[state["algo"]].from_state_dict(state, device))
    return agents


# ------------------------------------------------------------------------------- files and values


def packed(tree: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    """Return nested values as JSON can hold them, and the tensors that were in them."""
    tensors: dict[str, torch.Tensor] = {}

    def plain(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            tensors[str(len(tensors))] = value.detach().contiguous()
            return {TENSOR: str(len(tensors) - 1)}
        if isinstance(value, Mapping):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return value.item() if isinstance(value, np.generic) else value

    return plain(tree), tensors


def unpacked(plain: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """Return what ``packed`` took apart."""
    if isinstance(plain, dict):
        if plain.keys() == {TENSOR}:
            return tensors[plain[TENSOR]]
        return {key: unpacked(item, tensors) for key, item in plain.items()}
    if isinstance(plain, list):
        return [unpacked(item, tensors) for item in plain]
    return plain


def read_json(path: Path) -> Any:
    """Return what a JSON file holds; raise ``CheckpointError`` if it can't be read."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: can't be read, it may be cut off ({error}).") from error


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a file; raise ``CheckpointError`` if it can't be read."""
    try:
        return load_file(path)
    except (OSError, ValueError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"{path}: can't be read, it may be cut off ({error}).") from error


def member(path: Path) -> dict[str, Any]:
    """Return the size and the SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def digest_of(manifest: Mapping[str, Any]) -> str:
    """Return the SHA-256 of what a manifest says."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def check_member(path: Path, expected: Mapping[str, Any]) -> None:
    """Raise ``CheckpointError`` unless a file is the one that a manifest names."""
    try:
        if path.is_symlink() or path.stat().st_size != expected["bytes"]:
            raise CheckpointError(f"{path}: damaged, it is not {expected['bytes']} bytes long.")
        if member(path)["sha256"] != expected["sha256"]:
            raise CheckpointError(f"{path}: damaged, its SHA-256 is not that of the manifest.")
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read ({error}).") from error


def flush(path: Path) -> None:
    """Make sure that a file, or the names in a directory, are on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def replace_folder(temporary: Path, folder: Path) -> None:
    """Give a complete folder its name, in place of one of that name; the disk has it then."""
    flush(temporary)
    if folder.exists():  # of an episode that was trained again, after a damaged checkpoint
        shutil.rmtree(folder)
    temporary.rename(folder)
    flush(folder.parent)
