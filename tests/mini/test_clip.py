"""The image tower's start: what trained towers have in common."""

import torch

from sine_cli.mini.clip import WIDTH, new_clip, start_like_trained


def test_patches_begin_by_looking_at_patches_like_themselves() -> None:
    torch.manual_seed(0)
    vision = new_clip(100).vision_model
    start_like_trained(vision)
    for layer in vision.encoder.layers:
        attention = layer.self_attn
        mixing = attention.out_proj.weight @ attention.v_proj.weight
        looking = attention.q_proj.weight.T @ attention.k_proj.weight
        assert torch.diagonal(mixing).mean() < -0.2, "values are taken away"
        assert torch.diagonal(looking).mean() > 0.2, "near the identity, summed over heads"
        assert (mixing - torch.diag(torch.diagonal(mixing))).abs().mean() < 0.1
    places = vision.embeddings.position_embedding.weight[1:]
    near, far = (places[0] @ places[1]).item(), (places[0] @ places[-1]).item()
    assert places.shape == (64, WIDTH)
    assert near > far
