"""torch's layer (cuDNN's kernels) in a plain loop on a GPU: all images on the device, batches by index.

python benchmarks/gpu/torch_loop.py --model lstm --hidden 128 --batch 1024 --epochs 4 --mnist DIR
"""

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from torch import nn

sys.path.append(str(Path(__file__).parents[1] / "peers"))
import common

LAYERS = {"basic": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class Classifier(nn.Module):
    def __init__(self, layer, hidden):
        super().__init__()
        self.layer = layer(common.FEATURES, hidden)
        self.head = nn.Linear(hidden, common.CLASSES)

    def forward(self, x_TBI):
        return self.head(self.layer(x_TBI)[0][-1])


def train(model, optimizer, x_TNI, y_N, batch):
    for indices_B in torch.randperm(len(y_N), device="cuda").split(batch):
        optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(model(x_TNI.index_select(1, indices_B)), y_N[indices_B])
        loss.backward()
        optimizer.step()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", choices=LAYERS, default="basic")
    for name, default in (("hidden", common.HIDDEN), ("batch", common.BATCH), ("epochs", 4)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--tf32", action="store_true")
    parser.add_argument("--mnist", type=Path, required=True, help="the folder with MNIST/raw/*.gz")
    parser.add_argument("--limit", type=int)
    options = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = options.tf32
    torch.manual_seed(0)
    training, validation = (
        (torch.from_numpy(x_NTI).transpose(0, 1).contiguous().cuda(), torch.from_numpy(y_N).cuda())
        for x_NTI, y_N in common.read_mnist(options)
    )
    model = Classifier(LAYERS[options.model], options.hidden).cuda()
    optimizer = torch.optim.Adam(model.parameters(), lr=common.LEARNING_RATE, fused=True)
    seconds = []
    for _ in range(options.epochs):
        torch.cuda.synchronize()
        began = time.perf_counter()
        train(model, optimizer, *training, options.batch)
        torch.cuda.synchronize()
        seconds.append(round(time.perf_counter() - began, 4))
    with torch.inference_mode():
        accuracy = (model(validation[0]).argmax(1) == validation[1]).float().mean().item()
    print(json.dumps({"epoch_seconds": seconds, "validation_accuracy": round(accuracy, 4)}))


main()
