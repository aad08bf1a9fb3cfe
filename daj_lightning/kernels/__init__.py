import torch


def grad_bank_dot(bank, vector):
    return torch.mv(bank.to(vector.dtype), vector)


def grad_bank_combine(bank, weights):
    return torch.mv(bank.to(weights.dtype).T, weights)
