"""ComfyUI's own templates that use a reference, watched with one click and run with tiny models."""
