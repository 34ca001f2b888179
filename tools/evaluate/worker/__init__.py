"""One worker: ComfyUI in its process, models loaded once; a task in, figures and pictures out.

Nothing of torch or ComfyUI is imported before the worker has set up its device.
"""
