"""One worker: ComfyUI in its process, models loaded once; tasks in, figures and pictures out.

torch and ComfyUI are imported only after the worker has set up its device.
"""
