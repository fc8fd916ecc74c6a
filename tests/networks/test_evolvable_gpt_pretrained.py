"""EvolvableGPT trades weights with Hugging Face's GPT-2 without loss, and refuses what it can't."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from agilerl.errors import ConfigError
from agilerl.networks.evolvable_gpt import EvolvableGPT

VOCAB = 61


@pytest.fixture
def net(saved_gpt2: Path) -> EvolvableGPT:
    return EvolvableGPT.from_pretrained(saved_gpt2, seed=0)


def tokens(batch: int = 4, time: int = 16) -> torch.Tensor:
    return torch.randint(VOCAB, (batch, time), generator=torch.Generator().manual_seed(1))


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_weights(folder: Path, **changes: torch.Tensor | None) -> None:
    path = folder / "model.safetensors"
    merged = {**load_file(path), **changes}
    save_file({k: v.contiguous() for k, v in merged.items() if v is not None}, path)


# -------------------------------------------------------------------------------- there and back


@torch.no_grad()
def test_there_and_back_is_exact(net: EvolvableGPT, hf_gpt2: Any, tmp_path: Path) -> None:
    back = net.to_hf()
    expected = hf_gpt2.state_dict()
    for name, value in back.state_dict().items():
        assert torch.equal(value, expected[name]), name
    assert back.lm_head.weight is back.transformer.wte.weight
    assert not back.training
    back.transformer.wte.weight.zero_()
    assert net.named_tensors()["wte.weight"].any()
    net.to_hf().save_pretrained(tmp_path / "again")
    again = EvolvableGPT.from_pretrained(tmp_path / "again")
    assert again.spec == net.spec


@torch.no_grad()
def test_a_network_that_evolved_goes_back_where_gpt2_can_express_it(net: EvolvableGPT) -> None:
    net.add_layer()
    net.add_node(numb_new_nodes=8)
    net.layers["block_3"].mlp_out.weight.fill_(0.01)
    back = net.to_hf()
    assert (back.config.n_layer, back.config.n_inner) == (4, 136)
    assert (back(tokens()).logits - net(tokens())).abs().max() <= 1e-5
    net.add_head(numb_new_heads=1)
    with pytest.raises(ConfigError, match="n_head"):
        net.to_hf()
    net.remove_head(numb_new_heads=1)
    net.change_activation("elu")
    with pytest.raises(ConfigError, match="elu"):
        net.to_hf()


@torch.no_grad()
def test_a_network_without_biases_goes_there_with_zeros() -> None:
    net = EvolvableGPT(2, VOCAB, 16, 2, 32, 24, bias=False, seed=0).eval()
    theirs = net.to_hf()
    assert (theirs(tokens()).logits - net(tokens())).abs().max() <= 1e-5
    assert not theirs.transformer.h[0].attn.c_attn.bias.any()


@torch.no_grad()
def test_other_forms_of_the_same_checkpoint_load(saved_gpt2: Path, hf_gpt2: Any) -> None:
    expected = EvolvableGPT.from_pretrained(saved_gpt2)(tokens())
    state = {k.removeprefix("transformer."): v for k, v in hf_gpt2.state_dict().items()}
    state["h.0.attn.bias"] = torch.ones(1, 1, 48, 48)
    state["h.0.attn.masked_bias"] = torch.tensor(-1e4)
    (saved_gpt2 / "model.safetensors").unlink()
    torch.save(state, saved_gpt2 / "pytorch_model.bin")
    assert torch.equal(EvolvableGPT.from_pretrained(str(saved_gpt2))(tokens()), expected)

    (saved_gpt2 / "pytorch_model.bin").unlink()
    hf_gpt2.save_pretrained(saved_gpt2, max_shard_size="20KB")
    assert not (saved_gpt2 / "model.safetensors").exists()
    assert torch.equal(EvolvableGPT.from_pretrained(saved_gpt2)(tokens()), expected)


def test_the_callers_limits_are_widened_and_dropout_can_be_chosen(saved_gpt2: Path) -> None:
    net = EvolvableGPT.from_pretrained(
        saved_gpt2, min_layers=5, max_layers=6, dropout=0.3, max_heads=5
    )
    spec = net.spec
    assert (spec.min_layers, spec.max_layers, spec.max_heads) == (3, 6, 5)
    assert spec.dropout == 0.3
    assert EvolvableGPT.from_pretrained(saved_gpt2).spec.dropout == 0.1


# ------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model_type", "llama"),
        ("scale_attn_by_inverse_layer_idx", True),
        ("add_cross_attention", True),
        ("tie_word_embeddings", False),
        ("activation_function", "quick_gelu"),
        ("n_layer", 10**12),
        ("n_layer", 2),
        ("n_embd", "wide"),
        ("n_head", 5),
        ("resid_pdrop", 0.2),
    ],
)
def test_a_configuration_that_cannot_be_is_named(saved_gpt2: Path, field: str, value: Any) -> None:
    edit_config(saved_gpt2, **{field: value})
    with pytest.raises(ConfigError, match="dropout" if field == "resid_pdrop" else field):
        EvolvableGPT.from_pretrained(saved_gpt2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transformer.h.0.attn.c_other.weight": torch.zeros(1)}, "c_other"),
        ({"transformer.h.1.mlp.c_fc.bias": None}, r"h\.1\.mlp\.c_fc\.bias"),
        ({"transformer.wpe.weight": torch.zeros(47, 32)}, r"wpe.weight: expected \(48, 32\)"),
        ({"transformer.h.1.mlp.c_fc.weight": torch.zeros(3)}, "block_1.fc.weight"),
        ({"lm_head.weight": torch.zeros(VOCAB, 32)}, "tied"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    saved_gpt2: Path, changes: dict[str, torch.Tensor | None], message: str
) -> None:
    edit_weights(saved_gpt2, **changes)
    with pytest.raises(ConfigError, match=message):
        EvolvableGPT.from_pretrained(saved_gpt2)


def test_missing_and_broken_files_are_named(saved_gpt2: Path, tmp_path: Path) -> None:
    (saved_gpt2 / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ConfigError, match=r"model\.safetensors"):
        EvolvableGPT.from_pretrained(saved_gpt2)
    (saved_gpt2 / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"put the model's model\.safetensors"):
        EvolvableGPT.from_pretrained(saved_gpt2)
    for index in ('{"weight_map": {"a": "../../secret"}}', "{}", "[]"):
        (saved_gpt2 / "model.safetensors.index.json").write_text(index)
        with pytest.raises(ConfigError, match="index"):
            EvolvableGPT.from_pretrained(saved_gpt2)
    (saved_gpt2 / "model.safetensors").touch()
    for text in ("{", "[]"):
        (saved_gpt2 / "config.json").write_text(text)
        with pytest.raises(ConfigError, match=r"config\.json: expected a JSON object"):
            EvolvableGPT.from_pretrained(saved_gpt2)
    (saved_gpt2 / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"no config\.json"):
        EvolvableGPT.from_pretrained(saved_gpt2)


class Trap:
    """Unpickling it would run code."""

    def __reduce__(self) -> Any:
        return (sys.exit, ("a pickle was run",))


def test_a_pickle_is_read_as_tensors_only(saved_gpt2: Path) -> None:
    (saved_gpt2 / "model.safetensors").unlink()
    torch.save({"wte.weight": Trap()}, saved_gpt2 / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"pytorch_model\.bin"):
        EvolvableGPT.from_pretrained(saved_gpt2)


def test_an_unknown_argument_is_refused(saved_gpt2: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'max_layers'"):
        EvolvableGPT.from_pretrained(saved_gpt2, max_layer=3)
    with pytest.raises(ConfigError, match="trust_remote_code"):
        EvolvableGPT.from_pretrained(saved_gpt2, trust_remote_code=True)


def test_without_a_network_the_message_says_which_files_to_put_where(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def offline(name: str, file: str) -> str:
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(
        ConfigError, match=r"'gpt2'.*config\.json and model\.safetensors into a dir"
    ):
        EvolvableGPT.from_pretrained("gpt2")


@pytest.mark.parametrize("form", ["safetensors", "shards", "pickle"])
def test_a_hub_model_is_read_from_the_files_that_it_has(
    saved_gpt2: Path, hf_gpt2: Any, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    expected = EvolvableGPT.from_pretrained(saved_gpt2)(tokens())
    if form != "safetensors":
        (saved_gpt2 / "model.safetensors").unlink()
    if form == "shards":
        hf_gpt2.save_pretrained(saved_gpt2, max_shard_size="20KB")
    if form == "pickle":
        torch.save(hf_gpt2.state_dict(), saved_gpt2 / "pytorch_model.bin")

    def hub(name: str, file: str) -> str:
        assert name == "someone/small"
        if not (saved_gpt2 / file).exists():
            raise EntryNotFoundError.__new__(EntryNotFoundError)
        return str(saved_gpt2 / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub)
    assert torch.equal(EvolvableGPT.from_pretrained("someone/small")(tokens()), expected)
