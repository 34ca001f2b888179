"""A real ComfyUI to work with: as a server, in this process, and in a browser."""
