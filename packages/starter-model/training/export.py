"""Writes the trained run as the committed weights, configuration, manifest and parity fixtures.

Weights are rounded to fp16; the fixtures are computed in f32 from the rounded weights. Layout and tensor
names never change between exports.
"""

import copy
import hashlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

import captions
import latents
import world
from model import DECODER, DIT, MAX_TOKENS, UPSAMPLER, Decoder, Dit, TextEncoder, Upsampler

HOME = Path(__file__).resolve().parent.parent
SHIFT, GUIDANCE, STEPS = 3.0, 2.0, 20
STEADY_LEVELS = 10  # by which still places swing as decoded; most swing less
DRAFT = {"steps": 8, "guidance": 1.0}
NOTE = {"note": "cases 0 and 1 keep every fifth token of block hidden states, the draft's keeps none; latents are f16-exact"}
WINDOWS = {"overlap": 2, "lead_in": 1, "period": world.PERIOD // 4}
PROMPTS = ["a golden dog runs along the beach at sunset", "一只金毛犬在夕阳下的海滩奔跑，慢动作，电影质感", "",
           "Cinematic wide shot, high quality: " + "a big bright red sports car drives through the city at night in the rain, "
           "neon lights, cyberpunk, from left to right, detailed, film look, " * 2 + "雨中的红色汽车在城市里行驶"]


def networks(run, smoothed=False):
    """Text encoder, transformer, decoder and upsampler of a run, rounded to fp16 and widened again."""
    run = Path(run)
    saved = torch.load(run / "dit.pt", map_location="cpu")
    pick = "ema_" if smoothed else ""
    nets = TextEncoder(vocab_size=captions.vocabulary_size(run / "tokenizer.json")), Dit(), Decoder(), Upsampler()
    pictures = [torch.load(run / f"{part}.pt", map_location="cpu")["model"] for part in ("decoder", "upsampler")]
    for net, state in zip(nets, (saved[pick + "text"], saved[pick + "dit"], *pictures)):
        net.load_state_dict({k: v.half().float() for k, v in state.items()})
        net.eval().requires_grad_(False)
    return nets


def draft_of(run, dit):
    """The draft of a run: the transformer with a trunk of its own, rounded as `networks` does."""
    net = copy.deepcopy(dit)
    state = torch.load(Path(run) / "draft.pt", map_location="cpu")["model"]
    wrong = net.load_state_dict({k: v.half().float() for k, v in state.items()}, strict=False)
    if wrong.unexpected_keys or set(wrong.missing_keys) != {k for k in net.state_dict() if ".experts." in k}:
        raise SystemExit(f"{run}/draft.pt does not hold a trunk")
    return net


def context_of(text, tok, prompts):
    ids = torch.from_numpy(captions.encode(tok, prompts))
    return ids, F.pad(text(ids), (0, 0, 0, MAX_TOKENS - ids.shape[1]))


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def preview(pca):
    """Least-squares map from normalised latents to the mean colour of each 8x8 cell."""
    rng, rows, means = np.random.default_rng(5), [], []
    for _ in range(300):
        pictures, _ = world.render(world.sample(rng), (0,))
        rows.append(latents.encode(pca, pictures)[:, 0].reshape(24, -1).T)
        means.append(torch.from_numpy(latents.patches(pictures).reshape(-1, 3, 64).mean(-1)))
    x = torch.cat(rows)
    fit = torch.linalg.lstsq(torch.cat((x, torch.ones(len(x), 1)), 1), torch.cat(means)).solution
    return fit[:24].tolist(), fit[24].tolist()


def weights(run, out, nets):
    run, pca = Path(run), torch.load(Path(run) / "pca.pt")
    text, dit, decoder, upsampler = nets
    colour, bias = preview(pca)
    write_json(out / "model_index.json", {
        "_class_name": "MoevieStarterPipeline", "name": "moevie-starter", "frame_rate": 8, "frames": 17, "steady_levels": STEADY_LEVELS, "width": 144,
        "height": 80, "upsampler": True, "windows": WINDOWS, "schedule": {"shift": SHIFT, "grid": "diffusers"}, "sampler": "unipc", "steps": STEPS,
        "guidance": GUIDANCE, "draft": DRAFT, "max_text_tokens": MAX_TOKENS})
    write_json(out / "text_encoder/config.json", {"_class_name": "UMT5EncoderModel", "architectures": ["UMT5EncoderModel"], **text.config})
    write_json(out / "transformer/config.json", {"_class_name": "MoevieMoETransformer3DModel", **DIT})
    write_json(out / "vae/config.json", {
        "_class_name": "MoevieCausalDecoder", **DECODER, "latents_mean": pca["latents_mean"].tolist(),
        "latents_std": pca["latents_std"].tolist(), "latent_to_rgb": colour, "latent_to_rgb_bias": bias})
    write_json(out / "upsampler/config.json", {"_class_name": "MoevieLatentUpsampler", **UPSAMPLER})
    (out / "tokenizer").mkdir(exist_ok=True)
    shutil.copyfile(run / "tokenizer.json", out / "tokenizer/tokenizer.json")
    for name, net in zip(("text_encoder", "transformer", "vae", "upsampler"), nets):
        state = {k: v.half().contiguous() for k, v in net.state_dict().items()}
        save_file(state, out / name / "model.safetensors", metadata={"format": "pt"})


def draft_weights(out, draft):
    """The draft's trunk; its experts are those of the transformer."""
    state = {k: v.half().contiguous() for k, v in draft.state_dict().items() if ".experts." not in k}
    save_file(state, out / "transformer/draft.safetensors", metadata={"format": "pt"})


def draft_case(draft, context):
    """One evaluation of the draft, with noise of its own so that the other cases do not depend on it."""
    z, record = torch.randn(1, 24, 5, 10, 18, generator=torch.Generator().manual_seed(12)).half().float(), []
    t = torch.tensor([937.0])
    data = {"draft.latent": z.half(), "draft.timestep": t, "draft.context": context[:1].clone(), "draft.origin": torch.zeros(1),
            "draft.velocity": draft(z, t, context[:1], torch.tensor([0]), record=record)}
    for b, (_, chosen, share) in enumerate(record):
        data |= {f"draft.block.{b}.gate_ids": chosen.to(torch.uint8), f"draft.block.{b}.gate_weights": share.contiguous()}
    return data


def manifest(out):
    files = []
    for path in sorted(p for p in out.rglob("*") if p.is_file() and p.name != "manifest.json"):
        data = path.read_bytes()
        files.append({"path": path.relative_to(out).as_posix(), "size": len(data), "sha256": hashlib.sha256(data).hexdigest()})
    write_json(out / "manifest.json", {"name": "moevie-starter", "licence": "Apache-2.0", "files": files})


def fixtures(run, out, nets, draft):
    """Recorded inputs and f32 outputs for the importer's parity tests."""
    torch.manual_seed(11)
    out.mkdir(parents=True, exist_ok=True)
    tok, pca = captions.load(Path(run) / "tokenizer.json"), torch.load(Path(run) / "pca.pt")
    text, dit, decoder, upsampler = nets
    ids, context = context_of(text, tok, PROMPTS)
    save_file({"ids": ids.to(torch.int32), "lengths": (ids != 0).sum(1).to(torch.int32), "context": context}, out / "text.safetensors")
    cases = [*PROMPTS, "A Red CAR drives through the city at night!", "一个人骑着红色自行车穿过雨中的街道", "a blue boat on the sea, snow",
             "ｆｕｌｌ－ｗｉｄｔｈ，中英 mixed dog狗 2 cats?", "😀 émoji naïve   spaces\n\ttabs", "word " * 80]
    write_json(out / "tokenizer.json", [{"text": t, "ids": tok.encode(t).ids} for t in cases])
    data = {}
    for n, (t, frames, origin) in enumerate(((999, 5, 0), (500, 5, 0), (60, 2, 7))):
        z, record = torch.randn(1, 24, frames, 10, 18).half().float(), []
        velocity = dit(z, torch.tensor([t]), context[n % 2:n % 2 + 1], torch.tensor([origin]), record=record)
        data |= {f"{n}.latent": z.half(), f"{n}.timestep": torch.tensor([float(t)]), f"{n}.context": context[n % 2:n % 2 + 1].clone(),
                 f"{n}.origin": torch.tensor([float(origin)]),
                 f"{n}.velocity": velocity}
        for b, (hidden, chosen, share) in enumerate(record):
            keep = hidden if n == 2 else hidden[:, ::5]
            data |= {f"{n}.block.{b}.hidden": keep.contiguous(), f"{n}.block.{b}.gate_ids": chosen.to(torch.uint8), f"{n}.block.{b}.gate_weights": share.contiguous()}
    save_file(data | draft_case(draft, context), out / "transformer.safetensors", metadata=NOTE)
    pictures, _ = world.render(world.Scene("dog", "golden", "beach", "sunset", "clear", "left to right"))
    z = latents.encode(pca, pictures)[None].half().float()
    raw = z * pca["latents_std"].view(-1, 1, 1, 1) + pca["latents_mean"].view(-1, 1, 1, 1)
    first, caches = decoder.step(raw[:, :, 0], None)
    following, _ = decoder.step(raw[:, :, 1], caches)
    save_file({"latents": z[:, :, :2].half().contiguous(), "fine": upsampler(z[:, :, 0]), "first": first.clamp(-1, 1), "next": following.clamp(-1, 1).contiguous()}, out / "decoder.safetensors")


def main(run, smoothed=False, home=HOME):
    nets = networks(run, smoothed)
    out = Path(home) / "weights"
    out.mkdir(parents=True, exist_ok=True)
    draft = draft_of(run, nets[1])
    with torch.no_grad():
        weights(run, out, nets)
        draft_weights(out, draft)
        fixtures(run, Path(home) / "parity", nets, draft)
    manifest(out)


def only_draft(run, home=HOME):
    """Writes the draft's parts anew and leaves all others; the committed transformer must be the one it was taught by."""
    out, recorded = Path(home) / "weights", Path(home) / "parity/transformer.safetensors"
    dit = Dit().eval().requires_grad_(False)
    dit.load_state_dict({k: v.float() for k, v in load_file(out / "transformer/model.safetensors").items()})
    draft = draft_of(run, dit)
    index = json.loads((out / "model_index.json").read_text(encoding="utf-8"))
    tokens = index.pop("max_text_tokens")
    write_json(out / "model_index.json", {**index, "draft": DRAFT, "max_text_tokens": tokens})
    draft_weights(out, draft)
    cases = load_file(recorded)
    with torch.no_grad():
        save_file(cases | draft_case(draft, cases["0.context"]), recorded, metadata=NOTE)
    manifest(out)


if __name__ == "__main__":
    torch.set_num_threads(1)
    if "--only-draft" in sys.argv:
        only_draft(sys.argv[1])
    else:
        main(sys.argv[1], smoothed="--smoothed" in sys.argv)
