"""Pretrain the tiny CLIP, the built-in demo backbone, from scratch and in one go.

    python scripts/pretrain_tiny.py --seed 1 --output clip/tiny

Takes 10 to 15 minutes on two free CPU cores and writes tiny.safetensors (3 MB) and MODEL_CARD.md into the output
folder when it is done. The same seed gives the same bytes on the same machine. Where the cores are shared,
OMP_WAIT_POLICY=passive helps.

The recipe: symmetric contrast of images and captions of the demo world (datasets/demo), first on an easy part of
it; next to it a throw-away linear head that names the glyph. Without the easy part and the head only colors are
learned.
"""

import argparse
import math
import random
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # datasets/ is not an installed package

from basics import write_atomic  # noqa: E402
from clip import CLIP, CLIPConfig, end_of_text, tokenize  # noqa: E402
from clip.tokenizer import VOCABULARY  # noqa: E402
from clip.weights import load_clip, save_rows  # noqa: E402
from dassl.utils import stream  # noqa: E402
from datasets.demo import DEMO_SETS, captions  # noqa: E402
from datasets.demo.glyphs import load_atlas  # noqa: E402
from datasets.demo.render import EASY, MEAN, PRETRAINING, SIDE, STD, Renderer, normalize, to_bytes  # noqa: E402

SIZES = CLIPConfig(
    image_size=SIDE,
    patch_size=8,
    vision_width=128,
    vision_layers=4,
    vision_heads=4,
    text_width=128,
    text_layers=3,
    text_heads=4,
    embed_dim=128,
    context_length=77,
    vocab_size=VOCABULARY,
)
THREADS = 2  # part of the recipe: another number may round sums differently
STEPS = 3800
POOL = 65_536  # images, next to a quarter as many easy ones; each is drawn once
CHUNK = 256  # images drawn at once
BATCH = 128
SHORT = 12  # a caption whose end-of-text token stands later goes into batches of long captions
EASY_SHARE = 0.25  # of the steps: at first, only easy images
HEAD_SHARE, HEAD_WEIGHT, LATE_HEAD_WEIGHT = 0.6, 1.0, 0.2  # the head's weight in the loss, up to that share and after
LEARNING_RATE, WARM_UP, WEIGHT_DECAY, CLIP_NORM = 1.5e-3, 150, 0.05, 1.0
MAX_LOGIT_SCALE = math.log(100)  # as OpenAI's
AUGMENT_SHIFT, AUGMENT_NOISE = 3, 0.03  # pixels; deviation
RESCALE = 0.1


CARD = """\
# The tiny CLIP

A CLIP small enough to be trained, and to run everything in this project, offline and on a CPU: the backbone of the demo
(`MODEL.BACKBONE.NAME tiny`).

**All results with it are results of a demo backbone on small drawn images. They are not results of CLIP, and do not
show how methods compare on CLIP.**

## Training

    python scripts/pretrain_tiny.py --seed {seed} --output clip/tiny

Trained from scratch in a single run: {steps:,} steps of {batch} images, seed {seed}; {wall:.1f} minutes of wall
time and {cpu:.1f} minutes of CPU time ({threads} threads, no GPU, torch {torch}). The same command gives the same
weights, byte for byte, on the same machine.

- Training data: {pictures:,} images of {s.image_size} x {s.image_size} pixels with captions, drawn by
  `datasets/demo`: pictograms, letters (uppercase, lowercase, braille), digits and Roman numerals from the fonts that
  ship with matplotlib, in several colors and on cluttered backgrounds. No photographs, no handwriting, no text from
  other sources.
- Loss: symmetric contrastive loss of images and captions, and a linear classifier of the glyphs that was discarded.
- Afterwards, the residual stream of both towers was multiplied by {rescale}: this computes the same function, with
  tokens of about CLIP's scale, so that the published learning rates of the methods move the prompts.

## Architecture

- Image {s.image_size} pixels, patches of {s.patch_size}, width {s.vision_width}, {s.vision_layers} layers,
  {s.vision_heads} heads; text width {s.text_width}, {s.text_layers} layers, {s.text_heads} heads,
  context {s.context_length}; embedding {s.embed_dim}; QuickGELU.
- {parameters:.2f} million trained parameters; `tiny.safetensors` has {megabytes:.1f} MB (float16, OpenAI's names).
- Pixels in [0, 1] are normalized with mean {mean} and standard deviation {std} on every channel.
- Vocabulary: CLIP's {s.vocab_size:,} tokens, of which {rows} were trained. Only these rows are stored. The others are
  sampled from a seed in the file when it is read, and mean nothing: words outside the demo world are noise
  to this model.

## Results

Zero-shot accuracy in percent on the test images, with the prompt of each dataset: among the base classes (the first
half, rounded up), among the new classes, and among all. `Digits` is real handwriting; everything else is drawn.

| dataset | classes | prompt | base | new | all |
|---|---|---|---|---|---|
{table}
"""


