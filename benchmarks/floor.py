"""The floor: the work of a training step that no exact method can avoid, computed from the sizes.

A method is described by its attention pattern: kinds of tokens, what each attends to, and what is learned. From this
follows, layer by layer, what must run (w is the tower's width, and the unit is multiply-adds):

- A token that others attend to costs 2 w^2 for its keys and values. A token that is needed after the layer costs w^2
  for its query, 2 w for each token it attends to, w^2 for the projection, and 8 w^2 for the MLP.
- What is the same in every step (words, the start token) is constant and costs nothing.
- In the backward pass, what depends on something learned runs once more: the towers are frozen, so tokens have
  gradients, and weights have none. Attention costs, for each pair, two products if the token attended to depends on
  something learned (keys, values), one if the other token does (queries), and one if either does (the scores).
- Learned maps (meta-net, coupling, fusion) run three times: forward, and backward for their input and their weights.

The counted work may be higher: fused kernels compute the scores again in the backward pass, and masks hide products.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from clip import CLIPConfig

FUSION_MLP = 256  # width of the MLP in SEP's fusion (`trainers.sep`)
REDUCTION, TCP_REDUCTION = 16, 4  # of the meta-nets of CoCoOp and TCP


@dataclass
class Tokens:
    """Tokens of one kind in a tower.

    Attributes:
        count: number of tokens.
        attends_to: kind -> number of (token, token it attends to) pairs in a layer.
        constant: the same in every step, before the first layer.
        learned: dependent on something learned, before the first layer.
        replaced: learned tokens replace them before layers 1 to `replaced`.
        fresh: number of different tokens at the start and where they are replaced; None: `count`.
        after_first: number of different tokens after the first layer; None: `count`.
        last: number of tokens attended to in the last layer; None: `count`.
        output: number of tokens needed after the last layer; None: `count`.
        learned_from: the layer before which they become dependent on something learned (adapters); None: never.
    """

    count: int
    attends_to: dict[str, int]
    constant: bool = False
    learned: bool = False
    replaced: int = 0
    fresh: int | None = None
    after_first: int | None = None
    last: int | None = None
    output: int | None = None
    learned_from: int | None = None

    def before(self, layer: int) -> int:
        """Number of different tokens that enter a layer."""
        return self.fresh if layer <= self.replaced and self.fresh is not None else self.count

    def after(self, layer: int) -> int:
        """Number of different tokens that leave a layer."""
        return self.after_first if layer == 0 and self.after_first is not None else self.count


@dataclass
class State:
    """Whether tokens of a kind are, at some point, the same in every step, and dependent on something learned."""

    constant: bool
    learned: bool


def tower(width: int, layers: int, kinds: dict[str, Tokens]) -> float:
    """Count the multiply-adds of all layers, forward and backward."""
    states, total = {name: State(t.constant, t.learned) for name, t in kinds.items()}, 0.0
    for layer in range(layers):
        last = layer == layers - 1
        for name, t in kinds.items():
            if 0 < layer <= t.replaced or layer == t.learned_from:
                states[name] = State(constant=False, learned=True)
        needed = [name for name, t in kinds.items() if (t.output != 0 if last else layer >= t.replaced)]
        after = dict(states)
        for name in needed:
            inputs = [states[name], *(states[other] for other in kinds[name].attends_to)]
            after[name] = State(all(s.constant for s in inputs), any(s.learned for s in inputs))
        for name, t in kinds.items():
            s = states[name]
            if not s.constant and any(name in kinds[other].attends_to for other in needed):
                attended_to = t.last if last and t.last is not None else t.before(layer)
                total += attended_to * 2 * width**2 * (1 + s.learned)
            if name in needed and not after[name].constant:
                share = t.output / t.count if last and t.output is not None else 1
                total += share * _update(width, layer, t, states, name, after[name])
        states = after
    return total


def _update(width: int, layer: int, t: Tokens, states: dict[str, State], name: str, after: State) -> float:
    """Count the multiply-adds of tokens of a kind in a layer, without keys and values."""
    s, total = states[name], 0.0
    if not s.constant:
        total += t.before(layer) * width**2 * (1 + s.learned)
    total += t.after(layer) * 9 * width**2 * (1 + after.learned)
    for other, pairs in t.attends_to.items():
        products = 2 + 2 * states[other].learned + s.learned + (states[other].learned or s.learned)
        total += pairs * t.after(layer) / t.count * width * products
    return total


@dataclass(frozen=True)
class Step:
    """A training step.

    Attributes:
        sizes: of the backbone.
        names: for each class, the number of tokens of "name . [EOS]".
        texts: for each class, the number of tokens of its fixed text, [SOS] to [EOS].
        batch: number of images.
        prompts: number of prompts or context vectors per layer, on the text side if it has any.
        depth: number of layers that get new ones.
        image_prompts: number of prompts on the image side.
        fused: number of layers before which prompts are fused with tokens (SEP).
        first: the first layer, counted from 0, with tokens that join (MMRL) or of classes (TCP), or the first whose
            tokens depend on adapters (MMA) or low-rank updates (CLIP-LoRA).
        contexts: number of contexts of each class (PLOT++).
        runs: number of sets of image prompts, one run of each image for each (PLOT++).
        backward: number of backward passes (ProGrad).
        guides: hand-written texts of each class that are classified, too (LASP).
        table: width of the table that tokens are projected from (MMRL).
    """

    sizes: CLIPConfig
    names: list[int]
    texts: list[int]
    batch: int
    prompts: int
    depth: int = 1
    image_prompts: int = 0
    fused: int = 0
    first: int = 0
    contexts: int = 1
    runs: int = 1
    backward: int = 1
    guides: int = 0
    table: int = 0

    def text_kinds(self, contexts: int = 1, learned: bool = True) -> dict[str, Tokens]:
        """Return the text tower's tokens with contexts after [SOS]: `contexts` of them, each for all classes."""
        m, classes, fused = self.prompts, len(self.names), bool(self.fused)
        lengths = [max(n, m) for n in self.names] if fused else self.names  # m tokens of each class are fused
        rows, n = contexts * (classes if fused else 1), contexts * sum(lengths)
        return {
            "start": Tokens(1, {"start": 1}, constant=True, output=0),
            "ctx": Tokens(
                rows * m,
                {"start": rows * m, "ctx": rows * m * (m + 1) // 2},
                learned=learned,
                replaced=self.depth - 1,
                fresh=contexts * m,
                after_first=contexts * m,
                output=0,
            ),
            "rest": Tokens(
                n,
                {"start": n, "ctx": n * m, "rest": contexts * sum(k * (k + 1) // 2 for k in lengths)},
                constant=True,
                last=contexts * sum(self.names),
                output=contexts * classes,
            ),
        }

    def text(self, contexts: int = 1, learned: bool = True) -> float:
        """Count the text tower with a context after [SOS]; `contexts` of them differ, each for all classes."""
        s, rows = self.sizes, contexts * len(self.names)
        layers = tower(s.text_width, s.text_layers, self.text_kinds(contexts, learned))
        return layers + (1 + learned) * rows * s.text_width * s.embed_dim

    def image(self, prompts: int = 0) -> float:
        """Count the image tower; if there are prompts, all tokens and prompts attend to each other."""
        s, b, n = self.sizes, self.batch, (self.sizes.image_size // self.sizes.patch_size) ** 2 + 1
        kinds = {"image": Tokens(b * n, {"image": b * n * n}, output=b)}
        if prompts:
            kinds["image"].attends_to["prompts"] = b * n * prompts
            kinds["prompts"] = Tokens(
                b * prompts,
                {"image": b * prompts * n, "prompts": b * prompts**2},
                learned=True,
                replaced=self.depth - 1,
                fresh=prompts,
                output=0,
            )
        features = b * s.vision_width * s.embed_dim * (2 if prompts else 1)
        return self.embedding() + tower(s.vision_width, s.vision_layers, kinds) + features

    def embedding(self) -> float:
        """Count the patch embedding."""
        s = self.sizes
        return self.batch * (s.image_size // s.patch_size) ** 2 * s.vision_width * 3 * s.patch_size**2

    def similarities(self, learned: int, pairs: int = 1) -> float:
        """Count similarities of all images and classes; `learned` of the two sides depend on something learned."""
        return self.batch * len(self.names) * pairs * self.sizes.embed_dim * (1 + learned)

    def fusion(self, width: int, rows: int, first: int, n: int) -> float:
        """Count SEP's fusion of n prompts and n tokens in `rows` rows; before the first, `first` rows differ."""
        each = rows * n * (3 * width**2 + 2 * FUSION_MLP * width)  # keys, values, projection; MLP
        queries = (first + (self.fused - 1) * rows) * n * width**2
        return 3 * (self.fused * each + queries) + self.fused * 6 * rows * n * n * width


def coop(step: Step) -> float:
    return step.text() + step.image() + step.similarities(learned=1)


def cocoop(step: Step) -> float:
    s = step.sizes
    meta_net = 3 * step.batch * s.embed_dim // REDUCTION * (s.embed_dim + s.text_width)
    return step.text(contexts=step.batch) + step.image() + meta_net + step.similarities(learned=1)


def maple(step: Step) -> float:
    s = step.sizes
    coupling = 3 * step.depth * step.prompts * s.text_width * s.vision_width
    return step.text() + step.image(step.image_prompts) + coupling + step.similarities(learned=2)


def vpt(step: Step) -> float:
    return step.image(step.image_prompts) + step.similarities(learned=1)


def rpo(step: Step) -> float:
    s, k, b, classes = step.sizes, step.prompts, step.batch, len(step.texts)
    n = (s.image_size // s.patch_size) ** 2 + 1
    words = Tokens(sum(step.texts), {"words": 1}, constant=True, output=0)
    prompts = Tokens(classes * k, {"words": k * sum(step.texts)}, learned=True, fresh=k)
    text = tower(s.text_width, s.text_layers, {"words": words, "prompts": prompts})
    image = {
        "image": Tokens(b * n, {"image": b * n * n}, output=0),
        "prompts": Tokens(b * k, {"image": b * k * n}, learned=True, fresh=k),
    }
    features = 2 * k * (classes * s.text_width + b * s.vision_width) * s.embed_dim
    image = step.embedding() + tower(s.vision_width, s.vision_layers, image)
    return text + image + features + step.similarities(learned=2, pairs=k)


def sep(step: Step) -> float:
    s, classes = step.sizes, len(step.names)
    text = step.fusion(s.text_width, classes, 1, step.prompts)
    image = step.fusion(s.vision_width, step.batch, step.batch, step.image_prompts)
    own = step.image()  # frozen CLIP's feature
    prototypes = step.similarities(learned=2) + step.similarities(learned=1)
    return step.text() + step.image(step.image_prompts) + own + text + image + step.similarities(2) + prototypes


def fixed_words(step: Step, first: int = 0) -> dict[str, Tokens]:
    """Return the words of fixed texts; those of the template run once. They become learned before layer `first`."""
    shared, classes = min(step.texts) - min(step.names), len(step.names)
    own = {"words": sum(n * (n + 1) // 2 for n in step.names), "shared": shared * sum(step.names)}
    return {
        "shared": Tokens(shared, {"shared": shared * (shared + 1) // 2}, True, learned_from=first or None, output=0),
        "words": Tokens(sum(step.names), own, True, learned_from=first or None, output=classes),
    }


def adapted(step: Step) -> float:
    """Count both towers whose tokens become learned before layer `first`, without the adapters themselves."""
    s, b, n = step.sizes, step.batch, (step.sizes.image_size // step.sizes.patch_size) ** 2 + 1
    image = {"image": Tokens(b * n, {"image": b * n * n}, output=b, learned_from=step.first)}
    towers = tower(s.text_width, s.text_layers, fixed_words(step, step.first)) + step.embedding()
    towers += tower(s.vision_width, s.vision_layers, image)
    features = 2 * (len(step.names) * s.text_width + b * s.vision_width) * s.embed_dim
    return towers + features + step.similarities(learned=2)


def prograd(step: Step) -> float:
    forward = step.text(learned=False)
    return coop(step) + (step.backward - 1) * (step.text() - forward + step.similarities(1) - step.similarities(0))


def lasp(step: Step) -> float:
    s, b, n = step.sizes, step.batch, (step.sizes.image_size // step.sizes.patch_size) ** 2 + 1
    image = tower(
        s.vision_width, s.vision_layers, {"image": Tokens(b * n, {"image": b * n * n}, learned=True, output=b)}
    )
    guides = step.guides * len(step.names) ** 2 * s.embed_dim * 2
    features = 2 * b * s.vision_width * s.embed_dim
    return step.text() + step.embedding() + image + features + guides + step.similarities(learned=2)


def tcp(step: Step) -> float:
    s, m, classes = step.sizes, step.prompts, len(step.names)
    below, above = step.text_kinds(), step.text_kinds()
    below["rest"] = replace(below["rest"], last=None, output=None)
    above["rest"] = replace(above["rest"], constant=False, learned=True)
    pairs = {"start": classes * m, "ctx": classes * m * (m + 1) // 2}
    above["ctx"] = Tokens(classes * m, pairs, learned=True, output=0)
    layers = tower(s.text_width, step.first, below) + tower(s.text_width, s.text_layers - step.first, above)
    meta_net = 3 * classes * (s.embed_dim // TCP_REDUCTION) * m * s.text_width
    features = 2 * classes * s.text_width * s.embed_dim
    return layers + meta_net + features + step.image() + step.similarities(learned=1)


def promptsrc(step: Step) -> float:
    own = step.image() + step.similarities(learned=0)
    return step.text() + step.image(step.image_prompts) + own + step.similarities(learned=2)


def plotpp(step: Step) -> float:
    s, b, n = step.sizes, step.batch, (step.sizes.image_size // step.sizes.patch_size) ** 2 + 1
    rows, k = step.runs * b, step.image_prompts
    image = Tokens(rows * n, {"image": rows * n * n, "prompts": rows * n * k}, fresh=b * n, output=rows)
    own = {"image": rows * k * n, "prompts": rows * k * k}
    prompts = Tokens(rows * k, own, learned=True, fresh=step.runs * k, output=0)
    image = tower(s.vision_width, s.vision_layers, {"image": image, "prompts": prompts}) + step.embedding()
    features = 2 * rows * s.vision_width * s.embed_dim
    return step.text(step.contexts) + image + features + step.similarities(2, pairs=step.contexts * step.runs)


def mmrl(step: Step) -> float:
    s, b, k, n = step.sizes, step.batch, step.prompts, (step.sizes.image_size // step.sizes.patch_size) ** 2 + 1
    joined, plain = s.vision_layers - step.first, {"image": b * n * n}
    below = tower(s.vision_width, step.first, {"image": Tokens(b * n, plain)})
    frozen = tower(s.vision_width, joined, {"image": Tokens(b * n, plain, output=b)})
    tokens = {"image": b * k * n, "prompts": b * k * k}
    kinds = {
        "image": Tokens(b * n, {**plain, "prompts": b * n * k}, output=b),
        "prompts": Tokens(b * k, tokens, learned=True, replaced=joined - 1, fresh=k),
    }
    words, joined_text = fixed_words(step), s.text_layers - step.first
    words["prompts"] = Tokens(k, {"prompts": k * (k + 1) // 2}, learned=True, replaced=joined_text - 1, output=0)
    for name in ("shared", "words"):
        words[name].attends_to["prompts"] = words[name].count * k
    text = tower(s.text_width, joined_text, words)
    maps = 3 * k * step.table * (joined * s.vision_width + joined_text * s.text_width)
    features = b * (3 + 3) * s.vision_width * s.embed_dim + 2 * len(step.names) * s.text_width * s.embed_dim
    image = step.embedding() + below + frozen + tower(s.vision_width, joined, kinds)
    return text + image + maps + features + 2 * step.similarities(learned=2)


FLOORS = {
    **{"RPO": rpo, "CoOp": coop, "CoCoOp": cocoop, "MaPLe": maple, "VPT": vpt, "SEP": sep},
    **{"KgCoOp": coop, "DePT": coop, "ProGrad": prograd, "LASP": lasp, "TCP": tcp, "PromptSRC": promptsrc},
    **{"PLOTPP": plotpp, "MMRL": mmrl, "MMA": adapted, "CLIPLoRA": adapted},
}
