"""EvolvableGPT and Hugging Face's GPT-2 are one function, and trade weights without loss."""

from __future__ import annotations

import json
import shutil
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from agilerl.errors import ConfigError
from agilerl.networks import gpt_huggingface
from agilerl.networks.evolvable_gpt import EvolvableGPT

VOCAB = 61


@pytest.fixture
def net(saved_gpt2: Path) -> EvolvableGPT:
    return EvolvableGPT.from_pretrained(saved_gpt2, seed=0)


def tokens(batch: int = 4, time: int = 16) -> torch.Tensor:
    return torch.randint(VOCAB, (batch, time), generator=torch.Generator().manual_seed(1))


def padding(left: bool) -> torch.Tensor:
    mask = torch.ones(4, 16, dtype=torch.long)
    for row, count in enumerate((0, 4, 9, 15)):
        mask[row, slice(0, count) if left else slice(16 - count, 16)] = 0
    return mask


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_weights(folder: Path, **changes: torch.Tensor | None) -> None:
    path = folder / "model.safetensors"
    merged = {**load_file(path), **changes}
    save_file({k: v.contiguous() for k, v in merged.items() if v is not None}, path)


# ------------------------------------------------------------------------------------ the same


@torch.no_grad()
def test_logits_are_equal(net: EvolvableGPT, hf_gpt2: Any) -> None:
    ids = tokens()
    assert (net(ids) - hf_gpt2(ids).logits).abs().max() <= 1e-5
    assert net.spec.n_layer == net.spec.min_layers == 3
    assert net.spec.layer_norm_eps == 1e-4
    assert not net.training


@torch.no_grad()
@pytest.mark.parametrize("left", [True, False])
def test_logits_are_equal_with_padding_also_from_a_cache(
    net: EvolvableGPT, hf_gpt2: Any, left: bool
) -> None:
    ids, mask = tokens(), padding(left)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    expected = hf_gpt2(ids, attention_mask=mask, position_ids=positions).logits
    real = mask.bool()
    assert (net(ids, mask) - expected)[real].abs().max() <= 1e-5
    cache = net.new_cache(4)
    parts = [net(i, m, cache=cache) for i, m in zip(ids.split(5, 1), mask.split(5, 1), strict=True)]
    assert (torch.cat(parts, 1) - expected)[real].abs().max() <= 1e-5


@torch.no_grad()
def test_greedy_texts_are_equal_with_left_padding(net: EvolvableGPT, hf_gpt2: Any) -> None:
    ids, mask = tokens(), padding(left=True)
    for end in (None, 7, [3, 7, 11, 20, 40]):
        expected = hf_gpt2.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=20,
            do_sample=False,
            pad_token_id=0,
            eos_token_id=end,
        )
        ours = net.generate(ids, 20, 0, attention_mask=mask, eos_token_id=end, pad_token_id=0)
        assert torch.equal(ours, expected)


@torch.no_grad()
@pytest.mark.parametrize("length_penalty", [1.0, -2.0, 0.0])
@pytest.mark.parametrize("beams", [2, 5])
def test_beam_search_finds_the_same_texts(
    net: EvolvableGPT, hf_gpt2: Any, beams: int, length_penalty: float
) -> None:
    ids, mask = tokens(), padding(left=True)
    lengths = set()
    for end in (None, 7, [3, 7, 11, 20, 40], list(range(20))):
        expected = hf_gpt2.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=12,
            num_beams=beams,
            do_sample=False,
            pad_token_id=1,
            eos_token_id=end,
            length_penalty=length_penalty,
        )
        ours = net.generate(
            ids,
            12,
            num_beams=beams,
            attention_mask=mask,
            eos_token_id=end,
            pad_token_id=1,
            length_penalty=length_penalty,
        )
        assert torch.equal(ours, expected)
        lengths.add(ours.shape[1])
    assert len(lengths) > 1 or length_penalty > 0  # some searches ended before the limit


