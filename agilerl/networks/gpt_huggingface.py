"""GPT-2 weights of Hugging Face, by name, there and back.

Their linear layers keep the weight as [in, out]; ours, as torch's, as [out, in].
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from agilerl.errors import ConfigError, check_choice, check_int, check_keys
from agilerl.networks.base import Params
from agilerl.networks.gpt import GPTSpec

CONFIG = "config.json"
#: Weight files, in the order of preference: one or several (shards), pickles last.
WEIGHTS = ("model.safetensors", "model-*.safetensors", "pytorch_model.bin", "pytorch_model-*.bin")
#: Our names of the layers of a block, and theirs.
LAYERS = {
    "norm_1": "ln_1",
    "qkv": "attn.c_attn",
    "attn_out": "attn.c_proj",
    "norm_2": "ln_2",
    "fc": "mlp.c_fc",
    "mlp_out": "mlp.c_proj",
}
#: Constants that older checkpoints hold (the causal mask).
CONSTANT = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")
ACTIVATIONS = {
    "gelu_new": "gelu",
    "gelu_pytorch_tanh": "gelu",
    "gelu_fast": "gelu",
    "gelu": "gelu_exact",
    "relu": "relu",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "leaky_relu": "lrelu",
    "linear": "linear",
}
#: Fields of their configuration that must have one value, because we compute in one way only.
FIXED = {
    "model_type": "gpt2",
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}
#: Arguments of ``EvolvableGPT`` that ``from_pretrained`` takes.
CHANGES = (
    "dropout",
    "device",
    "seed",
    *(f"{end}_{what}" for end in ("min", "max") for what in ("layers", "heads", "feedfwd")),
)


def names(n_layer: int) -> dict[str, tuple[str, bool]]:
    """Return for each of our parameters their name of it, and whether theirs is transposed."""
    table = {"wte.weight": ("wte.weight", False), "wpe.weight": ("wpe.weight", False)}
    for leaf in ("weight", "bias"):
        table[f"norm.{leaf}"] = (f"ln_f.{leaf}", False)
        for i in range(n_layer):
            for ours, theirs in LAYERS.items():
                transposed = leaf == "weight" and "c_" in theirs
                table[f"block_{i}.{ours}.{leaf}"] = (f"h.{i}.{theirs}.{leaf}", transposed)
    return table


# ---------------------------------------------------------------------------------------- reading


def read(name_or_path: str | PathLike[str], changes: Mapping[str, Any]) -> tuple[Any, Params]:
    """Return the arguments of ``EvolvableGPT`` and its weights; see ``from_pretrained``."""
    check_keys("from_pretrained", changes, CHANGES)
    folder = Path(name_or_path)
    if not folder.is_dir():
        folder = download(str(name_or_path))
    path = folder / CONFIG
    if not path.is_file():
        raise ConfigError(f"name_or_path: there is no {CONFIG} in {folder}; put the model's there.")
    try:
        config = json.loads(path.read_text("utf-8"))
        if not isinstance(config, dict):
            raise ValueError(f"it holds a {type(config).__name__}")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: expected a JSON object; {error}.") from error
    shape = {**arguments(config), **changes}
    if "dropout" not in shape:
        shape["dropout"] = one_dropout(config)
    return shape, convert(load(folder), check_int("n_layer", shape["n_layer"]))


def download(name: str) -> Path:
    """Return the folder of a hub model's configuration and weights, in the hub's local cache."""
    try:
        from huggingface_hub import snapshot_download

        for kind in (WEIGHTS[:2], WEIGHTS[2:]):  # pickles only where there is nothing else
            folder = Path(snapshot_download(name, allow_patterns=[CONFIG, *kind]))
            if weight_files(folder):
                break
        return folder
    except Exception as error:
        raise ConfigError(
            f"name_or_path: {name!r} is no directory, and the Hugging Face hub did not give it"
            f" ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})."
            f" Without a network, put the model's {CONFIG} and {WEIGHTS[0]} into a directory and"
            " pass its path."
        ) from error


def weight_files(folder: Path) -> list[Path]:
    """Return the files of the first kind of ``WEIGHTS`` that ``folder`` holds."""
    kinds = (sorted(folder.glob(pattern)) for pattern in WEIGHTS)
    return next((files for files in kinds if files), [])


def arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of ``EvolvableGPT`` that describe a GPT-2 configuration."""
    for field, needed in FIXED.items():
        if config.get(field, needed) != needed:
            raise ConfigError(
                f"{CONFIG}: {field} is {config[field]!r}; only GPT-2 models with {needed!r} can be"
                " loaded."
            )
    width = check_int("n_embd", config.get("n_embd", 768))
    theirs = check_choice(
        "activation_function", config.get("activation_function", "gelu_new"), ACTIVATIONS
    )
    return {
        "n_layer": config.get("n_layer", 12),
        "vocab_size": config.get("vocab_size", 50257),
        "n_embd": width,
        "n_head": config.get("n_head", 12),
        "dim_feedfwd": 4 * width if config.get("n_inner") is None else config["n_inner"],
        "block_size": config.get("n_positions", 1024),
        "activation": ACTIVATIONS[theirs],
        "layer_norm_eps": config.get("layer_norm_epsilon", 1e-5),
    }


