"""Makes a small random model per family and stores what transformers computes for it (float32, eager, CPU). Called by
scripts/make-test-models.

A folder holds what a downloaded model holds, config.json as its authors would write it, and expected.bin: little-endian u32 "TSL1",
tokens n, vocabulary v, positions p; u32 tokens[n], u32 positions[p], f32 logits[p][v].

Weights are drawn so that every part of the computation moves the logits: `without` of each family names a change of the configuration
that must move them by far more than the tolerance of the test.
"""

import argparse
import json
import math
import pathlib
import shutil
import struct

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

MODELS = pathlib.Path(__file__).resolve().parents[2] / "tests/data/models"
TOKENS, EVERY = 76, 5
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "attention_bias": False, "attention_dropout": 0.0,
    "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.02, "pretraining_tp": 1, "use_cache": True, "mlp_bias": False,
    "rms_norm_eps": 1e-05, "tie_word_embeddings": False, "torch_dtype": "float16", "transformers_version": "4.40.0",
}
MISTRAL = {
    "architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_act": "silu", "attention_dropout": 0.0, "bos_token_id": 1,
    "eos_token_id": 2, "initializer_range": 0.02, "rms_norm_eps": 1e-05, "tie_word_embeddings": False, "torch_dtype": "float16",
    "transformers_version": "4.36.0", "use_cache": True,
}
QWEN2 = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu", "attention_dropout": 0.0, "bos_token_id": 1,
    "eos_token_id": 2, "initializer_range": 0.02, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "torch_dtype": "float16",
    "transformers_version": "4.43.1", "use_cache": True, "use_sliding_window": False, "max_window_layers": 3, "sliding_window": 16,
    "tie_word_embeddings": False,
}
QWEN3 = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_act": "silu", "attention_bias": False, "attention_dropout": 0.0,
    "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.02, "rms_norm_eps": 1e-06, "sliding_window": None,
    "use_sliding_window": False, "max_window_layers": 3, "tie_word_embeddings": True, "use_cache": True,
}


def sizes(hidden, heads, kv_heads, mlp=48, layers=3, vocab=199, context=512, head_dim=None):
    config = {
        "hidden_size": hidden, "intermediate_size": mlp, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "vocab_size": vocab, "max_position_embeddings": context,
    }
    return config if head_dim is None else {**config, "head_dim": head_dim}