class Pool(NamedTuple):
    """The world as pretraining sees it.

    images (n, 3, 40, 40) uint8; tokens (n, 77) int64, numbered by their place in `rows`; concepts (n,) int64, the
    number of the (notation, name); easy (n,) bool; rows (R,) int64, the token numbers in use, ascending.
    """

    pictures: Tensor
    tokens: Tensor
    concepts: Tensor
    easy: Tensor
    rows: Tensor


def draw_pool(seed: int, easy: int, others: int) -> Pool:
    """Draw the images and captions of pretraining, in parts of CHUNK."""
    atlas = load_atlas()
    renderer = Renderer(atlas)
    kinds = [(notation, name) for notation, names in atlas.training.items() for name in names]
    numbers = {kind: i for i, kind in enumerate(kinds)}
    pictures, texts, concepts = [], [], []
    parts = [EASY] * (easy // CHUNK) + [PRETRAINING] * (others // CHUNK)
    for part, style in enumerate(tqdm(parts, "drawing the world", unit_scale=CHUNK, unit=" pictures")):
        generator, rng = stream(seed, "pictures", part), random.Random(f"captions {seed} {part}")
        scenes = [captions.draw_scene(atlas, rng) for _ in range(CHUNK)]
        glyphs, colors = torch.tensor([s.glyph for s in scenes]), torch.tensor([s.color for s in scenes])
        drawn, media = renderer.render(glyphs, colors, style, generator)
        pictures.append(to_bytes(drawn))
        texts += [captions.caption(scene, medium, rng) for scene, medium in zip(scenes, media.tolist(), strict=True)]
        concepts += [numbers[s.notation, s.name] for s in scenes]
    tokens, rows = number_tokens(texts)
    is_easy = torch.arange(len(texts)) < easy // CHUNK * CHUNK
    return Pool(torch.cat(pictures), tokens, torch.tensor(concepts), is_easy, rows)


def number_tokens(texts: list[str]) -> tuple[Tensor, Tensor]:
    """Number tokens (n, 77) by their place among the tokens in use, and return these (R,), ascending.

    The small table that results trains as the whole one would. The end-of-text token stays the highest number.
    """
    different = list(dict.fromkeys(texts))
    tokens = tokenize(different)
    read = torch.arange(tokens.shape[1]) <= end_of_text(tokens)[:, None]
    rows = tokens[read].unique()
    tokens = torch.searchsorted(rows, tokens).where(read, 0)
    place = {text: i for i, text in enumerate(different)}
    return tokens[[place[text] for text in texts]], rows


def start_model(vocab_size: int) -> CLIP:
    """Create a CLIP at its start, from torch's global random state."""
    model = CLIP(replace(SIZES, vocab_size=vocab_size))
    # Sine-cosine places for the patches: learned ones start too weak next to the content.
    width, grid = SIZES.vision_width, SIZES.image_size // SIZES.patch_size
    frequencies = 2 / 100 ** (torch.arange(width // 4) / (width // 4))
    y, x = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    waves = [wave(line.reshape(-1, 1) * frequencies) for line in (x, y) for wave in (torch.sin, torch.cos)]
    model.visual.positional_embedding.data[1:] = 0.5 * torch.cat(waves, 1)
    return model


def make_optimizer(model: CLIP, head: nn.Linear) -> torch.optim.AdamW:
    """Create AdamW, without decay of biases, norms, embeddings, and the head."""
    embeddings = ("token_embedding", "positional_embedding")
    decayed = [p for name, p in model.named_parameters() if p.ndim > 1 and not any(e in name for e in embeddings)]
    known = {id(p) for p in decayed}
    others = [p for p in [*model.parameters(), *head.parameters()] if id(p) not in known]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.98), eps=1e-6)


def epoch_batches(pool: Pool, allowed: Tensor, generator: Generator) -> list[Tensor]:
    """Yield the allowed images once in random order: (BATCH,) image numbers, with captions of like length."""
    long = end_of_text(pool.tokens) > SHORT
    batches = []
    for chosen in (allowed & ~long, allowed & long):
        order = chosen.nonzero().squeeze(1)
        order = order[torch.randperm(len(order), generator=generator)]
        batches += [batch for batch in order.split(BATCH) if len(batch) == BATCH]
    return [batches[i] for i in torch.randperm(len(batches), generator=generator)]


def augment(pictures: Tensor, generator: Generator) -> Tensor:
    """Convert uint8 images to the tower's input: all shifted by the same few pixels, with noise."""
    x = F.pad(pictures.float() / 255, (AUGMENT_SHIFT,) * 4, mode="replicate")
    top, left = torch.randint(0, 2 * AUGMENT_SHIFT + 1, (2,), generator=generator).tolist()
    x = x[:, :, top : top + SIDE, left : left + SIDE]
    return normalize(x + AUGMENT_NOISE * torch.randn(x.shape, generator=generator))


def train(pool: Pool, steps: int, seed: int) -> CLIP:
    """Train a CLIP over the tokens in use."""
    torch.manual_seed(seed)
    model = start_model(len(pool.rows))
    head = nn.Linear(SIZES.embed_dim, int(pool.concepts.max()) + 1)
    optimizer = make_optimizer(model, head)
    generator, same = stream(seed, "order and augmentation"), torch.arange(BATCH)
    batches: list[Tensor] = []
    bar = tqdm(range(steps), "pretraining", unit="step", mininterval=1)
    for step in bar:
        if not batches:
            allowed = pool.easy if step < EASY_SHARE * steps else torch.ones_like(pool.easy)
            batches = epoch_batches(pool, allowed, generator)
        batch = batches.pop()
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1, (step + 1) / WARM_UP) * (1 + math.cos(math.pi * step / steps)) / 2

        image = model.encode_image(augment(pool.pictures[batch], generator))
        text = model.encode_text(pool.tokens[batch])
        logits = model.logit_scale.exp() * F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).t()
        contrast = (F.cross_entropy(logits, same) + F.cross_entropy(logits.t(), same)) / 2
        naming = F.cross_entropy(head(image), pool.concepts[batch])
        loss = contrast + (HEAD_WEIGHT if step < HEAD_SHARE * steps else LATE_HEAD_WEIGHT) * naming
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        model.logit_scale.data.clamp_(max=MAX_LOGIT_SCALE)
        if step % 100 == 0:
            bar.set_postfix(contrast=f"{contrast.item():.2f}", naming=f"{naming.item():.2f}")
    return model


