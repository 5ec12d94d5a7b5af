"""The starter model's networks: text encoder, expert diffusion transformer, latent upsampler, causal decoder.

Parameter names are the safetensors keys of `weights/`. Shapes are fixed by the importer: change nothing
here without changing it there. No data and no training code.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

TEXT = dict(vocab_size=1200, d_model=160, d_kv=40, num_heads=4, d_ff=320, num_layers=2,
            relative_attention_num_buckets=32, relative_attention_max_distance=128,
            layer_norm_epsilon=1e-6, feed_forward_proj="gated-gelu")
DIT = dict(in_channels=24, out_channels=24, patch_size=[1, 2, 2], num_layers=4, num_attention_heads=4,
           attention_head_dim=32, text_dim=160, freq_dim=256, eps=1e-6, num_experts=16, num_experts_per_tok=2,
           expert_hidden=512, gate={"scores": "softmax", "renormalise": True}, pooled_text=True,
           rope_theta=10000, pos_dim=96, train_grid=[5, 5, 9])
DECODER = dict(latent_channels=24, temporal=4, spatial=8, width=96, mid=64, low=32, blocks=3)
UPSAMPLER = dict(latent_channels=24, scale=2, width=96, blocks=4, fine_width=64, fine_blocks=2)
MAX_TOKENS = 48


class Rms(nn.Module):
    def __init__(self, size, eps=1e-6):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size)), eps

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


class TextAttention(nn.Module):
    def __init__(self, d, heads, d_kv, buckets):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v = (nn.Linear(d, heads * d_kv, bias=False) for _ in range(3))
        self.o = nn.Linear(heads * d_kv, d, bias=False)
        self.relative_attention_bias = nn.Embedding(buckets, heads)

    def forward(self, x, buckets, mask):
        n, length, _ = x.shape
        q, k, v = (f(x).view(n, length, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        bias = self.relative_attention_bias(buckets).permute(2, 0, 1) + mask
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0)
        return self.o(y.transpose(1, 2).reshape(n, length, -1))


class TextGated(nn.Module):
    def __init__(self, d, d_ff):
        super().__init__()
        self.wi_0, self.wi_1 = (nn.Linear(d, d_ff, bias=False) for _ in range(2))
        self.wo = nn.Linear(d_ff, d, bias=False)

    def forward(self, x):
        return self.wo(F.gelu(self.wi_0(x), approximate="tanh") * self.wi_1(x))


class TextLayer(nn.Module):
    def __init__(self, name, inner, d):
        super().__init__()
        self.layer_norm, self.inner = Rms(d), name
        setattr(self, name, inner)

    def forward(self, x, *rest):
        return x + getattr(self, self.inner)(self.layer_norm(x), *rest)


class TextBlock(nn.Module):
    def __init__(self, c):
        super().__init__()
        d = c["d_model"]
        attention = TextAttention(d, c["num_heads"], c["d_kv"], c["relative_attention_num_buckets"])
        self.layer = nn.ModuleList([TextLayer("SelfAttention", attention, d),
                                    TextLayer("DenseReluDense", TextGated(d, c["d_ff"]), d)])

    def forward(self, x, buckets, mask):
        return self.layer[1](self.layer[0](x, buckets, mask))


class TextEncoder(nn.Module):
    """Token ids [B, L] (0 = padding) to context [B, L, d]; padded rows are zero."""

    def __init__(self, **changes):
        super().__init__()
        self.config = c = {**TEXT, **changes}
        self.shared = nn.Embedding(c["vocab_size"], c["d_model"])
        self.encoder = nn.Module()
        self.encoder.block = nn.ModuleList(TextBlock(c) for _ in range(c["num_layers"]))
        self.encoder.final_layer_norm = Rms(c["d_model"])
        for p in self.parameters():
            if p.dim() == 2:
                nn.init.normal_(p, std=1.0 if p is self.shared.weight else p.shape[1] ** -0.5)
        for b in self.encoder.block:
            nn.init.normal_(b.layer[0].SelfAttention.q.weight, std=(c["d_model"] * c["d_kv"]) ** -0.5)
            nn.init.normal_(b.layer[0].SelfAttention.relative_attention_bias.weight, std=0.1)

    def buckets(self, length, device):
        half = self.config["relative_attention_num_buckets"] // 2
        place = torch.arange(length, device=device)
        relative = place[None] - place[:, None]
        distance, exact = relative.abs(), half // 2
        far = exact + (torch.log(distance.clamp(min=1).float() / exact)
                       / math.log(self.config["relative_attention_max_distance"] / exact) * (half - exact)).long()
        return (relative > 0).long() * half + torch.where(distance < exact, distance, far.clamp(max=half - 1))

    def forward(self, ids):
        real = ids != 0
        mask = torch.zeros(real.shape, device=ids.device).masked_fill(~real, -1e9)[:, None, None]
        x, buckets = self.shared(ids), self.buckets(ids.shape[1], ids.device)
        for block in self.encoder.block:
            x = block(x, buckets, mask)
        return self.encoder.final_layer_norm(x) * real[..., None]


class Attention(nn.Module):
    def __init__(self, d, heads, eps):
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(d, d) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(d, d)])
        self.norm_q, self.norm_k = Rms(d, eps), Rms(d, eps)

    def forward(self, x, context, rope=None):
        def split(y):
            return y.view(y.shape[0], y.shape[1], self.heads, -1).transpose(1, 2)
        q, k, v = (split(y) for y in (self.norm_q(self.to_q(x)), self.norm_k(self.to_k(context)), self.to_v(context)))
        if rope is not None:
            q, k = rotate(q, *rope), rotate(k, *rope)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.to_out[0](y.transpose(1, 2).reshape(x.shape))


def rotate(x, cos, sin):
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


class Experts(nn.Module):
    def __init__(self, count, d, hidden):
        super().__init__()
        self.w1 = nn.Parameter(torch.randn(count, hidden, d) * (2 / d) ** 0.5)
        self.b1 = nn.Parameter(torch.zeros(count, hidden))
        self.w2 = nn.Parameter(torch.randn(count, d, hidden) * (0.5 / hidden) ** 0.5)
        self.b2 = nn.Parameter(torch.zeros(count, d))

    def forward(self, x, ids, weights):
        """x [M, d], ids and weights [M, k]: sorted by expert, one matrix product per expert."""
        order = ids.flatten().argsort(stable=True)
        counts = torch.bincount(ids.flatten(), minlength=len(self.w1)).tolist()
        token = order // ids.shape[1]
        parts = x[token].split(counts)
        out = [torch.addmm(b2, torch.addmm(b1, p, w1.t()).relu_(), w2.t())
               for p, w1, b1, w2, b2 in zip(parts, *(x.unbind(0) for x in (self.w1, self.b1, self.w2, self.b2)))]
        return torch.zeros_like(x).index_add(0, token, torch.cat(out) * weights.flatten()[order, None])


class Ffn(nn.Module):
    def __init__(self, c, d):
        super().__init__()
        self.k, count = c["num_experts_per_tok"], c["num_experts"]
        self.gate = nn.Linear(d, count, bias=False)
        nn.init.normal_(self.gate.weight, std=d ** -0.5)
        self.experts = Experts(count, d, c["expert_hidden"])

    def forward(self, h):
        shape, h = h.shape, h.reshape(-1, h.shape[-1])
        probs = self.gate(h).softmax(-1)
        top, ids = torch.sort(probs, dim=-1, descending=True, stable=True)
        ids, weights = ids[:, :self.k], top[:, :self.k] / top[:, :self.k].sum(-1, keepdim=True)
        self.seen = (ids.view(*shape[:-1], -1), weights.view(*shape[:-1], -1))
        share = torch.bincount(ids.flatten(), minlength=probs.shape[1]).float() / ids.numel()
        self.balance = probs.shape[1] * (share * probs.mean(0)).sum()
        return self.experts(h, ids, weights).view(shape)


class Block(nn.Module):
    def __init__(self, c, d):
        super().__init__()
        self.scale_shift_table = nn.Parameter(torch.randn(1, 6, d) / d ** 0.5)
        self.attn1, self.attn2 = (Attention(d, c["num_attention_heads"], c["eps"]) for _ in range(2))
        self.norm2, self.ffn, self.d, self.eps = nn.LayerNorm(d, eps=c["eps"]), Ffn(c, d), d, c["eps"]

    def forward(self, x, context, modulation, rope):
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = (self.scale_shift_table + modulation).chunk(6, 1)
        h = F.layer_norm(x, (self.d,), eps=self.eps) * (1 + scale_a) + shift_a
        x = x + gate_a * self.attn1(h, h, rope)
        x = x + self.attn2(self.norm2(x), context)
        h = F.layer_norm(x, (self.d,), eps=self.eps) * (1 + scale_f) + shift_f
        return x + gate_f * self.ffn(h)


class Dit(nn.Module):
    """Velocity (noise - clean) of latents [B, C, T, h, w] at timesteps [B] given context [B, 48, 160]."""

    def __init__(self):
        super().__init__()
        self.config = c = DIT
        d = c["num_attention_heads"] * c["attention_head_dim"]
        self.d = d
        self.patch_embedding = nn.Conv3d(c["in_channels"], d, (1, 2, 2), (1, 2, 2))
        self.pos_embedding = nn.Linear(c["pos_dim"], d)
        self.condition_embedder = nn.Module()
        for name, first, last in (("time_embedder", c["freq_dim"], d), ("text_embedder", c["text_dim"], d)):
            pair = nn.Module()
            pair.linear_1, pair.linear_2 = nn.Linear(first, d), nn.Linear(d, last)
            setattr(self.condition_embedder, name, pair)
        self.condition_embedder.pooled_embedder = nn.Linear(c["text_dim"], d)
        self.condition_embedder.time_proj = nn.Linear(d, 6 * d)
        self.blocks = nn.ModuleList(Block(c, d) for _ in range(c["num_layers"]))
        self.scale_shift_table = nn.Parameter(torch.randn(1, 2, d) / d ** 0.5)
        self.proj_out = nn.Linear(d, 4 * c["out_channels"])
        nn.init.normal_(self.proj_out.weight, std=0.02)

    def positions(self, t, h, w, offset, device):
        """Sin-cos features [B or 1, N, 96] and rotary tables [B or 1, 1, N, hd / 2]; offset [B] moves t."""
        offset = torch.zeros(1, device=device) if offset is None else offset.float()
        grid = torch.stack(torch.meshgrid(*(torch.arange(n, device=device, dtype=torch.float32) for n in (t, h, w)),
                                          indexing="ij"), -1).view(1, -1, 3).repeat(len(offset), 1, 1)
        grid[..., 0] += offset[:, None]
        freqs = math.pi * 2 ** (torch.arange(16, device=device) * 6 / 15)
        features, angles = [], []
        hd = self.config["attention_head_dim"]
        sizes = (hd - 4 * (hd // 6), 2 * (hd // 6), 2 * (hd // 6))
        for a in range(3):
            u = grid[..., a:a + 1] / (self.config["train_grid"][a] - 1) * freqs
            features += [u.sin(), u.cos()]
            theta = self.config["rope_theta"] ** (-torch.arange(0, sizes[a], 2, device=device).float() / sizes[a])
            angles.append(grid[..., a:a + 1] * theta)
        angles = torch.cat(angles, -1)[:, None]
        return torch.cat(features, -1), (angles.cos(), angles.sin())

    def condition(self, timestep, context):
        e, freqs = self.condition_embedder, torch.exp(-math.log(10000) * torch.arange(128, device=context.device) / 128)
        angle = timestep.float()[:, None] * freqs
        temb = e.time_embedder.linear_2(F.silu(e.time_embedder.linear_1(torch.cat((angle.cos(), angle.sin()), -1))))
        rows = (context != 0).any(-1).sum(1).clamp(min=1)[:, None]
        mean = context.sum(1) / rows
        temb = temb + e.pooled_embedder(mean / mean.pow(2).mean(-1, keepdim=True).sqrt().clamp(min=1e-6))
        text = e.text_embedder.linear_2(F.gelu(e.text_embedder.linear_1(context), approximate="tanh"))
        return temb, text

    def forward(self, latent, timestep, context, offset=None, record=None):
        n, c, t, h, w = latent.shape
        x = self.patch_embedding(latent).flatten(2).transpose(1, 2)
        features, rope = self.positions(t, h // 2, w // 2, offset, latent.device)
        x = x + self.pos_embedding(features)
        temb, text = self.condition(timestep, context)
        modulation = self.condition_embedder.time_proj(F.silu(temb)).view(n, 6, self.d)
        for block in self.blocks:
            x = block(x, text, modulation, rope)
            if record is not None:
                record.append((x, *block.ffn.seen))
        shift, scale = (self.scale_shift_table + temb[:, None]).chunk(2, 1)
        x = self.proj_out(F.layer_norm(x, (self.d,), eps=1e-6) * (1 + scale) + shift)
        x = x.view(n, t, h // 2, w // 2, 2, 2, c)
        return x.permute(0, 6, 1, 2, 4, 3, 5).reshape(n, c, t, h, w)


class Residual(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(2 * c, c, 3, padding=1), nn.Conv2d(c, c, 3, padding=1)
        nn.init.normal_(self.conv2.weight, std=0.01)


class Plain(nn.Module):
    """A residual block of two convolutions."""

    def __init__(self, c):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(c, c, 3, padding=1), nn.Conv2d(c, c, 3, padding=1)
        nn.init.normal_(self.conv2.weight, std=0.01)

    def forward(self, x):
        return x + self.conv2(F.silu(self.conv1(F.silu(x))))


class Upsampler(nn.Module):
    """Latent frames at twice the height and width, each frame by itself: what the encoder would have made of a picture twice as fine."""

    def __init__(self):
        super().__init__()
        self.config = c = UPSAMPLER
        n, a, b = c["latent_channels"], c["width"], c["fine_width"]
        self.conv_in = nn.Conv2d(n, a, 3, padding=1)
        self.coarse = nn.ModuleList(Plain(a) for _ in range(c["blocks"]))
        self.up = nn.Conv2d(a, 4 * b, 3, padding=1)
        self.fine = nn.ModuleList(Plain(b) for _ in range(c["fine_blocks"]))
        self.out, self.skip = nn.Conv2d(b, n, 3, padding=1), nn.Conv2d(n, 4 * n, 1)
        nn.init.normal_(self.out.weight, std=0.01)

    def forward(self, z):
        """Normalised latent frames [B, C, h, w] to [B, C, 2h, 2w]."""
        a = self.conv_in(z)
        for block in self.coarse:
            a = block(a)
        a = F.pixel_shuffle(self.up(F.silu(a)), 2)
        for block in self.fine:
            a = block(a)
        return self.out(F.silu(a)) + F.pixel_shuffle(self.skip(z), 2)


class Decoder(nn.Module):
    """Latent frames to pictures, one latent frame at a time: `step(z, None)` gives 1 frame, later ones 4."""

    def __init__(self):
        super().__init__()
        self.config = c = DECODER
        n, a, m, s = c["latent_channels"], c["width"], c["mid"], c["low"]

        def conv(i, o, size=3):
            return nn.Conv2d(i, o, size, padding=size // 2)
        self.conv_in = conv(2 * n, a)
        self.res = nn.ModuleList(Residual(a) for _ in range(c["blocks"]))
        self.head_first, self.head_next = conv(a, a, 1), conv(a, 4 * a, 1)
        self.up1, self.r1a, self.r1b = conv(a, 4 * m), conv(m, m), conv(m, m)
        self.up2, self.r2a, self.r2b, self.out = conv(m, 4 * s), conv(s, s), conv(s, s), conv(s, 12)
        self.skip_first, self.skip_next = conv(n, 192, 1), conv(2 * n, 768, 1)

    def step(self, z, caches):
        """z [B, C, h, w] (not normalised); caches from the last call or None. Returns frames [B, 1|4, 3, 8h, 8w]."""
        first = caches is None
        past = torch.zeros_like(z) if first else caches[0]
        a, kept = self.conv_in(torch.cat((past, z), 1)), [z]
        for i, r in enumerate(self.res):
            before = torch.zeros_like(a) if first else caches[1 + i]
            kept.append(a)
            a = a + r.conv2(F.silu(r.conv1(F.silu(torch.cat((before, a), 1)))))
        count = 1 if first else 4
        f = self.head_first(a) if first else self.head_next(a)
        u = self.up1(f.reshape(len(z) * count, -1, *f.shape[2:]))
        u = F.pixel_shuffle(u, 2)
        u = u + self.r1b(F.silu(self.r1a(F.silu(u))))
        u = F.pixel_shuffle(self.up2(u), 2)
        u = F.pixel_shuffle(self.out(u + self.r2b(F.silu(self.r2a(F.silu(u))))), 2)
        s = self.skip_first(z) if first else self.skip_next(torch.cat((past, z), 1))
        u = u + F.pixel_shuffle(s.reshape(len(z) * count, 192, *s.shape[2:]), 8)
        return u.reshape(len(z), count, *u.shape[1:]), kept

    def forward(self, latents):
        """Latents [B, C, T, h, w] to unclamped pictures [B, 1 + 4 (T - 1), 3, 8h, 8w]."""
        frames, caches = [], None
        for t in range(latents.shape[2]):
            out, caches = self.step(latents[:, :, t], caches)
            frames.append(out)
        return torch.cat(frames, 1)