def one_dropout(config: Mapping[str, Any]) -> Any:
    """Return the one dropout probability of a configuration that has three."""
    three = {config.get(f"{part}_pdrop", 0.1) for part in ("resid", "embd", "attn")}
    if len(three) > 1:
        raise ConfigError(
            f"{CONFIG}: it has several dropout probabilities {sorted(three)}, and EvolvableGPT has"
            " one; choose it with from_pretrained(..., dropout=...)."
        )
    return three.pop()


def load(folder: Path) -> Params:
    """Return the tensors of the weight files in ``folder``, by name.

    Pickles are read as tensors only: nothing in them is run.
    """
    tensors: Params = {}
    for path in weight_files(folder):
        try:
            if path.suffix == ".safetensors":
                tensors.update(load_file(path))
            else:
                tensors.update(torch.load(path, map_location="cpu", weights_only=True))
        except Exception as error:
            raise ConfigError(f"{path}: expected the weights of a model; {error}.") from error
    if not tensors:
        raise ConfigError(
            f"name_or_path: there are no weights in {folder}; put the model's {WEIGHTS[0]} (or"
            f" {WEIGHTS[2]}) there."
        )
    return tensors


def convert(tensors: Params, n_layer: int) -> Params:
    """Return our parameters, made of theirs.

    Raises:
        ConfigError: if one is unknown or missing, or the head is not the token embedding.
    """
    theirs = {name.removeprefix("transformer."): value for name, value in tensors.items()}
    head = theirs.pop("lm_head.weight", None)
    if head is not None and not torch.equal(head, theirs.get("wte.weight", head[:0])):
        raise ConfigError("lm_head.weight: expected the token embedding (a tied head).")
    theirs = {name: value for name, value in theirs.items() if not CONSTANT.fullmatch(name)}
    # counted first, so that a configuration of absurd depth costs nothing
    depth = len({name.split(".")[1] for name in theirs if name.startswith("h.")})
    if depth != n_layer:
        raise ConfigError(f"n_layer: {CONFIG} says {n_layer}, the weights have {depth} blocks.")
    table = names(n_layer)
    known = {their for their, _ in table.values()}
    if unknown := sorted(theirs.keys() - known):
        raise ConfigError(f"weights: GPT-2 has no {', '.join(unknown[:5])}; is it another model?")
    if missing := sorted(known - theirs.keys()):
        raise ConfigError(f"weights: GPT-2 also has {', '.join(missing[:5])}; the file is cut.")
    return {
        ours: theirs[their].t() if transposed and theirs[their].dim() == 2 else theirs[their]
        for ours, (their, transposed) in table.items()
    }


# ---------------------------------------------------------------------------------------- writing


def write(spec: GPTSpec, values: Params) -> Any:
    """Return a ``GPT2LMHeadModel`` with these weights; see ``EvolvableGPT.to_hf``."""
    if spec.inner != spec.n_embd:
        raise ConfigError(
            f"n_head: GPT-2 needs n_head * head_dim == n_embd, got {spec.n_head} *"
            f" {spec.head_dim} != {spec.n_embd}; add or remove heads until they agree."
        )
    their_activation = next((t for t, ours in ACTIVATIONS.items() if ours == spec.activation), None)
    if their_activation is None:
        raise ConfigError(
            f"activation: GPT-2 has no {spec.activation!r}; it has"
            f" {', '.join(sorted(set(ACTIVATIONS.values())))}."
        )
    transformers = loaded_transformers()
    # on the meta device nothing is drawn from the global generator
    with torch.device("meta"):
        model = transformers.GPT2LMHeadModel(configuration(spec, their_activation))
    theirs = {}
    for ours, (their, transposed) in names(spec.n_layer).items():
        # without biases (a norm's, too) they are zero
        value = values[ours] if ours in values else zeros_for(ours, values)
        theirs[f"transformer.{their}"] = (value.t() if transposed else value).clone().contiguous()
    theirs["lm_head.weight"] = theirs["transformer.wte.weight"]
    model.load_state_dict(theirs, assign=True)
    model.tie_weights()
    model.eval()
    return model


def configuration(spec: GPTSpec, activation: str) -> Any:
    """Return the ``GPT2Config`` of a shape."""
    # the end of a text is known for GPT-2's own vocabulary only
    ends: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None}
    return loaded_transformers().GPT2Config(
        vocab_size=spec.vocab_size,
        n_positions=spec.block_size,
        n_embd=spec.n_embd,
        n_layer=spec.n_layer,
        n_head=spec.n_head,
        n_inner=spec.dim_feedfwd,
        activation_function=activation,
        resid_pdrop=spec.dropout,
        embd_pdrop=spec.dropout,
        attn_pdrop=spec.dropout,
        layer_norm_epsilon=spec.layer_norm_eps,
        **({} if spec.vocab_size == 50257 else ends),
    )


def zeros_for(bias: str, values: Params) -> torch.Tensor:
    """Return the bias of a layer that has none."""
    weight = values[bias.removesuffix("bias") + "weight"]
    return weight.new_zeros(len(weight))


def loaded_transformers() -> Any:
    """Return the module ``transformers``, which is loaded where it is needed only."""
    try:
        import transformers
    except ImportError as error:
        raise ConfigError(
            "to_hf: transformers is not installed; run `pip install transformers`."
        ) from error
    return transformers
