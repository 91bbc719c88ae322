"""Parts that know nothing of NOVA: attention, transformer blocks, positions, patches, modulation."""