def llama3_rope(factor):
    return {"factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 48, "rope_type": "llama3"}


# name: (config.json, change that must show, generation_config.json, number of files)
PLAIN = {"rope_scaling": None, "rope_parameters": None}
FAMILIES = {
    "llama2-mha": ({**LLAMA, **sizes(64, 4, 4, mlp=32), "rope_scaling": None, "torch_dtype": "float32"}, {"rope_theta": 100.0}, {}, 1),
    "llama31-rope": (
        {**LLAMA, **sizes(64, 4, 2), "rope_theta": 500000.0, "rope_scaling": llama3_rope(8.0), "eos_token_id": [2, 3, 4]}, PLAIN,
        {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "eos_token_id": [2, 3, 4]}, 1,
    ),
    "llama32-tied": (
        {**LLAMA, **sizes(56, 2, 2, head_dim=64), "rope_theta": 500000.0, "rope_scaling": llama3_rope(32.0), "tie_word_embeddings": True},
        PLAIN, {}, 1,
    ),
    "llama-linear": ({**LLAMA, **sizes(64, 4, 2), "rope_theta": 100.0, "rope_scaling": {"type": "linear", "factor": 4.0}}, PLAIN, {}, 1),
    "llama-yarn": (
        {**LLAMA, **sizes(64, 4, 2), "rope_theta": 1000.0,
         "rope_scaling": {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64, "beta_fast": 8.0, "beta_slow": 1.0}},
        PLAIN, {}, 1,
    ),
    "llama-bf16": ({**LLAMA, **sizes(64, 4, 2), "torch_dtype": "bfloat16"}, {"rope_theta": 100.0}, {}, 1),
    "llama-bias-sharded": (
        {**LLAMA, **sizes(64, 4, 2, layers=4), "attention_bias": True, "mlp_bias": True}, {"attention_bias": False, "mlp_bias": False}, {}, 3,
    ),
    "tinyllama": ({**LLAMA, **sizes(64, 8, 2), "rope_scaling": None}, {"rms_norm_eps": 0.5}, {}, 1),
    "smollm": ({**LLAMA, **sizes(72, 9, 3, mlp=80), "rope_theta": 10000.0, "tie_word_embeddings": True}, {"rope_theta": 100.0}, {}, 1),
    "mistral-window": ({**MISTRAL, **sizes(64, 4, 2), "rope_theta": 10000.0, "sliding_window": 13}, {"sliding_window": None}, {}, 1),
    "mistral-nemo": (
        {**MISTRAL, **sizes(48, 4, 2, head_dim=32), "rope_theta": 1000000.0, "sliding_window": None}, {"rope_theta": 100.0}, {}, 1,
    ),
    "qwen2-bias": ({**QWEN2, **sizes(56, 14, 2)}, {"use_sliding_window": True, "max_window_layers": 0}, {}, 1),
    "qwen2-window": ({**QWEN2, **sizes(64, 4, 2), "use_sliding_window": True, "max_window_layers": 1}, {"max_window_layers": 2}, {}, 1),
    "qwen25-tied": (
        {**QWEN2, **sizes(64, 4, 2), "tie_word_embeddings": True, "sliding_window": None}, {"rope_theta": 100.0},
        {"do_sample": True, "repetition_penalty": 1.1, "temperature": 0.7, "top_k": 20, "top_p": 0.8, "eos_token_id": [2, 3]}, 1,
    ),
    "qwen3-norm": (
        {**QWEN3, **sizes(64, 4, 2, head_dim=32), "dtype": "float16", "rope_parameters": {"rope_theta": 1000000.0, "rope_type": "default"},
         "layer_types": ["full_attention"] * 3, "transformers_version": "5.0.0"},
        {"rope_parameters": {"rope_theta": 100.0, "rope_type": "default"}}, {}, 1,
    ),
}


def draw(name, shape, tied, generator):
    value = torch.randn(shape, generator=generator)
    if name.endswith("norm.weight"):
        return 1 + 0.2 * value
    if name.endswith("bias"):
        return 0.5 * value
    if "embed_tokens" in name:
        return value * (2.5 / math.sqrt(shape[1]) if tied else 1.0)
    gain = {"q_proj": 1.3, "k_proj": 1.3, "lm_head": 2.5}.get(name.split(".")[-2], 1.0)
    return value * gain / math.sqrt(shape[1])


def build(config):
    """The model of a configuration, read as transformers reads a config.json."""
    plain = {k: v for k, v in config.items() if k != "transformers_version"}
    loaded = AutoConfig.for_model(plain.pop("model_type"), **plain)
    loaded.dtype = torch.float32
    return AutoModelForCausalLM.from_config(loaded, attn_implementation="eager").float().eval()


@torch.no_grad()
def logits_of(config, state, tokens):
    model = build(config)
    model.load_state_dict(state, strict=False)
    if config.get("tie_word_embeddings"):
        model.tie_weights()
    return model(torch.tensor([tokens]), use_cache=False).logits[0].float()


def write_weights(folder, tensors, files):
    if files == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = sorted(tensors)
    weight_map = {}
    for i in range(files):
        file = f"model-{i + 1:05}-of-{files:05}.safetensors"
        part = names[i::files]  # neighbours lie in different files
        save_file({n: tensors[n] for n in part}, folder / file, metadata={"format": "pt"})
        weight_map.update({n: file for n in part})
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def make(name, number):
    config, without, generation, files = FAMILIES[name]
    folder = MODELS / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(number)
    dtype = DTYPES[config.get("torch_dtype", config.get("dtype"))]
    tied = config["tie_word_embeddings"]
    shapes = {k: v.shape for k, v in build(config).state_dict().items() if not (tied and k == "lm_head.weight")}
    tensors = {k: draw(k, shape, tied, generator).to(dtype).contiguous() for k, shape in shapes.items()}
    tokens = torch.randint(0, config["vocab_size"], (TOKENS,), generator=generator).tolist()
    state = {k: v.float() for k, v in tensors.items()}
    logits = logits_of(config, state, tokens)
    moved = (logits - logits_of({**config, **without}, state, tokens)).abs().max().item()
    spread = logits.std(-1).min().item()
    assert spread >= 1 and moved >= 0.5, (name, spread, moved)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    if generation:
        (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    write_weights(folder, tensors, files)
    positions = list(range(0, TOKENS, EVERY)) + [TOKENS - 1] * ((TOKENS - 1) % EVERY != 0)
    with open(folder / "expected.bin", "wb") as out:
        out.write(struct.pack("<4I", 0x314C5354, TOKENS, config["vocab_size"], len(positions)))
        out.write(struct.pack(f"<{TOKENS + len(positions)}I", *tokens, *positions))
        out.write(logits[positions].contiguous().numpy().astype("<f4").tobytes())
    size = sum(f.stat().st_size for f in folder.iterdir())
    print(f"{name:20} logits std at least {spread:.2f}, moved by {moved:.2f} without {', '.join(without)}; {size} bytes", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", default=list(FAMILIES), help="families to make; all if none is given")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.names:
        make(name, 1 + list(FAMILIES).index(name))


if __name__ == "__main__":
    main()
