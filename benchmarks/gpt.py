"""Decoding speed of EvolvableGPT against Hugging Face's GPT-2, with the same weights.

    python -m benchmarks.gpt [--sizes small gpt2] [--rounds 5] [--new-tokens 64]

Both decode greedily with a KV cache, from the same prompts, on one thread; the runs take turns, and
the table shows the median tokens/s and the median of the ratio of neighbouring runs.  A second is a
second of the thread's processor time, so that other work on the machine is not counted.  Each of
our tokens must be the likeliest by Hugging Face's own logits.  The default sizes run in about a
minute; ``gpt2`` (124 M parameters) takes longer, and is bound by reading the weights from memory.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from agilerl.networks.evolvable_gpt import EvolvableGPT

SIZES: dict[str, dict[str, int]] = {
    "wordle": {"n_layer": 4, "n_embd": 128, "n_head": 4, "vocab_size": 420},
    "small": {"n_layer": 6, "n_embd": 256, "n_head": 8, "vocab_size": 8192},
    "gpt2": {"n_layer": 12, "n_embd": 768, "n_head": 12, "vocab_size": 50257},
}


def build(size: str) -> tuple[EvolvableGPT, Any]:
    """Return our network and Hugging Face's, with the same random weights."""
    shape = SIZES[size]
    net = EvolvableGPT(**shape, dim_feedfwd=4 * shape["n_embd"], block_size=256, seed=0).eval()
    theirs = net.to_hf()
    theirs.generation_config.eos_token_id = None
    return net, theirs


def seconds(run: Callable[[], torch.Tensor]) -> tuple[float, torch.Tensor]:
    """Return how long one call kept the processor busy, and what it gave."""
    start = time.process_time()
    result = run()
    return time.process_time() - start, result


def check_greedy(texts: torch.Tensor, theirs: Any, prompt: int, tolerance: float = 1e-4) -> None:
    """Raise unless every new token is the likeliest, or one of several that are as good as it."""
    with torch.no_grad():
        logits = theirs(texts).logits[:, prompt - 1 : -1]
    chosen = logits.gather(2, texts[:, prompt:, None])[..., 0]
    short = float((logits.amax(2) - chosen).max())
    if short > tolerance:
        raise AssertionError(f"a token is {short:g} less likely, in logits, than the best one")


def compare(
    size: str, batch: int, prompt: int, new: int, rounds: int
) -> tuple[float, float, float]:
    """Return the median tokens/s of both, and the median ratio."""
    net, theirs = build(size)
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(net.spec.vocab_size, (batch, prompt), generator=generator)

    def ours() -> torch.Tensor:
        return net.generate(ids, new, temperature=0)

    def hugging_face() -> torch.Tensor:
        tokens: torch.Tensor = theirs.generate(
            ids, max_new_tokens=new, do_sample=False, pad_token_id=0, use_cache=True
        )
        return tokens

    hugging_face()  # to warm up
    check_greedy(ours(), theirs, prompt)
    times = [(seconds(ours)[0], seconds(hugging_face)[0]) for _ in range(rounds)]
    rates = [statistics.median(batch * new / pair[i] for pair in times) for i in (0, 1)]
    return rates[0], rates[1], statistics.median(theirs / ours for ours, theirs in times)


def main() -> None:
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    flags.add_argument("--sizes", nargs="+", choices=SIZES, default=["wordle", "small"])
    flags.add_argument("--batches", nargs="+", type=int, default=[1, 32])
    flags.add_argument("--prompt", type=int, default=32)
    flags.add_argument("--new-tokens", type=int, default=64)
    flags.add_argument("--rounds", type=int, default=5)
    args = flags.parse_args()
    torch.set_num_threads(1)
    print(f"{'size':<8}{'batch':>6}{'ours tok/s':>12}{'HF tok/s':>12}{'ratio':>8}")
    for size in args.sizes:
        for batch in args.batches:
            ours, theirs, ratio = compare(size, batch, args.prompt, args.new_tokens, args.rounds)
            print(f"{size:<8}{batch:>6}{ours:>12.0f}{theirs:>12.0f}{ratio:>8.2f}", flush=True)


if __name__ == "__main__":
    main()
