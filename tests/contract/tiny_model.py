"""Writes a model of the architecture `llama` with random weights, half a megabyte: `python tiny_model.py FILE`.

Runs in the environment of `make model-server`, which has the library for the format. Its tokens are bytes and invented
words, so it says nonsense; everything around it is as with a real one.
Source: the GGUF specification, and llama.cpp's names of tensors.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

WORDS = 1000
CONTEXT, WIDTH, HEADS, LAYERS, INNER = 32_768, 64, 4, 2, 128
EPSILON, SPREAD, SEED = 1e-5, 0.02, 7
END = 2
"""The token that ends an answer."""
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"


def write(path: Path) -> None:
    """All of it."""
    from gguf import GGUFWriter

    writer = GGUFWriter(str(path), "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(EPSILON)
    _vocabulary(writer)
    _weights(writer, 3 + 256 + WORDS)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _vocabulary(writer: Any) -> None:
    from gguf import TokenType

    bytes_ = [f"<0x{value:02X}>" for value in range(256)]
    words = [f"\u2581w{number:03d}" for number in range(WORDS)]
    tokens = ["<unk>", "<s>", "</s>", *bytes_, *words]
    kinds = [TokenType.UNKNOWN, *[TokenType.CONTROL] * 2, *[TokenType.BYTE] * 256, *[TokenType.NORMAL] * WORDS]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * 259 + [-float(number) for number in range(WORDS)])
    writer.add_token_types(kinds)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(END)
    writer.add_chat_template(TEMPLATE)


def _weights(writer: Any, tokens: int) -> None:
    import numpy as np

    draw = np.random.default_rng(SEED)
    shapes = {"token_embd": (tokens, WIDTH), "output": (tokens, WIDTH)}
    ones = ["output_norm"]
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        shapes |= {f"{block}.attn_{part}": (WIDTH, WIDTH) for part in ("q", "k", "v", "output")}
        shapes |= {f"{block}.ffn_{part}": (INNER, WIDTH) for part in ("gate", "up")}
        shapes[f"{block}.ffn_down"] = (WIDTH, INNER)
        ones += [f"{block}.attn_norm", f"{block}.ffn_norm"]
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", draw.normal(0.0, SPREAD, shape).astype(np.float32))
    for name in ones:
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, dtype=np.float32))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
