"""A network that standardizes without a floor: the batch whose feature is constant makes the first NaN."""

import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(0)
torch.set_num_threads(1)


class Standardize(nn.Module):
    def forward(self, x):
        return (x - x.mean(dim=0)) / x.std(dim=0)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(8, 16)
        self.standardize = Standardize()
        self.fc2 = nn.Linear(16, 3)

    def forward(self, x):
        return self.fc2(F.relu(self.standardize(self.fc1(x))))


net = Net()
optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
for step in range(8):
    inputs = torch.randn(32, 8) if step != 5 else torch.zeros(32, 8)
    optimizer.zero_grad()
    loss = F.cross_entropy(net(inputs), torch.randint(0, 3, (32,)))
    loss.backward()
    optimizer.step()
    print(f"{step}: {loss.item():.4f}")
