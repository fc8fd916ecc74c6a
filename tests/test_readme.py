"""The README's own code runs, in the order in which it stands."""

import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)

#: Numbers of the README that make a run long, and what is run in their place.
SHORTER = {
    "n_episodes=60": "n_episodes=2",
    "max_steps=500": "max_steps=40",
    "evo_epochs=2": "evo_epochs=1",
    "range(100)": "range(5)",
    "range(500)": "range(30)",
    "target=475.0": "target=None",
    'target=475, budget="10min"': "steps=3000, workers=0",
}


def shortened(code):
    for long, short in SHORTER.items():
        code = code.replace(long, short)
    return code


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    folder = tmp_path_factory.mktemp("readme")
    names = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for block in BLOCKS:
            exec(compile(shortened(block), "README.md", "exec"), names)
    plt.close("all")
    return names, folder


def test_every_shortened_number_stands_in_the_readme():
    assert [number for number in SHORTER if number not in "".join(BLOCKS)] == []


def test_the_twenty_lines_train_a_population_and_draw_it(session):
    _, folder = session
    assert (folder / "cartpole.png").read_bytes()[:4] == b"\x89PNG"


def test_the_training_loop_of_ones_own_learns_and_evolves(session):
    names, _ = session
    assert names["epsilon"] < 0.6
    assert len(names["memory"]) > 4 * 5 * 30
    assert names["pop"][0].elite
    assert {agent.learn_count > 0 for agent in names["pop"]} == {True}


def test_the_mutations_of_an_agent_of_ones_own_are_accepted(session):
    names, _ = session
    assert names["mutations"].ranges["lr"].low == 1e-5
