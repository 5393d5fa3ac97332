"""Trains, judges and describes the demo model: a small Llama on tinyshakespeare. Called by scripts/train-demo-model."""

import argparse
import json
import math
import pathlib
import time

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

ROOT = pathlib.Path(__file__).resolve().parents[2]
CORPUS = ROOT / "tests/data/corpus/tinyshakespeare.txt"
FOLDER = ROOT / "tests/data/models/demo"
VOCAB, HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD_DIM, FFN, CONTEXT = 1024, 256, 5, 4, 2, 64, 640, 2048
THETA, EPS, DROPOUT = 10000.0, 1e-5, 0.15


def split_corpus():
    data = CORPUS.read_bytes()
    cut = len(data) * 9 // 10
    return data[:cut].decode(), data[cut:].decode()


def make_tokenizer(text):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=["<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([text], trainer)
    return tokenizer


class Model(torch.nn.Module):
    """The Llama computation with dropout, kept small; parameter names are those of a Hugging Face checkpoint."""

    def __init__(self):
        super().__init__()
        self.p = torch.nn.ParameterDict()
        add = self.add
        add("model.embed_tokens.weight", VOCAB, HIDDEN)
        for i in range(LAYERS):
            base = f"model.layers.{i}."
            add(base + "input_layernorm.weight", HIDDEN)
            add(base + "self_attn.q_proj.weight", HEADS * HEAD_DIM, HIDDEN)
            add(base + "self_attn.k_proj.weight", KV_HEADS * HEAD_DIM, HIDDEN)
            add(base + "self_attn.v_proj.weight", KV_HEADS * HEAD_DIM, HIDDEN)
            add(base + "self_attn.o_proj.weight", HIDDEN, HEADS * HEAD_DIM, scale=(2 * LAYERS) ** -0.5)
            add(base + "post_attention_layernorm.weight", HIDDEN)
            add(base + "mlp.gate_proj.weight", FFN, HIDDEN)
            add(base + "mlp.up_proj.weight", FFN, HIDDEN)
            add(base + "mlp.down_proj.weight", HIDDEN, FFN, scale=(2 * LAYERS) ** -0.5)
        add("model.norm.weight", HIDDEN)
        angle = torch.outer(torch.arange(CONTEXT), THETA ** (-torch.arange(0, HEAD_DIM, 2) / HEAD_DIM))
        self.register_buffer("cos", torch.cat([angle.cos()] * 2, -1))
        self.register_buffer("sin", torch.cat([angle.sin()] * 2, -1))

    def add(self, name, *shape, scale=1.0):
        value = torch.ones(shape) if len(shape) == 1 else torch.randn(shape) * 0.02 * scale * (256 / shape[1]) ** 0.5
        self.p[name.replace(".", "/")] = torch.nn.Parameter(value)

    def w(self, name):
        return self.p[name.replace(".", "/")]

    def norm(self, x, name):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS) * self.w(name)

    def rotate(self, x):
        t = x.shape[2]
        half = torch.cat([-x[..., HEAD_DIM // 2 :], x[..., : HEAD_DIM // 2]], -1)
        return x * self.cos[:t] + half * self.sin[:t]

    def drop(self, x):
        return F.dropout(x, DROPOUT, self.training)

    def forward(self, ids):
        b, t = ids.shape
        x = self.drop(F.embedding(ids, self.w("model.embed_tokens.weight")))
        for i in range(LAYERS):
            base = f"model.layers.{i}."
            y = self.norm(x, base + "input_layernorm.weight")
            q, k, v = (
                F.linear(y, self.w(base + f"self_attn.{n}_proj.weight")).view(b, t, -1, HEAD_DIM).transpose(1, 2) for n in "qkv"
            )
            q, k = self.rotate(q), self.rotate(k)
            k, v = (z.repeat_interleave(HEADS // KV_HEADS, 1) for z in (k, v))
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=DROPOUT if self.training else 0.0)
            x = x + self.drop(F.linear(y.transpose(1, 2).reshape(b, t, -1), self.w(base + "self_attn.o_proj.weight")))
            y = self.norm(x, base + "post_attention_layernorm.weight")
            gate = F.silu(F.linear(y, self.w(base + "mlp.gate_proj.weight"))) * F.linear(y, self.w(base + "mlp.up_proj.weight"))
            x = x + self.drop(F.linear(gate, self.w(base + "mlp.down_proj.weight")))
        return F.linear(self.norm(x, "model.norm.weight"), self.w("model.embed_tokens.weight"))

    def rounded(self):
        """The same model with weights as they are shipped, in bf16."""
        copy = Model()
        copy.load_state_dict({k: v.to(torch.bfloat16).float() if k.startswith("p.") else v for k, v in self.state_dict().items()})
        return copy.eval()


@torch.no_grad()
def nats_per_byte(model, ids, byte_count, window=1024, stride=512):
    """Every held-out token is scored once, with at least `window - stride` tokens of context but at the start."""
    model.eval()
    total, at = 0.0, 0
    while at + 1 < len(ids):
        piece = ids[max(0, at - (window - stride)) : at + stride + 1]
        begin = at - max(0, at - (window - stride))
        logits = model(piece[None, :-1])[0]
        losses = F.cross_entropy(logits, piece[1:], reduction="none")
        total += losses[begin:].sum().item()
        at += stride
    return total / byte_count


def save(model, folder):
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {k.replace("/", "."): v.detach().to(torch.bfloat16).contiguous() for k, v in model.p.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": HIDDEN,
        "intermediate_size": FFN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM, "max_position_embeddings": CONTEXT, "rms_norm_eps": EPS, "rope_theta": THETA, "rope_scaling": None,
        "tie_word_embeddings": True, "attention_bias": False, "mlp_bias": False, "vocab_size": VOCAB, "torch_dtype": "bfloat16",
        "bos_token_id": 0, "eos_token_id": 0,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "generation_config.json").write_text(json.dumps({"bos_token_id": 0, "eos_token_id": 0}, indent=2) + "\n")


def load(folder):
    from safetensors.torch import load_file

    model = Model()
    model.load_state_dict({"p." + k.replace(".", "/"): v.float() for k, v in load_file(folder / "model.safetensors").items()}, strict=False)
    return model.eval()


def batch_of(ids, rng, size, length):
    starts = torch.randint(0, len(ids) - length - 1, (size,), generator=rng)
    x = torch.stack([ids[s : s + length] for s in starts])
    y = torch.stack([ids[s + 1 : s + length + 1] for s in starts])
    return x, y


def train(args):
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    train_text, test_text = split_corpus()
    tokenizer = make_tokenizer(train_text)
    FOLDER.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(FOLDER / "tokenizer.json"))
    train_ids = torch.tensor(tokenizer.encode(train_text).ids, device=device)
    test_ids = torch.tensor(tokenizer.encode(test_text).ids, device=device)
    test_bytes = len(test_text.encode())
    print(f"train {len(train_ids)} tokens, held out {len(test_ids)} tokens of {test_bytes} bytes", flush=True)
    model = Model().to(device)
    decay = [v for v in model.p.values() if v.dim() > 1]
    plain = [v for v in model.p.values() if v.dim() == 1]
    groups = [{"params": decay, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=args.rate, betas=(0.9, 0.95))
    rng = torch.Generator().manual_seed(args.seed)
    best, began = math.inf, time.time()
    for step in range(args.steps):
        model.train()
        length = (256, 512, 1024, CONTEXT)[step % 4]  # all lengths up to the full context, so that long prompts work
        x, y = batch_of(train_ids, rng, max(1, args.tokens // length), length)
        rate = args.rate * min(1.0, (step + 1) / 100) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / args.steps)))
        for group in optimiser.param_groups:
            group["lr"] = rate
        with torch.autocast(device, dtype=torch.bfloat16):
            logits = model(x)
        loss = F.cross_entropy(logits.float().flatten(0, 1), y.flatten())
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if (step + 1) % args.every == 0 or step + 1 == args.steps:
            held = nats_per_byte(model.rounded().to(device), test_ids, test_bytes)
            print(f"step {step + 1} loss {loss.item():.3f} held out {held:.4f} nats/byte, {time.time() - began:.0f} s", flush=True)
            if held < best:
                best = held
                save(model, FOLDER)
    print(f"best {best:.4f} nats/byte")


@torch.no_grad()
def sample(model, tokenizer, prompt, count, seed, temperature=0.8):
    rng = torch.Generator().manual_seed(seed)
    ids = tokenizer.encode(prompt).ids
    for _ in range(count):
        logits = model(torch.tensor([ids]))[0, -1] / temperature
        ids.append(torch.multinomial(logits.softmax(-1), 1, generator=rng).item())
    return tokenizer.decode(ids)


def has_name_line(text):
    return any(line.endswith(":") and line[:-1].replace(" ", "").isalpha() for line in text.split("\n")[1:])


def copies(text, corpus, size=40):
    data = text.encode()
    return any(data[i : i + size] in corpus for i in range(len(data) - size + 1))


def check(args):
    torch.set_num_threads(args.threads)
    _, test_text = split_corpus()
    tokenizer, model, corpus = Tokenizer.from_file(str(FOLDER / "tokenizer.json")), load(FOLDER), CORPUS.read_bytes()
    held = nats_per_byte(model, torch.tensor(tokenizer.encode(test_text).ids), len(test_text.encode()))
    print(f"held out: {held:.4f} nats per byte (at most 1.80)")
    prompt, bad = "First Citizen:", 0
    for seed in range(20):
        text = sample(model, tokenizer, prompt, 300, seed)[len(prompt) :]
        name, copy = has_name_line(text), copies(text, corpus)
        bad += copy or not name
        if copy or not name or seed == 0:
            print(f"--- seed {seed}: name line {name}, 40-byte copy {copy}\n{text[:400]}")
    print(f"samples: {20 - bad} of 20 have a line NAME: and no 40-byte copy of the corpus")
    raise SystemExit(0 if bad == 0 and held <= 1.80 else 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="judge the shipped model: held-out loss, twenty samples")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--tokens", type=int, default=3072, help="of one step")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    check(args) if args.check else train(args)


if __name__ == "__main__":
    main()