@torch.no_grad()
def rescale(model: CLIP, factor: float) -> None:
    """Multiply the residual stream of both towers by `factor`, in place.

    The layers' norms undo it, so the function stays the same but for their epsilon. Tokens come near the scale of
    CLIP's: the methods' published learning rates then move the prompts.
    """
    scaled = [model.token_embedding.weight, model.positional_embedding]
    scaled += [model.visual.ln_pre.weight, model.visual.ln_pre.bias]
    for tower in (model.transformer, model.visual.transformer):
        for block in tower.resblocks:
            for layer in (block.attn.out_proj, block.mlp.c_proj):
                scaled += [layer.weight, layer.bias]
    for parameter in scaled:
        parameter *= factor


def whole(model: CLIP, rows: Tensor) -> CLIP:
    """Return the model with CLIP's vocabulary; rows not in use are zero."""
    state = model.state_dict()
    table = torch.zeros(SIZES.vocab_size, SIZES.text_width)
    table[rows] = state["token_embedding.weight"]
    complete = CLIP(SIZES)
    complete.load_state_dict({**state, "token_embedding.weight": table})
    return complete


@torch.no_grad()
def zero_shot(model: CLIP, data_set: type) -> tuple[float, float, float]:
    """Measure accuracy in percent on the test images of a demo dataset: base classes, new classes, all."""
    texts = model.encode_text(tokenize([data_set.prompt.format(name) for name in data_set.names]))
    logits, labels = [], []
    for label in range(len(data_set.names)):
        pictures = data_set.pictures("test", label)
        images = F.normalize(model.encode_image(normalize(pictures.float() / 255)), dim=-1)
        logits.append(images @ F.normalize(texts, dim=-1).t())
        labels.append(torch.full((len(pictures),), label))
    logits, labels = torch.cat(logits), torch.cat(labels)
    half = math.ceil(len(data_set.names) / 2)

    def accuracy(classes: slice) -> float:
        first = classes.start or 0
        ours = (labels >= first) & (labels < (classes.stop or len(data_set.names)))
        return 100 * (logits[ours, classes].argmax(1) + first == labels[ours]).float().mean().item()

    return accuracy(slice(half)), accuracy(slice(half, None)), accuracy(slice(None))


