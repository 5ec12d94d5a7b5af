"""The other side of `bench wan` and `bench wan-block`: makes Wan folders of random weights and runs diffusers' own pipeline on a CPU.

One JSON request a line on stdin, one JSON answer a line on stdout.
"""
import json
import os
import sys
import time
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from safetensors.torch import save_file
from transformers import T5TokenizerFast, UMT5Config, UMT5EncoderModel

torch.set_grad_enabled(False)
TOKENS = 512
SHAPES = {
    # One expert of about 100 million parameters.
    "middle": {"transformer": {"num_attention_heads": 12, "attention_head_dim": 64, "ffn_dim": 3072, "num_layers": 10, "text_dim": 256},
               "text": {"d_model": 256, "d_ff": 512, "d_kv": 64, "num_heads": 4, "num_layers": 4},
               "vae": {"base_dim": 16, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2}},
    # One block of the real Wan2.2.
    "block": {"transformer": {"num_attention_heads": 40, "attention_head_dim": 128, "ffn_dim": 13824, "num_layers": 1, "text_dim": 4096},
              "text": {"d_model": 4096, "d_ff": 64, "d_kv": 64, "num_heads": 1, "num_layers": 1},
              "vae": {"base_dim": 8, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1}},
}


class Reference:
    def make(self, kind, like, folder):
        """A pipeline of one transformer, with the tokenizer of the folder `like`."""
        torch.manual_seed(7)
        shapes = SHAPES[kind]
        transformer = WanTransformer3DModel(in_channels=16, out_channels=16, freq_dim=256, rope_max_seq_len=1024, **shapes["transformer"])
        text = UMT5EncoderModel(UMT5Config(vocab_size=768, feed_forward_proj="gated-gelu", **shapes["text"]))
        vae = AutoencoderKLWan(z_dim=16, **shapes["vae"])
        scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, num_train_timesteps=1000)
        tokenizer = T5TokenizerFast.from_pretrained(str(Path(like) / "tokenizer"))
        WanPipeline(tokenizer=tokenizer, text_encoder=text, vae=vae, scheduler=scheduler, transformer=transformer).save_pretrained(folder)
        # Saved without Python's own ideas of the tokenizer: the file itself counts.
        return {"parameters": sum(p.numel() for p in transformer.parameters())}

    def open(self, folder):
        self.pipe = WanPipeline.from_pretrained(folder)
        self.pipe.set_progress_bar_config(disable=True)
        return {}

    def clip(self, threads, prompt, negative, height, width, frames, steps, guidance, guidance_2, batched):
        """Seconds from prompt to frames of the pipeline itself, or of one that runs both branches as one batch."""
        torch.set_num_threads(threads)
        common = dict(height=height, width=width, num_frames=frames, num_inference_steps=steps, max_sequence_length=TOKENS)
        two = self.pipe.transformer_2 is not None
        began = time.perf_counter()
        if batched:
            out = self.batched_clip(prompt, negative, guidance, guidance_2 if two else guidance, common)
        else:
            scales = dict(guidance_scale=guidance, **({"guidance_scale_2": guidance_2} if two else {}))
            out = self.pipe(prompt=prompt, negative_prompt=negative, output_type="np", generator=torch.Generator().manual_seed(1), **scales, **common).frames
        return {"seconds": time.perf_counter() - began, "frames": len(out[0])}

    def batched_clip(self, prompt, negative, guidance, guidance_2, common):
        pipe = self.pipe
        rows, others = pipe.encode_prompt(prompt=prompt, negative_prompt=negative, max_sequence_length=common["max_sequence_length"], device="cpu")
        context = torch.cat([rows, others])
        x = torch.randn((1, 16, (common["num_frames"] - 1) // 4 + 1, common["height"] // 8, common["width"] // 8), generator=torch.Generator().manual_seed(1))
        pipe.scheduler.set_timesteps(common["num_inference_steps"])
        boundary = (pipe.config.boundary_ratio or 0) * 1000
        for t in pipe.scheduler.timesteps:
            net, scale = (pipe.transformer, guidance) if t >= boundary else (pipe.transformer_2, guidance_2)
            wanted, unwanted = net(hidden_states=torch.cat([x, x]), timestep=t.expand(2), encoder_hidden_states=context, return_dict=False)[0].chunk(2)
            x = pipe.scheduler.step(unwanted + scale * (wanted - unwanted), t, x, return_dict=False)[0]
        config = pipe.vae.config
        mean, std = (torch.tensor(v).view(1, -1, 1, 1, 1) for v in (config.latents_mean, config.latents_std))
        return pipe.video_processor.postprocess_video(pipe.vae.decode(x * std + mean, return_dict=False)[0], output_type="np")

    def forward(self, threads, shape, batch, file=None):
        """Seconds of one evaluation of the transformer; its inputs and answer to `file`."""
        torch.set_num_threads(threads)
        g = torch.Generator().manual_seed(3)
        config = self.pipe.transformer.config
        latent = torch.randn((1, 16, *shape), generator=g).expand(batch, -1, -1, -1, -1)
        context = torch.randn((batch, TOKENS, config.text_dim), generator=g)
        began = time.perf_counter()
        velocity = self.pipe.transformer(hidden_states=latent, timestep=torch.full((batch,), 500), encoder_hidden_states=context, return_dict=False)[0]
        seconds = time.perf_counter() - began
        if file:
            save_file({"latent": latent.contiguous(), "context": context, "velocity": velocity.contiguous()}, file)
        return {"seconds": seconds}

    def gemm(self, threads, rows, inner, columns):
        """Seconds of one linear layer."""
        torch.set_num_threads(threads)
        x, weight = torch.randn(rows, inner), torch.randn(columns, inner)
        began = time.perf_counter()
        torch.nn.functional.linear(x, weight)
        return {"seconds": time.perf_counter() - began}


def main():
    reference = Reference()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        answers.write(json.dumps(getattr(reference, request.pop("call"))(**request)) + "\n")
        answers.flush()


main()
