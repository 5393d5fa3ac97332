"""A Llama in plain PyTorch, as one would write it for speed: joined projections, a static KV cache, grouped queries without repeated keys. What
scripts/gpu-check sets our engine beside, on the same shapes and, from a folder, on the same weights.
"""

import json
import pathlib
from typing import NamedTuple

import torch
import torch.nn.functional as F

TYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


class Shape:
    def __init__(self, layers, hidden, intermediate, heads, kv_heads, head_dim, vocab, theta=10000.0, eps=1e-5):
        self.layers, self.hidden, self.intermediate, self.vocab = layers, hidden, intermediate, vocab
        self.heads, self.kv_heads, self.head_dim, self.theta, self.eps = heads, kv_heads, head_dim, theta, eps

    def layer_bytes(self):
        qkv = (self.heads + 2 * self.kv_heads) * self.head_dim
        return 2 * self.hidden * (qkv + self.heads * self.head_dim + 3 * self.intermediate)

    def weight_bytes(self):
        """What one decode step reads of the weights: all layers and the head; of the embedding only rows."""
        return self.layers * self.layer_bytes() + 2 * self.hidden * self.vocab

    def kv_bytes(self):
        return 2 * self.layers * self.kv_heads * self.head_dim * 2


SHAPES = {
    "1.1b": Shape(22, 2048, 5632, 32, 4, 64, 32000),
    "8b": Shape(32, 4096, 14336, 32, 8, 128, 128256, theta=500000.0),
}


def rms_norm(x, weight, eps):
    wide = x.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype) * weight


def rotate(x, cos, sin):
    """x [..., heads, d]; cos and sin [..., 1, d/2]: the halves of a head turn together."""
    a, b = x.float().chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1).to(x.dtype)


class Layer(NamedTuple):
    """The weights of one; those of all layers have the same shapes, so that what is compiled for one serves all."""

    qkv: torch.Tensor
    o: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor
    norm_1: torch.Tensor
    norm_2: torch.Tensor


def random_layer(s, device, dtype):
    def matrix(outputs, inputs):
        return torch.randn((outputs, inputs), device=device, dtype=dtype) * inputs ** -0.5

    def ones():
        return torch.ones(s.hidden, device=device, dtype=dtype)
    return Layer(matrix((s.heads + 2 * s.kv_heads) * s.head_dim, s.hidden), matrix(s.hidden, s.heads * s.head_dim),
                 matrix(2 * s.intermediate, s.hidden), matrix(s.hidden, s.intermediate), ones(), ones())


def heads_of(s, layer, x, cos, sin):
    sizes = [s.heads * s.head_dim, s.kv_heads * s.head_dim, s.kv_heads * s.head_dim]
    q, k, v = F.linear(rms_norm(x, layer.norm_1, s.eps), layer.qkv).split(sizes, -1)
    q = rotate(q.unflatten(-1, (s.heads, s.head_dim)), cos, sin)
    k = rotate(k.unflatten(-1, (s.kv_heads, s.head_dim)), cos, sin)
    return q, k, v.unflatten(-1, (s.kv_heads, s.head_dim))


def mlp(s, layer, x, attended):
    x = x + F.linear(attended, layer.o)
    gate, up = F.linear(rms_norm(x, layer.norm_2, s.eps), layer.gate_up).chunk(2, -1)
    return x + F.linear(F.silu(gate) * up, layer.down)


def prefill_layer(s, layer, x, cos, sin, keys, values):
    """x [1, tokens, hidden] from position 0; keys and values [1, kv_heads, room, d]."""
    q, k, v = (part.transpose(1, 2) for part in heads_of(s, layer, x, cos, sin))
    keys[:, :, :x.shape[1]] = k
    values[:, :, :x.shape[1]] = v
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    return mlp(s, layer, x, out.transpose(1, 2).flatten(2))


def decode_layer(s, layer, x, cos, sin, keys, values, position, there):
    """x [rows, hidden], all at `position` [1]; attends to the first `there` positions."""
    q, k, v = heads_of(s, layer, x, cos, sin)
    keys[:, :, position] = k.unsqueeze(2)
    values[:, :, position] = v.unsqueeze(2)
    out = F.scaled_dot_product_attention(q.unsqueeze(2), keys[:, :, :there], values[:, :, :there], enable_gqa=True)
    return mlp(s, layer, x, out.flatten(1))


