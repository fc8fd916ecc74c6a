"""Checkpoint files: written whole or not at all, and read without running anything."""

from __future__ import annotations

import io
import json
import os
import pickle
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agilerl import checkpoint
from agilerl.algorithms.dqn import DQN
from agilerl.errors import CheckpointError
from tests.algorithms.cases import CASES, assert_learns, differing, tensors

PAYLOAD: dict[str, Any] = {"name": "x", "weights": torch.arange(6.0).reshape(2, 3), "steps": [1, 2]}
CASE = CASES["DQN, MLP, kernel"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "agent.pt"


def saved_agent(path: Path) -> Any:
    agent = CASE.agent()
    agent.learn(CASE.batch())
    agent.saveCheckpoint(path)
    return agent


# ---------------------------------------------------------------------------------------- contents


def test_what_was_saved_comes_back(path: Path) -> None:
    checkpoint.save(path, PAYLOAD)
    loaded = checkpoint.load(path)
    assert torch.equal(loaded.pop("weights"), PAYLOAD["weights"])
    assert loaded == {"format": checkpoint.FORMAT, "name": "x", "steps": [1, 2]}
    assert checkpoint.load(str(path))["name"] == "x"


def test_numpy_values_become_plain_ones_before_saving(path: Path) -> None:
    array = np.arange(4)[::-1]
    odd = {np.int64(3): [np.float32(0.5), (np.bool_(True), np.int8(-1))], "array": array}
    checkpoint.save(path, {"odd": odd})
    loaded = checkpoint.load(path)["odd"]
    assert loaded[3] == [0.5, (True, -1)]
    assert [type(v) for v in (*loaded[3][:1], *loaded[3][1])] == [float, bool, int]
    assert [type(key) for key in loaded] == [int, str]
    assert loaded["array"].tolist() == [3, 2, 1, 0]
    assert odd[np.int64(3)][0].dtype == np.float32, "what was given stays as it was"


def test_an_agent_with_numpy_numbers_in_it_is_saved(path: Path) -> None:
    agent = CASE.agent(index=np.int64(4))
    agent.scores += [np.float32(1.5)]
    agent.steps[-1] += np.int64(7)
    agent.saveCheckpoint(path)
    loaded = DQN.load(path)
    assert (loaded.index, loaded.scores, loaded.steps) == (4, [1.5], [7])
    assert [type(v) for v in (loaded.index, loaded.scores[0], loaded.steps[0])] == [int, float, int]


def everything_in(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for item in value.items() for part in item for leaf in everything_in(part)]
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in everything_in(item)]
    return [value]


def test_devices_and_accelerators_are_not_stored(path: Path) -> None:
    saved_agent(path)
    leaves = everything_in(torch.load(path, weights_only=True))
    assert {type(leaf) for leaf in leaves} <= {str, int, float, bool, type(None), torch.Tensor}
    words = " ".join(leaf for leaf in leaves if isinstance(leaf, str))
    assert "accelerator" not in words
    assert "device" not in words
    assert "cpu" not in words


def test_a_checkpoint_from_a_gpu_loads_on_the_cpu(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = CASE.agent()
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
    agent.saveCheckpoint(path)
    monkeypatch.undo()
    assert b"cuda:0" in path.read_bytes(), "the file says that its tensors lay on a GPU"
    loaded = DQN.load(path)
    assert {value.device.type for value in tensors(loaded).values()} == {"cpu"}
    assert differing(tensors(loaded), tensors(agent)) == []


# ------------------------------------------------------------------------------------------ atomic


@pytest.mark.parametrize("step", ["open", "flush to the disk", "rename"])
def test_a_failure_at_any_moment_leaves_the_previous_checkpoint(
    path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(path, {"generation": 1})

    def fail(*arguments: Any, **named: Any) -> None:
        raise OSError("No space left on device")

    owner, name = {
        "open": (Path, "open"),
        "flush to the disk": (os, "fsync"),
        "rename": (Path, "replace"),
    }[step]
    monkeypatch.setattr(owner, name, fail)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(path, {"generation": 2})
    monkeypatch.undo()
    assert checkpoint.load(path)["generation"] == 1
    assert [file.name for file in path.parent.iterdir()] == ["agent.pt"]


def test_the_file_is_flushed_to_the_disk_before_it_gets_its_name(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda file: (order.append("flush"), fsync(file))[1])

    def renamed(self: Path, target: Path) -> Path:
        order.append("rename")
        assert checkpoint.load(self)["name"] == "x", "it is whole before it is renamed"
        assert self.parent == target.parent, "a rename is atomic within one directory only"
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", renamed)
    checkpoint.save(path, PAYLOAD)
    assert order == ["flush", "rename"]


WRITER = """
import sys, types
sys.modules["torch"] = types.ModuleType("torch")  # it takes seconds to load and has no part in this
from agilerl import checkpoint
content = {i: bytes([i]) * 3_000_000 for i in range(256)}
print("writing", flush=True)
i = 0
while True:
    i += 1
    checkpoint.write_bytes(sys.argv[1], content[i % 256])
"""


def test_a_kill_at_any_moment_leaves_one_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for attempt in range(2):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)],
            stdout=subprocess.PIPE,
            cwd=Path(checkpoint.__file__).parents[1],
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        while not path.exists():
            time.sleep(0.001)
        time.sleep(0.05 + 0.013 * attempt)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        content = path.read_bytes()
        assert len(content) == 3_000_000
        assert len(set(content)) == 1
        path.unlink()


