"""Writes what `moevie bench adherence` needs: a trained judge with its norms folded in, and prompts of held-out combinations.

    python export_judge.py RUN [OUT]

RUN holds judge.pt (see judge.py). OUT gets judge.safetensors and prompts.json: every prompt with its scene's labels and a caption
in each language that states everything, and what the judge itself reached on drawn clips, half of them spoiled.
"""

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

import captions
import export
import world
from judge import NAMES, SIZES, Judge, drawn, linear_pictures

OUT = export.HOME.parent.parent / "tests/bench/adherence"
PROMPTS, SEED = 500, 33


def reached(net, pca, clips=512):
    """Shares of drawn clips of held-out combinations that the judge gets right."""
    z, labels, bad = drawn(pca, np.random.default_rng(77), clips, test=True)
    *parts, sound = net(linear_pictures(pca, z)).split([*SIZES, 2], 1)
    own = {n: float((p.argmax(1) == labels[:, i])[bad == 0].float().mean()) for i, (n, p) in enumerate(zip(NAMES, parts))}
    return {**own, "soundAccepted": float((sound.argmax(1) == 0)[bad == 0].float().mean()),
            "spoiledRejected": float((sound.argmax(1) == 1)[bad == 1].float().mean())}


def folded(net):
    """The judge's weights, every batch norm folded into the convolution before it, fp16."""
    state = {}
    for n in range(0, len(net.body), 3):
        conv, norm = net.body[n], net.body[n + 1]
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        state[f"conv.{n // 3}.weight"] = conv.weight * scale.view(-1, 1, 1, 1)
        state[f"conv.{n // 3}.bias"] = (conv.bias - norm.running_mean) * scale + norm.bias
    for n, layer in enumerate((net.head[0], net.head[2])):
        state[f"linear.{n}.weight"], state[f"linear.{n}.bias"] = layer.weight, layer.bias
    return {name: value.detach().half().contiguous() for name, value in state.items()}


def answer(weights, pictures):
    """What the folded weights say of one clip [5, 3, 40, 72]."""
    w, x = {name: value.float() for name, value in weights.items()}, pictures
    for n in range(4):
        x = F.relu(F.conv2d(x, w[f"conv.{n}.weight"], w[f"conv.{n}.bias"], 2, 1))
    return F.linear(F.relu(F.linear(x.flatten(), w["linear.0.weight"], w["linear.0.bias"])), w["linear.1.weight"], w["linear.1.bias"])


def prompts():
    rng, rows = np.random.default_rng(SEED), []
    for _ in range(PROMPTS):
        scene, said = world.sample(rng, test=True), dict.fromkeys(NAMES, True)
        rows.append({"labels": scene.labels(), "english": captions.english(rng, scene, said), "chinese": captions.chinese(rng, scene, said)})
    return rows


@torch.no_grad()
def main(run, out=OUT):
    run, out, net = Path(run), Path(out), Judge()
    net.load_state_dict(torch.load(run / "judge.pt"))
    net.eval()
    pca = torch.load(run / "pca.pt")
    out.mkdir(parents=True, exist_ok=True)
    # One drawn clip and the judge's answer to it, for whoever runs the judge elsewhere.
    weights, pictures = folded(net), linear_pictures(pca, drawn(pca, np.random.default_rng(5), 1)[0])[0].half()
    example = {"example.pictures": pictures.contiguous(), "example.logits": answer(weights, pictures.float())}
    save_file({**weights, **example}, out / "judge.safetensors", metadata={"format": "pt"})
    export.write_json(out / "prompts.json", {"attributes": {n: list(world.ATTRIBUTES[n]) for n in NAMES},
                                             "judge": reached(net, pca), "prompts": prompts()})


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:3])