def decode_layer_masked(s, layer, x, cos, sin, keys, values, position, mask):
    """The same for a graph, which knows no lengths: over the whole room, with -inf in mask [room] where nothing is yet."""
    q, k, v = heads_of(s, layer, x, cos, sin)
    keys[:, :, position] = k.unsqueeze(2)
    values[:, :, position] = v.unsqueeze(2)
    grouped = q.unflatten(1, (s.kv_heads, s.heads // s.kv_heads))
    scores = (grouped @ keys.transpose(2, 3)).float() * s.head_dim ** -0.5
    out = torch.softmax(scores + mask, -1).to(x.dtype) @ values
    return mlp(s, layer, x, out.flatten(1))


class Llama:
    def __init__(self, shape, device, dtype=torch.bfloat16, room=16384):
        self.shape, self.device, self.dtype = shape, device, dtype
        self.layers = [random_layer(shape, device, dtype) for _ in range(shape.layers)]
        self.embed = torch.randn((shape.vocab, shape.hidden), device=device, dtype=dtype)
        self.head = torch.randn((shape.vocab, shape.hidden), device=device, dtype=dtype) * shape.hidden ** -0.5
        self.norm = torch.ones(shape.hidden, device=device, dtype=dtype)
        frequencies = shape.theta ** (-torch.arange(0, shape.head_dim, 2, device=device, dtype=torch.float64) / shape.head_dim)
        angles = torch.arange(room, device=device, dtype=torch.float64).outer(frequencies)
        self.cos, self.sin = angles.cos().float(), angles.sin().float()

    def cache(self, rows, room):
        """For each layer keys and values [rows, kv_heads, room, d], filled as if something were there."""
        size = (rows, self.shape.kv_heads, room, self.shape.head_dim)
        return [tuple(torch.randn(size, device=self.device, dtype=self.dtype) for _ in range(2)) for _ in self.layers]

    def logits(self, x):
        return F.linear(rms_norm(x, self.norm, self.shape.eps), self.head)

    def forward(self, ids, cache):
        """The residual stream of ids [1, tokens] after all layers."""
        x = F.embedding(ids, self.embed)
        cos, sin = (table[:ids.shape[1], None] for table in (self.cos, self.sin))
        for layer, (keys, values) in zip(self.layers, cache):
            x = prefill_layer(self.shape, layer, x, cos, sin, keys, values)
        return x

    def prefill(self, ids, cache):
        """The most likely id after ids [1, tokens]."""
        return self.logits(self.forward(ids, cache)[:, -1]).argmax(-1)

    def decode(self, ids, cache, position, step, extent):
        """The most likely ids after ids [rows], all at `position`. step: decode_layer with the number of positions that are there, or
        decode_layer_masked with a mask; either as it is or compiled."""
        x = F.embedding(ids, self.embed)
        cos, sin = (table[position][:, None] for table in (self.cos, self.sin))
        for layer, (keys, values) in zip(self.layers, cache):
            x = step(self.shape, layer, x, cos, sin, keys, values, position, extent)
        return self.logits(x).argmax(-1)


def tensors_of(path):
    """Name -> tensor of a safetensors file."""
    data = bytearray(pathlib.Path(path).read_bytes())
    size = int.from_bytes(data[:8], "little")
    listed = json.loads(data[8:8 + size])
    listed.pop("__metadata__", None)
    whole = memoryview(data)[8 + size:]
    return {name: torch.frombuffer(whole[entry["data_offsets"][0]:entry["data_offsets"][1]], dtype=TYPES[entry["dtype"]]).reshape(entry["shape"])
            for name, entry in listed.items()}


def from_folder(folder, device, dtype):
    """The model of a Hugging Face folder of type llama, in `dtype`."""
    folder = pathlib.Path(folder)
    config = json.loads((folder / "config.json").read_text())
    if config["model_type"] != "llama":
        raise SystemExit(f"torch_model: {config['model_type']} is not llama")
    heads = config["num_attention_heads"]
    shape = Shape(config["num_hidden_layers"], config["hidden_size"], config["intermediate_size"], heads, config.get("num_key_value_heads", heads),
                  config.get("head_dim") or config["hidden_size"] // heads, config["vocab_size"], theta=config.get("rope_theta", 10000.0),
                  eps=config["rms_norm_eps"])
    model = Llama(shape, device, dtype, room=config["max_position_embeddings"])
    tensors = {name: tensor.to(device, dtype) for name, tensor in tensors_of(folder / "model.safetensors").items()}
    model.embed = tensors["model.embed_tokens.weight"]
    model.head = tensors.get("lm_head.weight", model.embed)
    model.norm = tensors["model.norm.weight"]

    def part(i, *names):
        return torch.cat([tensors[f"model.layers.{i}.{name}.weight"] for name in names])
    model.layers = [Layer(part(i, "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), part(i, "self_attn.o_proj"),
                          part(i, "mlp.gate_proj", "mlp.up_proj"), part(i, "mlp.down_proj"), part(i, "input_layernorm"),
                          part(i, "post_attention_layernorm")) for i in range(shape.layers)]
    return model
