"""PyTorch as a careful user writes it: tensors in memory, batches by index, time first, no denormal numbers.

python benchmarks/peers/torch_tensors.py --model gru --epochs 3 --threads 1 --mnist DIR
"""

import common

parser = common.parser(__doc__)
parser.add_argument("--adam", choices=("fused", "foreach", "loop"), default="fused", help="which of torch's")
options = common.start(parser)

import torch  # noqa: E402
from torch import nn  # noqa: E402

LAYERS = {"basic": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class Classifier(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer(common.FEATURES, common.HIDDEN)
        self.head = nn.Linear(common.HIDDEN, common.CLASSES)

    def forward(self, x_TBI):
        return self.head(self.layer(x_TBI)[0][-1])


def train(model, optimizer, x_TNI, y_N):
    for indices_B in torch.randperm(len(y_N)).split(common.BATCH):
        optimizer.zero_grad(set_to_none=True)
        logits_BC = model(x_TNI.index_select(1, indices_B))
        nn.functional.cross_entropy(logits_BC, y_N[indices_B]).backward()
        optimizer.step()


def main():
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    training, validation = (
        (torch.from_numpy(x_NTI).transpose(0, 1).contiguous(), torch.from_numpy(y_N))
        for x_NTI, y_N in common.read_mnist(options)
    )
    model = Classifier(LAYERS[options.model])
    kind = {name: options.adam == name for name in ("fused", "foreach")}
    optimizer = torch.optim.Adam(model.parameters(), lr=common.LEARNING_RATE, **kind)
    stopwatch = common.Stopwatch()
    for _ in range(options.epochs):
        with stopwatch:
            train(model, optimizer, *training)
    with torch.inference_mode():
        accuracy = (model(validation[0]).argmax(1) == validation[1]).float().mean().item()
    common.report(options, stopwatch.seconds, accuracy, common.versions(torch))


main()