def model_card(model: CLIP, pool: Pool, steps: int, seed: int, wall: float, cpu: float, size: int) -> str:
    """Write the text of MODEL_CARD.md; measure the model on every demo dataset."""
    table = []
    for data_set in tqdm(DEMO_SETS, "measuring zero-shot"):
        accuracies = " | ".join(f"{value:.1f}" for value in zero_shot(model, data_set))
        table.append(f"| {data_set.__name__} | {len(data_set.names)} | `{data_set.prompt}` | {accuracies} |")
    trained = [p for name, p in model.named_parameters() if name != "token_embedding.weight"]
    return CARD.format(
        s=SIZES,
        steps=steps,
        seed=seed,
        batch=BATCH,
        wall=wall / 60,
        cpu=cpu / 60,
        threads=THREADS,
        torch=torch.__version__,
        pictures=len(pool.pictures),
        rescale=RESCALE,
        parameters=(sum(p.numel() for p in trained) + len(pool.rows) * SIZES.text_width) / 1e6,
        megabytes=size / 1e6,
        mean=MEAN,
        std=STD,
        rows=len(pool.rows),
        table="\n".join(table),
    )


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True, help="folder of the weights and the card")
    parser.add_argument("--steps", type=int, default=STEPS, help="fewer only to try the script")
    parser.add_argument("--pool", type=int, default=POOL, help="pictures, and a quarter as many easy ones")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    args = parse(arguments)
    wall, cpu = time.perf_counter(), time.process_time()
    torch.set_num_threads(THREADS)
    pool = draw_pool(args.seed, easy=args.pool // 4, others=args.pool)
    model = train(pool, args.steps, args.seed)
    rescale(model, RESCALE)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu

    weights = args.output / "tiny.safetensors"
    metadata = {"seed": str(args.seed), "steps": str(args.steps)}
    data = save_rows(whole(model, pool.rows), pool.rows, rows_seed=args.seed, **metadata)
    write_atomic(weights, data)
    written = load_clip(str(weights))
    card = model_card(written, pool, args.steps, args.seed, wall, cpu, weights.stat().st_size)
    write_atomic(args.output / "MODEL_CARD.md", card.encode())
    print(card)


if __name__ == "__main__":
    main()
