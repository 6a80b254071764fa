"""Encoders of texts, against the layers of torch.nn."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lit_models.modules.text_encoders import CNNEncoder, RecurrentEncoder, TransformerEncoder, masked_mean


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_the_cnn_is_that_of_kim() -> None:
    encoder = CNNEncoder(16, 8)
    x = torch.randn(1, 6, 16)
    found = encoder(x, torch.ones(1, 6, dtype=torch.bool))
    assert found.shape == (1, 3 * 8)
    for at, (size, convolution) in enumerate(zip((3, 4, 5), encoder.convolutions, strict=True)):
        around = torch.cat([torch.zeros(1, (size - 1) // 2, 16), x, torch.zeros(1, size // 2, 16)], dim=1)
        weight, bias = convolution.state_dict().values()
        places = [torch.einsum("bte,fet->bf", around[:, k : k + size], weight) for k in range(6)]
        expected = (torch.stack(places).amax(0) + bias).relu()
        torch.testing.assert_close(found[:, at * 8 : (at + 1) * 8], expected)


@pytest.mark.parametrize("kind", ["gru", "lstm"])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_recurrent_networks_equal_packed_sequences(kind: Any, num_layers: int) -> None:  # noqa: ANN401  # a Literal
    own = RecurrentEncoder(kind, 16, 12, num_layers, 0.0)
    stock = {"gru": nn.GRU, "lstm": nn.LSTM}[kind](16, 12, num_layers, batch_first=True, bidirectional=True)
    for layer in range(num_layers):
        for suffix, part in (("", own.forwards[layer]), ("_reverse", own.backwards[layer])):
            for name, value in part.named_parameters():
                getattr(stock, f"{name[:-1]}{layer}{suffix}").data.copy_(value.data)
    lengths = torch.tensor([2, 9, 1, 5])
    x, mask = torch.randn(4, 9, 16), torch.arange(9) < lengths[:, None]
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    outputs, _ = pad_packed_sequence(stock(packed)[0], batch_first=True, padding_value=-2.0)
    torch.testing.assert_close(own(x, mask), outputs.amax(1))


def test_the_transformer_equals_that_of_torch() -> None:
    own = TransformerEncoder(16, 64, 2, 4, 0.0).eval()
    layer = nn.TransformerEncoderLayer(16, 4, 64, 0.0, "gelu", batch_first=True, norm_first=True)
    stock = nn.TransformerEncoder(layer, 2, own.norm, enable_nested_tensor=False)
    names = {"norm1.": "norm.", "self_attn.in_proj_": "project_in.", "self_attn.out_proj.": "project_out."}
    names.update({"norm2.": "feed_forward.0.", "linear1.": "feed_forward.1.", "linear2.": "feed_forward.3."})
    for block, theirs in zip(own.blocks, stock.layers, strict=True):
        mine = block.state_dict()
        state = {name + kind: mine[own_name + kind] for name, own_name in names.items() for kind in ("weight", "bias")}
        theirs.load_state_dict(state)
    x, mask = torch.randn(3, 9, 16), torch.arange(9) < torch.tensor([9, 1, 4])[:, None]
    expected = masked_mean(stock(x + own.positions[:9], src_key_padding_mask=~mask), mask)
    torch.testing.assert_close(own(x, mask), expected, rtol=1e-4, atol=1e-5)