# --------------------------------------------------------------------------------------- untrusted


class Payload:
    """Unpickling it would make a file."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.proof),)


def hostile_files(proof: Path) -> dict[str, bytes]:
    """Return files that run code when they are unpickled, in each form that torch reads."""
    forms = {"plain pickle": pickle.dumps(Payload(proof))}
    for name, zipped in (("torch file", True), ("old torch file", False)):
        buffer = io.BytesIO()
        payload = {"format": checkpoint.FORMAT, "algo": "DQN", "settings": Payload(proof)}
        torch.save(payload, buffer, _use_new_zipfile_serialization=zipped)
        forms[name] = buffer.getvalue()
    return forms


@pytest.mark.parametrize("form", ["plain pickle", "torch file", "old torch file"])
def test_a_malicious_pickle_is_refused_and_its_payload_does_not_run(
    form: str, path: Path, tmp_path: Path
) -> None:
    proof = tmp_path / "ran"
    hostile = hostile_files(proof)[form]
    path.parent.mkdir()
    path.write_bytes(hostile)
    agent = CASE.agent()
    before = tensors(agent)
    for load in (checkpoint.load, DQN.load, agent.loadCheckpoint):
        with pytest.raises(CheckpointError, match=r"agent\.pt: (refused|can't be read)"):
            load(path)
    assert not proof.exists()
    assert differing(before, tensors(agent)) == []

    if form != "plain pickle":  # the file is real: without the guard it does run
        torch.load(path, weights_only=False)
    else:
        pickle.loads(hostile)
    assert proof.exists()


def test_a_truncated_checkpoint_is_named_and_loses_nothing(path: Path) -> None:
    agent = saved_agent(path)
    whole = path.read_bytes()
    before = tensors(agent)
    for length in (*range(0, len(whole), 97), len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"agent\.pt: "):
            agent.loadCheckpoint(path)
    assert differing(before, tensors(agent)) == []
    assert_learns(agent, CASE.batch(1))


def test_a_flipped_bit_in_a_weight_is_noticed(path: Path) -> None:
    agent = saved_agent(path)
    content = bytearray(path.read_bytes())
    place = content.find(agent.actor.layers["linear_0"].weight.detach().numpy().tobytes())
    assert place > 0
    content[place] ^= 0x40
    path.write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match="checksum"):
        DQN.load(path)


@given(seed=st.integers(0, 2**32), count=st.integers(1, 8))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_whatever_bytes_are_damaged_the_answer_is_the_agent_or_a_checkpoint_error(
    seed: int, count: int, path: Path
) -> None:
    agent = saved_agent(path)
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(seed)
    for place in rng.integers(len(content), size=count):
        content[place] = rng.integers(256)
    path.write_bytes(bytes(content))
    try:
        loaded = DQN.load(path)
    except CheckpointError:
        return
    assert differing(tensors(loaded), tensors(agent)) == []


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", b"PK\x03\x04", b"\x80\x02.", json.dumps({"format": 1}).encode()],
    ids=str,
)
def test_a_file_of_another_kind_is_a_checkpoint_error(path: Path, content: bytes) -> None:
    checkpoint.write_bytes(path, content)
    with pytest.raises(CheckpointError, match=r"agent\.pt"):
        checkpoint.load(path)


def test_a_foreign_zip_or_torch_file_is_a_checkpoint_error(path: Path) -> None:
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "hello")
    with pytest.raises(CheckpointError, match=r"agent\.pt"):
        checkpoint.load(path)
    foreign = ([1, 2], {"weights": torch.ones(2)}, {"format": 99}, {"format": torch.ones(2)})
    for payload in foreign:
        torch.save(payload, path)
        with pytest.raises(CheckpointError, match="not a checkpoint of this library"):
            checkpoint.load(path)


def test_a_missing_file_is_a_checkpoint_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere\.pt: no such checkpoint file"):
        DQN.load(tmp_path / "nowhere.pt")
    with pytest.raises(CheckpointError, match="no such checkpoint file"):
        checkpoint.load(tmp_path)
