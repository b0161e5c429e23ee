"""Predict a wave by two recurrent cells in double precision, with LBFGS and its closure."""

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)


class Sequence(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm1 = nn.LSTMCell(1, 8)
        self.lstm2 = nn.LSTMCell(8, 8)
        self.linear = nn.Linear(8, 1)

    def forward(self, wave):
        outputs = []
        h_t, c_t = (torch.zeros(wave.size(0), 8, dtype=torch.double) for _ in range(2))
        h_t2, c_t2 = (torch.zeros(wave.size(0), 8, dtype=torch.double) for _ in range(2))
        for input_t in wave.split(1, dim=1):
            h_t, c_t = self.lstm1(input_t, (h_t, c_t))
            h_t2, c_t2 = self.lstm2(h_t, (h_t2, c_t2))
            outputs.append(self.linear(h_t2))
        return torch.cat(outputs, dim=1)


data = torch.sin(torch.arange(20) / 3 + torch.rand(6, 1) * 6).double()
seq = Sequence().double()
criterion = nn.MSELoss()
optimizer = torch.optim.LBFGS(seq.parameters(), lr=0.8, max_iter=5)
for _ in range(6):

    def closure():
        optimizer.zero_grad()
        loss = criterion(seq(data[:, :-1]), data[:, 1:])
        print("loss:", loss.item())
        loss.backward()
        return loss

    optimizer.step(closure)
