"""A small Llama with random weights for a server to serve: FOLDER/model.gguf, and beside it the tokenizer as Hugging Face's files.

Nothing is fetched: the tokenizer (byte-level BPE, as GPT-2's and Llama 3's) learns its words from the text files it is given. The answers
are nonsense; a server's work, and what it says over HTTP, are those of a model of that size. Needs gguf, tokenizers and numpy.
"""

import argparse
import json
import pathlib

import gguf
import random_llama
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

START, END = "<|start|>", "<|end|>"
TEMPLATE = (
    "{% for message in messages %}<|start|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


def tokenizer(folder, texts, vocabulary):
    """Trains one, and writes tokenizer.json and tokenizer_config.json; the tokenizer."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[START, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    made.train([str(t) for t in texts], trainer)
    made.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return made


def write(path, tokens, a):
    writer = random_llama.begin(path, a, 8192)
    model = json.loads(tokens.to_str())["model"]
    words = sorted(model["vocab"], key=model["vocab"].get)
    writer.add_vocab_size(len(words))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(words)
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_token_types([control if w in (START, END) else normal for w in words])
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in model["merges"]])
    writer.add_eos_token_id(words.index(END))
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)
    random_llama.finish(writer, a, len(words), gguf.GGMLQuantizationType.Q8_0)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("texts", type=pathlib.Path, nargs="+", help="text files from which the tokenizer learns")
    for name, default in [("layers", 8), ("width", 512), ("heads", 8), ("inner", 1408), ("vocabulary", 4096)]:
        parser.add_argument(f"--{name}", type=int, default=default)
    a = parser.parse_args()
    a.folder.mkdir(parents=True, exist_ok=True)
    write(a.folder / "model.gguf", tokenizer(a.folder, a.texts, a.vocabulary), a)
    print(a.folder / "model.gguf")


if __name__ == "__main__":
    main()
