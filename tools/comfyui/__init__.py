"""A real ComfyUI for tools and tests: as a server, in this process, and in a browser."""
