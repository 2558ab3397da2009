"""Everything of diffusers, transformers and peft: bases, backbone, adapter, device."""
