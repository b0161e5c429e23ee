"""A convolutional GAN: two networks, two optimizers, weights drawn by hand."""

import torch
from torch import nn, optim

torch.manual_seed(0)
torch.set_num_threads(1)
nz, ngf, ndf, batch_size = 8, 8, 8, 16


def weights_init(m):
    if "Conv" in type(m).__name__:
        nn.init.normal_(m.weight.data, 0.0, 0.02)
    elif "BatchNorm" in type(m).__name__:
        nn.init.normal_(m.weight.data, 1.0, 0.02)
        nn.init.constant_(m.bias.data, 0)


class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.main = nn.Sequential(
            nn.ConvTranspose2d(nz, ngf, 4, 1, 0, bias=False),
            nn.BatchNorm2d(ngf),
            nn.ReLU(True),
            nn.ConvTranspose2d(ngf, 1, 4, 2, 1, bias=False),
            nn.Tanh(),
        )

    def forward(self, x):
        return self.main(x)


class Discriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(1, ndf, 4, 2, 1, bias=False),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(ndf, 1, 4, 1, 0, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x):
        return self.main(x).view(-1)


gen, disc = Generator(), Discriminator()
gen.apply(weights_init)
disc.apply(weights_init)
criterion = nn.BCELoss()
disc_optimizer = optim.Adam(disc.parameters(), lr=2e-4, betas=(0.5, 0.999))
gen_optimizer = optim.Adam(gen.parameters(), lr=2e-4, betas=(0.5, 0.999))
for i in range(12):
    disc.zero_grad()
    real = torch.rand(batch_size, 1, 8, 8) * 2 - 1
    disc_real = criterion(disc(real), torch.ones(batch_size))
    disc_real.backward()
    fake = gen(torch.randn(batch_size, nz, 1, 1))
    disc_fake = criterion(disc(fake.detach()), torch.zeros(batch_size))
    disc_fake.backward()
    disc_optimizer.step()
    gen.zero_grad()
    gen_loss = criterion(disc(fake), torch.ones(batch_size))
    gen_loss.backward()
    gen_optimizer.step()
    print(f"[{i}/12] Loss_D: {(disc_real + disc_fake).item():.4f} Loss_G: {gen_loss.item():.4f}")