@torch.no_grad()
@pytest.mark.parametrize(("top_k", "top_p"), [(5, None), (None, 0.7), (9, 0.5)])
def test_the_same_tokens_stay_in_the_draw(
    net: EvolvableGPT, top_k: int | None, top_p: float | None
) -> None:
    from transformers import TopKLogitsWarper, TopPLogitsWarper

    logits = net(tokens())[:, -1]
    expected = logits
    if top_k is not None:
        expected = TopKLogitsWarper(top_k)(None, expected)
    if top_p is not None:
        expected = TopPLogitsWarper(top_p)(None, expected)
    allowed = expected.isfinite()
    drawn = net.generate(tokens().repeat(300, 1), 1, top_k=top_k, top_p=top_p, seed=0)[:, -1]
    seen = torch.zeros_like(allowed).scatter_(1, drawn.view(300, 4).T, True)
    assert not (seen & ~allowed).any()
    likely = expected.softmax(-1) > 0.03
    assert (seen | ~likely).all()


@torch.no_grad()
@pytest.mark.parametrize("name", sorted(gpt_huggingface.ACTIVATIONS))
def test_every_activation_is_the_same_function(saved_gpt2: Path, hf_gpt2: Any, name: str) -> None:
    from transformers.activations import ACT2FN

    edit_config(saved_gpt2, activation_function=name)
    net = EvolvableGPT.from_pretrained(saved_gpt2)
    blocks = hf_gpt2.transformer.h
    old = [block.mlp.act for block in blocks]
    try:
        for block in blocks:
            block.mlp.act = ACT2FN[name]
        assert (net(tokens()) - hf_gpt2(tokens()).logits).abs().max() <= 1e-5
    finally:
        for block, act in zip(blocks, old, strict=True):
            block.mlp.act = act


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
    index = '{"weight_map": {"a": "../../secret"}}'  # shards are found by their own names
    (saved_gpt2 / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ConfigError, match="no weights"):
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


def test_a_missing_shard_is_noticed(saved_gpt2: Path, hf_gpt2: Any) -> None:
    (saved_gpt2 / "model.safetensors").unlink()
    hf_gpt2.save_pretrained(saved_gpt2, max_shard_size="20KB")
    max(saved_gpt2.glob("model-*.safetensors")).unlink()
    with pytest.raises(ConfigError, match="the file is cut"):
        EvolvableGPT.from_pretrained(saved_gpt2)


def test_without_a_network_the_message_says_which_files_to_put_where(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def offline(name: str, allow_patterns: list[str]) -> str:
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(
        ConfigError, match=r"'gpt2'.*config\.json and model\.safetensors into a dir"
    ):
        EvolvableGPT.from_pretrained("gpt2")


@pytest.mark.parametrize("form", ["safetensors", "shards", "pickle", "both"])
def test_a_hub_model_is_read_from_the_files_that_it_has(
    saved_gpt2: Path, hf_gpt2: Any, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    import huggingface_hub

    expected = EvolvableGPT.from_pretrained(saved_gpt2)(tokens())
    if form not in ("safetensors", "both"):
        (saved_gpt2 / "model.safetensors").unlink()
    if form == "shards":
        hf_gpt2.save_pretrained(saved_gpt2, max_shard_size="20KB")
    if form == "pickle":
        torch.save(hf_gpt2.state_dict(), saved_gpt2 / "pytorch_model.bin")
    if form == "both":
        torch.save({"wte.weight": Trap()}, saved_gpt2 / "pytorch_model.bin")
    cache = saved_gpt2 / "cache"
    cache.mkdir()

    def hub(name: str, allow_patterns: list[str]) -> str:
        assert name == "someone/small"
        for file in saved_gpt2.iterdir():
            if file.is_file() and any(fnmatch(file.name, p) for p in allow_patterns):
                shutil.copy(file, cache)
        return str(cache)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    assert torch.equal(EvolvableGPT.from_pretrained("someone/small")(tokens()), expected)
    pickles = [file.name for file in cache.glob("*.bin")]
    assert pickles == (["pytorch_model.bin"] if form == "pickle" else [])
