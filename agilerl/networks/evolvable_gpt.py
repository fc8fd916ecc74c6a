"""The evolvable GPT: its blocks, attention heads and feed-forward width may change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from os import PathLike
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from agilerl.errors import ConfigError
from agilerl.networks import gpt, gpt_huggingface, transfer
from agilerl.networks.base import Edit, EditRefused, EvolvableNetwork, Params, edit, materialise
from agilerl.networks.gpt import Block, Dropout, GPTSpec, GPTWeights, KVCache
from agilerl.networks.gpt_decoding import DecodingOptions, LogitsProcessor, generate
from agilerl.networks.transfer import Units
from agilerl.seeding import Generator, derive

Tensor = torch.Tensor
#: Numbers of feed-forward units, and of heads, that a mutation adds or removes in every block.
FEEDFWD_STEPS = (32, 64, 128)
HEAD_STEPS = (1, 2)
#: Standard deviation of GPT-2's initial weights.
STD = 0.02


# -------------------------------------------------------------------------------- initial weights


def initialise(rng: Generator, layer: nn.Module, spec: GPTSpec) -> None:
    """Draw GPT-2's initial parameters of a layer, in place.

    Weights are Normal(0, 0.02), those that write to the residual stream are divided by
    ``sqrt(2 n_layer)``; biases are 0 and norms are 1.
    """
    if isinstance(layer, nn.LayerNorm):
        layer.reset_parameters()
    elif isinstance(layer, nn.Embedding):
        normal(rng, layer.weight, STD)
    elif isinstance(layer, Block):
        for name, part in layer.named_children():
            if isinstance(part, nn.Linear):
                scale = (2 * spec.n_layer) ** -0.5 if name.endswith("_out") else 1.0
                normal(rng, part.weight, STD * scale)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
            else:
                initialise(rng, part, spec)


@torch.no_grad()
def normal(rng: Generator, out: torch.Tensor, std: float) -> torch.Tensor:
    """Fill ``out`` with Normal(0, std) and return it."""
    drawn = rng.standard_normal(tuple(out.shape), dtype="float32")
    return out.copy_(torch.from_numpy(drawn)).mul_(std)


class EvolvableGPT(EvolvableNetwork):
    """A GPT-2 whose blocks, attention heads and feed-forward width can be edited.

    Pre-norm transformer blocks, learned positions, and a head that is the token embedding itself
    ("Language Models are Unsupervised Multitask Learners", Radford et al. 2019).  Growing leaves
    the logits as they are, to the rounding of float32.

    Args:
        n_layer: number of blocks.
        vocab_size: number of tokens.
        n_embd: width of the residual stream, E below.
        n_head: attention heads of each block.
        dim_feedfwd: width of the feed-forward layer, the same in all blocks.
        block_size: the most tokens of a sequence, padding included.
        dropout: probability, of embeddings, attention weights and block outputs alike.
        activation: of the feed-forward layers, a name from ``GPT_ACTIVATIONS``; ``"gelu"`` is
            GPT-2's tanh approximation.
        layer_norm_eps: added to the variance in layer norms.
        min_layers: an edit never leaves fewer blocks.
        max_layers: nor more.
        bias: whether linear layers and layer norms have biases.
        device: where the parameters live.
        head_dim: width of one head; None is ``n_embd / n_head``.  Edits keep it.
        seed: of the network's own random streams (weights, dropout, sampling).
        weights: all initial parameters by name, relative to ``layers``; None draws them.
        limits: ``min_heads`` (1), ``max_heads`` (32), ``min_feedfwd`` (32) and ``max_feedfwd``
            (8192), as ``min_layers`` and ``max_layers``.  All limits are widened to include the
            start.

    Raises:
        ConfigError: on an argument out of its range.
    """

    spec: GPTSpec

    def __init__(
        self,
        n_layer: int = 12,
        vocab_size: int = 50257,
        n_embd: int = 768,
        n_head: int = 12,
        dim_feedfwd: int = 3072,
        block_size: int = 1024,
        dropout: float = 0.0,
        activation: str = "gelu",
        layer_norm_eps: float = 1e-5,
        min_layers: int = 8,
        max_layers: int = 16,
        bias: bool = True,
        device: str | torch.device = "cpu",
        head_dim: int | None = None,
        seed: int | None = None,
        weights: Params | None = None,
        **limits: int,
    ) -> None:
        spec = GPTSpec(
            n_layer=n_layer,
            vocab_size=vocab_size,
            n_embd=n_embd,
            n_head=n_head,
            dim_feedfwd=dim_feedfwd,
            block_size=block_size,
            dropout=dropout,
            activation=activation,
            layer_norm_eps=layer_norm_eps,
            min_layers=min_layers,
            max_layers=max_layers,
            bias=bias,
            head_dim=head_dim,  # type: ignore[arg-type]  # the spec puts a number for None
            **GPTSpec.known_limits(limits),
        )
        super().__init__(spec, device, seed, weights)
        self.drop = Dropout(int(self.rng.integers(2**62)))

    def make_layers(self, spec: GPTSpec) -> Iterator[tuple[str, nn.Module]]:
        """Yield embeddings, blocks and the last norm of ``spec``, on the meta device."""
        return gpt.gpt_layers(spec)

    def initialise(self, name: str, layer: nn.Module, spec: GPTSpec) -> None:
        """Draw GPT-2's initial parameters of one layer from ``self.rng``, in place."""
        initialise(self.rng, layer, spec)

    def new_rows(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Draw rows of a weight as ``initialise`` does; biases are 0."""
        if name.endswith("bias"):
            return torch.zeros(shape)
        return normal(self.rng, torch.empty(shape), STD)

    @property
    def rng_owners(self) -> list[Any]:
        """The objects of this network that draw: itself, and its dropout."""
        return [self, self.drop]

    def summary(self) -> str:
        """Return blocks, heads, feed-forward width and activation, ``"12x12h 3072 gelu"`` say."""
        spec = self.spec
        return f"{spec.n_layer}x{spec.n_head}h {spec.dim_feedfwd} {spec.activation}"

    def clone(self) -> EvolvableGPT:
        """Return an independent network of the same shape and weights, with new streams."""
        twin = super().clone()
        assert isinstance(twin, EvolvableGPT)
        twin.drop.reseed(int(twin.rng.integers(2**62)))
        return twin

    # ------------------------------------------------------------------------------------- editing

    @edit("layer")
    def add_layer(self, rng: Generator | None = None) -> Edit:
        """Put a block behind the last one that adds nothing to the residual stream yet."""
        spec = self.spec
        if spec.n_layer >= spec.max_layers:
            raise EditRefused(f"{spec.n_layer} blocks are the maximum")
        grown = replace(spec, n_layer=spec.n_layer + 1)
        block = Block(grown)
        materialise(block, torch.device("cpu"), torch.float32)
        initialise(self.rng, block, grown)
        for output in (block.attn_out, block.mlp_out):
            nn.init.zeros_(output.weight)
        fresh = {f"block_{spec.n_layer}.{name}": p.detach() for name, p in block.named_parameters()}
        return Edit({}, grown, partial(transfer.add_parameters, fresh=fresh))

    @edit("layer")
    def remove_layer(self, block: int | None = None, rng: Generator | None = None) -> Edit:
        """Take out a block: by default the one that writes least to the residual stream.

        Without data at hand that is the one whose two output weights have the smallest norm (the
        last of several).
        """
        spec = self.spec
        if spec.n_layer <= spec.min_layers:
            raise EditRefused(f"{spec.n_layer} blocks are the minimum")
        if block is None:
            values = self.named_tensors()
            outputs = ("attn_out.weight", "mlp_out.weight")
            norms = [
                sum(float(values[f"block_{i}.{name}"].square().sum()) for name in outputs)
                for i in range(spec.n_layer)
            ]
            block = min(range(spec.n_layer), key=lambda i: (norms[i], -i))
        blocks, refusal = range(spec.n_layer), f"there is no block {block}"
        block = self.draw(rng, blocks, block, "block", refusal)
        drop = partial(transfer.remove_block, block=block, n_layer=spec.n_layer)
        return Edit({"block": block}, replace(spec, n_layer=spec.n_layer - 1), drop)

    @edit("node")
    def add_node(self, numb_new_nodes: int | None = None, rng: Generator | None = None) -> Edit:
        """Add feed-forward units to every block; the number is drawn where it is None."""
        return self._plan_feedfwd(rng, numb_new_nodes, grow=True)

    @edit("node")
    def remove_node(self, numb_new_nodes: int | None = None, rng: Generator | None = None) -> Edit:
        """Remove from every block the feed-forward units with the smallest outgoing weights."""
        return self._plan_feedfwd(rng, numb_new_nodes, grow=False)

    @edit("node")
    def add_head(self, numb_new_heads: int | None = None, rng: Generator | None = None) -> Edit:
        """Add attention heads to every block; the number is drawn where it is None."""
        return self._plan_heads(rng, numb_new_heads, grow=True)

    @edit("node")
    def remove_head(self, numb_new_heads: int | None = None, rng: Generator | None = None) -> Edit:
        """Remove from every block the heads with the smallest outgoing weights."""
        return self._plan_heads(rng, numb_new_heads, grow=False)

    def _plan_feedfwd(self, rng: Generator | None, count: int | None, grow: bool) -> Edit:
        spec, size = self.spec, self.spec.dim_feedfwd
        count = self.draw_count(
            rng,
            count,
            grow,
            field="numb_new_nodes",
            steps=FEEDFWD_STEPS,
            size=size,
            limits="feedfwd",
            what="the feed-forward layers have {} of at {} {} units",
        )
        resized = replace(spec, dim_feedfwd=size + count if grow else size - count)
        units = [
            Units(self._rows(f"block_{i}.fc"), f"block_{i}.mlp_out.weight")
            for i in range(spec.n_layer)
        ]
        return self.resized({"numb_new_nodes": count}, resized, units, count, grow)

    def _plan_heads(self, rng: Generator | None, count: int | None, grow: bool) -> Edit:
        spec, size, width = self.spec, self.spec.n_head, self.spec.head_dim
        count = self.draw_count(
            rng,
            count,
            grow,
            field="numb_new_heads",
            steps=HEAD_STEPS,
            size=size,
            limits="heads",
            what="a block has {} of at {} {} heads",
        )
        resized = replace(spec, n_head=size + count if grow else size - count)
        heads = [
            Units(self._rows(f"block_{i}.qkv"), f"block_{i}.attn_out.weight", 3, width, width)
            for i in range(spec.n_layer)
        ]
        return self.resized({"numb_new_heads": count}, resized, heads, count, grow)

    def _rows(self, layer: str) -> tuple[str, ...]:
        return (f"{layer}.weight", f"{layer}.bias") if self.spec.bias else (f"{layer}.weight",)

    # ------------------------------------------------------------------------------------- reading

    def forward(
        self,
        ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Return the logits of the next token at every position.

        Args:
            ids: tokens [B, T].
            attention_mask: [B, T], 1 for real tokens and 0 for padding, left or right; None if
                all are real.  Logits at padding mean nothing.
            position_ids: [T] or [B, T] in [0, block_size); None counts each row's real tokens.
            cache: of ``new_cache``; ``ids`` continue what it holds, and are added to it.

        Returns:
            [B, T, vocab_size].

        Raises:
            ConfigError: on tokens outside the vocabulary, more than ``block_size`` of them, or
                arguments of another shape.
        """
        return self.head(self.hidden(ids, attention_mask, position_ids, cache))

    def hidden(
        self,
        ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Return what the head reads, [B, T, n_embd]; arguments as those of ``forward``."""
        weights = self.bound()
        ids = gpt.check_ids(ids, weights)
        batch, time = ids.shape
        gpt.check_length(weights, 0 if cache is None else cache.length, time, "ids")
        mask = gpt.check_mask(attention_mask, ids)
        positions = gpt.check_positions(position_ids, ids, time, self.spec.block_size)
        if cache is not None:
            gpt.check_cache(cache, weights, batch, time)
        context = gpt.pass_context(weights, (batch, time), mask, positions, cache)
        drop = self._drop if self.training and self.spec.dropout > 0 else None
        return gpt.last_norm(weights, gpt.run(weights, ids, context, drop))

    def head(self, hidden: Tensor) -> Tensor:
        """Return the logits [..., vocab_size] of hidden states [..., n_embd]."""
        weight = self.layers["wte"].weight
        assert isinstance(weight, Tensor)
        return F.linear(hidden, weight)

    def new_cache(self, batch_size: int, capacity: int | None = None) -> KVCache:
        """Return an empty cache of keys and values for ``batch_size`` rows.

        Args:
            batch_size: rows.
            capacity: the most tokens of a row; None is ``block_size``.
        """
        return gpt.new_cache(self.bound(), batch_size, capacity)

    def bound(self) -> GPTWeights:
        """Return the live parameters in the form that ``gpt.run`` takes."""
        return gpt.bind(self.spec, self.layers)

    def _drop(self, x: Tensor) -> Tensor:
        dropped: Tensor = self.drop(x, self.spec.dropout)
        return dropped

    # ------------------------------------------------------------------------------------- writing

    def generate(
        self,
        idx: Tensor,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        attention_mask: Tensor | None = None,
        eos_token_id: int | list[int] | None = None,
        num_beams: int = 1,
        logits_processor: LogitsProcessor | None = None,
        length_penalty: float = 1.0,
        pad_token_id: int | None = None,
        position_ids: Tensor | None = None,
        seed: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Continue sequences; dropout is off, and the training mode stays as it is.

        Args:
            idx: prompts [B, T].
            max_new_tokens: how many tokens to add at most.
            temperature: the logits are divided by it; 0 takes the likeliest token.
            top_k: draw from the k likeliest tokens only.
            top_p: draw from the fewest tokens whose probability adds up to this.
            attention_mask: [B, T], 0 at padding, left or right.
            eos_token_id: token (or tokens) that ends a sequence.
            num_beams: more than one searches the likeliest sequence with so many beams; nothing is
                drawn then.
            logits_processor: ``(ids [B, t], logits [B, V], hidden [B, E]) -> logits``, called for
                every new token before temperature, top_k and top_p; -inf forbids a token.
            length_penalty: beams are ranked by log-probability / length ** length_penalty.
            pad_token_id: fills sequences that end early; None is the (first) end token.
            position_ids: of prompt and new tokens, [T + max_new_tokens] or [B, ...]; None counts.
            seed: of this call's draws; None draws on the network's own stream.
            generator: to draw from in place of a seed.

        Returns:
            Prompts and continuations, [B, T + n]; n is less than ``max_new_tokens`` where all
            sequences end before.

        Raises:
            ConfigError: on arguments out of range, or a sequence that would not fit ``block_size``.
        """
        weights = self.bound()
        ids = gpt.check_ids(idx, weights)
        mask = gpt.check_mask(attention_mask, ids)
        options = DecodingOptions(
            self.spec.vocab_size,
            max_new_tokens,
            temperature,
            top_k,
            top_p,
            eos_token_id,
            num_beams,
            length_penalty,
            pad_token_id,
        )
        gpt.check_length(weights, 0, ids.shape[1], "idx")
        gpt.check_length(weights, ids.shape[1], options.max_new_tokens, "idx and max_new_tokens")
        total = ids.shape[1] + options.max_new_tokens
        positions = gpt.check_positions(position_ids, ids, total, self.spec.block_size)
        stream = self._stream(seed, generator) if options.draws else None
        return generate(weights, ids, mask, positions, options, logits_processor, stream)

    def _stream(self, seed: int | None, generator: torch.Generator | None) -> torch.Generator:
        """Return the generator that one call of ``generate`` draws from."""
        if generator is None:
            drawn = int(self.rng.integers(2**62)) if seed is None else derive(seed, "generate")
            return torch.Generator().manual_seed(drawn)
        if seed is not None:
            raise ConfigError("seed: a generator is given, too; give one of the two.")
        return generator

    # ----------------------------------------------------------------------------------- exchanging

    @classmethod
    def from_pretrained(cls, name_or_path: str | PathLike[str], **changes: Any) -> EvolvableGPT:
        """Return the network of a Hugging Face GPT-2, of any size, in evaluation mode.

        Call ``train()`` before fine-tuning, if its dropout is to work.

        Args:
            name_or_path: a directory with ``config.json`` and the weights, or a name on the hub.
            changes: arguments of the constructor that are no part of the weights' shape:
                ``dropout`` (else the checkpoint's), ``device``, ``seed``, and the limits, which
                are widened to include the loaded sizes.

        Raises:
            ConfigError: if it can't be found or reached, is no GPT-2, or has weights that are
                unknown, missing or of another shape.
        """
        shape, values = gpt_huggingface.read(name_or_path, changes)
        return cls(**shape, weights=values).eval()

    def to_hf(self) -> Any:
        """Return a ``transformers.GPT2LMHeadModel`` with a copy of these weights.

        Raises:
            ConfigError: if GPT-2 can't express this shape.
        """
        return gpt_huggingface.write(self.spec, self.named_tensors())
