"""PyTorch as its tutorials write it: torchvision's data set, ToTensor, a DataLoader, loss.item() each step.

    python benchmarks/peers/torch_tutorial.py --model gru --epochs 3 --threads 1 --mnist DIR

torchvision reads unpacked files only; they are unpacked into a temporary folder, which is not timed.
"""

import gzip
import tempfile
from pathlib import Path

import common

options = common.start(common.parser(__doc__))

import torch  # noqa: E402
import torchvision  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.data import DataLoader, Subset  # noqa: E402
from torchvision import datasets, transforms  # noqa: E402

LAYERS = {"basic": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class Classifier(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.rnn = layer(common.FEATURES, common.HIDDEN, batch_first=True)
        self.fc = nn.Linear(common.HIDDEN, common.CLASSES)

    def forward(self, x):
        output, _ = self.rnn(x)
        return self.fc(output[:, -1, :])


def read_with_torchvision():
    """The training and the validation images, as data sets of (image, label)."""
    with tempfile.TemporaryDirectory() as root:
        raw = Path(root, "MNIST", "raw")
        raw.mkdir(parents=True)
        for packed in (options.mnist / "MNIST" / "raw").glob("*.gz"):
            (raw / packed.stem).write_bytes(gzip.decompress(packed.read_bytes()))
        images = datasets.MNIST(root, train=True, download=False, transform=transforms.ToTensor())
    end = len(images) if options.limit is None else common.VALIDATION + options.limit
    return Subset(images, range(common.VALIDATION, end)), Subset(images, range(common.VALIDATION))


def train(model, loader, criterion, optimizer):
    model.train()
    running_loss = 0.0
    for images, labels in loader:
        images = images.reshape(-1, common.STEPS, common.FEATURES)
        optimizer.zero_grad()
        loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()
        running_loss += loss.item()
    return running_loss / len(loader)


def evaluate(model, loader):
    model.eval()
    correct = total = 0
    with torch.no_grad():
        for images, labels in loader:
            predicted = model(images.reshape(-1, common.STEPS, common.FEATURES)).argmax(dim=1)
            correct += (predicted == labels).sum().item()
            total += labels.size(0)
    return correct / total


def main():
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    train_set, validation_set = read_with_torchvision()
    loader = DataLoader(train_set, batch_size=common.BATCH, shuffle=True)
    model = Classifier(LAYERS[options.model])
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=common.LEARNING_RATE)
    stopwatch = common.Stopwatch()
    for _ in range(options.epochs):
        with stopwatch:
            train(model, loader, criterion, optimizer)
    accuracy = evaluate(model, DataLoader(validation_set, batch_size=1000))
    common.report(options, stopwatch.seconds, accuracy, common.versions(torch, torchvision))


main()
