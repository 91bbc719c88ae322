"""Model folders: names, files and weights, in our layout and in the published one."""
