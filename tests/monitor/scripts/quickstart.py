"""Classify by a small network: a dataset, loaders with workers, a loop to train and one to test."""

import argparse

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=3)
args = parser.parse_args()
torch.manual_seed(0)
torch.set_num_threads(1)


class Rings(Dataset):
    def __init__(self, size):
        self.points = torch.randn(size, 2)
        self.labels = (self.points.norm(dim=1) > 1.2).long()

    def __len__(self):
        return len(self.points)

    def __getitem__(self, index):
        return self.points[index], self.labels[index]


class NeuralNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.flatten = nn.Flatten()
        self.linear_relu_stack = nn.Sequential(
            nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2)
        )

    def forward(self, x):
        return self.linear_relu_stack(self.flatten(x))


def train(dataloader, model, loss_fn, optimizer):
    model.train()
    for X, y in dataloader:
        loss = loss_fn(model(X), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    print(f"loss: {loss.item():.6f}")


def test(dataloader, model):
    model.eval()
    correct = 0
    with torch.no_grad():
        for X, y in dataloader:
            correct += (model(X).argmax(1) == y).sum().item()
    print(f"accuracy: {correct / len(dataloader.dataset):.3f}")


if __name__ == "__main__":
    model = NeuralNetwork()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    train_loader = DataLoader(Rings(256), batch_size=32, shuffle=True, num_workers=2)
    test_loader = DataLoader(Rings(64), batch_size=64)
    for epoch in range(args.epochs):
        print(f"epoch {epoch + 1}")
        train(train_loader, model, nn.CrossEntropyLoss(), optimizer)
        test(test_loader, model)
    print("done")
