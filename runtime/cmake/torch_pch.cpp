// Carries the pre-compiled <torch/torch.h> that all torch units share; has no code of its own.
