"""The other side of `bench moe-layer`: one layer of experts in PyTorch, rows grouped by expert.

One JSON request a line on stdin, one JSON answer a line on stdout.
"""
import json
import os
import sys
import time

os.environ["CUDA_VISIBLE_DEVICES"] = ""

import torch
from safetensors.torch import load_file, save_file

torch.set_grad_enabled(False)
AT = "blocks.0.ffn.experts"


class Reference:
    def open(self, file, layer):
        """Experts' weights as f32, and the rows [n, d] with experts and weights of each, [n, k]."""
        tensors = load_file(file)
        self.w1, self.b1, self.w2, self.b2 = (tensors[f"{AT}.{name}"].float() for name in ("w1", "b1", "w2", "b2"))
        given = load_file(layer)
        self.rows, self.weights, self.ids = given["rows"], given["weights"], given["ids"].long()
        return {}

    def layer(self):
        """Entries sorted by expert once, then two matrix products an expert, and one weighted sum a row."""
        k = self.ids.shape[1]
        order = torch.argsort(self.ids.flatten(), stable=True)
        counts = torch.bincount(self.ids.flatten(), minlength=len(self.w1)).tolist()
        of = order // k
        rows = self.rows.index_select(0, of)
        answers = torch.empty_like(rows)
        at = 0
        for expert, count in enumerate(counts):
            if count > 0:
                inner = torch.relu_(torch.nn.functional.linear(rows[at : at + count], self.w1[expert], self.b1[expert]))
                answers[at : at + count] = torch.nn.functional.linear(inner, self.w2[expert], self.b2[expert])
            at += count
        answers *= self.weights.flatten()[order].unsqueeze(1)
        return torch.zeros_like(self.rows).index_add_(0, of, answers)

    def run(self, threads, file=None):
        torch.set_num_threads(threads)
        start = time.perf_counter()
        out = self.layer()
        seconds = time.perf_counter() - start
        if file is not None:
            save_file({"out": out}, file)
        return {"seconds": seconds}

    def gemm(self, threads, rows):
        """One expert's first linear layer on so many rows: what the processor gives."""
        torch.set_num_threads(threads)
        given = torch.randn(rows, self.w1.shape[2])
        start = time.perf_counter()
        torch.nn.functional.linear(given, self.w1[0])
        return {"seconds": time.perf_counter() - start}


def main():
    reference = Reference()
    for line in sys.stdin:
        request = json.loads(line)
        call = request.pop("call")
        print(json.dumps(getattr(reference, call)(**request)), flush=True)


main()
