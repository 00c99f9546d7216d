"""Models with random weights, and tokenizers that can write every text."""

import torch
import transformers
from published_files import made
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import laser_interp as li
from laser_interp.facts.published import SOURCES, load_task


def tokenizer_of(texts):
    """Byte-level pieces: every text can be written, most words are several tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<end>"]
    )
    tokenizer.train_from_iterator(texts, trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>")


def model_and_tasks(folder):
    """A random model, the folder of its files, and every published set as a task."""
    tasks = {}
    for name in SOURCES:
        (folder / name).mkdir()
        tasks[name] = load_task(name, made(folder / name, name))
    texts = [text for task in tasks.values() for fact in task.facts for text in (*fact.prompts, f" {fact.object}")]
    tokenizer = tokenizer_of(texts)
    config = transformers.GPT2Config(
        vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=4, n_positions=128, bos_token_id=0, eos_token_id=0
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        hf = transformers.GPT2LMHeadModel(config).eval()
        for parameter in hf.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    hf.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return li.load_model(folder / "model", device="cpu"), folder, tasks
